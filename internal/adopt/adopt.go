// Package adopt proposes specs for services that run already: of a root or a machine, a unit or a service of
// SMF becomes the service of a spec, with the files that it is made of and what a profile would do to it.
//
//	a, err := adopt.Adopt(root, facts, "web", selection, today)
//	text := a.Spec("isc-baseline")
package adopt

import (
	"errors"
	"fmt"
	"io/fs"
	"path"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/goldenisc/packer-plugin-isc/builder"
	"github.com/goldenisc/packer-plugin-isc/image"
	"github.com/goldenisc/packer-plugin-isc/profiles"
)

// An Adoption is what a root says of one of its services, for a spec that makes an image of it. It is
// where somebody starts from who knows the service: files say neither what a program opens when it
// runs nor what it would miss.
type Adoption struct {
	Facts   builder.Facts
	Name    string           // of the service in the spec
	Defined string           // the unit or manifest
	Service profiles.Service // as far as it can be carried over
	Users   []profiles.User  // that the service runs as, as the root has them
	NoUser  bool             // the root has no such user: its number is a proposal
	Files   []AdoptedFile    // what the service is made of, by path
	Volumes []string         // folders that it keeps data in
	// Writable are other folders that it writes to, and Made those that its manager makes at start.
	Writable, Made []string
	Notes          []string // what could not be carried over, or found
	// Broken are controls that fail even once the profile is applied, Edited the files of the service
	// that the profile changes.
	Broken []profiles.Result
	Edited []string
}

// An AdoptedFile is a file that the service needs.
type AdoptedFile struct {
	Path    string `json:"path"`              // absolute
	Why     string `json:"why"`               // "program", "library", "configuration", …
	Package string `json:"package,omitempty"` // that owns it, if one is known to
}

// Globs are the patterns of small files that [Adopt] reads: what has to be fetched of a live
// machine first.
var Globs = []string{
	"etc/systemd/system/*", "etc/systemd/system/*/*", "usr/lib/systemd/system/*", "lib/systemd/system/*",
	"lib/svc/manifest/*/*", "lib/svc/manifest/*/*/*", "var/svc/manifest/*/*", "var/svc/manifest/*/*/*",
	"var/lib/dpkg/info/*.list", "lib/apk/db/installed", "etc/passwd", "etc/group", "etc/os-release",
}

// Adopt looks up a service: a unit ("web" or "web.service"), or a service of SMF ("site/web", or the last
// part of its name if that is enough). The selection is that of the profile that the image is to keep.
func Adopt(root profiles.Root, f builder.Facts, service string, s *profiles.Selection, today time.Time) (*Adoption, error) {
	a := &adopter{root: root, out: &Adoption{Facts: f}}
	find := a.unit
	if profiles.HasSMF(f.OS) {
		find = a.manifest
	}
	if err := find(service); err != nil {
		return nil, fmt.Errorf("adopt %q: %w", service, err)
	}
	for _, step := range []func() error{a.user, a.ports, a.files, a.owners, func() error { return a.profile(s, today) }} {
		if err := step(); err != nil {
			return nil, fmt.Errorf("adopt %q: %w", service, err)
		}
	}
	return a.out, nil
}

// An adopter gathers an adoption.
type adopter struct {
	root profiles.Root
	out  *Adoption
}

func (a *adopter) notef(format string, args ...any) {
	a.out.Notes = append(a.out.Notes, fmt.Sprintf(format, args...))
}

// stat follows links, also the last. The result is nil if there is nothing.
func (a *adopter) stat(name string) (*image.Entry, error) {
	for range 20 {
		e, err := a.root.Stat(name)
		if errors.Is(err, fs.ErrNotExist) {
			return nil, nil
		}
		if err != nil {
			return nil, err
		}
		if e.Type() != fs.ModeSymlink {
			return e, nil
		}
		if name = e.Target; !strings.HasPrefix(name, "/") {
			name = path.Join("/", path.Dir(e.Name), name)
		}
		if name = strings.TrimPrefix(path.Clean(name), "/"); name == "" {
			name = "."
		}
	}
	return nil, nil
}

// read returns the content of a regular file, and nothing of what is none or is too large.
func (a *adopter) read(name string, most int64) ([]byte, error) {
	e, err := a.stat(strings.TrimPrefix(name, "/"))
	if err != nil || e == nil || !e.IsRegular() || e.Size > most {
		return nil, err
	}
	return a.root.ReadFile(e.Name)
}

