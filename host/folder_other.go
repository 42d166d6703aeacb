//go:build unix && !linux

package host

import (
	"errors"
	"os"

	"golang.org/x/sys/unix"
)

func reflink(_, _ *os.File) bool { return false }

func (d *folder) exchange(_, _ string) error { return errors.ErrUnsupported }

// syncAll brings everything to the disk: there is no call for one file system.
func (d *folder) syncAll() error {
	_ = unix.Sync()
	return nil
}

// Extended attributes are kept and compared on Linux only, as package image reads them.
func (d *folder) xattrs(string) (map[string][]byte, error) { return nil, nil }

func fileXattrs(*os.File) (map[string][]byte, error) { return nil, nil }

func (d *folder) setXattr(name, _ string, _ []byte) error {
	return d.fail("setxattr", name, unix.ENOTSUP)
}
