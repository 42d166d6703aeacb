package profiles

import (
	"fmt"
	"math"
	"net/url"
	"path"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/goldenisc/packer-plugin-isc/image"
)

// ParseSize returns the bytes of a size such as "512MiB", "2GiB" or "4096". Units are binary; "M"
// and "MB" are taken for MiB too, as zonecfg(8) and people do.
func ParseSize(s string) (int64, error) {
	digits := strings.TrimRight(s, "KMGTiB")
	shift, ok := map[string]uint{
		"": 0, "B": 0, "K": 10, "KB": 10, "KiB": 10, "M": 20, "MB": 20, "MiB": 20,
		"G": 30, "GB": 30, "GiB": 30, "T": 40, "TB": 40, "TiB": 40,
	}[s[len(digits):]]
	n, err := strconv.ParseInt(digits, 10, 64)
	if !ok || err != nil || n <= 0 || digits[0] == '+' || n > math.MaxInt64>>shift {
		return 0, fmt.Errorf("%q is not a size such as 512MiB or 2GiB", s)
	}
	return n << shift, nil
}

// A Port is what a service listens on, or what a policy allows.
type Port struct {
	Number   int
	Protocol string // tcp or udp
}

func (p Port) String() string { return fmt.Sprintf("%d/%s", p.Number, p.Protocol) }

// ParsePort reads "8080/tcp".
func ParsePort(s string) (Port, error) {
	number, protocol, ok := strings.Cut(s, "/")
	n, err := strconv.Atoi(number)
	if !ok || err != nil || n < 1 || n > 65535 || number != strconv.Itoa(n) || protocol != "tcp" && protocol != "udp" {
		return Port{}, fmt.Errorf("%q is not a port such as 8080/tcp", s)
	}
	return Port{n, protocol}, nil
}

// words splits a command line as a shell does, but without any expansion: blanks separate words,
// '…' quotes all, "…" all but \ before " and \, and \ quotes the next character. What is no
// quoting means itself, so that a command is the same under SMF, where a shell starts it, and
// under systemd, which has its own syntax.
func words(s string) ([]string, error) {
	var (
		all   []string
		word  strings.Builder
		begun bool
		quote rune
		skip  bool
	)
	for _, r := range s {
		switch {
		case r != '\t' && unfit(r):
			return nil, fmt.Errorf("%q holds a control character", s)
		case skip:
			if quote == '"' && r != '"' && r != '\\' {
				word.WriteRune('\\')
			}
			word.WriteRune(r)
			skip = false
		case r == '\\' && quote != '\'':
			skip, begun = true, true
		case quote != 0 && r == quote:
			quote = 0
		case quote != 0:
			word.WriteRune(r)
		case r == '"' || r == '\'':
			quote, begun = r, true
		case r == ' ' || r == '\t':
			if begun {
				all = append(all, word.String())
				word.Reset()
				begun = false
			}
		default:
			word.WriteRune(r)
			begun = true
		}
	}
	if quote != 0 || skip {
		return nil, fmt.Errorf("%q: a quote is not closed", s)
	}
	if begun {
		all = append(all, word.String())
	}
	return all, nil
}

// nameOK reports whether s is made of lower-case letters, digits and inner hyphens or underscores,
// starts with a letter and has at most 32 characters (the limit of useradd(8) on Linux and of
// login names on illumos).
func nameOK(s string) bool {
	if s == "" || len(s) > 32 || s[0] < 'a' || s[0] > 'z' || strings.HasSuffix(s, "-") {
		return false
	}
	return !strings.ContainsFunc(s, func(r rune) bool {
		return (r < 'a' || r > 'z') && (r < '0' || r > '9') && r != '-' && r != '_'
	})
}

// unfit reports whether a character cannot stand in the files that a layout is baked into: lines of
// text, and XML 1.0 (2.2, Char).
func unfit(r rune) bool {
	return unicode.IsControl(r) || r == utf8.RuneError || r == 0xfffe || r == 0xffff
}

