//go:build unix && !linux && !freebsd && !solaris && !illumos

package host

import (
	"golang.org/x/sys/unix"

	"github.com/goldenisc/packer-plugin-isc/image"
)

// mknodat refuses: the systems that are left are for building images, not for running them.
func mknodat(int, string, uint32, image.Device) error { return unix.EPERM }
