package registry

import (
	"errors"
	"os"
	"time"

	"golang.org/x/sys/windows"
)

const nonblock = 0 // Windows has no fifos in folders

// tryLock takes the exclusive lock of f until f is closed, and says whether it got it. The locked
// byte lies behind the end of any file, because Windows keeps others from reading what is locked.
func tryLock(f *os.File) (bool, error) {
	far := windows.Overlapped{OffsetHigh: 1 << 30}
	err := windows.LockFileEx(windows.Handle(f.Fd()), windows.LOCKFILE_EXCLUSIVE_LOCK|windows.LOCKFILE_FAIL_IMMEDIATELY, 0, 1, 0, &far)
	switch {
	case err == nil:
		return true, nil
	case errors.Is(err, windows.ERROR_LOCK_VIOLATION) || errors.Is(err, windows.ERROR_IO_PENDING):
		return false, nil
	}
	return false, &os.PathError{Op: "LockFileEx", Path: f.Name(), Err: err}
}

// syncDir does nothing: Windows has no such call, NTFS journals names.
func syncDir(string) error { return nil }

// rename puts a file in the place of another. Somebody who is just reading the other is waited for.
func rename(from, to string) error {
	for end := time.Now().Add(2 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		err := os.Rename(from, to)
		if err == nil || time.Now().After(end) ||
			!errors.Is(err, windows.ERROR_SHARING_VIOLATION) && !errors.Is(err, windows.ERROR_ACCESS_DENIED) {
			return err
		}
	}
}
