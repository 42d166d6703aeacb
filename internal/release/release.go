// Package release says of images that they are releases: it signs them with the attestations that they
// bring, and makes, renews and withdraws releases, as docs/releases.md tells users. Statements about an
// image stand beside it, in the layout or registry where it is.
//
// Everything here can be done again: what has been said already is left as it is.
package release

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"time"

	"github.com/goldenisc/packer-plugin-isc/builder"
	"github.com/goldenisc/packer-plugin-isc/image"
	"github.com/goldenisc/packer-plugin-isc/registry"
	"github.com/goldenisc/packer-plugin-isc/signing"
)

// ErrRefused is the kind of error of a statement that must not be made: there is no release to base it
// on, or the image is withdrawn.
var ErrRefused = errors.New("refused")

// ErrInput is the kind of error of options that make no statement.
var ErrInput = errors.New("invalid")

// A Subject is an image to say something about, where it is, and the key to sign that with.
type Subject struct {
	Ref   registry.Ref
	Image *registry.Image
	Key   *signing.Key

	to   registry.Target
	said []signing.Candidate // of the image, so far
}

// New reads the image that ref names and what is said of it.
func New(ctx context.Context, to registry.Target, ref registry.Ref, key *signing.Key) (*Subject, error) {
	m, err := registry.ReadImage(ctx, to, cmp.Or(ref.Digest, ref.Tag))
	if err != nil {
		return nil, err
	}
	s := &Subject{Ref: ref, Image: m, Key: key, to: to}
	if s.said, err = registry.Statements(ctx, to, m.Digest()); err != nil {
		return nil, undetermined(err)
	}
	return s, nil
}

// undetermined makes err that of a question without an answer.
func undetermined(err error) error {
	if err == nil || errors.Is(err, signing.ErrUndetermined) {
		return err
	}
	return fmt.Errorf("%w (%w)", err, signing.ErrUndetermined)
}

// Digest is that of the image's index.
func (s *Subject) Digest() string { return s.Image.Digest() }

// Releases returns those of the image by the key, the newest first.
func (s *Subject) Releases() []*signing.Release {
	return signing.Releases(s.Digest(), s.said, s.Key.Public())
}

// Revoked says whether the key has withdrawn the image.
func (s *Subject) Revoked() bool {
	d, err := signing.Verify(signing.Input{
		Digest: s.Digest(), Reference: s.Ref.String(), Candidates: s.said,
		Policy: signing.ForKeys(s.Key.Public()), Now: time.Now(),
	})
	return err != nil && d != nil && d.Revocation != nil
}

// An Encoding says how the signature is written.
type Encoding string

const (
	Both    Encoding = "both"    // the default
	Bundle  Encoding = "bundle"  // Sigstore's, as referrers of the image
	Classic Encoding = "classic" // the .sig tag that podman and skopeo read
)

// Options say what is released how.
type Options struct {
	Channel      string
	Epoch        int64 // 0: one more than the highest in the channel, or the image's own
	Lifetime     time.Duration
	MinimumEpoch int64 // releases of the channel below are withdrawn
	Encoding     Encoding
	Identity     string // HOST/REPO that the classic signature names; default that of the place
	// EpochKeys are those, beside the signing key, whose releases count for an epoch that is found out.
	// Others' do not: who may write to a registry, but has no key, could use up all epochs.
	EpochKeys []*signing.PublicKey
	// Held is what this host has acquired of the name in the channel, for epochs found out outside of
	// a registry.
	Held signing.Acquired
}

// Check returns what is wrong with options, an ErrInput.
func (o *Options) Check() error {
	switch o.Encoding {
	case "", Both, Bundle, Classic:
	default:
		return fmt.Errorf("%w: signature format %q is none of bundle, classic and both", ErrInput, o.Encoding)
	}
	if o.Identity == "" {
		return nil
	}
	if ref, err := registry.Parse(o.Identity); err != nil || ref.Place != registry.InRegistry || o.Identity != ref.Host+"/"+ref.Repo {
		return fmt.Errorf("%w: identity %q: want HOST/REPO", ErrInput, o.Identity)
	}
	return nil
}

