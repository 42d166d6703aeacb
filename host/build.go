package host

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/goldenisc/packer-plugin-isc/image"
)

const (
	copyBuffer = 256 << 10 // bytes
	copiers    = 2         // files that are copied at a time: more only seek against each other
	block      = 4096      // unit of holes
)

// A builder makes a root from the content manifest and the store, in a folder that nobody else
// can reach.
type builder struct {
	content *image.Content
	store   store
	golden  *baseline // of the store's files: what is believed is not hashed again
	site    map[string][]byte
	rules   *rules // whose volumes and scratch are made if the image has none
	report  image.Progress

	root     *folder
	marks    *baseline
	cloning  atomic.Bool // reflinks work here, as far as is known
	skipped  skipped
	uid, gid int
}

// skipped counts what could not be made.
type skipped struct{ owners, xattrs, objects atomic.Int64 }

// notes says so once.
func (s *skipped) notes() []string {
	var n []string
	add := func(c int64, what string) {
		if c > 0 {
			n = append(n, fmt.Sprintf("%s of %d entries could not be set without more privilege: recorded, and not compared by check", what, c))
		}
	}
	add(s.owners.Load(), "owner")
	add(s.xattrs.Load(), "extended attributes")
	if c := s.objects.Load(); c > 0 {
		n = append(n, fmt.Sprintf("%d devices or links could not be made without more privilege: recorded, and not missed by check", c))
	}
	return n
}

// build makes everything below root, which is an empty folder, and brings it to the disk.
func (b *builder) build(ctx context.Context, root *folder) error {
	b.root = root
	b.marks = &baseline{marks: make([]mark, b.content.Len())}
	b.uid, b.gid = ids()
	b.cloning.Store(true)
	self, err := root.stat()
	if err != nil {
		return err
	}
	b.marks.dev = self.dev
	entries := make([]*image.Entry, 0, b.content.Len())
	var total int64
	for e := range b.content.All() {
		entries = append(entries, e)
		if e.HardLink == "" {
			total += e.Size
		}
	}
	if err := b.objects(ctx, entries, total); err != nil {
		return err
	}
	if err := b.links(entries); err != nil {
		return err
	}
	if err := b.newSiteFiles(); err != nil {
		return err
	}
	if err := b.mountPoints(); err != nil {
		return err
	}
	// Directories last, and from the leaves: they may be read-only, and their times are set by what
	// is made in them.
	for i, e := range slices.Backward(entries) {
		if e.IsDir() {
			if err := b.finish(i, e, e.Name); err != nil {
				return err
			}
		}
	}
	if err := b.settle(); err != nil {
		return err
	}
	return root.syncAll()
}

// objects makes all but hard links, files by several workers.
func (b *builder) objects(ctx context.Context, entries []*image.Entry, total int64) error {
	work := make(chan int, 64)
	var done atomic.Int64
	g, ctx := errgroup.WithContext(ctx)
	for range copiers {
		g.Go(func() error {
			buf := make([]byte, copyBuffer)
			for i := range work {
				if err := ctx.Err(); err != nil {
					return err
				}
				e := entries[i]
				if err := b.file(i, e, buf); err != nil {
					return err
				}
				b.report.Report("clone", done.Add(e.Size), total)
			}
			return nil
		})
	}
	g.Go(func() error {
		defer close(work)
		for i, e := range entries {
			_, site := b.site[e.Name]
			switch {
			case site || e.IsRegular() && e.HardLink == "":
				select {
				case work <- i:
				case <-ctx.Done():
					return ctx.Err()
				}
			case e.HardLink != "":
			case e.IsDir():
				if e.Name == "." {
					continue
				}
				if err := b.root.mkdir(e.Name); err != nil {
					return err
				}
			default:
				if err := b.special(i, e); err != nil {
					return err
				}
			}
		}
		return nil
	})
	return g.Wait()
}

