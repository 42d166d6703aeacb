//go:build solaris || illumos

package image

import "os"

// readlinkat reads by path: x/sys has no readlinkat(2) for this system. Should a directory of the
// path have become a link meanwhile, a wrong target is read, but nothing is written or followed.
func readlinkat(_ int, _, full string) (string, error) { return os.Readlink(full) }
