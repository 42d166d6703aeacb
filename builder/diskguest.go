package builder

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"iter"
	"maps"
	"reflect"
	"slices"
	"strings"
	"sync"

	"github.com/hashicorp/hcl/v2"

	"github.com/goldenisc/packer-plugin-isc/image"
	"github.com/goldenisc/packer-plugin-isc/internal/disk"
	"github.com/goldenisc/packer-plugin-isc/ovf"
	"github.com/goldenisc/packer-plugin-isc/profiles"
)

// Guest is how a bootable disk is made of the tree: read-only, covered by dm-verity, started by a
// unified kernel image. Scratch, swap and the volume are those of the spec. A captured disk has been
// made: none of this is allowed beside one.
//
// Of an illumos root the disk has its boot loader and a pool, rpool, as in a zpool block, and only size
// counts. The root needs a boot archive, and can be written to.
type Guest struct {
	Size       string   `hcl:"size,optional"`        // of the disk; default as large as needed
	Cmdline    string   `hcl:"cmdline,optional"`     // of the kernel, behind what is needed
	Serial     bool     `hcl:"serial,optional"`      // the console is the first serial port too
	Hardware   []string `hcl:"hardware,optional"`    // what the guest must have drivers of, in an ova beside what that declares; default what the kind's machines have
	Var        string   `hcl:"var,optional"`         // /var: overlay (default), tmpfs, scratch or read-only
	Etc        string   `hcl:"etc,optional"`         // /etc: overlay, tmpfs, scratch or read-only (default)
	Corruption string   `hcl:"corruption,optional"`  // of a block of the root: fail (default), restart or panic
	SecondDisk bool     `hcl:"second_disk,optional"` // swap, scratch and the volume are on a disk of their own, so that the first can be read-only in the hypervisor
	Stub       string   `hcl:"stub,optional"`        // file with systemd's boot stub, for a root that has none
	SignKey    string   `hcl:"uki_key,optional"`     // RSA key for Secure Boot: PEM file or env://VARIABLE
	SignCert   string   `hcl:"uki_cert,optional"`    // PEM file with its certificate

	bios     bool // the machine starts it without EFI
	declared bool // the machine is described: it has that hardware, whatever is named
	unknown  bool // values that are none of a few are reported already
}

// writables are the values of Guest.Var and Etc.
var writables = map[string]disk.Writable{"read-only": disk.ReadOnly, "tmpfs": disk.Tmpfs, "overlay": disk.Overlay, "scratch": disk.OnScratch}

var corruptions = map[string]disk.Corruption{"": disk.Fail, "fail": disk.Fail, "restart": disk.Restart, "panic": disk.Panic}

var hardware = []string{
	string(disk.AHCI), string(disk.IDE), string(disk.LSILogic), string(disk.LSISAS), string(disk.PVSCSI), string(disk.NVMe),
	string(disk.VirtioBlk), string(disk.VirtioSCSI), string(disk.HyperV),
	string(disk.E1000), string(disk.E1000E), string(disk.VMXNet3), string(disk.VirtioNet),
}

// check checks the values that are one of a few.
func (g *Guest) check(body hcl.Body) (diags hcl.Diagnostics) {
	for name, value := range map[string]string{"var": g.Var, "etc": g.Etc} {
		if value != "" {
			diags = append(diags, oneOf(body, name, value, sortedKeys(writables)...)...)
		}
	}
	if g.Corruption != "" {
		diags = append(diags, oneOf(body, "corruption", g.Corruption, "fail", "restart", "panic")...)
	}
	for _, h := range g.Hardware {
		diags = append(diags, oneOf(body, "hardware", h, hardware...)...)
	}
	g.unknown = diags.HasErrors()
	return diags
}

