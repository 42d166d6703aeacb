package image

import (
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// An xattrReader reads extended attributes with one buffer for all objects of a walk.
type xattrReader struct {
	buf    [maxXattr]byte // XATTR_SIZE_MAX and XATTR_LIST_MAX
	noProc bool
}

// fd returns the extended attributes of an open file or directory.
func (x *xattrReader) fd(fd int) (map[string][]byte, error) {
	return x.read(
		func(b []byte) (int, error) { return unix.Flistxattr(fd, b) },
		func(name string, b []byte) (int, error) { return unix.Fgetxattr(fd, name, b) })
}

// at returns those of name in the open directory, which need not be opened for it: there is no
// lgetxattrat(2) in most kernels, but /proc gives an open directory a name. Where /proc is not
// mounted, ok is false.
func (x *xattrReader) at(dirfd int, name string) (attrs map[string][]byte, ok bool, err error) {
	if x.noProc {
		return nil, false, nil
	}
	p := "/proc/self/fd/" + strconv.Itoa(dirfd) + "/" + name
	attrs, err = x.read(
		func(b []byte) (int, error) { return unix.Llistxattr(p, b) },
		func(name string, b []byte) (int, error) { return unix.Lgetxattr(p, name, b) })
	if err == unix.ENOENT && unix.Access("/proc/self/fd", unix.F_OK) != nil {
		x.noProc = true
		return nil, false, nil
	}
	return attrs, true, err
}

func (x *xattrReader) read(list func([]byte) (int, error), get func(string, []byte) (int, error)) (map[string][]byte, error) {
	n, err := list(x.buf[:])
	if err == unix.ENOTSUP || n == 0 && err == nil {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	names := strings.TrimRight(string(x.buf[:n]), "\x00")
	attrs := map[string][]byte{}
	for name := range strings.SplitSeq(names, "\x00") {
		n, err := get(name, x.buf[:])
		if err == unix.ENODATA {
			continue
		}
		if err != nil {
			return nil, err
		}
		attrs[name] = append([]byte(nil), x.buf[:n]...)
	}
	return attrs, nil
}
