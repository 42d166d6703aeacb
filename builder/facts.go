package builder

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path"
	"regexp"
	"slices"
	"strings"

	"github.com/goldenisc/packer-plugin-isc/image"
	"github.com/goldenisc/packer-plugin-isc/internal/hcltext"
	"github.com/goldenisc/packer-plugin-isc/profiles"
)

// Facts are what a root file system says of itself. What it does not say is empty.
type Facts struct {
	Source   string   // where it was read from, as a spec names it
	OS       string   // illumos, solaris, linux, freebsd
	Arch     string   // as GOARCH
	Release  string   // for people: "OmniOS v11 r151054", "Debian GNU/Linux 12 (bookworm)"
	Version  string   // to compare: "r151054", "12"
	Systemd  bool     // it has systemd
	Packages string   // the package system: ips, pkgsrc, dpkg, apk, rpm
	Daemons  []Daemon // well-known servers in it, by path
	// Services are what its manifests, profiles and units start at boot.
	Services []profiles.BootService
}

// A Daemon is a server program and where it listens by default.
type Daemon struct {
	Path   string // absolute
	Listen string // "22/tcp"
}

// daemons are servers that people find in bases without having asked for them.
var daemons = []Daemon{
	{"/usr/lib/inet/inetd", "any"},
	{"/usr/lib/smtp/sendmail/sendmail", "25/tcp"},
	{"/usr/lib/ssh/sshd", "22/tcp"},
	{"/usr/sbin/apache2", "80/tcp"},
	{"/usr/sbin/exim4", "25/tcp"},
	{"/usr/sbin/named", "53/udp"},
	{"/usr/sbin/nginx", "80/tcp"},
	{"/usr/sbin/postfix", "25/tcp"},
	{"/usr/sbin/rpcbind", "111/tcp"},
	{"/usr/sbin/smbd", "445/tcp"},
	{"/usr/sbin/sshd", "22/tcp"},
}

// packageSystems are told by a folder of theirs.
var packageSystems = []struct{ dir, name string }{
	{"var/pkg", "ips"},
	{"opt/local/etc/pkgin", "pkgsrc"},
	{"var/lib/dpkg", "dpkg"},
	{"lib/apk/db", "apk"},
	{"var/lib/rpm", "rpm"},
	{"usr/lib/sysimage/rpm", "rpm"},
}

// illumosIDs are the values of ID in os-release(5) of illumos distributions.
var illumosIDs = []string{"illumos", "omnios", "openindiana", "smartos", "tribblix", "helios"}

// isSolaris reports whether a root with services of smf(7) is Oracle's, by os-release(5) since 11.4, and by
// /etc/release before.
func isSolaris(id, release string) bool {
	return id == profiles.Solaris || id == "" && strings.HasPrefix(release, "Oracle Solaris")
}

// Inspect finds out what a tree is. A tree may lie, so it serves to catch mistakes, not attacks.
func Inspect(t *image.Tree) (Facts, error) {
	var f Facts
	osRelease, err := readSmall(t, "etc/os-release")
	if err == nil && osRelease == nil {
		osRelease, err = readSmall(t, "usr/lib/os-release")
	}
	if err != nil {
		return f, fmt.Errorf("inspect base: %w", err)
	}
	release, err := readSmall(t, "etc/release")
	if err != nil {
		return f, fmt.Errorf("inspect base: %w", err)
	}
	vars := parseOSRelease(osRelease)
	f.Release = cmp.Or(vars["PRETTY_NAME"], vars["NAME"])
	f.Version = vars["VERSION_ID"]
	if first := firstLine(release); f.Release == "" && first != "" {
		f.Release = first
	}
	if f.Version == "" {
		f.Version = versionInText.FindString(firstLine(release))
	}
	interpOS, arch, err := inspectPrograms(t)
	if err != nil {
		return f, fmt.Errorf("inspect base: %w", err)
	}
	f.Systemd = has(t, "usr/lib/systemd/systemd") || has(t, "lib/systemd/systemd")
	for _, p := range packageSystems {
		if has(t, p.dir) {
			f.Packages = p.name
			break
		}
	}
	switch id := vars["ID"]; {
	case isSolaris(id, firstLine(release)):
		f.OS = profiles.Solaris
	case has(t, "lib/svc/manifest") || slices.Contains(illumosIDs, id):
		f.OS = profiles.Illumos
	case id == "freebsd":
		f.OS = id
	case interpOS != "":
		f.OS = interpOS
	case id != "" || f.Packages == "dpkg" || f.Packages == "apk" || f.Packages == "rpm" || f.Systemd:
		f.OS = "linux"
	case release != nil:
		f.OS = profiles.Illumos
	}
	f.Arch = arch
	if profiles.HasSMF(f.OS) && (arch == "386" || arch == "" && has(t, "lib/amd64")) {
		f.Arch = "amd64" // much of /usr/bin is 32-bit there
	}
	for _, d := range daemons {
		if has(t, d.Path) {
			f.Daemons = append(f.Daemons, d)
		}
	}
	if slices.Contains(profiles.Platforms, f.OS) {
		if f.Services, err = profiles.BootServices(t, f.OS); err != nil && !profiles.AboutFile(err) {
			return f, fmt.Errorf("inspect base: %w", err)
		}
	}
	return f, nil
}

