package disk

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"io/fs"
	"maps"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"testing"
	"unicode/utf16"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
	"github.com/ulikunitz/xz"

	"github.com/goldenisc/packer-plugin-isc/internal/guesttest"
)

const testRelease = guesttest.Release

// bootRoot is a root with all that a guest starts with, none of which works.
func bootRoot(arch string) *testRoot {
	r := &testRoot{}
	for _, f := range guesttest.Files(arch) {
		switch {
		case f.Mode.IsDir():
			r.dir(f.Path, f.Mode.Perm())
		case f.Mode&fs.ModeSymlink != 0:
			r.link(f.Path, f.Content)
		default:
			r.file(f.Path, f.Mode, f.Content)
		}
	}
	r.sort()
	return r
}

func options(arch string) Options {
	return Options{
		Arch: arch, Hardware: []Hardware{AHCI, NVMe}, Swap: 16 << 20, Scratch: 64 << 20, Data: 64 << 20, Var: Overlay, Serial: true,
		Cmdline: "quiet",
	}
}

func build(t *testing.T, r *testRoot, o Options) *Guest {
	t.Helper()
	g, err := Build(context.Background(), r.all(), o)
	if err != nil {
		t.Fatal(err)
	}
	return g
}

// diskSum hashes all of a disk.
func diskSum(t *testing.T, d *Disk) string {
	t.Helper()
	h := sha256.New()
	if n, err := io.Copy(h, io.NewSectionReader(d, 0, d.Size)); err != nil || n != d.Size {
		t.Fatal(n, err)
	}
	return fmt.Sprintf("%x", h.Sum(nil))
}

func TestBuild(t *testing.T) {
	for _, arch := range []string{"amd64", "arm64"} {
		t.Run(arch, func(t *testing.T) {
			g := build(t, bootRoot(arch), options(arch))
			checkTable(t, g.System, g.Partitions)
			checkESP(t, g, map[string]string{"amd64": "BOOTX64 EFI", "arm64": "BOOTAA64EFI"}[arch])
			checkVerity(t, g)
			checkInitrd(t, g, arch)
			want := []string{
				"crc32c_generic", "dm-mod", "dm-verity", "libcrc32c", "erofs", "dm-crypt", "ecb", "xts", "ext4", "overlay", "scsi_mod", "sd_mod",
				"libata", "libahci", "ahci",
			}
			for i := range want {
				want[i] = "usr/lib/modules/" + testRelease + "/kernel/" + want[i] + ".ko"
			}
			if !slices.Equal(g.Modules, want) {
				t.Errorf("modules %q\nwant    %q", g.Modules, want)
			}
			for _, word := range []string{"ro", "isc.var=overlay", "quiet", "systemd.gpt_auto=no", fmt.Sprintf("isc.root=%s", strings.ToLower(g.Partitions[0].GUID))} {
				if !slices.Contains(strings.Fields(g.Cmdline), word) {
					t.Errorf("no %s in %q", word, g.Cmdline)
				}
			}
			// The root is what it was but for what is said.
			root, err := readRoot(bootRoot(arch).all())
			if err != nil {
				t.Fatal(err)
			}
			o := options(arch)
			if err := root.adapt(&o); err != nil {
				t.Fatal(err)
			}
			for name, there := range map[string]bool{
				"boot/vmlinuz-" + testRelease: false, "boot/initrd.img-" + testRelease: false, "boot/config-" + testRelease: true,
				"dev": true, "proc": true, "sys": true, "run": true, "tmp": true, "scratch": true, "data": true, "sbin/init": true,
			} {
				if (root.names[name] != nil) != there {
					t.Errorf("%s in the root: %v", name, !there)
				}
			}
			if n := root.names["etc/machine-id"]; n == nil || n.Size != 0 {
				t.Error("machine-id is not empty")
			}
		})
	}
}

