package profiles

import (
	"fmt"
	"io/fs"
	"maps"
	"slices"
	"strings"

	"github.com/goldenisc/packer-plugin-isc/image"
)

func sortedKeys[V any](m map[string]V) []string { return slices.Sorted(maps.Keys(m)) }

const unitDir = "etc/systemd/system/"

// unit bakes a service as a systemd unit that is started at boot, in the sandbox of
// systemd.exec(5).
func (b *baker) unit(s *Service) error {
	text, err := b.unitText(s)
	if err != nil {
		return err
	}
	name := s.Name + ".service"
	if err := b.file(unitDir+name, 0o644, 0, []byte(text)); err != nil {
		return err
	}
	return b.link(unitDir+"multi-user.target.wants/"+name, "../"+name)
}

func (b *baker) link(name, target string) error {
	return ensure(b.root, image.Entry{Name: name, Mode: fs.ModeSymlink | 0o777, Target: target, ModTime: b.epoch}, nil)
}

// sandbox is what every service runs in, whatever it is.
var sandbox = []string{
	"NoNewPrivileges=yes",
	"ProtectSystem=strict",
	"ProtectHome=yes",
	"PrivateTmp=yes",
	"PrivateDevices=yes",
	"ProtectClock=yes",
	"ProtectControlGroups=yes",
	"ProtectHostname=yes",
	"ProtectKernelLogs=yes",
	"ProtectKernelModules=yes",
	"ProtectKernelTunables=yes",
	"LockPersonality=yes",
	"RestrictNamespaces=yes",
	"RestrictRealtime=yes",
	"RestrictSUIDSGID=yes",
	"SystemCallArchitectures=native",
	"SystemCallFilter=@system-service",
	"UMask=0077",
}

func (b *baker) unitText(s *Service) (string, error) {
	argv, err := words(s.Exec)
	if err != nil {
		return "", err
	}
	for i, w := range argv {
		argv[i] = unitQuote(w, true)
	}
	var t strings.Builder
	line := func(format string, args ...any) { fmt.Fprintf(&t, format+"\n", args...) }
	line("# Made by iscadm from the service %s of the image %s. Changes are drift.", s.Name, b.layout.Name)
	line("[Unit]")
	// A backslash at the end would continue the line.
	line("Description=%s", strings.TrimRight(strings.ReplaceAll(orElse(s.Description, s.Name), "%", "%%"), `\ `))
	line("Wants=network-online.target")
	after := []string{"network-online.target", "local-fs.target"}
	for _, a := range s.After {
		if !strings.Contains(a, ".") {
			a += ".service"
		}
		line("Requires=%s", a)
		after = append(after, a)
	}
	line("After=%s", strings.Join(after, " "))
	line("")
	line("[Service]")
	line("Type=exec")
	line("ExecStart=%s", strings.Join(argv, " "))
	if !s.root() {
		line("User=%s", s.User)
	}
	if s.Group != "" {
		line("Group=%s", s.Group)
	}
	line("WorkingDirectory=%s", strings.ReplaceAll(orElse(s.Directory, "/"), "%", "%%"))
	for _, k := range sortedKeys(s.Environment) {
		line("Environment=%s", unitQuote(k+"="+s.Environment[k], false))
	}
	if s.EnvironmentFile != "" {
		line("EnvironmentFile=%s", strings.ReplaceAll(s.EnvironmentFile, "%", "%%"))
	}
	line("Restart=on-failure")
	line("RestartSec=1")
	line("TimeoutSec=%d", s.timeout())
	line("")
	for _, l := range sandbox {
		line("%s", l)
	}
	line("RestrictAddressFamilies=%s", strings.Join(s.families(), " "))
	if slices.Contains(s.Privileges, "!proc_info") {
		line("ProtectProc=invisible")
	}
	if caps, bounded := s.capabilities(); bounded {
		line("CapabilityBoundingSet=%s", strings.Join(caps, " "))
		if !s.root() {
			line("AmbientCapabilities=%s", strings.Join(caps, " "))
		}
	} else if caps := s.withheld(); len(caps) > 0 {
		line("CapabilityBoundingSet=~%s", strings.Join(caps, " "))
	}
	for _, p := range b.layout.writable() {
		line("ReadWritePaths=-%s", strings.ReplaceAll(p, "%", "%%"))
	}
	if l := b.layout.Limits; l != nil {
		line("Slice=%s", sliceName)
		if n, err := ParseSize(l.Locked); err == nil {
			line("LimitMEMLOCK=%d", n)
		}
	}
	line("")
	line("[Install]")
	line("WantedBy=multi-user.target")
	line("")
	line("[X-ISC]")
	for _, p := range s.Listen {
		line("Listen=%s", p)
	}
	if s.Health != "" {
		line("Health=%s", s.Health)
	}
	return t.String(), nil
}

