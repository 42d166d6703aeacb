package main

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"github.com/goldenisc/packer-plugin-isc/builder"
	"github.com/goldenisc/packer-plugin-isc/registry"
	"github.com/goldenisc/packer-plugin-isc/signing"
)

// signFlags are shared by the verbs that sign.
type signFlags struct {
	state        stateFlag
	key          string
	channel      string
	epoch        string
	expires      string
	minimumEpoch int64
	format       string
	identity     string
	countersign  string
	plainHTTP    bool
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
			return a.withTarget(c.Context(), args[0], &s, func(ctx context.Context, t *target) error {
				do := a.release
				if s.countersign != "" {
					do = a.countersign
				}
				r, err := do(ctx, t, &s)
				if err != nil {
					return err
				}
				return a.released(t, r)
			})
		},
	}
	s.flags(c)
	c.Flags().StringVar(&s.countersign, "countersign", "", "sign the very release that the public key `PUB` signed, for policies that want several keys")
	c.Flags().BoolVar(&s.plainHTTP, "plain-http", false, "speak HTTP also to registries on other machines")
	return c
}

// A target is an image to say something about, where it is, and the key to sign that with.
type target struct {
	registry.Target
	ref   registry.Ref
	image *registry.Image
	key   *signing.Key
	// said is what is said of the image already.
	said []signing.Candidate
}

// withTarget opens the key and the image for f.
func (a *app) withTarget(ctx context.Context, name string, s *signFlags, f func(context.Context, *target) error) error {
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
	to, err := registry.OpenTarget(ctx, ref, registry.Options{PlainHTTP: s.plainHTTP})
	if err != nil {
		return err
	}
	defer to.Close()
	t, err := newTarget(ctx, to, ref, key)
	if err != nil {
		return err
	}
	return f(ctx, t)
}

func newTarget(ctx context.Context, to registry.Target, ref registry.Ref, key *signing.Key) (*target, error) {
	m, err := registry.ReadImage(ctx, to, cmp.Or(ref.Digest, ref.Tag))
	if err != nil {
		return nil, err
	}
	t := &target{Target: to, ref: ref, image: m, key: key}
	if t.said, err = registry.Statements(ctx, to, m.Digest()); err != nil {
		return nil, undetermined(err)
	}
	return t, nil
}

// undetermined makes err that of a question without an answer.
func undetermined(err error) error {
	if err == nil {
		return nil
	}
	return &statusError{statusUnknown, err}
}

func (t *target) digest() string { return t.image.Digest() }

// releases returns those of the image by the key, the newest first.
func (t *target) releases() []*signing.Release {
	return signing.Releases(t.digest(), t.said, t.key.Public())
}

// attach signs statements, and attaches what is not there yet. The time in the manifests is one that
// the statements follow from, so that the same statement is the same manifest.
func (t *target) attach(ctx context.Context, created time.Time, classic *signing.Classic, statements ...*signing.Statement) error {
	d := t.image.Descriptor
	subject := signing.Descriptor{MediaType: d.MediaType, Digest: d.Digest, Size: d.Size}
	var list []*signing.Manifest
	for _, s := range statements {
		b, err := signing.SignBundle(ctx, t.key, s)
		if err != nil {
			return err
		}
		m, err := signing.Referrer(b, subject, created)
		if err != nil {
			return err
		}
		list = append(list, m)
	}
	return registry.Attach(ctx, t.Target, t.digest(), list, classic)
}

// sign writes the signature in the encodings that are wanted, and with the bundle the attestations of
// what the image holds: its SBOMs and its provenance.
func (t *target) sign(ctx context.Context, s *signFlags) error {
	bundle, classic, err := formats(s.format)
	if err != nil {
		return err
	}
	var statements []*signing.Statement
	if bundle && !t.signed(false) {
		if statements, err = t.statements(ctx); err != nil {
			return err
		}
	}
	var c *signing.Classic
	if classic && !t.signed(true) {
		identity := s.identity
		if identity == "" {
			// A layout is in no repository. Who demands one wants --identity, or a signature made where it is.
			if identity = "localhost/" + t.image.Config.Name; t.ref.Place == registry.InRegistry {
				identity = t.ref.Host + "/" + t.ref.Repo
			}
		}
		if c, err = signing.SignClassic(ctx, t.key, signing.ClassicPayload{Reference: identity, Digest: t.digest()}); err != nil {
			return err
		}
	}
	return t.attach(ctx, t.image.Config.Created, c, statements...)
}

