package ovf

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// A spoolBuffer is a spool in memory.
type spoolBuffer struct{ bytes.Buffer }

func (s *spoolBuffer) ReadAt(p []byte, off int64) (int, error) {
	return bytes.NewReader(s.Bytes()).ReadAt(p, off)
}

func writeQCOW2(t testing.TB, disk []byte, opt WriteOptions) []byte {
	t.Helper()
	q, err := PackQCOW2(t.Context(), new(spoolBuffer), Source{Content: bytes.NewReader(disk), Size: int64(len(disk))}, opt)
	if err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	if n, err := q.WriteTo(&out); err != nil || n != q.Size || n != int64(out.Len()) {
		t.Fatalf("%d bytes of %d: %v", n, q.Size, err)
	}
	return out.Bytes()
}

// mixedDisk has holes, text, and noise that cannot be compressed, in turns.
func mixedDisk(size int64) []byte {
	disk := testDisk(size)
	noise := deflateSamples()["noise"]
	for off := int64(5 * GrainSize); off+GrainSize <= size; off += 11 * GrainSize {
		copy(disk[off:], noise)
	}
	return disk
}

func readSource(t testing.TB, s Source) []byte {
	t.Helper()
	var out bytes.Buffer
	if err := WriteRaw(t.Context(), &out, s, s.Size); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

func TestQCOW2(t *testing.T) {
	for _, size := range []int64{512, GrainSize, GrainSize + 512, 5 << 20, 600 << 20} {
		disk := make([]byte, size)
		copy(disk, mixedDisk(min(size, 20<<20)))
		copy(disk[size-512:], "the last sector")
		data := writeQCOW2(t, disk, WriteOptions{})
		for _, level := range []WriteOptions{{Workers: 1}, {Workers: 7}} {
			if size < 10<<20 && !bytes.Equal(data, writeQCOW2(t, disk, level)) {
				t.Errorf("%d bytes, %d workers: other bytes", size, level.Workers)
			}
		}
		src, err := openQCOW2(t.Context(), bytes.NewReader(data), int64(len(data)))
		if err != nil {
			t.Fatal(err)
		}
		if src.Size != size || !bytes.Equal(readSource(t, src), disk) {
			t.Errorf("%d bytes: another content", size)
		}
	}
}

// saveImage writes a file of a test.
func saveImage(t testing.TB, data []byte) string {
	t.Helper()
	name := filepath.Join(t.TempDir(), "image")
	save(t, name, data)
	return name
}

// testVDI returns a dynamic VDI of blocks of 64 KiB, of which the second is stored first.
func testVDI(disk []byte) []byte {
	const block = 64 << 10
	n := (len(disk) + block - 1) / block
	b := make([]byte, 4096+n*block)
	put := func(at int, v uint32) { binary.LittleEndian.PutUint32(b[at:], v) }
	copy(b, "<<< a disk image of a test >>>\n")
	copy(b[0x40:], vdiMagic)
	put(0x44, vdiVersion)
	put(0x48, 0x190)
	put(0x4c, vdiDynamic)
	put(0x154, 512)
	put(0x158, 4096)
	binary.LittleEndian.PutUint64(b[0x170:], uint64(len(disk)))
	put(0x178, block)
	put(0x180, uint32(n))
	for i := range n {
		put(512+4*i, uint32(n-1-i))
		copy(b[4096+(n-1-i)*block:], disk[i*block:min((i+1)*block, len(disk))])
	}
	return b
}

// testVHD makes a dynamic disk with its blocks in reverse order, but for the first, which is zero.
func testVHD(disk []byte) []byte {
	const block = 64 << 10
	n := (len(disk) + block - 1) / block
	big := binary.BigEndian
	foot := vhd(int64(len(disk)), [16]byte{1}, time.Time{})
	big.PutUint64(foot[16:], 512)
	big.PutUint32(foot[60:], vhdDynamic)
	big.PutUint32(foot[64:], 0)
	var sum uint32
	for _, c := range foot {
		sum += uint32(c)
	}
	big.PutUint32(foot[64:], ^sum)
	head := make([]byte, vhdHeader)
	copy(head, vhdSparse)
	big.PutUint64(head[16:], 1536)
	big.PutUint32(head[28:], uint32(n))
	big.PutUint32(head[32:], block)
	b := append(bytes.Clone(foot), head...)
	data := (1536 + 4*n + 511) / 512
	for i := range n {
		if i == 0 {
			b = big.AppendUint32(b, vhdFree)
			continue
		}
		b = big.AppendUint32(b, uint32(data+(n-1-i)*(block/512+1)))
	}
	b = append(b, make([]byte, data*512-len(b))...)
	for i := n - 1; i > 0; i-- {
		b = append(b, bytes.Repeat([]byte{0xff}, 512)...)
		part := disk[i*block : min((i+1)*block, len(disk))]
		b = append(append(b, part...), make([]byte, block-len(part))...)
	}
	return append(b, foot...)
}

func TestOpenImage(t *testing.T) {
	disk := mixedDisk(3<<20 + 512)
	clear(disk[:64<<10])
	var fixed bytes.Buffer
	if err := WriteVHD(t.Context(), &fixed, Source{Content: bytes.NewReader(disk), Size: int64(len(disk))}, [16]byte{1}, time.Time{}); err != nil {
		t.Fatal(err)
	}
	t.Run("fixed VHD", func(t *testing.T) {
		i, err := OpenImage(t.Context(), saveImage(t, fixed.Bytes()), "")
		if err != nil {
			t.Fatal(err)
		}
		defer i.Close()
		if got := readSource(t, i.Source); i.Format != FormatVHD || i.Size != 4<<20 || !bytes.Equal(got[:len(disk)], disk) {
			t.Errorf("read as %s of %d bytes", i.Format, i.Size)
		}
	})
	vmdk, _ := writeTest(t, Source{Content: bytes.NewReader(disk), Size: int64(len(disk))}, WriteOptions{})
	for format, data := range map[Format][]byte{
		FormatRaw: disk, FormatQCOW2: writeQCOW2(t, disk, WriteOptions{}), FormatVMDK: vmdk, FormatVDI: testVDI(disk),
		FormatVHD: testVHD(disk),
	} {
		name := saveImage(t, data)
		for _, want := range []Format{"", format} {
			i, err := OpenImage(t.Context(), name, want)
			if err != nil {
				t.Errorf("%s: %v", format, err)
				continue
			}
			if got := readSource(t, i.Source); i.Format != format || !bytes.Equal(got[:len(disk)], disk) {
				t.Errorf("%s: read as %s, another content", format, i.Format)
			}
			if err := i.Close(); err != nil {
				t.Error(err)
			}
		}
		if i, err := OpenImage(t.Context(), name, FormatRaw); err != nil {
			t.Errorf("%s, taken as it is: %v", format, err)
		} else {
			if got := readSource(t, i.Source); !bytes.Equal(got, data) {
				t.Errorf("%s, taken as it is: another content", format)
			}
			i.Close()
		}
		if format != FormatVDI {
			if _, err := OpenImage(t.Context(), name, FormatVDI); err == nil || !strings.Contains(err.Error(), "it is not vdi") {
				t.Errorf("%s opened as VDI: %v", format, err)
			}
		}
	}
}

func TestOpenImageAppliance(t *testing.T) {
	a := testAppliance(t, Universal)
	opt := Options{ModTime: time.Unix(1e9, 0)}
	if _, err := OpenImage(t.Context(), saveImage(t, writeOVA(t, a, opt)), ""); err == nil || !strings.Contains(err.Error(), "has 2 disks") {
		t.Errorf("an appliance of two disks: %v", err)
	}
	one := *a
	one.Disks = one.Disks[:1]
	data := writeOVA(t, &one, opt)
	i, err := OpenImage(t.Context(), saveImage(t, data), "")
	if err != nil {
		t.Fatal(err)
	}
	defer i.Close()
	r, err := NewReader(one.Disks[0].Content, one.Disks[0].Size)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(readSource(t, i.Source), readSource(t, Source{Content: r, Size: r.Capacity})) || i.Format != FormatOVA {
		t.Error("another disk")
	}
	// A manifest that cannot be verified counts as a wrong one.
	const mf, disk = "web-1.4.0.mf", "web-1.4.0-disk1.vmdk"
	for name, c := range map[string]struct {
		change func(names []string, files map[string][]byte) []string
		want   string
	}{
		"none": {func(n []string, _ map[string][]byte) []string { return slices.Delete(n, 1, 2) }, ""},
		"in other case": {func(n []string, f map[string][]byte) []string {
			n[1], f["WEB-1.4.0.MF"] = "WEB-1.4.0.MF", f[mf]
			return n
		}, ""},
		"of another name": {func(n []string, f map[string][]byte) []string {
			n[1], f["other.mf"] = "other.mf", bytes.Replace(f[mf], []byte("= "), []byte("= 00"), 1)
			return n
		}, "the file was changed"},
		"a line of no sense": {func(n []string, f map[string][]byte) []string { f[mf] = append(f[mf], "junk"...); return n }, "is not ALGORITHM"},
		"unknown algorithm": {func(n []string, f map[string][]byte) []string {
			f[mf] = bytes.ReplaceAll(f[mf], []byte("SHA256"), []byte("SHA3"))
			return n
		}, `no digest of "web-1.4.0.ovf"`},
		"without the disk": {func(n []string, f map[string][]byte) []string {
			f[mf] = bytes.Replace(f[mf], []byte("("+disk), []byte("(other"), 1)
			return n
		}, `no digest of "` + disk},
		"second digest": {func(n []string, f map[string][]byte) []string {
			f[mf] = append(f[mf], "SHA1("+disk+")= 00"...)
			return n
		}, "the file was changed"},
		"certificate without":       {func(n []string, f map[string][]byte) []string { n[1], f["web.cert"] = "web.cert", nil; return n }, "without a manifest"},
		"disk twice in the archive": {func(n []string, _ map[string][]byte) []string { return append(slices.Delete(n, 1, 2), disk) }, "twice in the archive"},
	} {
		names, files := unpack(t, data)
		i, err := OpenImage(t.Context(), saveImage(t, pack(t, c.change(names, files), files)), "")
		if err == nil {
			i.Close()
		}
		if c.want == "" && err != nil || c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
			t.Errorf("manifest %s: %v, want %q", name, err, c.want)
		}
	}
	at := bytes.Index(data, []byte("KDMV")) + overheadSector*sectorSize + 100
	data[at] ^= 1
	if _, err := OpenImage(t.Context(), saveImage(t, data), ""); err == nil || !strings.Contains(err.Error(), "damaged") {
		t.Errorf("a flipped bit: %v", err)
	}
}

