package disk

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"iter"
	"path"
	"runtime"
	"slices"
	"strings"
)

// Directories where something is mounted.
const (
	scratchPath = "scratch"
	dataPath    = "/data"
)

// maxSize bounds what is on a disk, in bytes.
const maxSize = 1 << 44

// maxCmdline is the COMMAND_LINE_SIZE of x86 and arm64, with the NUL.
const maxCmdline = 2048

// rootTypes are the partition types of the root and its hash tree, and bootNames the files that
// firmware starts, in the form of a FAT directory.
var (
	rootTypes = map[string][2]guid{
		"amd64": {parseGUID("4f68bce3-e8cd-4db1-96e7-fbcaf984b709"), parseGUID("2c7357ed-ebd2-46d9-aec1-23d437ec2bf5")},
		"arm64": {parseGUID("b921b045-1df0-41c3-af44-4c6f280d3fae"), parseGUID("df3300ce-d69f-4c92-978c-9bfb0f38d820")},
	}
	bootNames = map[string]string{"amd64": "BOOTX64 EFI", "arm64": "BOOTAA64EFI"}
)

// Partitions of a second disk have ids of their own, the same in all disks: it can be kept, or made
// anew, when the system disk is exchanged.
var secondIDs = map[string]guid{
	"disk":    parseGUID("8f0e8a6c-9a8e-4d0c-8a51-6e6b0d5f1c00"),
	"swap":    parseGUID("8f0e8a6c-9a8e-4d0c-8a51-6e6b0d5f1c01"),
	"scratch": parseGUID("8f0e8a6c-9a8e-4d0c-8a51-6e6b0d5f1c02"),
	"data":    parseGUID("8f0e8a6c-9a8e-4d0c-8a51-6e6b0d5f1c03"),
}

// Build makes the disks of a root. The objects come in the order of a depth-first walk with sorted
// directories, the root first, and must stay usable as long as the guest is. All that keeps a disk
// from being made is told at once, as errors of type [*Problem] joined by [errors.Join], before the
// root is hashed.
//
// The root of the guest is what the objects say, but for: kernels and initrds in /boot, which are left
// out, as nothing starts from there; directories that something is mounted on, which are made if they
// are missing; lines of /etc/fstab and /etc/crypttab for what is mounted already, or is not there at all:
// the root, /boot, swap, scratch and data; /etc/machine-id, which is an empty file, so that systemd makes
// an id for each start; and, if there is systemd, /etc/.updated and /var/.updated, by which it knows that
// its caches are those of /usr.
func Build(ctx context.Context, root iter.Seq2[*Object, error], o Options) (*Guest, error) {
	if err := o.Check(); err != nil {
		return nil, err
	}
	r, err := readRoot(root)
	if err != nil {
		return nil, err
	}
	p, err := preflight(r, &o)
	if err != nil {
		return nil, err
	}
	if err := r.adapt(&o); err != nil {
		return nil, err
	}
	e, err := writeEROFS(r)
	if err != nil {
		return nil, err
	}
	if err := o.checkSize(e.size); err != nil {
		return nil, err
	}
	// Neither salt nor UUID needs to be secret: they differ from root to root.
	salt := sha256.Sum256(append([]byte("isc verity salt"), e.uuid[:]...))
	hashID := sha256.Sum256(append([]byte("isc verity uuid"), e.uuid[:]...))
	v, err := hashVerity(ctx, e, e.size, uuid8(hashID[:]), salt, runtime.GOMAXPROCS(0), o.Progress)
	if err != nil {
		return nil, err
	}
	g := &Guest{RootHash: v.root, Salt: salt, Kernel: p.kernel.release, Init: p.digest, InitToolchain: p.toolchain}
	for _, name := range p.modules.all {
		g.Modules = append(g.Modules, path.Join(p.kernel.dir, p.kernel.modules.files[name]))
	}
	if err := g.assemble(&o, p, e, v); err != nil {
		return nil, err
	}
	return g, g.golden(ctx, v)
}

