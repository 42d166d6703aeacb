//go:build unix && !solaris && !illumos

package image

import "golang.org/x/sys/unix"

// deviceOf splits a device number.
func deviceOf(dev uint64) Device { return Device{Major: unix.Major(dev), Minor: unix.Minor(dev)} }
