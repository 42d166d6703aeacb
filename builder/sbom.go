package builder

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/goldenisc/packer-plugin-isc/image"
	"github.com/goldenisc/packer-plugin-isc/internal/sbom"
	"github.com/goldenisc/packer-plugin-isc/registry"
	"github.com/goldenisc/packer-plugin-isc/signing"
)

// attested are the artifacts that signing makes attestations of, in the order in which they stand
// in an image.
var attested = []struct{ artifact, kind, mediaType, predicateType string }{
	{"sbom", "sbom", image.TypeSPDX, signing.PredicateSPDX},
	{"sbom.cyclonedx", "sbom", image.TypeCycloneDX, signing.PredicateCycloneDX},
	{"provenance", "provenance", image.TypeProvenance, signing.PredicateProvenance},
}

// malformed makes a damaged package database an error of the input.
func malformed(err error) error {
	if syntax := (*sbom.SyntaxError)(nil); errors.As(err, &syntax) {
		return Input(err)
	}
	return err
}

// attest writes what is said of the image as a whole: its packages, in two formats, and where it
// comes from. The evidence holds the content manifest.
func (b *Built) attest(ctx context.Context, to *registry.Stage, packages []sbom.Package, evidence []image.Artifact) ([]image.Artifact, error) {
	c := b.Config
	s := &sbom.Subject{
		Name: c.Name, Version: c.Version, OS: c.OS, Arch: c.Arch, Created: c.Created,
		Tool: b.Provenance.RunDetails.Builder.Version["iscadm"],
	}
	for _, a := range evidence {
		if a.Name == "content" {
			s.Digest = a.Digest
		}
	}
	var out []image.Artifact
	for i, marshal := range []func() ([]byte, error){
		func() ([]byte, error) { return s.SPDX(packages) },
		func() ([]byte, error) { return s.CycloneDX(packages) },
		b.Provenance.Marshal,
	} {
		at := attested[i]
		data, err := marshal()
		if err == nil && len(data) > signing.MaxAttestation/2 {
			// In an envelope they are a third longer.
			err = fmt.Errorf("%d bytes are too many to be signed", len(data))
		}
		var a image.Artifact
		if err == nil {
			a, err = put(ctx, to, image.Artifact{Name: at.artifact, Kind: at.kind, MediaType: at.mediaType}, image.None, bytesOf(data))
		}
		if err != nil {
			return nil, fmt.Errorf("artifact %q: %w", at.artifact, err)
		}
		out = append(out, a)
	}
	return out, nil
}

// A Predicate is what an attestation says of an image: signing.NewStatement takes it with the
// digest of the image.
type Predicate struct {
	Artifact string // that holds it
	Type     string // such as https://slsa.dev/provenance/v1
	Data     []byte // JSON
}

// Predicates returns the SBOMs and the provenance that an image holds, verified against its
// digest, in a fixed order. An image built without them has none.
func Predicates(ctx context.Context, m *registry.Image) ([]Predicate, error) {
	var out []Predicate
	for _, at := range attested {
		if a := m.Config.Artifact(at.artifact); a == nil || a.MediaType != at.mediaType {
			continue
		}
		data, err := readArtifact(ctx, m, at.artifact, signing.MaxAttestation)
		if err != nil {
			return nil, err
		}
		out = append(out, Predicate{Artifact: at.artifact, Type: at.predicateType, Data: data})
	}
	return out, nil
}

// Packages lists the packages of an image, from its SBOM. An image built without one has none.
func Packages(ctx context.Context, m *registry.Image) ([]sbom.Package, error) {
	if m.Config.Artifact("sbom") == nil {
		return nil, nil
	}
	data, err := readArtifact(ctx, m, "sbom", signing.MaxAttestation)
	if err != nil {
		return nil, err
	}
	packages, err := sbom.ParseSPDX(data)
	if err != nil {
		return nil, fmt.Errorf("artifact %q: %w", "sbom", err)
	}
	return packages, nil
}

// readArtifact returns the bytes of an artifact of at most so many.
func readArtifact(ctx context.Context, m *registry.Image, name string, most int64) ([]byte, error) {
	r, err := m.Open(ctx, name)
	if err != nil {
		return nil, err
	}
	defer r.Close()
	data, err := io.ReadAll(io.LimitReader(r, most+1))
	if err == nil && int64(len(data)) > most {
		err = fmt.Errorf("more than %d bytes", most)
	}
	if err != nil {
		return nil, fmt.Errorf("artifact %q: %w", name, err)
	}
	return data, nil
}
