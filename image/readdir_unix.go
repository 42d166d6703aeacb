//go:build unix

package image

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"os"
	"path"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// inode tells the objects of a file system apart.
type inode struct{ dev, ino uint64 }

// A dirWalk is one walk of a folder by openat(2), so that no link is followed however the folder
// changes meanwhile.
type dirWalk struct {
	*loader
	ctx  context.Context
	src  *dirSource
	dev  uint64
	seen map[inode]string // first name of objects with several
	attr xattrReader
}

// walk enters all that is below the source's folder.
func (l *loader) walk(ctx context.Context, s *dirSource) error {
	fd, err := unix.Open(s.dir, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return &fs.PathError{Op: "open", Path: s.dir, Err: err}
	}
	f := os.NewFile(uintptr(fd), s.dir)
	defer f.Close()
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return reading(s.dir, ".", err)
	}
	w := &dirWalk{loader: l, ctx: ctx, src: s, dev: uint64(st.Dev), seen: map[inode]string{}}
	return w.dir(f, ".", &st)
}

// dir enters an open directory and all below it.
func (w *dirWalk) dir(f *os.File, rel string, st *unix.Stat_t) error {
	if err := w.ctx.Err(); err != nil {
		return err
	}
	if uint64(st.Dev) != w.dev {
		return reading(w.src.dir, rel, errors.New("is on another file system: unmount it or give it as a tree of its own"))
	}
	e, err := entryOf(st)
	if err != nil {
		return reading(w.src.dir, rel, err)
	}
	if e.Xattrs, err = w.attr.fd(int(f.Fd())); err != nil {
		return reading(w.src.dir, rel, err)
	}
	if err := w.enter(e, rel, 0); err != nil {
		return err
	}
	names, err := f.Readdirnames(-1)
	if err != nil {
		return reading(w.src.dir, rel, err)
	}
	slices.Sort(names)
	for _, name := range names {
		below := name
		if rel != "." {
			below = rel + "/" + name
		}
		if err := w.object(int(f.Fd()), name, below); err != nil {
			return err
		}
	}
	return nil
}

// object enters what name is in the open directory.
func (w *dirWalk) object(dirfd int, name, rel string) error {
	var st unix.Stat_t
	if err := unix.Fstatat(dirfd, name, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return reading(w.src.dir, rel, err)
	}
	e, err := entryOf(&st)
	if err != nil {
		return reading(w.src.dir, rel, err)
	}
	if !e.IsDir() && st.Nlink > 1 {
		id := inode{uint64(st.Dev), uint64(st.Ino)}
		if first, ok := w.seen[id]; ok {
			e.HardLink = first
			return w.enter(e, rel, 0)
		}
		w.seen[id] = rel
	}
	switch e.Type() {
	case fs.ModeDir:
		fd, err := openat(dirfd, name, unix.O_DIRECTORY)
		if err != nil {
			return reading(w.src.dir, rel, err)
		}
		f := os.NewFile(uintptr(fd), rel)
		defer f.Close()
		if err := unix.Fstat(fd, &st); err != nil {
			return reading(w.src.dir, rel, err)
		}
		return w.dir(f, rel, &st)
	case 0:
		// It is opened when it is hashed, and must be the same then by size and change time.
		e.Size = st.Size
		if e.Xattrs, err = w.xattrs(dirfd, name); err != nil {
			return reading(w.src.dir, rel, err)
		}
		return w.enter(e, rel, changed(&st))
	case fs.ModeSymlink:
		if e.Target, err = readlinkat(dirfd, name, w.src.dir+"/"+rel); err != nil {
			return reading(w.src.dir, rel, err)
		}
	}
	// Those of an object that cannot be opened are not to be had without /proc.
	if e.Xattrs, _, err = w.attr.at(dirfd, name); err != nil {
		return reading(w.src.dir, rel, err)
	}
	return w.enter(e, rel, 0)
}

// xattrs returns the extended attributes of a regular file.
func (w *dirWalk) xattrs(dirfd int, name string) (map[string][]byte, error) {
	attrs, ok, err := w.attr.at(dirfd, name)
	if ok {
		return attrs, err
	}
	fd, err := openat(dirfd, name, unix.O_NONBLOCK)
	if err != nil {
		return nil, err
	}
	defer unix.Close(fd)
	return w.attr.fd(fd)
}

