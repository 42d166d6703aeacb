package registry

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"slices"
	"strings"

	"golang.org/x/sync/errgroup"

	"github.com/goldenisc/packer-plugin-isc/signing"
)

// Attach stores what package signing wrote about a digest, in the order given: blobs, then the
// manifest, then its entry in the list of referrers or its tag. What is there already is not
// written again, and everything is read back, because writers of lists and tags in registries
// overtake each other. Of classic signatures only one may be among them; it joins those that are there.
func Attach(ctx context.Context, to Target, digest string, referrers []*signing.Manifest, classic *signing.Classic) error {
	var list []Descriptor
	for _, m := range referrers {
		if err := putSigned(ctx, to, m); err != nil {
			return err
		}
		d, err := referrer(m.Data)
		if err != nil {
			return err
		}
		list = append(list, d)
	}
	if len(list) > 0 {
		if err := to.AddReferrers(ctx, digest, list); err != nil {
			return err
		}
		if err := listed(ctx, to, digest, list); err != nil {
			return err
		}
	}
	if classic != nil {
		return attachClassic(ctx, to, digest, classic)
	}
	return nil
}

func putSigned(ctx context.Context, to Target, m *signing.Manifest) error {
	if err := putBlobs(ctx, to, m.Blobs); err != nil {
		return err
	}
	_, err := to.PutManifest(ctx, m.Data, m.Tag)
	return err
}

func putBlobs(ctx context.Context, to Sink, blobs []signing.Blob) error {
	for _, b := range blobs {
		d := descriptor(b.Descriptor)
		if has, err := to.Has(ctx, d); err != nil {
			return err
		} else if has {
			continue
		}
		err := to.CopyBlob(ctx, d, func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(b.Data)), nil })
		if err != nil {
			return err
		}
	}
	return nil
}

// listed checks that the manifests are in the list of referrers.
func listed(ctx context.Context, from Store, digest string, want []Descriptor) error {
	have, err := from.Referrers(ctx, digest)
	if err != nil {
		return err
	}
	for _, w := range want {
		if !slices.ContainsFunc(have, func(d Descriptor) bool { return d.Digest == w.Digest }) {
			return fmt.Errorf("referrers of %s: %w: %s was written, but is not listed", digest, ErrUndetermined, w.Digest)
		}
	}
	return nil
}

// attachClassic adds a signature to those under the tag.
func attachClassic(ctx context.Context, to Target, digest string, c *signing.Classic) error {
	return to.UpdateTag(ctx, signing.ClassicTag(digest), func(present []byte) ([]byte, error) {
		m, err := signing.AddClassic(present, digest, c)
		if err != nil {
			return nil, err
		}
		return m.Data, putBlobs(ctx, to, m.Blobs)
	})
}

// classicManifest returns the manifest of the classic signatures of a digest, nil if there is none.
func classicManifest(ctx context.Context, from Store, digest string) ([]byte, error) {
	d, err := from.Resolve(ctx, signing.ClassicTag(digest))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	} else if err != nil {
		return nil, err
	}
	return from.Manifest(ctx, d)
}

func descriptor(d signing.Descriptor) Descriptor {
	return Descriptor{MediaType: d.MediaType, ArtifactType: d.ArtifactType, Digest: d.Digest, Size: d.Size, Annotations: d.Annotations}
}

// Statements reads everything beside a digest that may decide over it: the bundles among its
// referrers and its classic signatures. Attestations such as SBOMs are left out. incomplete says why
// something may be missing in the list, nil if nothing is.
func Statements(ctx context.Context, from Store, digest string) (list []signing.Candidate, incomplete error) {
	referrers, err := from.Referrers(ctx, digest)
	if err != nil {
		return nil, fmt.Errorf("referrers of %s: %w", digest, err)
	}
	found := make([]*signing.Candidate, len(referrers))
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(lookups)
	for i, d := range referrers {
		if !signing.Decides(d.Annotations) {
			continue
		}
		g.Go(func() (err error) {
			found[i], err = bundle(gctx, from, d)
			return err
		})
	}
	incomplete = g.Wait()
	for _, c := range found {
		if c != nil {
			list = append(list, *c)
		}
	}
	classic, err := classics(ctx, from, digest)
	return append(list, classic...), errors.Join(incomplete, err)
}

// bundle reads the bundle of a referrer, nil if it has none.
func bundle(ctx context.Context, from Store, d Descriptor) (*signing.Candidate, error) {
	if !isManifest(d.MediaType) || d.Size > maxManifest {
		return nil, nil
	}
	manifest, err := from.Manifest(ctx, d)
	if err != nil {
		return nil, fmt.Errorf("referrer %s: %w", d.Digest, err)
	}
	layer, ok := signing.BundleLayer(manifest)
	if !ok || layer.Size > signing.MaxBundle {
		return nil, nil // what decides is never larger
	}
	data, err := blob(ctx, from, layer)
	if err != nil {
		return nil, fmt.Errorf("referrer %s: %w", d.Digest, err)
	}
	return &signing.Candidate{Source: d.Digest, Bundle: data}, nil
}

func classics(ctx context.Context, from Store, digest string) ([]signing.Candidate, error) {
	tag := signing.ClassicTag(digest)
	manifest, err := classicManifest(ctx, from, digest)
	if err != nil {
		return nil, fmt.Errorf("tag %q: %w", tag, err)
	}
	if manifest == nil {
		return nil, nil
	}
	layers, err := signing.ClassicLayers(manifest)
	if err != nil {
		return nil, nil // not signatures: anybody may use the tag, and no classic signature revokes
	}
	var list []signing.Candidate
	for _, l := range layers {
		data, err := blob(ctx, from, l)
		if err != nil {
			return list, fmt.Errorf("tag %q: %w", tag, err)
		}
		c, err := signing.ParseClassic(data, signing.SignatureOf(l))
		if err != nil {
			continue
		}
		list = append(list, signing.Candidate{Source: tag, Classic: c})
	}
	return list, nil
}

// blob reads a small blob whose size has been looked at.
func blob(ctx context.Context, from Store, d signing.Descriptor) ([]byte, error) {
	if _, err := digestHex(d.Digest); err != nil {
		return nil, err
	}
	r, err := from.Blob(ctx, descriptor(d))
	if err != nil {
		return nil, err
	}
	defer r.Close()
	return io.ReadAll(io.LimitReader(r, signing.MaxBundle+1))
}

// Subjects lists the digests that a place has something to say about: what its tags stand for, and
// what its referrers and signatures by tag are about even if no tag leads there any more. A
// repository that does not exist has none.
func Subjects(ctx context.Context, from Store) ([]string, error) {
	tags, err := from.Tags(ctx)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	} else if err != nil {
		return nil, err
	}
	digests := make([]string, len(tags))
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(lookups)
	for i, tag := range tags {
		hex, ok := strings.CutPrefix(tag, "sha256-")
		hex, _, _ = strings.Cut(hex, ".")
		if _, err := digestHex("sha256:" + hex); ok && err == nil {
			digests[i] = "sha256:" + hex
			continue
		}
		g.Go(func() error {
			d, err := from.Resolve(gctx, tag)
			if errors.Is(err, fs.ErrNotExist) {
				return nil // gone meanwhile
			}
			digests[i] = d.Digest
			return err
		})
	}
	if err := g.Wait(); err != nil {
		return nil, err
	}
	slices.Sort(digests)
	digests = slices.Compact(digests)
	if len(digests) > 0 && digests[0] == "" {
		digests = digests[1:]
	}
	return digests, nil
}
