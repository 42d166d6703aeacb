//go:build linux

package main

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
)

// ext4, from the kernel's Documentation/filesystems/ext4: blocks of 4096 bytes, groups of 32768.
const (
	extBlock       = 4096
	groupBlocks    = 8 * extBlock
	groupInodes    = 2048
	inodeBytes     = 256
	tableBlocks    = groupInodes * inodeBytes / extBlock
	journalBlocks  = 4096
	firstInode     = 11
	inodeUninit    = 1
	blockUninit    = 2
	extentsFlag    = 0x80000
	descriptorSize = 32
	superMagic     = 0xef53
)

// An ext is a file system to be.
type ext struct {
	blocks, groups, tables int64 // tables: blocks of the group descriptors
	id                     [16]byte
	journal                int64 // blocks
	top                    top
}

// A top is whose the highest directory of a file system is, and its permission bits.
type top struct {
	uid, gid uint32
	mode     uint16
}

// A device is what a file system is made on.
type device interface {
	io.WriterAt
	Sync() error
}

// begun stands in the first block, which is not ext4's, while a file system that is to stay is made.
const begun = "isc: a file system is being made here\n"

// fresh reports whether a device has no content, by its first bytes: it is zeros, or was being formatted when
// the power went.
func fresh(head []byte) bool {
	const magic = 1024 + 56
	if bytes.HasPrefix(head, []byte(begun)) {
		return binary.LittleEndian.Uint16(head[magic:]) != superMagic
	}
	return len(bytes.Trim(head, "\x00")) == 0
}

// format makes an empty file system of size bytes. Groups that nothing is in yet are not written. One
// with a journal is to stay: if the power goes, the device is [fresh] until the file system is whole.
func format(w device, size int64, id [16]byte, journal bool, t top) error {
	e := &ext{blocks: size / extBlock, id: id, top: t}
	if journal {
		e.journal = journalBlocks
	}
	// A last group that has no room for its tables is left out.
	for {
		e.groups = (e.blocks + groupBlocks - 1) / groupBlocks
		e.tables = (e.groups*descriptorSize + extBlock - 1) / extBlock
		last := e.blocks - (e.groups-1)*groupBlocks
		if e.groups < 2 || last >= e.overhead(e.groups-1)+64 {
			break
		}
		e.blocks -= last
	}
	if e.blocks < e.overhead(0)+e.journal+1024 || e.blocks >= 1<<32 {
		return fmt.Errorf("%d bytes are no size for a file system", size)
	}
	if !journal {
		return e.write(w)
	}
	mark := []byte(begun)
	if err := put(w, mark); err != nil {
		return err
	}
	if err := e.write(w); err != nil {
		return err
	}
	clear(mark)
	return put(w, mark)
}

// put writes the mark when all that was written is on the device, and waits for it.
func put(w device, mark []byte) error {
	if err := w.Sync(); err != nil {
		return err
	}
	if _, err := w.WriteAt(mark, 0); err != nil {
		return err
	}
	return w.Sync()
}

// hasSuper reports whether a group has copies of superblock and descriptors.
func hasSuper(g int64) bool {
	if g < 2 {
		return true
	}
	for _, base := range []int64{3, 5, 7} {
		p := base
		for p < g {
			p *= base
		}
		if p == g {
			return true
		}
	}
	return false
}

// bitmap returns the block of a group's bitmap of blocks; that of inodes and the table follow.
func (e *ext) bitmap(g int64) int64 {
	at := g * groupBlocks
	if hasSuper(g) {
		at += 1 + e.tables
	}
	return at
}

// overhead returns how many blocks of a group are not for files.
func (e *ext) overhead(g int64) int64 { return e.bitmap(g) - g*groupBlocks + 2 + tableBlocks }

// size returns the blocks of a group.
func (e *ext) size(g int64) int64 { return min(groupBlocks, e.blocks-g*groupBlocks) }