// checkTable reads the partition table as firmware does.
func checkTable(t *testing.T, d *Disk, parts []Partition) {
	t.Helper()
	le := binary.LittleEndian
	for _, lba := range []int64{1, d.Size/512 - 1} {
		h := make([]byte, 512)
		d.ReadAt(h, lba*512)
		sum := le.Uint32(h[16:])
		le.PutUint32(h[16:], 0)
		if string(h[:8]) != "EFI PART" || crc32.ChecksumIEEE(h[:92]) != sum || int64(le.Uint64(h[24:])) != lba {
			t.Fatalf("header at %d", lba)
		}
		table := make([]byte, 128*128)
		d.ReadAt(table, int64(le.Uint64(h[72:]))*512)
		if crc32.ChecksumIEEE(table) != le.Uint32(h[88:]) {
			t.Errorf("entries of the header at %d", lba)
		}
		for i, p := range parts {
			e := table[128*i:]
			name := []uint16{}
			for j := 56; e[j] != 0; j += 2 {
				name = append(name, le.Uint16(e[j:]))
			}
			first, last := int64(le.Uint64(e[32:])), int64(le.Uint64(e[40:]))
			if string(utf16.Decode(name)) != p.Name || first*512 != p.Offset || (last-first+1)*512 != p.Length || p.Offset%mebibyte != 0 {
				t.Errorf("entry %d: %v", i, p)
			}
		}
	}
	if last := parts[len(parts)-1]; last.Name != "ESP" || last.Offset+last.Length+mebibyte != d.Size {
		t.Errorf("%v is last of %d", last, d.Size)
	}
}

// checkESP follows the FAT to the file that firmware starts.
func checkESP(t *testing.T, g *Guest, name string) {
	t.Helper()
	le := binary.LittleEndian
	p := g.Partitions[len(g.Partitions)-1]
	b := make([]byte, p.Length)
	if _, err := g.System.ReadAt(b, p.Offset); err != nil {
		t.Fatal(err)
	}
	fat := b[int(le.Uint16(b[14:]))*512:]
	data := b[(int(le.Uint16(b[14:]))+2*int(le.Uint32(b[36:])))*512:]
	chain := func(cluster uint32) (out []byte) {
		for cluster < 0x0ffffff8 {
			out = append(out, data[(cluster-2)*512:(cluster-1)*512]...)
			cluster = le.Uint32(fat[4*cluster:])
		}
		return out
	}
	cluster, size := le.Uint32(b[44:]), uint32(0)
	for _, step := range []string{"EFI        ", "BOOT       ", name} {
		dir := chain(cluster)
		at := bytes.Index(dir, []byte(step))
		if at < 0 || at%32 != 0 {
			t.Fatalf("no %q", step)
		}
		cluster, size = uint32(le.Uint16(dir[at+20:]))<<16|uint32(le.Uint16(dir[at+26:])), le.Uint32(dir[at+28:])
	}
	if !bytes.Equal(chain(cluster)[:size], g.UKI) {
		t.Error("the file is not the image")
	}
}

// checkVerity computes the tree from the disk, top down.
func checkVerity(t *testing.T, g *Guest) {
	t.Helper()
	f := strings.Split(strings.TrimPrefix(strings.Fields(g.Cmdline)[slices.IndexFunc(strings.Fields(g.Cmdline), func(w string) bool { return strings.HasPrefix(w, "isc.verity=") })], "isc.verity="), ":")
	blocks, err := strconv.ParseInt(f[0], 10, 64)
	if err != nil || f[1] != fmt.Sprintf("%x", g.Salt) || f[2] != fmt.Sprintf("%x", g.RootHash) {
		t.Fatalf("%q", f)
	}
	block := func(part int, i int64) []byte {
		b := make([]byte, 4096)
		if _, err := g.System.ReadAt(b, g.Partitions[part].Offset+i*4096); err != nil {
			t.Fatal(err)
		}
		return b
	}
	digest := func(b []byte) string { s := sha256.Sum256(append(g.Salt[:], b...)); return string(s[:]) }
	var counts []int64
	for n := blocks; n > 1; {
		n = (n + 127) / 128
		counts = append([]int64{n}, counts...)
	}
	want, at := []string{string(g.RootHash[:])}, int64(1)
	for _, count := range counts {
		var next []string
		for i := range count {
			b := block(1, at+i)
			if digest(b) != want[i] {
				t.Fatalf("hash block %d", at+i)
			}
			for j := 0; j < 4096; j += 32 {
				next = append(next, string(b[j:j+32]))
			}
		}
		want, at = next, at+count
	}
	for i := range blocks {
		if digest(block(0, i)) != want[i] {
			t.Fatalf("data block %d", i)
		}
	}
}

