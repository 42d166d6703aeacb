package host

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/windows"

	"github.com/goldenisc/packer-plugin-isc/image"
)

// A folder is a directory, by its path: Windows is for building images and for trying them out,
// and its trees are nobody else's. It has neither owners nor modes of Unix, nor change times.
type folder struct{ path string }

func openFolder(path string) (*folder, error) {
	info, err := os.Stat(path)
	if err == nil && !info.IsDir() {
		err = &fs.PathError{Op: "open", Path: path, Err: errors.New("is not a directory")}
	}
	return &folder{path}, err
}

func (d *folder) Close() error { return nil }

func (d *folder) at(name string) string { return filepath.Join(d.path, filepath.FromSlash(name)) }

func (d *folder) sub(name string) (*folder, error) {
	o, err := d.lstat(name)
	if err == nil && !o.mode.IsDir() {
		err = &fs.PathError{Op: "open", Path: d.at(name), Err: errors.New("is not a directory")}
	}
	return &folder{d.at(name)}, err
}

func (d *folder) open(name string) (*os.File, object, error) {
	o, err := d.lstat(name)
	if err == nil && !o.mode.IsRegular() {
		err = &fs.PathError{Op: "open", Path: d.at(name), Err: errNotRegular}
	}
	if err != nil {
		return nil, o, err
	}
	f, err := os.Open(d.at(name))
	return f, o, err
}

func (d *folder) stat() (object, error) { return d.lstat(".") }

func (d *folder) lstat(name string) (object, error) {
	info, err := os.Lstat(d.at(name))
	if err != nil {
		return object{}, err
	}
	t := info.ModTime().UnixNano()
	return object{mode: info.Mode(), size: info.Size(), stored: info.Size(), mtime: t, ctime: t, ino: 1, nlink: 1}, nil
}

func (d *folder) names() ([]string, error) {
	f, err := os.Open(d.path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return f.Readdirnames(-1)
}

func (d *folder) readlink(name string) (string, error) {
	target, err := os.Readlink(d.at(name))
	return filepath.ToSlash(target), err
}

func (d *folder) mkdir(name string) error { return os.Mkdir(d.at(name), 0o700) }

func (d *folder) create(name string) (*os.File, error) {
	return os.OpenFile(d.at(name), os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
}

func (d *folder) symlink(target, name string) error {
	return os.Symlink(filepath.FromSlash(target), d.at(name))
}

func (d *folder) link(name, as string) error { return os.Link(d.at(name), d.at(as)) }

func (d *folder) mknod(name string, _ fs.FileMode, _ image.Device) error {
	return &fs.PathError{Op: "mknod", Path: d.at(name), Err: errors.ErrUnsupported}
}

func (d *folder) rename(name string, to *folder, as string) error {
	return os.Rename(d.at(name), to.at(as))
}

func (d *folder) exchange(_, _ string) error { return errors.ErrUnsupported }

func (d *folder) unlink(name string, _ bool) error { return os.Remove(d.at(name)) }

func (d *folder) chown(string, int, int) error         { return errors.ErrUnsupported }
func (d *folder) chmod(string, uint32) error           { return nil }
func (d *folder) chmodSelf(uint32) error               { return nil }
func (d *folder) syncAll() error                       { return nil }
func reflink(_, _ *os.File) bool                       { return false }
func privileged() bool                                 { return false }
func ids() (uid, gid int)                              { return 0, 0 }
func (d *folder) setXattr(_, _ string, _ []byte) error { return errors.ErrUnsupported }

func (d *folder) xattrs(string) (map[string][]byte, error) { return nil, nil }

func (d *folder) utime(name string, mtime int64) error {
	if o, err := d.lstat(name); err != nil || o.mode&fs.ModeSymlink != 0 {
		return err
	}
	t := time.Unix(0, mtime)
	return os.Chtimes(d.at(name), t, t)
}

// lacksRight reports whether the system cannot do something; symbolic links need a privilege.
func lacksRight(err error) bool {
	return errors.Is(err, errors.ErrUnsupported) || errors.Is(err, windows.ERROR_PRIVILEGE_NOT_HELD)
}

const exact = false // modes and owners of the manifest mean nothing

func fileXattrs(*os.File) (map[string][]byte, error) { return nil, nil }