func TestImageRefusals(t *testing.T) {
	disk := mixedDisk(3 << 20)
	q := writeQCOW2(t, disk, WriteOptions{})
	v := testVDI(disk)
	vmdk, _ := writeTest(t, Source{Content: bytes.NewReader(disk), Size: int64(len(disk))}, WriteOptions{})
	edit := func(b []byte, f func(b []byte)) []byte {
		b = bytes.Clone(b)
		f(b)
		return b
	}
	big := binary.BigEndian
	le := binary.LittleEndian
	l1 := big.Uint64(q[40:])
	dynamic := testVHD(disk)
	resum := func(b []byte, f func(b []byte)) []byte {
		return edit(b, func(b []byte) {
			f(b)
			var sum uint32
			for _, c := range append(bytes.Clone(b[:64]), b[68:512]...) {
				sum += uint32(c)
			}
			big.PutUint32(b[64:], ^sum)
		})
	}
	for _, c := range []struct {
		name string
		data []byte
		want string
	}{
		{"empty", nil, "is empty"},
		{"gzip", []byte("\x1f\x8b and so on"), "compressed"},
		{"VHD: short", []byte("conectix and so on"), "footer"},
		{"VHD: bad sum", edit(dynamic, func(b []byte) { b[70]++ }), "damaged"},
		{"VHD: difference", resum(dynamic, func(b []byte) { b[63] = 4 }), "another file"},
		{"VHD: fixed with a copy", resum(dynamic, func(b []byte) { b[63] = 2 }), "type 2"},
		{"VHD: capacity", resum(dynamic, func(b []byte) { b[48] = 1 }), "not whole sectors"},
		{"VHD: header beyond the file", resum(dynamic, func(b []byte) { b[18] = 1 }), "beyond the end"},
		{"VHD: no header", edit(dynamic, func(b []byte) { b[512] = 0 }), "is none"},
		{"VHD: blocks", edit(dynamic, func(b []byte) { b[512+35] = 1 }), "power of two"},
		{"VHD: too few", edit(dynamic, func(b []byte) { b[512+31] = 3 }), "3 blocks"},
		{"VHD: table beyond the file", edit(dynamic, func(b []byte) { b[512+16] = 1 }), "beyond the end"},
		{"VHD: block beyond the file", edit(dynamic, func(b []byte) { big.PutUint32(b[1540:], 1<<30) }), "beyond the end"},
		{"VHD: overlap", edit(dynamic, func(b []byte) { copy(b[1540:1544], b[1544:]) }), "overlap"},
		{"VHD: cut", dynamic[:len(dynamic)-70000], "beyond the end"},
		{"VHDX", []byte("vhdxfile and so on"), "VHDX"},
		{"QED", []byte("QED\x00 and so on"), "QED is not read"},
		{"Parallels", []byte("WithoutFreeSpace and so on"), "Parallels"},
		{"Parallels, extended", []byte("WithouFreSpacExt and so on"), "Parallels"},
		{"LUKS", []byte("LUKS\xba\xbe and so on"), "LUKS is not read: convert it to qcow2 or raw, or demand the format raw"},
		{"ZIP", []byte("PK\x03\x04 and so on"), "compressed"},
		{"descriptor alone", []byte("# Disk DescriptorFile\n" + strings.Repeat("\n", 600)), "only monolithic"},
		{"qcow2: cut in the header", q[:50], "header"},
		{"qcow2: cut", q[:len(q)-2*GrainSize], "beyond the end"},
		{"qcow2: cut before its tables", q[:l1+4], "first level"},
		{"qcow2: version", edit(q, func(b []byte) { b[7] = 4 }), "version 4"},
		{"qcow2: backing file", edit(q, func(b []byte) { b[15] = 104 }), "backing file"},
		{"qcow2: encrypted", edit(q, func(b []byte) { b[35] = 2 }), "encrypted"},
		{"qcow2: corrupt", edit(q, func(b []byte) { b[79] |= qcow2Corrupt }), "corrupt"},
		{"qcow2: external data", edit(q, func(b []byte) { b[79] |= qcow2External }), "another file"},
		{"qcow2: subclusters", edit(q, func(b []byte) { b[79] |= qcow2Extended }), "subclusters"},
		{"qcow2: unknown feature", edit(q, func(b []byte) { b[72] = 1 }), "not known"},
		{"qcow2: cluster of 2^40", edit(q, func(b []byte) { b[23] = 40 }), "2^40"},
		{"qcow2: capacity", edit(q, func(b []byte) { b[24] = 1 }), "not between"},
		{"qcow2: capacity beyond its table", edit(q, func(b []byte) { big.PutUint64(b[24:], 1<<40) }), "first level"},
		{"qcow2: table beyond the file", edit(q, func(b []byte) { big.PutUint64(b[l1:], 1<<50) }), "beyond the end"},
		{"qcow2: table at the end of numbers", edit(q, func(b []byte) { big.PutUint64(b[40:], 1<<63) }), "beyond the end"},
		{"VDI: version", edit(v, func(b []byte) { b[0x44] = 9 }), "version"},
		{"VDI: difference", edit(v, func(b []byte) { b[0x4c] = 4 }), "another file"},
		{"VDI: capacity", edit(v, func(b []byte) { b[0x177] = 1 }), "not between"},
		{"VDI: blocks", edit(v, func(b []byte) { le.PutUint32(b[0x178:], 12345) }), "power of two"},
		{"VDI: too few", edit(v, func(b []byte) { le.PutUint32(b[0x180:], 3) }), "3 blocks"},
		{"VDI: map beyond the file", edit(v, func(b []byte) { le.PutUint32(b[0x154:], 1<<31) }), "beyond the end"},
		{"VDI: block beyond the file", edit(v, func(b []byte) { le.PutUint32(b[512:], 999) }), "beyond the end"},
		{"VDI: overlap", edit(v, func(b []byte) { le.PutUint32(b[512:], 1) }), "same place"},
		{"VDI: cut", v[:len(v)-1000], "beyond the end"},
		{"VMDK: cut", vmdk[:len(vmdk)-512], "footer"},
		{"VMDK: part of a disk", edit(vmdk, func(b []byte) {
			footer := len(b) - 2*sectorSize
			clear(b[28:44])
			clear(b[footer+28 : footer+44])
		}), "several files"},
		{"VMDK: no descriptor's text", edit(vmdk, func(b []byte) { b[sectorSize] = 0 }), "several files"},
		{"VMDK: flat", edit(vmdk, func(b []byte) { copy(b[bytes.Index(b, []byte("SPARSE")):], "FLAT  ") }), "one sparse extent"},
		{"VMDK: two extents", edit(vmdk, func(b []byte) { copy(b[bytes.Index(b, []byte("# The Disk")):], "RW 9 FLAT x") }), "one sparse extent"},
		{"VMDK: another size", edit(vmdk, func(b []byte) { copy(b[bytes.Index(b, []byte("RDONLY 6144 ")):], "RDONLY 6145 ") }), "6145 sectors, its header of 6144"},
		{"VMDK: snapshot", edit(vmdk, func(b []byte) { copy(b[bytes.Index(b, []byte("parentCID=ffffffff")):], "parentCID=12345678") }), "snapshot"},
	} {
		i, err := OpenImage(t.Context(), saveImage(t, c.data), "")
		if err == nil {
			i.Close()
		}
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q", c.name, err, c.want)
		}
	}
	if i, err := OpenImage(t.Context(), saveImage(t, []byte("LUKS\xba\xbe and so on")), FormatRaw); err != nil {
		t.Errorf("LUKS, taken as it is: %v", err)
	} else {
		i.Close()
	}
	if _, err := OpenImage(t.Context(), t.TempDir(), ""); err == nil {
		t.Error("a folder is a disk")
	}
}

