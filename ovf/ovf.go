// Package ovf writes, reads and checks virtual appliances without any hypervisor's tools: disks as
// VMDK, machines as OVF descriptors, and both together as one OVA file.
//
// Writing goes in three steps. [WriteVMDK] turns the content of a disk, of which only the parts
// that hold data are read, into a stream-optimized VMDK in one forward pass. An [Appliance]
// describes the machine around such disks. [Appliance.Package] makes descriptor, manifest and
// certificate, and [Package.WriteOVA] the tar archive that importers take. All bytes derive from
// what is given: there are no random UUIDs, no MAC addresses and no clock.
//
// Reading takes what others wrote. [NewReader] reads the disk in a VMDK, [ReadStream] reads it
// strictly forward as VirtualBox does, [Parse] reads any OVF descriptor tolerantly, and [Check]
// verifies a whole package and says which importer will refuse it, and why.
//
// The formats: DSP0243 1.1.1 and 2.1.1 (OVF), DSP8023 (its schema), VMware's "Virtual Disk Format
// 5.0". What importers really take is in the sources and bug reports of VirtualBox (ovfreader.cpp,
// ApplianceImplImport.cpp, VMDK.cpp), govmomi with the fixtures of ovftool, virt-v2v (OVF.ml,
// OVA.ml) and Proxmox (PVE/GuestImport/OVF.pm). Where the comments say that an importer refuses
// something, that is where it comes from; the checks model those programs, they do not run them.
package ovf

import (
	"errors"
	"fmt"
	"io"
	"regexp"
	"slices"
	"strings"
	"unicode/utf8"
)

// A Target is the importer an appliance is made for.
type Target string

// The targets. Universal is what all of them take: a hardware family of VMware, firmware in both
// dialects, and only controllers and network cards that every one has.
const (
	Universal  Target = "universal"
	VirtualBox Target = "virtualbox"
	VMware     Target = "vmware"
	Proxmox    Target = "proxmox"
)

// A Firmware starts the machine.
type Firmware string

// The firmwares, by the names of VMware.
const (
	EFI  Firmware = "efi"
	BIOS Firmware = "bios"
)

// A Controller is what a disk is attached to. The guest must have its driver.
type Controller string

// The controllers.
const (
	AHCI     Controller = "ahci"
	IDE      Controller = "ide"
	LSILogic Controller = "lsilogic"
	PVSCSI   Controller = "pvscsi"
	NVMe     Controller = "nvme"
)

// A Card is the model of a network interface. The guest must have its driver.
type Card string

// The cards.
const (
	E1000   Card = "e1000"
	E1000e  Card = "e1000e"
	VMXNET3 Card = "vmxnet3"
	Virtio  Card = "virtio"
)

// machines says which devices a target has. NVMe in VirtualBox comes with an extension pack that
// importers may lack, but the machine is imported.
var machines = map[Target]machine{
	Universal:  {[]Controller{AHCI, LSILogic, IDE}, []Card{E1000}},
	VirtualBox: {[]Controller{AHCI, LSILogic, IDE, NVMe}, []Card{E1000, Virtio}},
	VMware:     {[]Controller{AHCI, LSILogic, IDE, PVSCSI, NVMe}, []Card{E1000, E1000e, VMXNET3}},
	Proxmox:    {[]Controller{AHCI, LSILogic, IDE}, []Card{E1000, E1000e, VMXNET3}},
}

// A machine is what a target has.
type machine struct {
	controllers []Controller
	cards       []Card
}

func (m machine) disks() []Controller { return m.controllers }
func (m machine) nics() []Card        { return m.cards }

// takers says who takes the appliance, and returns what all of them have.
func (a *Appliance) takers() (string, machine) {
	m := machines[a.Target]
	if a.Target != Universal || len(a.Among) == 0 {
		return fmt.Sprintf("target %s takes", a.Target), m
	}
	m = machines[a.Among[0]]
	for _, t := range a.Among[1:] {
		m = machine{common(m.controllers, machines[t].controllers), common(m.cards, machines[t].cards)}
	}
	return fmt.Sprintf("targets %s take", list(a.Among)), m
}

func common[T comparable](a, b []T) []T {
	return slices.DeleteFunc(slices.Clone(a), func(v T) bool { return !slices.Contains(b, v) })
}

// offers tells who takes what instead of a device, and which targets take that one.
func offers[T ~string](who string, has []T, wanted T, devices func(machine) []T) string {
	text := who + " " + list(has)
	var others []Target
	for _, other := range []Target{VirtualBox, VMware, Proxmox} {
		if slices.Contains(devices(machines[other]), wanted) {
			others = append(others, other)
		}
	}
	if len(others) > 0 {
		text += fmt.Sprintf("; %s is for target %s", wanted, list(others))
	}
	return text
}