// checkInitrd unpacks the initrd out of the image.
func checkInitrd(t *testing.T, g *Guest, arch string) {
	t.Helper()
	p, machine, err := parsePE(g.UKI)
	if err != nil || machine != peMachines[arch] {
		t.Fatal(machine, err)
	}
	le := binary.LittleEndian
	sections := map[string][]byte{}
	for i := range p.sections {
		s := g.UKI[p.table+40*i:]
		sections[string(trimNUL(s[:8]))] = g.UKI[le.Uint32(s[20:]):][:le.Uint32(s[8:])]
	}
	if string(sections[".cmdline"]) != g.Cmdline || string(sections[".uname"]) != testRelease || string(sections[".osrel"]) != "ID=test\n" || !bytes.Equal(sections[".linux"], testPE(arch)) {
		t.Error("sections")
	}
	z, err := zstd.NewReader(bytes.NewReader(sections[".initrd"]))
	if err != nil {
		t.Fatal(err)
	}
	defer z.Close()
	b, err := io.ReadAll(z)
	if err != nil {
		t.Fatal(err)
	}
	files := map[string]string{}
	field := func(i int) int { n, _ := strconv.ParseInt(string(b[6+8*i:14+8*i]), 16, 64); return int(n) }
	for {
		if string(b[:6]) != "070701" {
			t.Fatalf("%q is no header", b[:6])
		}
		size, name := field(6), string(b[110:110+field(11)-1])
		at := (110 + field(11) + 3) &^ 3
		if name == "TRAILER!!!" {
			break
		}
		files[name] = string(b[at : at+size])
		b = b[(at+size+3)&^3:]
	}
	program, digest, toolchain, err := InitProgram(arch)
	if err != nil || digest != g.Init || toolchain != g.InitToolchain || files["init"] != string(program) || toolchain == "" {
		t.Errorf("init: %v", err)
	}
	if files["modules/base"] != "crc32c_generic\ndm_mod\ndm_verity\nlibcrc32c\nerofs\ndm_crypt\necb\nxts\next4\noverlay\nscsi_mod\nsd_mod\n" {
		t.Errorf("base: %q", files["modules/base"])
	}
	if files["modules/drivers"] != "pci:v00008086d00002829sv*sd*bc*sc*i* scsi_mod libata libahci ahci\n" {
		t.Errorf("drivers: %q", files["modules/drivers"])
	}
	if files["modules/dm_verity.ko"] != "module dm-verity" {
		t.Errorf("%q", slices.Sorted(maps.Keys(files)))
	}
}

// TestSame builds twice, and with one processor.
func TestSame(t *testing.T) {
	o := options("amd64")
	first := build(t, bootRoot("amd64"), o)
	want := diskSum(t, first.System)
	if got := diskSum(t, build(t, bootRoot("amd64"), o).System); got != want {
		t.Error("built twice: not the same bytes")
	}
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(1))
	if got := diskSum(t, build(t, bootRoot("amd64"), o).System); got != want {
		t.Error("built by one processor: not the same bytes")
	}
	// What the extents leave out is zero.
	d := first.System
	at := int64(0)
	for _, x := range append(slices.Clone(d.Extents), Extent{d.Size, 0}) {
		if x.Offset < at {
			t.Fatalf("extent %v is not behind %d", x, at)
		}
		for ; at < x.Offset; at += mebibyte {
			b := make([]byte, min(mebibyte, x.Offset-at))
			d.ReadAt(b, at)
			if !bytes.Equal(b, make([]byte, len(b))) {
				t.Fatalf("data behind %d is in no extent", at)
			}
		}
		at = x.Offset + x.Length
	}
	// Another content gives other ids.
	r := bootRoot("amd64")
	r.file("etc/other", 0o644, "x")
	r.sort()
	if other := build(t, r, o); other.System.ID == first.System.ID || other.Partitions[0].GUID == first.Partitions[0].GUID {
		t.Error("another root has the same ids")
	}
}

