package main

import (
	"context"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"github.com/goldenisc/packer-plugin-isc/registry"
	"github.com/goldenisc/packer-plugin-isc/signing"
)

// inspectFlags say whose releases inspect believes.
type inspectFlags struct {
	trust    trustFlags
	state    stateFlag
	packages bool // all of them
}

func (f *inspectFlags) flags(c *cobra.Command) {
	f.trust.flags(c)
	f.state.flags(c)
}

// A saidDocument is what inspect shows of what is said of an image.
type saidDocument struct {
	Verified   bool             `json:"verified"` // what follows was checked against keys; else it is a hint
	Release    *releaseDocument `json:"release,omitempty"`
	Error      string           `json:"error,omitempty"`
	Revoked    string           `json:"revoked,omitempty"`
	Statements []signedFinding  `json:"statements"`
}

// said looks at the releases and signatures of an image: with keys or a policy as verify does, else
// as hints, which anybody may have put there.
func (a *app) said(ctx context.Context, store registry.Store, name string, m *registry.Image, f *inspectFlags) (*saidDocument, error) {
	ref, err := registry.Parse(name)
	if err != nil {
		return nil, badInput(err)
	}
	_, state, dir, err := a.existingHost(ctx, f.state)
	if err != nil {
		return nil, err
	}
	p, err := f.trust.load(ctx, dir, state)
	if err != nil {
		return nil, err
	}
	in := input(ctx, store, ref, m.Digest(), m.Config.Name, p, state)
	doc := &saidDocument{Verified: p != nil}
	if p == nil {
		if in.Incomplete != nil {
			doc.Error = in.Incomplete.Error()
		}
		doc.Statements = hints(in.Candidates)
		return doc, nil
	}
	d, err := signing.Verify(in)
	if err != nil {
		doc.Error = err.Error()
	}
	doc.Statements = []signedFinding{}
	if d != nil {
		doc.Release, doc.Statements = documentOf(d.Release), findingsOf(d.Findings)
		if d.Revocation != nil {
			doc.Revoked = d.Revocation.Reason
		}
	}
	return doc, nil
}

// hints tells what candidates claim to be.
func hints(list []signing.Candidate) []signedFinding {
	out := []signedFinding{}
	for _, c := range list {
		f := signedFinding{Source: c.Source, Type: "classic", Verdict: "unverified", Text: "a signature"}
		if c.Classic == nil {
			f.Type, f.Key, f.Text = claimed(c.Bundle)
		}
		out = append(out, f)
	}
	return out
}

func claimed(bundle []byte) (kind, key, text string) {
	b, err := signing.ParseBundle(bundle)
	if err != nil {
		return "", "", err.Error()
	}
	s, err := signing.ParseStatement(b.Payload)
	if err != nil {
		return "", b.Hint, err.Error()
	}
	switch s.PredicateType {
	case signing.PredicateRelease:
		r, err := s.Release()
		if err != nil {
			return s.PredicateType, b.Hint, err.Error()
		}
		return s.PredicateType, b.Hint, fmt.Sprintf("release %d of %s %s in %s, until %s", r.Epoch, r.Name, r.Version, r.Channel, r.Expires.Format(time.RFC3339))
	case signing.PredicateRevocation:
		r, err := s.Revocation()
		if err != nil {
			return s.PredicateType, b.Hint, err.Error()
		}
		return s.PredicateType, b.Hint, "revoked: " + r.Reason
	case signing.PredicateSignature:
		return s.PredicateType, b.Hint, "a signature"
	}
	return s.PredicateType, b.Hint, "an attestation"
}

// inspectSaid prints what is said of the image.
func (a *app) inspectSaid(doc *saidDocument) {
	if len(doc.Statements) == 0 && doc.Error == "" {
		a.printf("%-12s none\n", "releases")
		return
	}
	if doc.Verified {
		a.printf("%-12s verified by the keys of the policy\n", "releases")
	} else {
		a.printf("%-12s as they say of themselves; nothing is verified without --key or --policy\n", "releases")
	}
	if doc.Error != "" {
		a.printf("  %s\n", doc.Error)
	}
	for _, f := range doc.Statements {
		a.printf("  %-11s %s%s\n", f.Verdict, f.Text, reasonOf(f.Reason))
	}
}
