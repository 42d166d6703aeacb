package ovf

import (
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// An Importer is a program that reads appliances. Everyone stands for all of them.
type Importer string

// The importers that are modelled: VirtualBox 7, VMware's (ESXi, vSphere, ovftool), virt-v2v 2,
// Proxmox VE 8, and govmomi with its simulator vcsim.
const (
	Everyone    Importer = "everyone"
	VirtualBox7 Importer = "virtualbox"
	ESXi        Importer = "vmware"
	VirtV2V     Importer = "virt-v2v"
	ProxmoxVE   Importer = "proxmox"
	Vcsim       Importer = "vcsim"
)

// Importers are those that findings are about, besides Everyone.
var Importers = []Importer{VirtualBox7, ESXi, VirtV2V, ProxmoxVE, Vcsim}

// A Finding is something in a package that an importer refuses or takes otherwise than meant.
type Finding struct {
	Importer Importer `json:"importer"`
	Refused  bool     `json:"refused"` // the import fails, or gives a machine that cannot start
	// Damage tells that the package is not what its manifest, its certificate or a disk's own
	// structure say, whoever looks at that.
	Damage  bool   `json:"damage,omitempty"`
	File    string `json:"file,omitempty"`
	Line    int    `json:"line,omitempty"` // of the descriptor or manifest; 0 if there is none
	Message string `json:"message"`
}

func (f Finding) String() string {
	var b strings.Builder
	b.WriteString(f.File)
	if f.Line > 0 {
		fmt.Fprintf(&b, ":%d", f.Line)
	}
	if b.Len() > 0 {
		b.WriteString(": ")
	}
	verb := "warning"
	if f.Refused {
		verb = "refused"
	}
	fmt.Fprintf(&b, "%s by %s: %s", verb, f.Importer, f.Message)
	if !f.Refused {
		return strings.Replace(b.String(), "warning by", "warning for", 1)
	}
	return b.String()
}

// maxFindings bounds a report about a hostile package.
const maxFindings = 1000

// A linter collects findings.
type linter struct {
	findings []Finding
	file     string
	more     bool // some were left out
}

func (l *linter) add(refused bool, who Importer, line int, format string, args ...any) {
	l.note(Finding{Importer: who, Refused: refused, File: l.file, Line: line, Message: fmt.Sprintf(format, args...)})
}

func (l *linter) note(f Finding) {
	if slices.Contains(l.findings, f) {
		return
	}
	if len(l.findings) >= maxFindings {
		l.more = true
		if f.Damage { // decides over the package, whatever else is told
			l.findings[maxFindings-1] = f
		}
		return
	}
	l.findings = append(l.findings, f)
}

func (l *linter) refuse(who Importer, line int, format string, args ...any) {
	l.add(true, who, line, format, args...)
}

// damage tells that content is not what it should be.
func (l *linter) damage(refused bool, format string, args ...any) {
	l.note(Finding{Importer: Everyone, Refused: refused, Damage: true, File: l.file, Message: fmt.Sprintf(format, args...)})
}

func (l *linter) warn(who Importer, line int, format string, args ...any) {
	l.add(false, who, line, format, args...)
}

// Lint says what importers refuse in a descriptor, without looking at the files it names.
func (e *Envelope) Lint() []Finding {
	l := new(linter)
	l.descriptor(e)
	return l.findings
}

func (l *linter) descriptor(e *Envelope) {
	l.everyone(e)
	l.vmware(e)
	l.virtualbox(e)
	l.virtv2v(e)
	l.proxmox(e)
	l.vcsim(e)
}

// everyone finds what makes a package unusable for all.
func (l *linter) everyone(e *Envelope) {
	if e.Version == "" {
		l.refuse(Everyone, e.root.line, "namespace %q is not one of OVF", e.Namespace)
	}
	switch collections := e.root.sections("VirtualSystemCollection"); {
	case len(e.Systems) > 0:
	case len(collections) == 0:
		l.refuse(Everyone, e.root.line, "no virtual system")
	default: // VMware makes an empty vApp of it
		for _, who := range []Importer{VirtualBox7, VirtV2V, ProxmoxVE, Vcsim} {
			l.refuse(who, collections[0].line, "no virtual system in the collection")
		}
	}
	for _, d := range e.Disks {
		if d.FileRef != "" && e.file(d.FileRef) == nil {
			l.refuse(Everyone, d.Line, "disk %q: file %q is not in References", d.ID, d.FileRef)
		}
	}
	for _, s := range e.Systems {
		for _, h := range s.Hardware {
			for _, i := range h.Items {
				if i.Type == typeDisk && i.HostResource != "" && i.Required && strings.Contains(i.HostResource, "/disk/") && e.disk(i.HostResource) == nil {
					l.refuse(Everyone, i.Line, "hard disk %q: no disk is %q", i.Name, i.HostResource)
				}
			}
		}
		if s.EULA != "" {
			l.warn(VirtualBox7, s.Line, "there is an EULA: VBoxManage import without --eulas accept ends well and imports nothing")
		}
	}
}

// virtualbox models ovfreader.cpp and ApplianceImplImport.cpp.
func (l *linter) virtualbox(e *Envelope) {
	const who = VirtualBox7
	for _, f := range e.Files {
		if f.Href == "" {
			l.refuse(who, f.Line, "file %q: no href", f.ID)
		}
		if f.Chunked {
			l.refuse(who, f.Line, "file %q: chunks are not supported", f.ID)
		}
	}
	for _, n := range e.root.sections("DiskSection") {
		for _, d := range n.all("Disk") {
			for _, a := range []string{"diskId", "format"} {
				if _, ok := d.attr(a); !ok {
					l.refuse(who, d.line, "disk %q: no %s", d.value("diskId"), a)
				}
			}
			if c := d.value("capacity"); number(c) < 0 {
				l.refuse(who, d.line, "disk %q: capacity %q is no number", d.value("diskId"), c)
			}
		}
	}
	for _, s := range e.Systems {
		for _, n := range s.node.sections("OperatingSystemSection") {
			if number(n.value("id")) < 0 {
				l.refuse(who, n.line, "operating system without an id")
			}
		}
		for _, m := range s.node.sections("Machine") {
			if path := m.deep("NVRAM").value("path"); path != "" {
				l.warn(who, m.line, "firmware variables are in %q, which is no file of the package: the machine starts without", path)
			}
		}
		for _, h := range s.Hardware {
			l.virtualboxItems(e, h)
			if h.Firmware == EFI && !s.VBox {
				l.warn(who, h.Line, "EFI is told in VMware's words only: the machine gets a BIOS")
			}
		}
		if len(s.Hardware) == 0 && !s.VBox {
			l.refuse(who, s.Line, "system %q: no hardware", s.ID)
		}
	}
}

func (l *linter) virtualboxItems(e *Envelope, h Hardware) {
	const who = VirtualBox7
	controllers := map[string]bool{}
	for _, i := range h.Items {
		switch i.Type {
		case typeMemory:
			if !slices.Contains([]string{"MegaBytes", "MB", "byte * 2^20", "GigaBytes", "GB", "byte * 2^30"}, i.Units) {
				l.refuse(who, i.Line, "memory in %q: only byte * 2^20, byte * 2^30 and their short forms are read", i.Units)
			}
		case typeProcessor:
			if i.Quantity >= 1<<16-1 {
				l.refuse(who, i.Line, "%d CPUs", i.Quantity)
			}
		case typeIDE, typeSCSI, typeSATA:
			if i.InstanceID == "" || number(i.InstanceID) == 0 {
				l.refuse(who, i.Line, "controller without an InstanceID")
			}
			if i.Type == typeSATA && !oneOf(i.Subtype, "AHCI", "vmware.sata.ahci", "VirtioSCSI", "NVMe", "vmware.nvme.controller") {
				l.refuse(who, i.Line, "storage controller %q: not AHCI, VirtioSCSI or NVMe; that it is not required does not help", i.Subtype)
			}
			controllers[i.InstanceID] = true
		case typeEthernet:
			if i.Subtype != "" && !oneOf(i.Subtype, vboxModels...) {
				l.warn(who, i.Line, "network card %q: there is none such, the machine gets another", i.Subtype)
			}
		case typeFloppy, typeCD, typeDisk, 23, 35: // 23: USB controller, 35: sound card
		case -1, 0:
			l.refuse(who, i.Line, "item %q without a ResourceType", i.Name)
		default:
			if i.Required {
				l.refuse(who, i.Line, "item %q: resource type %d is not known, and it is required", i.Name, i.Type)
			}
		}
	}
	for _, i := range h.Items {
		if i.Type != typeDisk && i.Type != typeCD {
			continue
		}
		if !controllers[i.Parent] {
			l.refuse(who, i.Line, "item %q: its parent %q is no controller", i.Name, i.Parent)
		}
		if i.Type == typeDisk && (!resourcePrefix.MatchString(i.HostResource) || e.disk(i.HostResource) == nil) {
			l.refuse(who, i.Line, "hard disk %q: host resource %q is no disk", i.Name, i.HostResource)
		}
	}
}

// vboxModels are the network cards that VirtualBox knows by name.
var vboxModels = []string{"PCNet32", "E1000", "Am79C970A", "Am79C973", "82540EM", "82543GC", "82545EM", "virtio", "VirtioNet", "virtio-net"}

// resourcePrefix is how VirtualBox lets disks be named.
var resourcePrefix = regexp.MustCompile(`^(ovf://|ovf:/|/)disk/`)

// oneOf compares without case.
func oneOf(s string, of ...string) bool {
	return slices.ContainsFunc(of, func(o string) bool { return strings.EqualFold(s, o) })
}

// virtv2v models OVF.ml, which looks with XPath in the namespace of OVF 1.
func (l *linter) virtv2v(e *Envelope) {
	const who = VirtV2V
	if e.Version != "1" {
		l.refuse(who, e.root.line, "only OVF 1 is read: there is no machine in %q", e.Namespace)
		return
	}
	for _, f := range e.Files {
		if strings.Contains(f.Href, "..") {
			l.refuse(who, f.Line, "file %q: %q leaves the package", f.ID, f.Href)
		}
	}
	l.collected(who, e)
	for _, s := range e.Systems {
		for _, h := range s.Hardware {
			if h.Firmware != "" && h.Firmware != EFI && h.Firmware != BIOS {
				l.refuse(who, h.Line, "firmware %q", h.Firmware)
			}
			for _, i := range h.Items {
				switch {
				case i.Type == typeMemory && unit(i.Units) != mib:
					l.warn(who, i.Line, "memory in %q is taken for MiB", i.Units)
				case i.Type == typeDisk && !strings.HasPrefix(i.HostResource, "ovf:/disk/") && !strings.HasPrefix(i.HostResource, "/disk/"):
					l.refuse(who, i.Line, "hard disk %q: host resource %q: only ovf:/disk/ID and /disk/ID are read", i.Name, i.HostResource)
				case i.Type == typeDisk && e.disk(i.HostResource) != nil && e.disk(i.HostResource).FileRef == "":
					l.refuse(who, i.Line, "hard disk %q: it is empty: only disks in a file are read", i.Name)
				}
			}
		}
	}
}

// collected tells that a machine is in a collection, where those who look for it with one path do
// not find it.
func (l *linter) collected(who Importer, e *Envelope) {
	if c := e.root.sections("VirtualSystemCollection"); len(e.Systems) > 0 && len(e.root.sections("VirtualSystem")) == 0 {
		l.refuse(who, c[0].line, "systems of a collection are not read")
	}
}

var proxmoxDisk = regexp.MustCompile(`^ovf:/disk/[A-Za-z0-9._~-]+$`)

// proxmox models PVE/GuestImport/OVF.pm.
func (l *linter) proxmox(e *Envelope) {
	const who = ProxmoxVE
	if e.Version != "1" {
		l.refuse(who, e.root.line, "only OVF 1 is read: there is no machine in %q", e.Namespace)
		return
	}
	declared := slices.ContainsFunc(e.root.attrs, func(a attr) bool { return a.Name.Space == "xmlns" && a.Name.Local == "vmw" })
	if !declared {
		l.refuse(who, e.root.line, "xmlns:vmw is not declared: the import dies of an undefined prefix")
	}
	for _, f := range e.Files {
		if !memberName.MatchString(f.Href) {
			l.refuse(who, f.Line, "file %q: characters in %q that it does not take", f.ID, f.Href)
		}
	}
	l.collected(who, e)
	// It reads the text of all that one path finds, so that two numbers become one: 2 and 4 CPUs are 24.
	first := map[int]bool{}
	for _, s := range e.Systems {
		for _, h := range s.Hardware {
			parents := map[string]int{}
			for _, i := range h.Items {
				parents[i.InstanceID] = i.Type
				if i.Type != typeProcessor && i.Type != typeMemory || i.node.child("VirtualQuantity") == nil {
					continue
				}
				if first[i.Type] {
					l.refuse(who, i.Line, "item %q: a second one of its type: their quantities are read as one number", i.Name)
				}
				first[i.Type] = true
			}
			for _, i := range h.Items {
				switch {
				case i.Type == typeMemory && unit(i.Units) != mib:
					l.warn(who, i.Line, "memory in %q is taken for MiB", i.Units)
				case i.Type == typeEthernet && i.Subtype != "" && !oneOf(i.Subtype, "e1000", "e1000e", "vmxnet3"):
					l.warn(who, i.Line, "network card %q becomes an e1000", i.Subtype)
				case i.Type != typeDisk:
				case !proxmoxDisk.MatchString(i.HostResource):
					l.refuse(who, i.Line, "hard disk %q: host resource %q: only ovf:/disk/ID is read", i.Name, i.HostResource)
				case i.AddressOnParent == "":
					l.refuse(who, i.Line, "hard disk %q: no AddressOnParent", i.Name)
				case !slices.Contains([]int{typeIDE, typeSCSI, typeSATA}, parents[i.Parent]):
					l.refuse(who, i.Line, "hard disk %q: its parent %q is no IDE, SCSI or SATA controller", i.Name, i.Parent)
				}
			}
		}
	}
}

// vcsim models govmomi's importer and simulator, the usual test double of vSphere.
func (l *linter) vcsim(e *Envelope) {
	const who = Vcsim
	if e.Version != "1" {
		l.refuse(who, e.root.line, "only OVF 1 is read")
		return
	}
	known := []int{1, 3, 4, 5, 6, 10, 14, 15, 17, 23, 24}
	for _, s := range e.Systems {
		for _, h := range s.Hardware {
			if len(h.Families) > 1 {
				l.warn(who, h.Line, "hardware families %s: lists are not split", strings.Join(h.Families, " "))
			}
			types := map[string]int{}
			for _, i := range h.Items {
				types[i.InstanceID] = i.Type
				if i.Type == typeMemory && unit(i.Units) != mib {
					l.warn(who, i.Line, "memory in %q is taken for MiB", i.Units)
				}
				if !slices.Contains(known, i.Type) {
					l.refuse(who, i.Line, "item %q: unsupported resource type: %s", i.Name, typeName(i.Type))
				}
			}
			for _, i := range h.Items {
				if i.Type == typeCD && types[i.Parent] != typeIDE {
					l.refuse(who, i.Line, "CD drive %q: its parent is no IDE controller", i.Name)
				}
			}
		}
	}
}

func typeName(t int) string {
	if t < 0 {
		return "none"
	}
	return strconv.Itoa(t)
}
