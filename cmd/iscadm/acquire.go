package main

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/goldenisc/packer-plugin-isc/host"
	"github.com/goldenisc/packer-plugin-isc/image"
	"github.com/goldenisc/packer-plugin-isc/registry"
	"github.com/goldenisc/packer-plugin-isc/signing"
)

// acquireFlags say what vouches for an image that is taken in, or that nothing needs to.
type acquireFlags struct {
	trustFlags
	unsigned bool
	skip     bool
}

func (f *acquireFlags) flags(c *cobra.Command) {
	f.trustFlags.flags(c)
	c.Flags().BoolVar(&f.unsigned, "unsigned", false, "without keys and policy: take an image from a registry that nobody has signed, at your own risk")
	c.Flags().BoolVar(&f.skip, "insecure-skip-verify", false, "take it whatever the policy says; noted with the image, and reported")
}

// acquire finds an image, makes sure that it may be used and imports it for a platform.
//
// Verification comes first. Then what comes from a registry or an archive is copied into a layout
// below the state folder, where a cut-off copy goes on the next time, and each blob is used only
// after all of it was verified: neither a parser nor a system call ever sees bytes that somebody is
// still sending.
func (a *app) acquire(ctx context.Context, h *host.Host, name, platform string, f acquireFlags) (*host.Image, error) {
	ref, err := registry.Parse(name)
	if err != nil {
		return nil, badInput(err)
	}
	state, err := h.View()
	if err != nil {
		return nil, err
	}
	policy, err := f.load(ctx, h.Dir(), state)
	if err != nil {
		return nil, err
	}
	if policy == nil && ref.Place == registry.InRegistry && !f.unsigned && !f.skip {
		return nil, notVouched(ref)
	}
	m, store, err := a.open(ctx, name)
	if err != nil {
		return nil, err
	}
	defer store.Close()
	q := &acquisition{host: h, state: state, ref: ref, image: m, policy: policy}
	v := &host.Verified{Digest: m.Digest(), Config: m.Config, Unsigned: true, Progress: a.progress()}
	switch {
	case f.skip:
		a.notef("WARNING: %s %s: not verified, as --insecure-skip-verify says\n", m.Config.Name, m.Config.Version)
	case policy == nil:
		a.notef("%s %s: nobody's signature was asked for\n", m.Config.Name, m.Config.Version)
	default:
		if err := a.vouched(ctx, q, store, v); err != nil {
			return nil, err
		}
	}
	held := state.Image(m.Digest())
	if held != nil && slices.Contains(held.Platforms, platform) && held.Unsigned == v.Unsigned {
		return held, q.note(ctx)
	}
	layout, ok := store.(*registry.Layout)
	if !ok {
		dir := filepath.Join(stagingDir(h), strings.TrimPrefix(m.Digest(), "sha256:"))
		if layout, err = a.stage(ctx, ref, m.Digest(), dir); err != nil {
			return nil, err
		}
		defer os.RemoveAll(dir)
	}
	// Two that acquire at the same time are told apart here, before anything is made of the bytes.
	if r := q.release(); r != nil && (held == nil || held.Unsigned) {
		e := host.Epoch{Name: r.Name, Channel: r.Channel, Epoch: r.Epoch, Digest: m.Digest(), Minimum: r.MinimumEpoch}
		if err := h.Acquire(ctx, e); err != nil {
			return nil, err
		}
	}
	v.Source = staged{layout, m.Config}
	in, err := h.Import(ctx, platform, v)
	if err != nil {
		return nil, err
	}
	return in, q.note(ctx)
}

// notVouched is the error of an image that nobody is asked about.
func notVouched(ref registry.Ref) error {
	return &statusError{statusNo, fmt.Errorf("%s: not verified: nothing says whose signature to accept (--key, --policy, a policy of this host; --unsigned takes it as it is)", ref)}
}

// stagingDir is where pulls keep what they have, so that one that broke off goes on from there.
func stagingDir(h *host.Host) string { return filepath.Join(h.Dir(), "staging") }

// An acquisition is one image on its way into the host.
type acquisition struct {
	host     *host.Host
	state    *host.State
	ref      registry.Ref
	image    *registry.Image
	policy   *signing.Policy
	decision *signing.Decision
}

// release is the one by which the image is taken in for the first time, in order; nil if the host
// notes no epoch of it.
func (q *acquisition) release() *signing.Release {
	if q.decision == nil || q.decision.Downgrade {
		return nil
	}
	return q.decision.Release
}

