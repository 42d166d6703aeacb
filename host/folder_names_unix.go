//go:build unix && !solaris && !illumos

package host

import (
	"io/fs"

	"golang.org/x/sys/unix"

	"github.com/goldenisc/packer-plugin-isc/image"
)

func (d *folder) readlink(name string) (string, error) {
	buf := make([]byte, image.MaxName+1)
	n, err := unix.Readlinkat(d.fd(), name, buf)
	if err != nil {
		return "", d.fail("readlink", name, err)
	}
	return string(buf[:n]), nil
}

func (d *folder) symlink(target, name string) error {
	return d.fail("symlink", name, unix.Symlinkat(target, d.fd(), name))
}

func (d *folder) link(name, as string) error {
	return d.fail("link", as, unix.Linkat(d.fd(), name, d.fd(), as, 0))
}

// mknod makes a device or a fifo.
func (d *folder) mknod(name string, mode fs.FileMode, dev image.Device) error {
	return d.fail("mknod", name, mknodat(d.fd(), name, typeBits(mode)|0o600, dev))
}

func typeBits(mode fs.FileMode) uint32 {
	switch {
	case mode&fs.ModeCharDevice != 0:
		return unix.S_IFCHR
	case mode&fs.ModeDevice != 0:
		return unix.S_IFBLK
	}
	return unix.S_IFIFO
}

func deviceOf(dev uint64) image.Device {
	return image.Device{Major: unix.Major(dev), Minor: unix.Minor(dev)}
}
