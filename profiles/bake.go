package profiles

import (
	"errors"
	"fmt"
	"io/fs"
	"path"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"

	"github.com/goldenisc/packer-plugin-isc/image"
)

// Apply bakes the layout into a root: accounts, services, scratch space and the directories that
// scratch space and volumes are mounted on. What is new or changed gets the time epoch. Applying
// it again changes nothing. The layout is checked first, and if it does not fit the root, that is
// left as it was.
func (l *Layout) Apply(root Root, epoch time.Time) error {
	over := NewOverlay(root)
	if err := l.apply(over, epoch); err != nil {
		return misfit(err)
	}
	changes, err := over.Changes()
	if err != nil {
		return err
	}
	return Commit(root, changes)
}

// A MisfitError is what is wrong with a layout, by itself or for the root that it was to be applied to.
// Each error names the block that it is about, if it is about one.
type MisfitError struct{ Errs []error }

func (e *MisfitError) Error() string   { return errors.Join(e.Errs...).Error() }
func (e *MisfitError) Unwrap() []error { return e.Errs }

// misfit makes a MisfitError of an error, and of what was joined several.
func misfit(err error) error {
	if err == nil {
		return nil
	}
	var all []error
	var add func(error)
	add = func(err error) {
		joined, ok := err.(interface{ Unwrap() []error })
		if !ok {
			all = append(all, err)
			return
		}
		for _, e := range joined.Unwrap() {
			add(e)
		}
	}
	add(err)
	return &MisfitError{all}
}

func (l *Layout) apply(root Root, epoch time.Time) error {
	if err := errors.Join(append(l.Check(), l.named())...); err != nil {
		return err
	}
	a := &accounts{root: root, os: l.OS, epoch: epoch}
	if err := a.add(l); err != nil {
		return err
	}
	b := &baker{root: root, layout: l, epoch: epoch}
	if err := errors.Join(b.accounts(), b.started(), b.replaced()); err != nil {
		return err
	}
	for _, v := range l.Volumes {
		uid, gid, err := b.owner(v.Owner)
		if err == nil {
			err = b.mountPoint(image.Entry{Name: v.Path, Mode: fs.ModeDir | 0o755, UID: uid, GID: gid, ModTime: b.epoch})
		}
		if err != nil {
			return fmt.Errorf("volume %q: %w", v.Path, err)
		}
	}
	if l.Scratch != nil {
		if err := b.scratch(); err != nil {
			return fmt.Errorf("scratch: %w", err)
		}
	}
	if l.Swap != nil {
		if err := b.swap(); err != nil {
			return fmt.Errorf("swap: %w", err)
		}
	}
	if l.Identity != nil {
		if err := errors.Join(b.identity(), b.home()); err != nil {
			return fmt.Errorf("identity: %w", err)
		}
	}
	if l.Network != nil {
		if err := b.ownFilter(); err != nil {
			return fmt.Errorf("network: %w", err)
		}
	}
	if l.OS == Linux {
		if err := b.slice(); err != nil {
			return fmt.Errorf("limits: %w", err)
		}
	}
	for i := range l.Services {
		s := &l.Services[i]
		bake := b.manifest
		if l.OS == Linux {
			bake = b.unit
		}
		if err := bake(s); err != nil {
			return fmt.Errorf("service %q: %w", s.Name, err)
		}
	}
	return nil
}

// A baker bakes one layout into one root.
type baker struct {
	root   Root
	layout *Layout
	epoch  time.Time
}

// accounts refuses services of users and groups that do not exist.
func (b *baker) accounts() error {
	passwd, err := readText(b.root, "etc/passwd")
	if err != nil {
		return err
	}
	group, err := readText(b.root, "etc/group")
	if err != nil {
		return err
	}
	has := func(text, name string) bool {
		return name == "" || slices.ContainsFunc(records(text), func(f []string) bool { return f[0] == name })
	}
	var errs []error
	for _, s := range b.layout.Services {
		if !has(passwd, s.User) {
			errs = append(errs, fmt.Errorf("service %q: user %q is neither in the spec nor in the base", s.Name, s.User))
		}
		if !has(group, s.Group) {
			errs = append(errs, fmt.Errorf("service %q: group %q is neither in the spec nor in the base", s.Name, s.Group))
		}
	}
	if id := b.layout.Identity; id != nil && !has(passwd, id.User) {
		errs = append(errs, fmt.Errorf("identity: user %q is neither in the spec nor in the base", id.User))
	}
	return errors.Join(errs...)
}