// Check tells all that is wrong with the options by themselves, whatever the root. [Build] does it too.
func (o *Options) Check() error {
	var errs []error
	bad := func(format string, args ...any) { errs = append(errs, &Problem{What: fmt.Sprintf(format, args...)}) }
	if rootTypes[o.Arch] == [2]guid{} {
		bad("architecture %q: guests are of amd64 or arm64", o.Arch)
	}
	disks := 0
	for _, h := range o.Hardware {
		d, ok := drivers[h]
		if !ok {
			bad("hardware %q is not known", h)
		}
		if d.disk {
			disks++
		}
	}
	if disks == 0 {
		bad("the hardware has no disk controller that the root could be found on")
	}
	for _, s := range []struct {
		name     string
		n, least int64
	}{{"size", o.Size, mebibyte}, {"swap", o.Swap, mebibyte}, {"scratch", o.Scratch, 64 * mebibyte}, {"data", o.Data, 64 * mebibyte}} {
		switch {
		case s.n == 0:
		case s.n < s.least || s.n > maxSize:
			bad("%s of %d bytes: it has %d MiB at least, and %d TiB at most", s.name, s.n, s.least>>20, int64(maxSize)>>40)
		case s.n%mebibyte != 0:
			bad("%s of %d bytes: it is of whole MiB", s.name, s.n)
		}
	}
	if o.SecondDisk && o.Swap+o.Scratch+o.Data == 0 {
		bad("a second disk without swap, scratch or data has nothing on it")
	}
	for _, w := range []struct {
		name string
		how  Writable
	}{{"/var", o.Var}, {"/etc", o.Etc}} {
		switch w.how {
		case ReadOnly, Tmpfs, Overlay:
		case OnScratch:
			if o.Scratch == 0 {
				bad("changes to %s are to be on the scratch, but there is none", w.name)
			}
		default:
			bad("%s: %q is no way to write", w.name, w.how)
		}
	}
	switch o.Corruption {
	case Fail, Restart, Panic:
	default:
		bad("corruption: %q is nothing a guest can do", o.Corruption)
	}
	for _, s := range []struct{ name, value string }{{"init", o.Init}, {"data path", o.DataPath}} {
		if s.value != "" && (!path.IsAbs(s.value) || path.Clean(s.value) != s.value || s.value == "/" || strings.ContainsFunc(s.value, notPlain)) {
			bad("%s %q is not a clean absolute path without spaces", s.name, s.value)
		}
	}
	for word := range strings.FieldsSeq(o.Cmdline) {
		name, _, _ := strings.Cut(word, "=")
		if strings.HasPrefix(name, "isc.") || name == "init" || name == "rdinit" || name == "initrd" {
			bad("%q cannot stand in the command line, as it says how the root is found and started", word)
		}
	}
	if strings.ContainsFunc(o.Cmdline, func(r rune) bool { return r < ' ' || r > '~' }) {
		bad("the command line has characters that are not printable ASCII")
	}
	if (o.Key == nil) != (o.Certificate == nil) {
		bad("a key goes with a certificate")
	} else if o.Key != nil {
		if err := checkSigner(o.Key, o.Certificate); err != nil {
			bad("the key for Secure Boot: %v", err)
		}
	}
	return errors.Join(errs...)
}

func notPlain(r rune) bool { return r <= ' ' || r > '~' || r == ':' || r == '"' }

// checkSize tells whether a root fits the disk, before it is hashed.
func (o *Options) checkSize(root int64) error {
	need := roundUp(root, mebibyte) + roundUp(root/perBlock+root/perBlock/64+16*blockSize, mebibyte) + minESP + 2*mebibyte
	if !o.SecondDisk {
		need += o.Swap + o.Scratch + o.Data
	}
	if o.Size != 0 && need > o.Size {
		return &Problem{
			What: fmt.Sprintf("the disk of %d MiB is too small for a root of %d MiB: with what is beside it, %d MiB are needed", o.Size>>20, roundUp(root, mebibyte)>>20, need>>20),
			Hint: "make the disk larger or the root smaller",
		}
	}
	return nil
}

// parts is what preflight found in the root.
type parts struct {
	kernel    *kernel
	modules   *moduleSet
	stub      []byte
	release   []byte // os-release
	initrd    []byte
	digest    [32]byte
	toolchain string
}

