package image

import (
	"cmp"
	"crypto/sha256"
	"fmt"
	"io/fs"
	"path"
	"strings"
	"time"
)

// An Entry is the metadata of one file-system object, never its content.
type Entry struct {
	Name     string      // slash-separated, relative to the root, clean; "." is the root
	Mode     fs.FileMode // type, permission and the setuid, setgid and sticky bits, as in package fs
	UID, GID int
	ModTime  time.Time
	Size     int64             // content bytes of a regular file, holes included; else 0
	Rdev     Device            // of character and block devices
	Target   string            // of a symbolic link, as stored
	HardLink string            // the first name of the same object, if Name is a further one
	Digest   [sha256.Size]byte // of a regular file's content, taken while it was read
	Xattrs   map[string][]byte // by full name, such as "security.capability"
}

// A Device is the number of a character or block device.
type Device struct{ Major, Minor uint32 }

// Type returns the type bits of Mode: 0 for a regular file.
func (e *Entry) Type() fs.FileMode { return e.Mode.Type() }

// IsDir reports whether the entry is a directory.
func (e *Entry) IsDir() bool { return e.Mode.IsDir() }

// IsRegular reports whether the entry is a regular file.
func (e *Entry) IsRegular() bool { return e.Mode.IsRegular() }

// Perm returns the traditional twelve permission bits: 07777 of st_mode.
func (e *Entry) Perm() uint32 { return Perm(e.Mode) }

// Perm returns the traditional twelve permission bits of a mode, 07777 of st_mode.
func Perm(m fs.FileMode) uint32 {
	p := uint32(m.Perm())
	if m&fs.ModeSetuid != 0 {
		p |= 0o4000
	}
	if m&fs.ModeSetgid != 0 {
		p |= 0o2000
	}
	if m&fs.ModeSticky != 0 {
		p |= 0o1000
	}
	return p
}

// ModeOf is the inverse of Perm for an object of the given type (0 for a regular file).
func ModeOf(perm uint32, typ fs.FileMode) fs.FileMode {
	m := typ.Type() | fs.FileMode(perm&0o777)
	if perm&0o4000 != 0 {
		m |= fs.ModeSetuid
	}
	if perm&0o2000 != 0 {
		m |= fs.ModeSetgid
	}
	if perm&0o1000 != 0 {
		m |= fs.ModeSticky
	}
	return m
}

// TypeName names the type of a mode for people: "file", "directory", "symbolic link" and so on.
func TypeName(m fs.FileMode) string {
	switch m.Type() {
	case 0:
		return "file"
	case fs.ModeDir:
		return "directory"
	case fs.ModeSymlink:
		return "symbolic link"
	case fs.ModeNamedPipe:
		return "fifo"
	case fs.ModeSocket:
		return "socket"
	case fs.ModeDevice:
		return "block device"
	case fs.ModeDevice | fs.ModeCharDevice:
		return "character device"
	}
	return m.Type().String()
}

// Clean returns the canonical form of a name as archives, specs and people write it: leading
// slashes and "./" are stripped as tar(1) does, doubled slashes and "." elements are dropped.
// It refuses an empty name, NUL bytes, any ".." element, an element over 255 bytes (NAME_MAX
// everywhere that matters) and a name over MaxName bytes.
func Clean(name string) (string, error) {
	switch {
	case name == "":
		return "", fmt.Errorf("empty name")
	case len(name) > MaxName:
		return "", fmt.Errorf("name of %d bytes: longer than %d", len(name), MaxName)
	case strings.IndexByte(name, 0) >= 0:
		return "", fmt.Errorf("name %q holds a NUL byte", name)
	}
	clean := true
	for elem := range strings.SplitSeq(name, "/") {
		clean = clean && elem != "" && elem != "."
		if elem == ".." {
			return "", fmt.Errorf("name %q leaves the root", name)
		}
		if len(elem) > 255 {
			return "", fmt.Errorf("name %q has an element of %d bytes: longer than 255", name[:64]+"…", len(elem))
		}
	}
	if clean {
		return name, nil
	}
	return path.Clean(strings.TrimLeft(path.Clean("/"+name), "/")), nil
}

// MaxName bounds a name: PATH_MAX of Linux and illumos less the terminating NUL and room for
// the directory that a tree is unpacked in.
const MaxName = 4000

// Compare orders names as a depth-first walk with sorted directories meets them: element by
// element, the root first, so that a directory stands right before what is in it.
func Compare(a, b string) int {
	if a == b {
		return 0
	}
	if a == "." {
		return -1
	}
	if b == "." {
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

// parent returns the directory that holds name, which is not the root.
func parent(name string) string {
	if i := strings.LastIndexByte(name, '/'); i >= 0 {
		return name[:i]
	}
	return "."
}
