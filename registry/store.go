package registry

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"slices"
	"strings"
	"time"
)

// maxReferrers bounds the referrers of one manifest: anybody may add some.
const maxReferrers = 256

// A Store is a place that has images: a [Layout], an archive or a repository of a registry.
//
// What does not exist is an error that is [fs.ErrNotExist]; what could not be found out is
// [ErrUndetermined].
type Store interface {
	// Resolve finds the manifest or index that a tag or digest stands for.
	Resolve(ctx context.Context, tagOrDigest string) (Descriptor, error)
	// Manifest returns a manifest or index, verified against d.
	Manifest(ctx context.Context, d Descriptor) ([]byte, error)
	// Blob opens a config or layer. A mismatch with d is an error in the place of io.EOF, so
	// nothing of what was read may have had an effect before.
	Blob(ctx context.Context, d Descriptor) (io.ReadCloser, error)
	// Referrers lists the manifests that have the one with this digest as their subject, their
	// annotations being hints. None is no error.
	Referrers(ctx context.Context, digest string) ([]Descriptor, error)
	// Tags lists the tags.
	Tags(ctx context.Context) ([]string, error)
	io.Closer
}

// A Target is a place that can also be written to: a layout or a repository.
type Target interface {
	Store
	Sink
}

// A Sink takes the parts of an image, those that others lead to first.
type Sink interface {
	// Has says whether the blob is there.
	Has(ctx context.Context, d Descriptor) (bool, error)
	// CopyBlob stores a blob, which is verified against d before anybody sees it. open may be called
	// again for another attempt.
	CopyBlob(ctx context.Context, d Descriptor, open func() (io.ReadCloser, error)) error
	// PutManifest stores a manifest or index, whose blobs are there, and makes tag stand for it
	// unless tag is empty.
	PutManifest(ctx context.Context, data []byte, tag string) (Descriptor, error)
	// UpdateTag makes tag stand for what edit makes of the manifest that it stands for, nil if there is
	// none. edit is called again when somebody else changes the tag meanwhile; the same bytes back mean
	// that nothing is missing. What edit adds must survive being merged with what others add.
	UpdateTag(ctx context.Context, tag string, edit func(present []byte) ([]byte, error)) error
	// AddReferrers sees to it that [Store.Referrers] of the digest lists these manifests, which are
	// stored already, beside what it lists now.
	AddReferrers(ctx context.Context, digest string, referrers []Descriptor) error
}

// fallbackTag is where the referrers of a manifest are listed if the registry does not list them
// itself: the referrers tag schema of the distribution specification.
func fallbackTag(digest string) string { return strings.Replace(digest, ":", "-", 1) }

// referrer returns the descriptor of a manifest with a subject as a list of referrers has it.
func referrer(data []byte) (Descriptor, error) {
	m, err := parseManifest(data)
	if err != nil {
		return Descriptor{}, err
	}
	d := Descriptor{
		MediaType: m.MediaType, ArtifactType: m.ArtifactType, Digest: Digest(data), Size: int64(len(data)),
		Annotations: m.Annotations,
	}
	if d.ArtifactType == "" && m.Config != nil {
		d.ArtifactType = m.Config.MediaType
	}
	return d, nil
}

// parseReferrers reads a list of referrers.
func parseReferrers(data []byte) ([]Descriptor, error) {
	m, err := parseManifest(data)
	if err != nil {
		return nil, fmt.Errorf("list of referrers: %w", err)
	}
	if !isIndex(m.MediaType) {
		return nil, fmt.Errorf("list of referrers: is no index but %q", m.MediaType)
	}
	if len(m.Manifests) > maxReferrers {
		return nil, fmt.Errorf("list of referrers: %d are more than the %d that are read", len(m.Manifests), maxReferrers)
	}
	return m.Manifests, nil
}

// missing returns those of want that the list does not have.
func missing(list, want []Descriptor) []Descriptor {
	var lost []Descriptor
	for _, d := range want {
		same := func(have Descriptor) bool { return have.Digest == d.Digest }
		if !slices.ContainsFunc(list, same) && !slices.ContainsFunc(lost, same) {
			lost = append(lost, d)
		}
	}
	return lost
}