// preflight collects what a guest starts with, or all that is missing of it.
func preflight(r *rootFS, o *Options) (*parts, error) {
	p := &parts{stub: o.Stub}
	var errs []error
	program, digest, toolchain, err := InitProgram(o.Arch)
	if err != nil {
		return nil, err
	}
	p.digest, p.toolchain = digest, toolchain
	if p.kernel, err = r.findKernel(o.Arch); err != nil {
		errs = append(errs, err)
	} else {
		var problems []error
		p.modules, problems = p.kernel.modules.choose(o, p.kernel.release)
		errs = append(errs, problems...)
		if p.kernel.config != nil && p.kernel.config["CONFIG_BLK_DEV_INITRD"] != "y" {
			errs = append(errs, &Problem{What: "kernel " + p.kernel.release + " takes no initrd", Hint: "CONFIG_BLK_DEV_INITRD is not set"})
		}
	}
	for _, name := range stubs[o.Arch] {
		if n := r.file(name); n != nil && p.stub == nil {
			if p.stub, err = n.read(maxKernel); err != nil {
				errs = append(errs, err)
			}
		}
	}
	switch {
	case p.stub == nil:
		errs = append(errs, &Problem{What: "the root has no boot stub: " + stubs[o.Arch][0] + " is missing", Hint: "install systemd-boot-efi (Debian) or systemd-efistub (Alpine)"})
	default:
		if _, err := link(p.stub, o.Arch, []section{{".linux", nil}}); err != nil {
			errs = append(errs, &Problem{What: fmt.Sprintf("the boot stub %v", err)})
		}
	}
	init := o.init()
	switch n := r.lookup(init[1:]); {
	case n == nil:
		errs = append(errs, &Problem{What: "the root has no " + init, Hint: "install an init, such as systemd-sysv"})
	case !n.Mode.IsRegular() || n.Mode.Perm()&0o111 == 0:
		errs = append(errs, &Problem{What: fmt.Sprintf("%s leads to %q, which is no program", init, n.Path)})
	}
	if n := r.file("usr/lib/os-release"); n != nil {
		p.release, err = n.read(64 << 10)
	} else if n := r.file("etc/os-release"); n != nil {
		p.release, err = n.read(64 << 10)
	}
	if err = errors.Join(append(errs, err)...); err != nil {
		return nil, err
	}
	p.initrd, err = p.kernel.initrd(r, program, p.modules)
	return p, err
}

func (o *Options) init() string {
	if o.Init != "" {
		return o.Init
	}
	return "/sbin/init"
}

func (o *Options) dataPath() string {
	if o.DataPath != "" {
		return o.DataPath
	}
	return dataPath
}

// adapt makes of the root what a read-only one must be.
func (r *rootFS) adapt(o *Options) error {
	dirs := []string{"dev", "proc", "sys", "run", "tmp", "etc", "var"}
	if o.Scratch > 0 {
		dirs = append(dirs, scratchPath)
	}
	if o.Data > 0 {
		dirs = append(dirs, o.dataPath()[1:])
	}
	for _, dir := range dirs {
		if err := r.mkdir(dir, 0o755); err != nil {
			return err
		}
	}
	for _, n := range slices.Clone(r.nodes) {
		dir, name := path.Split(n.Path)
		if dir != "boot/" || n.Mode.IsDir() && n.first == nil {
			continue
		}
		for _, prefix := range []string{"vmlinuz", "vmlinux", "initrd", "initramfs", "Image"} {
			if strings.HasPrefix(name, prefix) {
				r.remove(n)
				break
			}
		}
	}
	if err := r.adaptTables(o); err != nil {
		return err
	}
	if err := r.updated(); err != nil {
		return err
	}
	return r.replace(&Object{Path: "etc/machine-id", Mode: 0o444, ModTime: r.nodes[0].ModTime})
}

// adaptTables leaves out of /etc/fstab what the first program mounts itself, or nothing does as it is of
// another machine's disk, and of /etc/crypttab what only that was for. An init would wait for such
// devices, in vain.
func (r *rootFS) adaptTables(o *Options) error {
	gone := map[string]bool{"/": true, "/boot": true, "/boot/efi": true, "/efi": true}
	if o.Scratch > 0 {
		gone["/"+scratchPath] = true
	}
	if o.Data > 0 {
		gone[o.dataPath()] = true
	}
	mapped := map[string]bool{}
	err := r.dropLines("etc/fstab", func(f []string) bool {
		if len(f) < 3 || f[2] != "swap" && !gone[f[1]] {
			return false
		}
		if name, ok := strings.CutPrefix(f[0], "/dev/mapper/"); ok {
			mapped[name] = true
		}
		return true
	})
	if err != nil {
		return err
	}
	return r.dropLines("etc/crypttab", func(f []string) bool { return mapped[f[0]] })
}

