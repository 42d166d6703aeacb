package disk

import (
	"bytes"
	"cmp"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"io/fs"
	"math"
	"math/bits"
	"path"
	"slices"
	"strings"
)

// EROFS on disk, from fs/erofs/erofs_fs.h.
const (
	blockSize = 4096
	blockBits = 12

	superOffset    = 1024
	superSize      = 128
	superMagic     = 0xe0f5e1e2
	compatChecksum = 1
	compatMtime    = 2
	incompatChunks = 4

	slotSize  = 32 // inodes stand at multiples of it
	inodeSize = 64 // of an extended inode
	direntLen = 12

	layoutPlain  = 0 // all in blocks
	layoutInline = 2 // the last partial block behind the inode
	layoutChunks = 4 // in chunks, each anywhere or nowhere

	noBlock = math.MaxUint32
)

// An erofs is a file system image: inodes and directories in memory, the content of files where it is.
type erofs struct {
	mosaic
	extents []Extent
	uuid    [16]byte
}

// chunks are where a file with holes has data.
type chunks struct {
	bits int
	data []bool
}

// writeEROFS lays out the file system. The image is a whole number of blocks; inodes come first, then
// directories, then files, in the order of the nodes.
func writeEROFS(r *rootFS) (*erofs, error) {
	e := &erofs{}
	at := int64(superOffset + superSize)
	attrs := map[*node][]byte{}
	dirs := map[*node][]int{}
	incompat := uint32(0)
	holes := map[*node][]Extent{}
	for _, n := range r.nodes {
		if n.first != nil {
			continue
		}
		x, err := xattrBody(n.Xattrs)
		if err != nil {
			return nil, fmt.Errorf("object %q: %w", n.Path, err)
		}
		if x != nil {
			attrs[n] = x
		}
		n.layout, n.body = layoutPlain, inodeSize+int64(len(x))
		tail := int64(0)
		switch n.Mode.Type() {
		case fs.ModeDir:
			slices.SortFunc(n.children, func(a, b *node) int { return cmp.Compare(path.Base(a.Path), path.Base(b.Path)) })
			d, last := dirBlocks(n)
			dirs[n] = d
			tail = int64(last)
		case fs.ModeSymlink:
			tail = int64(len(n.Target))
		case 0:
			if n.Size == 0 {
				break
			}
			ext, err := n.extents()
			if err != nil {
				return nil, err
			}
			holes[n] = ext
			if n.chunks = findChunks(n.Size, ext); n.chunks.data != nil {
				n.layout = layoutChunks
				n.body += 4 * int64(len(n.chunks.data))
				incompat |= incompatChunks
			}
		}
		at = (at + slotSize - 1) &^ (slotSize - 1)
		// What is inline must not cross a block, be it for that the inode starts with one.
		if tail > 0 && n.body+tail <= blockSize {
			if head := at + n.body; head/blockSize != (head+tail-1)/blockSize {
				at = (at + blockSize - 1) &^ (blockSize - 1)
			}
			n.layout = layoutInline
			n.body += tail
		}
		n.at = at
		at += n.body
	}
	next := (at + blockSize - 1) / blockSize
	alloc := func(n *node, count int64) error {
		if next+count >= noBlock {
			return fmt.Errorf("object %q: the root is larger than %d TiB, the most EROFS can have", n.Path, 16)
		}
		n.block = uint32(next)
		next += count
		return nil
	}
	for n, d := range inOrder(r, dirs) {
		count := int64(len(d))
		if n.layout == layoutInline {
			count--
		}
		if err := alloc(n, count); err != nil {
			return nil, err
		}
	}
	for _, n := range r.nodes {
		if n.first == nil && n.Mode.Type() == fs.ModeSymlink && n.layout == layoutPlain {
			if err := alloc(n, 1); err != nil {
				return nil, err
			}
		}
	}
	head := make([]byte, next*blockSize)
	e.add(0, int64(len(head)), bytes.NewReader(head))
	e.extents = append(e.extents, Extent{0, int64(len(head))})
	for _, n := range r.nodes {
		if n.first != nil || !n.Mode.IsRegular() || n.Size == 0 {
			continue
		}
		if err := alloc(n, n.dataBlocks()); err != nil {
			return nil, err
		}
		e.addFile(n, holes[n])
	}
	e.size = next * blockSize
	inos := uint64(0)
	for i, n := range r.nodes {
		if n.first == nil {
			n.put(head, uint32(i+1), attrs[n])
			inos++
		}
	}
	for n, d := range inOrder(r, dirs) {
		n.putDir(head, d)
	}
	e.uuid = identify(r, head)
	s := head[superOffset:]
	le := binary.LittleEndian
	le.PutUint32(s, superMagic)
	le.PutUint32(s[8:], compatChecksum|compatMtime)
	s[12] = blockBits
	le.PutUint16(s[14:], uint16(r.nodes[0].at/slotSize))
	le.PutUint64(s[16:], inos)
	le.PutUint64(s[24:], uint64(r.nodes[0].ModTime.Unix()))
	le.PutUint32(s[36:], uint32(next))
	copy(s[48:64], e.uuid[:])
	le.PutUint32(s[80:], incompat)
	// The kernel's crc32c has no inversion at the end; it covers the rest of the block.
	le.PutUint32(s[4:], ^crc32.Checksum(head[superOffset:blockSize], crc32.MakeTable(crc32.Castagnoli)))
	return e, nil
}