func TestSecondDisk(t *testing.T) {
	o := options("amd64")
	o.SecondDisk = true
	o.Size = 512 << 20
	g := build(t, bootRoot("amd64"), o)
	if g.System.Size != 512<<20 || len(g.Partitions) != 3 || g.Second == nil || g.Second.Size != (16+64+64+2)<<20 || len(g.Second.Extents) != 2 {
		t.Errorf("%+v %+v", g.System, g.Second)
	}
	if !strings.Contains(g.Cmdline, " isc.second ") {
		t.Error(g.Cmdline)
	}
}

func TestPreflight(t *testing.T) {
	dir := "usr/lib/modules/" + testRelease + "/"
	for name, c := range map[string]struct {
		change func(*testRoot, *Options)
		want   []string
	}{
		"all that is missing": {func(r *testRoot, o *Options) {
			r.remove("boot/vmlinuz-" + testRelease)
			r.remove(stubs["amd64"][0])
			r.remove("sbin/init")
		}, []string{"has modules of kernel 6.1.0-9-test, but no boot/vmlinuz-6.1.0-9-test", "no boot stub: usr/lib/systemd/boot/efi/linuxx64.efi.stub", "no /sbin/init"}},
		"no kernel":       {func(r *testRoot, o *Options) { r.remove("usr/lib/modules") }, []string{"has no kernel: neither"}},
		"no aliases":      {func(r *testRoot, o *Options) { r.remove(dir + "modules.alias") }, []string{"the root has no " + dir + "modules.alias of kernel", "run depmod"}},
		"no list":         {func(r *testRoot, o *Options) { r.remove(dir + "modules.dep") }, []string{"has no kernel: nothing below usr/lib/modules has a modules.dep"}},
		"other kernel":    {func(r *testRoot, o *Options) { r.file("boot/vmlinuz-"+testRelease, 0o644, string(testPE("arm64"))) }, []string{"is for machine 0xaa64"}},
		"no such driver":  {func(r *testRoot, o *Options) { o.Hardware = []Hardware{PVSCSI, NVMe} }, []string{"has no module vmw_pvscsi, the driver of pvscsi"}},
		"no verity":       {func(r *testRoot, o *Options) { r.file(dir+"modules.dep", 0o644, "kernel/xts.ko:\n") }, []string{"no module dm_verity", "no module erofs", "no module ahci", "no module ext4", "no module overlay"}},
		"file is missing": {func(r *testRoot, o *Options) { r.remove(dir + "kernel/erofs.ko") }, []string{`names "usr/lib/modules/6.1.0-9-test/kernel/erofs.ko", which is not there`}},
		"no program":      {func(r *testRoot, o *Options) { r.file("sbin/init", 0o644, "") }, []string{`/sbin/init leads to "sbin/init", which is no program`}},
		"no initrd": {func(r *testRoot, o *Options) {
			r.file("boot/config-"+testRelease, 0o644, "# CONFIG_BLK_DEV_INITRD is not set\n")
		}, []string{"takes no initrd"}},
		"small disk":  {func(r *testRoot, o *Options) { o.Size = 100 << 20 }, []string{"the disk of 100 MiB is too small for a root of 1 MiB"}},
		"mount point": {func(r *testRoot, o *Options) { r.file("scratch", 0o644, ""); r.sort() }, []string{`"scratch" is not a directory`}},
		"long line":   {func(r *testRoot, o *Options) { o.Cmdline = strings.Repeat("x ", 1000) }, []string{"command line has 2"}},
		"module in xz": {func(r *testRoot, o *Options) {
			r.file(dir+"modules.dep", 0o644, strings.ReplaceAll(depOf(r, dir), "erofs.ko", "erofs.ko.xz"))
			r.file(dir+"kernel/erofs.ko.xz", 0o644, "no xz")
			r.sort()
		}, []string{`module "usr/lib/modules/6.1.0-9-test/kernel/erofs.ko.xz"`}},
	} {
		r, o := bootRoot("amd64"), options("amd64")
		c.change(r, &o)
		_, err := Build(context.Background(), r.all(), o)
		for _, want := range c.want {
			if err == nil || !strings.Contains(err.Error(), want) {
				t.Errorf("%s: %v\nwant %q", name, err, want)
			}
		}
		var p *Problem
		if name != "module in xz" && !errors.As(err, &p) {
			t.Errorf("%s: %T is no Problem", name, err)
		}
	}
}

