package zfs

import (
	"bytes"
	"cmp"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"iter"
	"maps"
	"math"
	"slices"
	"strings"
	"time"
)

// Options say what a stream is for. The zero value is a full stream of ZPL 5 for Linux.
type Options struct {
	Profile  Profile
	Layout   Layout
	Platform Platform
	// Name is that of the snapshot in the stream; it must contain an '@'. Receivers go by the name
	// they are told, and use this one only for what follows the '@'. Empty means "image@golden".
	Name string
	// Created becomes the snapshot's property creation, to the second; the zero time is 1970.
	Created time.Time
	// LZ4 compresses file contents in the stream and, since receivers store blocks as they come,
	// on the pool, which must have feature@lz4_compress.
	LZ4 bool
	// Base is the map of the version before, or of any earlier one: objects that are in both keep
	// their numbers, which increments from it and from those before it depend on. A stream with a
	// base is as full as one without.
	Base *Map
}

// limits of names: those of hosts, and of the field in BEGIN.
const (
	maxNameLen   = 255
	maxTarget    = 1023 // PATH_MAX - 1 of illumos and FreeBSD
	maxToName    = 255
	maxID        = math.MaxInt32 // above are ids with a domain
	defaultName  = "image@golden"
	zonePathRoot = "root"
)

// A Stream is a full send stream of one snapshot, ready to be written.
type Stream struct {
	opt   Options
	nodes []*node // by number
	root  *node
	guid  uint64
	// What the version of ours is, counted from a first one without a base, and the first number
	// that neither it nor one before it has used.
	version, next uint64
}

// NewStream takes the objects of a file system, in any order, and reports everything in them that
// it cannot represent, joined, each with its path. The objects' root must be among them, and for
// every object its directory. Xattrs are kept, not copied.
func NewStream(objects iter.Seq2[*Object, error], o Options) (*Stream, error) {
	if o.Name == "" {
		o.Name = defaultName
	}
	if o.Created.IsZero() {
		o.Created = time.Unix(0, 0)
	}
	if err := o.check(); err != nil {
		return nil, err
	}
	s := &Stream{opt: o}
	var errs errorList
	var nodes []*node
	for obj, err := range objects {
		if err != nil {
			return nil, err
		}
		n := &node{Object: *obj}
		if err := n.check(&s.opt); err != nil {
			errs.add(obj.Path, err)
			continue
		}
		if o.Layout == ZonePath {
			n.Path = zonePathOf(n.Path)
			if n.Link != "" {
				n.Link = zonePathOf(n.Link)
			}
		}
		nodes = append(nodes, n)
	}
	if o.Layout == ZonePath {
		// zoneadm(8) refuses a zonepath that others can enter.
		top := &node{Object: Object{Path: ".", Mode: fs.ModeDir | 0o700}}
		for _, n := range nodes {
			if n.Path == zonePathRoot {
				top.ModTime = n.ModTime
			}
		}
		nodes = append(nodes, top)
	}
	slices.SortStableFunc(nodes, func(a, b *node) int { return comparePaths(a.Path, b.Path) })
	s.connect(nodes, &errs)
	if err := errs.err(); err != nil {
		return nil, err
	}
	s.collect(nodes)
	s.enumerate()
	s.guid = s.digest()
	return s, nil
}

// GUID returns the guid that the received snapshot has. It derives from all that the stream says:
// two full streams with the same guid are the same to the byte.
func (s *Stream) GUID() uint64 { return s.guid }

// Len returns the number of objects, the hidden ones of extended attributes included.
func (s *Stream) Len() int { return len(s.nodes) }

func (o *Options) check() error {
	var errs []error
	if o.Profile != ZPL5 && o.Profile != ZPL4 {
		errs = append(errs, fmt.Errorf("%v: not known", o.Profile))
	}
	if o.Layout != Top && o.Layout != ZonePath {
		errs = append(errs, fmt.Errorf("%v: not known", o.Layout))
	}
	if b := o.Base; b != nil && b.options != o.identity() {
		errs = append(errs, fmt.Errorf("the base is of %s, this is of %s", b.options, o.identity()))
	}
	if o.Platform < Linux || o.Platform > Illumos {
		errs = append(errs, fmt.Errorf("%v: not known", o.Platform))
	}
	if at := strings.IndexByte(o.Name, '@'); at <= 0 || at == len(o.Name)-1 || len(o.Name) > maxToName ||
		strings.Count(o.Name, "@") != 1 || strings.IndexByte(o.Name, 0) >= 0 {
		errs = append(errs, fmt.Errorf("snapshot name %q: not DATASET@SNAPSHOT of at most %d bytes", o.Name, maxToName))
	}
	if o.LZ4 && o.Profile == ZPL4 {
		errs = append(errs, errors.New("LZ4 with zpl4: pools that need the one cannot have the other"))
	}
	if o.Created.Unix() < 0 {
		errs = append(errs, fmt.Errorf("creation time %v: before 1970", o.Created))
	}
	return errors.Join(errs...)
}