// A checker gathers what is wrong with a layout.
type checker struct{ errs []error }

func (c *checker) addf(format string, args ...any) {
	c.errs = append(c.errs, fmt.Errorf(format, args...))
}

// Check returns everything that is wrong with the layout; each error names the block.
func (l *Layout) Check() []error {
	c := new(checker)
	if !slices.Contains(Platforms, l.OS) {
		c.addf("os %q is none of %s%s", l.OS, strings.Join(Platforms, ", "), didYouMean(l.OS, Platforms))
	}
	c.groups(l)
	c.users(l)
	c.services(l)
	if n := l.Network; n != nil {
		c.ports("network: allow", n.Allow)
		c.ports("network: outbound", n.Outbound)
		c.publish(l)
	}
	if l.Identity != nil {
		c.identity(l)
	}
	c.limits(l.Limits)
	c.mounts(l)
	for _, m := range l.Mutables {
		if len(m.Paths) == 0 {
			c.addf("mutable: no paths")
		}
		for _, p := range m.Paths {
			if _, err := image.NewMatcher(p); err != nil || !strings.HasPrefix(p, "/") {
				c.addf("mutable: %q is not a pattern of absolute paths", p)
			} else if strings.ContainsFunc(p, func(r rune) bool { return unfit(r) || unicode.IsSpace(r) }) {
				c.addf("mutable: %q holds a blank or a control character", p)
			}
		}
		rules := []string{"any", "append", "reset"}
		if !slices.Contains(rules, m.Rule) {
			c.addf("mutable: rule %q is none of %s%s", m.Rule, strings.Join(rules, ", "), didYouMean(m.Rule, rules))
		}
	}
	return c.errs
}

// maxID is the largest number of an account: 2^31-1 on illumos (MAXUID), and below the overflow
// and "no change" numbers of Linux.
const maxID = math.MaxInt32

func (c *checker) id(block, name string, n int) {
	if n < 1 || n > maxID {
		c.addf("%s: %s %d is not from 1 to %d", block, name, n, maxID)
	}
}

// field refuses what would break a line of passwd(5).
func (c *checker) field(block, name, value string) {
	if strings.ContainsFunc(value, func(r rune) bool { return r == ':' || unfit(r) }) {
		c.addf("%s: %s %q holds a colon or a control character", block, name, value)
	}
}

func (c *checker) path(block, name, value string) {
	if !strings.HasPrefix(value, "/") || path.Clean(value) != value || strings.ContainsFunc(value, func(r rune) bool {
		return unfit(r) || unicode.IsSpace(r) || r == '\\' || r == ':'
	}) {
		c.addf("%s: %s %q is not a clean absolute path without blanks, colons and backslashes", block, name, value)
	}
}

func (c *checker) groups(l *Layout) {
	names, numbers := map[string]bool{}, map[int]string{}
	for _, g := range l.Groups {
		block := fmt.Sprintf("group %q", g.Name)
		if !nameOK(g.Name) {
			c.addf("%s: the name is not made of lower-case letters, digits and inner hyphens", block)
		}
		if names[g.Name] {
			c.addf("%s: there are two", block)
		}
		names[g.Name] = true
		c.id(block, "gid", g.GID)
		if other, ok := numbers[g.GID]; ok {
			c.addf("%s: gid %d is that of group %q too", block, g.GID, other)
		}
		numbers[g.GID] = g.Name
		for _, m := range g.Members {
			if !nameOK(m) {
				c.addf("%s: member %q is no name of an account", block, m)
			}
		}
	}
}