// home makes the home of the account that logs in, and the folder of its keys, unless they are there:
// sshd reads keys as the account (sshd(8), AUTHORIZED_KEYS FILE FORMAT), and a root may be read-only.
func (b *baker) home() error {
	user := b.layout.Identity.User
	if user == "" {
		return nil
	}
	f, err := b.record(user)
	if err != nil {
		return err
	}
	home, shell := f[5], f[6]
	if err := errors.Join(ownHome(user, home), loginShell(user, shell)); err != nil {
		return err
	}
	uid, gid, err := b.owner(user)
	if err != nil {
		return err
	}
	for _, dir := range []image.Entry{{Name: home, Mode: fs.ModeDir | 0o750}, {Name: home + "/.ssh", Mode: fs.ModeDir | 0o700}} {
		dir.UID, dir.GID, dir.ModTime = uid, gid, b.epoch
		if err := b.mountPoint(dir); err != nil {
			return err
		}
		name, err := follow(b.root, dir.Name)
		if err != nil {
			return err
		}
		e, err := b.root.Stat(name)
		if err != nil {
			return err
		}
		if e.UID != uid || e.Mode&0o022 != 0 {
			return fmt.Errorf("user %q: %q has the mode %04o and the owner %d: sshd takes no keys from what others can write", user, dir.Name, e.Perm(), e.UID)
		}
	}
	return nil
}

// ownHome refuses the home of an account that logs in, if it is no folder of its own.
func ownHome(user, home string) error {
	if !strings.HasPrefix(home, "/") || home == "/" || path.Clean(home) != home || slices.Contains(notHomes, home[1:]) || strings.ContainsFunc(home, unicode.IsSpace) {
		return fmt.Errorf("user %q has the home %q: keys need a folder of its own, such as /home/%s", user, home, user)
	}
	return nil
}

// loginShell refuses the shell of an account that logs in, if it lets nobody in.
func loginShell(user, shell string) error {
	if noShell(shell) {
		return fmt.Errorf("user %q has the shell %q, which lets nobody in", user, shell)
	}
	return nil
}

// identityUser is the account that the service of the identity block of an image authorizes, or "".
func identityUser(root Root) (string, error) {
	text, err := readText(root, unitDir+identityService+".service")
	if err != nil {
		return "", err
	}
	for line := range strings.Lines(text) {
		if user, ok := strings.CutPrefix(line, "ExecStart=/usr/lib/isc/"+identityService+" "); ok {
			return strings.TrimPrefix(strings.TrimSpace(user), "-"), nil
		}
	}
	return "", nil
}

// started refuses services that wait for what the root does not have: they would never start.
func (b *baker) started() error {
	var errs []error
	for _, s := range b.layout.Services {
		for _, a := range s.After {
			held, err := true, error(nil)
			switch {
			case strings.HasPrefix(a, "svc:/"):
				held, err = b.hasFMRI(a)
			case strings.Contains(a, "."):
				held, err = b.hasUnit(a)
			}
			if err != nil {
				return err
			}
			if !held {
				errs = append(errs, fmt.Errorf("service %q: after %q: the base has no such service, so that this one would never start", s.Name, a))
			}
		}
	}
	return errors.Join(errs...)
}

// hasFMRI reports whether the root has the service of an FMRI, or is no whole system.
func (b *baker) hasFMRI(fmri string) (bool, error) {
	smf, err := ReadSMF(b.root)
	if err != nil {
		return false, err
	}
	service, instance, ok := strings.Cut(strings.TrimPrefix(fmri, "svc:/"), ":")
	held := smf.services[service] != nil && (!ok || smf.Has(service, instance))
	return held || !smf.System() || strings.HasPrefix(service, "site/"), nil
}

// hasUnit reports whether the root has a unit, or will have it, or is no whole system.
func (b *baker) hasUnit(unit string) (bool, error) {
	if own, ok := strings.CutSuffix(unit, ".service"); ok && slices.ContainsFunc(b.layout.Services, func(s Service) bool { return s.Name == own }) {
		return true, nil
	}
	systemd, err := applicable(b.root, &Method{Needs: []string{"usr/lib/systemd/systemd", "lib/systemd/systemd"}})
	if err != nil || !systemd {
		return true, err
	}
	return applicable(b.root, &Method{Needs: append(unitPaths([]string{globQuote(unit)}), globQuote(unitDir+unit))})
}

// ofSystem are the lines of a unit that the system starts by, or that is handed sockets: a program that
// takes its place is not what the others wait for.
var ofSystem = regexp.MustCompile(`(?m)^(DefaultDependencies=(?:no|false|0)|Requires=.*\.socket)\b`)

// replaced refuses services that would take the place of the system's own. Those of other programs may be
// replaced: that is how they are adopted.
func (b *baker) replaced() error {
	if b.layout.OS != Linux {
		return nil
	}
	var errs []error
	for _, s := range b.layout.Services {
		for _, unit := range unitPaths([]string{s.Name + ".service"}) {
			text, err := readText(b.root, unit)
			if err != nil {
				return err
			}
			if why := ofSystem.FindString(text); why != "" || text != "" && strings.HasPrefix(s.Name, "systemd-") {
				errs = append(errs, fmt.Errorf("service %q: the base has a part of the system in %q: give the service another name", s.Name, unit))
				break
			}
		}
	}
	return errors.Join(errs...)
}

