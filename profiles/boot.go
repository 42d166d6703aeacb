package profiles

import (
	"errors"
	"fmt"
	"io/fs"
	"path"
	"slices"
	"strings"

	"github.com/goldenisc/packer-plugin-isc/image"
)

// A BootService is what starts at boot, as files say: services of SMF and units of systemd.
type BootService struct {
	ID    string   `json:"id"`              // FMRI, or unit
	Ports []string `json:"ports,omitempty"` // that it opens to others, "22/tcp", as far as is known
	// Exposure is that of systemd-analyze(1), security, from 0.0 to 10.0, of units that run in the sandbox
	// of a spec.
	Exposure string `json:"exposure,omitempty"`

	from origin // of the ports
}

// An origin says how far ports are known.
type origin int

const (
	usual    origin = iota // what the server opens unless it is configured otherwise
	stated                 // by the service or its configuration
	declared               // by the spec that made the service
)

// BootServices returns what starts at boot, sorted by id, with the ports that it opens: those that
// the service states (inetd(8), sockets of systemd, services of specs) and those that servers are
// known for. A root that says nothing of services has none.
func BootServices(root Root, os string) ([]BootService, error) {
	all, _, err := bootServices(root, os)
	return all, err
}

func bootServices(root Root, os string) ([]BootService, []Finding, error) {
	if os == Linux {
		all, err := bootUnits(root)
		return all, nil, err
	}
	smf, err := ReadSMF(root)
	if err != nil {
		return nil, nil, err
	}
	all, err := smf.boot(root)
	return all, smf.Bad, err
}

// bootGlobs are what BootServices reads.
func bootGlobs(os string) []string {
	if os == Linux {
		var all []string
		for _, dir := range append([]string{"etc/systemd/system"}, unitDirs...) {
			all = append(all, dir+"/*", dir+"/*/*")
		}
		return slices.Concat(all, sshdGlobs, []string{"etc/services"})
	}
	return slices.Concat(manifestGlobs, profileFiles, sshdGlobs, []string{"etc/svc/profile/*.xml", "etc/inet/services", "etc/services"})
}

// known are the ports of servers by service, or instance of one, or unit without suffix.
var known = map[string][]string{
	"application/cups/scheduler":      {"631/tcp"},
	"application/management/net-snmp": {"161/udp"},
	"network/dhcp-server":             {"67/udp"},
	"network/dns/multicast":           {"5353/udp"},
	"network/dns/server":              {"53/tcp", "53/udp"},
	"network/http":                    {"80/tcp"},
	"network/nfs/server":              {"2049/tcp"},
	"network/ntp":                     {"123/udp"},
	"network/rpc/bind":                {"111/tcp", "111/udp"},
	"network/slp":                     {"427/tcp", "427/udp"},
	"network/smb/server":              {"445/tcp"},
	"network/smtp":                    {"25/tcp", "587/tcp"},
	"network/ssh":                     {"22/tcp"},
	"system/rad:remote":               {"12302/tcp"}, // of Solaris
	"system/system-log":               {"514/udp"},
	"system/webui/server":             {"6787/tcp"}, // of Solaris

	"apache2":         {"80/tcp"},
	"avahi-daemon":    {"5353/udp"},
	"bind9":           {"53/tcp", "53/udp"},
	"chrony":          {"323/udp"},
	"cups":            {"631/tcp"},
	"exim4":           {"25/tcp"},
	"named":           {"53/tcp", "53/udp"},
	"nfs-server":      {"2049/tcp"},
	"nginx":           {"80/tcp"},
	"ntp":             {"123/udp"},
	"ntpsec":          {"123/udp"},
	"postfix":         {"25/tcp"},
	"rpcbind":         {"111/tcp", "111/udp"},
	"smbd":            {"445/tcp"},
	"snmpd":           {"161/udp"},
	"ssh":             {"22/tcp"},
	"sshd":            {"22/tcp"},
	"vsftpd":          {"21/tcp"},
	"xinetd":          {"any"},
	"openbsd-inetd":   {"any"},
	"systemd-resolve": {},
}

// silent are properties that keep a server from answering others: a service, group/name and value.
var silent = map[string][3]string{
	"network/rpc/bind":  {"config", "local_only", "true"},
	"network/smtp":      {"config", "local_only", "true"},
	"system/system-log": {"config", "log_from_remote", "false"},
}

