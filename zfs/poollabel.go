package zfs

import (
	"crypto/sha256"
	"encoding/binary"
	"fmt"
)

// Places on a vdev (sys/vdev_impl.h), in bytes.
const (
	labelSize    = 256 << 10
	labelBoot    = 8 << 10 // of the block that boot loaders keep settings in, in a label
	labelConfig  = 16 << 10
	labelRing    = 128 << 10 // of the uberblocks
	dataStart    = 4 << 20
	labelsBehind = 2 * labelSize

	uberblockMagic = 0x00BAB10C
	checksumMagic  = 0x0210DA7AB10C7A11 // of a checksum that stands in the block itself
	poolExported   = 1
	// A host that imports a pool reads all blocks of the last transaction groups. Ours seem older,
	// which saves it that.
	labelTXG = poolTXG + 4
)

// config returns the description of the pool: that in a label, or the one of the pool itself.
func (p *Pool) config(label bool) *nvlist {
	leaf := newNVList()
	kind := "disk"
	if p.opt.File {
		kind = "file"
	}
	leaf.text("type", kind)
	leaf.number("id", 0)
	leaf.number("guid", p.vdevGUID)
	leaf.text("path", p.opt.Path)
	if !p.opt.File {
		leaf.number("whole_disk", 0)
	}
	leaf.number("metaslab_array", p.metaslabArray)
	leaf.number("metaslab_shift", uint64(p.slabShift))
	leaf.number("ashift", uint64(p.opt.Ashift))
	leaf.number("asize", p.asize)
	leaf.number("is_log", 0)
	leaf.number("create_txg", poolTXG)

	l := newNVList()
	l.number("version", poolVersion)
	l.text("name", p.opt.Name)
	l.number("state", poolExported)
	l.number("txg", labelTXG)
	l.number("pool_guid", p.guid)
	if label {
		l.number("top_guid", p.vdevGUID)
		l.number("guid", p.vdevGUID)
	}
	l.number("vdev_children", 1)
	tree := leaf
	if !label {
		tree = newNVList()
		tree.text("type", "root")
		tree.number("id", 0)
		tree.number("guid", p.guid)
		tree.number("create_txg", poolTXG)
		tree.lists("children", leaf)
	}
	l.list("vdev_tree", tree)
	f := newNVList()
	if p.lz4 {
		f.boolean(featureLZ4Map)
	}
	l.list("features_for_read", f)
	return l
}

// label returns the label that stands at this place.
func (p *Pool) label(at uint64) ([]byte, error) {
	le := binary.LittleEndian
	b := make([]byte, labelSize)
	seal := func(from, to int) {
		q := b[from:to]
		eck := q[len(q)-40:]
		le.PutUint64(eck, checksumMagic)
		le.PutUint64(eck[8:], at+uint64(from))
		d := sha256.Sum256(q)
		for i := range 4 {
			le.PutUint64(eck[8+8*i:], binary.BigEndian.Uint64(d[8*i:]))
		}
	}
	seal(labelBoot, labelConfig)
	config := p.config(true).packed()
	if len(config) > labelRing-labelConfig-40 {
		return nil, fmt.Errorf("pool %q: its description takes %d bytes", p.opt.Name, len(config))
	}
	copy(b[labelConfig:], config)
	seal(labelConfig, labelRing)
	for from := labelRing; from < labelSize; {
		u := b[from:]
		le.PutUint64(u, uberblockMagic)
		le.PutUint64(u[8:], poolVersion)
		le.PutUint64(u[16:], labelTXG)
		le.PutUint64(u[24:], p.guid+p.vdevGUID)
		le.PutUint64(u[32:], uint64(p.opt.Created.Unix()))
		p.own.root.put(u[40:], typeObjset, 0, p.opt.Ashift)
		le.PutUint64(u[168:], poolVersion)
		to := from + 1<<max(10, min(p.opt.Ashift, 13))
		seal(from, to)
		from = to
	}
	return b, nil
}