// CheckPresent returns what services need of a root and do not find there once everything is laid. What
// comes with a volume or the scratch space, nobody knows before it is there.
func (l *Layout) CheckPresent(root Root) error {
	var errs []error
	for _, s := range l.Services {
		for _, n := range []struct {
			attribute, path string
			is              func(*image.Entry) bool
		}{{"directory", s.Directory, (*image.Entry).IsDir}, {"environment_file", s.EnvironmentFile, (*image.Entry).IsRegular}} {
			if n.path == "" || l.mounted(n.path) {
				continue
			}
			name, err := follow(root, n.path)
			if err != nil {
				return err
			}
			e, err := root.Stat(name)
			switch {
			case errors.Is(err, fs.ErrNotExist):
				errs = append(errs, fmt.Errorf("service %q: %s %q is not in the image: the service would never start", s.Name, n.attribute, n.path))
			case err != nil:
				return err
			case !n.is(e):
				errs = append(errs, fmt.Errorf("service %q: %s %q is a %s: the service would never start", s.Name, n.attribute, n.path, image.TypeName(e.Mode)))
			}
		}
	}
	return misfit(errors.Join(errs...))
}

// mounted reports whether a path is in a volume, the scratch space, or what each start makes anew.
func (l *Layout) mounted(p string) bool {
	at := []string{"/run", "/var/run", "/tmp", "/var/tmp", "/dev", "/proc", "/sys", "/system"}
	if l.Scratch != nil {
		at = append(at, l.Scratch.MountPoint())
	}
	for _, v := range l.Volumes {
		at = append(at, v.Path)
	}
	return slices.ContainsFunc(at, func(dir string) bool { return within(p, dir) })
}

// within reports whether a path is a folder or below it.
func within(p, dir string) bool { return p == dir || strings.HasPrefix(p, dir+"/") }

func (b *baker) file(name string, mode fs.FileMode, gid int, data []byte) error {
	return ensure(b.root, image.Entry{Name: name, Mode: mode, GID: gid, ModTime: b.epoch}, data)
}

// owner returns the numbers of a user and its group, or of the default owner of volumes.
func (b *baker) owner(user string) (uid, gid int, err error) {
	if s := b.layout.Services; user == "" && len(s) > 0 {
		user = s[0].User
		if slices.ContainsFunc(s, func(o Service) bool { return o.User != user }) {
			user = ""
		}
	}
	if user == "" {
		return 0, 0, nil
	}
	f, err := b.record(user)
	if err != nil {
		return 0, 0, err
	}
	uid, uerr := strconv.Atoi(f[2])
	gid, gerr := strconv.Atoi(f[3])
	return uid, gid, errors.Join(uerr, gerr)
}

// record returns the fields of an account in passwd(5).
func (b *baker) record(user string) ([]string, error) {
	passwd, err := readText(b.root, "etc/passwd")
	if err != nil {
		return nil, err
	}
	for _, f := range records(passwd) {
		if f[0] == user && len(f) > 6 {
			return f, nil
		}
	}
	return nil, fmt.Errorf("there is no user %q, neither in the spec nor in the base", user)
}

// mountPoint makes the directory that something is mounted on; one that is there stays as it is.
func (b *baker) mountPoint(dir image.Entry) error {
	name, err := follow(b.root, dir.Name)
	if err != nil {
		return err
	}
	e, err := b.root.Stat(name)
	switch {
	case err == nil && e.IsDir():
		return nil
	case err == nil:
		return fmt.Errorf("%q is a %s, not a directory", dir.Name, image.TypeName(e.Mode))
	case !errors.Is(err, fs.ErrNotExist):
		return err
	}
	dir.Name = name
	return b.root.Put(dir, nil)
}

// Describe returns the services of the layout as the config of an image lists them: by FMRI
// (smf(7)) on illumos and Solaris, by unit name on Linux.
func (l *Layout) Describe() []image.Service {
	var all []image.Service
	for _, s := range l.Services {
		id := "svc:/site/" + s.Name + ":default"
		if l.OS == Linux {
			id = s.Name + ".service"
		}
		all = append(all, image.Service{
			Name: s.Name, ID: id, Exec: s.Exec, User: s.User, Listen: slices.Clone(s.Listen), Health: s.Health,
		})
	}
	return all
}

const (
	manifestDir = "lib/svc/manifest/site"
	// defaultTimeout bounds starting and stopping a service, in seconds.
	defaultTimeout = 60
)

func (s *Service) timeout() int {
	if s.Timeout == 0 {
		return defaultTimeout
	}
	return s.Timeout
}

