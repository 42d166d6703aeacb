package zfs

import (
	"encoding/binary"
	"slices"
	"strconv"
)

// Object types of a pool's own object set, and their bonus types (dmu_object_type_t).
const (
	typeObjectDirectory = 1
	typeObjectArray     = 2
	typePackedNVList    = 3
	typeNVListSize      = 4
	typeBPObject        = 5
	typeBPObjectHeader  = 6
	typeSpaceMapHeader  = 7
	typeSpaceMap        = 8
	typeDSLDirectory    = 12
	typeChildMap        = 13
	typeSnapshotMap     = 14
	typeProperties      = 15
	typeDataset         = 16
	typePoolProperties  = 31
	typeNextClones      = 37
	typeDeadlist        = 50
	typeDeadlistHeader  = 51
	typeClones          = 52
	typeFeatures        = 0xC4 // DMU_OTN_ZAP_METADATA
)

const (
	poolVersion   = 5000
	originTXG     = 1 // in which the origin of all file systems was made
	featureLZ4Map = "org.illumos:lz4_compress"

	datasetAccurate = 4 // DS_FLAG_UNIQUE_ACCURATE
	dirBreakdown    = 1 // DD_FLAG_USED_BREAKDOWN
)

// A mosObject is an object of the pool itself.
type mosObject struct {
	object
	blocks blocks
}

// A mos is the set of objects of the pool itself, the meta object set.
type mos struct {
	objects []*mosObject
	err     error
}

func (m *mos) len() int                     { return len(m.objects) }
func (m *mos) object(i int) (object, error) { return m.objects[i].object, nil }
func (m *mos) open(i int) (blocks, error)   { return m.objects[i].blocks, nil }
func (m *mos) name(i int) string            { return "number " + strconv.Itoa(i+1) + " of the pool" }

func (m *mos) add(kind, bonus uint32) *mosObject {
	o := &mosObject{object{number: uint64(len(m.objects) + 1), kind: kind, bonusType: bonus}, memBlocks{size: minBlock}}
	m.objects = append(m.objects, o)
	return o
}

// zap adds an object with these entries.
func (m *mos) zap(kind uint32, entries ...zapEntry) *mosObject {
	o := m.add(kind, typeNone)
	m.fill(o, entries)
	return o
}

func (m *mos) fill(o *mosObject, entries []zapEntry) {
	z, err := newZAP(o.number, entries, false)
	if err != nil {
		m.err = err
		return
	}
	o.blocks = zapBlocks{z}
}

// words returns numbers as they stand in a bonus of this size.
func words(size int, vs map[int]uint64) []byte {
	b := make([]byte, size)
	for i, v := range vs {
		binary.LittleEndian.PutUint64(b[8*i:], v)
	}
	return b
}

func numberEntry(name string, v uint64) zapEntry { return zapEntry{name: name, value: v} }

// blockList adds an empty list of blocks (bpobj_phys_t).
func (m *mos) blockList() uint64 {
	o := m.add(typeBPObject, typeBPObjectHeader)
	o.bonus, o.blocks = make([]byte, 48), memBlocks{size: recordSize}
	return o.number
}

// deadlist adds that of a dataset: an empty list of blocks for each range between snapshots, by the
// transaction group that the range begins with.
func (m *mos) deadlist(from ...uint64) uint64 {
	var entries []zapEntry
	for _, txg := range from {
		entries = append(entries, numberEntry(strconv.FormatUint(txg, 16), m.blockList()))
	}
	o := m.zap(typeDeadlist, entries...)
	o.bonusType, o.bonus = typeDeadlistHeader, make([]byte, 320)
	return o.number
}

// hexKey is an entry of a set of object numbers.
func hexKey(n uint64) zapEntry { return numberEntry(strconv.FormatUint(n, 16), n) }

// A dslDir is a DSL directory while it is being made.
type dslDir struct {
	*mosObject
	fields   map[int]uint64
	children *mosObject
	names    []zapEntry
	own, all sizes // of its dataset, and with those below
}