// TestAdapt: what is mounted before the root's init starts is in no table any more, and systemd derives
// nothing anew.
func TestAdapt(t *testing.T) {
	const fstab = `# what is mounted
UUID=12 / ext4 errors=remount-ro 0 1
UUID=34 /boot/efi vfat umask=0077 0 1
/dev/mapper/isc-swap none swap sw 0 0
/dev/mapper/isc-scratch /scratch ext4 nodev,nosuid,noexec 0 0
LABEL=data /data ext4 defaults 0 2
tmpfs /dev/shm tmpfs nodev,nosuid,noexec 0 0
/dev/mapper/more /srv ext4 nofail 0 2
`
	const crypttab = `isc-swap PARTLABEL=isc-swap /dev/urandom swap
isc-scratch PARTLABEL=isc-scratch /dev/urandom tmp=ext4
more LABEL=more none luks
`
	for _, x := range []struct {
		name, fstab, crypttab string
		o                     Options
	}{
		{"all", "# what is mounted\ntmpfs /dev/shm tmpfs nodev,nosuid,noexec 0 0\n/dev/mapper/more /srv ext4 nofail 0 2\n", "more LABEL=more none luks\n", options("amd64")},
		{
			"root alone", strings.Join(append(strings.SplitAfter(fstab, "\n")[:1:1], strings.SplitAfter(fstab, "\n")[4:]...), ""),
			strings.Join(strings.SplitAfter(crypttab, "\n")[1:], ""),
			Options{Arch: "amd64", Hardware: []Hardware{AHCI}},
		},
	} {
		root := bootRoot("amd64")
		root.file("usr/lib/systemd/systemd", 0o755, "#!")
		root.file("etc/fstab.real", 0o644, fstab)
		root.link("etc/fstab", "fstab.real")
		root.file("etc/crypttab", 0o600, crypttab)
		root.sort()
		r, err := readRoot(root.all())
		if err != nil {
			t.Fatal(err)
		}
		for range 2 {
			if err := r.adapt(&x.o); err != nil {
				t.Fatal(err)
			}
			for name, want := range map[string]string{"etc/fstab": x.fstab, "etc/crypttab": x.crypttab, "etc/fstab.real": fstab, "etc/machine-id": "", "etc/.updated": "", "var/.updated": ""} {
				n := r.file(name)
				if n == nil {
					t.Fatalf("%s: no file %s", x.name, name)
				}
				if got, err := n.read(1 << 20); string(got) != want || err != nil {
					t.Errorf("%s: %s is %q (%v)", x.name, name, got, err)
				}
			}
			for name, mode := range map[string]fs.FileMode{"etc/fstab": 0o644, "etc/crypttab": 0o600} {
				if n := r.names[name]; n.Mode != mode || n.Digest != sha256.Sum256([]byte(map[string]string{"etc/fstab": x.fstab, "etc/crypttab": x.crypttab}[name])) {
					t.Errorf("%s: %s has mode %v, digest %x", x.name, name, n.Mode, n.Digest)
				}
			}
			for _, dir := range []string{"etc", "var"} {
				if n := r.file(dir + "/.updated"); !n.ModTime.Equal(r.lookup("usr").ModTime) {
					t.Errorf("%s: %s/.updated of %v", x.name, dir, n.ModTime)
				}
			}
		}
	}
	r, err := readRoot(bootRoot("amd64").all())
	if err != nil {
		t.Fatal(err)
	}
	o := options("amd64")
	if err := r.adapt(&o); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"etc/fstab", "etc/crypttab", "etc/.updated", "var/.updated"} {
		if r.names[name] != nil {
			t.Errorf("%s was made for a root that is not of systemd", name)
		}
	}
}

// depOf returns what the root's modules.dep has.
func depOf(r *testRoot, dir string) string {
	for _, o := range r.objects {
		if o.Path == dir+"modules.dep" {
			b := make([]byte, o.Size)
			fileReader{o}.ReadAt(b, 0)
			return string(b)
		}
	}
	return ""
}

