//go:build unix

package host

import (
	"errors"
	"io/fs"
	"os"

	"golang.org/x/sys/unix"

	"github.com/goldenisc/packer-plugin-isc/image"
)

// A folder is an open directory; its methods are the *at(2) calls. In a tree that somebody else
// writes to, a name is a single element, of which nothing is followed; in a tree of our own that
// nobody else can reach it may be a path below the folder.
type folder struct {
	f    *os.File
	path string // for messages, and for calls that some systems lack
}

// openFolder opens a directory of our own.
func openFolder(path string) (*folder, error) {
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, &fs.PathError{Op: "open", Path: path, Err: err}
	}
	return &folder{os.NewFile(uintptr(fd), path), path}, nil
}

func (d *folder) Close() error { return d.f.Close() }

func (d *folder) fd() int { return int(d.f.Fd()) }

func (d *folder) fail(op, name string, err error) error {
	if err == nil {
		return nil
	}
	return &fs.PathError{Op: op, Path: d.path + "/" + name, Err: err}
}

// sub opens a directory without following a link.
func (d *folder) sub(name string) (*folder, error) {
	fd, err := openat(d.fd(), name, unix.O_RDONLY|unix.O_DIRECTORY, 0)
	if err != nil {
		return nil, d.fail("open", name, err)
	}
	return &folder{os.NewFile(uintptr(fd), name), d.path + "/" + name}, nil
}

// open opens a regular file to be read, without following a link or waiting for the other end of
// a fifo.
func (d *folder) open(name string) (*os.File, object, error) {
	fd, err := openat(d.fd(), name, unix.O_RDONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, object{}, d.fail("open", name, err)
	}
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		unix.Close(fd)
		return nil, object{}, d.fail("stat", name, err)
	}
	o := objectOf(&st)
	if !o.mode.IsRegular() {
		unix.Close(fd)
		return nil, o, d.fail("open", name, errNotRegular)
	}
	return os.NewFile(uintptr(fd), name), o, nil
}

func openat(dirfd int, name string, flags int, mode uint32) (int, error) {
	for {
		fd, err := unix.Openat(dirfd, name, flags|unix.O_NOFOLLOW|unix.O_CLOEXEC, mode)
		if err != unix.EINTR {
			return fd, err
		}
	}
}

// stat is about the folder itself.
func (d *folder) stat() (object, error) {
	var st unix.Stat_t
	if err := unix.Fstat(d.fd(), &st); err != nil {
		return object{}, d.fail("stat", ".", err)
	}
	return objectOf(&st), nil
}

func (d *folder) lstat(name string) (object, error) {
	var st unix.Stat_t
	if err := unix.Fstatat(d.fd(), name, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return object{}, d.fail("stat", name, err)
	}
	return objectOf(&st), nil
}

// names returns what is in the folder, in no order.
func (d *folder) names() ([]string, error) {
	if _, err := d.f.Seek(0, 0); err != nil {
		return nil, err
	}
	return d.f.Readdirnames(-1)
}

func (d *folder) mkdir(name string) error {
	return d.fail("mkdir", name, unix.Mkdirat(d.fd(), name, 0o700))
}

// create makes a regular file, which must not exist.
func (d *folder) create(name string) (*os.File, error) {
	fd, err := openat(d.fd(), name, unix.O_RDWR|unix.O_CREAT|unix.O_EXCL, 0o600)
	if err != nil {
		return nil, d.fail("create", name, err)
	}
	return os.NewFile(uintptr(fd), d.path+"/"+name), nil
}

func (d *folder) rename(name string, to *folder, as string) error {
	return d.fail("rename", name, unix.Renameat(d.fd(), name, to.fd(), as))
}

func (d *folder) unlink(name string, isDir bool) error {
	flags := 0
	if isDir {
		flags = unix.AT_REMOVEDIR
	}
	return d.fail("remove", name, unix.Unlinkat(d.fd(), name, flags))
}

func (d *folder) chown(name string, uid, gid int) error {
	return d.fail("chown", name, unix.Fchownat(d.fd(), name, uid, gid, unix.AT_SYMLINK_NOFOLLOW))
}

// chmod follows links: name must not be one that somebody else can put there.
func (d *folder) chmod(name string, perm uint32) error {
	return d.fail("chmod", name, unix.Fchmodat(d.fd(), name, perm, 0))
}

func (d *folder) chmodSelf(perm uint32) error {
	return d.fail("chmod", ".", unix.Fchmod(d.fd(), perm))
}

// utime sets access and modification time, without following.
func (d *folder) utime(name string, mtime int64) error {
	ts := unix.NsecToTimespec(mtime)
	return d.fail("utime", name, unix.UtimesNanoAt(d.fd(), name, []unix.Timespec{ts, ts}, unix.AT_SYMLINK_NOFOLLOW))
}

// objectOf translates stat(2).
func objectOf(st *unix.Stat_t) object {
	msec, mnsec := st.Mtim.Unix()
	csec, cnsec := st.Ctim.Unix()
	o := object{
		uid: int(st.Uid), gid: int(st.Gid), size: st.Size, stored: int64(st.Blocks) * 512,
		mtime: msec*1e9 + mnsec, ctime: csec*1e9 + cnsec,
		dev: uint64(st.Dev), ino: uint64(st.Ino), nlink: uint64(st.Nlink),
	}
	mode := uint32(st.Mode)
	switch mode & unix.S_IFMT {
	case unix.S_IFREG:
	case unix.S_IFDIR:
		o.mode = fs.ModeDir
	case unix.S_IFLNK:
		o.mode = fs.ModeSymlink
	case unix.S_IFIFO:
		o.mode = fs.ModeNamedPipe
	case unix.S_IFSOCK:
		o.mode = fs.ModeSocket
	case unix.S_IFCHR:
		o.mode = fs.ModeDevice | fs.ModeCharDevice
	case unix.S_IFBLK:
		o.mode = fs.ModeDevice
	default:
		o.mode = fs.ModeIrregular
	}
	if o.mode&fs.ModeDevice != 0 {
		o.rdev = deviceOf(uint64(st.Rdev))
	}
	o.mode = image.ModeOf(mode&0o7777, o.mode)
	return o
}

// lacksRight reports whether the system refuses something to an ordinary user, or to root in a
// container or on a file system that cannot hold it.
func lacksRight(err error) bool {
	return errors.Is(err, unix.EPERM) || errors.Is(err, unix.ENOTSUP) || errors.Is(err, unix.EOPNOTSUPP) || errors.Is(err, unix.EINVAL)
}

// privileged reports whether owners can be set.
func privileged() bool { return os.Geteuid() == 0 }

// ids of who runs this.
func ids() (uid, gid int) { return os.Geteuid(), os.Getegid() }

const exact = true // modes, owners and links of the manifest can be kept