// directory adds a DSL directory (dsl_dir_phys_t) below parent.
func (m *mos) directory(parent *dslDir, name string, props []zapEntry) *dslDir {
	d := &dslDir{mosObject: m.add(typeDSLDirectory, typeDSLDirectory)}
	d.children = m.zap(typeChildMap)
	d.fields = map[int]uint64{4: d.children.number, 10: m.zap(typeProperties, props...).number, 12: dirBreakdown}
	if parent != nil {
		d.fields[2] = parent.number
		parent.names = append(parent.names, numberEntry(name, d.number))
		m.fill(parent.children, slices.Clone(parent.names))
	}
	return d
}

// finish fills the bonus of a directory.
func (d *dslDir) finish() {
	d.fields[5], d.fields[6], d.fields[7] = d.all.used, d.all.compressed, d.all.uncompressed
	d.fields[13], d.fields[15] = d.own.used, d.all.used-d.own.used
	d.bonus = words(256, d.fields)
}

// A dslDataset is what goes into a dataset (dsl_dataset_phys_t) while it is being made.
type dslDataset struct {
	*mosObject
	fields map[int]uint64
}

func (m *mos) dataset(fields map[int]uint64) *dslDataset {
	fields[15] = datasetAccurate
	return &dslDataset{m.add(typeDataset, typeDataset), fields}
}

// finish fills the bonus of a dataset whose objects are in set, which may be nil.
func (d *dslDataset) finish(set *poolSet, ashift int) {
	if set != nil {
		d.fields[9], d.fields[10], d.fields[11] = set.sizes.used, set.sizes.compressed, set.sizes.uncompressed
	}
	d.bonus = words(320, d.fields)
	if set != nil {
		set.root.put(d.bonus[128:], typeObjset, 0, ashift)
	}
}

