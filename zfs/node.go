package zfs

import (
	"cmp"
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"strings"
)

// A node is an object with its place in the file system.
type node struct {
	Object
	parent            *node
	child, last, next *node // the names in a directory, in order
	same              *node // the object, if this is a further name of it
	attrs             *node // hidden directory of extended attributes
	hidden            bool  // it is one, or a value in it
	number, gen       uint64
	links             uint64
	names             uint64 // in a directory
}

// check reports what the object itself has that cannot be represented.
func (n *node) check(o *Options) error {
	if n.Path != "." && !validPath(n.Path) {
		return errors.New("not a clean relative path")
	}
	if name := n.Path[strings.LastIndexByte(n.Path, '/')+1:]; len(name) > maxNameLen {
		return fmt.Errorf("name of %d bytes: longer than %d", len(name), maxNameLen)
	}
	if n.Link != "" {
		if !validPath(n.Link) {
			return fmt.Errorf("hard link to %q: not a clean relative path", n.Link)
		}
		return nil
	}
	var errs []error
	fail := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }
	if _, err := statMode(n.Mode); err != nil {
		errs = append(errs, err)
	}
	for _, id := range []struct {
		name  string
		value int
	}{{"uid", n.UID}, {"gid", n.GID}} {
		if id.value < 0 || id.value > maxID {
			fail("%s %d: not from 0 to %d", id.name, id.value, maxID)
		}
	}
	switch n.Mode.Type() {
	case 0:
		if n.Size < 0 {
			fail("size %d", n.Size)
		}
		if n.Size > 0 && n.Open == nil {
			fail("no content")
		}
		if n.Size > 0 && n.Digest == [sha256.Size]byte{} {
			fail("no digest of its content")
		}
	case fs.ModeSymlink:
		if n.Target == "" || len(n.Target) > maxTarget {
			fail("target of %d bytes: not from 1 to %d", len(n.Target), maxTarget)
		}
		if strings.IndexByte(n.Target, 0) >= 0 {
			fail("target %q holds a NUL byte", n.Target)
		}
	case fs.ModeDevice, fs.ModeDevice | fs.ModeCharDevice:
		if _, err := o.Platform.encode(n.Rdev); err != nil {
			errs = append(errs, err)
		}
	}
	if n.Mode.Type() != 0 && n.Size != 0 {
		fail("size %d of what is not a regular file", n.Size)
	}
	for name := range n.Xattrs {
		if name == "" || len(name) > maxNameLen || strings.ContainsAny(name, "\x00/") || name == "." || name == ".." {
			fail("extended attribute %q: no name for one", name)
		}
	}
	if len(errs) == 0 && len(n.Xattrs) > 0 && !o.directoryXattrs() {
		if _, err := packXattrs(n.Xattrs); err != nil {
			errs = append(errs, err)
		} else if z, err := n.znode(o); err != nil {
			errs = append(errs, err)
		} else if _, _, err := z.sa(); err != nil {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

// validPath reports whether a path is clean, relative and not the root.
func validPath(p string) bool {
	if p == "" || strings.IndexByte(p, 0) >= 0 {
		return false
	}
	for elem := range strings.SplitSeq(p, "/") {
		if elem == "" || elem == "." || elem == ".." {
			return false
		}
	}
	return true
}

func zonePathOf(p string) string {
	if p == "." {
		return zonePathRoot
	}
	return zonePathRoot + "/" + p
}

// comparePaths orders paths element by element, so that what a directory holds stands behind it
// and before its next sibling.
func comparePaths(a, b string) int {
	switch {
	case a == b:
		return 0
	case a == ".":
		return -1
	case b == ".":
		return 1
	}
	n := min(len(a), len(b))
	for i := range n {
		if a[i] != b[i] {
			switch {
			case a[i] == '/':
				return -1
			case b[i] == '/':
				return 1
			}
			return cmp.Compare(a[i], b[i])
		}
	}
	return cmp.Compare(len(a), len(b))
}

// base returns the last element of a path.
func base(p string) string { return p[strings.LastIndexByte(p, '/')+1:] }

// object returns the node of the object that a name means.
func (n *node) object() *node {
	if n.same != nil {
		return n.same
	}
	return n
}

// znode returns the metadata as the file system keeps it.
func (n *node) znode(o *Options) (*znode, error) {
	mode, err := statMode(n.Mode)
	if err != nil {
		return nil, err
	}
	z := &znode{
		gen: n.gen, uid: uint64(n.UID), gid: uint64(n.GID), links: n.links,
		sec: uint64(n.ModTime.Unix()), nsec: uint64(n.ModTime.Nanosecond()),
		flags: pflagTrivialACL | pflagArchive | pflagAVModified, size: uint64(n.Size),
	}
	switch n.Mode.Type() {
	case fs.ModeDir:
		z.size = n.names + 2
	case fs.ModeSymlink:
		mode |= 0o777 // permissions of a link mean nothing, and no host makes other ones
		z.size, z.target = uint64(len(n.Target)), n.Target
	case fs.ModeDevice, fs.ModeDevice | fs.ModeCharDevice:
		if z.rdev, err = o.Platform.encode(n.Rdev); err != nil {
			return nil, err
		}
	}
	if mode&0o111 == 0o111 {
		z.flags |= pflagNoExecDeny
	}
	if n.hidden {
		z.flags |= pflagXattr
	}
	z.mode, z.acl = mode, trivialACL(mode)
	if n.parent != nil {
		z.parent = n.parent.number
	}
	if n.attrs != nil {
		z.xattr = n.attrs.number
	}
	if len(n.Xattrs) > 0 && !o.directoryXattrs() {
		z.dxattr, err = packXattrs(n.Xattrs)
	}
	return z, err
}
