package builder

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"strconv"

	"github.com/goldenisc/packer-plugin-isc/image"
	"github.com/goldenisc/packer-plugin-isc/internal/disk"
	"github.com/goldenisc/packer-plugin-isc/ovf"
	"github.com/goldenisc/packer-plugin-isc/profiles"
)

// What of a root starts an illumos machine, by the names in its boot/defaults/loader.conf.
const (
	loaderEFI     = "boot/loader64.efi"
	loaderMBR     = "boot/pmbr"
	loaderBIOS    = "boot/gptzfsboot"
	loaderConf    = "boot/defaults/loader.conf"
	illumosKernel = "platform/i86pc/kernel/amd64/unix"
	bootArchive   = "platform/i86pc/amd64/boot_archive"
)

// loaderScripts are what the loader runs, of which it has one.
var loaderScripts = []string{"boot/loader.rc", "boot/lua/loader.lua"}

// maxLoader bounds a file of the loader, in bytes; there are three.
const maxLoader = 64 << 20

// illumosProblems are the values that say nothing to an illumos machine.
func (g *Guest) illumosProblems() (out []Problem) {
	for _, v := range []struct {
		name string
		set  bool
		hint string
	}{
		{"cmdline", g.Cmdline != "", `boot-args of "/boot/loader.conf.local"`},
		{"serial", g.Serial, `console="ttya,text" in "/boot/loader.conf.local"`},
		{"hardware", len(g.Hardware) > 0, ""},
		{"var", g.Var != "", ""},
		{"etc", g.Etc != "", ""},
		{"corruption", g.Corruption != "", ""},
		{"second_disk", g.SecondDisk, ""},
		{"stub", g.Stub != "", ""},
		{"uki_key", g.SignKey != "", ""},
		{"uki_cert", g.SignCert != "", ""},
	} {
		if !v.set {
			continue
		}
		err := errors.New("is of Linux roots")
		if v.hint != "" {
			err = fmt.Errorf("%w: an illumos root has it in a file: %s", err, v.hint)
		}
		out = append(out, Problem{v.name, err})
	}
	if g.Size != "" {
		if err := diskSize(g.Size); err != nil {
			out = append(out, Problem{"size", err})
		}
	}
	return out
}

// loader reads what an illumos root has of a boot loader, and reports all that is missing for a start.
func loader(t *image.Tree, arch string, bios bool) (*disk.Loader, error) {
	l := new(disk.Loader)
	var errs []error
	fail := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }
	if arch != "amd64" {
		fail("an illumos root of %s starts nowhere yet", arch)
	}
	read := func(name string) []byte {
		e, err := t.Stat(name)
		switch {
		case errors.Is(err, fs.ErrNotExist):
			return nil
		case err != nil:
			errs = append(errs, err)
			return nil
		case !e.IsRegular() || e.Size == 0 || e.Size > maxLoader:
			fail("%q is no file of 1 to %d bytes", "/"+name, maxLoader)
			return nil
		}
		data, err := t.ReadFile(name)
		if err != nil {
			errs = append(errs, err)
		}
		return data
	}
	if l.EFI = read(loaderEFI); l.EFI == nil {
		fail("no boot loader: the root has no %q", "/"+loaderEFI)
	}
	l.MBR, l.BIOS = read(loaderMBR), read(loaderBIOS)
	if l.MBR == nil || l.BIOS == nil {
		l.MBR, l.BIOS = nil, nil // both, or it does not start
		if bios {
			fail("no boot loader for a machine without EFI: the root has not both %q and %q", "/"+loaderMBR, "/"+loaderBIOS)
		}
	}
	have := func(names ...string) bool {
		for _, name := range names {
			if e, err := t.Stat(name); err == nil && e.IsRegular() && e.Size > 0 {
				return true
			}
		}
		return false
	}
	if !have(loaderConf) || !have(loaderScripts...) {
		fail("the boot loader has nothing to go by: the root has not %q with %q or %q", "/"+loaderConf, "/"+loaderScripts[0], "/"+loaderScripts[1])
	}
	if !have(illumosKernel) {
		fail("no kernel: the root has no %q", "/"+illumosKernel)
	}
	if !have(bootArchive) {
		fail("no boot archive: the root has no %q, which bootadm update-archive -R makes on an illumos host", "/"+bootArchive)
	}
	return l, errors.Join(errs...)
}

// buildIllumos makes the disk of an illumos machine: the loader and a pool with the root in it. Unlike
// that of Linux its root can be written to; its snapshot is the way back.
func (g *Guest) buildIllumos(ctx context.Context, src *Source) (*virtualDisk, error) {
	l, err := loader(src.Tree, src.Spec.Image.Arch, g.bios)
	if err != nil {
		return nil, Input(err)
	}
	r := rootPool{name: defaultPool, ashift: defaultAshift, path: "/dev/dsk/c1t0d0s1"}
	if g.Size != "" {
		size, err := profiles.ParseSize(g.Size)
		if err != nil {
			return nil, Input(err)
		}
		if size%(1<<20) != 0 {
			return nil, Input(fmt.Errorf("size %d: not whole MiB", size))
		}
		if r.size = l.PoolRoom(size); r.size <= 0 {
			return nil, Input(fmt.Errorf("size %d: a disk needs %d bytes and the pool", size, l.DiskSize(0)))
		}
	} else {
		// What its services make at the first start takes its place in the pool.
		layout := &src.Spec.Layout
		var sizes []string
		if layout.Scratch != nil {
			sizes = append(sizes, layout.Scratch.Size)
		}
		if layout.Swap != nil {
			sizes = append(sizes, layout.Swap.Size)
		}
		for _, v := range layout.Volumes {
			sizes = append(sizes, v.Size)
		}
		for _, text := range sizes {
			if text == "" {
				continue
			}
			n, err := profiles.ParseSize(text)
			if err != nil {
				return nil, Input(err)
			}
			r.more += n
		}
	}
	pool, attributes, err := r.make(ctx, src)
	if err != nil {
		return nil, err
	}
	p := &disk.Pool{ReaderAt: pool, Size: pool.Size(), GUID: pool.GUID()}
	for _, x := range pool.Extents() {
		p.Extents = append(p.Extents, disk.Extent{Offset: x.Off, Length: x.Len})
	}
	system, parts, err := disk.BuildPool(p, l)
	if err != nil {
		if problem := (*disk.Problem)(nil); errors.As(err, &problem) {
			err = Input(err)
		}
		return nil, errors.Join(err, pool.Close())
	}
	attributes["boot"] = "efi"
	if l.BIOS != nil {
		attributes["boot"] = "efi,bios"
	}
	for _, q := range parts {
		if q.Name == "zfs" {
			attributes["poolOffset"] = strconv.FormatInt(q.Offset, 10)
		}
	}
	v := &virtualDisk{
		Source: ovf.Source{Content: system, Size: system.Size, Extents: []ovf.Extent{}}, id: system.ID,
		attributes: attributes, close: pool.Close,
	}
	for _, e := range system.Extents {
		v.Extents = append(v.Extents, ovf.Extent(e))
	}
	return v, nil
}