func TestOptions(t *testing.T) {
	for want, change := range map[string]func(*Options){
		`architecture "ppc"`:                     func(o *Options) { o.Arch = "ppc" },
		"has no disk controller":                 func(o *Options) { o.Hardware = []Hardware{E1000} },
		`hardware "floppy"`:                      func(o *Options) { o.Hardware = append(o.Hardware, "floppy") },
		"swap of 5 bytes: it has 1 MiB at least": func(o *Options) { o.Swap = 5 },
		"data of 99999999 bytes: it is of whole": func(o *Options) { o.Data = 99999999 },
		"scratch of 1048576 bytes":               func(o *Options) { o.Scratch = 1 << 20 },
		"second disk without":                    func(o *Options) { o.SecondDisk, o.Swap, o.Scratch, o.Data = true, 0, 0, 0 },
		"scratch, but there is none":             func(o *Options) { o.Scratch, o.Etc = 0, OnScratch },
		`"disk" is no way to write`:              func(o *Options) { o.Var = "disk" },
		`"explode" is nothing`:                   func(o *Options) { o.Corruption = "explode" },
		`init "bin/x"`:                           func(o *Options) { o.Init = "bin/x" },
		`data path "/a b"`:                       func(o *Options) { o.DataPath = "/a b" },
		`"isc.root=x" cannot stand`:              func(o *Options) { o.Cmdline = "isc.root=x" },
		"not printable ASCII":                    func(o *Options) { o.Cmdline = "ü" },
		"a key goes with":                        func(o *Options) { k, _ := testKey(t); o.Key = k },
	} {
		o := options("amd64")
		change(&o)
		if _, err := Build(context.Background(), bootRoot("amd64").all(), o); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %q", err, want)
		}
	}
}

