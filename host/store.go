package host

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/goldenisc/packer-plugin-isc/image"
)

// A store holds file content by digest: ab/cdef…. Images share what they have in common, nothing
// in it is executable, set-id or a link, and no name comes from an image. Everything in it is
// whole and on the disk: what is being written stands in a folder of its own.
type store struct{ dir string }

const storeTemp = ".new-"

func (s store) path(sum [sha256.Size]byte) string {
	h := hex.EncodeToString(sum[:])
	return filepath.Join(s.dir, h[:2], h[2:])
}

func (s store) open(sum [sha256.Size]byte) (*os.File, object, error) {
	h := hex.EncodeToString(sum[:])
	d, err := openFolder(filepath.Join(s.dir, h[:2]))
	if err != nil {
		return nil, object{}, err
	}
	defer d.Close()
	return d.open(h[2:])
}

// add stores the content of all files of a tree. The caller holds the store's lock, and calls
// clean after the image is in the state.
func (s store) add(ctx context.Context, t *image.Tree, p image.Progress) error {
	if err := os.MkdirAll(s.dir, 0o700); err != nil {
		return err
	}
	temp, err := os.MkdirTemp(s.dir, storeTemp)
	if err != nil {
		return err
	}
	d, err := openFolder(temp)
	if err != nil {
		return err
	}
	defer d.Close()
	var fresh [][sha256.Size]byte
	seen := map[[sha256.Size]byte]bool{}
	total, done := t.Bytes(), int64(0)
	buf := make([]byte, copyBuffer)
	for e := range t.All() {
		if err := ctx.Err(); err != nil {
			return err
		}
		if !e.IsRegular() || e.HardLink != "" {
			continue
		}
		if !seen[e.Digest] {
			seen[e.Digest] = true
			ok, err := s.has(ctx, e)
			if err != nil {
				return err
			}
			if !ok {
				if err := addFile(d, t, e, buf); err != nil {
					return err
				}
				fresh = append(fresh, e.Digest)
			}
		}
		done += e.Size
		p.Report("import", done, total)
	}
	if err := d.syncAll(); err != nil {
		return err
	}
	for _, sum := range fresh {
		h := hex.EncodeToString(sum[:])
		if err := os.Mkdir(filepath.Join(s.dir, h[:2]), 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
			return err
		}
		if err := os.Rename(filepath.Join(temp, h), s.path(sum)); err != nil {
			return err
		}
	}
	return d.syncAll()
}

// has reports whether the store has the content of an entry, undamaged.
func (s store) has(ctx context.Context, e *image.Entry) (bool, error) {
	f, o, err := s.open(e.Digest)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	defer f.Close()
	if o.size != e.Size {
		return false, nil
	}
	return sumIs(ctx, f, e.Size, e.Digest)
}

// addFile writes the content of one entry, holes left out.
func addFile(d *folder, t *image.Tree, e *image.Entry, buf []byte) error {
	src, err := t.Open(e.Name)
	if err != nil {
		return err
	}
	defer src.Close()
	f, err := d.create(hex.EncodeToString(e.Digest[:]))
	if err != nil {
		return err
	}
	defer f.Close()
	for _, x := range src.Extents() {
		for off := x.Off; off < x.Off+x.Len; {
			b := buf[:min(int64(len(buf)), x.Off+x.Len-off)]
			if _, err := src.ReadAt(b, off); err != nil && err != io.EOF {
				return err
			}
			if _, err := f.WriteAt(b, off); err != nil {
				return err
			}
			off += int64(len(b))
		}
	}
	if err := f.Truncate(src.Size()); err != nil {
		return err
	}
	return f.Close()
}