// mergeReferrers returns the list with what is missing in it, as an index, and whether anything was.
func mergeReferrers(list, more []Descriptor) (data []byte, changed bool, err error) {
	lost := missing(list, more)
	list, changed = append(slices.Clone(list), lost...), len(lost) > 0
	if len(list) > maxReferrers {
		return nil, false, fmt.Errorf("more than %d referrers", maxReferrers)
	}
	data, err = json.Marshal(index{SchemaVersion: 2, MediaType: typeIndex, Manifests: list})
	return data, changed, err
}

// Resolve implements [Store].
func (l *Layout) Resolve(ctx context.Context, tagOrDigest string) (Descriptor, error) {
	d, err := l.resolve(tagOrDigest)
	if err != nil {
		return Descriptor{}, fmt.Errorf("OCI layout %q: %w", l.dir, err)
	}
	return d, ctx.Err()
}

func (l *Layout) resolve(tagOrDigest string) (Descriptor, error) {
	if _, err := digestHex(tagOrDigest); err == nil {
		data, err := l.readAll(tagOrDigest, maxManifest)
		if err != nil {
			return Descriptor{}, err
		}
		return describe(data)
	}
	x, err := l.readIndex()
	if err != nil {
		return Descriptor{}, err
	}
	return x.resolve(tagOrDigest)
}

// Manifest implements [Store].
func (l *Layout) Manifest(ctx context.Context, d Descriptor) ([]byte, error) {
	r, err := l.Open(d.Digest)
	if err != nil {
		return nil, err
	}
	data, err := readVerified(r, d, maxManifest)
	if err != nil {
		return nil, fmt.Errorf("OCI layout %q: %w", l.dir, err)
	}
	return data, ctx.Err()
}

// Blob implements [Store].
func (l *Layout) Blob(_ context.Context, d Descriptor) (io.ReadCloser, error) {
	f, err := l.Open(d.Digest)
	if err != nil {
		return nil, err
	}
	return verify(f, d), nil
}

// Referrers implements [Store]. They are what index.json has under the referrers tag, and
// manifests without a tag in it whose subject this is, as some tools write them.
func (l *Layout) Referrers(ctx context.Context, digest string) ([]Descriptor, error) {
	if _, err := digestHex(digest); err != nil {
		return nil, err
	}
	x, err := l.readIndex()
	if err != nil {
		return nil, fmt.Errorf("OCI layout %q: %w", l.dir, err)
	}
	list, err := x.referrers(ctx, l, digest)
	if err != nil {
		return nil, fmt.Errorf("OCI layout %q: referrers of %s: %w", l.dir, digest, err)
	}
	return list, nil
}

// manifests is the part of a store that an index.json can be read with.
type manifests interface {
	Manifest(ctx context.Context, d Descriptor) ([]byte, error)
}

func (x *indexJSON) referrers(ctx context.Context, from manifests, digest string) ([]Descriptor, error) {
	var list []Descriptor
	d, err := x.resolve(fallbackTag(digest))
	if err == nil {
		data, err := from.Manifest(ctx, d)
		if err != nil {
			return nil, err
		}
		if list, err = parseReferrers(data); err != nil {
			return nil, err
		}
	} else if !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	looked := 0
	for _, e := range x.manifests {
		if e.tag() != "" || e.Size > maxManifest || slices.ContainsFunc(list, func(d Descriptor) bool { return d.Digest == e.Digest }) {
			continue
		}
		if looked++; looked > maxManifests {
			return nil, fmt.Errorf("more than %d manifests without a tag", maxManifests)
		}
		data, err := from.Manifest(ctx, e.Descriptor)
		if errors.Is(err, fs.ErrNotExist) {
			continue // not ours, and not there
		} else if err != nil {
			return nil, err
		}
		m, err := parseManifest(data)
		if err != nil || m.Subject == nil || m.Subject.Digest != digest {
			continue // something else
		}
		d, err := referrer(data)
		if err != nil {
			return nil, err
		}
		if list = append(list, d); len(list) > maxReferrers {
			return nil, fmt.Errorf("more than %d", maxReferrers)
		}
	}
	return list, nil
}

// Tags returns the tags in the order of index.json. Other programs' may have any form.
func (l *Layout) Tags(context.Context) ([]string, error) {
	x, err := l.readIndex()
	if err != nil {
		return nil, fmt.Errorf("OCI layout %q: %w", l.dir, err)
	}
	return x.tags(), nil
}

func (x *indexJSON) tags() []string {
	var tags []string
	for _, e := range x.manifests {
		if t := e.tag(); t != "" && !slices.Contains(tags, t) {
			tags = append(tags, t)
		}
	}
	return tags
}

