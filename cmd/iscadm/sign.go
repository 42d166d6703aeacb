package main

import (
	"context"
	"fmt"
	"strconv"
	"time"

	"github.com/spf13/cobra"

	"github.com/goldenisc/packer-plugin-isc/internal/release"
	"github.com/goldenisc/packer-plugin-isc/registry"
	"github.com/goldenisc/packer-plugin-isc/signing"
)

// signFlags are shared by the verbs that sign.
type signFlags struct {
	state        stateFlag
	key          string
	channel      string
	epoch        string
	epochKeys    []string
	expires      string
	minimumEpoch int64
	format       string
	identity     string
	countersign  string
}

func (s *signFlags) keyFlags(c *cobra.Command) {
	c.Flags().StringVar(&s.key, "key", "", "`KEY` to sign with: a file, env://VAR, or SCHEME://… of a plugin")
}

func (s *signFlags) flags(c *cobra.Command) {
	s.keyFlags(c)
	s.state.flags(c)
	f := c.Flags()
	f.StringVar(&s.channel, "channel", "stable", "`CHANNEL` to release in")
	f.StringVar(&s.epoch, "epoch", "auto", "`N`umber of the release, higher than any before it in the channel; auto finds it out")
	f.StringArrayVar(&s.epochKeys, "epoch-key", nil, "for --epoch auto, count the releases by the public key `PUB` as well (repeatable); others than by --key do not count")
	f.StringVar(&s.expires, "expires", "90d", "`TIME` after which nobody may take it in: 90d, 12h")
	f.Int64Var(&s.minimumEpoch, "minimum-epoch", 0, "withdraw all releases of the channel below `N`")
	f.StringVar(&s.format, "signature-format", "both", "encoding of the signature: bundle, classic (the .sig tag that podman and skopeo read) or both")
	f.StringVar(&s.identity, "identity", "", "`HOST/REPO` that the classic signature names; default that of REF")
}

func newSign(a *app) *cobra.Command {
	var s signFlags
	c := &cobra.Command{
		Use:   "sign REF --key KEY",
		Short: "Sign an image and release it in a channel",
		Long: `Sign an image in a layout or registry, and state that it is a release: of a
channel, with an epoch that hosts never go back from, until it expires. With
--epoch auto it is one more than the highest that was published in the channel
there; if that cannot be found out nothing is signed (exit status 4). Doing it
again changes nothing; "iscadm refresh" makes it expire later.`,
		Args: cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			return a.withSubject(c.Context(), args[0], &s, func(ctx context.Context, t *release.Subject) error {
				r, err := a.release(ctx, t, &s)
				if err != nil {
					return err
				}
				return a.released(t, r)
			})
		},
	}
	s.flags(c)
	c.Flags().StringVar(&s.countersign, "countersign", "", "sign the very release that the public key `PUB` signed, for policies that want several keys")
	return c
}

// withSubject opens the key and the image for f.
func (a *app) withSubject(ctx context.Context, name string, s *signFlags, f func(context.Context, *release.Subject) error) error {
	ref, err := registry.Parse(name)
	if err != nil {
		return badInput(err)
	}
	key, err := a.openKey(ctx, s.key)
	if err != nil {
		return err
	}
	if ref.Place == registry.InLayout { // opening it for writing would make it
		if _, err := registry.OpenLayout(ref.Path); err != nil {
			return err
		}
	}
	to, err := registry.OpenTarget(ctx, ref, a.registry())
	if err != nil {
		return err
	}
	defer to.Close()
	subject, err := release.New(ctx, to, ref, key)
	if err != nil {
		return err
	}
	return f(ctx, subject)
}

// options reads the flags.
func (s *signFlags) options(ctx context.Context, name string, ref registry.Ref) (release.Options, error) {
	o := release.Options{Channel: s.channel, MinimumEpoch: s.minimumEpoch, Encoding: release.Encoding(s.format), Identity: s.identity}
	var err error
	if o.Lifetime, err = signing.ParseDuration(s.expires); err != nil {
		return o, badInput(fmt.Errorf("--expires: %w", err))
	}
	if s.epoch != "auto" {
		if o.Epoch, err = strconv.ParseInt(s.epoch, 10, 64); err != nil || o.Epoch < 1 {
			return o, badInput(fmt.Errorf("--epoch %q: neither auto nor a number from 1", s.epoch))
		}
		return o, nil
	}
	if o.EpochKeys, err = publicKeys(ctx, s.epochKeys); err != nil {
		return o, err
	}
	if ref.Place != registry.InRegistry {
		if o.Held, err = s.held(ctx, name); err != nil {
			return o, &statusError{statusUnknown, fmt.Errorf("--epoch auto: %w", err)}
		}
	}
	return o, nil
}

// release signs the image and releases it, or signs another's release.
func (a *app) release(ctx context.Context, t *release.Subject, s *signFlags) (*signing.Release, error) {
	o, err := s.options(ctx, t.Image.Config.Name, t.Ref)
	if err != nil {
		return nil, err
	}
	if s.countersign == "" {
		return t.Release(ctx, o)
	}
	keys, err := publicKeys(ctx, []string{s.countersign})
	if err != nil {
		return nil, err
	}
	r, err := t.Countersign(ctx, keys[0], o)
	if err != nil {
		err = fmt.Errorf("sign %q with the release of %q: %w", t.Ref, s.countersign, err)
	}
	return r, err
}

// signBuilt signs a fresh image in the layout that it was built into, for the place that it is
// copied to. Nothing is signed without a key. In a registry the image is there, and signed, before
// its tag moves.
func (a *app) signBuilt(ctx context.Context, key *signing.Key, from, to registry.Ref, s *signFlags) (*releaseDocument, error) {
	if key == nil {
		return nil, nil
	}
	at := from
	if to.Place == registry.InRegistry {
		at = registry.Ref{Place: to.Place, Host: to.Host, Repo: to.Repo}
		var err error
		if at.Digest, err = registry.Copy(ctx, from, at, a.registry()); err != nil {
			return nil, err
		}
	}
	target, err := registry.OpenTarget(ctx, at, a.registry())
	if err != nil {
		return nil, err
	}
	defer target.Close()
	t, err := release.New(ctx, target, at, key)
	if err != nil {
		return nil, err
	}
	r, err := a.release(ctx, t, s)
	if err != nil {
		return nil, err
	}
	a.notef("%s %s: epoch %d in %s, until %s\n", r.Name, r.Version, r.Epoch, r.Channel, r.Expires.Format(time.RFC3339))
	return documentOf(r), nil
}
