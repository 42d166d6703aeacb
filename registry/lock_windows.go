package registry

import (
	"errors"
	"os"
	"time"

	"golang.org/x/sys/windows"
)

const nonblock = 0 // Windows has no fifos in folders

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
