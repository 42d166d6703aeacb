package release

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/goldenisc/packer-plugin-isc/registry"
	"github.com/goldenisc/packer-plugin-isc/signing"
)

// Attestations returns the bundles beside a digest that are of a predicate type, whoever has signed
// them. Those that are of another type by their annotations are not read: whoever can put a wrong one
// there can as well leave the attestation out.
func Attestations(ctx context.Context, from registry.Store, digest, predicateType string) ([]signing.Candidate, error) {
	referrers, err := from.Referrers(ctx, digest)
	if err != nil {
		return nil, fmt.Errorf("referrers of %s: %w", digest, err)
	}
	var list []signing.Candidate
	for _, d := range referrers {
		if t := signing.ClaimedType(d.Annotations); t != "" && t != predicateType {
			continue
		}
		data, err := bundle(ctx, from, d)
		if err != nil {
			return nil, fmt.Errorf("referrer %s: %w", d.Digest, err)
		}
		if isAbout(data, digest, predicateType) {
			list = append(list, signing.Candidate{Source: d.Digest, Bundle: data})
		}
	}
	return list, nil
}

// isAbout says whether a bundle claims to be of the type, about the digest.
func isAbout(bundle []byte, digest, predicateType string) bool {
	b, err := signing.ParseBundle(bundle)
	if err != nil {
		return false
	}
	s, err := signing.ParseStatement(b.Payload)
	return err == nil && s.PredicateType == predicateType && s.About(digest)
}

// maxReferrer bounds the manifest of a referrer, in bytes: one layer and some annotations.
const maxReferrer = 1 << 20

// bundle reads the bundle of a referrer, nil if it has none of a size that is taken.
func bundle(ctx context.Context, from registry.Store, d registry.Descriptor) ([]byte, error) {
	if d.Size > maxReferrer {
		return nil, nil
	}
	manifest, err := from.Manifest(ctx, d)
	if err != nil {
		return nil, err
	}
	layer, ok := signing.BundleLayer(manifest)
	if !ok || layer.Size > signing.MaxAttestation {
		return nil, nil
	}
	r, err := from.Blob(ctx, registry.Descriptor{MediaType: layer.MediaType, Digest: layer.Digest, Size: layer.Size})
	if err != nil {
		return nil, err
	}
	data, err := io.ReadAll(io.LimitReader(r, signing.MaxAttestation+1))
	return data, errors.Join(err, r.Close())
}
