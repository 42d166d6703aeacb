//go:build solaris || illumos

package host

import (
	"io/fs"
	"os"

	"golang.org/x/sys/unix"

	"github.com/goldenisc/packer-plugin-isc/image"
)

// x/sys has no readlinkat, symlinkat and linkat for this system. Should a directory of the path
// have become a link meanwhile, a wrong target is read; links are made in trees of our own only.

func (d *folder) readlink(name string) (string, error) { return os.Readlink(d.path + "/" + name) }

func (d *folder) symlink(target, name string) error { return os.Symlink(target, d.path+"/"+name) }

func (d *folder) link(name, as string) error { return os.Link(d.path+"/"+name, d.path+"/"+as) }

// mknod makes a device or a fifo.
func (d *folder) mknod(name string, mode fs.FileMode, dev image.Device) error {
	bits := uint32(unix.S_IFIFO)
	switch {
	case mode&fs.ModeCharDevice != 0:
		bits = unix.S_IFCHR
	case mode&fs.ModeDevice != 0:
		bits = unix.S_IFBLK
	}
	return d.fail("mknod", name, unix.Mknodat(d.fd(), name, bits|0o600, int(uint64(dev.Major)<<32|uint64(dev.Minor))))
}

func deviceOf(dev uint64) image.Device {
	return image.Device{Major: uint32(dev >> 32), Minor: uint32(dev)}
}