func (s *SMF) boot(root Root) ([]BootService, error) {
	var all []BootService
	var names map[string]string
	for _, name := range s.Services() {
		svc := s.services[name]
		for i := range svc.Instances {
			inst := &svc.Instances[i]
			if !s.enabled(svc, inst) {
				continue
			}
			b := BootService{ID: "svc:/" + name + ":" + inst.Name}
			switch quiet, ok := silent[name]; {
			case strings.HasPrefix(svc.Restarter, "svc:/network/inetd"):
				if names == nil {
					var err error
					if names, err = portNames(root); err != nil {
						return nil, err
					}
				}
				b.Ports, b.from = s.inetd(svc, inst, names), stated
			case s.value(svc, inst, "isc", "listen") != "":
				b.Ports, b.from = strings.Fields(s.value(svc, inst, "isc", "listen")), declared
			case ok && s.value(svc, inst, quiet[0], quiet[1]) == quiet[2]:
			case name == "network/ssh":
				var err error
				if b.Ports, err = sshPorts(root); err != nil {
					return nil, err
				}
				b.from = stated
			default:
				ports, ok := known[name+":"+inst.Name]
				if !ok {
					ports = known[name]
				}
				b.Ports = slices.Clone(ports)
			}
			all = append(all, b)
		}
	}
	slices.SortFunc(all, func(a, b BootService) int { return strings.Compare(a.ID, b.ID) })
	// A manifest that is there twice, in lib and in var, brings its instances twice.
	return slices.CompactFunc(all, func(a, b BootService) bool { return a.ID == b.ID }), nil
}

// inetd returns the ports of a service of inetd(8), by number if the root knows it.
func (s *SMF) inetd(svc *SMFService, inst *SMFInstance, names map[string]string) []string {
	name := s.value(svc, inst, "inetd", "name")
	var ports []string
	for _, proto := range strings.FieldsFunc(s.value(svc, inst, "inetd", "proto"), func(r rune) bool { return r == ' ' || r == ',' }) {
		proto = strings.TrimRight(proto, "6only")
		if s.value(svc, inst, "inetd", "isrpc") == "true" {
			ports = append(ports, "rpc "+name)
			continue
		}
		port := name + "/" + proto
		ports = append(ports, orElse(names[port], port))
	}
	slices.Sort(ports)
	return slices.Compact(ports)
}

// portNames reads services(5): "ssh/tcp" is "22/tcp".
func portNames(root Root) (map[string]string, error) {
	names := map[string]string{}
	for _, file := range []string{"etc/inet/services", "etc/services"} {
		text, err := readText(root, file)
		if err != nil {
			return nil, err
		}
		for _, line := range lines(text) {
			line, _, _ = strings.Cut(line, "#")
			f := strings.Fields(line)
			if len(f) < 2 {
				continue
			}
			_, proto, _ := strings.Cut(f[1], "/")
			for _, n := range append(f[2:], f[0]) {
				names[n+"/"+proto] = f[1]
			}
		}
	}
	return names, nil
}

// bootTargets are the targets that a start reaches, directly or not.
var bootTargets = []string{
	"basic.target", "default.target", "getty.target", "graphical.target", "local-fs.target", "multi-user.target", "network.target",
	"network-online.target", "paths.target", "remote-fs.target", "sockets.target", "sysinit.target", "timers.target",
}

// bootUnits returns the services, sockets and timers that boot targets want.
func bootUnits(root Root) ([]BootService, error) {
	dirs := append([]string{"etc/systemd/system"}, unitDirs...)
	units := map[string]bool{}
	for _, dir := range dirs {
		for _, target := range bootTargets {
			for _, kind := range []string{".wants", ".requires"} {
				names, err := root.Glob(dir + "/" + target + kind + "/*")
				if err != nil {
					return nil, err
				}
				for _, n := range names {
					units[path.Base(n)] = true
				}
			}
		}
	}
	var all []BootService
	for _, unit := range sortedKeys(units) {
		if !slices.Contains([]string{".service", ".socket", ".timer", ".path"}, path.Ext(unit)) {
			continue
		}
		text, masked, err := unitFile(root, dirs, unit)
		if err != nil {
			return nil, err
		}
		if masked {
			continue
		}
		changes, err := dropIns(root, dirs, unit)
		if err != nil {
			return nil, err
		}
		b := BootService{ID: unit}
		b.Ports, b.from = unitPorts(text + changes)
		if changes == "" {
			b.Exposure = exposure(text)
		}
		// On Ubuntu a generator gives the socket the ports of the server's configuration, if that says any.
		generated := false
		if unit == "ssh.socket" {
			if generated, err = applicable(root, &Method{Needs: []string{"usr/lib/systemd/system-generators/sshd-socket-generator"}}); err != nil {
				return nil, err
			}
		}
		name, service := strings.CutSuffix(unit, ".service")
		if service && b.Ports == nil {
			b.Ports = slices.Clone(known[name])
		}
		if generated || service && b.from == usual && (name == "ssh" || name == "sshd") {
			if b.Ports, err = sshPorts(root); err != nil {
				return nil, err
			}
			b.from = stated
		}
		all = append(all, b)
	}
	return all, nil
}

