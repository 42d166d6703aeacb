package ovf

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
)

// A Format is a way to keep a disk in a file.
type Format string

// The formats that are read. FormatOVA is an appliance of one disk from any tool: an archive, or a
// descriptor beside its disk.
const (
	FormatRaw   Format = "raw"
	FormatQCOW2 Format = "qcow2"
	FormatVMDK  Format = "vmdk"
	FormatVDI   Format = "vdi"
	FormatVHD   Format = "vhd"
	FormatOVA   Format = "ova"
)

// An Image is a disk in a file of some format, opened for reading.
type Image struct {
	Source
	Format Format // what the file is

	closers []io.Closer
}

// Close closes the file.
func (i *Image) Close() error {
	var errs []error
	for _, c := range i.closers {
		errs = append(errs, c.Close())
	}
	return errors.Join(errs...)
}

// OpenImage opens the disk in a file. Its format is told by its content, or demanded if want is not
// empty: a disk whose guest could write to its first sector can look like any format, which does no
// harm here but gives another disk; who goes by what is on it must demand the format. The file may be a
// device, such as a logical volume. Only the file itself is read, and for an appliance the files of
// its package, whose manifest and certificate must be right: images that rest on others (backing
// files, snapshots, extents, external data) are refused. So is what is damaged, as far as the
// tables of the format tell.
func OpenImage(ctx context.Context, name string, want Format) (*Image, error) {
	i, err := openImage(ctx, name, want)
	if err != nil {
		return nil, fmt.Errorf("disk image %q: %w", name, err)
	}
	return i, nil
}

func openImage(ctx context.Context, name string, want Format) (*Image, error) {
	f, err := openFile(name)
	if err != nil {
		return nil, err
	}
	i, err := imageOf(ctx, f, name, want)
	if err != nil {
		f.Close()
		return nil, err
	}
	i.closers = append(i.closers, f)
	return i, nil
}

// openFile opens a file or a device. To open a named pipe would wait for who writes to it.
func openFile(name string) (*os.File, error) {
	st, err := os.Stat(name)
	if err != nil {
		return nil, err
	}
	if !st.Mode().IsRegular() && st.Mode()&fs.ModeDevice == 0 {
		return nil, fmt.Errorf("not a file")
	}
	return os.Open(name)
}

func imageOf(ctx context.Context, f *os.File, name string, want Format) (*Image, error) {
	st, err := f.Stat()
	if err != nil {
		return nil, err
	}
	size := st.Size()
	if st.Mode()&fs.ModeDevice != 0 {
		if size, err = f.Seek(0, io.SeekEnd); err != nil || size == 0 {
			return nil, fmt.Errorf("a device without a size")
		}
	} else if !st.Mode().IsRegular() {
		return nil, fmt.Errorf("not a file")
	}
	format, err := probe(f, size)
	if err != nil && want == "" {
		return nil, err
	}
	switch {
	case want == "":
	case want != format && want != FormatRaw:
		return nil, fmt.Errorf("it is not %s", want)
	default:
		format = want
	}
	i := &Image{Format: format}
	switch format {
	case FormatRaw:
		extents := []Extent{{0, size}}
		if st.Mode().IsRegular() {
			if extents, err = FileExtents(f); err != nil {
				return nil, err
			}
		}
		i.Source = Source{f, size, nil}
		var list extentList
		for _, e := range extents {
			list.add(e)
		}
		i.Extents = list.extents()
	case FormatOVA:
		return i, i.appliance(ctx, name)
	default:
		i.Source, err = sourceOf(ctx, format, f, size)
	}
	if err == nil && (i.Size <= 0 || i.Size > MaxCapacity) {
		err = fmt.Errorf("disk of %d bytes: not between 1 and %d", i.Size, int64(MaxCapacity))
	}
	return i, err
}

// sourceOf opens a disk in a container.
func sourceOf(ctx context.Context, format Format, r io.ReaderAt, size int64) (Source, error) {
	switch format {
	case FormatQCOW2:
		return openQCOW2(ctx, r, size)
	case FormatVDI:
		return openVDI(ctx, r, size)
	case FormatVHD:
		return openVHD(ctx, r, size)
	}
	v, err := newReader(r, size)
	if err != nil {
		return Source{}, err
	}
	if err := v.described(); err != nil {
		return Source{}, err
	}
	if _, err := v.check(ctx, false); err != nil {
		return Source{}, err
	}
	var list extentList
	for e, err := range v.Extents() {
		if err != nil {
			return Source{}, err
		}
		list.add(e)
	}
	return Source{v, v.Capacity, list.extents()}, nil
}

// otherFormats are those which are known only so as not to take them for a raw disk.
var otherFormats = []struct{ magic, name string }{
	{"vhdxfile", "VHDX"},
	{"QED\x00", "QED"},
	{"WithoutFreeSpace", "a disk of Parallels"},
	{"WithouFreSpacExt", "a disk of Parallels"},
	{"LUKS\xba\xbe", "what is encrypted with LUKS"},
}

