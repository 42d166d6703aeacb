package interop

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/vmware/govmomi/find"
	"github.com/vmware/govmomi/object"
	govmomi "github.com/vmware/govmomi/ovf"
	"github.com/vmware/govmomi/ovf/importer"
	"github.com/vmware/govmomi/simulator"
	"github.com/vmware/govmomi/vim25"
	"github.com/vmware/govmomi/vim25/mo"
	"github.com/vmware/govmomi/vim25/types"
	"github.com/vmware/govmomi/vmdk"

	"github.com/goldenisc/packer-plugin-isc/ovf"
)

const capacity = 5 << 20

// appliance returns a machine with one disk.
func appliance(t *testing.T, c ovf.Controller) *ovf.Appliance {
	t.Helper()
	disk := bytes.Repeat([]byte("some content of a disk\n"), capacity/23+1)[:capacity]
	var out bytes.Buffer
	v, err := ovf.WriteVMDK(t.Context(), &out, ovf.Source{Content: bytes.NewReader(disk), Size: capacity}, ovf.WriteOptions{ID: [16]byte{1}})
	if err != nil {
		t.Fatal(err)
	}
	return &ovf.Appliance{
		Name: "web-1.4.0", OS: ovf.Debian, CPUs: 2, Memory: 1 << 30,
		Disks:   []ovf.Disk{{VMDK: *v, Content: bytes.NewReader(out.Bytes()), Controller: c}},
		NICs:    []ovf.NIC{{Network: "VM Network"}},
		Product: &ovf.Product{Name: "web", Version: "1.4.0", Properties: []ovf.Property{{Key: "hostname", Type: "string", UserConfigurable: true}}},
	}
}