// special makes a symbolic link, a device or a fifo.
func (b *builder) special(i int, e *image.Entry) error {
	var err error
	switch e.Type() {
	case fs.ModeSymlink:
		err = b.root.symlink(e.Target, e.Name)
	case fs.ModeSocket:
		err = errors.ErrUnsupported // belongs to the process that listens
	default:
		err = b.root.mknod(e.Name, e.Mode, e.Rdev)
	}
	if err != nil && (lacksRight(err) || errors.Is(err, errors.ErrUnsupported)) {
		b.marks.marks[i].flags |= noObject
		b.skipped.objects.Add(1)
		return nil
	}
	if err != nil {
		return err
	}
	return b.finish(i, e, e.Name)
}

// file makes a regular file.
func (b *builder) file(i int, e *image.Entry, buf []byte) error {
	f, err := b.root.create(e.Name)
	if err != nil {
		return err
	}
	defer f.Close()
	if data, ok := b.site[e.Name]; ok {
		if _, err := f.Write(data); err != nil {
			return err
		}
		b.marks.marks[i].flags |= isSite
		e = siteEntry(e, e.Name)
	} else if err := b.copy(i, e, f, buf); err != nil {
		return err
	}
	if err := f.Close(); err != nil {
		return err
	}
	return b.finish(i, e, e.Name)
}

// copy fills f with the content of entry i. Golden content that is not known to be as it was
// verified is verified again.
func (b *builder) copy(i int, e *image.Entry, f *os.File, buf []byte) error {
	src, o, err := b.store.open(e.Digest)
	if err != nil {
		return fmt.Errorf("golden content of %q: %w", e.Name, err)
	}
	defer src.Close()
	if exact && b.golden != nil && b.golden.believes(i, &o) {
		if b.cloning.Load() {
			if reflink(f, src) {
				return nil
			}
			b.cloning.Store(false)
		}
		return copyContent(f, src, o, buf)
	}
	h := sha256.New()
	if err := copySparse(f, io.TeeReader(src, h), buf); err != nil {
		return err
	}
	if [sha256.Size]byte(h.Sum(nil)) != e.Digest {
		return fmt.Errorf("golden content of %q in %q is damaged: pull the image again", e.Name, b.store.path(e.Digest))
	}
	return nil
}

