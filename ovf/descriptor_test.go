package ovf

import (
	"bytes"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "write golden files")

// testDisks are two small disks as WriteVMDK makes them.
func testDisks(t testing.TB, controllers ...Controller) []Disk {
	t.Helper()
	var out []Disk
	for i, c := range controllers {
		disk := testDisk(int64(i+1) * 300 << 10)
		data, v := writeTest(t, Source{Content: bytes.NewReader(disk), Size: int64(len(disk))}, WriteOptions{Level: Fast, ID: [16]byte{byte(i)}})
		out = append(out, Disk{VMDK: *v, Content: bytes.NewReader(data), Controller: c})
	}
	return out
}

func testAppliance(t testing.TB, target Target) *Appliance {
	return &Appliance{
		Name: "web-1.4.0", Target: target, OS: Debian, CPUs: 2, Memory: 1 << 30,
		Disks: testDisks(t, AHCI, AHCI), NICs: []NIC{{}, {Network: `back <end> & "co"`}},
		Product: &Product{
			Name: "Web", Vendor: "Example & Sons", Version: "1.4.0", FullVersion: "1.4.0-2", ProductURL: "https://example.org/web",
			VendorURL: "https://example.org",
			Properties: []Property{
				{Key: "hostname", Type: "string", Value: "web", Category: "Network", Label: "Host name", Description: "Its <name>", UserConfigurable: true},
				{Key: "port", Type: "uint16", Value: "8080", Category: "Network"},
				{Key: "token", Type: "string", Category: "Secrets", UserConfigurable: true, Password: true},
			},
		},
		Description: "A web server.\nRead-only.", EULA: "Do what you like.\nThere is no warranty.",
	}
}

// appliances are one of each kind that can be written.
func appliances(t testing.TB) map[string]*Appliance {
	out := map[string]*Appliance{}
	for _, target := range []Target{Universal, VirtualBox, VMware, Proxmox} {
		out[string(target)] = testAppliance(t, target)
		bios := testAppliance(t, target)
		bios.Firmware, bios.Product, bios.EULA, bios.Description = BIOS, nil, "", ""
		bios.Disks, bios.NICs = testDisks(t, LSILogic), nil
		out[string(target)+"-bios"] = bios
	}
	ide := testAppliance(t, Universal)
	ide.Disks = testDisks(t, IDE, IDE, IDE, IDE)
	out["universal-ide"] = ide
	mixed := testAppliance(t, VMware)
	mixed.Disks = testDisks(t, NVMe, PVSCSI, AHCI)
	mixed.NICs = []NIC{{Card: VMXNET3}, {Card: E1000e}}
	mixed.SecureBoot = true
	out["vmware-mixed"] = mixed
	for _, target := range []Target{Universal, VirtualBox, VMware, Proxmox} {
		a := testAppliance(t, target)
		a.Disks[0].Immutable = true
		out[string(target)+"-immutable"] = a
	}
	two := testAppliance(t, VirtualBox)
	two.OVF2 = true
	out["virtualbox-ovf2"] = two
	return out
}

// TestImmutable wants the disk declared to VMware, and to nobody who would not know what it is.
func TestImmutable(t *testing.T) {
	for name, a := range appliances(t) {
		text, err := a.Descriptor()
		if err != nil {
			t.Fatal(err)
		}
		want := 0
		if name == "universal-immutable" || name == "vmware-immutable" {
			want = 1
		}
		_, after, found := strings.Cut(string(text), `<vmw:Config ovf:required="false" vmw:key="backing.diskMode" vmw:value="independent_nonpersistent"/>`)
		if n := strings.Count(string(text), "backing.diskMode"); n != want || found != (want > 0) {
			t.Errorf("%s: %d disks are immutable", name, n)
		}
		if found && !strings.Contains(after, "Hard Disk 2") {
			t.Errorf("%s: it is the second disk", name)
		}
	}
}

func TestDescriptor(t *testing.T) {
	for name, a := range appliances(t) {
		got, err := a.Descriptor()
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		again, _ := a.Descriptor()
		if !bytes.Equal(got, again) {
			t.Errorf("%s: two calls, two descriptors", name)
		}
		e, err := Parse(got)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		s := e.Systems[0]
		if len(e.Disks) != len(a.Disks) || len(e.Systems) != 1 || s.Name != a.Name || s.EULA != a.EULA || s.Annotation != a.Description {
			t.Errorf("%s: read back %+v", name, e)
		}
		for i, d := range e.Disks {
			if d.Capacity != a.Disks[i].Capacity || d.Populated != a.Disks[i].Populated || e.file(d.FileRef).Size != a.Disks[i].Size {
				t.Errorf("%s: disk %d read back as %+v", name, i, d)
			}
		}
		if want := a.withDefaults().Firmware; s.Hardware[0].Firmware != want {
			t.Errorf("%s: firmware %q, want %q", name, s.Hardware[0].Firmware, want)
		}
		if a.Product != nil && len(s.Product.Properties) != 3 {
			t.Errorf("%s: product read back as %+v", name, s.Product)
		}
		if len(a.NICs) > 1 && !a.SecureBoot && e.Networks[1] != a.NICs[1].Network {
			t.Errorf("%s: networks %q", name, e.Networks)
		}
		if strings.Contains(string(got), "MACAddress") {
			t.Errorf("%s: a MAC address", name)
		}
	}
}