// versionInText finds "r151054", "2024.10" and "11.4" in the first line of /etc/release.
var versionInText = regexp.MustCompile(`\br[0-9]{6}[a-z]*\b|\b[0-9]+(\.[0-9]+)+\b|\b[0-9]{8}T[0-9]{6}Z\b`)

func firstLine(data []byte) string {
	line, _, _ := bytes.Cut(bytes.TrimSpace(data), []byte("\n"))
	return hcltext.Printable(strings.TrimSpace(string(line)))
}

// parseOSRelease reads the assignments of os-release(5).
func parseOSRelease(data []byte) map[string]string {
	vars := map[string]string{}
	for line := range strings.Lines(string(data)) {
		key, value, ok := strings.Cut(strings.TrimSpace(line), "=")
		if !ok || strings.HasPrefix(key, "#") {
			continue
		}
		if n := len(value); n >= 2 && (value[0] == '"' || value[0] == '\'') && value[n-1] == value[0] {
			value = unescape.Replace(value[1 : n-1])
		}
		vars[key] = hcltext.Printable(value)
	}
	return vars
}

// unescape undoes what os-release(5) asks for within quotes.
var unescape = strings.NewReplacer(`\"`, `"`, `\$`, `$`, `\\`, `\`, "\\`", "`")

// follow returns the entry that a name stands for once symbolic links are followed, or nil.
func follow(t *image.Tree, name string) *image.Entry {
	for range 20 {
		e, err := t.Stat(name)
		if err != nil {
			return nil
		}
		if e.Type() != fs.ModeSymlink {
			return e
		}
		name = e.Target
		if !strings.HasPrefix(name, "/") {
			name = path.Join("/", path.Dir(e.Name), name)
		}
	}
	return nil
}

func has(t *image.Tree, name string) bool { return follow(t, name) != nil }

// readSmall returns the content of a file of up to 64 KiB, and nothing for what is none.
func readSmall(t *image.Tree, name string) ([]byte, error) {
	e := follow(t, name)
	if e == nil || !e.IsRegular() || e.Size > 64<<10 {
		return nil, nil
	}
	return t.ReadFile(e.Name)
}

// inspectPrograms returns what the first program of the usual ones is made for.
func inspectPrograms(t *image.Tree) (os, arch string, err error) {
	names := []string{"bin/sh", "usr/bin/sh", "sbin/init", "usr/bin/ls", "bin/busybox"}
	more, err := t.Glob("usr/bin/*")
	if err != nil {
		return "", "", err
	}
	names = append(names, more[:min(len(more), 50)]...)
	for _, name := range names {
		e := follow(t, name)
		if e == nil || !e.IsRegular() {
			continue
		}
		f, err := t.Open(e.Name)
		if err != nil {
			return "", "", err
		}
		os, arch, err = inspectELF(io.NewSectionReader(f, 0, f.Size()))
		f.Close()
		if err == nil && arch != "" {
			return os, arch, nil
		}
		if err != nil && !errors.Is(err, errNotELF) {
			return "", "", err
		}
	}
	return "", "", nil
}

var errNotELF = errors.New("not a well-formed ELF file")

// machines are values of e_machine (ELF gABI, chapter 4).
var machines = map[uint16]string{3: "386", 21: "ppc64", 22: "s390x", 40: "arm", 43: "sparcv9", 62: "amd64", 183: "arm64", 243: "riscv64"}

// inspectELF reads the ELF header and the name of the interpreter, by which systems differ.
// debug/elf is not made for hostile files and reads far more.
func inspectELF(r io.ReaderAt) (os, arch string, err error) {
	head := make([]byte, 64)
	if n, err := r.ReadAt(head, 0); n < 52 {
		if err == io.EOF {
			err = errNotELF
		}
		return "", "", err
	}
	if string(head[:4]) != "\x7fELF" || head[4] < 1 || head[4] > 2 || head[5] < 1 || head[5] > 2 {
		return "", "", errNotELF
	}
	var order binary.ByteOrder = binary.LittleEndian
	if head[5] == 2 {
		order = binary.BigEndian
	}
	arch = machines[order.Uint16(head[18:])]
	wide := head[4] == 2
	phoff, phentsize, phnum := int64(order.Uint32(head[28:])), order.Uint16(head[42:]), order.Uint16(head[44:])
	size := 32
	if wide {
		phoff, phentsize, phnum, size = int64(order.Uint64(head[32:])), order.Uint16(head[54:]), order.Uint16(head[56:]), 56
	}
	if phoff < 0 || int(phentsize) != size || phnum > 128 {
		return "", arch, nil
	}
	table := make([]byte, size*int(phnum))
	if n, _ := r.ReadAt(table, phoff); n < len(table) {
		return "", arch, nil
	}
	for ; len(table) > 0; table = table[size:] {
		const interp = 3 // PT_INTERP
		if order.Uint32(table) != interp {
			continue
		}
		off, length := int64(order.Uint32(table[4:])), uint64(order.Uint32(table[16:]))
		if wide {
			off, length = int64(order.Uint64(table[8:])), order.Uint64(table[32:])
		}
		name := make([]byte, min(length, 256))
		if off < 0 {
			break
		}
		n, _ := r.ReadAt(name, off)
		return interpreterOS(string(bytes.TrimRight(name[:n], "\x00"))), arch, nil
	}
	return "", arch, nil
}

func interpreterOS(name string) string {
	switch base := path.Base(name); {
	case base == "ld.so.1" && (strings.HasPrefix(name, "/lib") || strings.HasPrefix(name, "/usr/lib")):
		return "illumos"
	case strings.HasPrefix(base, "ld-elf"):
		return "freebsd"
	case strings.HasPrefix(base, "ld-linux"), strings.HasPrefix(base, "ld-musl"), base == "ld64.so.1", base == "ld64.so.2":
		return "linux"
	}
	return ""
}

// CheckBase compares the base with what the spec says: its system, its architecture and, if
// base.release is given, that it is not newer. All that differs is in the error.
func (s *Spec) CheckBase(f Facts) error {
	is := fmt.Sprintf("base %q", s.Base.Source)
	if f.Release != "" {
		is += " (" + f.Release + ")"
	}
	var errs []error
	if f.OS != "" && f.OS != s.Image.OS {
		errs = append(errs, fmt.Errorf("%s is a %s system: image.os says %q", is, f.OS, s.Image.OS))
	}
	if f.Arch != "" && f.Arch != s.Image.Arch {
		errs = append(errs, fmt.Errorf("%s holds %s programs: image.arch says %q", is, f.Arch, s.Image.Arch))
	}
	if s.Base.Release != "" {
		switch newer, err := newerRelease(f.Version, s.Base.Release); {
		case err != nil:
			errs = append(errs, fmt.Errorf("%s: base.release: %w", is, err))
		case newer:
			errs = append(errs, fmt.Errorf("%s is release %s: newer than base.release, %q", is, f.Version, s.Base.Release))
		}
	}
	return errors.Join(errs...)
}

var digits = regexp.MustCompile(`[0-9]+`)

// newerRelease compares the numbers in two names of releases of one system, as far as the
// declared one goes: 12.4 is not newer than 12.
func newerRelease(version, declared string) (bool, error) {
	if version == "" {
		return false, errors.New("the base does not say its release")
	}
	v, d := digits.FindAllString(version, -1), digits.FindAllString(declared, -1)
	prefix := func(s string) string { return strings.ToLower(s[:strings.IndexAny(s+"0", "0123456789")]) }
	if len(v) == 0 || len(d) == 0 || prefix(version) != prefix(declared) {
		return false, fmt.Errorf("%q cannot be compared with the base's release %q", declared, version)
	}
	for i := range min(len(v), len(d)) {
		a, b := strings.TrimLeft(v[i], "0"), strings.TrimLeft(d[i], "0")
		if c := cmp.Or(cmp.Compare(len(a), len(b)), cmp.Compare(a, b)); c != 0 {
			return c > 0, nil
		}
	}
	return false, nil
}
