package registry

import (
	"os"

	"golang.org/x/sys/unix"
)

// startWriteback begins to bring a range of a file to the disk, without waiting for it, so that
// little is left to do when the file is synced.
func startWriteback(f *os.File, off, n int64) {
	unix.SyncFileRange(int(f.Fd()), off, n, unix.SYNC_FILE_RANGE_WRITE) //nolint:errcheck // a hint
}