// unitFile returns the text of a unit, of the first directory that has it. A template is the unit of
// its instances.
func unitFile(root Root, dirs []string, unit string) (text string, masked bool, err error) {
	names := []string{unit}
	if at := strings.IndexByte(unit, '@'); at > 0 {
		names = append(names, unit[:at+1]+path.Ext(unit))
	}
	for _, name := range names {
		for _, dir := range dirs {
			file := dir + "/" + name
			e, err := root.Stat(file)
			if errors.Is(err, fs.ErrNotExist) {
				continue
			}
			if err != nil {
				return "", false, err
			}
			if e.Type() == fs.ModeSymlink && e.Target == "/dev/null" || e.IsRegular() && e.Size == 0 {
				return "", true, nil
			}
			target, err := follow(root, file)
			if err != nil {
				return "", false, err
			}
			if e, err = root.Stat(target); err != nil || !e.IsRegular() || e.Size > maxText {
				return "", false, nil // a link to a unit that is not there starts nothing known
			}
			text, err = readText(root, target)
			return text, false, err
		}
	}
	return "", false, nil
}

// dropIns returns what files beside a unit change of it, in the order that counts: by name, and of two of one
// name that of the first directory.
func dropIns(root Root, dirs []string, unit string) (string, error) {
	files := map[string]string{}
	for _, dir := range dirs {
		names, err := root.Glob(dir + "/" + globQuote(unit) + ".d/*.conf")
		if err != nil {
			return "", err
		}
		for _, n := range names {
			if base := path.Base(n); files[base] == "" {
				files[base] = n
			}
		}
	}
	text := ""
	for _, base := range sortedKeys(files) {
		name, err := follow(root, files[base])
		if err != nil {
			return "", err
		}
		e, err := root.Stat(name)
		if errors.Is(err, fs.ErrNotExist) || err == nil && (!e.IsRegular() || e.Size > maxText) {
			continue // such as /dev/null, which takes the one of another directory away
		}
		if err != nil {
			return "", err
		}
		more, err := readText(root, name)
		if err != nil {
			return "", err
		}
		text += "\n" + more
	}
	return text, nil
}

// unitPorts returns the ports that a unit states (systemd.socket(5), and Listen of our services).
// Sockets of the machine itself are none.
func unitPorts(text string) (ports []string, from origin) {
	for _, line := range lines(text) {
		key, value, _ := strings.Cut(strings.TrimSpace(line), "=")
		value = strings.TrimSpace(value)
		switch key {
		case "Listen":
			if p, err := ParsePort(value); err == nil {
				ports, from = append(ports, p.String()), declared
			}
		case "ListenStream", "ListenDatagram":
			if value == "" { // takes back what was said before
				ports, from = nil, usual
			}
			if strings.HasPrefix(value, "/") || strings.HasPrefix(value, "@") || strings.HasPrefix(value, "vsock:") ||
				strings.HasPrefix(value, "127.") || strings.HasPrefix(value, "[::1]") {
				continue
			}
			number := value[strings.LastIndexByte(value, ':')+1:]
			proto := map[string]string{"ListenStream": "tcp", "ListenDatagram": "udp"}[key]
			if p, err := ParsePort(number + "/" + proto); err == nil {
				ports, from = append(ports, p.String()), stated
			}
		}
	}
	slices.Sort(ports)
	return slices.Compact(ports), from
}

// The control of what the site's own services need.
var startControls = []Control{{
	ID:    "C11",
	Title: "What services start is there",
	Why: "A service whose program or user is missing, or whose port another one has, ends in maintenance on every instance; " +
		"a manifest that cannot be read is not imported, and nobody is told.",
	On: map[string]Method{
		Illumos: {
			How:   "manifests and profiles can be read; programs and users of lib/svc/manifest/site are in the image; no service of a spec has a port of another one",
			Globs: append(bootGlobs(Illumos), "etc/svc/profile/**", "etc/passwd"), Check: checkManifests,
		},
		Linux: {
			How:   "programs and users of the services in etc/systemd/system are in the image; no service of a spec has a port of another one",
			Globs: append(bootGlobs(Linux), "etc/passwd"), Check: checkUnits,
		},
	},
}}

func checkManifests(root Root, _ *Params) (Inspection, error) {
	smf, err := ReadSMF(root)
	if err != nil {
		return Inspection{}, err
	}
	in := Inspection{Findings: smf.Bad}
	for _, name := range smf.Services() {
		svc := smf.services[name]
		if !strings.HasPrefix(name, "site/") {
			continue
		}
		if err := in.startable(root, "svc:/"+name, svc.Start, svc.User); err != nil {
			return in, err
		}
	}
	services, err := smf.boot(root)
	in.sharedPorts(services)
	return in, err
}

