package ovf

import (
	"fmt"
	"math"
	"math/bits"
	"strconv"
	"strings"
)

// An Envelope is what a descriptor says, read tolerantly: nothing is required but the root element.
type Envelope struct {
	Namespace string // of the root
	Version   string // 0.9, 1 or 2, by the namespace; "" if that is none of OVF's
	Files     []FileRef
	Disks     []DiskRef
	Networks  []string
	Systems   []System // those of collections too

	root *node
}

// A FileRef is a file of the package.
type FileRef struct {
	ID, Href    string
	Size        int64 // bytes; -1 if it is not told
	Compression string
	Chunked     bool
	Line        int // of the descriptor
}

// A DiskRef is a disk that systems use.
type DiskRef struct {
	ID, FileRef, Format string
	Capacity            int64 // bytes; -1 if not told, not a number, or that of a property
	Populated           int64 // bytes; -1 if not told
	Line                int
}

// A System is one virtual machine.
type System struct {
	ID, Name   string
	OS         OS
	Hardware   []Hardware // alternatives; importers take the first
	Product    Product    // the first
	EULA       string
	Annotation string
	VBox       bool // there is a vbox:Machine, which VirtualBox reads instead of the hardware
	Line       int

	node *node
}

// A Hardware is one description of a machine.
type Hardware struct {
	Families []string // of VirtualSystemType, split at spaces and commas
	Items    []Item
	Firmware Firmware // "" if not told
	Line     int

	node *node
}

// An Item is one device. Numbers that are not told or no numbers are -1.
type Item struct {
	InstanceID      string
	Type            int
	Subtype         string
	Name            string // ElementName
	Units           string // AllocationUnits
	Quantity        int64  // VirtualQuantity
	Parent          string
	AddressOnParent string
	HostResource    string
	Connection      string
	Required        bool
	Bound           string // "min", "max" or "normal" of a range; "" for the value itself
	Configuration   string // the names of deployment options it belongs to; "" for all
	Line            int

	node *node
}

// maxReferred bounds the files, disks and networks of a descriptor, far above any real one.
const maxReferred = 1000

// Parse reads a descriptor as tolerantly as can be: OVF 0.9, 1.x and 2.x, any prefixes, items in
// any order, with unknown things in between. It fails on what is no XML, or XML of another kind.
func Parse(data []byte) (*Envelope, error) {
	root, err := parseXML(data)
	if err != nil {
		return nil, fmt.Errorf("parse descriptor: %w", err)
	}
	if root.name != "Envelope" {
		return nil, fmt.Errorf("parse descriptor: line %d: root element %q is no Envelope", root.line, root.name)
	}
	e := &Envelope{Namespace: root.space, root: root}
	switch root.space {
	case nsOVF0:
		e.Version = "0.9"
	case nsOVF1:
		e.Version = "1"
	case nsOVF2:
		e.Version = "2"
	}
	if refs := root.child("References"); refs != nil {
		for _, n := range refs.all("File") {
			e.Files = append(e.Files, FileRef{
				ID: n.value("id"), Href: n.value("href"), Size: number(n.value("size")),
				Compression: n.value("compression"), Chunked: n.value("chunkSize") != "", Line: n.line,
			})
		}
	}
	for _, n := range root.children {
		switch n.section() {
		case "DiskSection":
			for _, d := range n.all("Disk") {
				e.Disks = append(e.Disks, DiskRef{
					ID: d.value("diskId"), FileRef: d.value("fileRef"), Format: d.value("format"),
					Capacity: scaled(d.value("capacity"), d.value("capacityAllocationUnits")), Populated: number(d.value("populatedSize")), Line: d.line,
				})
			}
		case "NetworkSection":
			for _, d := range n.all("Network") {
				e.Networks = append(e.Networks, d.value("name"))
			}
		case "VirtualSystem", "VirtualSystemCollection":
			e.collect(n)
		}
	}
	// Each of these is looked for by name in all of them.
	for _, list := range []struct {
		what string
		n    int
	}{{"files", len(e.Files)}, {"disks", len(e.Disks)}, {"networks", len(e.Networks)}} {
		if list.n > maxReferred {
			return nil, fmt.Errorf("parse descriptor: %d %s: more than %d", list.n, list.what, maxReferred)
		}
	}
	return e, nil
}

// collect adds a system, or those of a collection.
func (e *Envelope) collect(n *node) {
	if n.section() == "VirtualSystem" {
		e.Systems = append(e.Systems, parseSystem(n))
		return
	}
	for _, c := range n.children {
		switch c.section() {
		case "VirtualSystem", "VirtualSystemCollection":
			e.collect(c)
		}
	}
}

