package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/goldenisc/packer-plugin-isc/signing"
)

func newKeygen(a *app) *cobra.Command {
	var prefix string
	var force bool
	c := &cobra.Command{
		Use:   "keygen -o PREFIX",
		Short: "Make a key pair: PREFIX.key, encrypted, and PREFIX.pub",
		Long: `Make a key pair for signing releases, as cosign makes it: PREFIX.key is encrypted
with the password of $COSIGN_PASSWORD (empty is the empty password), which a
terminal is asked for if it is not set; PREFIX.pub is for those who verify.`,
		Args: cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			return a.keygen(prefix, force)
		},
	}
	c.Flags().StringVarP(&prefix, "output", "o", "", "`PREFIX` of the two files")
	c.Flags().BoolVarP(&force, "force", "F", false, "replace files that exist")
	c.MarkFlagRequired("output")
	return c
}

func (a *app) keygen(prefix string, force bool) error {
	private, public := prefix+".key", prefix+".pub"
	if !force {
		for _, name := range []string{private, public} {
			if _, err := os.Lstat(name); err == nil {
				return badInput(fmt.Errorf("keygen: %q exists: not replaced without -F", name))
			} else if !errors.Is(err, fs.ErrNotExist) {
				return err
			}
		}
	}
	key, pub, err := signing.Generate(a.password)
	if err != nil {
		return err
	}
	// Without the private half the public one is nothing that anybody would miss.
	if err := writeFile(private, 0o600, bytesTo(key)); err != nil {
		return err
	}
	if err := writeFile(public, 0o644, bytesTo(pub)); err != nil {
		return errors.Join(err, os.Remove(private))
	}
	k, err := signing.ParsePublicKey(pub)
	if err != nil {
		return err
	}
	a.printf("%s\n%s\n", private, public)
	return a.document(map[string]string{"private": private, "public": public, "key": k.ID(), "algorithm": k.Algorithm()})
}

// password is a [signing.PasswordFunc]: $COSIGN_PASSWORD, or what a terminal is asked for.
func (a *app) password(confirm bool) ([]byte, error) {
	if v, ok := os.LookupEnv("COSIGN_PASSWORD"); ok {
		return []byte(v), nil
	}
	f, ok := terminal(a.in)
	if !ok {
		return nil, badInput(errors.New("COSIGN_PASSWORD is not set, and nobody can be asked for the password of the key"))
	}
	ask := func(prompt string) ([]byte, error) {
		fmt.Fprint(a.diag, prompt)
		defer fmt.Fprintln(a.diag)
		return term.ReadPassword(int(f.Fd()))
	}
	p, err := ask("Password of the key: ")
	if err != nil || !confirm {
		return p, err
	}
	again, err := ask("The same again: ")
	if err != nil {
		return nil, err
	}
	if !bytes.Equal(p, again) {
		return nil, badInput(errors.New("the passwords differ"))
	}
	return p, nil
}

// openKey finds the key to sign with.
func (a *app) openKey(ctx context.Context, ref string) (*signing.Key, error) {
	if ref == "" {
		return nil, badInput(errors.New("--key KEY is missing"))
	}
	k, err := signing.OpenKey(ctx, ref, a.password)
	return k, badInput(err)
}

// publicKeys finds the keys to verify with.
func publicKeys(ctx context.Context, refs []string) ([]*signing.PublicKey, error) {
	var keys []*signing.PublicKey
	for _, ref := range refs {
		k, err := signing.OpenPublicKey(ctx, ref)
		if err != nil {
			return nil, badInput(err)
		}
		keys = append(keys, k)
	}
	return keys, nil
}
