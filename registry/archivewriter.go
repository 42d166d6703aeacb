package registry

import (
	"archive/tar"
	"bufio"
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"

	"github.com/goldenisc/packer-plugin-isc/internal/flock"
)

// An archiveWriter writes an OCI image layout as a tar file. Everything is written once, in the
// order in which it comes; the file appears when it is complete.
type archiveWriter struct {
	name string

	mu        sync.Mutex // over all that follows
	f         *os.File
	buf       *bufio.Writer
	tar       *tar.Writer
	index     indexJSON
	written   map[string]bool   // digests
	manifests map[string][]byte // by digest
}

// createArchive begins an archive that will be the file name, and removes what killed writers of
// the same file left.
func createArchive(name string) (*archiveWriter, error) {
	dir, base := filepath.Split(name)
	if dir == "" {
		dir = "."
	}
	prefix := "." + base + tempPrefix
	removeLitter(dir, prefix)
	temp := filepath.Join(dir, prefix+rand.Text())
	f, err := os.OpenFile(temp, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o644)
	if err != nil {
		return nil, fmt.Errorf("OCI archive: %w", err)
	}
	live.Store(temp, true)
	w := &archiveWriter{name: name, f: f, written: map[string]bool{}, manifests: map[string][]byte{}}
	if ok, err := flock.Try(f); err != nil || !ok {
		w.abort()
		return nil, errors.Join(fmt.Errorf("OCI archive %q: temporary file cannot be locked", name), err)
	}
	w.buf = bufio.NewWriterSize(f, 256<<10)
	w.tar = tar.NewWriter(w.buf)
	if err := w.add(layoutFile, int64(len(layoutBody)), strings.NewReader(layoutBody)); err != nil {
		w.abort()
		return nil, err
	}
	return w, nil
}

// add writes one file. Its bytes depend on name and content only.
func (w *archiveWriter) add(name string, size int64, r io.Reader) error {
	err := w.tar.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: name, Size: size, Mode: 0o644})
	if err == nil {
		_, err = io.Copy(w.tar, r)
	}
	if err != nil {
		return fmt.Errorf("OCI archive %q: %w", w.name, err)
	}
	return nil
}

func (w *archiveWriter) abort() { discard(w.f) }

// commit completes the file and puts it in the place of what had its name.
func (w *archiveWriter) commit() error {
	data, err := w.index.marshal()
	if err != nil {
		return err
	}
	if err := w.add(indexFile, int64(len(data)), bytes.NewReader(data)); err != nil {
		return err
	}
	err = errors.Join(w.tar.Close(), w.buf.Flush(), fsync(w.f), w.f.Close())
	if err == nil {
		err = rename(w.f.Name(), w.name)
	}
	if err == nil {
		live.Delete(w.f.Name())
		err = syncDir(filepath.Dir(w.name))
	}
	if err != nil {
		return fmt.Errorf("OCI archive %q: %w", w.name, err)
	}
	return nil
}

// Has implements [Sink].
func (w *archiveWriter) Has(_ context.Context, d Descriptor) (bool, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.written[d.Digest], nil
}

// CopyBlob implements [Sink].
func (w *archiveWriter) CopyBlob(ctx context.Context, d Descriptor, open func() (io.ReadCloser, error)) error {
	h, err := digestHex(d.Digest)
	if err != nil {
		return err
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.written[d.Digest] {
		return nil
	}
	r, err := open()
	if err != nil {
		return err
	}
	defer r.Close()
	w.written[d.Digest] = true
	return w.add("blobs/sha256/"+h, d.Size, verify(io.NopCloser(readerContext{ctx, r}), d))
}

// PutManifest implements [Sink].
func (w *archiveWriter) PutManifest(ctx context.Context, data []byte, tag string) (Descriptor, error) {
	d, err := describe(data)
	if err != nil {
		return Descriptor{}, err
	}
	err = w.CopyBlob(ctx, d, func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(data)), nil })
	if err != nil {
		return Descriptor{}, err
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.manifests[d.Digest] = data
	if tag != "" {
		w.index.set(tag, d)
	}
	return d, nil
}

// UpdateTag implements [Sink]. Nobody else writes the archive.
func (w *archiveWriter) UpdateTag(ctx context.Context, tag string, edit func(present []byte) ([]byte, error)) error {
	var present []byte
	if d, err := w.index.resolve(tag); err == nil {
		present = w.manifests[d.Digest]
	}
	data, err := edit(present)
	if err == nil && (present == nil || !bytes.Equal(data, present)) {
		_, err = w.PutManifest(ctx, data, tag)
	}
	return err
}

// AddReferrers implements [Sink].
func (w *archiveWriter) AddReferrers(ctx context.Context, digest string, referrers []Descriptor) error {
	var list []Descriptor
	if d, err := w.index.resolve(fallbackTag(digest)); err == nil {
		if list, err = parseReferrers(w.manifests[d.Digest]); err != nil {
			return err
		}
	}
	data, changed, err := mergeReferrers(list, referrers)
	if err != nil || !changed {
		return err
	}
	_, err = w.PutManifest(ctx, data, fallbackTag(digest))
	return err
}
