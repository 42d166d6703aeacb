//go:build !windows

package registry

import (
	"errors"
	"os"
	"syscall"
)

// A fifo in the place of a file must not make the reader wait for a writer.
const nonblock = syscall.O_NONBLOCK

// syncDir makes the names in a folder durable.
func syncDir(dir string) error {
	f, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(fsync(f), f.Close())
}

// rename puts a file in the place of another atomically.
func rename(from, to string) error { return os.Rename(from, to) }
