package ovf

import (
	"fmt"
	"slices"
	"strings"
)

// standardSections are the elements that may stand in an envelope or a system, each with where:
// 'e' in the envelope, 's' in a system, 'c' in a collection of systems.
var standardSections = map[string]string{
	"References": "e", "Strings": "e", "DiskSection": "e", "NetworkSection": "e", "DeploymentOptionSection": "e", "SharedDiskSection": "e",
	"PlacementGroupSection": "e", "ResourceAllocationSection": "c", "StartupSection": "c",
	"AnnotationSection": "sc", "ProductSection": "sc", "EulaSection": "sc", "OperatingSystemSection": "s",
	"InstallSection": "s", "VirtualHardwareSection": "s", "EnvironmentFilesSection": "s", "BootDeviceSection": "s",
	"ScaleOutSection": "c", "PlacementSection": "sc", "EncryptionSection": "e",
}

// vmware models ovftool, of which ESXi and vSphere share the parser; what it takes is known by its
// own test cases, which are in testdata.
func (l *linter) vmware(e *Envelope) {
	const who = ESXi
	if e.Version == "2" {
		l.refuse(who, e.root.line, "OVF 2 is not read")
	}
	if n, a := e.root.undeclared(); n != nil {
		l.refuse(who, n.line, "element %q: prefix of attribute %s:%s is not declared", n.name, a.Space, a.Local)
	}
	if e.root.child("References") == nil {
		l.refuse(who, e.root.line, "no References")
	}
	if v, ok := e.root.attr("version"); e.Version == "0.9" && ok && v != "0.9" {
		l.refuse(who, e.root.line, "version %q in the namespace of 0.9", v)
	}
	content := 0
	for _, n := range e.root.children {
		if n.foreignType() {
			l.refuse(who, n.line, "%s: its type is not in the namespace of XML Schema instances", n.name)
		}
		if s := n.section(); s == "VirtualSystem" || s == "VirtualSystemCollection" {
			content++
			l.vmwareContent(n)
			continue
		}
		if e.Version == "0.9" && n.section() == "EulaSection" {
			continue
		}
		l.vmwareSection(n, "e", "the envelope")
	}
	if content > 1 {
		l.refuse(who, e.root.line, "%d systems: several stand in a VirtualSystemCollection", content)
	}
	l.vmwareFiles(e)
	l.vmwareDisks(e)
	for _, s := range e.Systems {
		if len(s.Hardware) == 0 {
			l.refuse(who, s.Line, "system %q: no VirtualHardwareSection", s.ID)
		}
		for n, h := range s.Hardware {
			l.vmwareHardware(e, h, n == 0)
		}
	}
}

// vmwareContent checks a system or a collection.
func (l *linter) vmwareContent(n *node) {
	const who = ESXi
	where, name := "s", fmt.Sprintf("system %q", n.value("id"))
	if n.section() == "VirtualSystemCollection" {
		where, name = "c", fmt.Sprintf("collection %q", n.value("id"))
	}
	if _, ok := n.attr("id"); !ok {
		l.refuse(who, n.line, "%s: no id", n.section())
	}
	if n.child("Info") == nil {
		l.refuse(who, n.line, "%s: no Info", name)
	}
	products := map[string]bool{}
	for _, c := range n.children {
		switch c.section() {
		case "Info", "Name":
			continue
		case "VirtualSystem", "VirtualSystemCollection":
			if where == "c" {
				l.vmwareContent(c)
				continue
			}
		case "ProductSection":
			id := c.value("class") + "\x00" + c.value("instance")
			if products[id] {
				l.refuse(who, c.line, "two products of the same class and instance")
			}
			products[id] = true
			l.vmwareProperties(c)
		}
		l.vmwareSection(c, where, name)
	}
}

// vmwareSection checks a section and what is unknown in it.
func (l *linter) vmwareSection(n *node, where, parent string) {
	const who = ESXi
	name := n.section()
	allowed, known := standardSections[name]
	switch {
	case !known && n.optional():
		return
	case !known:
		l.refuse(who, n.line, "section %q in %s is not known, and it is required", name, parent)
		return
	case !strings.Contains(allowed, where):
		l.refuse(who, n.line, "%s cannot stand in %s", name, parent)
	}
	switch name {
	case "References", "Strings":
		return
	case "VirtualHardwareSection", "ResourceAllocationSection": // their items are checked one by one
	case "DiskSection", "NetworkSection":
		for _, c := range n.children {
			if c.name != "Info" && c.name != "Disk" && c.name != "Network" && !c.optional() {
				l.refuse(who, c.line, "element %q in %s is not known, and it is required", c.name, name)
			}
		}
	case "StartupSection":
		l.warn(who, n.line, "Workstation refuses a StartupSection")
	}
	if n.child("Info") == nil {
		l.refuse(who, n.line, "%s: no Info", name)
	}
}