// marks returns the baseline of the store's files for a content manifest.
func (s store) marks(c *image.Content) (*baseline, error) {
	b := &baseline{marks: make([]mark, 0, c.Len())}
	d, err := openFolder(s.dir)
	if err != nil {
		return nil, err
	}
	defer d.Close()
	for e := range c.All() {
		var m mark
		if e.IsRegular() {
			h := hex.EncodeToString(e.Digest[:])
			o, err := d.lstat(h[:2] + "/" + h[2:])
			if err != nil {
				return nil, err
			}
			m.ino, m.ctime, b.dev = o.ino, o.ctime, o.dev
		}
		b.marks = append(b.marks, m)
	}
	return b, nil
}

// intact reports whether all that the manifest names is as its baseline says.
func (s store) intact(c *image.Content, b *baseline) bool {
	now, err := s.marks(c)
	return err == nil && now.dev == b.dev && slices.Equal(now.marks, b.marks)
}

// litter reports whether an import was cut short, or left something for clean to remove.
func (s store) litter() bool {
	entries, _ := os.ReadDir(s.dir)
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), storeTemp) {
			return true
		}
	}
	return false
}

// clean ends an import.
func (s store) clean() error {
	entries, err := os.ReadDir(s.dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	var errs []error
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), storeTemp) {
			errs = append(errs, os.RemoveAll(filepath.Join(s.dir, e.Name())))
		}
	}
	return errors.Join(errs...)
}

// sweep removes all content that no manifest names. The caller holds the lock.
func (s store) sweep(ctx context.Context, used map[[sha256.Size]byte]bool) error {
	dirs, err := os.ReadDir(s.dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	for _, d := range dirs {
		if err := ctx.Err(); err != nil {
			return err
		}
		files, err := os.ReadDir(filepath.Join(s.dir, d.Name()))
		if err != nil {
			return err
		}
		for _, f := range files {
			var sum [sha256.Size]byte
			name, err := hex.DecodeString(d.Name() + f.Name())
			if err != nil || len(name) != len(sum) {
				continue // not the store's
			}
			if copy(sum[:], name); used[sum] {
				continue
			}
			if err := os.Remove(s.path(sum)); err != nil {
				return err
			}
		}
		os.Remove(filepath.Join(s.dir, d.Name())) // if it is empty now
	}
	return nil
}

// same compares a tree that was read from an artifact with the signed content manifest, entry by
// entry. Times are compared in seconds: a strict ustar archive has no finer ones.
func same(t *image.Tree, c *image.Content) error {
	const most = 10 // differences that are told
	var errs []error
	tell := func(name, what string) { errs = append(errs, fmt.Errorf("entry %q: %s", name, what)) }
	n := 0
	for want := range c.All() {
		if len(errs) == most {
			return errors.Join(errs...)
		}
		got, err := t.Stat(want.Name)
		if err != nil || got.Name != want.Name {
			tell(want.Name, "is in the content manifest, not in the archive")
			continue
		}
		n++
		switch {
		case got.Mode != want.Mode:
			tell(want.Name, fmt.Sprintf("mode is %v, not %v", got.Mode, want.Mode))
		case got.UID != want.UID || got.GID != want.GID:
			tell(want.Name, fmt.Sprintf("owner is %d:%d, not %d:%d", got.UID, got.GID, want.UID, want.GID))
		case got.Size != want.Size || got.Digest != want.Digest:
			tell(want.Name, "content is not that of the content manifest")
		case got.Target != want.Target || got.Rdev != want.Rdev || got.HardLink != want.HardLink:
			tell(want.Name, "link or device number is not that of the content manifest")
		case got.ModTime.Unix() != want.ModTime.Unix():
			tell(want.Name, fmt.Sprintf("time is %v, not %v", got.ModTime, want.ModTime))
		default:
			if what := xattrChange(want.Xattrs, got.Xattrs); what != "" {
				tell(want.Name, what)
			}
		}
	}
	if n < t.Len() && len(errs) == 0 {
		for e := range t.All() {
			if c.Lookup(e.Name) == nil && len(errs) < most {
				tell(e.Name, "is in the archive, not in the content manifest")
			}
		}
	}
	return errors.Join(errs...)
}