func (c *checker) users(l *Layout) {
	names, numbers := map[string]bool{}, map[int]string{}
	for i := range l.Users {
		u := &l.Users[i]
		block := fmt.Sprintf("user %q", u.Name)
		if !nameOK(u.Name) {
			c.addf("%s: the name is not made of lower-case letters, digits and inner hyphens", block)
		}
		if names[u.Name] {
			c.addf("%s: there are two", block)
		}
		names[u.Name] = true
		if u.Name == "root" {
			c.addf("%s: is in every system, and of the number 0", block)
			continue
		}
		c.id(block, "uid", u.UID)
		if other, ok := numbers[u.UID]; ok {
			c.addf("%s: uid %d is that of user %q too", block, u.UID, other)
		}
		numbers[u.UID] = u.Name
		if u.GID != nil {
			c.id(block, "gid", *u.GID)
		}
		for _, g := range u.Groups {
			if !nameOK(g) {
				c.addf("%s: %q is no name of a group", block, g)
			}
		}
		c.field(block, "comment", u.Comment)
		if u.Home != "" {
			c.path(block, "home", u.Home)
		}
		if u.Shell != "" {
			c.path(block, "shell", u.Shell)
		}
	}
}

// identity checks that somebody can log in with the keys. What accounts of the base have, the root says.
func (c *checker) identity(l *Layout) {
	user := l.Identity.User
	if user != "" && !nameOK(user) {
		c.addf("identity: user %q is no name of an account", user)
	}
	for _, u := range l.Users {
		if u.Name != user {
			continue
		}
		for _, err := range []error{ownHome(user, orElse(u.Home, "/")), loginShell(user, orElse(u.Shell, nologin(l.OS)))} {
			if err != nil {
				c.addf("identity: %w", err)
			}
		}
	}
}

func (c *checker) services(l *Layout) {
	names, listens := map[string]bool{}, map[string]string{}
	for i := range l.Services {
		s := &l.Services[i]
		block := fmt.Sprintf("service %q", s.Name)
		switch {
		case !nameOK(s.Name):
			c.addf("%s: the name is not made of lower-case letters, digits and inner hyphens", block)
		case names[s.Name]:
			c.addf("%s: there are two", block)
		case slices.Contains([]string{scratchService, swapService, identityService, netparams}, s.Name):
			c.addf("%s: the name is taken by a service of every image", block)
		}
		names[s.Name] = true
		argv, err := words(s.Exec)
		switch {
		case err != nil:
			c.addf("%s: exec %w", block, err)
		case len(argv) == 0 || !strings.HasPrefix(argv[0], "/"):
			c.addf("%s: exec %q does not start with an absolute path", block, s.Exec)
		}
		for _, n := range []string{s.User, s.Group} {
			if n != "" && !nameOK(n) {
				c.addf("%s: %q is no name of an account", block, n)
			}
		}
		if strings.ContainsFunc(s.Description, unfit) {
			c.addf("%s: the description holds a control character", block)
		}
		if s.Directory != "" {
			c.path(block, "directory", s.Directory)
		}
		if s.EnvironmentFile != "" {
			c.path(block, "environment_file", s.EnvironmentFile)
		}
		for _, k := range sortedKeys(s.Environment) {
			v := s.Environment[k]
			if !envName(k) || strings.ContainsFunc(v, unfit) {
				c.addf("%s: environment %q: bad name, or a control character in its value", block, k)
			}
		}
		c.ports(block+": listen", s.Listen)
		for _, p := range s.Listen {
			if other := listens[p]; other != "" {
				c.addf("%s: service %q listens on %s too", block, other, p)
			}
			listens[p] = s.Name
		}
		for _, p := range s.Privileges {
			if name := strings.TrimPrefix(p, "!"); !slices.Contains(privilegeSets, name) && !slices.Contains(privilegeNames, name) {
				c.addf("%s: privileges: there is no %q%s", block, name, didYouMean(name, privilegeNames))
			} else if l.OS == Linux && name != p && slices.Contains(illumosOnly, name) {
				c.addf("%s: privileges: Linux takes no %q from a program: leave it out", block, name)
			}
		}
		for _, a := range s.After {
			c.after(l, block, s, a)
		}
		if s.Health != "" {
			c.health(block, s)
		}
		if s.Timeout < 0 || s.Timeout > 86400 {
			c.addf("%s: timeout %d is not from 0 to 86400 seconds", block, s.Timeout)
		}
	}
	c.cycles(l)
}