// inOrder yields what a map has of the nodes, in their order.
func inOrder[T any](r *rootFS, m map[*node]T) func(yield func(*node, T) bool) {
	return func(yield func(*node, T) bool) {
		for _, n := range r.nodes {
			if v, ok := m[n]; ok && !yield(n, v) {
				return
			}
		}
	}
}

// identify returns a UUID (version 8) of metadata and digests.
func identify(r *rootFS, head []byte) (id [16]byte) {
	h := sha256.New()
	h.Write(head)
	for _, n := range r.nodes {
		if n.first == nil && n.Mode.IsRegular() {
			h.Write(n.Digest[:])
		}
	}
	return uuid8(h.Sum(nil))
}

// uuid8 makes a UUID of a digest's first bytes.
func uuid8(sum []byte) (id [16]byte) {
	copy(id[:], sum)
	id[6] = id[6]&0x0f | 0x80
	id[8] = id[8]&0x3f | 0x80
	return id
}

// extents returns where a file may have data.
func (n *node) extents() ([]Extent, error) {
	c, err := n.Open()
	if err != nil {
		return nil, err
	}
	ext := c.Extents()
	end := int64(0)
	for _, x := range ext {
		if x.Offset < end || x.Length < 0 || x.Offset > n.Size || x.Length > n.Size-x.Offset {
			err = fmt.Errorf("object %q: extents out of order, or beyond its %d bytes", n.Path, n.Size)
		}
		end = x.Offset + x.Length
	}
	if e := c.Close(); err == nil {
		err = e
	}
	return ext, err
}

// maxChunks bounds the list of chunks of one file.
const maxChunks = 1 << 16

// findChunks returns the chunks of a file that has holes worth leaving out, and none else.
func findChunks(size int64, ext []Extent) chunks {
	c := chunks{bits: max(blockBits, bits.Len64(uint64((size-1)/maxChunks)))}
	count := (size-1)>>c.bits + 1
	full, last := int64(0), int64(-1)
	for _, x := range ext {
		if x.Length == 0 {
			continue
		}
		from, to := x.Offset>>c.bits, (x.Offset+x.Length-1)>>c.bits
		full += to - max(from, last+1) + 1
		last = to
	}
	if full >= count {
		return chunks{}
	}
	c.data = make([]bool, count)
	for _, x := range ext {
		for i := x.Offset >> c.bits; x.Length > 0 && i <= (x.Offset+x.Length-1)>>c.bits; i++ {
			c.data[i] = true
		}
	}
	return c
}

// chunkSize returns how many bytes of the file chunk i has.
func (n *node) chunkSize(i int) int64 {
	start := int64(i) << n.chunks.bits
	return min(n.Size-start, 1<<n.chunks.bits)
}