func TestWriteContainers(t *testing.T) {
	disk := mixedDisk(3<<20 + 1024)
	src := Source{Content: bytes.NewReader(disk), Size: int64(len(disk))}
	var out bytes.Buffer
	if err := WriteVHD(t.Context(), &out, src, [16]byte{7}, time.Unix(vhdEpoch+5, 0)); err != nil {
		t.Fatal(err)
	}
	b := out.Bytes()
	if len(b) != 4<<20+vhdFooter || !bytes.Equal(b[:len(disk)], disk) || !bytes.Equal(b[len(disk):4<<20], make([]byte, 4<<20-len(disk))) {
		t.Error("VHD: another content")
	}
	foot := b[4<<20:]
	if string(foot[:8]) != "conectix" || binary.BigEndian.Uint64(foot[48:]) != 4<<20 || binary.BigEndian.Uint32(foot[24:]) != 5 || foot[68] != 7 {
		t.Errorf("VHD footer % x", foot)
	}
	if err := WriteRaw(t.Context(), io.Discard, src, src.Size-1); err == nil {
		t.Error("a disk fits into less than itself")
	}
	short := src
	short.Size += 512
	for name, write := range map[string]func() error{
		"raw": func() error { return WriteRaw(t.Context(), io.Discard, short, short.Size) },
		"gcp": func() error { return WriteGCP(t.Context(), io.Discard, short, time.Time{}) },
		"qcow2": func() error {
			_, err := PackQCOW2(t.Context(), new(spoolBuffer), short, WriteOptions{})
			return err
		},
	} {
		if err := write(); err == nil {
			t.Errorf("%s: a source that ends early is written", name)
		}
	}
}