// statements are the attestations, and then the signature: if that is there, they are, too.
func (t *target) statements(ctx context.Context) ([]*signing.Statement, error) {
	predicates, err := builder.Predicates(ctx, t.image)
	if err != nil {
		return nil, err
	}
	var list []*signing.Statement
	for _, p := range predicates {
		st, err := signing.NewStatement(t.digest(), p.Type, p.Data)
		if err != nil {
			return nil, fmt.Errorf("artifact %q: %w", p.Artifact, err)
		}
		list = append(list, st)
	}
	st, err := signing.NewSignature(t.digest())
	return append(list, st), err
}

func formats(name string) (bundle, classic bool, err error) {
	switch name {
	case "both":
		return true, true, nil
	case "bundle":
		return true, false, nil
	case "classic":
		return false, true, nil
	}
	return false, false, badInput(fmt.Errorf("--signature-format %q is none of bundle, classic and both", name))
}

// signed says whether there is a signature by the key: keys of plugins would make another each time.
func (t *target) signed(classic bool) bool {
	return slices.ContainsFunc(t.said, func(c signing.Candidate) bool {
		switch {
		case classic != (c.Classic != nil):
			return false
		case classic:
			p, err := c.Classic.Parse()
			want := t.ref.Host + "/" + t.ref.Repo
			return err == nil && c.Classic.Verify(t.key.Public()) == nil && p.Digest == t.digest() &&
				(t.ref.Place != registry.InRegistry || p.Reference == want)
		}
		b, err := signing.ParseBundle(c.Bundle)
		if err != nil || b.Verify(t.key.Public()) != nil {
			return false
		}
		s, err := signing.ParseStatement(b.Payload)
		return err == nil && s.PredicateType == signing.PredicateSignature && s.About(t.digest())
	})
}

// release signs the image and releases it. A release that says the same but for its times, and has
// not expired, is left as it is.
func (a *app) release(ctx context.Context, t *target, s *signFlags) (*signing.Release, error) {
	lifetime, err := signing.ParseDuration(s.expires)
	if err != nil {
		return nil, badInput(fmt.Errorf("--expires: %w", err))
	}
	if _, _, err := formats(s.format); err != nil {
		return nil, err
	}
	epoch, err := t.epoch(ctx, s)
	if err != nil {
		return nil, err
	}
	r := newRelease(t.image, s.channel, epoch, time.Now(), lifetime)
	r.MinimumEpoch = s.minimumEpoch
	st, err := r.Statement(t.digest())
	if err != nil {
		return nil, badInput(err)
	}
	if err := t.sign(ctx, s); err != nil {
		return nil, err
	}
	for _, old := range t.releases() {
		if old.Channel == r.Channel && old.Epoch == r.Epoch && old.MinimumEpoch == r.MinimumEpoch && time.Now().Before(old.Expires) {
			return old, nil
		}
	}
	return &r, t.attach(ctx, r.Issued, nil, st)
}

// countersign signs the newest release of the channel by another key as it is: where a policy wants
// several keys they must say the same.
func (a *app) countersign(ctx context.Context, t *target, s *signFlags) (*signing.Release, error) {
	keys, err := publicKeys(ctx, []string{s.countersign})
	if err != nil {
		return nil, err
	}
	for _, r := range signing.Releases(t.digest(), t.said, keys...) {
		if r.Channel != s.channel || r.Name != t.image.Config.Name {
			continue
		}
		st, err := r.Statement(t.digest())
		if err != nil {
			return nil, err
		}
		if err := t.sign(ctx, s); err != nil {
			return nil, err
		}
		return r, t.attach(ctx, r.Issued, nil, st)
	}
	return nil, &statusError{statusNo, fmt.Errorf("sign %q: there is no release of %q by the key %q to sign", t.ref, s.channel, s.countersign)}
}

// newRelease makes the release of an image.
func newRelease(m *registry.Image, channel string, epoch int64, now time.Time, lifetime time.Duration) signing.Release {
	c := m.Config
	now = now.UTC().Truncate(time.Second)
	r := signing.Release{Name: c.Name, Version: c.Version, Channel: channel, Epoch: epoch, Issued: now, Expires: now.Add(lifetime)}
	for _, art := range c.Artifacts {
		r.Artifacts = append(r.Artifacts, signing.Artifact{
			Name: art.Name, MediaType: art.MediaType, Digest: art.Digest, Size: art.Size,
			UncompressedDigest: art.UncompressedDigest, UncompressedSize: art.UncompressedSize,
		})
	}
	return r
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
		if at.Digest, err = registry.Copy(ctx, from, at, registry.Options{Progress: a.progress()}); err != nil {
			return nil, err
		}
	}
	target, err := registry.OpenTarget(ctx, at, registry.Options{})
	if err != nil {
		return nil, err
	}
	defer target.Close()
	t, err := newTarget(ctx, target, at, key)
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