func (e *ext) write(w device) error {
	le := binary.LittleEndian
	used := e.overhead(0) // of the first group
	rootDir, lost, journal := used, used+1, used+2
	used += 2 + e.journal
	table := make([]byte, e.tables*extBlock)
	free := int64(0)
	for g := range e.groups {
		d := table[g*descriptorSize:]
		n, taken, inodes, flags := e.size(g), e.overhead(g), int64(groupInodes), uint16(inodeUninit|blockUninit)
		if g == 0 {
			taken, inodes, flags = used, groupInodes-firstInode, 0
			le.PutUint16(d[16:], 2) // directories
		} else if g == e.groups-1 {
			flags = inodeUninit
		}
		le.PutUint32(d, uint32(e.bitmap(g)))
		le.PutUint32(d[4:], uint32(e.bitmap(g)+1))
		le.PutUint32(d[8:], uint32(e.bitmap(g)+2))
		le.PutUint16(d[12:], uint16(n-taken))
		le.PutUint16(d[14:], uint16(inodes))
		le.PutUint16(d[18:], flags)
		le.PutUint16(d[28:], uint16(inodes)) // inodes at the table's end that were never used
		number := le.AppendUint32(nil, uint32(g))
		le.PutUint16(d[30:], crc16(crc16(crc16(0xffff, e.id[:]), number), d[:30]))
		free += n - taken
	}
	var err error
	put := func(block int64, b []byte) {
		if err == nil {
			_, err = w.WriteAt(b, block*extBlock)
		}
	}
	for g := range e.groups {
		if g == 0 || g == e.groups-1 {
			taken := e.overhead(g)
			if g == 0 {
				taken = used
			}
			put(e.bitmap(g), bitmap(taken, e.size(g)))
		}
		if hasSuper(g) {
			put(g*groupBlocks+1, table)
		}
	}
	put(e.bitmap(0)+1, bitmap(firstInode, groupInodes))
	inodes := make([]byte, tableBlocks*extBlock)
	e.inode(inodes, 2, 0o040000|e.top.mode, 3, extBlock, rootDir)
	e.own(inodes[inodeBytes:])
	e.inode(inodes, firstInode, 0o040700, 2, extBlock, lost)
	if e.journal > 0 {
		e.inode(inodes, 8, 0o100600, 1, e.journal*extBlock, journal)
		put(journal, e.journalHead())
	}
	put(e.bitmap(0)+2, inodes)
	put(rootDir, directory(2, 2, "lost+found"))
	put(lost, directory(firstInode, 2, ""))
	// The superblocks last: nothing is a file system before it is whole.
	for g := e.groups - 1; g >= 0 && err == nil; g-- {
		if hasSuper(g) {
			s := e.super(g, free, inodes)
			at := g * groupBlocks * extBlock
			if g == 0 {
				at = 1024
				err = w.Sync() // devices write in any order
			}
			if err == nil {
				_, err = w.WriteAt(s, at)
			}
		}
	}
	return err
}

// super returns the superblock of a group.
func (e *ext) super(g, free int64, inodes []byte) []byte {
	le := binary.LittleEndian
	s := make([]byte, 1024)
	le.PutUint32(s, uint32(e.groups*groupInodes))
	le.PutUint32(s[4:], uint32(e.blocks))
	le.PutUint32(s[12:], uint32(free))
	le.PutUint32(s[16:], uint32(e.groups*groupInodes-firstInode))
	le.PutUint32(s[24:], 2) // 1024 << 2
	le.PutUint32(s[28:], 2)
	le.PutUint32(s[32:], groupBlocks)
	le.PutUint32(s[36:], groupBlocks)
	le.PutUint32(s[40:], groupInodes)
	le.PutUint16(s[54:], 0xffff) // mounts before a check
	le.PutUint16(s[56:], superMagic)
	le.PutUint16(s[58:], 1) // clean
	le.PutUint16(s[60:], 1) // go on after errors
	le.PutUint32(s[76:], 1) // revision with features
	le.PutUint32(s[84:], firstInode)
	le.PutUint16(s[88:], inodeBytes)
	le.PutUint16(s[90:], uint16(g))
	compat := uint32(0x8) // ext_attr
	if e.journal > 0 {
		compat |= 0x4
		le.PutUint32(s[224:], 8)
		s[253] = 1 // the journal's inode stands here too
		copy(s[268:], inodes[7*inodeBytes+40:7*inodeBytes+100])
		le.PutUint32(s[268+64:], uint32(e.journal*extBlock))
	}
	le.PutUint32(s[92:], compat)
	le.PutUint32(s[96:], 0x2|0x40)               // filetype, extents
	le.PutUint32(s[100:], 0x1|0x2|0x8|0x10|0x40) // sparse_super, large_file, huge_file, gdt_csum, extra_isize
	copy(s[104:], e.id[:])
	le.PutUint16(s[254:], descriptorSize)
	s[252] = 1 // half MD4, for the seed below
	copy(s[236:], e.id[:])
	le.PutUint32(s[256:], 0xc) // default mount options: xattr, acl
	le.PutUint16(s[348:], 32)
	le.PutUint16(s[350:], 32)
	return s
}

