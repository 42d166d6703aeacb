package zfs

import (
	"encoding/binary"
	"fmt"
	"maps"
	"slices"
	"strconv"
)

// The numbers of the system attributes that we register (sys/zfs_sa.h, zfs_attr_table). Receivers
// size a table by the count and index it by number: they are dense.
const (
	saATime = iota
	saMTime
	saCTime
	saCrTime
	saGen
	saMode
	saSize
	saParent
	saLinks
	saXattr
	saRdev
	saFlags
	saUID
	saGID
	saPad
	saZnodeACL
	saDACLCount
	saSymlink
	saScanStamp
	saDACLACEs
	saDXattr
	saProjID
)

// saAttrs is the registry: name, length (0: variable) and how a host of the other byte order
// swaps it (sa_bswap_type_t).
var saAttrs = [...]struct {
	name   string
	length int
	swap   uint64
}{
	saATime:     {"ZPL_ATIME", 16, 0},
	saMTime:     {"ZPL_MTIME", 16, 0},
	saCTime:     {"ZPL_CTIME", 16, 0},
	saCrTime:    {"ZPL_CRTIME", 16, 0},
	saGen:       {"ZPL_GEN", 8, 0},
	saMode:      {"ZPL_MODE", 8, 0},
	saSize:      {"ZPL_SIZE", 8, 0},
	saParent:    {"ZPL_PARENT", 8, 0},
	saLinks:     {"ZPL_LINKS", 8, 0},
	saXattr:     {"ZPL_XATTR", 8, 0},
	saRdev:      {"ZPL_RDEV", 8, 0},
	saFlags:     {"ZPL_FLAGS", 8, 0},
	saUID:       {"ZPL_UID", 8, 0},
	saGID:       {"ZPL_GID", 8, 0},
	saPad:       {"ZPL_PAD", 32, 0},
	saZnodeACL:  {"ZPL_ZNODE_ACL", 88, 3},
	saDACLCount: {"ZPL_DACL_COUNT", 8, 0},
	saSymlink:   {"ZPL_SYMLINK", 0, 3},
	saScanStamp: {"ZPL_SCANSTAMP", 32, 3},
	saDACLACEs:  {"ZPL_DACL_ACES", 0, 4},
	saDXattr:    {"ZPL_DXATTR", 0, 3},
	saProjID:    {"ZPL_PROJID", 8, 0},
}

const (
	saMagic       = 0x2F505A
	firstLayout   = 2 // 0 and 1 are reserved
	maxXattrSA    = 64 << 10
	maxXattrValue = 32 << 10 // DXATTR_MAX_ENTRY_SIZE: a larger one never is a system attribute
)

// saPrefix begins every bonus. Hosts read owner, generation and flags at these places without
// looking at the layout, for quotas and in boot loaders.
var saPrefix = []uint16{
	saMode, saSize, saGen, saUID, saGID, saParent, saFlags,
	saATime, saMTime, saCTime, saCrTime, saLinks,
}

// saLayouts are the orders of attributes in a bonus or spill block; the first is number 2. A host
// numbers its next one by their count: no gap, no two the same, or its first new file is a kernel
// panic. All of them are in every stream, so that the objects that hold them never change; new
// ones go to the end.
var saLayouts = [][]uint16{
	slices.Concat(saPrefix, []uint16{saDACLCount, saDACLACEs}),
	slices.Concat(saPrefix, []uint16{saRdev, saDACLCount, saDACLACEs}),
	slices.Concat(saPrefix, []uint16{saDACLCount, saDACLACEs, saSymlink}),
	{saSymlink},
	slices.Concat(saPrefix, []uint16{saDACLCount, saDACLACEs, saDXattr}),
	{saDXattr},
	slices.Concat(saPrefix, []uint16{saRdev, saDACLCount, saDACLACEs, saDXattr}),
	slices.Concat(saPrefix, []uint16{saDACLCount, saDACLACEs, saSymlink, saDXattr}),
	slices.Concat(saPrefix, []uint16{saDACLCount, saDACLACEs, saXattr}),
	slices.Concat(saPrefix, []uint16{saRdev, saDACLCount, saDACLACEs, saXattr}),
	slices.Concat(saPrefix, []uint16{saDACLCount, saDACLACEs, saSymlink, saXattr}),
	{saSymlink, saDXattr},
}

// layoutOf returns the number of a layout of the table.
func layoutOf(attrs []uint16) uint16 {
	i := slices.IndexFunc(saLayouts, func(l []uint16) bool { return slices.Equal(l, attrs) })
	if i < 0 {
		panic("zfs: attributes without a layout") // a fault of this package, whatever the input
	}
	return uint16(firstLayout + i)
}

// registryEntries and layoutEntries are the contents of the objects that describe the attributes.
func registryEntries() []zapEntry {
	var entries []zapEntry
	for i, a := range saAttrs {
		entries = append(entries, zapEntry{name: a.name, value: uint64(i) | a.swap<<16 | uint64(a.length)<<24})
	}
	return entries
}

func layoutEntries() []zapEntry {
	var entries []zapEntry
	for i, l := range saLayouts {
		entries = append(entries, zapEntry{name: strconv.Itoa(firstLayout + i), ints: l})
	}
	return entries
}

// A znode is the metadata of an object as a file system keeps it.
type znode struct {
	mode, size, gen, uid, gid, parent, flags, links uint64
	xattr, rdev                                     uint64
	sec, nsec                                       uint64 // all four times
	acl                                             []byte
	target                                          string
	dxattr                                          []byte // packed nvlist
}

