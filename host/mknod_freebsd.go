package host

import (
	"golang.org/x/sys/unix"

	"github.com/goldenisc/packer-plugin-isc/image"
)

func mknodat(dirfd int, name string, mode uint32, dev image.Device) error {
	return unix.Mknodat(dirfd, name, mode, unix.Mkdev(dev.Major, dev.Minor))
}