// inode writes one inode of contiguous blocks.
func (e *ext) inode(table []byte, number int, mode, links uint16, size, block int64) {
	le := binary.LittleEndian
	b := table[(number-1)*inodeBytes:]
	le.PutUint16(b, mode)
	le.PutUint32(b[4:], uint32(size))
	le.PutUint16(b[26:], links)
	le.PutUint32(b[28:], uint32(size/512))
	le.PutUint32(b[32:], extentsFlag)
	x := b[40:]
	le.PutUint16(x, 0xf30a)
	le.PutUint16(x[2:], 1) // extents
	le.PutUint16(x[4:], 4) // room for
	le.PutUint16(x[16:], uint16(size/extBlock))
	le.PutUint32(x[20:], uint32(block))
	le.PutUint16(b[128:], 32)
}

// own writes whose an inode is.
func (e *ext) own(b []byte) {
	le := binary.LittleEndian
	le.PutUint16(b[2:], uint16(e.top.uid))
	le.PutUint16(b[24:], uint16(e.top.gid))
	le.PutUint16(b[120:], uint16(e.top.uid>>16))
	le.PutUint16(b[122:], uint16(e.top.gid>>16))
}

// journalHead returns the superblock of an empty journal, which is big-endian.
func (e *ext) journalHead() []byte {
	be := binary.BigEndian
	b := make([]byte, extBlock)
	be.PutUint32(b, 0xc03b3998)
	be.PutUint32(b[4:], 4)
	be.PutUint32(b[12:], extBlock)
	be.PutUint32(b[16:], uint32(e.journal))
	be.PutUint32(b[20:], 1)
	be.PutUint32(b[24:], 1)
	copy(b[48:], e.id[:])
	be.PutUint32(b[64:], 1)
	return b
}

// directory returns the block of a directory with at most one entry, the inode firstInode.
func directory(self, parent uint32, name string) []byte {
	le := binary.LittleEndian
	b := make([]byte, extBlock)
	at := 0
	add := func(inode uint32, name string, last bool) {
		length := (8 + len(name) + 3) &^ 3
		if last {
			length = extBlock - at
		}
		le.PutUint32(b[at:], inode)
		le.PutUint16(b[at+4:], uint16(length))
		b[at+6], b[at+7] = byte(len(name)), 2
		copy(b[at+8:], name)
		at += length
	}
	add(self, ".", false)
	add(parent, "..", name == "")
	if name != "" {
		add(firstInode, name, true)
	}
	return b
}

// bitmap returns a block whose first used bits are set, and those from size on.
func bitmap(used, size int64) []byte {
	b := make([]byte, extBlock)
	for i := range int64(8 * extBlock) {
		if i < used || i >= size {
			b[i/8] |= 1 << (i % 8)
		}
	}
	return b
}

// crc16 is that of the group descriptors: polynomial 0x8005, reflected.
func crc16(crc uint16, b []byte) uint16 {
	for _, c := range b {
		crc ^= uint16(c)
		for range 8 {
			if crc&1 != 0 {
				crc = crc>>1 ^ 0xa001
			} else {
				crc >>= 1
			}
		}
	}
	return crc
}
