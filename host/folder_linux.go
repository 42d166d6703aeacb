package host

import (
	"errors"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// reflink makes dst share the content of src until one of them is written (ioctl_ficlone(2)).
func reflink(dst, src *os.File) bool {
	return unix.IoctlFileClone(int(dst.Fd()), int(src.Fd())) == nil
}

// exchange swaps two names atomically (renameat2(2)).
func (d *folder) exchange(a, b string) error {
	return unix.Renameat2(d.fd(), a, d.fd(), b, unix.RENAME_EXCHANGE)
}

// syncAll brings all of the file system that the folder is on to the disk: one call, whatever the
// number of files (syncfs(2)).
func (d *folder) syncAll() error { return d.fail("sync", ".", unix.Syncfs(d.fd())) }

// attrPath names an object for calls that take no directory descriptor.
func (d *folder) attrPath(name string) string {
	return "/proc/self/fd/" + strconv.Itoa(d.fd()) + "/" + name
}

// xattrs returns the extended attributes of an object without following a link or opening it.
func (d *folder) xattrs(name string) (map[string][]byte, error) {
	path := d.attrPath(name)
	attrs, err := readXattrs(
		func(b []byte) (int, error) { return unix.Llistxattr(path, b) },
		func(key string, b []byte) (int, error) { return unix.Lgetxattr(path, key, b) })
	return attrs, d.fail("getxattr", name, err)
}

// fileXattrs returns those of an open file.
func fileXattrs(f *os.File) (map[string][]byte, error) {
	return readXattrs(
		func(b []byte) (int, error) { return unix.Flistxattr(int(f.Fd()), b) },
		func(key string, b []byte) (int, error) { return unix.Fgetxattr(int(f.Fd()), key, b) })
}

func readXattrs(list func([]byte) (int, error), get func(string, []byte) (int, error)) (map[string][]byte, error) {
	var short [512]byte
	names := short[:]
	n, err := list(names)
	if err == unix.ERANGE {
		names = make([]byte, 64<<10) // XATTR_LIST_MAX
		n, err = list(names)
	}
	if errors.Is(err, unix.ENOTSUP) || n == 0 && err == nil {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	attrs := map[string][]byte{}
	for key := range strings.SplitSeq(strings.TrimRight(string(names[:n]), "\x00"), "\x00") {
		if labels[key] {
			continue
		}
		value := make([]byte, 64<<10) // XATTR_SIZE_MAX
		n, err := get(key, value)
		if err == unix.ENODATA {
			continue
		}
		if err != nil {
			return nil, err
		}
		attrs[key] = append([]byte{}, value[:n]...)
	}
	return attrs, nil
}

// labels are attributes that the host's own security module gives every file.
var labels = map[string]bool{
	"security.selinux": true, "security.ima": true, "security.evm": true, "security.SMACK64": true,
}

func (d *folder) setXattr(name, key string, value []byte) error {
	return d.fail("setxattr", name, unix.Lsetxattr(d.attrPath(name), key, value, 0))
}
