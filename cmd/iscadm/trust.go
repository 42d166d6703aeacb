package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/hashicorp/hcl/v2"
	"github.com/spf13/cobra"

	"github.com/goldenisc/packer-plugin-isc/builder"
	"github.com/goldenisc/packer-plugin-isc/host"
	"github.com/goldenisc/packer-plugin-isc/registry"
	"github.com/goldenisc/packer-plugin-isc/signing"
)

// policyFile is the host's policy below the state folder, if the state names no other.
const policyFile = "policy.hcl"

// trustFlags say what vouches for an image.
type trustFlags struct {
	keys   []string
	policy string
}

func (t *trustFlags) flags(c *cobra.Command) {
	c.Flags().StringArrayVar(&t.keys, "key", nil, "take what is released by the public key `PUB` (repeatable: by one of them)")
	c.Flags().StringVar(&t.policy, "policy", "", "take what the policy `FILE` takes; default policy.hcl in the state folder")
	c.MarkFlagsMutuallyExclusive("key", "policy")
}

// load returns the policy that decides: of the flags, else the host's, else nil.
func (t *trustFlags) load(ctx context.Context, dir string, s *host.State) (*signing.Policy, error) {
	if len(t.keys) > 0 {
		keys, err := publicKeys(ctx, t.keys)
		if err != nil {
			return nil, err
		}
		return signing.ForKeys(keys...), nil
	}
	name := t.policy
	if name == "" {
		var err error
		if name, err = policyOf(dir, s); err != nil || name == "" {
			return nil, err
		}
	}
	p, src, diags, err := signing.LoadPolicy(name)
	if err != nil {
		return nil, badInput(err)
	}
	if diags.HasErrors() {
		return nil, badInput(&policyError{name, src, diags})
	}
	return p, nil
}

// policyOf returns the path of the host's policy file, empty if it has none. s may be nil. A file that
// was set and is gone is no reason to do without.
func policyOf(dir string, s *host.State) (string, error) {
	if s != nil && s.Policy != "" {
		return s.Policy, nil
	}
	name := filepath.Join(dir, policyFile)
	if _, err := os.Lstat(name); errors.Is(err, fs.ErrNotExist) {
		return "", nil
	} else if err != nil {
		return "", err
	}
	return name, nil
}

// trust returns what decides about images that a build goes by, or nil if the flags name nothing. That
// a release of them has expired since is no reason to refuse it: nobody is to use it.
func (t *trustFlags) trust(ctx context.Context) (builder.Trust, error) {
	if len(t.keys) == 0 && t.policy == "" {
		return nil, nil
	}
	p, err := t.load(ctx, "", nil)
	if err != nil {
		return nil, err
	}
	return func(ctx context.Context, ref registry.Ref, from registry.Store, m *registry.Image) error {
		_, err := signing.Verify(input(ctx, from, ref, m.Digest(), m.Config.Name, p, nil))
		var refused *signing.Error
		if errors.As(err, &refused) && (refused.Reason == signing.ReasonExpired || refused.Reason == signing.ReasonAge) {
			return nil
		}
		return err
	}, nil
}

// unsignedFlag is that of verbs that go by an image and acquire nothing.
func unsignedFlag(c *cobra.Command, to *bool) {
	c.Flags().BoolVar(to, "unsigned", false, "without keys and policy: believe an image in a registry that nobody has signed, at your own risk")
}

// trusted verifies an image that is gone by and not acquired: that the host has a newer release of it is no
// reason against it. It returns true, and notes it, if nobody was to vouch for it. Refusals are a [signing.Error].
func (a *app) trusted(ctx context.Context, name string, m *registry.Image, store registry.Store, at stateFlag, trust *trustFlags, unsigned bool) (bool, error) {
	ref, err := registry.Parse(name)
	if err != nil {
		return false, badInput(err)
	}
	_, state, dir, err := a.existingHost(ctx, at)
	if err != nil {
		return false, err
	}
	policy, err := trust.load(ctx, dir, state)
	switch {
	case err != nil:
		return false, err
	case policy == nil && ref.Place == registry.InRegistry && !unsigned:
		return false, notVouched(ref)
	case policy == nil:
		a.notef("%s %s: nobody's signature was asked for\n", m.Config.Name, m.Config.Version)
		return true, nil
	}
	if _, err = signing.Verify(input(ctx, store, ref, m.Digest(), m.Config.Name, policy, state)); err != nil {
		return false, fmt.Errorf("%s: %w", ref, err)
	}
	return false, nil
}

// A policyError is all that is wrong with a policy file.
type policyError struct {
	name  string
	src   []byte
	diags hcl.Diagnostics
}

func (e *policyError) Error() string {
	text := fmt.Sprintf("policy %q:", e.name)
	for _, d := range e.diags {
		text += "\n  " + d.Error()
	}
	return text
}

// input collects what a decision about an image is made of. Whether the host acquires anything by it
// is the caller's to say.
func input(ctx context.Context, from registry.Store, ref registry.Ref, digest, name string, p *signing.Policy, s *host.State) signing.Input {
	in := signing.Input{Digest: digest, Reference: ref.String(), Name: name, Policy: p, Now: time.Now()}
	in.Candidates, in.Incomplete = registry.Statements(ctx, from, digest)
	if s != nil {
		for _, m := range s.Images { // a clock that was set back must not bring expired releases to life
			if m.Imported.After(in.NotBefore) {
				in.NotBefore = m.Imported
			}
		}
	}
	return in
}

// acquired is what the host has taken so far.
func acquired(s *host.State) []signing.Acquired {
	var list []signing.Acquired
	for _, e := range s.Epochs {
		list = append(list, signing.Acquired{Name: e.Name, Channel: e.Channel, Epoch: e.Epoch, Digest: e.Digest, MinimumEpoch: e.Minimum})
	}
	return list
}

// note keeps what a decision says of an image that this host holds, for check to report.
func note(ctx context.Context, h *host.Host, s *host.State, d *signing.Decision) error {
	m := s.Image(d.Digest)
	if r := d.Release; r != nil && m != nil && !m.Unsigned && r.MinimumEpoch > 0 {
		if err := h.Withdraw(ctx, r.Name, r.Channel, r.MinimumEpoch); err != nil {
			return err
		}
	}
	switch {
	case m == nil:
		return nil
	case d.Revocation != nil:
		return h.SetRelease(ctx, d.Digest, m.Expires, d.Revocation.Reason)
	case d.Release != nil && d.Release.Expires.After(m.Expires) && !m.Unsigned:
		return h.SetRelease(ctx, d.Digest, d.Release.Expires, m.Revoked)
	}
	return nil
}
