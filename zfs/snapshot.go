package zfs

import (
	"errors"
	"fmt"
	"io"
	"iter"
	"slices"
	"strings"
	"time"
)

// A Snapshot is a file system that was read from streams. It reads the contents from them when
// they are wanted: they must stay as they are.
type Snapshot struct {
	set    *objset
	header Header
	zpl    zplInfo
	broken bool
}

// zplInfo is what the master node of a file system says.
type zplInfo struct {
	version uint64
	root    uint64
	attrs   *zplAttrs
}

// Open reads a stream of size bytes whole, verifying it, and returns the file system in it. In a
// package of several (zfs send -R) name tells the snapshot that is wanted, "pool/fs@snap" or only
// "@snap" if no other file system has one of that name; empty is the last one of the first file
// system. An increment is refused: apply it to what it is based on.
func Open(r io.ReaderAt, size int64, name string) (*Snapshot, error) {
	headers, err := headers(r, size)
	if err != nil {
		return nil, err
	}
	chain, err := chainTo(headers, name)
	if err != nil {
		return nil, err
	}
	s := &Snapshot{set: &objset{objects: map[uint64]*dnode{}}}
	if err := s.apply(r, size, chain); err != nil {
		return nil, err
	}
	return s, nil
}

// Apply reads an increment from the snapshot that s is, and makes s the later one. In a package it
// takes all that follow one upon the other. After an error s can no longer be used.
func (s *Snapshot) Apply(r io.ReaderAt, size int64) error {
	if s.broken {
		return errBroken
	}
	headers, err := headers(r, size)
	if err != nil {
		return err
	}
	var chain []uint64
	for guid := s.header.GUID; ; {
		i := slices.IndexFunc(headers, func(h Header) bool { return h.FromGUID == guid && guid != 0 })
		if i < 0 {
			break
		}
		guid = headers[i].GUID
		if slices.Contains(chain, guid) {
			return fmt.Errorf("snapshot %q is an increment from itself", headers[i].Name)
		}
		chain = append(chain, guid)
	}
	if len(chain) == 0 {
		return fmt.Errorf("there is no increment from snapshot %q with guid %#x", s.header.Name, s.header.GUID)
	}
	return s.apply(r, size, chain)
}

var errBroken = errors.New("an increment failed before")

// headers reads a stream and returns the header of each file system in it.
func headers(r io.ReaderAt, size int64) ([]Header, error) {
	var hs []Header
	z := NewReader(io.NewSectionReader(r, 0, size))
	for {
		rec, err := z.Next()
		if err == io.EOF {
			return hs, nil
		}
		if err != nil {
			return nil, err
		}
		if rec.Header == nil {
			continue
		}
		if !rec.Header.Package {
			hs = append(hs, *rec.Header)
		}
		if z.pack {
			continue
		}
		return hs, nil // one stream: it is verified when it is applied
	}
}

// chainTo returns the guids of the streams that lead to the snapshot of this name.
func chainTo(headers []Header, name string) ([]uint64, error) {
	last := -1
	for i, h := range headers {
		fs, _, _ := strings.Cut(h.Name, "@")
		switch {
		case name == "":
			first, _, _ := strings.Cut(headers[0].Name, "@")
			if fs == first {
				last = i
			}
		case h.Name == name, strings.HasPrefix(name, "@") && h.Name == fs+name:
			if last >= 0 {
				return nil, fmt.Errorf("snapshot %q: both %q and %q", name, headers[last].Name, h.Name)
			}
			last = i
		}
	}
	if last < 0 {
		return nil, fmt.Errorf("there is no snapshot %q in the stream", name)
	}
	chain := []uint64{headers[last].GUID}
	for h := headers[last]; h.FromGUID != 0; {
		i := slices.IndexFunc(headers, func(o Header) bool { return o.GUID == h.FromGUID })
		if i < 0 {
			return nil, fmt.Errorf("snapshot %q is an increment from the snapshot with guid %#x, which is not there", h.Name, h.FromGUID)
		}
		h = headers[i]
		if slices.Contains(chain, h.GUID) {
			return nil, fmt.Errorf("snapshot %q is an increment from itself", h.Name)
		}
		chain = append(chain, h.GUID)
	}
	slices.Reverse(chain)
	return chain, nil
}