func (q *acquisition) note(ctx context.Context) error {
	if q.decision == nil {
		return nil
	}
	return note(ctx, q.host, q.state, q.decision)
}

// vouched verifies the image, and enters in v who vouches for it. One that this host holds already
// has been verified: going back to it is the host's own affair, whatever its epoch, its expiry or a
// registry that does not answer; a revocation counts all the same.
func (a *app) vouched(ctx context.Context, q *acquisition, store registry.Store, v *host.Verified) error {
	held := q.state.Image(v.Digest)
	local := held != nil && !held.Unsigned
	in := input(ctx, store, q.ref, v.Digest, v.Config.Name, q.policy, q.state)
	if !local {
		in.Acquired = acquired(q.state)
	}
	d, err := signing.Verify(in)
	q.decision = d
	if err != nil {
		if d != nil && d.Revocation != nil {
			return errors.Join(err, q.note(ctx))
		}
		var refused *signing.Error
		if !local || !errors.As(err, &refused) || !slices.Contains([]signing.Reason{signing.ReasonExpired, signing.ReasonAge, signing.ReasonHidden}, refused.Reason) {
			return fmt.Errorf("%s: %w", q.ref, err)
		}
		a.notef("%s %s: this host holds it already; now it would be refused: %v\n", v.Config.Name, v.Config.Version, err)
		v.Unsigned, v.Key, v.Expires = false, held.Key, held.Expires
		return nil
	}
	v.Unsigned, v.Key = false, strings.Join(d.Keys, " ")
	if r := d.Release; r != nil {
		v.Expires = r.Expires
		a.notef("%s %s: epoch %d in %s, until %s\n", r.Name, r.Version, r.Epoch, r.Channel, r.Expires.Format(time.RFC3339))
	}
	return nil
}

// stage copies an image into a layout.
func (a *app) stage(ctx context.Context, ref registry.Ref, digest, dir string) (*registry.Layout, error) {
	// Root's alone, so that nobody puts anything else in the place of what was verified.
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	ref.Tag, ref.Digest = "", digest
	to := registry.Ref{Place: registry.InLayout, Path: dir, Tag: "staged"}
	if _, err := registry.Copy(ctx, ref, to, a.registry()); err != nil {
		return nil, err
	}
	return registry.OpenLayout(dir)
}

// staged hands out the artifacts of an image as files of a layout that were verified on the very
// descriptor they are read from.
type staged struct {
	layout *registry.Layout
	config *image.Config
}

func (s staged) Open(_ context.Context, artifact string) (io.ReadCloser, error) {
	a := s.config.Artifact(artifact)
	if a == nil {
		return nil, fmt.Errorf("artifact %q: %w", artifact, fs.ErrNotExist)
	}
	f, err := s.layout.Open(a.Digest)
	if err != nil {
		return nil, err
	}
	if err := checkArtifact(f, a); err != nil {
		return nil, errors.Join(fmt.Errorf("artifact %q: %w", artifact, err), f.Close())
	}
	return f, nil
}

// checkArtifact compares a file with what the config of its image says of it: its bytes, and what
// they unpack to, of which no more is unpacked than there should be. The file is at its start then.
func checkArtifact(f io.ReadSeeker, a *image.Artifact) error {
	if err := checkDigest(f, a.Size, a.Digest); err != nil {
		return err
	}
	if _, err := f.Seek(0, io.SeekStart); err != nil || a.UncompressedDigest == "" {
		return err
	}
	z, _, err := image.Decompress(f)
	if err != nil {
		return fmt.Errorf("%w: %w", registry.ErrMismatch, err)
	}
	err = checkDigest(z, a.UncompressedSize, a.UncompressedDigest)
	if err = errors.Join(err, z.Close()); err != nil {
		return fmt.Errorf("unpacked: %w", err)
	}
	_, err = f.Seek(0, io.SeekStart)
	return err
}

func checkDigest(r io.Reader, size int64, digest string) error {
	h := sha256.New()
	n, err := io.Copy(h, io.LimitReader(r, size+1))
	if err != nil {
		return err
	}
	if sum := "sha256:" + hex.EncodeToString(h.Sum(nil)); n != size || sum != digest {
		return fmt.Errorf("%w: %d bytes %s, not %d bytes %s", registry.ErrMismatch, n, sum, size, digest)
	}
	return nil
}
