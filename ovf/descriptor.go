package ovf

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// Namespaces of descriptors.
const (
	nsOVF1 = "http://schemas.dmtf.org/ovf/envelope/1"
	nsOVF2 = "http://schemas.dmtf.org/ovf/envelope/2"
	nsOVF0 = "http://www.vmware.com/schema/ovf/1/envelope" // 0.9
	nsRASD = "http://schemas.dmtf.org/wbem/wscim/1/cim-schema/2/CIM_ResourceAllocationSettingData"
	nsVSSD = "http://schemas.dmtf.org/wbem/wscim/1/cim-schema/2/CIM_VirtualSystemSettingData"
	nsVMW  = "http://www.vmware.com/schema/ovf"
	nsVBox = "http://www.virtualbox.org/ovf/machine"
	nsXSI  = "http://www.w3.org/2001/XMLSchema-instance"

	formatStream = "http://www.vmware.com/interfaces/specifications/vmdk.html#streamOptimized"
)

// Resource types of CIM_ResourceAllocationSettingData.
const (
	typeProcessor = 3
	typeMemory    = 4
	typeIDE       = 5
	typeSCSI      = 6
	typeEthernet  = 10
	typeFloppy    = 14
	typeCD        = 15
	typeDVD       = 16
	typeDisk      = 17
	typeSATA      = 20 // "other storage device": SATA and NVMe
	lastType      = 35
	vendorTypes   = 0x8000 // the first of vendors' own
)

// controllerItems say how controllers are written. VMware's names of SATA and NVMe are understood
// by VirtualBox too, but not the other way round by all of VMware's programs.
var controllerItems = map[Controller]struct {
	kind          int
	subtype, name string
}{
	AHCI:     {typeSATA, "vmware.sata.ahci", "SATA Controller"},
	IDE:      {typeIDE, "", "IDE Controller"}, // a subtype such as PIIX4 is refused by VMware
	LSILogic: {typeSCSI, "lsilogic", "SCSI Controller"},
	PVSCSI:   {typeSCSI, "VirtualSCSI", "SCSI Controller"},
	NVMe:     {typeSATA, "vmware.nvme.controller", "NVMe Controller"},
}

var cardNames = map[Card]string{E1000: "E1000", E1000e: "E1000e", VMXNET3: "VmxNet3", Virtio: "virtio"}

// Descriptor returns the OVF descriptor. It is valid under the schemas of OVF 1.1.0 and 1.1.1, or of
// 2.0.1; vbox:Machine is a section of VirtualBox that they leave to extensions.
func (a *Appliance) Descriptor() ([]byte, error) {
	if err := a.Validate(); err != nil {
		return nil, err
	}
	return a.withDefaults().descriptor(), nil
}

// diskFile returns the name of a disk's file in the package.
func (a *Appliance) diskFile(i int) string { return fmt.Sprintf("%s-disk%d.vmdk", a.Name, i+1) }

// machineSection tells whether vbox:Machine is written: VirtualBox learns of EFI only there, and
// then takes everything from it.
func (a *Appliance) machineSection() bool {
	return a.Firmware == EFI && (a.Target == VirtualBox || a.Target == Universal)
}