// copyContent copies all of src, which o describes.
func copyContent(dst, src *os.File, o object, buf []byte) error {
	if o.stored < o.size {
		return copySparse(dst, src, buf)
	}
	if o.size > int64(len(buf)) {
		_, err := dst.ReadFrom(src) // in the kernel, where it can
		return err
	}
	for {
		n, err := src.Read(buf)
		if n > 0 {
			if _, err := dst.Write(buf[:n]); err != nil {
				return err
			}
		}
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

var zeros [block]byte

// copySparse copies r and leaves blocks of zeros out.
func copySparse(dst *os.File, r io.Reader, buf []byte) error {
	var off int64
	for {
		n, err := io.ReadFull(r, buf)
		for p := 0; p < n; {
			end := p
			for end < n && !bytes.Equal(buf[end:min(end+block, n)], zeros[:min(block, n-end)]) {
				end = min(end+block, n)
			}
			if end > p {
				if _, err := dst.WriteAt(buf[p:end], off+int64(p)); err != nil {
					return err
				}
			}
			p = min(end+block, n) // a block of zeros, or the end
		}
		off += int64(n)
		if err == io.EOF || err == io.ErrUnexpectedEOF {
			return dst.Truncate(off)
		}
		if err != nil {
			return err
		}
	}
}

// finish sets the metadata of entry i and marks what was made.
func (b *builder) finish(i int, e *image.Entry, name string) error {
	m := &b.marks.marks[i]
	flags, err := setMeta(b.root, name, e, b.uid, b.gid)
	if err != nil {
		return err
	}
	m.flags |= flags
	if flags&noOwner != 0 {
		b.skipped.owners.Add(1)
	}
	if flags&noXattrs != 0 {
		b.skipped.xattrs.Add(1)
	}
	o, err := b.root.lstat(name)
	m.ino, m.ctime = o.ino, o.ctime
	return err
}

// setMeta sets owner, attributes, mode and time, in this order: changing the owner clears set-id
// bits and capabilities. It returns what the system did not allow. uid and gid are ours.
func setMeta(d *folder, name string, e *image.Entry, uid, gid int) (flags uint8, err error) {
	if e.UID != uid || e.GID != gid {
		if !privileged() {
			flags |= noOwner
		} else if err := d.chown(name, e.UID, e.GID); err != nil {
			if !lacksRight(err) {
				return 0, err
			}
			flags |= noOwner
		}
	}
	for key, value := range e.Xattrs {
		if err := d.setXattr(name, key, value); err != nil {
			if !lacksRight(err) && !errors.Is(err, errors.ErrUnsupported) {
				return 0, err
			}
			flags |= noXattrs
		}
	}
	if e.Type() != fs.ModeSymlink {
		if err := d.chmod(name, e.Perm()); err != nil {
			if !lacksRight(err) {
				return 0, err
			}
			flags |= noMode
		}
	}
	if !exact {
		flags |= noMode | noOwner
	}
	return flags, d.utime(name, e.ModTime.UnixNano())
}

// links makes the further names of objects, and marks all their names again: each changed the
// change time of the object.
func (b *builder) links(entries []*image.Entry) error {
	firsts := map[string]int{}
	for i, e := range entries {
		if b.content.Nlink(e) > 1 && e.HardLink == "" {
			firsts[e.Name] = i
		}
	}
	var again []int
	for i, e := range entries {
		_, site := b.site[e.Name]
		if e.HardLink == "" || site {
			continue
		}
		first := firsts[e.HardLink]
		m := &b.marks.marks[i]
		if b.marks.marks[first].flags&noObject != 0 {
			m.flags |= noObject
			continue
		}
		if err := b.root.link(e.HardLink, e.Name); err != nil {
			return err
		}
		m.flags = b.marks.marks[first].flags
		again = append(again, i, first)
	}
	for _, i := range again {
		o, err := b.root.lstat(entries[i].Name)
		if err != nil {
			return err
		}
		b.marks.marks[i].ino, b.marks.marks[i].ctime = o.ino, o.ctime
	}
	return nil
}

// newSiteFiles makes the site files that the image does not have.
func (b *builder) newSiteFiles() error {
	for name, data := range b.site {
		if b.content.Lookup(name) != nil {
			continue
		}
		f, err := b.root.create(name)
		if err != nil {
			return err
		}
		_, err = f.Write(data)
		if err := errors.Join(err, f.Close()); err != nil {
			return err
		}
		if _, err := setMeta(b.root, name, siteEntry(nil, name), b.uid, b.gid); err != nil {
			return err
		}
	}
	return nil
}

// mountPoints makes the directories of volumes and the scratch that the image does not have.
func (b *builder) mountPoints() error {
	for name := range b.rules.skip {
		for i := 0; i <= len(name); i++ {
			if i < len(name) && name[i] != '/' || b.content.Lookup(name[:i]) != nil {
				continue
			}
			if err := b.root.mkdir(name[:i]); err != nil && !errors.Is(err, fs.ErrExist) {
				return err
			}
			if err := b.root.chmod(name[:i], 0o755); err != nil {
				return err
			}
		}
	}
	return nil
}

// settle waits until a change can no longer get the change time of what was just made. File systems
// take it from a clock that ticks every few milliseconds, or only every second, and that stands
// still on a busy virtual machine while others run on: so the wait ends not by our clock but when a
// file that is changed beside the root shows a later time. Where that does not come, nothing is
// believed.
func (b *builder) settle() error {
	if !exact {
		return nil
	}
	last := int64(0)
	for i := range b.marks.marks {
		last = max(last, b.marks.marks[i].ctime)
	}
	d, err := openFolder(filepath.Dir(b.root.path))
	if err != nil {
		return err
	}
	defer d.Close()
	if err := d.unlink(clockFile, false); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	f, err := d.create(clockFile)
	if err != nil {
		return err
	}
	defer f.Close()
	for end := time.Now().Add(maxSettle); ; time.Sleep(2 * time.Millisecond) {
		if err := d.chmod(clockFile, 0o600); err != nil {
			return err
		}
		o, err := d.lstat(clockFile)
		if err != nil {
			return err
		}
		if o.ctime > last {
			break
		}
		if time.Now().After(end) {
			b.marks.forget()
			break
		}
	}
	return d.unlink(clockFile, false)
}

const (
	clockFile = ".iscadm-clock" // beside the root, for the time of settle
	maxSettle = 5 * time.Second
)
