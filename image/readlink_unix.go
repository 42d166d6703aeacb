//go:build unix && !solaris && !illumos

package image

import "golang.org/x/sys/unix"

// readlinkat returns the target of a symbolic link in the open directory.
func readlinkat(dirfd int, name, _ string) (string, error) {
	buf := make([]byte, MaxName+1)
	n, err := unix.Readlinkat(dirfd, name, buf)
	if err == nil && n > MaxName {
		err = unix.ENAMETOOLONG
	}
	if err != nil {
		return "", err
	}
	return string(buf[:n]), nil
}