// slots is how many disks a controller takes here. VirtualBox and VMware agree on SATA's 30; on
// SCSI the controller itself has number 7.
var slots = map[Controller]int{AHCI: 30, IDE: 4, LSILogic: 15, PVSCSI: 15, NVMe: 15}

// An OS names the guest in the dialects of the importers.
type OS struct {
	ID          int    // of CIM_OperatingSystem.OSType
	Description string // for people
	VMware      string // vmw:osType
	VirtualBox  string // OSType of vbox:Machine
}

// Guests known by name; all for amd64.
var (
	Debian  = OS{96, "Debian GNU/Linux (64-bit)", "debian11_64Guest", "Debian_64"}
	Ubuntu  = OS{94, "Ubuntu Linux (64-bit)", "ubuntu64Guest", "Ubuntu_64"}
	Linux   = OS{101, "Linux (64-bit)", "other4xLinux64Guest", "Linux26_64"}
	Illumos = OS{81, "illumos (64-bit)", "solaris11_64Guest", "OpenSolaris_64"}
	Solaris = OS{81, "Oracle Solaris 11 (64-bit)", "solaris11_64Guest", "Solaris11_64"}
)

// A Disk is one virtual disk: a VMDK as [WriteVMDK] wrote it, and where its bytes are.
type Disk struct {
	VMDK
	Content    io.ReaderAt // Size bytes
	Controller Controller  // AHCI if empty
	// Immutable says that nothing that is written to the disk is to be kept. It is told to VMware only,
	// where it is gone when the machine is switched off: VirtualBox makes media of its own at import, whose
	// type nothing in a descriptor sets, and others have no word for it.
	Immutable bool
}

// A NIC is one network interface. It has no MAC address: the importer gives it one.
type NIC struct {
	Network string // name of the logical network, which the importer maps; "VM Network" if empty
	Card    Card   // E1000 if empty
}

// A Product describes what is installed, for people and for the properties they set.
type Product struct {
	Name, Vendor, Version string
	FullVersion           string
	ProductURL, VendorURL string
	Properties            []Property
}

// A Property is a value the user may give at import; VMware hands it to the guest.
type Property struct {
	Key, Type          string // Type as in DSP0243 table 6, such as "string" or "uint16"
	Value              string // the default
	Category           string // a heading; it holds for the following properties too
	Label, Description string
	UserConfigurable   bool
	Password           bool
}

// An Appliance describes one virtual machine. Every importer can take only some of what the
// specification allows, so this has only what they do.
type Appliance struct {
	Name    string   // of the machine and, with suffixes, of the files
	Target  Target   // Universal if empty
	Among   []Target // of a universal one, who is to take it: those and their common devices; all if empty
	OVF2    bool     // write OVF 2.0 instead of 1.1; VirtualBox alone reads it
	OS      OS
	CPUs    int
	Memory  int64 // bytes, whole MiB
	Disks   []Disk
	NICs    []NIC
	Product *Product

	Firmware    Firmware // EFI if empty
	SecureBoot  bool     // told to VMware only; the others have no way to say it
	Description string   // an annotation for people
	EULA        string   // must be accepted at import; VBoxManage silently imports nothing without --eulas accept
}

// hardwareFamily is the oldest of VMware that has AHCI, NVMe and UEFI Secure Boot (ESXi 6.5). One
// value alone: lists are read in two ways.
const hardwareFamily = "vmx-13"