// probe tells the format of a file by its first bytes.
func probe(r io.ReaderAt, size int64) (Format, error) {
	b := make([]byte, 512)
	n, err := r.ReadAt(b, 0)
	if err != nil && err != io.EOF {
		return "", err
	}
	b = b[:n]
	if n == 0 {
		return "", fmt.Errorf("the file is empty")
	}
	has := func(at int, magic string) bool {
		return len(b) >= at+len(magic) && string(b[at:at+len(magic)]) == magic
	}
	switch {
	case has(0, qcow2Magic):
		return FormatQCOW2, nil
	case has(0, "KDMV"), has(0, "COWD"), has(0, "# Disk DescriptorFile"):
		return FormatVMDK, nil
	case has(0x40, vdiMagic):
		return FormatVDI, nil
	case has(257, "ustar"):
		return FormatOVA, nil
	case bytes.HasPrefix(bytes.TrimLeft(bytes.TrimPrefix(b, []byte("\ufeff")), " \t\r\n"), []byte("<")):
		return FormatOVA, nil
	case has(0, vhdMagic), fixedVHD(r, size):
		return FormatVHD, nil
	case has(0, "\x1f\x8b"), has(0, "\x28\xb5\x2f\xfd"), has(0, "\xfd7zXZ\x00"), has(0, "BZh"), has(0, "PK\x03\x04"):
		return "", fmt.Errorf("the file is compressed: unpack it")
	}
	for _, other := range otherFormats {
		if has(0, other.magic) {
			return "", fmt.Errorf("%s is not read: convert it to qcow2 or raw, or demand the format raw to take it as it is", other.name)
		}
	}
	return FormatRaw, nil
}

// appliance opens the disk of a package.
func (i *Image) appliance(ctx context.Context, name string) error {
	report, err := Check(ctx, name)
	if err != nil {
		return err
	}
	for _, f := range report.Findings {
		if f.Damage {
			return fmt.Errorf("the appliance is damaged: %s", f)
		}
	}
	p, err := openContents(name)
	if err != nil {
		return err
	}
	i.closers = append(i.closers, closer(p.close))
	if err := i.diskOf(ctx, p, report); err != nil {
		return errors.Join(err, i.Close())
	}
	return nil
}

type closer func()

func (c closer) Close() error { c(); return nil }

func (i *Image) diskOf(ctx context.Context, p *contents, r *Report) error {
	e := r.Envelope
	if e == nil {
		return fmt.Errorf("its descriptor cannot be read")
	}
	if len(e.Disks) != 1 {
		return fmt.Errorf("the appliance has %d disks: unpack it and name one", len(e.Disks))
	}
	f := e.file(e.Disks[0].FileRef)
	switch {
	case f == nil:
		return fmt.Errorf("the appliance's disk is in no file")
	case f.Compression != "" && f.Compression != "identity":
		return fmt.Errorf("its disk is compressed with %q besides: unpack it", f.Compression)
	case !p.has(f.Href):
		return fmt.Errorf("its disk %q is not in the package", f.Href)
	}
	// That nothing contradicts the manifest is not enough: it must speak of what is used.
	for _, name := range []string{p.descriptor, f.Href} {
		if r.sealed && !r.verified[name] {
			return fmt.Errorf("its manifest has no digest of %q that can be verified", name)
		}
	}
	m, err := p.open(f.Href)
	if err != nil {
		return err
	}
	format, err := probe(m.Content, m.Size)
	if err != nil {
		return fmt.Errorf("its disk %q: %w", f.Href, err)
	}
	if format == FormatOVA || format == FormatRaw {
		return fmt.Errorf("its disk %q is neither VMDK, VDI, VHD nor qcow2", f.Href)
	}
	i.Source, err = sourceOf(ctx, format, m.Content, m.Size)
	if err != nil {
		return fmt.Errorf("its disk %q: %w", f.Href, err)
	}
	return nil
}

// An extentList collects extents in ascending order. Small gaps are not worth one: to read them
// costs little, and a list as long as a fragmented disk is bounded by it.
type extentList []Extent

const smallGap = 1 << 20

func (l *extentList) add(e Extent) {
	if n := len(*l); n > 0 {
		if last := &(*l)[n-1]; e.Offset-(last.Offset+last.Length) < smallGap {
			last.Length = e.Offset + e.Length - last.Offset
			return
		}
	}
	*l = append(*l, e)
}

// extents returns the list, which is not nil: that would stand for the whole disk.
func (l extentList) extents() []Extent {
	if l == nil {
		return []Extent{}
	}
	return l
}

// Fields of headers in network order.
func be32(b []byte) uint32 { return binary.BigEndian.Uint32(b) }
func be64(b []byte) uint64 { return binary.BigEndian.Uint64(b) }