// The golden files show what is written; go test -update writes them.
func TestGoldenDescriptors(t *testing.T) {
	for name, a := range appliances(t) {
		switch name {
		case "universal", "proxmox-bios", "vmware-mixed":
		default:
			continue
		}
		for i := range a.Disks { // the encoder is not what is shown
			a.Disks[i].VMDK = VMDK{Size: 300 << 20, SHA256: [32]byte{byte(i)}, Capacity: 8 << 30, Populated: 700 << 20}
		}
		got, err := a.Descriptor()
		if err != nil {
			t.Fatal(err)
		}
		file := filepath.Join("testdata", "golden", name+".ovf")
		if *update {
			if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(file, got, 0o644); err != nil {
				t.Fatal(err)
			}
		}
		want, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(got, want) {
			t.Errorf("%s differs from %s:\n%s", name, file, got)
		}
	}
}

func TestValidate(t *testing.T) {
	ok := testAppliance(t, Universal)
	if err := ok.Validate(); err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		change func(a *Appliance)
		want   string
	}{
		"name":        {func(a *Appliance) { a.Name = "wéb" }, `appliance "wéb": name:`},
		"path":        {func(a *Appliance) { a.Name = "../web" }, "name: only letters"},
		"long name":   {func(a *Appliance) { a.Name = strings.Repeat("x", 81) }, "80 bytes"},
		"target":      {func(a *Appliance) { a.Target = "xen" }, `target "xen"`},
		"ovf2":        {func(a *Appliance) { a.OVF2 = true }, "OVF 2.0 is refused there"},
		"cpus":        {func(a *Appliance) { a.CPUs = 0 }, "0 CPUs"},
		"memory":      {func(a *Appliance) { a.Memory = 1<<30 + 1 }, "memory of 1073741825 bytes"},
		"firmware":    {func(a *Appliance) { a.Firmware = "uboot" }, `firmware "uboot"`},
		"secure boot": {func(a *Appliance) { a.SecureBoot, a.Firmware = true, BIOS }, "Secure Boot"},
		"no disk":     {func(a *Appliance) { a.Disks = nil }, "no disk"},
		"controller":  {func(a *Appliance) { a.Disks[0].Controller = NVMe }, `disk 1: controller "nvme": target universal takes ahci, lsilogic, ide; nvme is for target virtualbox, vmware`},
		"card":        {func(a *Appliance) { a.NICs[0].Card = VMXNET3 }, `network interface 1: card "vmxnet3": target universal takes e1000; vmxnet3 is for target vmware, proxmox`},
		"among":       {func(a *Appliance) { a.Among, a.NICs[0].Card = []Target{VirtualBox, VMware}, VMXNET3 }, `card "vmxnet3": targets virtualbox, vmware take e1000; vmxnet3 is for target vmware, proxmox`},
		"among whom":  {func(a *Appliance) { a.Among = []Target{VMware, "xen"} }, `target "xen"`},
		"not VMware":  {func(a *Appliance) { a.Among, a.SecureBoot = []Target{VirtualBox, Proxmox}, true }, "Secure Boot"},
		"too many": {func(a *Appliance) {
			for range 5 {
				d := a.Disks[0]
				d.Controller = IDE
				a.Disks = append(a.Disks, d)
			}
		}, "disk 7: a controller ide takes 4 disks"},
		"network":  {func(a *Appliance) { a.NICs[0].Network = "a\nb" }, "not one line"},
		"8 GiB":    {func(a *Appliance) { a.Disks[0].Size = 1 << 33 }, "disk 1: its VMDK of 8589934592 bytes exceeds the 8 GiB"},
		"text":     {func(a *Appliance) { a.EULA = "a\x00b" }, "EULA: characters"},
		"key":      {func(a *Appliance) { a.Product.Properties[0].Key = "a.b" }, `property "a.b": a key`},
		"same key": {func(a *Appliance) { a.Product.Properties[0].Key = "port" }, `property "port": twice`},
		"type":     {func(a *Appliance) { a.Product.Properties[0].Type = "int" }, `type "int"`},
		"nothing":  {func(a *Appliance) { *a = Appliance{} }, "0 CPUs"},
	} {
		a := testAppliance(t, Universal)
		c.change(a)
		err := a.Validate()
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q", name, err, c.want)
		}
		if _, derr := a.Descriptor(); derr == nil {
			t.Errorf("%s: a descriptor is written", name)
		}
	}
}

func TestAmong(t *testing.T) {
	a := testAppliance(t, Universal)
	a.Among = []Target{VMware, Proxmox}
	a.NICs[0].Card = VMXNET3
	if err := a.Validate(); err != nil {
		t.Error(err)
	}
}

func TestPlaces(t *testing.T) {
	a := Appliance{}
	for range 9 {
		a.Disks = append(a.Disks, Disk{Controller: LSILogic})
	}
	for i, p := range a.places() {
		want := i
		if i >= 7 {
			want++
		}
		if p.unit != want {
			t.Errorf("disk %d is unit %d, want %d", i, p.unit, want)
		}
	}
	a.Disks = []Disk{{Controller: IDE}, {Controller: IDE}, {Controller: IDE}}
	if p := a.places()[2]; p != (place{bus{IDE, 1}, 0}) {
		t.Errorf("the third IDE disk is at %v", p)
	}
}