// pack writes an OVA to a file. SHA-1 is the one digest that the simulator verifies.
func pack(t *testing.T, a *ovf.Appliance) string {
	t.Helper()
	p, err := a.Package(t.Context(), ovf.Options{Manifest: ovf.SHA1})
	if err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	if err := p.WriteOVA(t.Context(), &out); err != nil {
		t.Fatal(err)
	}
	name := filepath.Join(t.TempDir(), "web.ova")
	if err := os.WriteFile(name, out.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
	return name
}

// load imports an OVA as govc does, its manifest verified.
func load(ctx context.Context, t *testing.T, c *vim25.Client, file string) (*types.ManagedObjectReference, error) {
	t.Helper()
	i := place(ctx, t, c)
	i.VerifyManifest = true
	i.Archive = &importer.TapeArchive{Path: file, Opener: importer.Opener{Client: c}}
	return i.Import(ctx, "*.ovf", importer.Options{})
}

// place returns an importer that knows where things go.
func place(ctx context.Context, t *testing.T, c *vim25.Client) *importer.Importer {
	t.Helper()
	f := find.NewFinder(c)
	dc, err := f.DefaultDatacenter(ctx)
	if err != nil {
		t.Fatal(err)
	}
	f.SetDatacenter(dc)
	ds, err := f.DefaultDatastore(ctx)
	if err != nil {
		t.Fatal(err)
	}
	pool, err := f.ResourcePool(ctx, "DC0_C0/Resources")
	if err != nil {
		t.Fatal(err)
	}
	folders, err := dc.Folders(ctx)
	if err != nil {
		t.Fatal(err)
	}
	return &importer.Importer{
		Client: c, Finder: f, Datacenter: dc, Datastore: ds, ResourcePool: pool, Folder: folders.VmFolder,
		Log: func(msg string) (int, error) { t.Log(strings.TrimSpace(msg)); return len(msg), nil },
	}
}

func TestVcsimImport(t *testing.T) {
	file := pack(t, appliance(t, ovf.LSILogic))
	simulator.Test(func(ctx context.Context, c *vim25.Client) {
		ref, err := load(ctx, t, c, file)
		if err != nil {
			t.Fatal(err)
		}
		var vm mo.VirtualMachine
		if err := object.NewVirtualMachine(c, *ref).Properties(ctx, *ref, []string{"name", "config"}, &vm); err != nil {
			t.Fatal(err)
		}
		if h := vm.Config.Hardware; vm.Name != "web-1.4.0" || h.NumCPU != 2 || h.MemoryMB != 1024 {
			t.Errorf("%q with %d CPUs and %d MB", vm.Name, h.NumCPU, h.MemoryMB)
		}
		list := object.VirtualDeviceList(vm.Config.Hardware.Device)
		disks := list.SelectByType((*types.VirtualDisk)(nil))
		if len(disks) != 1 || disks[0].(*types.VirtualDisk).CapacityInBytes != capacity {
			t.Errorf("disks: %v", disks)
		}
		if n := list.SelectByType((*types.VirtualE1000)(nil)); len(n) != 1 {
			t.Errorf("network cards: %v", n)
		}
		if n := list.SelectByType((*types.VirtualLsiLogicController)(nil)); len(n) != 1 {
			t.Errorf("controllers: %v", n)
		}
	})
}

// TestVcsimTwoDisks imports a machine whose first disk keeps nothing, and reads what is told of it.
func TestVcsimTwoDisks(t *testing.T) {
	a := appliance(t, ovf.LSILogic)
	a.Disks = append(a.Disks, appliance(t, ovf.LSILogic).Disks...)
	a.Disks[0].Immutable = true
	text, err := a.Descriptor()
	if err != nil {
		t.Fatal(err)
	}
	e, err := govmomi.Unmarshal(bytes.NewReader(text))
	if err != nil {
		t.Fatal(err)
	}
	for _, item := range e.VirtualSystem.VirtualHardware[0].Item {
		var told []string
		for _, c := range item.Config {
			told = append(told, c.Key+"="+c.Value)
		}
		want := ""
		if item.ElementName == "Hard Disk 1" {
			want = "backing.diskMode=independent_nonpersistent"
		}
		if got := strings.Join(told, " "); got != want {
			t.Errorf("of %s it is told %q, want %q", item.ElementName, got, want)
		}
	}
	file := pack(t, a)
	simulator.Test(func(ctx context.Context, c *vim25.Client) {
		ref, err := load(ctx, t, c, file)
		if err != nil {
			t.Fatal(err)
		}
		var vm mo.VirtualMachine
		if err := object.NewVirtualMachine(c, *ref).Properties(ctx, *ref, []string{"config"}, &vm); err != nil {
			t.Fatal(err)
		}
		disks := object.VirtualDeviceList(vm.Config.Hardware.Device).SelectByType((*types.VirtualDisk)(nil))
		if len(disks) != 2 || disks[0].(*types.VirtualDisk).CapacityInBytes != capacity || disks[1].(*types.VirtualDisk).CapacityInBytes != capacity {
			t.Errorf("disks: %v", disks)
		}
	})
}

func TestVcsimTampered(t *testing.T) {
	file := pack(t, appliance(t, ovf.LSILogic))
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	data[bytes.Index(data, []byte("KDMV"))+70_000] ^= 1
	if err := os.WriteFile(file, data, 0o600); err != nil {
		t.Fatal(err)
	}
	simulator.Test(func(ctx context.Context, c *vim25.Client) {
		if _, err := load(ctx, t, c, file); err == nil || !strings.Contains(err.Error(), "checksum") {
			t.Errorf("a tampered disk: %v", err)
		}
	})
}

// TestVcsimVMDK uploads a disk by itself, as govc import.vmdk does.
func TestVcsimVMDK(t *testing.T) {
	d := appliance(t, ovf.LSILogic).Disks[0]
	name := filepath.Join(t.TempDir(), "web.vmdk")
	data := make([]byte, d.Size)
	if _, err := d.Content.ReadAt(data, 0); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(name, data, 0o600); err != nil {
		t.Fatal(err)
	}
	if info, err := vmdk.Stat(name); err != nil || info.Capacity != capacity {
		t.Fatalf("%+v, %v", info, err)
	}
	simulator.Test(func(ctx context.Context, c *vim25.Client) {
		p := place(ctx, t, c)
		if err := vmdk.Import(ctx, c, name, p.Datastore, vmdk.ImportParams{
			Datacenter: p.Datacenter, Pool: p.ResourcePool, Folder: p.Folder,
		}); err != nil {
			t.Error(err)
		}
	})
}

// TestConfigSpec reads the universal appliance, which the simulator does not take for its AHCI.
func TestConfigSpec(t *testing.T) {
	b, err := appliance(t, ovf.AHCI).Descriptor()
	if err != nil {
		t.Fatal(err)
	}
	e, err := govmomi.Unmarshal(bytes.NewReader(b))
	if err != nil {
		t.Fatal(err)
	}
	s, err := e.ToConfigSpec()
	if err != nil {
		t.Fatal(err)
	}
	if s.Name != "web-1.4.0" || s.NumCPUs != 2 || s.MemoryMB != 1024 || s.Firmware != "efi" || s.GuestId != ovf.Debian.VMware {
		t.Errorf("%q, %d CPUs, %d MB, firmware %q, guest %q", s.Name, s.NumCPUs, s.MemoryMB, s.Firmware, s.GuestId)
	}
	var kinds []string
	for _, d := range s.DeviceChange {
		switch d.GetVirtualDeviceConfigSpec().Device.(type) {
		case *types.VirtualAHCIController:
			kinds = append(kinds, "ahci")
		case *types.VirtualDisk:
			kinds = append(kinds, "disk")
		case *types.VirtualE1000:
			kinds = append(kinds, "e1000")
		}
	}
	if got := strings.Join(kinds, " "); got != "ahci disk e1000" {
		t.Errorf("devices: %s", got)
	}
}
