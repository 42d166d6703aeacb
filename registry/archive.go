package registry

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path"
	"strings"
)

const maxArchiveFiles = 1 << 17 // of an archive, ten times what an index may name

// An archive is an OCI image layout in a tar file, read where it is.
type archive struct {
	name  string
	r     io.ReaderAt
	files map[string]extent
	index *indexJSON

	io.Closer
}

type extent struct{ offset, size int64 }

// openArchive reads the table of a tar file. Only its plain files matter: links have no place in a
// layout.
func openArchive(name string) (*archive, error) {
	f, err := openRegular(name)
	if err != nil {
		return nil, fmt.Errorf("OCI archive: %w", err)
	}
	fi, err := f.Stat()
	if err == nil {
		var a *archive
		if a, err = readArchive(f, fi.Size()); err == nil {
			a.name, a.Closer = name, f
			return a, nil
		}
	}
	f.Close()
	return nil, fmt.Errorf("OCI archive %q: %w", name, err)
}

func readArchive(r io.ReaderAt, size int64) (*archive, error) {
	a := &archive{r: r, files: map[string]extent{}}
	if err := a.readTable(size); err != nil {
		return nil, err
	}
	if _, ok := a.files[layoutFile]; !ok {
		return nil, fmt.Errorf("no %s in it: not an OCI image layout", layoutFile)
	}
	e, ok := a.files[indexFile]
	if !ok || e.size > maxIndexFile {
		return nil, fmt.Errorf("%s: missing or larger than %d bytes", indexFile, maxIndexFile)
	}
	data, err := io.ReadAll(a.section(e))
	if err != nil {
		return nil, err
	}
	if a.index, err = parseIndexJSON(data); err != nil {
		return nil, fmt.Errorf("%s: %w", indexFile, err)
	}
	return a, nil
}

func (a *archive) readTable(size int64) error {
	whole := io.NewSectionReader(a.r, 0, size)
	for t := tar.NewReader(whole); ; {
		h, err := t.Next()
		if err == io.EOF {
			return nil
		} else if err != nil {
			return err
		}
		if h.Typeflag != tar.TypeReg {
			continue
		}
		for k := range h.PAXRecords {
			if strings.HasPrefix(k, "GNU.sparse.") {
				return fmt.Errorf("file %q: sparse", h.Name)
			}
		}
		// The reader has no buffer: behind a header the data begins.
		offset, err := whole.Seek(0, io.SeekCurrent)
		if err != nil {
			return err
		}
		name := strings.TrimPrefix(path.Clean("/"+h.Name), "/")
		if _, twice := a.files[name]; twice {
			return fmt.Errorf("file %q twice", name)
		}
		if h.Size > size-offset {
			return fmt.Errorf("file %q: %w", name, io.ErrUnexpectedEOF)
		}
		if len(a.files) >= maxArchiveFiles {
			return fmt.Errorf("more than %d files", maxArchiveFiles)
		}
		a.files[name] = extent{offset, h.Size}
	}
}

func (a *archive) section(e extent) *io.SectionReader {
	return io.NewSectionReader(a.r, e.offset, e.size)
}

func (a *archive) open(digest string) (*io.SectionReader, error) {
	h, err := digestHex(digest)
	if err != nil {
		return nil, err
	}
	e, ok := a.files["blobs/sha256/"+h]
	if !ok {
		return nil, fmt.Errorf("OCI archive %q: blob %s: %w", a.name, digest, fs.ErrNotExist)
	}
	return a.section(e), nil
}

// Resolve implements [Store].
func (a *archive) Resolve(ctx context.Context, tagOrDigest string) (Descriptor, error) {
	d, err := a.resolve(tagOrDigest)
	if err != nil {
		return Descriptor{}, fmt.Errorf("OCI archive %q: %w", a.name, err)
	}
	return d, ctx.Err()
}

func (a *archive) resolve(tagOrDigest string) (Descriptor, error) {
	if _, err := digestHex(tagOrDigest); err != nil {
		return a.index.resolve(tagOrDigest)
	}
	s, err := a.open(tagOrDigest)
	if err != nil {
		return Descriptor{}, err
	}
	data, err := readVerified(io.NopCloser(s), Descriptor{Digest: tagOrDigest, Size: s.Size()}, maxManifest)
	if err != nil {
		return Descriptor{}, err
	}
	return describe(data)
}

// Manifest implements [Store].
func (a *archive) Manifest(ctx context.Context, d Descriptor) ([]byte, error) {
	s, err := a.open(d.Digest)
	if err != nil {
		return nil, err
	}
	data, err := readVerified(io.NopCloser(s), d, maxManifest)
	return data, errors.Join(err, ctx.Err())
}

// Blob implements [Store].
func (a *archive) Blob(_ context.Context, d Descriptor) (io.ReadCloser, error) {
	s, err := a.open(d.Digest)
	if err != nil {
		return nil, err
	}
	return verify(io.NopCloser(s), d), nil
}

// Referrers implements [Store].
func (a *archive) Referrers(ctx context.Context, digest string) ([]Descriptor, error) {
	if _, err := digestHex(digest); err != nil {
		return nil, err
	}
	list, err := a.index.referrers(ctx, a, digest)
	if err != nil {
		return nil, fmt.Errorf("OCI archive %q: referrers of %s: %w", a.name, digest, err)
	}
	return list, nil
}

// Tags implements [Store].
func (a *archive) Tags(context.Context) ([]string, error) { return a.index.tags(), nil }
