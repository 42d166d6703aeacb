package registry

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"slices"
	"sync/atomic"

	"github.com/goldenisc/packer-plugin-isc/image"
	"golang.org/x/sync/errgroup"
)

const (
	maxManifestBytes = 128 << 20 // of all manifests of an image, which are held while it is copied
	parallel         = 3         // blobs at once
	lookups          = 8         // small questions at once
)

// cosignSuffixes end the tags under which cosign keeps the signatures, attestations and SBOMs of a
// manifest beside the referrers: the referrers tag and one of these.
var cosignSuffixes = []string{".sig", ".att", ".sbom"}

// Copy copies an image and everything that belongs to it: what its index leads to, the referrers
// of each manifest and the referrers of these, and cosign's tags. It returns the digest.
//
// Blobs that are there already are not copied. The tag of dst moves last, after everything else
// has arrived, and is read back. An archive is written as a whole, in the place of the old file.
func Copy(ctx context.Context, src, dst Ref, o Options) (digest string, err error) {
	if digest, err = copyImage(ctx, src, dst, o); err != nil {
		return "", fmt.Errorf("copy %q to %q: %w", src, dst, err)
	}
	return digest, nil
}

func copyImage(ctx context.Context, src, dst Ref, o Options) (string, error) {
	if dst.Tag == "" && dst.Place != InRegistry {
		return "", errors.New("a layout needs a tag for the image")
	}
	from, err := Open(ctx, src, o)
	if err != nil {
		return "", err
	}
	defer from.Close()
	root, err := from.Resolve(ctx, src.version())
	if err != nil {
		return "", err
	}
	if dst.Digest != "" && dst.Digest != root.Digest {
		return "", fmt.Errorf("the image has the digest %s", root.Digest)
	}
	p, err := planCopy(ctx, from, root)
	if err != nil {
		return "", err
	}

	if dst.Place == InArchive {
		w, err := createArchive(dst.Path)
		if err != nil {
			return "", err
		}
		if err := p.run(ctx, from, w, dst.Tag, o.Progress); err != nil {
			w.abort()
			return "", err
		}
		if err := w.commit(); err != nil {
			w.abort()
			return "", err
		}
	} else {
		to, err := OpenTarget(ctx, dst, o)
		if err != nil {
			return "", err
		}
		defer to.Close()
		if err := p.run(ctx, from, to, dst.Tag, o.Progress); err != nil {
			return "", err
		}
	}
	return root.Digest, readBack(ctx, dst, root.Digest, o)
}

// readBack checks that the place now has what was written. Registries are asked anew, because
// somebody else may have moved the tag meanwhile.
func readBack(ctx context.Context, dst Ref, digest string, o Options) error {
	to, err := Open(ctx, dst, o)
	if err != nil {
		return fmt.Errorf("read back: %w", err)
	}
	defer to.Close()
	version := dst.Tag
	if version == "" {
		version = digest
	}
	d, err := to.Resolve(ctx, version)
	if err != nil {
		return fmt.Errorf("read back: %w", err)
	}
	if d.Digest != digest {
		return fmt.Errorf("read back: tag %q is %s, not %s: somebody else moved it", version, d.Digest, digest)
	}
	return nil
}

// A plan is what copying an image means.
type plan struct {
	root      Descriptor
	manifests []planned // each after those that it leads to
	blobs     []Descriptor
	referrers []subject
	tags      []tagged // cosign's

	seen  map[string]bool
	bytes int64 // of the manifests
}

type planned struct {
	Descriptor
	data []byte
}

// A subject is a manifest and those that refer to it.
type subject struct {
	digest    string
	referrers []Descriptor
}

type tagged struct {
	tag    string
	digest string
}

func planCopy(ctx context.Context, from Store, root Descriptor) (*plan, error) {
	p := &plan{root: root, seen: map[string]bool{}}
	if err := p.add(ctx, from, root, 0); err != nil {
		return nil, err
	}
	// What refers to a manifest is a manifest itself: the list grows while it is worked off.
	for done := 0; done < len(p.manifests); {
		batch := p.manifests[done:]
		done = len(p.manifests)
		found := make([]attached, len(batch))
		g, gctx := errgroup.WithContext(ctx)
		g.SetLimit(lookups)
		for i := range batch {
			digest := batch[i].Digest
			g.Go(func() (err error) {
				found[i], err = lookUp(gctx, from, digest)
				return err
			})
		}
		if err := g.Wait(); err != nil {
			return nil, err
		}
		for i, a := range found {
			if err := p.attach(ctx, from, batch[i].Digest, a); err != nil {
				return nil, err
			}
		}
	}
	return p, nil
}

// add plans a manifest with all that it leads to.
func (p *plan) add(ctx context.Context, from Store, d Descriptor, depth int) error {
	if p.seen[d.Digest] {
		return nil
	}
	if depth > maxDepth {
		return fmt.Errorf("manifest %s: more than %d indexes in one another", d.Digest, maxDepth)
	}
	p.seen[d.Digest] = true
	data, err := from.Manifest(ctx, d)
	if err != nil {
		return err
	}
	m, err := parseManifest(data)
	if err != nil {
		return fmt.Errorf("manifest %s: %w", d.Digest, err)
	}
	if m.MediaType != d.MediaType {
		return fmt.Errorf("manifest %s: is of type %q, its descriptor says %q", d.Digest, m.MediaType, d.MediaType)
	}
	for _, child := range m.Manifests {
		// An index may list what is no manifest; it is carried like any blob.
		if !isIndex(child.MediaType) && !isManifest(child.MediaType) {
			p.addBlob(child)
		} else if err := p.add(ctx, from, child, depth+1); err != nil {
			return err
		}
	}
	for _, b := range m.blobs() {
		p.addBlob(b)
	}
	if p.bytes += int64(len(data)); p.bytes > maxManifestBytes || len(p.manifests) >= 4*maxManifests {
		return fmt.Errorf("more than %d manifests or %d bytes of them", 4*maxManifests, maxManifestBytes)
	}
	p.manifests = append(p.manifests, planned{d, data})
	return nil
}