// dataBlocks returns how many blocks the content takes.
func (n *node) dataBlocks() int64 {
	if n.layout != layoutChunks {
		return (n.Size + blockSize - 1) / blockSize
	}
	count := int64(0)
	for i, data := range n.chunks.data {
		if data {
			count += (n.chunkSize(i) + blockSize - 1) / blockSize
		}
	}
	return count
}

// addFile makes the content of a file part of the image.
func (e *erofs) addFile(n *node, ext []Extent) {
	at := int64(n.block) * blockSize
	if n.layout != layoutChunks {
		e.add(at, n.Size, fileReader{n.Object})
		for _, x := range ext {
			e.extents = appendExtent(e.extents, Extent{at + x.Offset, x.Length})
		}
		return
	}
	for i := 0; i < len(n.chunks.data); {
		if !n.chunks.data[i] {
			i++
			continue
		}
		// Chunks with data beside each other are one piece.
		start, length := int64(i)<<n.chunks.bits, int64(0)
		for ; i < len(n.chunks.data) && n.chunks.data[i]; i++ {
			length += n.chunkSize(i)
		}
		e.add(at, length, window{fileReader{n.Object}, start})
		e.extents = appendExtent(e.extents, Extent{at, length})
		at += (length + blockSize - 1) &^ (blockSize - 1)
	}
}

// put writes the inode, and what is behind it but for directories.
func (n *node) put(head []byte, ino uint32, attrs []byte) {
	le := binary.LittleEndian
	b := head[n.at:]
	le.PutUint16(b, uint16(1|n.layout<<1))
	if attrs != nil {
		le.PutUint16(b[2:], uint16((len(attrs)-12)/4+1))
	}
	le.PutUint16(b[4:], unixMode(n.Mode))
	size := n.Size
	switch n.Mode.Type() {
	case fs.ModeSymlink:
		size = int64(len(n.Target))
	case fs.ModeDir:
		size = 0 // set with its content
	case 0:
	default:
		size = 0
	}
	le.PutUint64(b[8:], uint64(size))
	switch {
	case n.Mode&fs.ModeDevice != 0:
		le.PutUint32(b[16:], n.Rdev.Minor&0xff|n.Rdev.Major<<8|n.Rdev.Minor&^0xff<<12)
	case n.layout == layoutChunks:
		le.PutUint16(b[16:], uint16(n.chunks.bits-blockBits))
	default:
		le.PutUint32(b[16:], n.block)
	}
	le.PutUint32(b[20:], ino)
	le.PutUint32(b[24:], uint32(n.UID))
	le.PutUint32(b[28:], uint32(n.GID))
	le.PutUint64(b[32:], uint64(n.ModTime.Unix()))
	le.PutUint32(b[40:], uint32(n.ModTime.Nanosecond()))
	le.PutUint32(b[44:], n.nlink)
	rest := b[inodeSize+copy(b[inodeSize:], attrs):]
	switch {
	case n.layout == layoutChunks:
		block := n.block
		for i, data := range n.chunks.data {
			if !data {
				le.PutUint32(rest[4*i:], noBlock)
				continue
			}
			le.PutUint32(rest[4*i:], block)
			block += uint32((n.chunkSize(i) + blockSize - 1) / blockSize)
		}
	case n.Mode.Type() == fs.ModeSymlink && n.layout == layoutInline:
		copy(rest, n.Target)
	case n.Mode.Type() == fs.ModeSymlink:
		copy(head[int64(n.block)*blockSize:], n.Target)
	}
}

// unixMode returns st_mode.
func unixMode(m fs.FileMode) uint16 {
	u := uint16(m.Perm())
	for _, b := range []struct {
		mode fs.FileMode
		bits uint16
	}{{fs.ModeSetuid, 0o4000}, {fs.ModeSetgid, 0o2000}, {fs.ModeSticky, 0o1000}} {
		if m&b.mode != 0 {
			u |= b.bits
		}
	}
	switch m.Type() {
	case 0:
		u |= 0o100000
	case fs.ModeDir:
		u |= 0o040000
	case fs.ModeSymlink:
		u |= 0o120000
	case fs.ModeNamedPipe:
		u |= 0o010000
	case fs.ModeSocket:
		u |= 0o140000
	case fs.ModeDevice:
		u |= 0o060000
	default:
		u |= 0o020000
	}
	return u
}