func (l *linter) vmwareProperties(n *node) {
	const who = ESXi
	keys := map[string]bool{}
	for _, p := range n.all("Property") {
		key, ok := p.attr("key")
		switch t, typed := p.attr("type"); {
		case !ok:
			l.refuse(who, p.line, "property without a key")
		case keys[key]:
			l.refuse(who, p.line, "property %q: twice", key)
		case !typed:
			l.refuse(who, p.line, "property %q: no type", key)
		case !slices.Contains(propertyTypes, t) && t != "int": // which is not standard, but taken
			l.refuse(who, p.line, "property %q: type %q is not known", key, t)
		}
		keys[key] = true
	}
}

func (l *linter) vmwareFiles(e *Envelope) {
	const who = ESXi
	ids, names := map[string]bool{}, map[string]bool{}
	refs := e.root.child("References")
	if refs == nil {
		return
	}
	for _, f := range refs.all("File") {
		id, href := f.value("id"), f.value("href")
		switch {
		case id == "":
			l.refuse(who, f.line, "file %q: no id", href)
		case ids[id]:
			l.refuse(who, f.line, "file id %q: twice", id)
		case href == "":
			l.refuse(who, f.line, "file %q: no href", id)
		case names[href]:
			l.refuse(who, f.line, "file %q: %q is referred to twice", id, href)
		}
		ids[id], names[href] = true, true
		// A negative size is taken for none.
		if s, ok := f.attr("size"); ok && number(strings.TrimPrefix(s, "-")) < 0 {
			l.refuse(who, f.line, "file %q: size %q is no number", id, s)
		}
		if c := f.value("compression"); c != "" && c != "gzip" && c != "identity" {
			l.refuse(who, f.line, "file %q: compression %q is not known", id, c)
		}
	}
}

func (l *linter) vmwareDisks(e *Envelope) {
	const who = ESXi
	ids, files := map[string]bool{}, map[string]bool{}
	last := -1
	for _, n := range e.root.sections("DiskSection") {
		for _, d := range n.all("Disk") {
			id := d.value("diskId")
			for _, a := range []string{"diskId", "capacity", "format"} {
				if v := d.value(a); v == "" {
					l.refuse(who, d.line, "disk %q: no %s", id, a)
				}
			}
			if ids[id] {
				l.refuse(who, d.line, "disk %q: twice", id)
			}
			ids[id] = true
			capacity := scaled(d.value("capacity"), d.value("capacityAllocationUnits"))
			if p := number(d.value("populatedSize")); capacity >= 0 && p > capacity {
				l.refuse(who, d.line, "disk %q: populated with %d bytes, more than its capacity", id, p)
			}
			if capacity == 0 {
				l.refuse(who, d.line, "disk %q: no capacity", id)
			}
			f := d.value("fileRef")
			if f == "" {
				continue
			}
			if files[f] {
				l.refuse(who, d.line, "disk %q: its file %q is that of another disk", id, f)
			}
			files[f] = true
			at := slices.IndexFunc(e.Files, func(r FileRef) bool { return r.ID == f })
			if at >= 0 && at < last {
				l.refuse(who, d.line, "disk %q: disks are in another order than their files", id)
			}
			last = max(last, at)
			if format := d.value("format"); strings.Contains(format, "vmdk") && !strings.HasSuffix(format, "#streamOptimized") && !strings.HasSuffix(format, "#sparse") {
				l.warn(who, d.line, "disk %q: format %q: ESXi takes only %s", id, format, formatStream)
			}
		}
	}
}

// vmwareCards are the models of network cards.
var vmwareCards = []string{"Flexible", "PCNet32", "E1000", "E1000e", "VmxNet", "VmxNet2", "VmxNet3", "Sriov"}

// rasdNames are the children of an item that are known, of the standard and of OVF 0.9.
var rasdNames = strings.Fields(`
	Address AddressOnParent AllocationUnits AutomaticAllocation AutomaticDeallocation Caption ChangeableType ConfigurationName
	Connection ConsumerVisibility Description ElementName Generation HostResource InstanceID InstanceId Limit MappingBehavior
	OtherResourceType Parent PoolID Reservation ResourceSubType ResourceType VirtualQuantity VirtualQuantityUnits Weight
	BusNumber InstanceName`)