// apply applies the streams with these guids, which stand in a file in this order.
func (s *Snapshot) apply(r io.ReaderAt, size int64, chain []uint64) error {
	s.broken = true
	z := NewReader(io.NewSectionReader(r, 0, size))
	for {
		rec, err := z.Next()
		if err == io.EOF {
			break
		}
		if err != nil {
			return err
		}
		if rec.Header == nil || len(chain) == 0 || rec.Header.GUID != chain[0] || rec.Header.Package {
			continue
		}
		chain = chain[1:]
		s.header = *rec.Header
		if err := s.set.apply(r, z, rec.Header); err != nil {
			return err
		}
	}
	if len(chain) > 0 {
		return errors.New("an increment stands before what it is based on")
	}
	if err := s.readMaster(); err != nil {
		return fmt.Errorf("snapshot %q: %w", s.header.Name, err)
	}
	s.broken = false
	return nil
}

// readMaster reads the tables that the rest depends on.
func (s *Snapshot) readMaster() error {
	master, err := s.set.numbers(objMaster)
	if err != nil {
		return fmt.Errorf("master node: %w", err)
	}
	s.zpl = zplInfo{version: master["VERSION"], root: master["ROOT"]}
	for _, name := range []string{"normalization", "casesensitivity"} {
		if master[name] != 0 {
			return fmt.Errorf("property %s is %d: names that are not compared byte by byte cannot be read", name, master[name])
		}
	}
	if s.zpl.version < 1 || s.zpl.version > 5 {
		return fmt.Errorf("ZPL version %d: not from 1 to 5", s.zpl.version)
	}
	if sa := master["SA_ATTRS"]; sa != 0 {
		if s.zpl.attrs, err = s.set.readAttrs(sa); err != nil {
			return err
		}
	}
	return nil
}

// Header returns the header of the stream that made the snapshot.
func (s *Snapshot) Header() Header { return s.header }

// Version returns the version of the file system, 1 to 5.
func (s *Snapshot) Version() int { return int(s.zpl.version) }

const (
	maxPath       = 16 << 10 // bytes: hosts have less, and recursion must end
	maxXattrRead  = 1 << 20  // bytes of all extended attributes of an object
	maxXattrNames = 4096
)

// Objects yields the objects of the file system, each directory before what is in it, in byte
// order of their names, and with content to be opened. Platform is that of the sender: it tells
// device numbers. Further names of an object have Link set. After an error nothing more comes.
//
// An access control list that says more than the mode is not kept, nor are times but the last
// modification. Digest stays zero.
func (s *Snapshot) Objects(platform Platform) iter.Seq2[*Object, error] {
	return func(yield func(*Object, error) bool) {
		if s.broken {
			yield(nil, errBroken)
			return
		}
		w := &walker{s: s, platform: platform, yield: yield, first: map[uint64]string{}}
		if err := w.object(".", s.zpl.root, 0); err != nil && err != errStop {
			yield(nil, fmt.Errorf("snapshot %q: %w", s.header.Name, err))
		}
	}
}

var errStop = errors.New("stopped")

// A walker walks through a file system.
type walker struct {
	s        *Snapshot
	platform Platform
	yield    func(*Object, error) bool
	first    map[uint64]string // path of directories and of objects with several names
}

// A dirEntry is a name in a directory.
type dirEntry struct {
	name   string
	object uint64
	kind   uint64 // the type bits of its mode
}