func parseSystem(n *node) System {
	s := System{ID: n.value("id"), Name: n.childText("Name"), Line: n.line, node: n}
	for _, c := range n.children {
		switch c.section() {
		case "OperatingSystemSection":
			s.OS.ID = int(max(0, min(number(c.value("id")), math.MaxUint16)))
			s.OS.VMware = c.value("osType")
			s.OS.Description = c.childText("Description")
			s.OS.VirtualBox = c.childText("OSType")
		case "VirtualHardwareSection":
			s.Hardware = append(s.Hardware, parseHardware(c))
		case "ProductSection":
			if s.Product.Name == "" && s.Product.Properties == nil {
				s.Product = parseProduct(c)
			}
		case "EulaSection":
			s.EULA += c.childText("License")
		case "AnnotationSection":
			s.Annotation += c.childText("Annotation")
		case "Machine":
			s.VBox = true
		}
	}
	return s
}

func parseProduct(n *node) Product {
	p := Product{
		Name: n.childText("Product"), Vendor: n.childText("Vendor"), Version: n.childText("Version"),
		FullVersion: n.childText("FullVersion"), ProductURL: n.childText("ProductUrl"), VendorURL: n.childText("VendorUrl"),
	}
	category := ""
	for _, c := range n.children {
		switch c.name {
		case "Category":
			category = c.text
		case "Property":
			p.Properties = append(p.Properties, Property{
				Key: c.value("key"), Type: c.value("type"), Value: c.value("value"), Category: category,
				Label: c.childText("Label"), Description: c.childText("Description"),
				UserConfigurable: c.value("userConfigurable") == "true", Password: c.value("password") == "true",
			})
		}
	}
	return p
}

func parseHardware(n *node) Hardware {
	h := Hardware{Line: n.line, node: n}
	if sys := n.child("System"); sys != nil {
		h.Families = strings.FieldsFunc(sys.childText("VirtualSystemType"), func(r rune) bool { return r == ' ' || r == ',' || r == '\n' })
	}
	for _, c := range n.children {
		switch c.name {
		case "Item", "StorageItem", "EthernetPortItem":
			h.Items = append(h.Items, parseItem(c))
		case "Config":
			if c.value("key") == "firmware" {
				h.Firmware = Firmware(c.value("value"))
			}
		}
	}
	return h
}

func parseItem(n *node) Item {
	id := n.childText("InstanceID")
	if id == "" {
		id = n.childText("InstanceId") // 0.9, and drafts of 1.0
	}
	name := n.childText("ElementName")
	if name == "" {
		name = n.childText("Caption")
	}
	return Item{
		InstanceID: id, Type: int(max(-1, min(number(n.childText("ResourceType")), math.MaxUint16))),
		Subtype: n.childText("ResourceSubType"), Name: name, Units: n.childText("AllocationUnits"),
		Quantity: number(n.childText("VirtualQuantity")), Parent: n.childText("Parent"),
		AddressOnParent: n.childText("AddressOnParent"), HostResource: n.childText("HostResource"),
		Connection: n.childText("Connection"), Required: !n.optional(), Bound: n.value("bound"),
		Configuration: n.value("configuration"), Line: n.line, node: n,
	}
}

// number returns what s says, or -1.
func number(s string) int64 {
	v, err := strconv.ParseInt(strings.TrimSpace(s), 10, 64)
	if err != nil || v < 0 {
		return -1
	}
	return v
}

// scaled returns a number in units, in bytes, or -1 if that cannot be told.
func scaled(s, units string) int64 {
	v, factor := number(s), unit(units)
	if v < 0 || factor < 0 {
		return -1
	}
	hi, lo := bits.Mul64(uint64(v), uint64(factor))
	if hi != 0 || lo > math.MaxInt64 {
		return -1
	}
	return int64(lo)
}

// unit returns how many bytes a unit has, or -1. "byte * 2^20" is the standard's way (DSP0243 annex
// C); the words are of OVF 0.9.
func unit(s string) int64 {
	s = strings.Join(strings.Fields(s), "")
	switch strings.ToLower(s) {
	case "", "byte", "bytes":
		return 1
	case "kilobytes", "kb":
		return 1 << 10
	case "megabytes", "mb":
		return 1 << 20
	case "gigabytes", "gb":
		return 1 << 30
	}
	rest, ok := strings.CutPrefix(s, "byte*")
	if !ok {
		return -1
	}
	base, exp, ok := strings.Cut(rest, "^")
	if !ok {
		exp = "1"
	}
	b, e := number(base), number(exp)
	if b < 1 || b > 1024 || e < 0 || e > 62 {
		return -1
	}
	v := int64(1)
	for range e {
		if v > math.MaxInt64/b {
			return -1
		}
		v *= b
	}
	return v
}

// disk returns the disk of a HostResource such as ovf:/disk/ID, or nil.
func (e *Envelope) disk(resource string) *DiskRef {
	_, id, ok := strings.Cut(resource, "/disk/")
	if !ok {
		return nil
	}
	for i := range e.Disks {
		if e.Disks[i].ID == id {
			return &e.Disks[i]
		}
	}
	return nil
}

// file returns the file of an id, or nil.
func (e *Envelope) file(id string) *FileRef {
	for i := range e.Files {
		if e.Files[i].ID == id {
			return &e.Files[i]
		}
	}
	return nil
}
