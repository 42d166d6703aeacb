//go:build aix || (solaris && !illumos)

package flock

import (
	"errors"
	"io"
	"os"

	"golang.org/x/sys/unix"
)

// Try takes the exclusive lock of f until any descriptor of its file in this process is closed,
// and says whether it got it. The lock is the process's: the callers see to it that a process asks
// only once.
func Try(f *os.File) (bool, error) {
	for {
		err := unix.FcntlFlock(f.Fd(), unix.F_SETLK, &unix.Flock_t{Type: unix.F_WRLCK, Whence: io.SeekStart})
		switch {
		case err == nil:
			return true, nil
		case errors.Is(err, unix.EAGAIN) || errors.Is(err, unix.EACCES):
			return false, nil
		case !errors.Is(err, unix.EINTR):
			return false, &os.PathError{Op: "fcntl", Path: f.Name(), Err: err}
		}
	}
}