// manifest bakes a service as an SMF manifest. The restarter runs the program itself and takes
// its end for that of the service (startd/duration child, svc.startd(8)), so there is no method
// script and nothing that forks. Such a start method runs as long as the service: no timeout.
func (b *baker) manifest(s *Service) error {
	argv, err := words(s.Exec)
	if err != nil {
		return err
	}
	for i, w := range argv {
		argv[i] = shellQuote(w)
	}
	exec := strings.Join(argv, " ")
	if s.EnvironmentFile != "" {
		exec = "/bin/sh -c " + shellQuote("set -a; . "+shellQuote(s.EnvironmentFile)+"; set +a; exec "+exec)
	}
	exec = strings.ReplaceAll(exec, "%", "%%") // smf_method(7), method tokens
	service := el("service", "name", "site/"+s.Name, "type", "service", "version", "1").with(
		el("create_default_instance", "enabled", "true"),
		el("single_instance"),
		require("network", "svc:/milestone/network:default"),
		require("filesystem", "svc:/system/filesystem/local:default"),
	)
	if b.layout.Scratch != nil {
		service = service.with(require("scratch", "svc:/site/"+scratchService+":default"))
	}
	for i, a := range s.After {
		if !strings.HasPrefix(a, "svc:/") {
			a = "svc:/site/" + a + ":default"
		}
		service = service.with(require(fmt.Sprintf("after-%d", i+1), a))
	}
	service = service.with(
		s.methodContext(b.layout.OS),
		el("exec_method", "type", "method", "name", "start", "exec", exec, "timeout_seconds", "0"),
		el("exec_method", "type", "method", "name", "stop", "exec", ":kill", "timeout_seconds", fmt.Sprint(s.timeout())),
		el("property_group", "name", "startd", "type", "framework").with(
			el("propval", "name", "duration", "type", "astring", "value", "child")),
	)
	if g := s.properties(); len(g.child) > 0 {
		service = service.with(g)
	}
	service = service.with(
		el("stability", "value", "Evolving"),
		el("template").with(el("common_name").with(
			element{name: "loctext", attrs: []string{"xml:lang", "C"}, text: orElse(s.Description, s.Name)})),
	)
	doc := document("Made by iscadm from the service "+s.Name+" of the image "+b.layout.Name+". Changes are drift.",
		el("service_bundle", "type", "manifest", "name", "isc-"+s.Name).with(service))
	return b.file(path.Join(manifestDir, s.Name+".xml"), 0o444, illumosSys, doc)
}

func require(name, fmri string) element {
	return el("dependency", "name", name, "grouping", "require_all", "restart_on", "none", "type", "service").
		with(el("service_fmri", "value", fmri))
}

// methodContext returns the element that methods run in. On illumos it has the flags of security-flags(7)
// that every service runs with; the DTD of Solaris knows none.
func methodContext(os string, attrs ...string) element {
	if os == Solaris {
		return el("method_context", attrs...)
	}
	return el("method_context", append([]string{"security_flags", "aslr,noexecstack,forbidnullmap"}, attrs...)...)
}

func (s *Service) methodContext(os string) element {
	user := orElse(s.User, "root")
	cred := el("method_credential", "user", user)
	if s.Group != "" {
		cred.attrs = append(cred.attrs, "group", s.Group)
	}
	if set := s.privileges(); set != nil {
		// The limit set is the same, so that a set-id program gives nothing back.
		names := strings.Join(set, ",")
		cred.attrs = append(cred.attrs, "privileges", names, "limit_privileges", names)
	}
	ctx := methodContext(os, "working_directory", orElse(s.Directory, "/")).with(cred)
	if len(s.Environment) > 0 {
		env := el("method_environment")
		for _, k := range sortedKeys(s.Environment) {
			env = env.with(el("envvar", "name", k, "value", s.Environment[k]))
		}
		ctx = ctx.with(env)
	}
	return ctx
}

// properties returns the property group that tells the host what the service listens on and how
// to ask for its health.
func (s *Service) properties() element {
	g := el("property_group", "name", "isc", "type", "application")
	if s.Health != "" {
		g = g.with(el("propval", "name", "health", "type", "astring", "value", s.Health))
	}
	if len(s.Listen) > 0 {
		list := el("astring_list")
		for _, l := range s.Listen {
			list = list.with(el("value_node", "value", l))
		}
		g = g.with(el("property", "name", "listen", "type", "astring").with(list))
	}
	return g
}

// shellQuote quotes a word for sh(1), which SMF hands commands to.
func shellQuote(w string) string {
	plain := w != "" && !strings.ContainsFunc(w, func(r rune) bool {
		return (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && (r < '0' || r > '9') && !strings.ContainsRune("-_./:,=@%+", r)
	})
	if plain {
		return w
	}
	return "'" + strings.ReplaceAll(w, "'", `'\''`) + "'"
}
