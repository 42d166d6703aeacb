package zfs

import (
	"crypto/sha256"
	"fmt"
	"io"
	"io/fs"
	"strconv"
	"time"
)

// An Object is one file-system object under one of its names.
type Object struct {
	Path     string      // slash-separated, relative to the root, clean; "." is the root
	Mode     fs.FileMode // type, permission, setuid, setgid and sticky bits
	UID, GID int         // up to 2^31-1
	ModTime  time.Time   // to the nanosecond
	Size     int64       // bytes of a regular file's content, holes included; else 0
	Rdev     Device      // of character and block devices
	Target   string      // of a symbolic link
	Link     string      // the first name of the same object, if Path is a further one: then nothing else counts
	Xattrs   map[string][]byte

	// Digest identifies the content of a regular file that is not empty. The guid of the snapshot
	// derives from it, and increments go by it: two contents must never share one. That it is the
	// content's is the caller's word; Write does not compute it again.
	Digest [sha256.Size]byte
	// Open gives the content of a regular file; it may be nil if Size is 0.
	Open func() (Content, error)
}

// Content is what a regular file holds.
type Content interface {
	io.ReaderAt
	io.Closer
	// Extents returns the ranges that may hold data, ascending and disjoint; all else is zeros
	// and is not read.
	Extents() []Extent
}

// An Extent is a range of a file, in bytes.
type Extent struct{ Off, Len int64 }

// A Device is the number of a character or block device.
type Device struct{ Major, Minor uint32 }

// A Profile is the version of the file system in a stream.
type Profile int

// The profiles.
const (
	ZPL5 Profile = iota // system attributes, stream feature sa_spill: pools from version 24 on
	ZPL4                // fixed znodes, no feature: every pool that can hold ZPL 4
)

func (p Profile) String() string {
	switch p {
	case ZPL5:
		return "zpl5"
	case ZPL4:
		return "zpl4"
	}
	return "profile " + strconv.Itoa(int(p))
}

// A Layout is where a stream has the objects' root.
type Layout int

// The layouts.
const (
	Top      Layout = iota // the root of the file system, as any dataset and the illumos brand of OmniOS have it
	ZonePath               // its directory "root", as images of SmartOS and the lx brand have it
)

func (l Layout) String() string {
	switch l {
	case Top:
		return "top"
	case ZonePath:
		return "root"
	}
	return "layout " + strconv.Itoa(int(l))
}

// A Platform is the operating system that mounts the file system.
type Platform int

// The platforms. They differ in how they encode device numbers and keep extended attributes.
const (
	Linux Platform = iota
	FreeBSD
	Illumos
)

func (p Platform) String() string {
	switch p {
	case Linux:
		return "linux"
	case FreeBSD:
		return "freebsd"
	case Illumos:
		return "illumos"
	}
	return "platform " + strconv.Itoa(int(p))
}

// encode returns the form in which the platform keeps a device number: the kernel's dev_t on
// Linux, expldev of zfs_znode.c elsewhere. A wrong one shows other numbers and no error.
func (p Platform) encode(d Device) (uint64, error) {
	if p != Linux {
		return uint64(d.Major)<<32 | uint64(d.Minor), nil
	}
	if d.Major >= 1<<12 || d.Minor >= 1<<20 {
		return 0, fmt.Errorf("device %d,%d: Linux has majors below %d and minors below %d", d.Major, d.Minor, 1<<12, 1<<20)
	}
	return uint64(d.Major)<<20 | uint64(d.Minor), nil
}

func (p Platform) decode(v uint64) Device {
	if p == Linux {
		return Device{uint32(v >> 20), uint32(v & (1<<20 - 1))}
	}
	return Device{uint32(v >> 32), uint32(v)}
}

// statMode returns the st_mode of a mode, or an error for a type that no file system keeps.
func statMode(m fs.FileMode) (uint64, error) {
	s := uint64(m.Perm())
	for _, b := range []struct {
		bit  fs.FileMode
		stat uint64
	}{{fs.ModeSetuid, 0o4000}, {fs.ModeSetgid, 0o2000}, {fs.ModeSticky, 0o1000}} {
		if m&b.bit != 0 {
			s |= b.stat
		}
	}
	switch m.Type() {
	case 0:
		s |= modeRegular
	case fs.ModeDir:
		s |= modeDir
	case fs.ModeSymlink:
		s |= modeSymlink
	case fs.ModeNamedPipe:
		s |= modeFIFO
	case fs.ModeSocket:
		s |= modeSocket
	case fs.ModeDevice:
		s |= modeBlock
	case fs.ModeDevice | fs.ModeCharDevice:
		s |= modeChar
	default:
		return 0, fmt.Errorf("mode %v: no type of file", m)
	}
	return s, nil
}

// fileMode is the inverse of statMode.
func fileMode(s uint64) (fs.FileMode, error) {
	m := fs.FileMode(s & 0o777)
	if s&0o4000 != 0 {
		m |= fs.ModeSetuid
	}
	if s&0o2000 != 0 {
		m |= fs.ModeSetgid
	}
	if s&0o1000 != 0 {
		m |= fs.ModeSticky
	}
	switch s & modeType {
	case modeRegular:
	case modeDir:
		m |= fs.ModeDir
	case modeSymlink:
		m |= fs.ModeSymlink
	case modeFIFO:
		m |= fs.ModeNamedPipe
	case modeSocket:
		m |= fs.ModeSocket
	case modeBlock:
		m |= fs.ModeDevice
	case modeChar:
		m |= fs.ModeDevice | fs.ModeCharDevice
	default:
		return 0, fmt.Errorf("mode %#o: no type of file", s)
	}
	return m, nil
}

func itoa(v uint64) string { return strconv.FormatUint(v, 10) }

func roundUp(n, to int) int { return (n + to - 1) / to * to }