func (p *plan) addBlob(d Descriptor) {
	if !p.seen[d.Digest] {
		p.seen[d.Digest] = true
		p.blobs = append(p.blobs, d)
	}
}

// attached is what a place knows about a manifest.
type attached struct {
	referrers []Descriptor
	tags      []tagged
	tagged    []Descriptor
}

func lookUp(ctx context.Context, from Store, digest string) (a attached, err error) {
	if a.referrers, err = from.Referrers(ctx, digest); err != nil {
		return a, err
	}
	for _, suffix := range cosignSuffixes {
		tag := fallbackTag(digest) + suffix
		d, err := from.Resolve(ctx, tag)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		} else if err != nil {
			return a, err
		}
		a.tags = append(a.tags, tagged{tag, d.Digest})
		a.tagged = append(a.tagged, d)
	}
	return a, nil
}

func (p *plan) attach(ctx context.Context, from Store, digest string, a attached) error {
	s := subject{digest: digest}
	for _, hint := range a.referrers {
		d, err := from.Resolve(ctx, hint.Digest)
		if errors.Is(err, fs.ErrNotExist) {
			continue // listed, but gone: there is nothing to copy
		} else if err != nil {
			return fmt.Errorf("referrer of %s: %w", digest, err)
		}
		data, err := from.Manifest(ctx, d)
		if err != nil {
			return fmt.Errorf("referrer of %s: %w", digest, err)
		}
		m, err := parseManifest(data)
		if err != nil || m.Subject == nil || m.Subject.Digest != digest {
			continue // a list is anybody's; this is about something else
		}
		r, err := referrer(data)
		if err != nil {
			return err
		}
		s.referrers = append(s.referrers, r)
		if err := p.add(ctx, from, d, 0); err != nil {
			return fmt.Errorf("referrer of %s: %w", digest, err)
		}
	}
	if len(s.referrers) > 0 {
		p.referrers = append(p.referrers, s)
	}
	for i, d := range a.tagged {
		if err := p.add(ctx, from, d, 0); err != nil {
			return fmt.Errorf("tag %q: %w", a.tags[i].tag, err)
		}
	}
	p.tags = append(p.tags, a.tags...)
	return nil
}

// run carries the plan out.
func (p *plan) run(ctx context.Context, from Store, to Sink, tag string, progress image.Progress) error {
	var total int64
	for _, d := range p.blobs {
		total += d.Size
	}
	var done atomic.Int64
	step := func(n int64) { progress.Report("copy", done.Add(n), total) }
	step(0)
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(parallel)
	for _, d := range p.blobs {
		g.Go(func() error {
			if has, err := to.Has(gctx, d); err != nil {
				return err
			} else if has {
				step(d.Size)
				return nil
			}
			var last *counted // of an attempt, whose bytes do not count if there is another
			return to.CopyBlob(gctx, d, func() (io.ReadCloser, error) {
				r, err := from.Blob(gctx, d)
				if err != nil {
					return nil, err
				}
				if last != nil {
					step(-last.n.Swap(0))
				}
				last = &counted{ReadCloser: r, step: step}
				return last, nil
			})
		})
	}
	if err := g.Wait(); err != nil {
		return err
	}

	var root []byte
	for _, m := range p.manifests {
		if m.Digest == p.root.Digest {
			root = m.data
		}
		if _, err := to.PutManifest(ctx, m.data, ""); err != nil {
			return err
		}
	}
	if err := p.join(ctx, to); err != nil {
		return err
	}
	if tag != "" {
		if _, err := to.PutManifest(ctx, root, tag); err != nil {
			return err
		}
	}
	// Lists and tags that others write too are looked at once more, later.
	return p.join(ctx, to)
}

// join enters the referrers and cosign's tags beside what the place has of others.
func (p *plan) join(ctx context.Context, to Sink) error {
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(lookups)
	for _, s := range p.referrers {
		g.Go(func() error { return to.AddReferrers(gctx, s.digest, s.referrers) })
	}
	if err := g.Wait(); err != nil {
		return err
	}
	g, gctx = errgroup.WithContext(ctx)
	g.SetLimit(lookups)
	for _, t := range p.tags {
		i := slices.IndexFunc(p.manifests, func(m planned) bool { return m.Digest == t.digest })
		g.Go(func() error {
			return to.UpdateTag(gctx, t.tag, func(present []byte) ([]byte, error) {
				data, err := mergeTagged(gctx, to, present, p.manifests[i].data)
				if err != nil {
					return nil, fmt.Errorf("tag %q: %w", t.tag, err)
				}
				return data, nil
			})
		})
	}
	return g.Wait()
}

// counted tells the progress of a blob.
type counted struct {
	io.ReadCloser
	n    atomic.Int64
	step func(int64)
}

func (c *counted) Read(p []byte) (int, error) {
	n, err := c.ReadCloser.Read(p)
	c.n.Add(int64(n))
	c.step(int64(n))
	return n, err
}
