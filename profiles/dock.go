package profiles

import (
	"fmt"
	"slices"
	"strings"

	"github.com/goldenisc/packer-plugin-isc/image"
)

// A Dock is what a host has to provide to an instance of an image: what the image itself cannot
// see to. Sizes are bytes; zero means that there is no cap.
type Dock struct {
	Schema int    `json:"schema"` // 1
	Name   string `json:"name"`   // of the image
	OS     string `json:"os"`

	Memory    int64   `json:"memory,omitempty"`
	Swap      int64   `json:"swap,omitempty"` // memory and swap together, as zone.max-swap
	Locked    int64   `json:"locked,omitempty"`
	Processes int     `json:"processes,omitempty"`
	LWPs      int     `json:"lwps,omitempty"`
	CPUs      float64 `json:"cpus,omitempty"`
	Shares    int     `json:"shares,omitempty"`

	Inbound  []string `json:"inbound"`  // ports to let in, "8080/tcp"; all else is dropped
	Outbound []string `json:"outbound"` // ports to let out

	Scratch       *Space         `json:"scratch,omitempty"`
	EncryptedSwap int64          `json:"encryptedSwap,omitempty"` // bytes of swap whose key dies at shutdown
	Volumes       []image.Volume `json:"volumes,omitempty"`

	SecurityFlags  []string          `json:"securityFlags,omitempty"`  // security-flags(7) of the zone
	DropPrivileges []string          `json:"dropPrivileges,omitempty"` // of limitpriv
	ExclusiveIP    bool              `json:"exclusiveIP,omitempty"`
	Controls       []DockRequirement `json:"controls,omitempty"`
	// Files are the rules and commands of [Layout.NetworkFiles] and [Layout.Detached] of the default
	// brand, by name.
	Files map[string]string `json:"files,omitempty"`
}

// A Space is a file system that the host gives room for.
type Space struct {
	Path string `json:"path"`
	Size int64  `json:"size"` // bytes
}

// A DockRequirement is a control that the host has to keep.
type DockRequirement struct {
	ID      string `json:"id"`
	Title   string `json:"title"`
	Require string `json:"require"`
}

// Dock returns the JSON of what a host has to provide for the layout and the controls of the
// selection, which may be nil. The bytes depend on these only.
func (l *Layout) Dock(s *Selection) ([]byte, error) {
	r := &Dock{Schema: 1, Name: l.Name, OS: l.OS, Inbound: l.Inbound(), Outbound: []string{}}
	if l.Network != nil {
		r.Outbound = slices.Concat(r.Outbound, l.Network.Outbound)
	}
	z := s.zone(l)
	r.SecurityFlags, r.DropPrivileges, r.ExclusiveIP = z.Flags, z.Drop, z.Exclusive
	r.Processes, r.LWPs = z.Processes, z.LWPs
	if err := r.limits(l.Limits); err != nil {
		return nil, err
	}
	var err error
	if sc := l.Scratch; sc != nil {
		r.Scratch = &Space{Path: sc.MountPoint()}
		if r.Scratch.Size, err = ParseSize(sc.Size); err != nil {
			return nil, fmt.Errorf("scratch: %w", err)
		}
	}
	if l.Swap != nil {
		if r.EncryptedSwap, err = ParseSize(l.Swap.Size); err != nil {
			return nil, fmt.Errorf("swap: %w", err)
		}
	}
	if r.Volumes, err = l.volumes(); err != nil {
		return nil, err
	}
	if r.Files, err = l.NetworkFiles(); err != nil {
		return nil, err
	}
	if l.OS != Solaris { // which has a document type of its own
		detached, err := l.Detached(s, "")
		if err != nil {
			return nil, err
		}
		r.Files[DetachedConfig] = string(detached)
	}
	if s != nil {
		for _, c := range s.Controls() {
			if m := c.On[s.os]; m.Dock != "" {
				r.Controls = append(r.Controls, DockRequirement{c.ID, c.Title, m.Dock})
			} else if m.Zone != nil {
				r.Controls = append(r.Controls, DockRequirement{c.ID, c.Title, m.How})
			} else if m.Live != "" {
				r.Controls = append(r.Controls, DockRequirement{c.ID, c.Title, m.byHand()})
			}
		}
	}
	return marshal(r)
}