func (a *Appliance) descriptor() []byte {
	x := new(xmlWriter)
	ns := nsOVF1
	attrs := []string{}
	if a.OVF2 {
		ns = nsOVF2
	}
	// The prefix vmw is declared always: Proxmox evaluates a path with it and fails where it is not.
	attrs = append(attrs, "xmlns", ns, "xmlns:ovf", ns, "xmlns:rasd", nsRASD, "xmlns:vssd", nsVSSD, "xmlns:vmw", nsVMW)
	if a.machineSection() {
		attrs = append(attrs, "xmlns:vbox", nsVBox)
	}
	if a.OVF2 {
		attrs = append(attrs, "ovf:version", "2.0")
	} else {
		attrs = append(attrs, "ovf:version", "1.0") // which stands for all of 1.x
	}
	x.open("Envelope", attrs...)
	x.open("References")
	for i, d := range a.Disks {
		x.empty("File", "ovf:href", a.diskFile(i), "ovf:id", fmt.Sprintf("file%d", i+1), "ovf:size", strconv.FormatInt(d.Size, 10))
	}
	x.close()
	x.open("DiskSection")
	x.text("Info", "Virtual disks")
	for i, d := range a.Disks {
		// Capacity in bytes: VirtualBox ignores units.
		attrs := []string{
			"ovf:capacity", strconv.FormatInt(d.Capacity, 10), "ovf:capacityAllocationUnits", "byte",
			"ovf:diskId", fmt.Sprintf("vmdisk%d", i+1), "ovf:fileRef", fmt.Sprintf("file%d", i+1),
			"ovf:format", formatStream, "ovf:populatedSize", strconv.FormatInt(d.Populated, 10),
		}
		if a.machineSection() {
			attrs = append(attrs, "vbox:uuid", a.diskUUID(i))
		}
		x.empty("Disk", attrs...)
	}
	x.close()
	if names := a.networks(); len(names) > 0 {
		x.open("NetworkSection")
		x.text("Info", "Logical networks")
		for _, name := range names {
			x.open("Network", "ovf:name", name)
			x.text("Description", "The network "+name)
			x.close()
		}
		x.close()
	}
	a.system(x)
	x.close()
	return x.bytes()
}

// networks returns the names of the logical networks in order of appearance.
func (a *Appliance) networks() (names []string) {
	for _, n := range a.NICs {
		if !slices.Contains(names, n.Network) {
			names = append(names, n.Network)
		}
	}
	return names
}

func (a *Appliance) system(x *xmlWriter) {
	x.open("VirtualSystem", "ovf:id", a.Name)
	x.text("Info", "A virtual machine")
	x.text("Name", a.Name)
	os := []string{"ovf:id", strconv.Itoa(a.OS.ID)}
	if a.OS.VMware != "" {
		os = append(os, "vmw:osType", a.OS.VMware)
	}
	x.open("OperatingSystemSection", os...)
	x.text("Info", "The guest operating system")
	if a.OS.Description != "" {
		x.text("Description", a.OS.Description)
	}
	x.close()
	a.hardware(x)
	a.product(x)
	if a.EULA != "" {
		x.open("EulaSection")
		x.text("Info", "License agreement")
		x.text("License", a.EULA)
		x.close()
	}
	if a.Description != "" {
		x.open("AnnotationSection")
		x.text("Info", "A description")
		x.text("Annotation", a.Description)
		x.close()
	}
	if a.machineSection() { // last, where no reader has yet stopped at it
		a.vboxMachine(x)
	}
	x.close()
}

