package main

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/goldenisc/packer-plugin-isc/internal/release"
	"github.com/goldenisc/packer-plugin-isc/registry"
	"github.com/goldenisc/packer-plugin-isc/signing"
)

// predicates are short names for types of predicates.
var predicates = map[string]string{
	"provenance": signing.PredicateProvenance,
	"spdx":       signing.PredicateSPDX,
	"cyclonedx":  signing.PredicateCycloneDX,
	"release":    signing.PredicateRelease,
	"revocation": signing.PredicateRevocation,
	"signature":  signing.PredicateSignature,
}

type attestationFlags struct {
	trust  trustFlags
	state  stateFlag
	out    string
	bundle bool
}

func newAttestation(a *app) *cobra.Command {
	var f attestationFlags
	c := &cobra.Command{
		Use:   "attestation REF TYPE [--key PUB…|--policy FILE]",
		Short: "Write a signed statement about an image, for other programs",
		Long: `Write a signed statement about an image: a DSSE envelope, which packer
verify-attestation takes, or with --bundle a Sigstore bundle. TYPE is
` + strings.Join(slices.Sorted(maps.Keys(predicates)), ", ") + `, or the URI of a type.
By the keys given, or the policy, its signature is verified first, and that it is
about this very image, which other programs may not check. What the statement
says is not judged: "iscadm verify" does that for releases.`,
		Args: cobra.ExactArgs(2),
		RunE: func(c *cobra.Command, args []string) error {
			return a.attestation(c.Context(), args[0], args[1], &f)
		},
	}
	f.trust.flags(c)
	f.state.flags(c)
	c.Flags().StringVarP(&f.out, "output", "o", "", "write to `FILE`; default stdout")
	c.Flags().BoolVar(&f.bundle, "bundle", false, "write the Sigstore bundle")
	return c
}

func (a *app) attestation(ctx context.Context, name, kind string, f *attestationFlags) error {
	predicateType, known := predicates[kind]
	if !known {
		if predicateType = kind; !strings.Contains(kind, ":") {
			return badInput(fmt.Errorf("attestation: type %q is neither one of %s nor a URI", kind, strings.Join(slices.Sorted(maps.Keys(predicates)), ", ")))
		}
	}
	ref, err := registry.Parse(name)
	if err != nil {
		return badInput(err)
	}
	_, state, dir, err := a.existingHost(ctx, f.state)
	if err != nil {
		return err
	}
	p, err := f.trust.load(ctx, dir, state)
	if err != nil {
		return err
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
	list, err := release.Attestations(ctx, store, root.Digest, predicateType)
	if err != nil {
		return err
	}
	var data []byte
	switch {
	case p != nil:
		in := signing.Input{Digest: root.Digest, Reference: ref.String(), Candidates: list, Policy: p, Now: time.Now()}
		if data, err = signing.Attested(in); err != nil {
			return fmt.Errorf("attestation %q of %q: %w", kind, ref, err)
		}
	case len(list) > 0:
		data = list[0].Bundle
		a.notef("nobody's signature was asked for: nothing is verified without --key or --policy\n")
	default:
		return &statusError{statusNo, fmt.Errorf("attestation %q of %q: there is none", kind, ref)}
	}
	if !f.bundle {
		b, err := signing.ParseBundle(data)
		if err != nil {
			return err
		}
		if data, err = b.Envelope(); err != nil {
			return err
		}
	}
	data = append(data, '\n')
	if f.out == "" {
		_, err := a.out.Write(data)
		return err
	}
	return writeFile(f.out, 0o666, bytesTo(data))
}