func (r *Dock) limits(l *Limits) error {
	if l == nil {
		return nil
	}
	for _, s := range []struct {
		name, value string
		to          *int64
	}{{"memory", l.Memory, &r.Memory}, {"max_swap", l.MaxSwap, &r.Swap}, {"locked", l.Locked, &r.Locked}} {
		if s.value == "" {
			continue
		}
		n, err := ParseSize(s.value)
		if err != nil {
			return fmt.Errorf("limits: %s: %w", s.name, err)
		}
		*s.to = n
	}
	if l.Processes > 0 {
		r.Processes = l.Processes
	}
	if l.LWPs > 0 {
		r.LWPs = l.LWPs
	}
	r.CPUs, r.Shares = l.CPUs, l.Shares
	return nil
}

// Inbound returns the ports that the dock lets in: those that the network block allows, else
// those that the services listen on. It is sorted and not nil.
func (l *Layout) Inbound() []string {
	ports := []string{}
	if l.Network != nil && l.Network.Allow != nil {
		ports = append(ports, l.Network.Allow...)
	} else {
		for _, s := range l.Services {
			ports = append(ports, s.Listen...)
		}
	}
	slices.Sort(ports)
	return slices.Compact(ports)
}

func (l *Layout) volumes() ([]image.Volume, error) {
	var all []image.Volume
	for _, v := range l.Volumes {
		iv := image.Volume{Path: v.Path}
		if v.Size != "" {
			n, err := ParseSize(v.Size)
			if err != nil {
				return nil, fmt.Errorf("volume %q: %w", v.Path, err)
			}
			iv.Size = n
		}
		all = append(all, iv)
	}
	return all, nil
}

// Summary returns the requirements as lines for people.
func (d *Dock) Summary() []string {
	var all []string
	add := func(name, format string, args ...any) {
		all = append(all, fmt.Sprintf("%-10s ", name)+fmt.Sprintf(format, args...))
	}
	size := func(name string, n int64) {
		if n > 0 {
			add(name, "%s", scaled(n))
		}
	}
	count := func(name string, n int) {
		if n > 0 {
			add(name, "%d", n)
		}
	}
	size("memory", d.Memory)
	size("swap", d.Swap)
	size("locked", d.Locked)
	count("processes", d.Processes)
	count("lwps", d.LWPs)
	if d.CPUs > 0 {
		add("cpus", "%g", d.CPUs)
	}
	count("shares", d.Shares)
	add("inbound", "%s", orElse(strings.Join(d.Inbound, " "), "nothing"))
	add("outbound", "%s", orElse(strings.Join(d.Outbound, " "), "nothing"))
	if d.Scratch != nil {
		add("scratch", "%s %s", d.Scratch.Path, scaled(d.Scratch.Size))
	}
	size("swap space", d.EncryptedSwap)
	for _, v := range d.Volumes {
		if v.Size > 0 {
			add("volume", "%s %s", v.Path, scaled(v.Size))
		} else {
			add("volume", "%s", v.Path)
		}
	}
	if len(d.SecurityFlags) > 0 {
		add("flags", "%s", strings.Join(d.SecurityFlags, " "))
	}
	for _, c := range d.Controls {
		add(c.ID, "%s", c.Require)
	}
	return all
}

// ParseDock decodes dock requirements strictly.
func ParseDock(data []byte) (*Dock, error) {
	r := new(Dock)
	if err := image.DecodeStrict(data, r); err != nil {
		return nil, fmt.Errorf("dock requirements: %w", err)
	}
	if r.Schema != 1 {
		return nil, fmt.Errorf("dock requirements: schema %d: this program knows 1", r.Schema)
	}
	return r, nil
}
