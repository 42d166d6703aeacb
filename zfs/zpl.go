package zfs

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"strconv"
)

// zplAttrs are the system attributes of a file system: their numbers and layouts are its own.
type zplAttrs struct {
	names   map[uint16]string
	lengths map[uint16]int
	layouts map[uint16][]uint16
}

// maxLayout is that of the ten bits in a header.
const maxLayout = 1<<10 - 1

// readAttrs reads the tables of system attributes from their master object.
func (s *objset) readAttrs(master uint64) (*zplAttrs, error) {
	numbers, err := s.numbers(master)
	if err != nil {
		return nil, fmt.Errorf("system attributes: %w", err)
	}
	a := &zplAttrs{map[uint16]string{}, map[uint16]int{}, map[uint16][]uint16{}}
	registry, err := s.numbers(numbers["REGISTRY"])
	if err != nil {
		return nil, fmt.Errorf("registry of system attributes: %w", err)
	}
	for name, v := range registry {
		n := uint16(v)
		if _, ok := a.names[n]; ok {
			return nil, fmt.Errorf("system attributes %q and %q are both number %d", name, a.names[n], n)
		}
		a.names[n], a.lengths[n] = name, int(v>>24&0xFFFF)
	}
	d, err := s.object(numbers["LAYOUTS"])
	if err != nil {
		return nil, fmt.Errorf("layouts of system attributes: %w", err)
	}
	_, err = s.zap(d, func(e *zapItem) error {
		n, err := strconv.ParseUint(e.name, 10, 16)
		if err != nil || n > maxLayout || e.size != 2 {
			return fmt.Errorf("layout %q of numbers of %d bytes", e.name, e.size)
		}
		var l []uint16
		for v := e.value; len(v) > 0; v = v[2:] {
			attr := binary.BigEndian.Uint16(v)
			if _, ok := a.names[attr]; !ok {
				return fmt.Errorf("layout %d: attribute %d is not registered", n, attr)
			}
			l = append(l, attr)
		}
		a.layouts[uint16(n)] = l
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("layouts of system attributes: %w", err)
	}
	return a, nil
}

// object returns an object that must be there.
func (s *objset) object(number uint64) (*dnode, error) {
	d := s.objects[number]
	if d == nil {
		return nil, fmt.Errorf("there is no object %d", number)
	}
	return d, nil
}

// maxNumbers bounds a zap that is read whole: master nodes and registries.
const maxNumbers = 4096

// numbers reads a zap of numbers whole.
func (s *objset) numbers(object uint64) (map[string]uint64, error) {
	d, err := s.object(object)
	if err != nil {
		return nil, err
	}
	m := map[string]uint64{}
	_, err = s.zap(d, func(e *zapItem) error {
		v, err := e.number()
		if err == nil && len(m) == maxNumbers {
			err = fmt.Errorf("%w: more than %d entries", errZAP, maxNumbers)
		}
		m[e.name] = v
		return err
	})
	return m, err
}

// An inode is the metadata of an object as it was read.
type inode struct {
	mode, size, gen, uid, gid, parent, flags, links uint64
	xattr, rdev                                     uint64
	sec, nsec                                       int64 // of its last modification
	acl                                             []byte
	target                                          string
	dxattr                                          []byte
	layouts                                         []uint16 // of bonus and spill
	slack                                           int      // bytes behind the attributes
}

var errBonus = errors.New("damaged attributes")

// inode reads the metadata of an object of the file system.
func (s *objset) inode(d *dnode, attrs *zplAttrs) (*inode, error) {
	bonus, err := s.bytes(d.bonus)
	if err != nil {
		return nil, err
	}
	z := &inode{}
	switch {
	case d.bonusType == typeZnode:
		return z, z.znode(bonus, s.orders[d.bonus.stream])
	case d.bonusType != typeSA:
		return nil, fmt.Errorf("%w: bonus is %s", errBonus, typeName(d.bonusType))
	case attrs == nil:
		return nil, fmt.Errorf("%w: the file system has no system attributes", errBonus)
	}
	if z.slack, err = z.attributes(bonus, attrs); err != nil {
		return nil, err
	}
	if d.spill.size > 0 {
		spill := make([]byte, d.spill.size)
		if err := s.readBlock(&d.spill, spill); err != nil {
			return nil, err
		}
		if _, err := z.attributes(spill, attrs); err != nil {
			return nil, fmt.Errorf("spill block: %w", err)
		}
	}
	return z, nil
}

// znode reads a znode_phys_t.
func (z *inode) znode(b []byte, order binary.ByteOrder) error {
	if len(b) < znodeSize {
		return fmt.Errorf("%w: znode of %d bytes", errBonus, len(b))
	}
	u64 := func(off int) uint64 { return order.Uint64(b[off:]) }
	z.sec, z.nsec = int64(u64(16)), int64(u64(24))
	z.gen, z.mode, z.size, z.parent, z.links = u64(64), u64(72), u64(80), u64(88), u64(96)
	z.xattr, z.rdev, z.flags, z.uid, z.gid = u64(104), u64(112), u64(120), u64(128), u64(136)
	if n := int(order.Uint32(b[184:])); u64(176) == 0 && n <= 72 {
		z.acl = b[192:][:n]
	}
	if z.mode&modeType == modeSymlink && z.size <= uint64(len(b)-znodeSize) {
		z.target = string(b[znodeSize:][:z.size])
	}
	z.slack = len(b) - znodeSize - len(z.target)
	return nil
}

// attributes reads the values of a bonus or spill block and returns how many bytes follow them.
func (z *inode) attributes(b []byte, attrs *zplAttrs) (int, error) {
	if len(b) < 8 {
		return 0, fmt.Errorf("%w: %d bytes", errBonus, len(b))
	}
	var order binary.ByteOrder = binary.LittleEndian
	if order.Uint32(b) != saMagic {
		if order = binary.BigEndian; order.Uint32(b) != saMagic {
			return 0, fmt.Errorf("%w: magic %#x", errBonus, order.Uint32(b))
		}
	}
	info := order.Uint16(b[4:])
	layout, head := info&maxLayout, int(info>>10)*8
	list, ok := attrs.layouts[layout]
	if !ok || head < 8 || head > len(b) {
		return 0, fmt.Errorf("%w: layout %d behind %d bytes", errBonus, layout, head)
	}
	z.layouts = append(z.layouts, layout)
	lengths, rest := b[6:head], b[head:]
	for _, attr := range list {
		n := attrs.lengths[attr]
		if n == 0 {
			if len(lengths) < 2 {
				return 0, fmt.Errorf("%w: no length of attribute %q", errBonus, attrs.names[attr])
			}
			n = int(order.Uint16(lengths))
			lengths = lengths[2:]
		}
		if n > len(rest) {
			return 0, fmt.Errorf("%w: attribute %q of %d bytes", errBonus, attrs.names[attr], n)
		}
		if err := z.set(attrs.names[attr], rest[:n], order); err != nil {
			return 0, err
		}
		rest = rest[min(roundUp(n, 8), len(rest)):]
	}
	return len(rest), nil
}

// set takes the value of one attribute.
func (z *inode) set(name string, v []byte, order binary.ByteOrder) error {
	switch name {
	case "ZPL_DACL_ACES":
		z.acl = v
		return nil
	case "ZPL_SYMLINK":
		z.target = string(v)
		return nil
	case "ZPL_DXATTR":
		z.dxattr = v
		return nil
	case "ZPL_MTIME":
		if len(v) != 16 {
			return fmt.Errorf("%w: attribute %q of %d bytes", errBonus, name, len(v))
		}
		z.sec, z.nsec = int64(order.Uint64(v)), int64(order.Uint64(v[8:]))
		return nil
	}
	var to *uint64
	switch name {
	case "ZPL_MODE":
		to = &z.mode
	case "ZPL_SIZE":
		to = &z.size
	case "ZPL_GEN":
		to = &z.gen
	case "ZPL_UID":
		to = &z.uid
	case "ZPL_GID":
		to = &z.gid
	case "ZPL_PARENT":
		to = &z.parent
	case "ZPL_FLAGS":
		to = &z.flags
	case "ZPL_LINKS":
		to = &z.links
	case "ZPL_XATTR":
		to = &z.xattr
	case "ZPL_RDEV":
		to = &z.rdev
	}
	if to == nil {
		return nil
	}
	if len(v) != 8 {
		return fmt.Errorf("%w: attribute %q of %d bytes", errBonus, name, len(v))
	}
	*to = order.Uint64(v)
	return nil
}

// unpackXattrs reads an nvlist of byte arrays in XDR, the inverse of packXattrs.
func unpackXattrs(b []byte) (map[string][]byte, error) {
	be := binary.BigEndian
	bad := func(what string) error { return fmt.Errorf("%w: extended attributes: %s", errBonus, what) }
	if len(b) < 12 || b[0] != 1 {
		return nil, bad("no nvlist in XDR")
	}
	m := map[string][]byte{}
	for b = b[12:]; ; {
		if len(b) < 8 {
			return nil, bad("no end")
		}
		size := int(be.Uint32(b))
		if size == 0 {
			return m, nil
		}
		if size < 20 || size > len(b) {
			return nil, bad("size of an entry")
		}
		e := b[8:size]
		b = b[size:]
		n := int(be.Uint32(e))
		if e = e[4:]; n > len(e) || roundUp(n, 4) > len(e)-8 {
			return nil, bad("length of a name")
		}
		name := string(e[:n])
		e = e[roundUp(n, 4):]
		kind, count := be.Uint32(e), be.Uint32(e[4:])
		if e = e[8:]; kind != nvByteArray || uint64(count) > uint64(len(e)) {
			return nil, bad(fmt.Sprintf("value of %q", name))
		}
		if _, ok := m[name]; ok || name == "" || bytes.IndexByte([]byte(name), 0) >= 0 {
			return nil, bad(fmt.Sprintf("name %q", name))
		}
		m[name] = bytes.Clone(e[:count])
	}
}