// Close implements [Store]. A layout needs no closing.
func (l *Layout) Close() error { return nil }

// Has implements [Sink]. A blob that is there is young again for [Layout.Prune], as if it had been
// written.
func (l *Layout) Has(_ context.Context, d Descriptor) (has bool, err error) {
	path, err := l.blobPath(d.Digest)
	if err != nil {
		return false, err
	}
	err = l.locked(func() error {
		fi, err := os.Stat(path)
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		} else if err != nil {
			return err
		}
		if has = fi.Mode().IsRegular() && fi.Size() == d.Size; !has {
			return nil // one that was cut off is written anew
		}
		return os.Chtimes(path, time.Time{}, time.Now())
	})
	if err != nil {
		return false, fmt.Errorf("OCI layout %q: %w", l.dir, err)
	}
	return has, nil
}

// CopyBlob implements [Sink].
func (l *Layout) CopyBlob(ctx context.Context, d Descriptor, open func() (io.ReadCloser, error)) error {
	r, err := open()
	if err != nil {
		return err
	}
	defer r.Close()
	b, err := l.Create()
	if err != nil {
		return err
	}
	defer b.Close()
	// The hash of the writer is the only one that is needed: what is too long ends here, and what
	// is wrong has another name.
	n, err := io.Copy(b, io.LimitReader(readerContext{ctx, r}, d.Size+1))
	if err == nil && n > d.Size {
		err = fmt.Errorf("blob %s: longer than the %d bytes of its descriptor", d.Digest, d.Size)
	}
	if err != nil {
		return err
	}
	return b.commitAs(d)
}

// readerContext ends a copy when the context ends.
type readerContext struct {
	ctx context.Context
	r   io.Reader
}

func (r readerContext) Read(p []byte) (int, error) {
	if err := r.ctx.Err(); err != nil {
		return 0, err
	}
	return r.r.Read(p)
}

// PutManifest implements [Sink].
func (l *Layout) PutManifest(_ context.Context, data []byte, tag string) (Descriptor, error) {
	d, err := describe(data)
	if err != nil {
		return Descriptor{}, err
	}
	if _, err := l.PutBlob(data); err != nil {
		return Descriptor{}, err
	}
	if tag == "" {
		return d, nil
	}
	return d, l.Tag(tag, d)
}

// UpdateTag implements [Sink]. It compares and swaps: whoever is overtaken begins anew.
func (l *Layout) UpdateTag(ctx context.Context, tag string, edit func(present []byte) ([]byte, error)) error {
	for {
		before, err := l.Resolve(ctx, tag)
		var present []byte
		if err == nil {
			present, err = l.Manifest(ctx, before)
		} else if errors.Is(err, fs.ErrNotExist) {
			err = nil
		}
		if err != nil {
			return err
		}
		data, err := edit(present)
		if err != nil || present != nil && bytes.Equal(data, present) {
			return err
		}
		if overtaken, err := l.swap(tag, before.Digest, data); err != nil || !overtaken {
			return err
		}
	}
}

// swap makes tag stand for a manifest unless it stands for another one than before, empty for none.
func (l *Layout) swap(tag, before string, data []byte) (overtaken bool, err error) {
	d, err := describe(data)
	if err != nil {
		return false, err
	}
	if err := checkTag(tag); err != nil {
		return false, err
	}
	if _, err := l.PutBlob(data); err != nil {
		return false, err
	}
	err = l.change(func(x *indexJSON) error {
		now, err := x.resolve(tag)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		if overtaken = now.Digest != before; !overtaken {
			x.set(tag, d)
		}
		return nil
	})
	return overtaken, err
}

// AddReferrers implements [Sink].
func (l *Layout) AddReferrers(ctx context.Context, digest string, referrers []Descriptor) error {
	tag := fallbackTag(digest)
	for {
		x, err := l.readIndex()
		if err != nil {
			return fmt.Errorf("OCI layout %q: %w", l.dir, err)
		}
		list, err := x.referrers(ctx, l, digest)
		if err != nil {
			return fmt.Errorf("OCI layout %q: referrers of %s: %w", l.dir, digest, err)
		}
		data, changed, err := mergeReferrers(list, referrers)
		if err != nil || !changed {
			return err
		}
		before, err := x.resolve(tag)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("OCI layout %q: %w", l.dir, err)
		}
		if overtaken, err := l.swap(tag, before.Digest, data); err != nil || !overtaken {
			return err
		}
	}
}