// identity names what a version has in common with its base.
func (o *Options) identity() string {
	return fmt.Sprintf("%v %v %v", o.Profile, o.Layout, o.Platform)
}

// directoryXattrs reports whether extended attributes are files in a hidden directory.
func (o *Options) directoryXattrs() bool { return o.Profile == ZPL4 || o.Platform == Illumos }

// connect puts sorted nodes into their directories and resolves hard links.
func (s *Stream) connect(nodes []*node, errs *errorList) {
	first := map[string]*node{} // what hard links name
	for _, n := range nodes {
		if n.Link != "" {
			first[n.Link] = nil
		}
	}
	var dirs []*node // from the root down to where we are
	var previous *node
	for _, n := range nodes {
		if previous != nil && previous.Path == n.Path {
			errs.add(n.Path, errors.New("more than once"))
			continue
		}
		previous = n
		if n.Path == "." {
			if n.Link != "" || !n.Mode.IsDir() {
				errs.add(n.Path, errors.New("the root is not a directory"))
				return
			}
			s.root, n.parent = n, n
			dirs = append(dirs, n)
			continue
		}
		if len(dirs) == 0 {
			errs.add(".", errors.New("the root is missing"))
			return
		}
		for len(dirs) > 1 && !strings.HasPrefix(n.Path, dirs[len(dirs)-1].Path+"/") {
			dirs = dirs[:len(dirs)-1]
		}
		dir := dirs[len(dirs)-1]
		if want := strings.TrimSuffix(n.Path[:len(n.Path)-len(base(n.Path))], "/"); want != dir.Path && (want != "" || dir != s.root) {
			errs.add(n.Path, fmt.Errorf("there is no directory %q", want))
			continue
		}
		dir.add(n)
		if n.Mode.IsDir() && n.Link == "" {
			dirs = append(dirs, n)
		}
		if _, ok := first[n.Path]; ok {
			first[n.Path] = n
		}
	}
	if s.root == nil && len(nodes) == 0 {
		errs.add(".", errors.New("the root is missing"))
	}
	for _, n := range nodes {
		if n.Link == "" {
			continue
		}
		switch to := first[n.Link]; {
		case to == nil:
			errs.add(n.Path, fmt.Errorf("hard link to %q, which does not exist", n.Link))
		case to.Link != "":
			errs.add(n.Path, fmt.Errorf("hard link to %q, which is not the first name of its object", n.Link))
		case to.Mode.IsDir():
			errs.add(n.Path, fmt.Errorf("hard link to %q, which is a directory", n.Link))
		default:
			n.same = to
			to.links++
		}
	}
}

// add appends a name to a directory.
func (n *node) add(c *node) {
	c.parent = n
	if n.last == nil {
		n.child = c
	} else {
		n.last.next = c
	}
	n.last = c
	n.names++
	switch {
	case c.Link != "":
	case c.Mode.IsDir():
		n.links++
		c.links += 2
	default:
		c.links++
	}
}

// collect takes the objects among the names, in order, and makes the hidden directories of
// extended attributes, which follow their owner.
func (s *Stream) collect(names []*node) {
	s.root.links += 2
	for _, n := range names {
		if n.Link != "" {
			continue
		}
		s.nodes = append(s.nodes, n)
		if len(n.Xattrs) == 0 || !s.opt.directoryXattrs() {
			continue
		}
		dir := &node{Object: Object{
			Path: n.Path + hiddenMark, Mode: fs.ModeDir | fs.ModeSticky | 0o777, UID: n.UID, GID: n.GID, ModTime: n.ModTime,
		}, hidden: true, links: 2}
		s.nodes = append(s.nodes, dir)
		for _, name := range slices.Sorted(maps.Keys(n.Xattrs)) {
			value := n.Xattrs[name]
			v := &node{Object: Object{
				Path: dir.Path + name, Mode: 0o644, UID: n.UID, GID: n.GID, ModTime: n.ModTime,
				Size: int64(len(value)), Digest: sha256.Sum256(value),
				Open: func() (Content, error) { return BytesContent(value), nil },
			}, hidden: true}
			dir.add(v)
			s.nodes = append(s.nodes, v)
		}
		dir.parent, n.attrs = n, dir
	}
}