func FuzzImage(f *testing.F) {
	disk := append(bytes.Repeat([]byte("disk"), GrainSize/2), make([]byte, GrainSize)...)
	f.Add(testVDI(disk[:GrainSize+700]))
	f.Add(testVHD(disk[:GrainSize+512]))
	f.Add(append(disk[:512:512], vhd(512, [16]byte{}, time.Time{})...))
	small := writeQCOW2(f, disk, WriteOptions{})
	f.Add(small[:len(small)-GrainSize+2000])
	f.Fuzz(func(t *testing.T, data []byte) {
		for _, open := range []func() (Source, error){
			func() (Source, error) { return openQCOW2(t.Context(), bytes.NewReader(data), int64(len(data))) },
			func() (Source, error) { return openVDI(t.Context(), bytes.NewReader(data), int64(len(data))) },
			func() (Source, error) { return openVHD(t.Context(), bytes.NewReader(data), int64(len(data))) },
		} {
			src, err := open()
			if err != nil {
				continue
			}
			if src.Size <= 0 || src.Size > MaxCapacity {
				t.Errorf("a disk of %d bytes", src.Size)
			}
			if _, err := normalize(src.Extents, src.Size); err != nil {
				t.Error(err)
			}
			p := make([]byte, 4096)
			for _, e := range src.Extents[:min(len(src.Extents), 4)] {
				src.Content.ReadAt(p, e.Offset)
			}
		}
	})
}