// problems says what is wrong with the values, by the rest of the spec.
func (g *Guest) problems(s *Spec) (out []Problem) {
	on := func(path string, err error) {
		if err != nil {
			out = append(out, Problem{path, err})
		}
	}
	if s.Disk != nil {
		told := *g
		told.bios, told.declared = false, false // that is said of the machine
		if !reflect.ValueOf(told).IsZero() {
			on("", errors.New("says how a disk is made of a root: a captured disk stays as it is"))
		}
		return out
	}
	if s.Image != nil && s.Image.OS != profiles.Linux {
		return g.illumosProblems()
	}
	if g.Size != "" {
		on("size", diskSize(g.Size))
	}
	if g.Stub != "" {
		on("stub", regularFile(local(s.Dir, g.Stub)))
	}
	if (g.SignKey == "") != (g.SignCert == "") {
		on("uki_key", errors.New("goes with uki_cert, and uki_cert with uki_key"))
	}
	if g.SignKey != "" && !strings.HasPrefix(g.SignKey, "env://") {
		on("uki_key", regularFile(local(s.Dir, g.SignKey)))
	}
	if g.SignCert != "" {
		on("uki_cert", regularFile(local(s.Dir, g.SignCert)))
	}
	if g.SecondDisk && s.Layout.Scratch == nil && s.Layout.Swap == nil && len(s.Layout.Volumes) == 0 {
		on("second_disk", errors.New("has scratch, swap or a volume on it, and there is none of them"))
	}
	if len(s.Layout.Volumes) > 1 {
		on("", errors.New("has room for one volume"))
	}
	for _, v := range s.Layout.Volumes {
		if v.Size == "" {
			on("", fmt.Errorf("needs the size of volume %q", v.Path))
		}
	}
	if sc := s.Layout.Scratch; sc != nil && sc.MountPoint() != "/scratch" {
		on("", fmt.Errorf("has its scratch at /scratch, not at %q", sc.MountPoint()))
	}
	if len(out) > 0 || g.unknown || s.Image == nil {
		return out
	}
	told := *g
	if strings.HasPrefix(g.SignKey, "env://") {
		told.SignKey, told.SignCert = "", "" // who validates a spec need not have the key
	}
	o, err := told.options(s, []disk.Hardware{disk.AHCI})
	if err == nil {
		err = o.Check()
	}
	if err == nil && max(o.Swap, o.Scratch, o.Data) > ovf.MaxCapacity {
		err = errTooLarge
	}
	all := []error{err}
	if joined, ok := err.(interface{ Unwrap() []error }); ok {
		all = joined.Unwrap()
	}
	for _, err := range all {
		on("", err)
	}
	return out
}

// errTooLarge is what no kind of disk can be.
var errTooLarge = fmt.Errorf("has more than the %d TiB of a disk", int64(ovf.MaxCapacity)>>40)

// diskSize checks the size of a disk, before any work is done for one that cannot be.
func diskSize(text string) error {
	size, err := profiles.ParseSize(text)
	if err == nil && size > ovf.MaxCapacity {
		err = errTooLarge
	}
	return err
}

// options are those of the spec and of the block, without what is in files.
func (g *Guest) options(s *Spec, machine []disk.Hardware) (o disk.Options, err error) {
	o = disk.Options{
		Arch: s.Image.Arch, Hardware: machine, Cmdline: g.Cmdline, Serial: g.Serial,
		Var: disk.Overlay, Etc: writables[g.Etc], Corruption: corruptions[g.Corruption], SecondDisk: g.SecondDisk,
	}
	if g.Var != "" {
		o.Var = writables[g.Var]
	}
	if len(g.Hardware) > 0 {
		if !g.declared {
			o.Hardware = nil
		}
		for _, h := range g.Hardware {
			o.Hardware = append(o.Hardware, disk.Hardware(h))
		}
	}
	size := func(to *int64, text string) {
		if text != "" && err == nil {
			*to, err = profiles.ParseSize(text)
		}
	}
	size(&o.Size, g.Size)
	if l := s.Layout.Scratch; l != nil {
		size(&o.Scratch, l.Size)
	}
	if l := s.Layout.Swap; l != nil {
		size(&o.Swap, l.Size)
	}
	for _, v := range s.Layout.Volumes {
		size(&o.Data, v.Size)
		o.DataPath = v.Path
	}
	return o, err
}

// files reads the boot stub, and key and certificate for Secure Boot.
func (g *Guest) files(dir string, o *disk.Options) (err error) {
	if g.Stub != "" {
		if o.Stub, err = readBounded(local(dir, g.Stub)); err != nil {
			return fmt.Errorf("stub: %w", err)
		}
	}
	if g.SignKey == "" {
		return nil
	}
	key, chain, err := readSigner(dir, g.SignKey, g.SignCert)
	if err != nil {
		return err
	}
	if len(chain) == 0 {
		return fmt.Errorf("certificate %q: holds none", g.SignCert)
	}
	o.Key, o.Certificate = key, chain[0]
	return nil
}