func envName(s string) bool {
	return s != "" && !strings.ContainsFunc(s, func(r rune) bool {
		return (r < 'A' || r > 'Z') && (r < 'a' || r > 'z') && (r < '0' || r > '9') && r != '_'
	}) && (s[0] < '0' || s[0] > '9')
}

// The names of services and units: smf(7), systemd.unit(5).
var (
	fmriForm = regexp.MustCompile(`^svc:/[A-Za-z0-9_][A-Za-z0-9_,.-]*(/[A-Za-z0-9_][A-Za-z0-9_,.-]*)*(:[A-Za-z0-9_][A-Za-z0-9_,.-]*)?$`)
	unitForm = regexp.MustCompile(`^[A-Za-z0-9:_.@\\-]+\.(service|socket|target|device|mount|automount|swap|timer|path|slice|scope)$`)
)

func (c *checker) after(l *Layout, block string, s *Service, name string) {
	ofSpec := slices.ContainsFunc(l.Services, func(o Service) bool { return o.Name == name && o.Name != s.Name })
	if ofSpec || HasSMF(l.OS) && fmriForm.MatchString(name) || l.OS == Linux && unitForm.MatchString(name) && name != s.Name+".service" {
		return
	}
	c.addf("%s: after %q is no other service of the spec, and no %s", block, name,
		map[bool]string{true: "FMRI (svc:/…)", false: "unit (x.service)"}[HasSMF(l.OS)])
}

// cycles refuses services that wait for each other.
func (c *checker) cycles(l *Layout) {
	after := map[string][]string{}
	for _, s := range l.Services {
		for _, a := range s.After {
			a = strings.TrimSuffix(strings.TrimSuffix(strings.TrimPrefix(a, "svc:/site/"), ":default"), ".service")
			after[s.Name] = append(after[s.Name], a)
		}
	}
	done := map[string]bool{}
	var visit func(path []string, name string)
	visit = func(path []string, name string) {
		if i := slices.Index(path, name); i >= 0 && len(path[i:]) > 1 {
			c.addf("service %q: after: none of %s ever starts, as each waits for the next", name, strings.Join(append(path[i:], name), ", "))
		}
		if done[name] {
			return
		}
		done[name] = true
		for _, a := range after[name] {
			visit(append(path[:len(path):len(path)], name), a)
		}
	}
	for _, s := range l.Services {
		visit(nil, s.Name)
	}
}

func (c *checker) health(block string, s *Service) {
	u, err := url.Parse(s.Health)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Hostname() != "" || u.Port() == "" {
		c.addf("%s: health %q is not of the form http://:PORT/PATH", block, s.Health)
		return
	}
	if !slices.Contains(s.Listen, u.Port()+"/tcp") {
		c.addf("%s: health %q: the service does not listen on %s/tcp", block, s.Health, u.Port())
	}
}

func (c *checker) ports(block string, ports []string) {
	for i, p := range ports {
		if _, err := ParsePort(p); err != nil {
			c.addf("%s: %w", block, err)
		} else if slices.Contains(ports[:i], p) {
			c.addf("%s: %s stands twice", block, p)
		}
	}
}

// publish checks the redirects: to a port that is let in, of the same protocol.
func (c *checker) publish(l *Layout) {
	inbound := l.Inbound()
	for _, k := range sortedKeys(l.Network.Publish) {
		v := l.Network.Publish[k]
		from, ferr := ParsePort(k)
		to, terr := ParsePort(v)
		switch {
		case ferr != nil:
			c.addf("network: publish %w", ferr)
		case terr != nil:
			c.addf("network: publish %q: %w", k, terr)
		case from.Protocol != to.Protocol:
			c.addf("network: publish %q: %s has another protocol", k, v)
		case !slices.Contains(inbound, v):
			c.addf("network: publish %q: %s is not let in", k, v)
		}
	}
}

