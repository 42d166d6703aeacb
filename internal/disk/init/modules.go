//go:build linux

package main

import (
	"os"
	"path"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// modules are those in the initrd.
type modules struct {
	base    []string // loaded at once, in order
	drivers []driver
	loaded  map[string]bool
	tried   map[string]bool // aliases of devices
}

// A driver is loaded if a device has an alias that matches.
type driver struct {
	pattern string
	load    []string // in order
}

// readModules reads /modules/base, a name on each line, and /modules/drivers, on each line a pattern
// and the names to load.
func readModules() (*modules, error) {
	m := &modules{loaded: map[string]bool{}, tried: map[string]bool{}}
	base, err := os.ReadFile("/modules/base")
	if err != nil {
		return nil, err
	}
	m.base = strings.Fields(string(base))
	drivers, err := os.ReadFile("/modules/drivers")
	if err != nil {
		return nil, err
	}
	for line := range strings.Lines(string(drivers)) {
		if f := strings.Fields(line); len(f) > 1 {
			m.drivers = append(m.drivers, driver{f[0], f[1:]})
		}
	}
	return m, nil
}

func (m *modules) loadBase() {
	for _, name := range m.base {
		m.load(name)
	}
}

// load loads one module. What fails is told; it may be one that this processor cannot use.
func (m *modules) load(name string) {
	if m.loaded[name] {
		return
	}
	m.loaded[name] = true
	f, err := os.Open(path.Join("/modules", name+".ko"))
	if err != nil {
		say(4, "module: %v", err)
		return
	}
	defer f.Close()
	if err := unix.FinitModule(int(f.Fd()), "", 0); err != nil && err != unix.EEXIST {
		say(6, "module %s: %v", name, err)
	}
}

// loadDrivers loads the drivers of the devices that are there. Buses appear as drivers are loaded,
// so it is called again and again.
func (m *modules) loadDrivers() {
	for _, bus := range []string{"acpi", "pci", "virtio", "vmbus", "xen"} {
		names, _ := filepath.Glob("/sys/bus/" + bus + "/devices/*/modalias")
		for _, name := range names {
			text, err := os.ReadFile(name)
			alias := strings.TrimSpace(string(text))
			if err != nil || alias == "" || m.tried[alias] {
				continue
			}
			m.tried[alias] = true
			for _, d := range m.drivers {
				if ok, _ := path.Match(d.pattern, alias); ok {
					for _, name := range d.load {
						m.load(name)
					}
				}
			}
		}
	}
}