// appendSA appends a header and the values of the attributes in their order.
func (z *znode) appendSA(b []byte, attrs []uint16) []byte {
	le := binary.LittleEndian
	start := len(b)
	b = le.AppendUint32(b, saMagic)
	b = le.AppendUint16(b, 0)
	for _, a := range attrs {
		switch a {
		case saDACLACEs:
			b = le.AppendUint16(b, uint16(len(z.acl)))
		case saSymlink:
			b = le.AppendUint16(b, uint16(len(z.target)))
		case saDXattr:
			b = le.AppendUint16(b, uint16(len(z.dxattr)))
		}
	}
	b = pad(b, start, 8)
	le.PutUint16(b[start+4:], layoutOf(attrs)|uint16((len(b)-start)/8)<<10)
	for _, a := range attrs {
		switch a {
		case saATime, saMTime, saCTime, saCrTime:
			b = le.AppendUint64(b, z.sec)
			b = le.AppendUint64(b, z.nsec)
		case saDACLACEs:
			b = append(b, z.acl...)
		case saSymlink:
			b = append(b, z.target...)
		case saDXattr:
			b = append(b, z.dxattr...)
		default:
			b = le.AppendUint64(b, z.number(a))
		}
		b = pad(b, start, 8)
	}
	return b
}

// number returns the value of an attribute that is one number.
func (z *znode) number(attr uint16) uint64 {
	switch attr {
	case saMode:
		return z.mode
	case saSize:
		return z.size
	case saGen:
		return z.gen
	case saUID:
		return z.uid
	case saGID:
		return z.gid
	case saParent:
		return z.parent
	case saFlags:
		return z.flags
	case saLinks:
		return z.links
	case saXattr:
		return z.xattr
	case saRdev:
		return z.rdev
	case saDACLCount:
		return uint64(len(z.acl) / aceSize)
	}
	return 0
}

// pad appends zeros to b until its length from start on is a multiple of n.
func pad(b []byte, start, n int) []byte {
	for (len(b)-start)%n != 0 {
		b = append(b, 0)
	}
	return b
}

// sa returns the bonus of ZPL 5 and the spill block, if one is needed.
func (z *znode) sa() (bonus, spill []byte, err error) {
	attrs := slices.Clone(saPrefix)
	if t := z.mode & modeType; t == modeChar || t == modeBlock {
		attrs = append(attrs, saRdev)
	}
	attrs = append(attrs, saDACLCount, saDACLACEs)
	// What may go to the spill block, in the order of the layouts. A host can tell a symbolic
	// link from one without a target only by its mode.
	var movable []uint16
	if z.mode&modeType == modeSymlink {
		movable = append(movable, saSymlink)
	}
	if z.dxattr != nil {
		movable = append(movable, saDXattr)
	}
	fixed := func(first []uint16) []uint16 {
		if z.xattr != 0 {
			return append(first, saXattr)
		}
		return first
	}
	if bonus = z.appendSA(nil, fixed(slices.Concat(attrs, movable))); len(bonus) <= maxBonus {
		return bonus, nil, nil
	}
	for keep := len(movable) - 1; keep >= 0; keep-- {
		if bonus = z.appendSA(nil, fixed(slices.Concat(attrs, movable[:keep]))); len(bonus) <= maxBonusSpill {
			spill = pad(z.appendSA(nil, movable[keep:]), 0, minBlock)
			if len(spill) > recordSize {
				return nil, nil, fmt.Errorf("attributes of %d bytes: more than %d", len(spill), recordSize)
			}
			return bonus, spill, nil
		}
	}
	return nil, nil, fmt.Errorf("its mode, device number and extended attributes together do not fit")
}

// znodeSize is the size of znode_phys_t.
const znodeSize = 264

// bonus4 returns the bonus of ZPL 4 (znode_phys_t). A target that does not fit behind it is the
// content of the object instead.
func (z *znode) bonus4() []byte {
	b := make([]byte, znodeSize, maxBonus)
	put := func(off int, v uint64) { binary.LittleEndian.PutUint64(b[off:], v) }
	for off := 0; off < 64; off += 16 {
		put(off, z.sec)
		put(off+8, z.nsec)
	}
	for i, v := range []uint64{z.gen, z.mode, z.size, z.parent, z.links, z.xattr, z.rdev, z.flags, z.uid, z.gid} {
		put([]int{64, 72, 80, 88, 96, 104, 112, 120, 128, 136}[i], v)
	}
	binary.LittleEndian.PutUint32(b[184:], uint32(len(z.acl)))
	binary.LittleEndian.PutUint16(b[188:], 1) // version with 8-byte entries
	binary.LittleEndian.PutUint16(b[190:], uint16(len(z.acl)/aceSize))
	copy(b[192:], z.acl)
	if len(b)+len(z.target) <= maxBonus {
		b = append(b, z.target...)
	}
	return b
}

// packXattrs returns extended attributes as an nvlist of byte arrays in XDR (sys/nvpair.h).
func packXattrs(xattrs map[string][]byte) ([]byte, error) {
	l := newNVList()
	for _, name := range slices.Sorted(maps.Keys(xattrs)) {
		value := xattrs[name]
		if len(value) > maxXattrValue {
			return nil, fmt.Errorf("extended attribute %q of %d bytes: more than %d", name, len(value), maxXattrValue)
		}
		l.pair(name, nvByteArray, uint32(len(value)), pad(slices.Clone(value), 0, 4), len(value))
	}
	b := l.packed()
	if len(b) >= maxXattrSA-8 {
		return nil, fmt.Errorf("extended attributes of %d bytes: more than %d", len(b), maxXattrSA)
	}
	return b, nil
}
