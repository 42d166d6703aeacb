package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/goldenisc/packer-plugin-isc/host"
	"github.com/goldenisc/packer-plugin-isc/registry"
	"github.com/goldenisc/packer-plugin-isc/signing"
)

func newVerify(a *app) *cobra.Command {
	var s stateFlag
	var trust trustFlags
	c := &cobra.Command{
		Use:   "verify REF [--key PUB…|--policy FILE]",
		Short: "Say whether an image is a release that may be used, and why",
		Long: `Say whether the keys given, or the policy, take an image as a release; exit with
0 if so, with 3 if not, and with 4 if it cannot be found out. Everything that
was found beside the image is listed with what became of it. If the state folder
exists, what this host has acquired counts as it does for pull.`,
		Args: cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			return a.verify(c.Context(), args[0], s, &trust)
		},
	}
	s.flags(c)
	trust.flags(c)
	return c
}

// A verifyDocument is what verify --json prints.
type verifyDocument struct {
	Digest    string           `json:"digest"`
	Reference string           `json:"reference"`
	Verified  bool             `json:"verified"`
	Reason    signing.Reason   `json:"reason,omitempty"`
	Error     string           `json:"error,omitempty"`
	Release   *releaseDocument `json:"release,omitempty"`
	Keys      []string         `json:"keys"`
	Revoked   string           `json:"revoked,omitempty"`
	Findings  []signedFinding  `json:"findings"`
}

// A releaseDocument is a release without its artifacts.
type releaseDocument struct {
	Name         string    `json:"name"`
	Version      string    `json:"version"`
	Channel      string    `json:"channel"`
	Epoch        int64     `json:"epoch"`
	Issued       time.Time `json:"issued"`
	Expires      time.Time `json:"expires"`
	MinimumEpoch int64     `json:"minimumEpoch"`
}

// A signedFinding is what became of one candidate.
type signedFinding struct {
	Source  string          `json:"source"`
	Type    string          `json:"type"`
	Key     string          `json:"key,omitempty"`
	Verdict signing.Verdict `json:"verdict"`
	Reason  signing.Reason  `json:"reason,omitempty"`
	Text    string          `json:"text"`
}

func documentOf(r *signing.Release) *releaseDocument {
	if r == nil {
		return nil
	}
	return &releaseDocument{r.Name, r.Version, r.Channel, r.Epoch, r.Issued, r.Expires, r.MinimumEpoch}
}

func findingsOf(list []signing.Finding) []signedFinding {
	out := []signedFinding{}
	for _, f := range list {
		out = append(out, signedFinding{f.Source, f.Type, f.Key, f.Verdict, f.Reason, f.Text})
	}
	return out
}

func (a *app) verify(ctx context.Context, name string, s stateFlag, trust *trustFlags) error {
	ref, err := registry.Parse(name)
	if err != nil {
		return badInput(err)
	}
	h, state, dir, err := a.existingHost(ctx, s)
	if err != nil {
		return err
	}
	p, err := trust.load(ctx, dir, state)
	if err != nil {
		return err
	}
	if p == nil {
		return badInput(errors.New("verify: nothing says whose signature to accept: use --key or --policy, or give this host a policy"))
	}
	store, err := registry.Open(ctx, ref, a.registry())
	if err != nil {
		return err
	}
	defer store.Close()
	root, err := store.Resolve(ctx, cmp.Or(ref.Digest, ref.Tag))
	if err != nil {
		return err
	}
	image, err := nameOf(ctx, store, root.Digest)
	if err != nil {
		return err
	}
	in := input(ctx, store, ref, root.Digest, image, p, state)
	if state != nil && state.Image(root.Digest) == nil {
		in.Acquired = acquired(state)
	}
	d, verr := signing.Verify(in)
	if d != nil && h != nil {
		if err := note(ctx, h, state, d); err != nil {
			return err
		}
	}
	return errors.Join(verr, a.decision(ref, root.Digest, d, verr))
}

// nameOf returns the name of one of our images, nothing of others'.
func nameOf(ctx context.Context, store registry.Store, digest string) (string, error) {
	m, err := registry.ReadImage(ctx, store, digest)
	switch {
	case err == nil:
		return m.Config.Name, nil
	case errors.Is(err, registry.ErrUndetermined), errors.Is(err, registry.ErrMismatch), errors.Is(err, fs.ErrNotExist), ctx.Err() != nil:
		return "", err
	}
	return "", nil
}

// existingHost opens the state folder if there is one: a question makes none.
func (a *app) existingHost(ctx context.Context, s stateFlag) (*host.Host, *host.State, string, error) {
	dir, err := s.path()
	if err != nil {
		return nil, nil, "", err
	}
	if _, err := os.Stat(dir); errors.Is(err, fs.ErrNotExist) {
		return nil, nil, dir, nil
	}
	h, err := a.host(ctx, s)
	if err != nil {
		return nil, nil, "", err
	}
	state, err := h.View()
	return h, state, dir, err
}

// decision prints a decision with its explanation.
func (a *app) decision(ref registry.Ref, digest string, d *signing.Decision, verr error) error {
	if d == nil {
		d = &signing.Decision{Digest: digest}
	}
	doc := verifyDocument{
		Digest: digest, Reference: ref.String(), Verified: verr == nil, Release: documentOf(d.Release),
		Keys: append([]string{}, d.Keys...), Findings: findingsOf(d.Findings),
	}
	if d.Revocation != nil {
		doc.Revoked = d.Revocation.Reason
	}
	var refused *signing.Error
	if errors.As(verr, &refused) {
		doc.Reason = refused.Reason
	}
	if verr != nil {
		doc.Error = verr.Error()
	} else {
		a.accepted(d)
	}
	for _, f := range d.Findings {
		if f.Verdict != signing.Accepted && (f.Verdict == signing.Rejected || a.verbose) {
			a.printf("%-11s %s: %s%s\n", f.Verdict, f.Source, f.Text, reasonOf(f.Reason))
		}
	}
	return a.document(doc)
}

func reasonOf(r signing.Reason) string {
	if r == "" {
		return ""
	}
	return fmt.Sprintf(" (%s)", r)
}

// accepted prints what was accepted.
func (a *app) accepted(d *signing.Decision) {
	row := func(key, value string) { a.printf("%-11s %s\n", key, value) }
	if r := d.Release; r != nil {
		row("release", r.Name+" "+r.Version)
		row("channel", r.Channel)
		row("epoch", fmt.Sprint(r.Epoch))
		row("issued", r.Issued.Format(time.RFC3339))
		row("expires", r.Expires.Format(time.RFC3339))
	} else {
		row("signature", "only: nobody says that it is a release, which the policy takes")
	}
	row("key", strings.Join(d.Keys, " "))
	row("digest", d.Digest)
}
