package builder

import (
	"bufio"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/goldenisc/packer-plugin-isc/image"
	"github.com/goldenisc/packer-plugin-isc/internal/tempfile"
	"github.com/goldenisc/packer-plugin-isc/profiles"
	"github.com/goldenisc/packer-plugin-isc/zfs"
)

// A StreamFile is a send stream in a file, compressed or not, that can be read anywhere.
type StreamFile struct {
	io.ReaderAt
	Size  int64 // bytes, uncompressed
	close func() error
}

// Close closes the file, and gives up the unpacked copy of a compressed one.
func (s *StreamFile) Close() error { return s.close() }

// OpenStream makes a stream readable anywhere: a file as it is, what is compressed unpacked, of at most
// most bytes, into a temporary file below dir. It takes over r.
func OpenStream(ctx context.Context, r io.ReadCloser, dir string, most int64) (*StreamFile, error) {
	f, isFile := r.(*os.File)
	if isFile {
		head := make([]byte, 16)
		n, err := f.ReadAt(head, 0)
		if err != nil && err != io.EOF {
			return nil, errors.Join(err, f.Close())
		}
		if st, err := f.Stat(); err == nil && st.Mode().IsRegular() && image.Sniff(head[:n]) == image.None {
			return &StreamFile{&contextReaderAt{ctx, f}, st.Size(), f.Close}, nil
		}
	}
	s, err := tempfile.New(dir)
	if err != nil {
		return nil, errors.Join(err, r.Close())
	}
	size, err := unpack(ctx, s, r, most)
	if err = errors.Join(err, r.Close()); err != nil {
		return nil, errors.Join(err, s.Close())
	}
	return &StreamFile{&contextReaderAt{ctx, s}, size, s.Close}, nil
}

func unpack(ctx context.Context, w io.Writer, r io.Reader, most int64) (int64, error) {
	in := bufio.NewReaderSize(&contextReader{ctx, r}, 256<<10)
	plain, _, err := image.Decompress(in)
	if err != nil {
		return 0, err
	}
	defer plain.Close()
	n, err := io.Copy(w, io.LimitReader(plain, most+1))
	if err == nil && n > most {
		err = fmt.Errorf("%w of %d bytes", image.ErrTooLarge, most)
	}
	if err == nil {
		_, err = io.Copy(io.Discard, in) // to the end, where the digest of an artifact is checked
	}
	return n, err
}

// A contextReaderAt ends when its context does.
type contextReaderAt struct {
	ctx context.Context
	r   io.ReaderAt
}

func (c *contextReaderAt) ReadAt(p []byte, off int64) (int, error) {
	if err := c.ctx.Err(); err != nil {
		return 0, err
	}
	return c.r.ReadAt(p, off)
}

// streamLimit is how large a stream may be whose file system is within the limits: a file costs a
// record of some hundred bytes, and its blocks may come several times.
func streamLimit(l image.Limits) int64 {
	return 2*cmp.Or(l.Bytes, image.DefaultLimits.Bytes) + 8<<10*int64(cmp.Or(l.Entries, image.DefaultLimits.Entries))
}

// openZFS reads a send stream; its digest is that of the file, also of one that is no stream.
func openZFS(ctx context.Context, name string, b *Base, system string, o image.Options) (*image.Tree, string, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, "", err
	}
	sum, err := hashFile(ctx, f)
	if err != nil {
		f.Close()
		return nil, "", err
	}
	s, err := OpenStream(ctx, f, o.Dir, streamLimit(o.Limits))
	if err != nil {
		return nil, sum, malformedStream(err)
	}
	defer s.Close()
	o.Progress.Report("stream", 0, s.Size)
	snap, err := zfs.Open(s, s.Size, b.Snapshot)
	if err != nil {
		return nil, sum, malformedStream(err)
	}
	t, err := image.NewTree(o.Dir, o.Limits)
	if err != nil {
		return nil, sum, err
	}
	if err := fillTree(ctx, t, snap, system, o); err != nil {
		t.Close()
		return nil, sum, malformedStream(err)
	}
	return t, sum, nil
}

// malformedStream makes what is not the machine's fault one of the input.
func malformedStream(err error) error {
	var path *os.PathError
	if err == nil || errors.As(err, &path) || errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
		return err
	}
	return Input(err)
}

// fillTree copies the file system of a snapshot into a tree. Of a zonepath it takes the root in it, and
// the manifests that SmartOS mounts over the root's.
func fillTree(ctx context.Context, t *image.Tree, snap *zfs.Snapshot, system string, o image.Options) error {
	zonepath, err := isZonepath(snap)
	if err != nil {
		return err
	}
	platform := zfs.Linux
	if zonepath || system != profiles.Linux {
		platform = zfs.Illumos
	}
	most := cmp.Or(o.Limits.Bytes, image.DefaultLimits.Bytes)
	n := int64(0)
	for obj, err := range snap.Objects(platform) {
		if err == nil {
			err = ctx.Err()
		}
		if err != nil {
			return err
		}
		if zonepath && !unzone(obj) {
			continue
		}
		if obj.Size > most { // a hole of any size costs a stream nothing, and reading it does
			return fmt.Errorf("object %q: %d bytes: %w of %d bytes", obj.Path, obj.Size, image.ErrTooLarge, most)
		}
		if err := putObject(t, obj); err != nil {
			return err
		}
		n++
		o.Progress.Report("walk", n, 0)
	}
	return nil
}

// isZonepath reports whether a file system is a zonepath, whose folder root is the root.
func isZonepath(snap *zfs.Snapshot) (bool, error) {
	found := false
	for obj, err := range snap.Objects(zfs.Linux) {
		switch {
		case err != nil:
			return false, err
		case obj.Path == "etc":
			return false, nil
		case obj.Path == zoneRoot+"/etc" && obj.Mode.IsDir():
			found = true
		case obj.Path > zoneRoot+"0": // behind all that is below root
			return found, nil
		}
	}
	return found, nil
}

// unzone gives an object of a zonepath its path in the root, and reports whether it is in it.
func unzone(obj *zfs.Object) bool {
	inRoot := func(p string) (string, bool) {
		if p == zoneRoot {
			return ".", true
		}
		if rest, ok := strings.CutPrefix(p, zoneRoot+"/"); ok {
			return rest, true
		}
		rest, ok := strings.CutPrefix(p, siteDir+"/")
		return manifestDir + "/" + rest, ok
	}
	var ok bool
	if obj.Path, ok = inRoot(obj.Path); ok && obj.Link != "" {
		obj.Link, ok = inRoot(obj.Link)
	}
	return ok
}

// putObject puts an object into a tree.
func putObject(t *image.Tree, obj *zfs.Object) error {
	e := image.Entry{
		Name: obj.Path, Mode: obj.Mode, UID: obj.UID, GID: obj.GID, ModTime: obj.ModTime,
		Rdev: image.Device(obj.Rdev), Target: obj.Target, HardLink: obj.Link, Xattrs: obj.Xattrs,
	}
	if !obj.Mode.IsRegular() || obj.Link != "" || obj.Size == 0 {
		return t.Put(e, nil)
	}
	c, err := obj.Open()
	if err != nil {
		return err
	}
	defer c.Close()
	return t.PutFrom(e, io.NewSectionReader(c, 0, obj.Size))
}
