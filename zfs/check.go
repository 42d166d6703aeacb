package zfs

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"iter"
	"maps"
	"slices"
)

// Check reads a full stream of one file system and reports, joined, where it breaks a rule that
// receivers do not check and hosts rely on: what breaks one is received without a word and is a
// wrong answer, a wrong permission or a panic of the host later. What cannot be read at all is a
// single error.
func Check(r io.ReaderAt, size int64) error {
	c := &checker{}
	if err := c.records(NewReader(io.NewSectionReader(r, 0, size))); err != nil {
		return err
	}
	s, err := Open(r, size, "")
	if err != nil {
		return errors.Join(append(c.errs, err)...)
	}
	c.s = s
	c.attributes()
	c.objects()
	return errors.Join(c.errs...)
}

// A checker collects what is wrong.
type checker struct {
	s    *Snapshot
	errs []error

	inodes map[uint64]*inode
	names  map[uint64]uint64          // of an object: in how many directories it is
	inDir  map[uint64]map[uint64]bool // an object's directories
	dirs   map[uint64][]dirEntry
}

func (c *checker) fail(format string, args ...any) {
	if len(c.errs) < maxErrors {
		c.errs = append(c.errs, fmt.Errorf(format, args...))
	}
}

// records checks the order and the shape of the records.
func (c *checker) records(z *Reader) error {
	var (
		begin   *Header
		current *Record // the last OBJECT
		next    uint64  // first number not spoken of
		last    uint64  // last OBJECT
		tail    uint64  // end of the last FREEOBJECTS
		write   uint64  // end of the last WRITE to current
		spills  int
	)
	for {
		rec, err := z.Next()
		if err == io.EOF {
			if last == 0 {
				c.fail("no object")
			} else if limit := last/dnodesInBlock*dnodesInBlock + dnodesInBlock; tail > limit {
				c.fail("FREEOBJECTS up to %d: beyond the dnode block of the last object %d; old receivers loop over them", tail, last)
			}
			return nil
		}
		if err != nil {
			return err
		}
		at := fmt.Sprintf("record at byte %d: %v: object %d", rec.Pos, rec.Type, rec.Object)
		has := func(feature string) bool { return slices.Contains(begin.Features, feature) }
		if current != nil && rec.Type != RecordSpill && !rec.IsSpill && current.HasSpill && spills == 0 && rec.Object != current.Object {
			c.fail("%s: the spill block of object %d is missing", at, current.Object)
			spills++
		}
		kind := rec.Type
		if rec.IsSpill {
			kind = RecordSpill
		}
		switch kind {
		case RecordBegin:
			if begin = rec.Header; begin.Package {
				return errors.New("a package of streams: only a single one can be checked")
			}
			if begin.FromGUID != 0 {
				return errors.New("an increment: only a full stream can be checked")
			}
		case RecordFreeObjects:
			if rec.Object < next {
				c.fail("%s: numbers up to %d were spoken of", at, next)
			}
			next = rec.Object + rec.Count
			tail = next
		case RecordObject:
			if rec.Object < next {
				c.fail("%s: numbers up to %d were spoken of", at, next)
			}
			next, last, write, spills = rec.Object+1, rec.Object, 0, 0
			copied := *rec
			current = &copied
			room := dnodeRoom(rec)
			if rec.BonusSize > room {
				c.fail("%s: bonus of %d bytes: its dnode has room for %d", at, rec.BonusSize, room)
			}
			if (rec.BonusSize == 0) != (rec.BonusType == typeNone) {
				c.fail("%s: bonus of type %s with %d bytes", at, typeName(rec.BonusType), rec.BonusSize)
			}
			if rec.BlockSize > recordSize && !has("large_blocks") {
				c.fail("%s: blocks of %d bytes without feature large_blocks", at, rec.BlockSize)
			}
			if rec.Slots > 1 && !has("large_dnode") {
				c.fail("%s: %d slots without feature large_dnode", at, rec.Slots)
			}
			if rec.BonusType == typeSA && !has("sa_spill") {
				c.fail("%s: system attributes without feature sa_spill", at)
			}
		case RecordWrite, RecordWriteEmbedded, RecordWriteByRef:
			if current == nil || rec.Object != current.Object {
				continue // old senders write some objects and then their blocks; applying checks that
			}
			if rec.Offset < write {
				c.fail("%s: offset %d is before %d", at, rec.Offset, write)
			}
			write = rec.Offset + rec.Length
			if write > rec.Length && current.BlockSize&(current.BlockSize-1) != 0 {
				c.fail("%s: several blocks of %d bytes: not a power of two", at, current.BlockSize)
			}
			if rec.Type == RecordWrite && rec.Kind != current.Kind {
				c.fail("%s: is %s, its block %s", at, typeName(current.Kind), typeName(rec.Kind))
			}
			if rec.Compression != 0 && rec.Type == RecordWrite && !has("compressed") {
				c.fail("%s: compressed block without feature compressed", at)
			}
			if rec.Compression == compressLZ4 && !has("lz4") {
				c.fail("%s: LZ4 block without feature lz4", at)
			}
		case RecordSpill:
			if spills++; current == nil || rec.Object != current.Object || begin.spillFlags && !current.HasSpill {
				c.fail("%s: its OBJECT does not say that it has a spill block", at)
			}
		}
	}
}