// maxTable bounds fstab(5) and crypttab(5).
const maxTable = 1 << 20

// dropLines leaves lines out of a file, by their fields, if there is such a file.
func (r *rootFS) dropLines(name string, drop func(fields []string) bool) error {
	n := r.file(name)
	if n == nil {
		return nil
	}
	text, err := n.read(maxTable)
	if err != nil {
		return err
	}
	var kept []byte
	for line := range bytes.Lines(text) {
		if f := strings.Fields(string(line)); len(f) == 0 || f[0][0] == '#' || !drop(f) {
			kept = append(kept, line...)
		}
	}
	if len(kept) == len(text) {
		return nil
	}
	o := *n.Object
	o.Path, o.Size, o.Digest = name, int64(len(kept)), sha256.Sum256(kept)
	o.Open = func() (Content, error) { return memory{bytes.NewReader(kept)}, nil }
	return r.replace(&o)
}

// updated tells a systemd that what it derives from /usr is of this /usr (systemd-update-done.service(8)):
// otherwise it would do so at each start, and where it can write nothing.
func (r *rootFS) updated() error {
	usr := r.lookup("usr")
	if usr == nil || r.file("usr/lib/systemd/systemd") == nil && r.file("lib/systemd/systemd") == nil {
		return nil
	}
	for _, dir := range []string{"etc", "var"} {
		if err := r.replace(&Object{Path: dir + "/.updated", Mode: 0o644, ModTime: usr.ModTime}); err != nil {
			return err
		}
	}
	return nil
}

// replace puts an object in the place of another, if there is one.
func (r *rootFS) replace(o *Object) error {
	if old := r.names[o.Path]; old != nil {
		if old.first == nil && old.Mode.IsDir() {
			return &Problem{What: "/" + o.Path + " is a directory"}
		}
		r.remove(old)
	}
	return r.add(o)
}

// memory is content that is not the root's.
type memory struct{ *bytes.Reader }

func (memory) Close() error        { return nil }
func (m memory) Extents() []Extent { return []Extent{{0, m.Size()}} }

// assemble puts the disks together.
func (g *Guest) assemble(o *Options, p *parts, e *erofs, v *verity) error {
	derive := func(what string) guid {
		sum := sha256.Sum256(append([]byte("isc "+what), v.root[:]...))
		return guid(uuid8(sum[:]))
	}
	system := []partition{
		{name: "root", kind: rootTypes[o.Arch][0], id: guid(v.root[:16]), attrs: attrReadOnly, length: roundUp(e.size, mebibyte)},
		{name: "root-verity", kind: rootTypes[o.Arch][1], id: guid(v.root[16:]), attrs: attrReadOnly, length: roundUp(int64(len(v.data)), mebibyte)},
	}
	var second []partition
	for _, q := range []struct {
		name   string
		length int64
	}{{"swap", o.Swap}, {"scratch", o.Scratch}, {"data", o.Data}} {
		if q.length == 0 {
			continue
		}
		part := partition{name: q.name, kind: typeReserved, attrs: attrNoAuto, length: q.length}
		if o.SecondDisk {
			part.id = secondIDs[q.name]
			second = append(second, part)
		} else {
			part.id = derive(q.name)
			system = append(system, part)
		}
	}
	var err error
	if g.Cmdline, err = o.cmdline(v, append(slices.Clone(system), second...)); err != nil {
		return err
	}
	release := p.release
	if release == nil {
		release = []byte("ID=linux\n")
	}
	g.UKI, err = link(p.stub, o.Arch, []section{
		{".osrel", release},
		{".cmdline", []byte(g.Cmdline)},
		{".uname", []byte(p.kernel.release)},
		{".initrd", p.initrd},
		{".linux", p.kernel.image}, // last: one that unpacks itself in place runs over nothing
	})
	if err != nil {
		return &Problem{What: fmt.Sprintf("the boot stub %v", err)}
	}
	if o.Key != nil {
		if g.UKI, err = signPE(g.UKI, o.Key, o.Certificate); err != nil {
			return &Problem{What: fmt.Sprintf("sign the unified kernel image: %v", err)}
		}
	}
	esp := espSize(int64(len(g.UKI)))
	serial := derive("ESP")
	head, err := espHead(esp, int64(len(g.UKI)), bootNames[o.Arch], binary.LittleEndian.Uint32(serial[:]))
	if err != nil {
		return &Problem{What: err.Error()}
	}
	system = append(system, partition{name: "ESP", kind: typeESP, id: serial, length: esp})
	size := place(system)
	if o.Size != 0 {
		if size > o.Size {
			return &Problem{What: fmt.Sprintf("the disk of %d MiB is too small: %d MiB are needed", o.Size>>20, size>>20), Hint: "make it larger"}
		}
		size = o.Size
	}
	d := &builder{size: size}
	first, last := gpt(size, derive("disk"), system)
	d.memory(0, first)
	d.add(system[0].offset, e, e.size, e.extents)
	d.memory(system[1].offset, v.data)
	at := system[len(system)-1].offset
	d.memory(at, head)
	d.memory(at+int64(len(head)), g.UKI)
	d.memory(size-int64(len(last)), last)
	g.System = d.disk([16]byte(derive("disk")))
	for _, q := range system {
		g.Partitions = append(g.Partitions, Partition{q.name, q.offset, q.length, q.id.String()})
	}
	if o.SecondDisk {
		d := &builder{size: place(second)}
		first, last := gpt(d.size, secondIDs["disk"], second)
		d.memory(0, first)
		d.memory(d.size-int64(len(last)), last)
		g.Second = d.disk([16]byte(secondIDs["disk"]))
	}
	return nil
}