func (c *checker) size(block, s string) {
	if s == "" {
		return
	}
	if _, err := ParseSize(s); err != nil {
		c.addf("%s: %w", block, err)
	}
}

func (c *checker) limits(l *Limits) {
	if l == nil {
		return
	}
	c.size("limits: memory", l.Memory)
	c.size("limits: max_swap", l.MaxSwap)
	c.size("limits: locked", l.Locked)
	for name, n := range map[string]int{"processes": l.Processes, "lwps": l.LWPs, "shares": l.Shares} {
		if n < 0 || n > 1<<30 {
			c.addf("limits: %s %d is not from 0 to %d", name, n, 1<<30)
		}
	}
	// A cap of less than a hundredth of a CPU is none that zonecfg(8) can say.
	if l.CPUs != 0 && !(l.CPUs >= 0.01 && l.CPUs <= 4096) {
		c.addf("limits: cpus %v is not from 0.01 to 4096", l.CPUs)
	}
}

func (c *checker) mounts(l *Layout) {
	at := map[string]string{}
	mount := func(block, p string) {
		c.path(block, "path", p)
		if other := at[p]; other != "" {
			c.addf("%s: %s is at %q too", block, other, p)
		}
		at[p] = block
		if slices.Contains([]string{"/", "/etc", "/usr", "/lib", "/sbin", "/bin", "/dev", "/proc", "/sys", "/run", "/system", "/var", "/tmp"}, p) {
			c.addf("%s: %q is part of the system", block, p)
		}
		for _, dir := range []string{"/tmp/", "/var/tmp/", "/dev/", "/proc/", "/sys/", "/run/", "/var/run/", "/system/"} {
			if strings.HasPrefix(p, dir) {
				c.addf("%s: %q is below %s, which is not kept", block, p, dir)
			}
		}
	}
	if s := l.Scratch; s != nil {
		mount("scratch", s.MountPoint())
		if s.Size == "" {
			c.addf("scratch: no size")
		}
		c.size("scratch: size", s.Size)
	}
	if l.Swap != nil {
		c.size("swap: size", l.Swap.Size)
	}
	c.hidden(l)
	for _, v := range l.Volumes {
		mount(fmt.Sprintf("volume %q", v.Path), v.Path)
		c.size(fmt.Sprintf("volume %q: size", v.Path), v.Size)
		if v.Owner != "" && !nameOK(v.Owner) {
			c.addf("volume %q: owner %q is no name of an account", v.Path, v.Owner)
		}
	}
}

// hidden refuses what services would look for where their units show them nothing (ProtectHome of
// systemd.exec(5)). A volume of an account that no service runs as is not theirs.
func (c *checker) hidden(l *Layout) {
	if l.OS != Linux || len(l.Services) == 0 {
		return
	}
	check := func(block, attribute, p string) {
		for _, dir := range []string{"/home", "/root"} {
			if within(p, dir) {
				c.addf("%s: %s %q: services see nothing below %s", block, attribute, p, dir)
			}
		}
	}
	if l.Scratch != nil {
		check("scratch", "path", l.Scratch.MountPoint())
	}
	for _, v := range l.Volumes {
		if v.Owner == "" || slices.ContainsFunc(l.Services, func(s Service) bool { return orElse(s.User, "root") == v.Owner }) {
			check(fmt.Sprintf("volume %q", v.Path), "path", v.Path)
		}
	}
	for _, s := range l.Services {
		check(fmt.Sprintf("service %q", s.Name), "directory", s.Directory)
	}
}

// named refuses a name of the image that would end the comments it is written to. Those who read
// specs check its form.
func (l *Layout) named() error {
	if strings.ContainsFunc(l.Name, unfit) {
		return fmt.Errorf("image: name %q holds a control character", l.Name)
	}
	return nil
}

// MountPoint returns where the scratch space is mounted.
func (s *Scratch) MountPoint() string { return orElse(s.Path, "/scratch") }