func (a *Appliance) hardware(x *xmlWriter) {
	var attrs []string
	if a.Product != nil && len(a.Product.Properties) > 0 {
		attrs = append(attrs, "ovf:transport", "com.vmware.guestInfo")
	}
	x.open("VirtualHardwareSection", attrs...)
	x.text("Info", "Virtual hardware")
	x.open("System")
	x.text("vssd:ElementName", "Virtual Hardware Family")
	x.text("vssd:InstanceID", "0")
	x.text("vssd:VirtualSystemIdentifier", a.Name)
	x.text("vssd:VirtualSystemType", hardwareFamily)
	x.close()
	id := 0
	config := func(key, value string) { // required="true" breaks ESXi
		x.empty("vmw:Config", "ovf:required", "false", "vmw:key", key, "vmw:value", value)
	}
	// item writes one item; the schemas want the children in order of their names, and VMware's, which
	// are "vmw:" and a key, after them. The units of memory are one of the few spellings that VirtualBox takes.
	item := func(kind int, name string, children ...string) string {
		id++
		children = append(children, "ElementName", name, "InstanceID", strconv.Itoa(id), "ResourceType", strconv.Itoa(kind))
		x.open("Item")
		for _, c := range sortedPairs(children) {
			if key, ok := strings.CutPrefix(c[0], "vmw:"); ok {
				config(key, c[1])
			} else {
				x.text("rasd:"+c[0], c[1])
			}
		}
		x.close()
		return strconv.Itoa(id)
	}
	item(typeProcessor, fmt.Sprintf("%d virtual CPU", a.CPUs), "AllocationUnits", "hertz * 10^6",
		"Description", "Number of virtual CPUs", "VirtualQuantity", strconv.Itoa(a.CPUs))
	item(typeMemory, fmt.Sprintf("%d MB of memory", a.Memory/mib), "AllocationUnits", "byte * 2^20",
		"Description", "Memory size", "VirtualQuantity", strconv.FormatInt(a.Memory/mib, 10))
	place := a.places()
	parents := map[bus]string{}
	for _, b := range a.buses() {
		c := controllerItems[b.controller]
		children := []string{"Address", strconv.Itoa(b.number), "Description", c.name}
		if c.subtype != "" {
			children = append(children, "ResourceSubType", c.subtype)
		}
		parents[b] = item(c.kind, fmt.Sprintf("%s %d", c.name, b.number), children...)
	}
	for i, d := range a.Disks {
		children := []string{
			"AddressOnParent", strconv.Itoa(place[i].unit), "HostResource", fmt.Sprintf("ovf:/disk/vmdisk%d", i+1), "Parent", parents[place[i].bus],
		}
		if d.Immutable && (a.Target == VMware || a.Target == Universal) {
			children = append(children, "vmw:backing.diskMode", "independent_nonpersistent")
		}
		item(typeDisk, fmt.Sprintf("Hard Disk %d", i+1), children...)
	}
	for i, n := range a.NICs {
		item(typeEthernet, fmt.Sprintf("Network Adapter %d", i+1), "AddressOnParent", strconv.Itoa(7+i),
			"AutomaticAllocation", "true", "Connection", n.Network, "ResourceSubType", cardNames[n.Card])
	}
	config("firmware", string(a.Firmware))
	if a.SecureBoot {
		config("bootOptions.efiSecureBootEnabled", "true")
	}
	x.close()
}

// A bus is one controller; IDE has two of two disks.
type bus struct {
	controller Controller
	number     int
}

type place struct {
	bus  bus
	unit int
}

// places returns where each disk is attached.
func (a *Appliance) places() []place {
	var out []place
	used := map[Controller]int{}
	for _, d := range a.Disks {
		n := used[d.Controller]
		used[d.Controller]++
		p := place{bus{d.Controller, 0}, n}
		switch {
		case d.Controller == IDE:
			p = place{bus{IDE, n / 2}, n % 2}
		case (d.Controller == LSILogic || d.Controller == PVSCSI) && n >= 7:
			p.unit++ // 7 is the controller's own
		}
		out = append(out, p)
	}
	return out
}

// buses returns the controllers in order of appearance.
func (a *Appliance) buses() (out []bus) {
	for _, p := range a.places() {
		if !slices.Contains(out, p.bus) {
			out = append(out, p.bus)
		}
	}
	return out
}