func checkUnits(root Root, _ *Params) (Inspection, error) {
	var in Inspection
	err := each(root, "etc/systemd/system/*.service", func(e *image.Entry) error {
		if !e.IsRegular() || e.Size > maxText {
			return nil
		}
		text, err := readText(root, e.Name)
		if err != nil {
			return err
		}
		var exec, user string
		for _, line := range lines(text) {
			if v, ok := strings.CutPrefix(line, "ExecStart="); ok {
				exec = strings.TrimLeft(v, "@-:+!")
			}
			if v, ok := strings.CutPrefix(line, "User="); ok {
				user = v
			}
		}
		return in.startable(root, path.Base(e.Name), exec, user)
	})
	if err != nil {
		return in, err
	}
	services, err := bootUnits(root)
	in.sharedPorts(services)
	return in, err
}

// sharedPorts finds services of a spec whose ports another service opens as well. Where that one does
// so unless its configuration says otherwise, which nobody knows here, it is a note. A socket is there
// for the service of its name.
func (in *Inspection) sharedPorts(services []BootService) {
	name := func(id string) string { return strings.TrimSuffix(strings.TrimSuffix(id, ".socket"), ".service") }
	for i, ours := range services {
		if ours.from != declared {
			continue
		}
		for j, other := range services {
			if name(other.ID) == name(ours.ID) || other.from == declared && j < i {
				continue
			}
			for _, port := range ours.Ports {
				if !slices.Contains(other.Ports, port) {
					continue
				}
				if other.from == usual {
					in.Notes = append(in.Notes, Finding{Problem: fmt.Sprintf("%s opens %s, as %s does unless it is configured otherwise", ours.ID, port, other.ID)})
				} else {
					in.Findings = append(in.Findings, Finding{Problem: fmt.Sprintf("%s and %s both open %s", ours.ID, other.ID, port)})
				}
			}
		}
	}
}

// startable finds a program or a user of a service that is missing. Below a folder that the image
// does not have at all, such as /usr of the host, nothing is known.
func (in *Inspection) startable(root Root, service, exec, user string) error {
	argv, err := words(exec)
	if err == nil && len(argv) > 0 && strings.HasPrefix(argv[0], "/") && !strings.ContainsAny(argv[0], "%$") {
		name := strings.TrimPrefix(argv[0], "/")
		top, _, _ := strings.Cut(name, "/")
		known, err := exists(root, top)
		if err != nil {
			return err
		}
		target, err := follow(root, name)
		if err != nil {
			return err
		}
		switch e, err := root.Stat(target); {
		case errors.Is(err, fs.ErrNotExist):
			if known {
				in.Findings = append(in.Findings, Finding{name, "is missing: " + service + " starts it"})
			}
		case err != nil:
			return err
		case !e.IsRegular() || e.Mode&0o111 == 0:
			in.Findings = append(in.Findings, Finding{target, fmt.Sprintf("is no program that can be run (%v): %s starts it", e.Mode, service)})
		}
	}
	if user == "" || user == "root" || strings.ContainsAny(user, "%0123456789") {
		return nil
	}
	passwd, err := readText(root, "etc/passwd")
	if err != nil || passwd == "" {
		return err
	}
	if !slices.ContainsFunc(records(passwd), func(f []string) bool { return f[0] == user }) {
		in.Findings = append(in.Findings, Finding{"etc/passwd", "has no user " + user + ": " + service + " runs as it"})
	}
	return nil
}

// A ServiceChange is a service that one image starts at boot and another does not, or that opens
// other ports.
type ServiceChange struct {
	ID       string
	Old, New *BootService // nil where it is not started
}

func (c ServiceChange) String() string {
	switch {
	case c.Old == nil:
		return "started at boot" + opens(c.New)
	case c.New == nil:
		return "no longer started at boot"
	}
	return fmt.Sprintf("opens %s → %s", orElse(strings.Join(c.Old.Ports, " "), "nothing"), orElse(strings.Join(c.New.Ports, " "), "nothing"))
}

func opens(b *BootService) string {
	if len(b.Ports) == 0 {
		return ""
	}
	return ", opens " + strings.Join(b.Ports, " ")
}

// CompareServices returns how the services that start at boot differ, sorted by id.
func CompareServices(old, now []BootService) []ServiceChange {
	by := func(all []BootService) map[string]*BootService {
		m := map[string]*BootService{}
		for i := range all {
			m[all[i].ID] = &all[i]
		}
		return m
	}
	before, after := by(old), by(now)
	var changes []ServiceChange
	for id, b := range before {
		if a := after[id]; a == nil || !slices.Equal(a.Ports, b.Ports) {
			changes = append(changes, ServiceChange{id, b, a})
		}
	}
	for id, a := range after {
		if before[id] == nil {
			changes = append(changes, ServiceChange{id, nil, a})
		}
	}
	slices.SortFunc(changes, func(a, b ServiceChange) int { return strings.Compare(a.ID, b.ID) })
	return changes
}