// hiddenMark ends the path of a hidden directory; no object of ours can have such a path.
const hiddenMark = "//"

// enumerate gives every object its number and generation, and sorts them by number: as the base
// has them, and else in the order of their first names.
func (s *Stream) enumerate() {
	s.version, s.next = 1, objFirst
	if s.opt.Base != nil {
		s.version, s.next = s.opt.Base.version+1, s.opt.Base.next
		s.opt.Base.assign(s)
	}
	s.root.number = objRoot
	if s.root.gen == 0 {
		s.root.gen = s.version
	}
	for _, n := range s.nodes {
		if n.number == 0 {
			n.number, n.gen = s.next, s.version
			s.next++
		}
	}
	slices.SortFunc(s.nodes, func(a, b *node) int { return cmp.Compare(a.number, b.number) })
}

// digest returns the guid: 64 bits of a digest of everything that the file system depends on. It
// does not say how it comes to the receiver: a version has one guid, received whole or as an
// increment.
func (s *Stream) digest() uint64 {
	h := sha256.New()
	var b []byte
	num := func(vs ...uint64) {
		for _, v := range vs {
			b = binary.LittleEndian.AppendUint64(b, v)
		}
	}
	str := func(s string) {
		num(uint64(len(s)))
		b = append(b, s...)
	}
	str("zfs stream 1")
	for _, v := range []fmt.Stringer{s.opt.Profile, s.opt.Layout, s.opt.Platform} {
		str(v.String())
	}
	str(s.opt.Name)
	lz4 := uint64(0)
	if s.opt.LZ4 {
		lz4 = lz4Format
	}
	num(uint64(s.opt.Created.Unix()), lz4, uint64(len(s.nodes)))
	for _, n := range s.nodes {
		mode, _ := statMode(n.Mode)
		num(n.number, n.gen, n.parent.number, n.links, mode, uint64(n.UID), uint64(n.GID),
			uint64(n.ModTime.Unix()), uint64(n.ModTime.Nanosecond()), uint64(n.Size),
			uint64(n.Rdev.Major), uint64(n.Rdev.Minor))
		str(n.Target)
		b = append(b, n.Digest[:]...)
		num(uint64(len(n.Xattrs)))
		for _, name := range slices.Sorted(maps.Keys(n.Xattrs)) {
			str(name)
			str(string(n.Xattrs[name]))
		}
		num(n.names)
		for c := n.child; c != nil; c = c.next {
			str(base(c.Path))
			num(c.object().number)
			if len(b) > 32<<10 {
				h.Write(b)
				b = b[:0]
			}
		}
		h.Write(b)
		b = b[:0]
	}
	if guid := binary.LittleEndian.Uint64(h.Sum(nil)); guid != 0 {
		return guid
	}
	return 1
}

// BytesContent returns the content of a file that is in memory.
func BytesContent(b []byte) Content { return bytesContent{bytes.NewReader(b)} }

type bytesContent struct{ *bytes.Reader }

func (bytesContent) Close() error        { return nil }
func (c bytesContent) Extents() []Extent { return []Extent{{0, c.Size()}} }

// maxErrors bounds how many problems are reported at once.
const maxErrors = 50

// An errorList collects problems of objects.
type errorList struct {
	errs []error
	more int
}

func (l *errorList) add(path string, err error) {
	if len(l.errs) == maxErrors {
		l.more++
		return
	}
	l.errs = append(l.errs, fmt.Errorf("object %q: %w", path, err))
}

func (l *errorList) err() error {
	if l.more > 0 {
		return errors.Join(append(slices.Clip(l.errs), fmt.Errorf("and %d more", l.more))...)
	}
	return errors.Join(l.errs...)
}