// meta makes the objects of the pool itself, with maps of the space that slabs says is taken in
// each metaslab, and own as what these objects themselves take.
func (p *Pool) meta(slabs []uint64, own sizes) (*mos, error) {
	m := &mos{}
	root := m.add(typeObjectDirectory, typeNone) // number 1
	config := m.add(typePackedNVList, typeNVListSize)
	array := m.add(typeObjectArray, typeNone)

	rootDir := m.directory(nil, "", p.datasets[0].props)
	mosDir := m.directory(rootDir, "$MOS", nil)
	freeDir := m.directory(rootDir, "$FREE", nil)
	originDir := m.directory(rootDir, "$ORIGIN", nil)

	// The origin of all file systems: an empty snapshot of an empty file system.
	origin := m.dataset(map[int]uint64{0: originDir.number, 5: 1 + uint64(len(p.datasets)), 7: originTXG, 13: p.derive("origin fsid") >> 8, 14: p.derive("origin guid")})
	originHead := m.dataset(map[int]uint64{0: originDir.number, 1: origin.number, 2: originTXG, 7: poolTXG, 13: p.derive("origin head fsid") >> 8, 14: p.derive("origin head guid")})
	origin.fields[3] = originHead.number
	origin.fields[8], originHead.fields[8] = m.deadlist(0), m.deadlist(0)
	originHead.fields[4] = m.zap(typeSnapshotMap, numberEntry("$ORIGIN", origin.number)).number
	originDir.fields[1] = originHead.number

	dirs := make([]*dslDir, len(p.datasets))
	var heads, oldest []zapEntry
	bootfs := uint64(0)
	for i, ds := range p.datasets {
		d := rootDir
		if i > 0 {
			d = m.directory(dirs[ds.parent], base(ds.name), ds.props)
		}
		dirs[i] = d
		created := uint64(ds.stream.opt.Created.Unix())
		head := m.dataset(map[int]uint64{
			0: d.number, 1: origin.number, 2: originTXG, 6: created, 7: poolTXG,
			13: p.derive("fsid "+ds.name) >> 8, 14: p.derive("guid " + ds.name),
		})
		heads = append(heads, hexKey(head.number))
		first := head.number
		var names []zapEntry
		deaths := []uint64{0}
		if ds.snapshot != "" {
			snap := m.dataset(map[int]uint64{
				0: d.number, 1: origin.number, 2: originTXG, 3: head.number, 5: 1, 6: created, 7: poolTXG, 8: m.deadlist(0),
				13: p.derive("snapshot fsid "+ds.name) >> 8, 14: ds.stream.guid,
			})
			snap.finish(ds.set, p.opt.Ashift)
			first, names, deaths = snap.number, []zapEntry{numberEntry(ds.snapshot, snap.number)}, []uint64{0, originTXG}
			head.fields[1], head.fields[2] = snap.number, poolTXG
		} else {
			head.fields[12] = ds.set.sizes.used
		}
		head.fields[8] = m.deadlist(deaths...)
		head.fields[4] = m.zap(typeSnapshotMap, names...).number
		head.finish(ds.set, p.opt.Ashift)
		oldest = append(oldest, hexKey(first))
		d.fields[0], d.fields[1], d.fields[3] = created, head.number, origin.number
		d.own = ds.set.sizes
		if ds.name == p.opt.Boot && p.opt.Boot != "" {
			bootfs = head.number
		}
	}
	// A host looks for the datasets that it made of a snapshot in two places: by the datasets that
	// come next after it, and by those that a directory's snapshots are the origin of.
	origin.fields[32] = m.zap(typeNextClones, oldest...).number
	originDir.fields[18] = m.zap(typeClones, heads...).number
	origin.finish(nil, 0)
	originHead.finish(nil, 0)

	mosDir.own = own
	for i := len(dirs) - 1; i >= 0; i-- { // children stand behind their parents
		dirs[i].all.add(dirs[i].own)
		if i > 0 {
			dirs[p.datasets[i].parent].all.add(dirs[i].all)
		}
	}
	mosDir.all = own
	rootDir.all.add(own)
	for _, d := range append(slices.Clone(dirs), mosDir, freeDir, originDir) {
		d.finish()
	}

	var readFeatures, descriptions []zapEntry
	if p.lz4 {
		readFeatures = []zapEntry{numberEntry(featureLZ4Map, 1)}
		descriptions = []zapEntry{{name: featureLZ4Map, text: "LZ4 compression algorithm support.\x00"}}
	}
	entries := []zapEntry{
		numberEntry("root_dataset", rootDir.number),
		numberEntry("config", config.number),
		numberEntry("free_bpobj", m.blockList()),
		numberEntry("sync_bplist", m.blockList()),
		numberEntry("features_for_read", m.zap(typeFeatures, readFeatures...).number),
		numberEntry("features_for_write", m.zap(typeFeatures).number),
		numberEntry("feature_descriptions", m.zap(typeFeatures, descriptions...).number),
		numberEntry("deflate", 1),
	}
	var poolProps []zapEntry
	if bootfs != 0 {
		poolProps = append(poolProps, numberEntry("bootfs", bootfs))
	}
	entries = append(entries, numberEntry("pool_props", m.zap(typePoolProperties, poolProps...).number))
	m.fill(root, entries)

	list := make([]byte, roundUp(8*p.slabs, 4096))
	for i, end := range slabs {
		o := m.add(typeSpaceMap, typeSpaceMapHeader)
		data := p.spaceMap(end)
		o.bonus = words(24, map[int]uint64{0: o.number, 1: uint64(len(data)), 2: end})
		o.blocks = memBlocks{p.spaceMapBlock(), data}
		binary.LittleEndian.PutUint64(list[8*i:], o.number)
	}
	array.blocks = memBlocks{4096, list}
	p.metaslabArray = array.number

	packed := p.config(false).packed()
	config.bonus = words(8, map[int]uint64{0: uint64(len(packed))})
	config.blocks = memBlocks{16 << 10, packed}
	return m, m.err
}

// spaceMap returns the entries that say that a metaslab is taken up to end (space_map.h, the form
// of one word): runs of up to 2^15 units.
func (p *Pool) spaceMap(end uint64) []byte {
	var b []byte
	const most = 1 << 15
	units := end >> p.opt.Ashift
	for from := uint64(0); from < units; from += most {
		b = binary.LittleEndian.AppendUint64(b, from<<16|(min(most, units-from)-1))
	}
	return b
}

// spaceMapBlock returns the size of the block that holds the largest of these.
func (p *Pool) spaceMapBlock() int {
	return max(4096, 8<<max(0, p.slabShift-p.opt.Ashift-15))
}