func (l *linter) vmwareHardware(e *Envelope, h Hardware, first bool) {
	const who = ESXi
	if first {
		for _, f := range h.Families {
			if strings.HasPrefix(f, "virtualbox") && len(h.Families) == 1 {
				l.refuse(who, h.Line, "unsupported hardware family %q", f)
			}
		}
	}
	ids, normal := map[string]Item{}, map[string]bool{}
	for _, i := range h.Items {
		if i.Bound == "" || i.Bound == "normal" {
			normal[i.InstanceID] = true
		}
	}
	for _, i := range h.Items {
		if len(i.node.children) == 0 {
			l.refuse(who, i.Line, "empty item")
			continue
		}
		for _, c := range i.node.children {
			if !slices.Contains(rasdNames, c.name) && c.space != nsVMW && c.space != "vmw" && !c.optional() {
				l.refuse(who, c.line, "item %q: element %q is not known, and it is required", i.Name, c.name)
			}
			if c.space == nsVMW && c.value("required") == "true" {
				l.refuse(who, c.line, "item %q: %s is required, which ESXi 6 and 7 do not take", i.Name, c.name)
			}
		}
		if i.InstanceID == "" {
			l.refuse(who, i.Line, "item %q: no InstanceID", i.Name)
		}
		// Parts of a range share the id of its normal value, and so do those of deployment options.
		if other, ok := ids[i.InstanceID]; ok && i.Bound == other.Bound && i.Configuration == other.Configuration {
			l.refuse(who, i.Line, "item %q: InstanceID %q is that of another item", i.Name, i.InstanceID)
		}
		if i.InstanceID != "" {
			ids[i.InstanceID] = i
		}
		if !normal[i.InstanceID] {
			l.refuse(who, i.Line, "item %q: a bound of no item: none has the InstanceID %q", i.Name, i.InstanceID)
		}
		switch {
		case i.Type < 0:
			l.refuse(who, i.Line, "item %q: no ResourceType", i.Name)
		case i.Type > lastType && i.Type < vendorTypes && i.Required:
			l.refuse(who, i.Line, "item %q: resource type %d is not known, and it is required", i.Name, i.Type)
		}
		l.vmwareDevice(e, i)
	}
	for _, c := range h.node.children {
		if c.name == "Config" && c.value("required") == "true" {
			l.refuse(who, c.line, "vmw:Config %q is required, which ESXi 6 and 7 do not take", c.value("key"))
		}
		switch c.name {
		case "Info", "System", "Item", "StorageItem", "EthernetPortItem", "Config", "ExtraConfig", "BootOrder", "IpPool":
		default:
			if !c.optional() && c.space != nsVMW {
				l.refuse(who, c.line, "element %q in VirtualHardwareSection is not known, and it is required", c.name)
			}
		}
	}
}

// vmwareDevice checks one item as what it is.
func (l *linter) vmwareDevice(e *Envelope, i Item) {
	const who = ESXi
	switch i.Type {
	case typeProcessor, typeMemory:
		for _, name := range []string{"Reservation", "Limit"} {
			if q := i.node.child(name); q != nil && q.text != "" && number(q.text) < 0 && !strings.HasPrefix(q.text, "${") {
				l.refuse(who, i.Line, "item %q: %s %q is no number", i.Name, name, q.text)
			}
		}
		if q := i.node.child("VirtualQuantity"); q != nil && number(q.text) < 0 && !strings.HasPrefix(q.text, "${") {
			l.refuse(who, i.Line, "item %q: quantity %q is no number", i.Name, q.text)
		} else if q == nil && i.Bound == "" && i.Configuration == "" {
			l.refuse(who, i.Line, "item %q: no VirtualQuantity", i.Name)
		}
		if i.Type == typeMemory && i.Units != "" && unit(i.Units) < 0 {
			l.refuse(who, i.Line, "memory in %q", i.Units)
		}
	case typeIDE:
		if oneOf(i.Subtype, "PIIX4", "PIIX3", "ICH6") {
			l.warn(who, i.Line, "IDE controller of type %q: refused without --lax", i.Subtype)
		}
	case typeSATA:
		if !oneOf(i.Subtype, "AHCI", "vmware.sata.ahci", "vmware.nvme.controller", "NVMe") && i.Required {
			l.refuse(who, i.Line, "storage controller %q: not SATA or NVMe", i.Subtype)
		}
	case typeSCSI:
		if oneOf(i.Subtype, "VirtualSCSI") {
			l.warn(who, i.Line, "Workstation has no paravirtual SCSI controller")
		}
	case typeDisk:
		if i.Required && strings.HasPrefix(i.HostResource, "ovf://") {
			l.refuse(who, i.Line, "hard disk %q: host resource %q: only ovf:/disk/ID and /disk/ID are read", i.Name, i.HostResource)
		}
	case typeEthernet:
		if i.Connection != "" && !slices.Contains(e.Networks, i.Connection) {
			l.refuse(who, i.Line, "network card %q: network %q is not in a NetworkSection", i.Name, i.Connection)
		}
		// Several models may be named, the first that is known counts.
		models := strings.FieldsFunc(i.Subtype, func(r rune) bool { return r == ' ' || r == ',' })
		if len(models) > 0 && !slices.ContainsFunc(models, func(m string) bool { return oneOf(m, vmwareCards...) }) {
			l.warn(who, i.Line, "network card %q: there is none such, the machine gets another", i.Subtype)
		}
	case 35: // sound card
		if i.Required {
			l.warn(who, i.Line, "sound card: refused without --lax")
		}
	}
}