// object yields the object of a name, and all below. Want is its type as the directory has it, or
// 0 for the root.
func (w *walker) object(path string, number, want uint64) error {
	fail := func(err error) error { return fmt.Errorf("object %q (%d): %w", path, number, err) }
	if len(path) > maxPath {
		return fmt.Errorf("path %q…: longer than %d bytes", path[:64], maxPath)
	}
	d, err := w.s.set.object(number)
	if err != nil {
		return fail(err)
	}
	z, err := w.s.set.inode(d, w.s.zpl.attrs)
	if err != nil {
		return fail(err)
	}
	// Directories of ZPL 1 do not tell types.
	if want != 0 && z.mode&modeType != want || want == 0 && path == "." && z.mode&modeType != modeDir {
		return fail(fmt.Errorf("mode %#o: the directory has type %#o", z.mode, want))
	}
	isDir := z.mode&modeType == modeDir
	if first, ok := w.first[number]; ok {
		if isDir {
			return fail(fmt.Errorf("is the directory %q", first))
		}
		if !w.yield(&Object{Path: path, Link: first}, nil) {
			return errStop
		}
		return nil
	}
	if isDir || z.links > 1 {
		w.first[number] = path
	}
	o, err := w.s.toObject(path, number, d, z, w.platform)
	if err != nil {
		return fail(err)
	}
	if !w.yield(o, nil) {
		return errStop
	}
	if !isDir {
		return nil
	}
	entries, err := w.s.directory(d)
	if err != nil {
		return fail(err)
	}
	prefix := path + "/"
	if path == "." {
		prefix = ""
	}
	for _, e := range entries {
		if err := w.object(prefix+e.name, e.object, e.kind); err != nil {
			return err
		}
	}
	return nil
}

// directory returns the entries of a directory by name.
func (s *Snapshot) directory(d *dnode) ([]dirEntry, error) {
	if d.kind != typeDirectory {
		return nil, fmt.Errorf("directory whose object is %s", typeName(d.kind))
	}
	var entries []dirEntry
	if _, err := s.set.zap(d, func(e *zapItem) error {
		v, err := e.number()
		if err != nil {
			return err
		}
		if !validPath(e.name) || strings.IndexByte(e.name, '/') >= 0 {
			return fmt.Errorf("entry %q: no name", e.name)
		}
		entries = append(entries, dirEntry{e.name, v & (maxObject - 1), v >> 60 << 12})
		return nil
	}); err != nil {
		return nil, err
	}
	slices.SortFunc(entries, func(a, b dirEntry) int { return strings.Compare(a.name, b.name) })
	for i := 1; i < len(entries); i++ {
		if entries[i].name == entries[i-1].name {
			return nil, fmt.Errorf("entry %q twice", entries[i].name)
		}
	}
	return entries, nil
}

// toObject makes an Object of what was read.
func (s *Snapshot) toObject(path string, number uint64, d *dnode, z *inode, platform Platform) (*Object, error) {
	mode, err := fileMode(z.mode)
	if err != nil {
		return nil, err
	}
	if z.uid > maxID || z.gid > maxID {
		return nil, fmt.Errorf("uid %#x, gid %#x: not from 0 to %d", z.uid, z.gid, maxID)
	}
	if z.nsec < 0 || z.nsec >= 1e9 {
		return nil, fmt.Errorf("time with %d nanoseconds", z.nsec)
	}
	o := &Object{
		Path: path, Mode: mode, UID: int(z.uid), GID: int(z.gid),
		ModTime: time.Unix(z.sec, z.nsec).UTC(),
	}
	switch z.mode & modeType {
	case modeRegular:
		if z.size > 1<<63-1 {
			return nil, fmt.Errorf("size %d", z.size)
		}
		if d.kind != typeFile {
			return nil, fmt.Errorf("file whose object is %s", typeName(d.kind))
		}
		o.Size = int64(z.size)
		o.Open = func() (Content, error) { return &objectContent{s.set, d, o.Size}, nil }
	case modeSymlink:
		if o.Target, err = s.target(d, z); err != nil {
			return nil, err
		}
	case modeChar, modeBlock:
		o.Rdev = platform.decode(z.rdev)
	}
	if o.Xattrs, err = s.xattrs(number, z); err != nil {
		return nil, err
	}
	return o, nil
}

