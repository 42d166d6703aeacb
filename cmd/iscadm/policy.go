package main

import (
	"context"
	"fmt"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/goldenisc/packer-plugin-isc/signing"
)

func newPolicy(a *app) *cobra.Command {
	c := &cobra.Command{
		Use:   "policy",
		Short: "Show, check or set the policy of this host",
		Long: `The policy says whose releases this host takes in, of which names and channels.
It is an HCL file (docs/releases.md): the one that was set, else policy.hcl in
the state folder.`,
	}
	c.AddCommand(newPolicyShow(a), newPolicySet(a), newPolicyUnset(a))
	return c
}

func newPolicyShow(a *app) *cobra.Command {
	var s stateFlag
	c := &cobra.Command{
		Use:   "show [FILE]",
		Short: "Show the policy of this host, or check a file",
		Args:  cobra.MaximumNArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			if len(args) == 1 {
				return a.policyShow(args[0])
			}
			_, state, dir, err := a.existingHost(c.Context(), s)
			if err != nil {
				return err
			}
			name, err := policyOf(dir, state)
			if err != nil {
				return err
			}
			if name == "" {
				a.printf("none\n")
				a.notef("images from registries are refused but with --key, --policy or --unsigned; layouts and archives are taken\n")
				return a.document(nil)
			}
			return a.policyShow(name)
		},
	}
	s.flags(c)
	return c
}

func newPolicySet(a *app) *cobra.Command {
	var s stateFlag
	c := &cobra.Command{
		Use:   "set FILE",
		Short: "Make a file the policy of this host",
		Long: `Make a file the policy of this host. Only its place is noted: it and the keys that
it names have to stay there, and what is changed in them counts from then on.`,
		Args: cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			name, err := filepath.Abs(args[0])
			if err != nil {
				return err
			}
			if _, err := a.loadPolicy(name); err != nil {
				return err
			}
			return a.setPolicy(c.Context(), s, name)
		},
	}
	s.flags(c)
	return c
}

func newPolicyUnset(a *app) *cobra.Command {
	var s stateFlag
	c := &cobra.Command{
		Use:   "unset",
		Short: "Forget the file that was set",
		Args:  cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			return a.setPolicy(c.Context(), s, "")
		},
	}
	s.flags(c)
	return c
}

func (a *app) setPolicy(ctx context.Context, s stateFlag, name string) error {
	h, err := a.host(ctx, s)
	if err != nil {
		return err
	}
	if err := h.SetPolicy(ctx, name); err != nil {
		return err
	}
	state, err := h.View()
	if err != nil {
		return err
	}
	holds, err := policyOf(h.Dir(), state)
	if err != nil {
		return err
	}
	if holds == "" {
		holds = "none"
	}
	a.printf("%s\n", holds)
	return a.document(map[string]string{"policy": holds})
}

// loadPolicy reads a policy file; what is doubtful in it is said.
func (a *app) loadPolicy(name string) (*signing.Policy, error) {
	p, src, diags, err := signing.LoadPolicy(name)
	if err != nil {
		return nil, badInput(err)
	}
	if diags.HasErrors() {
		return nil, badInput(&policyError{name, src, diags})
	}
	for _, d := range diags {
		a.notef("warning: %s\n", d.Error())
	}
	return p, nil
}

// A policyDocument is what policy show --json prints.
type policyDocument struct {
	File  string         `json:"file"`
	Rules []ruleDocument `json:"rules"`
}

type ruleDocument struct {
	Prefix     string        `json:"prefix"`
	Names      []string      `json:"names"` // empty: the last component of the repository
	Channels   []string      `json:"channels"`
	Keys       []keyDocument `json:"keys"`
	Threshold  int           `json:"threshold"`
	MaxAge     int64         `json:"maxAgeSeconds,omitempty"`
	EpochJump  int64         `json:"maxEpochJump"`
	Downgrade  bool          `json:"downgrade"`
	Signature  bool          `json:"acceptSignature"` // a signature alone is enough
	Identities []string      `json:"identities,omitempty"`
}

type keyDocument struct {
	Name      string    `json:"name"`
	Key       string    `json:"key"` // identity
	Algorithm string    `json:"algorithm"`
	NotBefore time.Time `json:"notBefore,omitzero"`
	NotAfter  time.Time `json:"notAfter,omitzero"`
	Revoked   string    `json:"revoked,omitempty"`
}

func (a *app) policyShow(name string) error {
	p, err := a.loadPolicy(name)
	if err != nil {
		return err
	}
	doc := policyDocument{File: name}
	a.printf("%s\n", name)
	for _, r := range p.Rules {
		d := ruleDocument{
			Prefix: r.Prefix, Names: append([]string{}, r.Names...), Channels: r.Channels, Threshold: r.Threshold,
			MaxAge: int64(r.MaxAge / time.Second), EpochJump: r.EpochJump, Downgrade: r.Downgrade, Signature: r.Unreleased, Identities: r.Identities,
		}
		accept := "releases"
		if r.Unreleased {
			accept = "releases and mere signatures"
		}
		a.printf("\n%s: %s in %s by %d of\n", r.Prefix, accept, strings.Join(r.Channels, ", "), r.Threshold)
		for _, k := range r.Keys {
			d.Keys = append(d.Keys, keyDocument{k.Name, k.Key.ID(), k.Key.Algorithm(), k.NotBefore, k.NotAfter, k.Revoked})
			a.printf("  %s  %s  %s%s\n", k.Name, k.Key.Algorithm(), k.Key.ID(), window(&k, time.Now()))
		}
		doc.Rules = append(doc.Rules, d)
	}
	return a.document(doc)
}

// window says when a key counts, if that is not always.
func window(k *signing.TrustedKey, now time.Time) string {
	text := ""
	if !k.NotBefore.IsZero() {
		text += ", from " + k.NotBefore.Format(time.RFC3339)
	}
	if !k.NotAfter.IsZero() {
		text += ", until " + k.NotAfter.Format(time.RFC3339)
		if now.After(k.NotAfter) {
			text += ", which is over"
		}
	}
	if k.Revoked != "" {
		text += fmt.Sprintf(", revoked: %q", k.Revoked)
	}
	return text
}