// dnodeRoom returns how long the bonus of an object may be.
func dnodeRoom(rec *Record) int {
	room := maxBonus + (rec.Slots-1)*512
	if rec.HasSpill {
		room -= maxBonus - maxBonusSpill
	}
	return room
}

// attributes checks the tables of system attributes.
func (c *checker) attributes() {
	a := c.s.zpl.attrs
	if a == nil {
		if c.s.zpl.version >= 5 {
			c.fail("ZPL version %d without system attributes", c.s.zpl.version)
		}
		return
	}
	for i := range len(a.names) {
		if _, ok := a.names[uint16(i)]; !ok {
			c.fail("system attribute number %d is missing among %d", i, len(a.names))
		}
	}
	if len(a.layouts) == 0 {
		c.fail("no layouts of system attributes")
	}
	var seen [][]uint16
	for i := range len(a.layouts) {
		l, ok := a.layouts[uint16(firstLayout+i)]
		if !ok {
			c.fail("layout %d of system attributes is missing among %d: the next new one of a host would be a second of its number", firstLayout+i, len(a.layouts))
		}
		if ok && slices.ContainsFunc(seen, func(o []uint16) bool { return slices.Equal(o, l) }) {
			c.fail("layout %d of system attributes is there twice", firstLayout+i)
		}
		seen = append(seen, l)
	}
}

// numbersOf yields the objects in ascending order.
func (s *objset) numbersOf() iter.Seq2[uint64, *dnode] {
	return func(yield func(uint64, *dnode) bool) {
		for _, n := range slices.Sorted(maps.Keys(s.objects)) {
			if !yield(n, s.objects[n]) {
				return
			}
		}
	}
}

// objects checks every object, and how they hang together.
func (c *checker) objects() {
	c.inodes = map[uint64]*inode{}
	c.names = map[uint64]uint64{}
	c.inDir = map[uint64]map[uint64]bool{}
	c.dirs = map[uint64][]dirEntry{}
	set := c.s.set
	for n, d := range set.numbersOf() {
		if d.bonusType == typeZnode || d.bonusType == typeSA {
			z, err := set.inode(d, c.s.zpl.attrs)
			if err != nil {
				c.fail("object %d: %w", n, err)
				continue
			}
			c.inodes[n] = z
			c.inode(n, d, z)
		}
		switch d.kind {
		case typeDirectory, typeMaster, typeUnlinked, typeSAMaster, typeSARegistry, typeSALayouts:
			c.zap(n, d)
		}
	}
	c.graph()
}

