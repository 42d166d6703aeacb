package builder

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/goldenisc/packer-plugin-isc/image"
	"github.com/goldenisc/packer-plugin-isc/registry"
)

// ErrMismatch is returned for a base that is not the one that the spec or the lock file pins.
var ErrMismatch = errors.New("digest mismatch")

// ErrInput is the kind of error that the spec or its inputs have to be changed for.
var ErrInput = errors.New("bad input")

// An inputError is an ErrInput that says what is wrong in its own words.
type inputError struct{ error }

func (inputError) Is(target error) bool { return target == ErrInput }
func (e inputError) Unwrap() error      { return e.error }

// Input makes err, if it is one, an [ErrInput] that keeps its words.
func Input(err error) error {
	if err == nil {
		return nil
	}
	return inputError{err}
}

// OpenBase reads the base of a spec and says what it was. The tree is open for edits and must be
// closed. Of the options Dir, Progress and PlainHTTP count.
func OpenBase(ctx context.Context, s *Spec, b BuildOptions) (*image.Tree, image.Base, error) {
	o := image.Options{Dir: b.Dir, Progress: b.Progress}
	base := image.Base{Source: s.Base.Source}
	loc, err := ParseSource(s.Base.Source, s.Dir)
	if err != nil {
		return nil, base, Input(fmt.Errorf("base %q: %w", s.Base.Source, err))
	}
	if o.Limits.Bytes, err = s.Base.Limit(); err != nil {
		return nil, base, fmt.Errorf("base: max_size: %w", err)
	}
	var t *image.Tree
	switch loc.Scheme {
	case "skeleton":
		t, base.Digest, err = openSkeleton(ctx, loc.Path, o)
	case "dir":
		t, base.Digest, err = openDir(ctx, loc.Path, o)
	case "tar":
		t, base.Digest, err = openTar(ctx, loc.Path, o)
	case "zfs":
		t, base.Digest, err = openZFS(ctx, loc.Path, s.Base, s.Image.OS, o)
	default:
		t, err = openImage(ctx, loc.Ref, s.Image, o, b.registry(), &base)
	}
	if want := s.Base.SHA256; want != "" && base.Digest != "" && base.Digest != "sha256:"+want {
		// Said first: why another file cannot be read does not matter.
		err = fmt.Errorf("%w: it is %s, the spec wants sha256:%s", ErrMismatch, base.Digest, want)
	}
	if err != nil {
		if t != nil {
			t.Close()
		}
		return nil, base, fmt.Errorf("base %q: %w", s.Base.Source, err)
	}
	return t, base, nil
}

// openTar reads an archive; its digest is that of the file, also of one that is no archive.
func openTar(ctx context.Context, name string, o image.Options) (*image.Tree, string, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, "", err
	}
	var sum string
	hashed := make(chan error, 1)
	go func() {
		var err error
		sum, err = hashFile(ctx, f)
		hashed <- err
	}()
	t, err := image.ReadTar(ctx, f, o)
	if e := <-hashed; e != nil {
		err = e
	}
	if err != nil {
		if t != nil {
			t.Close()
		}
		f.Close()
		return nil, sum, err
	}
	t.Own(f)
	return t, sum, nil
}

// hashFile returns the digest of a whole file, wherever it is being read.
func hashFile(ctx context.Context, f *os.File) (string, error) {
	info, err := f.Stat()
	if err != nil {
		return "", err
	}
	h := sha256.New()
	if _, err := io.Copy(h, &contextReader{ctx, io.NewSectionReader(f, 0, info.Size())}); err != nil {
		return "", err
	}
	return "sha256:" + hex.EncodeToString(h.Sum(nil)), nil
}

// A contextReader ends when its context does.
type contextReader struct {
	ctx context.Context
	r   io.Reader
}

func (c *contextReader) Read(p []byte) (int, error) {
	if err := c.ctx.Err(); err != nil {
		return 0, err
	}
	return c.r.Read(p)
}

// openDir reads a folder; its digest is that of its content manifest.
func openDir(ctx context.Context, name string, o image.Options) (*image.Tree, string, error) {
	t, err := image.ReadDir(ctx, name, o)
	if err != nil {
		return nil, "", err
	}
	digest, err := contentDigest(t)
	if err != nil {
		t.Close()
		return nil, "", err
	}
	return t, digest, nil
}

// contentDigest returns the digest of the content manifest, both halves of it.
func contentDigest(t *image.Tree) (string, error) {
	h := sha256.New()
	c := image.NewContent(t)
	if err := errors.Join(c.WriteMtree(h), c.WriteObjects(h)); err != nil {
		return "", err
	}
	return "sha256:" + hex.EncodeToString(h.Sum(nil)), nil
}

// openImage flattens the layers of an OCI or Docker image, or takes the root of one of ours; the
// digest is that of the reference's manifest or index.
func openImage(ctx context.Context, ref registry.Ref, want *Image, o image.Options, at registry.Options, b *image.Base) (*image.Tree, error) {
	base, err := registry.FetchBase(ctx, ref, want.OS+"/"+want.Arch, at)
	if err != nil {
		return nil, err
	}
	defer base.Close()
	t, err := image.NewTree(o.Dir, o.Limits)
	if err != nil {
		return nil, err
	}
	for i, l := range base.Layers {
		if err := addLayer(ctx, t, l, o.Progress); err != nil {
			t.Close()
			return nil, fmt.Errorf("layer %d of %d: %w", i+1, len(base.Layers), err)
		}
	}
	b.Digest = base.Digest
	if base.Image != nil {
		if a := base.Image.Config.Artifact("provenance"); a != nil {
			b.Provenance = a.Digest
		}
	}
	return t, nil
}

func addLayer(ctx context.Context, t *image.Tree, l registry.Layer, p image.Progress) error {
	r, err := l.Open(ctx)
	if err != nil {
		return err
	}
	defer r.Close()
	if err := t.AddLayer(ctx, r, p); err != nil {
		return err
	}
	_, err = io.Copy(io.Discard, r) // to the end, where the digest is checked
	return err
}
