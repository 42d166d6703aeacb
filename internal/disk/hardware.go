package disk

import "slices"

// drivers are the modules of each device: the driver that is loaded if the device is there, and what
// it does not depend on, but is useless without.
var drivers = map[Hardware]struct {
	modules []string
	disk    bool
	scsi    bool // its disks are of sd_mod
}{
	AHCI:       {modules: []string{"ahci"}, disk: true, scsi: true},
	IDE:        {modules: []string{"ata_piix"}, disk: true, scsi: true},
	LSILogic:   {modules: []string{"mptspi"}, disk: true, scsi: true},
	LSISAS:     {modules: []string{"mptsas"}, disk: true, scsi: true},
	PVSCSI:     {modules: []string{"vmw_pvscsi"}, disk: true, scsi: true},
	NVMe:       {modules: []string{"nvme"}, disk: true},
	VirtioBlk:  {modules: []string{"virtio_pci", "virtio_blk"}, disk: true},
	VirtioSCSI: {modules: []string{"virtio_pci", "virtio_scsi"}, disk: true, scsi: true},
	HyperV:     {modules: []string{"hv_vmbus", "hv_storvsc"}, disk: true, scsi: true},
	E1000:      {modules: []string{"e1000"}},
	E1000E:     {modules: []string{"e1000e"}},
	VMXNet3:    {modules: []string{"vmxnet3"}},
	VirtioNet:  {modules: []string{"virtio_pci", "virtio_net"}},
}

// ciphers are modules that hash and encrypt, slow and fast, where the kernel has them as modules: it asks
// for them by name, and there is no modprobe. crc32c is needed before others can be loaded.
var ciphers = map[string][]string{
	"amd64": {"crc32c_generic", "sha256_generic", "aes_generic", "crc32c_intel", "sha256_ssse3", "aesni_intel"},
	"arm64": {"crc32c_generic", "sha256_generic", "aes_generic", "sha256_arm64", "sha2_ce", "aes_ce_blk", "aes_neon_blk"},
}

// A moduleSet is what the initrd has of modules.
type moduleSet struct {
	base    []string
	drivers []driverLine
	all     []string // in the order of loading
}

// A driverLine says what is loaded for a device.
type driverLine struct {
	pattern string
	load    []string
}

// choose returns the modules for some options, and what is missing.
func (x *moduleIndex) choose(o *Options, release string) (*moduleSet, []error) {
	var problems []error
	s := &moduleSet{}
	for _, name := range ciphers[o.Arch] {
		s.base = x.load(s.base, name)
	}
	need := func(why string, names ...string) {
		for _, name := range names {
			if !x.has(name) {
				problems = append(problems, &Problem{What: "kernel " + release + " has no module " + name, Hint: why})
			}
			s.base = x.load(s.base, name)
		}
	}
	need("the root is verified by it", "dm_verity")
	need("the root is of this file system", "erofs")
	if o.Swap > 0 || o.Scratch > 0 {
		need("swap and scratch are encrypted by it", "dm_crypt", "xts")
	}
	if o.Scratch > 0 || o.Data > 0 {
		need("scratch and data are of this file system", "ext4")
	}
	if o.overlays() {
		need("/etc or /var is written through it", "overlay")
	}
	for _, h := range o.Hardware {
		if drivers[h].scsi {
			need("the disks of "+string(h)+" are driven by it", "sd_mod")
			break
		}
	}
	s.all = slices.Clone(s.base)
	seen := map[driverKey]bool{}
	for _, h := range o.Hardware {
		for _, name := range drivers[h].modules {
			if !x.has(name) {
				problems = append(problems, &Problem{
					What: "kernel " + release + " has no module " + name + ", the driver of " + string(h),
					Hint: "use another kernel package, or another device",
				})
				continue
			}
			load := x.load(nil, name)
			for _, l := range load {
				if !slices.Contains(s.all, l) {
					s.all = append(s.all, l)
				}
			}
			for _, a := range x.aliases {
				if key := (driverKey{a.pattern, name}); a.module == name && len(load) > 0 && !seen[key] {
					seen[key] = true
					s.drivers = append(s.drivers, driverLine{a.pattern, load})
				}
			}
		}
	}
	return s, problems
}

type driverKey struct{ pattern, module string }

// overlays reports whether anything is an overlay.
func (o *Options) overlays() bool {
	for _, w := range []Writable{o.Var, o.Etc} {
		if w == Overlay || w == OnScratch {
			return true
		}
	}
	return false
}