// families returns the address families of the sockets that a service may make. With netlink,
// programs list their own addresses.
func (s *Service) families() []string {
	if slices.Contains(s.Privileges, "!net_access") {
		return []string{"AF_UNIX"}
	}
	all := []string{"AF_UNIX", "AF_INET", "AF_INET6", "AF_NETLINK"}
	if slices.Contains(s.Privileges, "net_rawaccess") {
		all = append(all, "AF_PACKET")
	}
	return all
}

// sliceName is the slice that all services of an image share, and so its caps.
const sliceName = "isc.slice"

// slice bakes the caps of all services together as a slice (systemd.slice(5)).
func (b *baker) slice() error {
	l := b.layout.Limits
	if l == nil {
		return nil
	}
	var t strings.Builder
	line := func(format string, args ...any) { fmt.Fprintf(&t, format+"\n", args...) }
	line("# Made by iscadm from the limits of the image %s. Changes are drift.", b.layout.Name)
	line("[Unit]")
	line("Description=What all services of this image may use together")
	line("")
	line("[Slice]")
	l.caps(line)
	return b.file(unitDir+sliceName, 0o644, 0, []byte(t.String()))
}

// caps writes the caps of systemd.resource-control(5).
func (l *Limits) caps(line func(format string, args ...any)) {
	memory, err := ParseSize(l.Memory)
	if err == nil {
		line("MemoryMax=%d", memory)
	}
	// max_swap caps memory and swap together, as zone.max-swap does.
	if n, err := ParseSize(l.MaxSwap); err == nil {
		line("MemorySwapMax=%d", max(n-memory, 0))
	}
	// Tasks are threads: LWPs, where there is a cap on them.
	switch {
	case l.LWPs > 0:
		line("TasksMax=%d", l.LWPs)
	case l.Processes > 0:
		line("TasksMax=%d", l.Processes)
	}
	if l.CPUs > 0 {
		line("CPUQuota=%d%%", int(l.CPUs*100+0.5))
	}
	if l.Shares > 0 {
		line("CPUWeight=%d", min(max(l.Shares, 1), 10000))
	}
}

// writable returns the directories that services may write to: volumes, scratch space and what
// the spec calls mutable, up to the first pattern.
func (l *Layout) writable() []string {
	var all []string
	if l.Scratch != nil {
		all = append(all, l.Scratch.MountPoint())
	}
	for _, v := range l.Volumes {
		all = append(all, v.Path)
	}
	for _, m := range l.Mutables {
		for _, p := range m.Paths {
			fixed := p
			if i := strings.IndexAny(p, `*?[\`); i >= 0 {
				fixed = p[:strings.LastIndexByte(p[:i], '/')]
			}
			if fixed != "" {
				all = append(all, fixed)
			}
		}
	}
	slices.Sort(all)
	return slices.Compact(all)
}

// unitQuote quotes a word for a unit file (systemd.syntax(7), systemd.service(5)): specifiers
// start with %, variables of a command line with $.
func unitQuote(w string, command bool) string {
	w = strings.ReplaceAll(w, "%", "%%")
	if command {
		w = strings.ReplaceAll(w, "$", "$$")
	}
	plain := w != "" && !strings.ContainsAny(w, " \t\"'\\;#@!+|") && w[0] != '-' && w[0] != ':' || w != "" && isFlag(w)
	if plain {
		return w
	}
	return `"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(w) + `"`
}

// isFlag reports whether a word is a plain option or address, which need no quotes.
func isFlag(w string) bool {
	return !strings.ContainsFunc(w, func(r rune) bool {
		return (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && (r < '0' || r > '9') && !strings.ContainsRune("-_./:,=", r)
	})
}