func (a *Appliance) product(x *xmlWriter) {
	p := a.Product
	if p == nil {
		return
	}
	x.open("ProductSection")
	x.text("Info", "The installed product")
	for _, e := range [][2]string{
		{"Product", p.Name},
		{"Vendor", p.Vendor},
		{"Version", p.Version},
		{"FullVersion", p.FullVersion},
		{"ProductUrl", p.ProductURL},
		{"VendorUrl", p.VendorURL},
	} {
		if e[1] != "" {
			x.text(e[0], e[1])
		}
	}
	category := ""
	for _, p := range p.Properties {
		if p.Category != "" && p.Category != category {
			category = p.Category
			x.text("Category", category)
		}
		attrs := []string{"ovf:key", p.Key, "ovf:type", p.Type}
		if p.Value != "" {
			attrs = append(attrs, "ovf:value", p.Value)
		}
		if p.UserConfigurable {
			attrs = append(attrs, "ovf:userConfigurable", "true")
		}
		if p.Password {
			attrs = append(attrs, "ovf:password", "true")
		}
		if p.Label == "" && p.Description == "" {
			x.empty("Property", attrs...)
			continue
		}
		x.open("Property", attrs...)
		if p.Label != "" {
			x.text("Label", p.Label)
		}
		if p.Description != "" {
			x.text("Description", p.Description)
		}
		x.close()
	}
	x.close()
}

// uuid returns a UUID that names what, derived from the appliance: its name, version and disks.
// The form is that of version 8, "custom" (RFC 9562, 5.8).
func (a *Appliance) uuid(what string) string {
	h := sha256.New()
	version := ""
	if a.Product != nil {
		version = a.Product.Version
	}
	fmt.Fprintf(h, "ovf %q %q %q", what, a.Name, version)
	for _, d := range a.Disks {
		h.Write(d.SHA256[:])
		h.Write(binary.BigEndian.AppendUint64(nil, uint64(d.Capacity)))
	}
	u := h.Sum(nil)[:16]
	u[6] = u[6]&0x0f | 0x80
	u[8] = u[8]&0x3f | 0x80
	return fmt.Sprintf("%x-%x-%x-%x-%x", u[:4], u[4:6], u[6:8], u[8:10], u[10:])
}

func (a *Appliance) diskUUID(i int) string { return a.uuid(fmt.Sprintf("disk %d", i)) }

// sortedPairs returns names and values sorted by name.
func sortedPairs(v []string) (out [][2]string) {
	for i := 0; i < len(v); i += 2 {
		out = append(out, [2]string{v[i], v[i+1]})
	}
	slices.SortFunc(out, func(a, b [2]string) int { return strings.Compare(a[0], b[0]) })
	return out
}

// An xmlWriter writes indented XML. What it is given was validated.
type xmlWriter struct {
	b     bytes.Buffer
	names []string
}

// start writes a tag. Attributes keep their line ends only if these are escaped.
func (x *xmlWriter) start(name string, attrs []string, end string) {
	if x.b.Len() == 0 {
		x.b.WriteString("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n")
	}
	x.indent()
	x.b.WriteString("<" + name)
	for i := 0; i < len(attrs); i += 2 {
		x.b.WriteString(" " + attrs[i] + `="`)
		x.b.WriteString(escapeAttr.Replace(attrs[i+1]) + `"`)
	}
	x.b.WriteString(end)
}

var (
	escapeAttr = strings.NewReplacer("&", "&amp;", "<", "&lt;", ">", "&gt;", `"`, "&quot;", "\t", "&#9;", "\n", "&#10;", "\r", "&#13;")
	escapeText = strings.NewReplacer("&", "&amp;", "<", "&lt;", ">", "&gt;", "\r", "&#13;")
)

func (x *xmlWriter) indent() {
	for range x.names {
		x.b.WriteString("  ")
	}
}

func (x *xmlWriter) open(name string, attrs ...string) {
	x.start(name, attrs, ">\n")
	x.names = append(x.names, name)
}

func (x *xmlWriter) empty(name string, attrs ...string) { x.start(name, attrs, "/>\n") }

func (x *xmlWriter) text(name, s string) {
	x.start(name, nil, ">")
	x.b.WriteString(escapeText.Replace(s) + "</" + name + ">\n")
}

func (x *xmlWriter) close() {
	name := x.names[len(x.names)-1]
	x.names = x.names[:len(x.names)-1]
	x.indent()
	x.b.WriteString("</" + name + ">\n")
}

func (x *xmlWriter) bytes() []byte { return x.b.Bytes() }
