package signing

import (
	"bytes"
	"context"
	"crypto"
	"errors"
	"fmt"
	"io"
	"os"
	"regexp"
	"strings"

	"github.com/sigstore/sigstore/pkg/signature/kms"
	"github.com/sigstore/sigstore/pkg/signature/options"
)

// OpenKey finds a private key by reference: the path of a PEM file; env://VAR for PEM in the
// environment; or SCHEME://… for a key that the program sigstore-kms-SCHEME on PATH holds
// (sigstore's plugin protocol for key management services). pkcs11:… (RFC 7512) is short for
// pkcs11://…. No service is built in.
func OpenKey(ctx context.Context, ref string, password PasswordFunc) (*Key, error) {
	k, err := openKey(ctx, ref, password)
	if err != nil {
		return nil, fmt.Errorf("key %q: %w", ref, err)
	}
	return k, nil
}

func openKey(ctx context.Context, ref string, password PasswordFunc) (*Key, error) {
	if resource, ok := pluginRef(ref); ok {
		return openPlugin(ctx, resource)
	}
	data, err := readKey(ref)
	if err != nil {
		return nil, err
	}
	return ParseKey(data, password)
}

// OpenPublicKey finds a public key by the same kinds of reference as [OpenKey].
func OpenPublicKey(ctx context.Context, ref string) (*PublicKey, error) {
	k, err := openPublicKey(ctx, ref)
	if err != nil {
		return nil, fmt.Errorf("key %q: %w", ref, err)
	}
	return k, nil
}

func openPublicKey(ctx context.Context, ref string) (*PublicKey, error) {
	if resource, ok := pluginRef(ref); ok {
		k, err := openPlugin(ctx, resource)
		if err != nil {
			return nil, err
		}
		return k.public, nil
	}
	data, err := readKey(ref)
	if err != nil {
		return nil, err
	}
	return ParsePublicKey(data)
}

// scheme is what may name a plugin. It becomes part of the name of a program, so nothing that
// could lead to another folder is in it; one letter alone is a drive.
var scheme = regexp.MustCompile(`^[a-z][a-z0-9+.-]+$`)

func pluginRef(ref string) (resource string, ok bool) {
	if rest, ok := strings.CutPrefix(ref, "pkcs11:"); ok {
		return "pkcs11://" + strings.TrimPrefix(rest, "//"), true
	}
	name, _, ok := strings.Cut(ref, "://")
	return ref, ok && name != "env" && scheme.MatchString(name)
}

func readKey(ref string) ([]byte, error) {
	if name, ok := strings.CutPrefix(ref, "env://"); ok {
		value, ok := os.LookupEnv(name)
		if !ok || value == "" {
			return nil, errors.New("the variable is not set")
		}
		return []byte(value), nil
	}
	return readFile(ref, maxKeyFile)
}

// readFile reads a file of at most limit bytes, and one more of a larger one.
func readFile(name string, limit int64) ([]byte, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return io.ReadAll(io.LimitReader(f, limit+1))
}

func openPlugin(ctx context.Context, resource string) (*Key, error) {
	plugin, err := kms.Get(ctx, resource, crypto.SHA256)
	if err != nil {
		return nil, err
	}
	public, err := answer(func() (crypto.PublicKey, error) {
		return plugin.PublicKey(options.WithContext(ctx))
	})
	if err != nil {
		return nil, err
	}
	k, err := newPublicKey(public)
	if err != nil {
		return nil, err
	}
	return &Key{public: k, sign: func(ctx context.Context, message []byte) ([]byte, error) {
		return answer(func() ([]byte, error) {
			return plugin.SignMessage(bytes.NewReader(message), options.WithContext(ctx))
		})
	}}, nil
}

// answer asks a plugin. The client panics if an answer lacks the member that the question is about.
func answer[T any](ask func() (T, error)) (v T, err error) {
	defer func() {
		if r := recover(); r != nil {
			err = errors.New("the plugin's answer does not fit the question")
		}
	}()
	return ask()
}