// zap checks that every name is found where a lookup goes.
func (c *checker) zap(n uint64, d *dnode) {
	type place struct {
		hash uint64
		cd   uint32
	}
	taken := map[place]string{}
	var items []zapItem
	info, err := c.s.set.zap(d, func(e *zapItem) error {
		items = append(items, *e)
		return nil
	})
	if err != nil {
		c.fail("object %d: %w", n, err)
		return
	}
	for _, e := range items {
		p := place{e.hash, e.cd}
		if other, ok := taken[p]; ok {
			c.fail("object %d: entries %q and %q have the same hash and discriminator", n, other, e.name)
		}
		taken[p] = e.name
		if info.flags == 0 && zapHash(info.salt, e.name) != e.hash {
			c.fail("object %d: entry %q has the hash %#x, want %#x", n, e.name, e.hash, zapHash(info.salt, e.name))
		}
	}
	if info.salt == 0 {
		c.fail("object %d: zap without a salt", n)
	}
	if info.fat && (info.entries != uint64(len(items)) || info.leafCount != info.leaves) {
		c.fail("object %d: zap with %d entries in %d leaves says that it has %d in %d", n, len(items), info.leaves, info.entries, info.leafCount)
	}
	if d.kind == typeDirectory {
		entries, err := c.s.directory(d)
		if err != nil {
			c.fail("object %d: %w", n, err)
		}
		c.dirs[n] = entries
	}
}

// inode checks what an object says of itself.
func (c *checker) inode(n uint64, d *dnode, z *inode) {
	if z.gen == 0 {
		c.fail("object %d: generation 0", n)
	}
	if _, err := fileMode(z.mode); err != nil {
		c.fail("object %d: %w", n, err)
	}
	if (z.mode&modeType == modeDir) != (d.kind == typeDirectory) {
		c.fail("object %d: mode %#o of what is %s", n, z.mode, typeName(d.kind))
	}
	if z.mode&modeType == modeRegular {
		c.end(n, d, z.size)
	}
	if z.mode&modeType == modeSymlink {
		if _, err := c.s.target(d, z); err != nil {
			c.fail("object %d: %w", n, err)
		}
	}
	if z.flags&pflagTrivialACL != 0 {
		for i, who := range []string{"owner", "group", "others"} {
			mode := z.mode >> (6 - 3*i) & 7
			if got, ok := aclAllows(z.acl, i, c.s.set.orders[d.bonus.stream]); !ok {
				c.fail("object %d: damaged access control list of %d bytes", n, len(z.acl))
				break
			} else if got != mode {
				c.fail("object %d: mode %#o, but its access control list gives %s %#o", n, z.mode, who, got)
			}
		}
	}
}

// end checks that nothing but zeros stands behind the end of a file: it would appear in it when the
// file grows. Blocks that large ones were cut to may be there.
func (c *checker) end(n uint64, d *dnode, size uint64) {
	for i := d.find(size); i < len(d.blocks); i++ {
		b := &d.blocks[i]
		p := make([]byte, b.size)
		if err := c.s.set.readBlock(b, p); err != nil {
			c.fail("object %d: %w", n, err)
			return
		}
		if b.off < size {
			p = p[size-b.off:]
		}
		if slices.ContainsFunc(p, func(v byte) bool { return v != 0 }) {
			c.fail("object %d: data behind its %d bytes, in the block at %d", n, size, b.off)
			return
		}
	}
}

// aclAllows returns what a list without ids allows a class (0 owner, 1 group, 2 others) as three
// bits of a mode.
func aclAllows(acl []byte, class int, order binary.ByteOrder) (uint64, bool) {
	var allowed, decided uint64
	for ; len(acl) >= aceSize; acl = acl[aceSize:] {
		kind, who, mask := order.Uint16(acl), order.Uint16(acl[2:]), order.Uint32(acl[4:])
		switch who & (aceOwner | aceGroup | aceEveryone) {
		case aceOwner, aceGroup, aceEveryone:
		default:
			return 0, false
		}
		if who&[]uint16{aceOwner, aceGroup &^ 0x2000, 0}[class] == 0 && who&aceEveryone == 0 {
			continue
		}
		bits := uint64(0)
		for _, b := range []struct {
			mask uint32
			bit  uint64
		}{{aceRead, 4}, {0x2, 2}, {aceExecute, 1}} {
			if mask&b.mask != 0 {
				bits |= b.bit
			}
		}
		if kind == aceAllow {
			allowed |= bits &^ decided
		}
		decided |= bits
	}
	return allowed, len(acl) == 0
}