// openat opens without following a link. With O_NONBLOCK it does not wait for the other end of a
// fifo either.
func openat(dirfd int, name string, flags int) (int, error) {
	for {
		fd, err := unix.Openat(dirfd, name, flags|unix.O_RDONLY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
		if err != unix.EINTR {
			return fd, err
		}
	}
}

// An opener opens files below a folder. It keeps the directory of the last one open, because files
// are mostly read in the order of their names.
type opener struct {
	mu   sync.Mutex
	root int
	dir  string // relative to root; "." at first
	fd   int    // of dir
}

func (o *opener) open(dir string) (err error) {
	if o.root, err = unix.Open(dir, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0); err != nil {
		return &fs.PathError{Op: "open", Path: dir, Err: err}
	}
	o.dir, o.fd = ".", o.root
	return nil
}

func (o *opener) close() error {
	if o.fd != o.root {
		unix.Close(o.fd)
	}
	return unix.Close(o.root)
}

// A contentFile is an open regular file. It is not an os.File because that asks the kernel twice
// more about every file, whether it can be polled.
type contentFile int

func (f contentFile) ReadAt(p []byte, off int64) (n int, err error) {
	for n < len(p) {
		m, err := unix.Pread(int(f), p[n:], off+int64(n))
		switch {
		case err == unix.EINTR:
		case err != nil:
			return n, err
		case m == 0:
			return n, io.EOF
		}
		n += max(m, 0)
	}
	return n, nil
}

func (f contentFile) Close() error { return unix.Close(int(f)) }

// stat returns the size and change time.
func (f contentFile) stat() (size, change int64, err error) {
	var st unix.Stat_t
	if err := unix.Fstat(int(f), &st); err != nil {
		return 0, 0, err
	}
	return st.Size, changed(&st), nil
}

// file opens a regular file, none of whose elements may be a link, and returns its size and change
// time.
func (o *opener) file(name string) (f contentFile, size, change int64, err error) {
	dir, base := path.Split(name)
	fd, err := o.at(path.Clean(dir), base)
	if err != nil {
		return 0, 0, 0, err
	}
	var st unix.Stat_t
	if err = unix.Fstat(fd, &st); err == nil && uint32(st.Mode)&unix.S_IFMT != unix.S_IFREG {
		err = errors.New("changed while it was read")
	}
	if err != nil {
		unix.Close(fd)
		return 0, 0, 0, err
	}
	return contentFile(fd), st.Size, changed(&st), nil
}

// at opens base in the directory dir.
func (o *opener) at(dir, base string) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if dir != o.dir {
		if err := o.change(dir); err != nil {
			return -1, err
		}
	}
	return openat(o.fd, base, unix.O_NONBLOCK)
}

// change makes dir the directory that is kept open.
func (o *opener) change(dir string) error {
	fd := o.root
	for elem := range strings.SplitSeq(dir, "/") {
		if elem == "." {
			break
		}
		next, err := openat(fd, elem, unix.O_DIRECTORY)
		if fd != o.root {
			unix.Close(fd)
		}
		if err != nil {
			return err
		}
		fd = next
	}
	if o.fd != o.root {
		unix.Close(o.fd)
	}
	o.dir, o.fd = dir, fd
	return nil
}

// entryOf translates stat(2), names and content apart.
func entryOf(st *unix.Stat_t) (Entry, error) {
	e := Entry{UID: int(st.Uid), GID: int(st.Gid)}
	sec, nsec := st.Mtim.Unix()
	e.ModTime = time.Unix(sec, nsec)
	mode := uint32(st.Mode)
	switch mode & unix.S_IFMT {
	case unix.S_IFREG:
	case unix.S_IFDIR:
		e.Mode = fs.ModeDir
	case unix.S_IFLNK:
		e.Mode = fs.ModeSymlink
		mode = 0o777
	case unix.S_IFIFO:
		e.Mode = fs.ModeNamedPipe
	case unix.S_IFSOCK:
		e.Mode = fs.ModeSocket
	case unix.S_IFCHR:
		e.Mode = fs.ModeDevice | fs.ModeCharDevice
	case unix.S_IFBLK:
		e.Mode = fs.ModeDevice
	default:
		return e, errors.New("is of no known type")
	}
	if e.Mode&fs.ModeDevice != 0 {
		e.Rdev = deviceOf(uint64(st.Rdev))
	}
	e.Mode = ModeOf(mode&0o7777, e.Mode)
	return e, nil
}

// changed returns the change time in nanoseconds: any change of a file sets it.
func changed(st *unix.Stat_t) int64 {
	sec, nsec := st.Ctim.Unix()
	return sec*1e9 + nsec
}