// cmdline returns the kernel's command line.
func (o *Options) cmdline(v *verity, system []partition) (string, error) {
	ids := map[string]string{}
	for _, q := range system {
		ids[q.name] = strings.ToLower(q.id.String())
	}
	words := []string{"console=tty0"}
	if o.Serial {
		serial := map[string]string{"amd64": "ttyS0", "arm64": "ttyAMA0"}
		words = append(words, "console="+serial[o.Arch]) // the last is /dev/console
	}
	words = append(words, "ro", "isc.root="+ids["root"],
		fmt.Sprintf("isc.verity=%d:%x:%x:%s", v.blocks, v.salt, v.root, ids["root-verity"]))
	for _, name := range []string{"swap", "scratch"} {
		if ids[name] != "" {
			words = append(words, "isc."+name+"="+ids[name])
		}
	}
	if ids["data"] != "" {
		words = append(words, "isc.data="+ids["data"]+":"+o.dataPath())
	}
	if o.SecondDisk {
		words = append(words, "isc.second")
	}
	for _, w := range []struct{ name, value string }{{"var", string(o.Var)}, {"etc", string(o.Etc)}, {"corrupt", string(o.Corruption)}} {
		if w.value != "" {
			words = append(words, "isc."+w.name+"="+w.value)
		}
	}
	if o.Corruption == Panic {
		words = append(words, "panic=10")
	}
	if o.Init != "" {
		words = append(words, "init="+o.Init)
	}
	// systemd would look for partitions by their types otherwise, and activate what it finds.
	words = append(words, "systemd.gpt_auto=no")
	words = append(words, strings.Fields(o.Cmdline)...)
	line := strings.Join(words, " ")
	if len(line) >= maxCmdline {
		return "", &Problem{What: fmt.Sprintf("the kernel's command line has %d bytes, but %d are all it reads", len(line), maxCmdline-1)}
	}
	return line, nil
}

// A builder collects what is on a disk, in order.
type builder struct {
	size int64
	m    mosaic
	ext  []Extent
}

func (d *builder) add(at int64, r io.ReaderAt, size int64, ext []Extent) {
	d.m.add(at, size, r)
	for _, x := range shift(ext, at) {
		d.ext = appendExtent(d.ext, x)
	}
}

func (d *builder) memory(at int64, b []byte) {
	d.add(at, bytes.NewReader(b), int64(len(b)), []Extent{{0, int64(len(b))}})
}

func (d *builder) disk(id [16]byte) *Disk {
	d.m.size = d.size
	return &Disk{Size: d.size, Extents: d.ext, ID: id, ReaderAt: &d.m}
}