// memberName is what every importer takes as a file name; Proxmox checks exactly this.
var memberName = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9.+=_-]*$`)

// maxName leaves room for "-disk99.vmdk" in the 100 bytes of a tar header.
const maxName = 80

// Limits of a machine.
const (
	maxCPUs   = 64
	maxMemory = 4 << 40
	maxNICs   = 8 // VirtualBox's without a change of chipset
	mib       = 1 << 20
)

// propertyTypes are those of DSP0243 1.1.1, table 6; OVF 2.0 has the same and their integers.
var propertyTypes = []string{
	"uint8", "sint8", "uint16", "sint16", "uint32", "sint32", "uint64", "sint64",
	"string", "boolean", "real32", "real64",
}

// withDefaults returns the appliance with empty choices filled in.
func (a Appliance) withDefaults() *Appliance {
	or(&a.Target, Universal)
	or(&a.Firmware, EFI)
	a.Disks = slices.Clone(a.Disks)
	for i := range a.Disks {
		or(&a.Disks[i].Controller, AHCI)
	}
	a.NICs = slices.Clone(a.NICs)
	for i := range a.NICs {
		or(&a.NICs[i].Card, E1000)
		or(&a.NICs[i].Network, "VM Network")
	}
	return &a
}

func or[T comparable](v *T, otherwise T) {
	var zero T
	if *v == zero {
		*v = otherwise
	}
}

// Validate reports all problems of the appliance together.
func (a *Appliance) Validate() error {
	if errs := a.withDefaults().problems(); len(errs) > 0 {
		return fmt.Errorf("appliance %q: %w", a.Name, errors.Join(errs...))
	}
	return nil
}

func (a *Appliance) problems() (errs []error) {
	add := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }
	if !memberName.MatchString(a.Name) || len(a.Name) > maxName {
		add("name: only letters, digits and .+=_- can stand in file names of all importers, %d bytes at most", maxName)
	}
	ok := true
	for _, t := range append([]Target{a.Target}, a.Among...) {
		if _, known := machines[t]; !known {
			ok = false
			add("target %q is not known", t)
		}
	}
	who, m := a.takers()
	if a.OVF2 && a.Target != VirtualBox {
		add("target %s: OVF 2.0 is refused there, or reads as an empty machine", a.Target)
	}
	if a.CPUs < 1 || a.CPUs > maxCPUs {
		add("%d CPUs: not between 1 and %d", a.CPUs, maxCPUs)
	}
	if a.Memory < 4*mib || a.Memory > maxMemory || a.Memory%mib != 0 {
		add("memory of %d bytes: whole MiB between 4 MiB and 4 TiB are possible", a.Memory)
	}
	if a.Firmware != EFI && a.Firmware != BIOS {
		add("firmware %q is not known", a.Firmware)
	}
	if a.SecureBoot && (a.Firmware != EFI || a.Target != VMware && a.Target != Universal || len(a.Among) > 0 && !slices.Contains(a.Among, VMware)) {
		add("Secure Boot can be declared with EFI, for VMware or universal")
	}
	if a.OS.ID < 0 || a.OS.ID > 65535 {
		add("operating system id %d: not between 0 and 65535", a.OS.ID)
	}
	if len(a.Disks) == 0 {
		add("no disk")
	}
	used := map[Controller]int{}
	for i, d := range a.Disks {
		switch {
		case ok && !slices.Contains(m.controllers, d.Controller):
			add("disk %d: controller %q: %s", i+1, d.Controller, offers(who, m.controllers, d.Controller, machine.disks))
		case used[d.Controller] == slots[d.Controller]:
			add("disk %d: a controller %s takes %d disks", i+1, d.Controller, slots[d.Controller])
		}
		used[d.Controller]++
		if d.Content == nil || d.Size <= 0 || d.Capacity <= 0 {
			add("disk %d: no VMDK", i+1)
		}
		if d.Size > MaxMember {
			add("disk %d: its VMDK of %d bytes exceeds the 8 GiB that fit in a ustar archive", i+1, d.Size)
		}
	}
	if len(a.NICs) > maxNICs {
		add("%d network interfaces: more than %d", len(a.NICs), maxNICs)
	}
	for i, n := range a.NICs {
		if ok && !slices.Contains(m.cards, n.Card) {
			add("network interface %d: card %q: %s", i+1, n.Card, offers(who, m.cards, n.Card, machine.nics))
		}
		if !printable(n.Network) {
			add("network interface %d: network %q: not one line of text", i+1, n.Network)
		}
	}
	return append(errs, a.textProblems()...)
}

func (a *Appliance) textProblems() (errs []error) {
	add := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }
	text := func(what, s string) {
		if !xmlText(s) {
			add("%s: characters that XML cannot hold", what)
		}
	}
	text("description", a.Description)
	text("EULA", a.EULA)
	text("operating system", a.OS.Description+a.OS.VMware+a.OS.VirtualBox)
	p := a.Product
	if p == nil {
		return errs
	}
	text("product", p.Name+p.Vendor+p.Version+p.FullVersion+p.ProductURL+p.VendorURL)
	keys := map[string]bool{}
	for _, p := range p.Properties {
		switch {
		case p.Key == "" || !printable(p.Key) || strings.ContainsAny(p.Key, ". :"):
			// DSP0243 9.5.1: a period or colon would be taken for class and instance.
			add("property %q: a key is not empty and has no spaces, periods or colons", p.Key)
		case keys[p.Key]:
			add("property %q: twice", p.Key)
		}
		keys[p.Key] = true
		if !slices.Contains(propertyTypes, p.Type) {
			add("property %q: type %q: not one of %s", p.Key, p.Type, list(propertyTypes))
		}
		text(fmt.Sprintf("property %q", p.Key), p.Value+p.Category+p.Label+p.Description)
	}
	return errs
}

func list[T ~string](v []T) string {
	var b strings.Builder
	for i, s := range v {
		if i > 0 {
			b.WriteString(", ")
		}
		b.WriteString(string(s))
	}
	return b.String()
}

// printable tells whether s is one line of text.
func printable(s string) bool {
	return xmlText(s) && !strings.ContainsAny(s, "\r\n\t")
}

// xmlText tells whether s consists of characters that XML 1.0 allows.
func xmlText(s string) bool {
	if !utf8.ValidString(s) {
		return false
	}
	for _, r := range s {
		if r < ' ' && r != '\t' && r != '\n' && r != '\r' || r == 0xfffe || r == 0xffff {
			return false
		}
	}
	return true
}