func TestRealImages(t *testing.T) {
	real(t, "qemu-img")
	dir := t.TempDir()
	for _, size := range []int64{GrainSize, 21<<20 + 512, 700 << 20} {
		disk := make([]byte, size)
		copy(disk, mixedDisk(min(size, 30<<20)))
		copy(disk[size-512:], "the last sector")
		save(t, filepath.Join(dir, "disk.raw"), disk)
		src := Source{Content: bytes.NewReader(disk), Size: size}
		// What we write.
		save(t, filepath.Join(dir, "ours.qcow2"), writeQCOW2(t, disk, WriteOptions{Level: Fast}))
		if out := mustRun(t, dir, "qemu-img", "check", "-f", "qcow2", "ours.qcow2"); !strings.Contains(out, "No errors were found") {
			t.Errorf("qemu-img check: %s", out)
		}
		mustRun(t, dir, "qemu-img", "compare", "-f", "qcow2", "-F", "raw", "ours.qcow2", "disk.raw")
		var vhd bytes.Buffer
		if err := WriteVHD(t.Context(), &vhd, src, [16]byte{1}, time.Unix(1e9, 0)); err != nil {
			t.Fatal(err)
		}
		save(t, filepath.Join(dir, "ours.vhd"), vhd.Bytes())
		if out := mustRun(t, dir, "qemu-img", "info", "--output=json", "-f", "vpc", "ours.vhd"); !strings.Contains(out, jsonSize(VHDSize(size))) {
			t.Errorf("size %d: qemu-img info: %s", size, out)
		}
		mustRun(t, dir, "qemu-img", "compare", "-f", "vpc", "-F", "raw", "ours.vhd", "disk.raw")
		// What qemu-img writes.
		if size > 100<<20 {
			continue
		}
		for _, o := range []string{
			"qcow2 compat=1.1", "qcow2 compat=0.10", "qcow2 cluster_size=512", "qcow2 cluster_size=2M", "-c qcow2 compat=1.1",
			"-c qcow2 compression_type=zstd", "-c qcow2 cluster_size=4096", "vdi static=off", "vdi static=on",
			"vmdk subformat=monolithicSparse", "vmdk subformat=streamOptimized", "vpc subformat=dynamic", "vpc subformat=fixed",
		} {
			f := strings.Fields(o)
			args := []string{"convert", "-f", "raw"}
			if f[0] == "-c" {
				args, f = append(args, "-c"), f[1:]
			}
			mustRun(t, dir, "qemu-img", append(args, "-O", f[0], "-o", f[1], "disk.raw", "theirs")...)
			i, err := OpenImage(t.Context(), filepath.Join(dir, "theirs"), "")
			if err != nil {
				t.Errorf("%s: %v", o, err)
				continue
			}
			if got := readSource(t, i.Source); string(i.Format) != strings.ReplaceAll(f[0], "vpc", "vhd") || !bytes.Equal(got[:size], disk) {
				t.Errorf("%s of size %d: read as %s of %d, another content", o, size, i.Format, i.Size)
			}
			i.Close()
			os.Remove(filepath.Join(dir, "theirs"))
		}
	}
}

func jsonSize(n int64) string { return fmt.Sprintf("\"virtual-size\": %d", n) }
