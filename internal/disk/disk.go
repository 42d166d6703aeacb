package disk

import (
	"crypto"
	"crypto/x509"
	"io"
	"io/fs"
	"time"
)

// An Object is one entry of a root file system.
type Object struct {
	Path     string      // slash-separated, relative to the root, clean; "." is the root
	Mode     fs.FileMode // type, permission, setuid, setgid and sticky bits
	UID, GID int
	ModTime  time.Time
	Size     int64 // bytes of a regular file's content, holes included; else 0
	Rdev     Device
	Target   string // of a symbolic link
	Link     string // the first name of the same object, if Path is a further one: then nothing else counts
	Xattrs   map[string][]byte

	// Digest identifies the content of a regular file. The ids of disks, partitions and file systems
	// derive from it; that it is the content's is the caller's word.
	Digest [32]byte
	// Open gives the content of a regular file; it may be nil if Size is 0. It is called several times.
	Open func() (Content, error)
}

// Content is what a regular file holds.
type Content interface {
	io.ReaderAt
	io.Closer
	// Extents returns the ranges that may hold data, ascending and disjoint; all else is zeros.
	Extents() []Extent
}

// An Extent is a range of a file or a disk, in bytes.
type Extent struct{ Offset, Length int64 }

// A Device is the number of a character or block device.
type Device struct{ Major, Minor uint32 }

// A Hardware names a device of the machine that the guest must have a driver of.
type Hardware string

// The devices. Disks need one of the first nine.
const (
	AHCI       Hardware = "ahci"
	IDE        Hardware = "ide"
	LSILogic   Hardware = "lsilogic" // parallel SCSI
	LSISAS     Hardware = "lsisas"
	PVSCSI     Hardware = "pvscsi"
	NVMe       Hardware = "nvme"
	VirtioBlk  Hardware = "virtio-blk"
	VirtioSCSI Hardware = "virtio-scsi"
	HyperV     Hardware = "hyperv"
	E1000      Hardware = "e1000"
	E1000E     Hardware = "e1000e"
	VMXNet3    Hardware = "vmxnet3"
	VirtioNet  Hardware = "virtio-net"
)

// A Writable says what stands at a directory that the root has read-only.
type Writable string

// What can be written of a directory, and where to. The changes are gone after a restart.
const (
	ReadOnly  Writable = ""        // nothing
	Tmpfs     Writable = "tmpfs"   // an empty file system in memory
	Overlay   Writable = "overlay" // the root's, changes in memory
	OnScratch Writable = "scratch" // the root's, changes on the encrypted scratch
)

// A Corruption says what the guest does when a block of the root is not what it was.
type Corruption string

// What the guest does.
const (
	Fail    Corruption = ""        // the read fails with EIO
	Restart Corruption = "restart" // restarts at once
	Panic   Corruption = "panic"   // panics, and then restarts after ten seconds
)

// Options are how a guest is made. The zero value of each is usable but for Arch and Hardware.
type Options struct {
	Arch     string     // amd64 or arm64
	Hardware []Hardware // what the machine may have: disk controllers, one at least, and network cards

	Size    int64 // bytes of the system disk, whole MiB; 0 is as large as needed
	Swap    int64 // bytes, whole MiB; 0 is none
	Scratch int64 // bytes, whole MiB, 64 at least; 0 is none. It is at /scratch
	Data    int64 // bytes, whole MiB, 64 at least, of what outlives restarts; 0 is none. Not encrypted
	// DataPath is where Data is mounted, by default /data.
	DataPath string
	// SecondDisk puts swap, scratch and data on a disk of their own, so that the system disk, ESP
	// included, can be read-only in the hypervisor.
	SecondDisk bool

	Var, Etc   Writable   // /var and /etc; /run and /tmp are always in memory
	Corruption Corruption // what happens when a block of the root is not what it was

	Cmdline string // of the kernel, behind what is needed
	Serial  bool   // the console is the first serial port too
	Init    string // the first program, by default /sbin/init

	// Stub is the boot stub of systemd (linuxx64.efi.stub) for roots that have none.
	Stub []byte
	// Key and Certificate sign the unified kernel image for Secure Boot: RSA, or none.
	Key         crypto.Signer
	Certificate *x509.Certificate

	// Progress is told how many bytes of the root are hashed, by several goroutines at once; may be nil.
	Progress func(done, total int64)
}

// A Guest is what Build made.
type Guest struct {
	System *Disk
	Second *Disk // nil without Options.SecondDisk

	RootHash [32]byte // of dm-verity; the ids derive from it
	Salt     [32]byte
	Kernel   string   // its release, such as 6.1.0-50-amd64
	Cmdline  string   // all of it
	Modules  []string // in the initrd, in the order of loading, by path in the root
	UKI      []byte   // the unified kernel image, signed if a key was given
	// Init is the SHA-256 of the embedded first program, InitToolchain the Go release it was built by:
	// bytes of the disk depend on them.
	Init          [32]byte
	InitToolchain string
	Partitions    []Partition // of the system disk

	// Golden is what a host compares the system disk with before it starts it.
	Golden Golden
}

// A Partition is one of a disk.
type Partition struct {
	Name   string // as in the partition table
	Offset int64  // bytes
	Length int64  // bytes, whole MiB
	GUID   string // upper-case text
}

// A Disk is the content of a disk. It reads the root's files when it is read, by any number of
// goroutines at once.
type Disk struct {
	Size    int64    // bytes, whole MiB
	Extents []Extent // what may hold data, ascending and disjoint; all else is zeros
	ID      [16]byte // derived from the content
	io.ReaderAt
}

// A Problem is a reason why no disk can be made of a root.
type Problem struct {
	What string // what is missing or wrong, and where
	Hint string // what helps, or empty
}

func (p *Problem) Error() string {
	if p.Hint == "" {
		return p.What
	}
	return p.What + ": " + p.Hint
}
