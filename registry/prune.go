package registry

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"regexp"
	"time"
)

// aboutForm is a tag that says something about a manifest: the referrers tag and cosign's.
var aboutForm = regexp.MustCompile(`^sha256-([0-9a-f]{64})(\.[a-z]+)?$`)

// Prune removes the blobs that no tag leads to, and the referrers and signatures of images that
// are no more. It returns what it freed, in bytes.
//
// Blobs younger than age stay, because they may belong to an image that is being written: age must
// be longer than that takes. A layout with anything in it that cannot be understood is left alone.
func (l *Layout) Prune(ctx context.Context, age time.Duration) (freed int64, err error) {
	before := time.Now().Add(-age)
	err = l.locked(func() error {
		x, err := l.readIndex()
		if err != nil {
			return err
		}
		p := pruner{l: l, kept: map[string]bool{}}
		gone, err := p.mark(ctx, x)
		if err != nil {
			return err
		}
		if len(gone) > 0 {
			for _, tag := range gone {
				x.drop(tag)
			}
			if err := l.replaceIndex(x); err != nil {
				return err
			}
		}
		entries, err := os.ReadDir(l.path("blobs", "sha256"))
		if err != nil {
			return err
		}
		for _, e := range entries {
			fi, err := e.Info()
			if errors.Is(err, fs.ErrNotExist) {
				continue
			} else if err != nil {
				return err
			}
			if !isHex(e.Name()) || p.kept["sha256:"+e.Name()] || fi.ModTime().After(before) {
				continue
			}
			if err := os.Remove(l.path("blobs", "sha256", e.Name())); err != nil {
				return err
			}
			freed += fi.Size()
		}
		return nil
	})
	if err != nil {
		return freed, fmt.Errorf("prune OCI layout %q: %w", l.dir, err)
	}
	return freed, nil
}

type pruner struct {
	l    *Layout
	kept map[string]bool // digests
}

// mark finds what is kept, and the tags about manifests that are not.
func (p *pruner) mark(ctx context.Context, x *indexJSON) (gone []string, err error) {
	about := map[string][]indexEntry{} // by the digest of the manifest that they are about
	for _, e := range x.manifests {
		if m := aboutForm.FindStringSubmatch(e.tag()); m != nil {
			about["sha256:"+m[1]] = append(about["sha256:"+m[1]], e)
		} else if err := p.keep(ctx, e.Descriptor, 0); err != nil {
			return nil, err
		}
	}
	// What is about a manifest that stays, stays, and so does what is about that.
	for more := true; more; {
		more = false
		for digest, entries := range about {
			if !p.kept[digest] {
				continue
			}
			for _, e := range entries {
				if err := p.keep(ctx, e.Descriptor, 0); err != nil {
					return nil, err
				}
			}
			delete(about, digest)
			more = true
		}
	}
	for _, entries := range about {
		for _, e := range entries {
			gone = append(gone, e.tag())
		}
	}
	return gone, nil
}

func (p *pruner) keep(ctx context.Context, d Descriptor, depth int) error {
	if p.kept[d.Digest] {
		return nil
	}
	p.kept[d.Digest] = true
	if !isIndex(d.MediaType) && !isManifest(d.MediaType) {
		return nil
	}
	if depth > maxDepth {
		return fmt.Errorf("manifest %s: more than %d indexes in one another", d.Digest, maxDepth)
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	data, err := p.l.readAll(d.Digest, maxManifest)
	if errors.Is(err, fs.ErrNotExist) {
		return nil // of an image that is not here as a whole
	} else if err != nil {
		return err
	}
	m, err := parseManifest(data)
	if err != nil {
		return fmt.Errorf("manifest %s: %w", d.Digest, err)
	}
	for _, b := range m.blobs() {
		p.kept[b.Digest] = true
	}
	for _, child := range m.Manifests {
		if err := p.keep(ctx, child, depth+1); err != nil {
			return err
		}
	}
	return nil
}