// build makes the disk.
func (g *Guest) build(ctx context.Context, src *Source, machine []disk.Hardware) (*virtualDisk, error) {
	if src.Spec.Image.OS != profiles.Linux {
		return g.buildIllumos(ctx, src)
	}
	o, err := g.options(src.Spec, machine)
	if err == nil {
		err = g.files(src.Spec.Dir, &o)
	}
	if err == nil {
		err = started(src)
	}
	if err != nil {
		return nil, Input(err)
	}
	o.Progress = func(done, total int64) { src.Progress.Report("hash", done, total) }
	guest, err := disk.Build(ctx, objects(src.Tree), o)
	if err != nil {
		if problem := (*disk.Problem)(nil); errors.As(err, &problem) {
			return nil, Input(err)
		}
		return nil, err
	}
	src.used.note(Dependency{Name: "guest/init", Digest: map[string]string{"sha256": hex.EncodeToString(guest.Init[:])}})
	src.used.note(Dependency{Name: "guest/init/toolchain", URI: "pkg:golang/stdlib@" + strings.TrimPrefix(guest.InitToolchain, "go")})
	if g.Stub != "" {
		sum := sha256.Sum256(o.Stub)
		src.used.note(Dependency{Name: "guest/stub", URI: g.Stub, Digest: map[string]string{"sha256": hex.EncodeToString(sum[:])}})
	}
	v := &virtualDisk{
		Source: diskSource(guest.System), id: guest.System.ID,
		attributes: map[string]string{
			"roothash": fmt.Sprintf("%x", guest.RootHash), "kernel": guest.Kernel, "cmdline": guest.Cmdline,
		},
	}
	if v.golden, err = guest.Golden.Marshal(); err != nil {
		return nil, err
	}
	if guest.Second != nil {
		// What is on it is the same in all guests, so that it can be kept when the first is exchanged. As a
		// file it is told from others': hypervisors know disks by their ids.
		id := sha256.Sum256(fmt.Appendf(nil, "isc second disk %x", v.id))
		id[6] = id[6]&0x0f | 0x80 // a UUID of version 8 (RFC 9562)
		id[8] = id[8]&0x3f | 0x80
		v.second = &virtualDisk{Source: diskSource(guest.Second), id: [16]byte(id[:16])}
	}
	return v, nil
}

// diskSource is a disk as package ovf has it.
func diskSource(d *disk.Disk) ovf.Source {
	s := ovf.Source{Content: d, Size: d.Size, Extents: []ovf.Extent{}}
	for _, e := range d.Extents {
		s.Extents = append(s.Extents, ovf.Extent(e))
	}
	return s
}

// started refuses a root without what starts the services of the spec, which are units of systemd: the
// machine would run, and serve nothing.
func started(src *Source) error {
	if has(src.Tree, "usr/lib/systemd/systemd") || has(src.Tree, "lib/systemd/systemd") {
		return nil
	}
	const hint = "start it from files of the root's own init, and leave the block out"
	if all := src.Spec.Layout.Services; len(all) > 0 {
		return fmt.Errorf("the root has no systemd, which would start the service %q: %s", all[0].Name, hint)
	}
	if src.Spec.Layout.Identity != nil {
		return errors.New("the root has no systemd, which would start the service of the identity block: " + hint)
	}
	return nil
}

// dependencies are what artifacts turn out to be made of while they are written, by several goroutines.
type dependencies struct {
	mu   sync.Mutex
	list []Dependency
}

func (d *dependencies) note(dep Dependency) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if !slices.ContainsFunc(d.list, dep.same) {
		d.list = append(d.list, dep)
	}
}

// dependencies returns what the artifacts were made of, by name.
func (src *Source) dependencies() []Dependency {
	src.used.mu.Lock()
	defer src.used.mu.Unlock()
	return slices.SortedFunc(slices.Values(src.used.list), func(a, b Dependency) int { return strings.Compare(a.Name, b.Name) })
}

// same tells whether two are the same thing.
func (d Dependency) same(o Dependency) bool {
	return d.Name == o.Name && d.URI == o.URI && maps.Equal(d.Digest, o.Digest)
}

// add adds what is not there yet: an image may be written several times.
func (p *Provenance) add(deps []Dependency) {
	for _, d := range deps {
		if !slices.ContainsFunc(p.BuildDefinition.Resolved, d.same) {
			p.BuildDefinition.Resolved = append(p.BuildDefinition.Resolved, d)
		}
	}
}

// objects yields a tree as package disk wants it.
func objects(t *image.Tree) iter.Seq2[*disk.Object, error] {
	return func(yield func(*disk.Object, error) bool) {
		for e := range t.All() {
			o := &disk.Object{
				Path: e.Name, Mode: e.Mode, UID: e.UID, GID: e.GID, ModTime: e.ModTime, Size: e.Size,
				Rdev: disk.Device(e.Rdev), Target: e.Target, Link: e.HardLink, Xattrs: e.Xattrs, Digest: e.Digest,
			}
			if e.IsRegular() && e.HardLink == "" {
				o.Open = func() (disk.Content, error) {
					f, err := t.Open(o.Path)
					if err != nil {
						return nil, err
					}
					return content{f}, nil
				}
			}
			if !yield(o, nil) {
				return
			}
		}
	}
}

// content is a file of a tree as package disk wants it.
type content struct{ image.File }

func (c content) Extents() []disk.Extent {
	all := c.File.Extents()
	out := slices.Grow([]disk.Extent(nil), len(all))
	for _, e := range all {
		out = append(out, disk.Extent{Offset: e.Off, Length: e.Len})
	}
	return out
}
