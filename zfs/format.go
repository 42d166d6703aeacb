package zfs

// Record types (dmu_replay_record, drr_type).
const (
	RecordBegin RecordType = iota
	RecordObject
	RecordFreeObjects
	RecordWrite
	RecordFree
	RecordEnd
	RecordWriteByRef
	RecordSpill
	RecordWriteEmbedded
	RecordObjectRange
	RecordRedact
)

// A RecordType is what a record tells the receiver to do.
type RecordType uint32

var recordNames = [...]string{
	"BEGIN", "OBJECT", "FREEOBJECTS", "WRITE", "FREE", "END", "WRITE_BYREF", "SPILL",
	"WRITE_EMBEDDED", "OBJECT_RANGE", "REDACT",
}

func (t RecordType) String() string {
	if int(t) < len(recordNames) {
		return recordNames[t]
	}
	return "record type " + itoa(uint64(t))
}

// The header of a record; all of them are as long.
const (
	headerSize = 312
	sumOffset  = 280 // of the running checksum, in every record but BEGIN
	beginMagic = 0x2F5BACBAC
	noLength   = ^uint64(0) // FREE: to the end of the object
)

// Stream features (DMU_BACKUP_FEATURE_*), of BEGIN's versioninfo shifted right by two.
const (
	featureDedup         = 1 << 0
	featureDedupProps    = 1 << 1
	featureSASpill       = 1 << 2
	featureEmbedData     = 1 << 16
	featureLZ4           = 1 << 17
	featureLargeBlocks   = 1 << 19
	featureResuming      = 1 << 20
	featureRedacted      = 1 << 21
	featureCompressed    = 1 << 22
	featureLargeDnode    = 1 << 23
	featureRaw           = 1 << 24
	featureZstd          = 1 << 25
	featureHolds         = 1 << 26
	featureSwitchLarge   = 1 << 27
	featureLongName      = 1 << 28
	featureLargeMicroZAP = 1 << 29

	headerSubstream = 1
	headerCompound  = 2
)

var features = []struct {
	bit  uint64
	name string
}{
	{featureDedup, "dedup"},
	{featureDedupProps, "dedupprops"},
	{featureSASpill, "sa_spill"},
	{featureEmbedData, "embed_data"},
	{featureLZ4, "lz4"},
	{featureLargeBlocks, "large_blocks"},
	{featureResuming, "resuming"},
	{featureRedacted, "redacted"},
	{featureCompressed, "compressed"},
	{featureLargeDnode, "large_dnode"},
	{featureRaw, "raw"},
	{featureZstd, "zstd"},
	{featureHolds, "holds"},
	{featureSwitchLarge, "switch_to_large_blocks"},
	{featureLongName, "longname"},
	{featureLargeMicroZAP, "large_microzap"},
}

// Flags of BEGIN (DRR_FLAG_*).
const (
	flagClone       = 1 << 0
	flagCIData      = 1 << 1
	flagFreeRecords = 1 << 2
	flagSpillBlock  = 1 << 3
)

// objectSpill is a flag of OBJECT (DRR_OBJECT_SPILL), spillUnmodified one of SPILL.
const (
	objectSpill     = 1 << 2
	spillUnmodified = 1 << 2
)

// objsetZFS is the type of an object set that holds a file system (DMU_OST_ZFS).
const objsetZFS = 2

// Object types (dmu_object_type_t).
const (
	typeNone       = 0
	typeZnode      = 17 // of a bonus
	typeFile       = 19
	typeDirectory  = 20
	typeMaster     = 21
	typeUnlinked   = 22
	typeSA         = 44 // of a bonus
	typeSAMaster   = 45
	typeSARegistry = 46
	typeSALayouts  = 47
)

var typeNames = map[uint32]string{
	typeNone: "none", typeZnode: "znode", typeFile: "file", typeDirectory: "directory",
	typeMaster: "master node", typeUnlinked: "unlinked set", 33: "acl", 34: "sysacl",
	35: "fuid table", 36: "fuid table size", typeSA: "system attributes", typeSAMaster: "sa master node",
	typeSARegistry: "sa registry", typeSALayouts: "sa layouts",
}

func typeName(t uint32) string {
	if s, ok := typeNames[t]; ok {
		return s
	}
	return "type " + itoa(uint64(t))
}

// Compression of a block (enum zio_compress).
const (
	compressOff   = 2
	compressLZJB  = 3
	compressEmpty = 4
	compressGzip1 = 5
	compressGzip9 = 13
	compressZLE   = 14
	compressLZ4   = 15
	compressZstd  = 16
)

// Sizes of blocks and of what a dnode of 512 bytes holds beside its one block pointer.
const (
	minBlock      = 512
	recordSize    = 128 << 10 // largest without the feature large_blocks
	maxBlock      = 16 << 20
	maxBonus      = 320 // of a dnode in one slot
	maxBonusSpill = 192 // the same when a spill block pointer takes the end of it
	dnodesInBlock = 32  // objects whose dnodes share a block
	maxObject     = 1 << 48
)

// Objects with a fixed number. Zfs-fuse takes 3 for the root directory whatever the master node
// says.
const (
	objMaster     = 1
	objUnlinked   = 2
	objRoot       = 3
	objSAMaster   = 4
	objSARegistry = 5
	objSALayouts  = 6
	objFirst      = 7
)

// Flags of a znode (z_pflags, sys/zfs_znode.h).
const (
	pflagXattr      = 0x1
	pflagTrivialACL = 0x4
	pflagNoExecDeny = 0x100
	pflagArchive    = 0x8 << 32
	pflagAVModified = 0x400 << 32
)

// The file types of st_mode (sys/stat.h), the same on every host.
const (
	modeFIFO    = 0o010000
	modeChar    = 0o020000
	modeDir     = 0o040000
	modeBlock   = 0o060000
	modeRegular = 0o100000
	modeSymlink = 0o120000
	modeSocket  = 0o140000
	modeType    = 0o170000
)