// fileType returns the type that a directory has of an entry.
func fileType(m fs.FileMode) byte {
	switch m.Type() {
	case 0:
		return 1
	case fs.ModeDir:
		return 2
	case fs.ModeDevice | fs.ModeCharDevice:
		return 3
	case fs.ModeDevice:
		return 4
	case fs.ModeNamedPipe:
		return 5
	case fs.ModeSocket:
		return 6
	}
	return 7
}

// A dirent is a name in a directory.
type dirent struct {
	name string
	*node
}

// entries returns what is in a directory, strictly by the bytes of the names, the two dots included.
func (n *node) entries() []dirent {
	up := n.parent
	if up == nil {
		up = n
	}
	list := make([]dirent, 0, len(n.children)+2)
	list = append(list, dirent{".", n}, dirent{"..", up})
	for _, c := range n.children {
		target := c
		if c.first != nil {
			target = c.first
		}
		list = append(list, dirent{path.Base(c.Path), target})
	}
	slices.SortFunc(list, func(a, b dirent) int { return cmp.Compare(a.name, b.name) })
	return list
}

// dirBlocks returns how many entries each block of a directory has, and the bytes of the last block.
func dirBlocks(n *node) (counts []int, last int) {
	count := 0
	for _, e := range n.entries() {
		need := direntLen + len(e.name)
		if last+need > blockSize {
			counts = append(counts, count)
			count, last = 0, 0
		}
		count++
		last += need
	}
	return append(counts, count), last
}

// putDir writes the content of a directory.
func (n *node) putDir(head []byte, counts []int) {
	le := binary.LittleEndian
	list := n.entries()
	size := int64(0)
	for i, count := range counts {
		at := (int64(n.block) + int64(i)) * blockSize
		final := i == len(counts)-1
		used := 0
		for _, e := range list[:count] {
			used += direntLen + len(e.name)
		}
		if final && n.layout == layoutInline {
			at = n.at + n.body - int64(used)
		}
		b := head[at : at+int64(used)]
		name := direntLen * count
		for j, e := range list[:count] {
			d := b[j*direntLen:]
			le.PutUint64(d, uint64(e.at/slotSize))
			le.PutUint16(d[8:], uint16(name))
			d[10] = fileType(e.Mode)
			name += copy(b[name:], e.name)
		}
		list = list[count:]
		if !final {
			used = blockSize
		}
		size += int64(used)
	}
	le.PutUint64(head[n.at+8:], uint64(size))
}

// prefixes are the namespaces of extended attributes that EROFS has. The first two are whole names.
var prefixes = []struct {
	name  string
	index byte
}{
	{"system.posix_acl_access", 2},
	{"system.posix_acl_default", 3},
	{"user.", 1},
	{"trusted.", 4},
	{"security.", 6},
}

// xattrBody returns the extended attributes as they stand behind an inode, or nil.
func xattrBody(attrs map[string][]byte) ([]byte, error) {
	if len(attrs) == 0 {
		return nil, nil
	}
	names := make([]string, 0, len(attrs))
	for name := range attrs {
		names = append(names, name)
	}
	slices.Sort(names)
	b := make([]byte, 12)
	for _, name := range names {
		value := attrs[name]
		index, rest := byte(0), ""
		for i, p := range prefixes {
			if after, ok := strings.CutPrefix(name, p.name); ok && (after == "") == (i < 2) {
				index, rest = p.index, after
				break
			}
		}
		switch {
		case index == 0:
			return nil, fmt.Errorf("extended attribute %q: EROFS has none of this name", name)
		case len(rest) > maxName || len(value) > math.MaxUint16:
			return nil, fmt.Errorf("extended attribute %.64q of %d bytes: over 255 bytes of name or 65535 of value", name, len(value))
		}
		b = append(b, byte(len(rest)), index)
		b = binary.LittleEndian.AppendUint16(b, uint16(len(value)))
		b = append(append(b, rest...), value...)
		for len(b)%4 != 0 {
			b = append(b, 0)
		}
	}
	if (len(b)-12)/4+1 > math.MaxUint16 {
		return nil, fmt.Errorf("extended attributes of %d bytes are too many", len(b))
	}
	return b, nil
}
