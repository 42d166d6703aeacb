package ovf

import (
	"fmt"
	"strconv"
)

// settingsVersion is that of VirtualBox 5.2: later ones read it, and it has firmware and all that
// is written here.
const settingsVersion = "1.16-linux"

var vboxControllers = map[Controller]struct{ name, kind string }{
	AHCI:     {"SATA", "AHCI"},
	IDE:      {"IDE", "PIIX4"},
	LSILogic: {"SCSI", "LsiLogic"},
	NVMe:     {"NVMe", "NVMe"},
}

var vboxCards = map[Card]string{E1000: "82540EM", Virtio: "virtio"}

// vboxMachine writes the machine in VirtualBox's own words, which is the only way to tell it of EFI
// (ovfreader.cpp has no word for firmware). If it is there, VirtualBox reads it instead of the
// hardware items, so it must say everything again. There is no path and no NVRAM in it, so the
// firmware finds \EFI\BOOT on the first disk; and no MAC address, so each import gets its own.
// The elements carry no prefix, as in VirtualBox's own exports: it compares local names.
func (a *Appliance) vboxMachine(x *xmlWriter) {
	attrs := []string{
		"ovf:required", "false", "version", settingsVersion, "uuid", "{" + a.uuid("machine") + "}", "name", a.Name,
	}
	if a.OS.VirtualBox != "" {
		attrs = append(attrs, "OSType", a.OS.VirtualBox)
	}
	x.open("vbox:Machine", append(attrs, "snapshotFolder", "Snapshots")...)
	x.text("ovf:Info", "The machine in VirtualBox's format")
	x.open("Hardware", "version", "2")
	x.open("CPU", "count", strconv.Itoa(a.CPUs))
	x.empty("PAE", "enabled", "true")
	x.empty("LongMode", "enabled", "true")
	x.close()
	x.empty("Memory", "RAMSize", strconv.FormatInt(a.Memory/mib, 10))
	x.empty("Firmware", "type", "EFI")
	x.open("Boot")
	x.empty("Order", "position", "1", "device", "HardDisk")
	for i := 2; i <= 4; i++ {
		x.empty("Order", "position", strconv.Itoa(i), "device", "None")
	}
	x.close()
	x.empty("Display", "VRAMSize", "16", "monitorCount", "1")
	x.open("BIOS")
	x.empty("ACPI", "enabled", "true")
	x.empty("IOAPIC", "enabled", "true")
	x.close()
	x.open("Network")
	for i, n := range a.NICs {
		x.open("Adapter", "slot", strconv.Itoa(i), "enabled", "true", "cable", "true", "type", vboxCards[n.Card])
		x.empty("NAT") // which needs nothing of the host; its user changes it
		x.close()
	}
	x.close()
	x.empty("RTC", "localOrUTC", "UTC")
	x.close()
	x.open("StorageControllers")
	place := a.places()
	written := map[Controller]bool{}
	for _, p := range place {
		c := p.bus.controller
		if written[c] {
			continue
		}
		written[c] = true
		v := vboxControllers[c]
		ports := 0
		for _, q := range place {
			if q.bus.controller == c {
				ports = max(ports, q.unit+1)
			}
		}
		switch c {
		case IDE:
			ports = 2
		case LSILogic:
			ports = 16
		}
		x.open("StorageController", "name", v.name, "type", v.kind, "PortCount", strconv.Itoa(ports),
			"useHostIOCache", strconv.FormatBool(c == IDE), "Bootable", "true")
		for i, q := range place {
			if q.bus.controller != c {
				continue
			}
			port, device := q.unit, 0
			if c == IDE {
				port, device = q.bus.number, q.unit
			}
			x.open("AttachedDevice", "type", "HardDisk", "port", strconv.Itoa(port), "device", strconv.Itoa(device))
			x.empty("Image", "uuid", fmt.Sprintf("{%s}", a.diskUUID(i)))
			x.close()
		}
		x.close()
	}
	x.close()
	x.close()
}