// Release signs the image and releases it. A release that says the same but for its times, and has not
// expired, is left as it is.
func (s *Subject) Release(ctx context.Context, o Options) (*signing.Release, error) {
	if err := o.Check(); err != nil {
		return nil, err
	}
	epoch, err := s.epoch(ctx, o)
	if err != nil {
		return nil, err
	}
	now := time.Now().UTC().Truncate(time.Second)
	c := s.Image.Config
	r := signing.Release{
		Name: c.Name, Version: c.Version, Channel: o.Channel, Epoch: epoch,
		Issued: now, Expires: now.Add(o.Lifetime), MinimumEpoch: o.MinimumEpoch,
	}
	if r.Artifacts, r.Increments, err = artifacts(c); err != nil {
		return nil, err
	}
	st, err := r.Statement(s.Digest())
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrInput, err)
	}
	if err := s.sign(ctx, o); err != nil {
		return nil, err
	}
	for _, old := range s.Releases() {
		if old.Channel == r.Channel && old.Epoch == r.Epoch && old.MinimumEpoch == r.MinimumEpoch && time.Now().Before(old.Expires) {
			return old, nil
		}
	}
	return &r, s.attach(ctx, r.Issued, nil, st)
}

// artifacts lists those of an image, and from where its increments lead to it.
func artifacts(c *image.Config) (list []signing.Artifact, increments []signing.Increment, err error) {
	for _, a := range c.Artifacts {
		list = append(list, signing.Artifact{
			Name: a.Name, MediaType: a.MediaType, Digest: a.Digest, Size: a.Size,
			UncompressedDigest: a.UncompressedDigest, UncompressedSize: a.UncompressedSize,
		})
		if a.Kind != image.KindIncrement {
			continue
		}
		guid, err := strconv.ParseUint(a.Attributes[image.AttrFromGUID], 10, 64)
		if err != nil {
			return nil, nil, fmt.Errorf("artifact %q: attribute %s: %w", a.Name, image.AttrFromGUID, err)
		}
		increments = append(increments, signing.Increment{From: a.From, FromGUID: guid, Artifact: a.Digest})
	}
	return list, increments, nil
}

// Countersign signs the newest release of the channel by another key as it is: where a policy wants
// several keys they must say the same.
func (s *Subject) Countersign(ctx context.Context, by *signing.PublicKey, o Options) (*signing.Release, error) {
	if err := o.Check(); err != nil {
		return nil, err
	}
	for _, r := range signing.Releases(s.Digest(), s.said, by) {
		if r.Channel != o.Channel || r.Name != s.Image.Config.Name {
			continue
		}
		st, err := r.Statement(s.Digest())
		if err != nil {
			return nil, err
		}
		if err := s.sign(ctx, o); err != nil {
			return nil, err
		}
		return r, s.attach(ctx, r.Issued, nil, st)
	}
	return nil, fmt.Errorf("%w: there is no release of %q by that key to sign", ErrRefused, o.Channel)
}

// Refresh states the newest release of each channel, or of the one given, anew, so that it expires
// later. It returns what holds then.
func (s *Subject) Refresh(ctx context.Context, channel string, lifetime time.Duration) ([]*signing.Release, error) {
	if s.Revoked() {
		return nil, fmt.Errorf("%w: the image is revoked", ErrRefused)
	}
	done := map[string]bool{}
	var list []*signing.Release
	for _, r := range s.Releases() {
		if done[r.Channel] || channel != "" && r.Channel != channel {
			continue
		}
		done[r.Channel] = true
		now := time.Now().UTC().Truncate(time.Second)
		if until := now.Add(lifetime); until.After(r.Expires) {
			r.Issued, r.Expires = now, until
			st, err := r.Statement(s.Digest())
			if err != nil {
				return nil, err
			}
			if err := s.attach(ctx, r.Issued, nil, st); err != nil {
				return nil, err
			}
		}
		list = append(list, r)
	}
	if len(list) == 0 {
		return nil, fmt.Errorf("%w: there is no release of this key to refresh", ErrRefused)
	}
	return list, nil
}

// Revoke withdraws the image, in every channel and for good.
func (s *Subject) Revoke(ctx context.Context, reason string) error {
	r := signing.Revocation{Name: s.Image.Config.Name, Reason: reason, Issued: time.Now().UTC().Truncate(time.Second)}
	st, err := r.Statement(s.Digest())
	if err != nil {
		return fmt.Errorf("%w: %w", ErrInput, err)
	}
	if s.Revoked() {
		return nil
	}
	return s.attach(ctx, r.Issued, nil, st)
}