// TestReadFails: an error of the root's content is an error, not zeros.
func TestReadFails(t *testing.T) {
	r := bootRoot("amd64")
	r.file("etc/broken", 0o644, "x").Open = func() (Content, error) { return testContent{bytes.NewReader(nil), []Extent{{0, 1}}}, nil }
	r.sort()
	if _, err := Build(context.Background(), r.all(), options("amd64")); !errors.Is(err, io.ErrUnexpectedEOF) || !strings.Contains(err.Error(), `"etc/broken"`) {
		t.Error(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := Build(ctx, bootRoot("amd64").all(), options("amd64")); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}

// TestExpand: modules come compressed or not.
func TestExpand(t *testing.T) {
	want := bytes.Repeat([]byte("module "), 10000)
	for suffix, open := range map[string]func(io.Writer) (io.WriteCloser, error){
		".gz":  func(w io.Writer) (io.WriteCloser, error) { return gzip.NewWriter(w), nil },
		".xz":  func(w io.Writer) (io.WriteCloser, error) { return xz.NewWriter(w) },
		".zst": func(w io.Writer) (io.WriteCloser, error) { return zstd.NewWriter(w) },
	} {
		var b bytes.Buffer
		w, err := open(&b)
		if err != nil {
			t.Fatal(err)
		}
		w.Write(want)
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
		if got, err := expand("m.ko"+suffix, b.Bytes()); err != nil || !bytes.Equal(got, want) {
			t.Errorf("%s: %d bytes (%v)", suffix, len(got), err)
		}
		if _, err := expand("m.ko"+suffix, b.Bytes()[:b.Len()/2]); err == nil || !strings.Contains(err.Error(), `module "m.ko`) {
			t.Errorf("half of %s: %v", suffix, err)
		}
	}
	if got, err := expand("m.ko", want); err != nil || !bytes.Equal(got, want) {
		t.Error(err)
	}
	if _, err := expand("m.ko.bz2", want); err == nil || !strings.Contains(err.Error(), "compression is not known") {
		t.Error(err)
	}
}

func TestVersions(t *testing.T) {
	sorted := []string{"", "5.10.0-9-amd64", "5.10.0-10-amd64", "6.1.0-2-amd64", "6.1.0-10-amd64", "6.1.0-10-cloud-amd64", "6.12.1"}
	for i, a := range sorted {
		for j, b := range sorted {
			if got := compareVersions(a, b); got < 0 != (i < j) || got > 0 != (i > j) {
				t.Errorf("%q and %q: %d", a, b, got)
			}
		}
	}
}

func FuzzModules(f *testing.F) {
	f.Add([]byte("kernel/a.ko: kernel/b.ko.xz\nkernel/b.ko.xz:\n"), []byte("softdep a pre: b c post: d\nsoftdep b pre: a\n"), []byte("kernel/c.ko\n"), []byte("alias c b\nalias pci:* a\n"))
	f.Fuzz(func(t *testing.T, dep, soft, builtin, aliases []byte) {
		x := parseModules(dep, soft, builtin, aliases)
		for name := range x.files {
			list := x.load(nil, name)
			if x.has(name) && !x.builtin[name] && x.files[name] != "" && (len(list) == 0 || list[len(list)-1] != name) {
				t.Errorf("%q is not the last of %q", name, list)
			}
			if u := slices.Compact(slices.Sorted(slices.Values(list))); len(u) != len(list) {
				t.Errorf("twice in %q", list)
			}
		}
		o := options("amd64")
		x.choose(&o, "")
	})
}

func FuzzExpand(f *testing.F) {
	f.Add(".xz", []byte("\xfd7zXZ\x00"))
	f.Add(".zst", []byte("\x28\xb5\x2f\xfd"))
	f.Add(".gz", []byte("\x1f\x8b\x08"))
	f.Fuzz(func(t *testing.T, suffix string, data []byte) {
		if out, err := expand("m.ko"+suffix, data); err == nil && len(out) > maxModule {
			t.Error("too much")
		}
	})
}

func FuzzVersions(f *testing.F) {
	f.Add("6.1.0-2", "6.1.0-10")
	f.Fuzz(func(t *testing.T, a, b string) {
		if x, y := compareVersions(a, b), compareVersions(b, a); x < 0 != (y > 0) || x > 0 != (y < 0) {
			t.Errorf("%d and %d", x, y)
		}
	})
}

// TestESPSize: whatever fits the largest partition fits the one that is made for it.
func TestESPSize(t *testing.T) {
	for _, size := range []int64{1, 511, 512, 11 << 20, 61<<20 + 1, 70 << 20, 500<<20 + 7, 1800 << 20} {
		volume := espSize(size)
		head, err := espHead(volume, size, "BOOTX64 EFI", 1)
		if err != nil || int64(len(head))+size > volume || volume%mebibyte != 0 {
			t.Errorf("%d bytes in %d: %v", size, volume, err)
		}
	}
	for _, size := range []int64{2 << 30, 1 << 40} {
		if _, err := espHead(espSize(size), size, "", 1); err == nil {
			t.Errorf("%d bytes fit", size)
		}
	}
}

func TestMosaic(t *testing.T) {
	m := &mosaic{size: 30}
	m.add(3, 4, strings.NewReader("abcd"))
	m.add(7, 0, nil)
	m.add(7, 2, strings.NewReader("ef"))
	m.add(20, 5, strings.NewReader("ghi")) // too short
	want := "\x00\x00\x00abcdef" + strings.Repeat("\x00", 21)
	for off := range int64(20) {
		for n := range 20 - off {
			b := bytes.Repeat([]byte("x"), int(n))
			if got, err := m.ReadAt(b, off); err != nil || got != int(n) || string(b) != want[off:off+n] {
				t.Errorf("%d at %d: %q %v", n, off, b, err)
			}
		}
	}
	if n, err := m.ReadAt(make([]byte, 20), 15); n != 8 || err != io.ErrUnexpectedEOF {
		t.Errorf("a short piece: %d %v", n, err)
	}
	if n, err := m.ReadAt(make([]byte, 4), 28); n != 2 || err != io.EOF {
		t.Errorf("at the end: %d %v", n, err)
	}
	if _, err := m.ReadAt(make([]byte, 1), 30); err != io.EOF {
		t.Error(err)
	}
}

func TestExtents(t *testing.T) {
	var list []Extent
	for _, e := range []Extent{{0, 10}, {10, 0}, {20, 5}, {22, 1}, {25 + nearby, 1}} {
		list = appendExtent(list, e)
	}
	if !slices.Equal(list, []Extent{{0, 25}, {25 + nearby, 1}}) {
		t.Error(list)
	}
}