// specName makes a name that services and images may have of another.
func specName(s string) string {
	s = strings.Map(func(r rune) rune {
		if r >= 'a' && r <= 'z' || r >= '0' && r <= '9' || r == '-' || r == '_' {
			return r
		}
		return '-'
	}, strings.ToLower(s))
	s = strings.Trim(s, "-_0123456789")
	if len(s) > 32 {
		s = strings.TrimRight(s[:32], "-")
	}
	if s == "" {
		s = "app"
	}
	return s
}

// exec carries a command line over. Words that the service manager would replace are left out: a
// service of a spec is started as it stands.
func (a *adopter) exec(line string, words []string) {
	var kept, left []string
	for _, w := range words {
		if strings.ContainsAny(w, "$%") || unfit(w) {
			left = append(left, w)
		} else {
			kept = append(kept, w)
		}
	}
	if len(left) > 0 {
		a.notef("exec: %s is replaced at start, and left out here", strings.Join(left, " "))
	}
	if len(kept) > 0 && !strings.HasPrefix(kept[0], "/") {
		for _, dir := range []string{"usr/local/sbin", "usr/local/bin", "usr/sbin", "usr/bin"} {
			if e, err := a.stat(dir + "/" + kept[0]); err == nil && e != nil && e.IsRegular() {
				kept[0] = "/" + dir + "/" + kept[0]
				break
			}
		}
	}
	if len(kept) == 0 || !strings.HasPrefix(kept[0], "/") {
		a.notef("exec: %q names no program: put in the one to start", line)
		kept = []string{"/opt/" + a.out.Name + "/bin/" + a.out.Name}
	}
	a.out.Service.Exec = strings.Join(kept, " ")
}

// user looks up who the service runs as.
func (a *adopter) user() error {
	s := &a.out.Service
	if s.User == "" || s.User == "root" || s.User == "0" {
		s.User = ""
		a.notef("it runs as root: give it a user of its own if it can do without")
		return nil
	}
	passwd, err := a.read("etc/passwd", 1<<20)
	if err != nil {
		return err
	}
	for line := range strings.Lines(string(passwd)) {
		f := strings.Split(strings.TrimRight(line, "\r\n"), ":")
		if len(f) < 7 || f[0] != s.User && f[2] != s.User {
			continue
		}
		uid, err := strconv.Atoi(f[2])
		gid, gerr := strconv.Atoi(f[3])
		if err != nil || gerr != nil || uid < 1 || gid < 1 {
			break
		}
		s.User = f[0]
		u := profiles.User{Name: f[0], UID: uid, Home: f[5]}
		if gid != uid {
			u.GID = &gid
		}
		a.out.Users = append(a.out.Users, u)
		return nil
	}
	a.out.NoUser = true
	a.notef("etc/passwd has no user %q: choose a number that is free on all hosts", s.User)
	a.out.Users = append(a.out.Users, profiles.User{Name: s.User, UID: 801})
	return nil
}

// ports are what is known of the service and of its socket.
func (a *adopter) ports() error {
	all, err := profiles.BootServices(a.root, a.out.Facts.OS)
	if err != nil {
		return err
	}
	name := strings.TrimSuffix(path.Base(a.out.Defined), ".service")
	started := false
	for _, b := range all {
		id, _, _ := strings.Cut(strings.TrimPrefix(b.ID, "svc:/"), ":")
		if b.ID != name+".service" && b.ID != name+".socket" && id != a.out.Defined {
			continue
		}
		started = true
		for _, p := range b.Ports {
			if _, err := profiles.ParsePort(p); err == nil && !slices.Contains(a.out.Service.Listen, p) {
				a.out.Service.Listen = append(a.out.Service.Listen, p)
			}
		}
	}
	if !started {
		a.notef("it is not started at boot")
	}
	if len(a.out.Service.Listen) == 0 {
		a.notef("listen: no file says a port: look at the running host, with ss -lntup or netstat -anu -f inet")
	}
	return nil
}

// profile applies the profile to a copy and audits that: what fails then is for somebody to decide.
func (a *adopter) profile(s *profiles.Selection, today time.Time) error {
	over := profiles.NewOverlay(a.root)
	if err := profiles.Apply(over, s, today); err != nil {
		return err
	}
	report, err := profiles.Audit(over, s, today)
	if err != nil {
		return err
	}
	for _, c := range report.Controls {
		if c.Status == profiles.Fail {
			a.out.Broken = append(a.out.Broken, c)
		}
	}
	changes, err := over.Changes()
	if err != nil {
		return err
	}
	for _, c := range changes {
		for _, f := range a.out.Files {
			if name := "/" + c.Name; name == f.Path || strings.HasPrefix(f.Path, name+"/") && c.After == nil {
				a.out.Edited = append(a.out.Edited, name)
				break
			}
		}
	}
	return nil
}