// attach signs statements, and attaches what is not there yet. The time in the manifests is one that
// the statements follow from, so that the same statement is the same manifest.
func (s *Subject) attach(ctx context.Context, created time.Time, classic *signing.Classic, statements ...*signing.Statement) error {
	d := s.Image.Descriptor
	subject := signing.Descriptor{MediaType: d.MediaType, Digest: d.Digest, Size: d.Size}
	var list []*signing.Manifest
	for _, st := range statements {
		b, err := signing.SignBundle(ctx, s.Key, st)
		if err != nil {
			return err
		}
		m, err := signing.Referrer(b, subject, created)
		if err != nil {
			return err
		}
		list = append(list, m)
	}
	return registry.Attach(ctx, s.to, s.Digest(), list, classic)
}

// sign writes the signature in the encodings that are wanted, and with the bundle the attestations of
// what the image holds: its SBOMs and its provenance.
func (s *Subject) sign(ctx context.Context, o Options) error {
	var statements []*signing.Statement
	var err error
	if o.Encoding != Classic && !s.signed(false) {
		if statements, err = s.statements(ctx); err != nil {
			return err
		}
	}
	var c *signing.Classic
	if o.Encoding != Bundle && !s.signed(true) {
		identity := o.Identity
		if identity == "" {
			// A layout is in no repository. Who demands one gives it, or signs where the image is.
			if identity = "localhost/" + s.Image.Config.Name; s.Ref.Place == registry.InRegistry {
				identity = s.Ref.Host + "/" + s.Ref.Repo
			}
		}
		if c, err = signing.SignClassic(ctx, s.Key, signing.ClassicPayload{Reference: identity, Digest: s.Digest()}); err != nil {
			return err
		}
	}
	return s.attach(ctx, s.Image.Config.Created, c, statements...)
}

// statements are the attestations, and then the signature: if that is there, they are, too.
func (s *Subject) statements(ctx context.Context) ([]*signing.Statement, error) {
	predicates, err := builder.Predicates(ctx, s.Image)
	if err != nil {
		return nil, err
	}
	var list []*signing.Statement
	for _, p := range predicates {
		st, err := signing.NewStatement(s.Digest(), p.Type, p.Data)
		if err != nil {
			return nil, fmt.Errorf("artifact %q: %w", p.Artifact, err)
		}
		list = append(list, st)
	}
	st, err := signing.NewSignature(s.Digest())
	return append(list, st), err
}

// signed says whether there is a signature by the key: keys of plugins would make another each time.
func (s *Subject) signed(classic bool) bool {
	return slices.ContainsFunc(s.said, func(c signing.Candidate) bool {
		switch {
		case classic != (c.Classic != nil):
			return false
		case classic:
			p, err := c.Classic.Parse()
			want := s.Ref.Host + "/" + s.Ref.Repo
			return err == nil && c.Classic.Verify(s.Key.Public()) == nil && p.Digest == s.Digest() &&
				(s.Ref.Place != registry.InRegistry || p.Reference == want)
		}
		b, err := signing.ParseBundle(c.Bundle)
		if err != nil || b.Verify(s.Key.Public()) != nil {
			return false
		}
		st, err := signing.ParseStatement(b.Payload)
		return err == nil && st.PredicateType == signing.PredicateSignature && st.About(s.Digest())
	})
}

// epoch is the one that was asked for, or the one after the highest in the channel. If the image itself
// is the highest it keeps its epoch.
func (s *Subject) epoch(ctx context.Context, o Options) (int64, error) {
	if o.Epoch != 0 {
		return o.Epoch, nil
	}
	name := s.Image.Config.Name
	highest, digest, err := highestEpoch(ctx, s.to, name, o.Channel, append(slices.Clone(o.EpochKeys), s.Key.Public()))
	if err != nil {
		return 0, undetermined(fmt.Errorf("the highest epoch of %q in %q could not be found out: %w", name, o.Channel, err))
	}
	if s.Ref.Place != registry.InRegistry && o.Held.Epoch > highest {
		highest, digest = o.Held.Epoch, o.Held.Digest
	}
	if digest == s.Digest() {
		return highest, nil
	}
	return highest + 1, nil
}

// highestEpoch looks through all that is in a place.
func highestEpoch(ctx context.Context, from registry.Store, name, channel string, keys []*signing.PublicKey) (epoch int64, digest string, err error) {
	subjects, err := registry.Subjects(ctx, from)
	if err != nil {
		return 0, "", err
	}
	for _, d := range subjects {
		said, err := registry.Statements(ctx, from, d)
		if err != nil {
			return 0, "", err
		}
		for _, r := range signing.Releases(d, said, keys...) {
			if r.Name == name && r.Channel == channel && r.Epoch > epoch {
				epoch, digest = r.Epoch, d
			}
		}
	}
	return epoch, digest, nil
}