// graph checks names, links and parents.
func (c *checker) graph() {
	hidden := map[uint64]bool{} // reached otherwise than by a name
	master, err := c.s.set.numbers(objMaster)
	if err != nil {
		c.fail("master node: %w", err)
		return
	}
	for _, number := range master {
		hidden[number] = true
	}
	if d := c.s.set.objects[master["DELETE_QUEUE"]]; d != nil {
		c.s.set.zap(d, func(e *zapItem) error { // read before; objects that are open but deleted
			v, err := e.number()
			hidden[v] = true
			return err
		})
	} else {
		c.fail("the unlinked set is missing")
	}
	subdirs := map[uint64]uint64{}
	for dir := range c.s.set.numbersOf() {
		for _, e := range c.dirs[dir] {
			z := c.inodes[e.object]
			if z == nil {
				c.fail("object %d: entry %q is object %d, which is none of the file system", dir, e.name, e.object)
				continue
			}
			if z.mode&modeType != e.kind && e.kind != 0 {
				c.fail("object %d: entry %q of type %#o is object %d with mode %#o", dir, e.name, e.kind, e.object, z.mode)
			}
			c.names[e.object]++
			if c.inDir[e.object] == nil {
				c.inDir[e.object] = map[uint64]bool{}
			}
			c.inDir[e.object][dir] = true
			if z.mode&modeType == modeDir {
				subdirs[dir]++
			}
		}
	}
	for n := range c.s.set.numbersOf() {
		if z := c.inodes[n]; z != nil && z.xattr != 0 {
			hidden[z.xattr] = true
			c.hiddenDirectory(n, z)
		}
	}
	for n, d := range c.s.set.numbersOf() {
		z := c.inodes[n]
		if z == nil {
			continue
		}
		isDir := z.mode&modeType == modeDir
		if isDir {
			if want := uint64(len(c.dirs[n])) + 2; z.size != want {
				c.fail("object %d: directory of size %d, want %d", n, z.size, want)
			}
			if want := subdirs[n] + 2; z.links != want {
				c.fail("object %d: directory with %d links, want %d", n, z.links, want)
			}
			if c.names[n] > 1 {
				c.fail("object %d: directory with %d names", n, c.names[n])
			}
		} else if z.links != c.names[n] && !hidden[n] {
			c.fail("object %d: %d links, but %d names", n, z.links, c.names[n])
		}
		switch {
		case n == c.s.zpl.root:
			if !isDir || z.parent != n || c.names[n] != 0 {
				c.fail("object %d: a root with mode %#o, parent %d and %d names", n, z.mode, z.parent, c.names[n])
			}
		case c.names[n] > 0 && !c.inDir[n][z.parent]:
			c.fail("object %d: parent %d is not a directory that it is in", n, z.parent)
		case c.names[n] == 0 && !hidden[n]:
			c.fail("object %d: %s without a name", n, typeName(d.kind))
		}
	}
	if c.inodes[c.s.zpl.root] == nil {
		c.fail("the root object %d is missing", c.s.zpl.root)
	}
	c.cycles(master)
}

// hiddenDirectory checks that of the extended attributes of object n.
func (c *checker) hiddenDirectory(n uint64, z *inode) {
	x := c.inodes[z.xattr]
	if x == nil || x.mode&modeType != modeDir || x.flags&pflagXattr == 0 || x.parent != n {
		c.fail("object %d: object %d is no directory of its extended attributes", n, z.xattr)
	}
}

// cycles finds directories that hang on each other and not on one that the master node names: the
// root, or that of the shares, which is in itself.
func (c *checker) cycles(master map[string]uint64) {
	sound := map[uint64]bool{}
	for _, number := range master {
		sound[number] = true
	}
	for n := range c.s.set.numbersOf() {
		z := c.inodes[n]
		var path []uint64
		for z != nil && !sound[n] {
			sound[n] = true // or it is reported once
			path = append(path, n)
			n, z = z.parent, c.inodes[z.parent]
			if slices.Contains(path, n) {
				c.fail("object %d: a directory in itself", n)
			}
		}
	}
}