// target returns that of a symbolic link.
func (s *Snapshot) target(d *dnode, z *inode) (string, error) {
	target := z.target
	if target == "" && z.size > 0 && z.size <= maxPath && len(d.blocks) > 0 { // ZPL 4: too long for the bonus
		b := make([]byte, z.size)
		if err := s.set.readAt(d, b, 0); err != nil {
			return "", err
		}
		target = string(b)
	}
	if uint64(len(target)) != z.size || strings.IndexByte(target, 0) >= 0 || target == "" {
		return "", fmt.Errorf("target %q of %d bytes", target, z.size)
	}
	return target, nil
}

// xattrs returns the extended attributes of an object, wherever they are.
func (s *Snapshot) xattrs(number uint64, z *inode) (map[string][]byte, error) {
	var m map[string][]byte
	if len(z.dxattr) > 0 {
		var err error
		if m, err = unpackXattrs(z.dxattr); err != nil {
			return nil, err
		}
	}
	if z.xattr == 0 {
		return m, nil
	}
	d, _, err := s.hidden(z.xattr, number, modeDir)
	if err != nil {
		return nil, fmt.Errorf("directory of extended attributes: %w", err)
	}
	entries, err := s.directory(d)
	if err == nil && len(entries) > maxXattrNames {
		err = fmt.Errorf("%d entries: more than %d", len(entries), maxXattrNames)
	}
	if err != nil {
		return nil, fmt.Errorf("directory of extended attributes: %w", err)
	}
	total := uint64(0)
	for _, e := range entries {
		d, v, err := s.hidden(e.object, z.xattr, modeRegular)
		if err != nil {
			return nil, fmt.Errorf("extended attribute %q: %w", e.name, err)
		}
		if v.size > maxXattrRead || total+v.size > maxXattrRead {
			return nil, fmt.Errorf("extended attribute %q: all are longer than %d bytes", e.name, maxXattrRead)
		}
		total += v.size
		value := make([]byte, v.size)
		if err := s.set.readAt(d, value, 0); err != nil {
			return nil, fmt.Errorf("extended attribute %q: %w", e.name, err)
		}
		if m == nil {
			m = map[string][]byte{}
		}
		if _, ok := m[e.name]; !ok { // hosts look at the system attribute first
			m[e.name] = value
		}
	}
	return m, nil
}

// hidden returns an object that only its parent leads to: a directory of extended attributes, or
// a value in it. As it has one parent, no stream can make us read it over and over.
func (s *Snapshot) hidden(number, parent, kind uint64) (*dnode, *inode, error) {
	d, err := s.set.object(number)
	if err != nil {
		return nil, nil, err
	}
	z, err := s.set.inode(d, s.zpl.attrs)
	if err != nil {
		return nil, nil, fmt.Errorf("object %d: %w", number, err)
	}
	if z.mode&modeType != kind || z.parent != parent {
		return nil, nil, fmt.Errorf("object %d: mode %#o, parent %d, want %d", number, z.mode, z.parent, parent)
	}
	return d, z, nil
}

// objectContent is the content of a file in a stream.
type objectContent struct {
	set  *objset
	d    *dnode
	size int64
}

func (c *objectContent) Close() error { return nil }

func (c *objectContent) ReadAt(p []byte, off int64) (int, error) {
	if off < 0 {
		return 0, errors.New("read before the beginning")
	}
	n := min(int64(len(p)), max(0, c.size-off))
	if err := c.set.readAt(c.d, p[:n], uint64(off)); err != nil {
		return 0, err
	}
	if n < int64(len(p)) {
		return int(n), io.EOF
	}
	return int(n), nil
}

// Extents returns the blocks that are there, joined where they touch.
func (c *objectContent) Extents() []Extent {
	var x []Extent
	for i := range c.d.blocks {
		b := &c.d.blocks[i]
		if b.off >= uint64(c.size) {
			break
		}
		off, end := int64(b.off), min(int64(b.end()), c.size)
		if k := len(x) - 1; k >= 0 && x[k].Off+x[k].Len == off {
			x[k].Len = end - x[k].Off
		} else {
			x = append(x, Extent{off, end - off})
		}
	}
	return x
}
