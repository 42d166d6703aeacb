package image

import (
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// fdXattrs returns the extended attributes of an open file or directory.
func fdXattrs(fd int) (map[string][]byte, error) {
	return xattrs(
		func(b []byte) (int, error) { return unix.Flistxattr(fd, b) },
		func(name string, b []byte) (int, error) { return unix.Fgetxattr(fd, name, b) })
}

// pathXattrs returns those of an object that must not be opened. There is no lgetxattrat(2) in
// most kernels; the name below the open directory is reached through /proc.
func pathXattrs(dirfd int, name string) (map[string][]byte, error) {
	p := "/proc/self/fd/" + strconv.Itoa(dirfd) + "/" + name
	a, err := xattrs(
		func(b []byte) (int, error) { return unix.Llistxattr(p, b) },
		func(name string, b []byte) (int, error) { return unix.Lgetxattr(p, name, b) })
	if err == unix.ENOENT { // no /proc here; symbolic links and devices hardly ever have any
		return nil, nil
	}
	return a, err
}

func xattrs(list func([]byte) (int, error), get func(string, []byte) (int, error)) (map[string][]byte, error) {
	var names [maxXattr]byte // XATTR_LIST_MAX
	n, err := list(names[:])
	if err == unix.ENOTSUP || n == 0 && err == nil {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	attrs := map[string][]byte{}
	for name := range strings.SplitSeq(strings.TrimRight(string(names[:n]), "\x00"), "\x00") {
		value := make([]byte, maxXattr)
		n, err := get(name, value)
		if err == unix.ENODATA {
			continue
		}
		if err != nil {
			return nil, err
		}
		attrs[name] = append([]byte(nil), value[:n]...)
	}
	return attrs, nil
}
