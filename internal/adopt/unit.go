package adopt

import (
	"bytes"
	"cmp"
	"encoding/xml"
	"errors"
	"fmt"
	"path"
	"slices"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/goldenisc/packer-plugin-isc/builder"
	"github.com/goldenisc/packer-plugin-isc/internal/hcltext"
	"github.com/goldenisc/packer-plugin-isc/profiles"
)

// maxDefinition bounds a unit or a manifest, in bytes.
const maxDefinition = 1 << 20

// A unitFile is the settings of a unit (systemd.syntax(7)): section.key to values, in their order.
type unitFile map[string][]string

// add reads a file of the unit: the unit itself, or one of a .d folder. An empty value forgets those
// before it.
func (u unitFile) add(text string) {
	section := ""
	joined := strings.NewReplacer("\\\r\n", " ", "\\\n", " ").Replace(text)
	for line := range strings.Lines(joined) {
		line = strings.TrimSpace(line)
		if line == "" || line[0] == '#' || line[0] == ';' {
			continue
		}
		if line[0] == '[' && line[len(line)-1] == ']' {
			section = line[1 : len(line)-1]
			continue
		}
		key, value, ok := strings.Cut(line, "=")
		if !ok {
			continue
		}
		key, value = section+"."+strings.TrimSpace(key), strings.TrimSpace(value)
		if value == "" {
			delete(u, key)
			continue
		}
		u[key] = append(u[key], value)
	}
}

// last is the value of a key that has one.
func (u unitFile) last(key string) string {
	if v := u[key]; len(v) > 0 {
		return v[len(v)-1]
	}
	return ""
}

// words are the words of all values of a key, without quotes.
func (u unitFile) words(key string) []string {
	var all []string
	for _, v := range u[key] {
		all = append(all, unquoted(v)...)
	}
	return all
}

// escapes are those of systemd.syntax(7) that stand for one character.
var escapes = map[byte]byte{
	'a': '\a', 'b': '\b', 'f': '\f', 'n': '\n', 'r': '\r', 't': '\t', 'v': '\v', '\\': '\\', '"': '"', '\'': '\'', 's': ' ',
}

// unquoted cuts a value into words as systemd.syntax(7) has it: quotes may begin a word anywhere, and C-style
// escapes hold in and outside of them. An escape that is none stays as it is.
func unquoted(v string) []string {
	var all []string
	var word []byte
	begun, quote := false, byte(0)
	for i := 0; i < len(v); i++ {
		c := v[i]
		switch {
		case c == '\\':
			text, n := unescape(v[i:])
			word, begun = append(word, text...), true
			i += n - 1
		case quote != 0 && c == quote:
			quote = 0
		case quote == 0 && (c == '"' || c == '\''):
			quote, begun = c, true
		case quote == 0 && (c == ' ' || c == '\t'):
			if begun {
				all = append(all, string(word))
			}
			word, begun = nil, false
		default:
			word, begun = append(word, c), true
		}
	}
	if begun {
		all = append(all, string(word))
	}
	return all
}

// unescape returns what the escape at the start of s stands for, and its length.
func unescape(s string) (text string, n int) {
	if len(s) < 2 {
		return s, len(s)
	}
	if c, ok := escapes[s[1]]; ok {
		return string(c), 2
	}
	base, from, end := 16, 2, 0
	switch s[1] {
	case 'x':
		end = 4
	case 'u':
		end = 6
	case 'U':
		end = 10
	default:
		base, from, end = 8, 1, 4
	}
	if end <= len(s) {
		if c, err := strconv.ParseUint(s[from:end], base, 32); err == nil && c != 0 {
			if end == 4 { // a byte; the others are characters
				return string([]byte{byte(c)}), end
			}
			return string(rune(c)), end
		}
	}
	return s[:1], 1
}

// quoted writes a word as the exec of a service has it, in quotes if it needs some.
func quoted(w string) string {
	if w != "" && !strings.ContainsAny(w, " \t\"'\\") {
		return w
	}
	return "'" + strings.ReplaceAll(w, "'", `'\''`) + "'"
}

// unfit reports whether a value holds what no file of a spec may.
func unfit(v string) bool { return strings.ContainsFunc(v, unicode.IsControl) || !utf8.ValidString(v) }

// unit carries a systemd unit over.
func (a *adopter) unit(service string) error {
	name := strings.TrimSuffix(service, ".service")
	if name == "" || strings.ContainsAny(name, "/*?[]\\\n") {
		return builder.Input(fmt.Errorf("%q is no name of a unit", service))
	}
	u := unitFile{}
	dirs := []string{"etc/systemd/system", "usr/lib/systemd/system", "lib/systemd/system"}
	files := []string{name + ".service"}
	if at := strings.IndexByte(name, '@'); at > 0 {
		files = append(files, name[:at+1]+".service")
	}
search:
	for _, file := range files {
		for _, dir := range dirs {
			data, err := a.read(dir+"/"+file, maxDefinition)
			if err != nil {
				return err
			}
			if len(data) > 0 {
				a.out.Defined = dir + "/" + file
				u.add(string(data))
				break search
			}
		}
	}
	if a.out.Defined == "" {
		return builder.Input(errors.New("there is no such service"))
	}
	a.file("/"+a.out.Defined, "unit")
	for _, dir := range slices.Backward(dirs) {
		parts, err := a.root.Glob(dir + "/" + name + ".service.d/*.conf")
		if err != nil {
			return err
		}
		for _, p := range parts {
			data, err := a.read(p, maxDefinition)
			if err != nil {
				return err
			}
			u.add(string(data))
			a.file("/"+p, "unit")
		}
	}
	u.expand(name)
	a.out.Name = specName(name)
	s := &a.out.Service
	s.Name, s.Description = a.out.Name, strings.Join(strings.Fields(hcltext.Printable(u.last("Unit.Description"))), " ")
	s.User, s.Group = u.last("Service.User"), u.last("Service.Group")
	line := strings.TrimLeft(u.last("Service.ExecStart"), "@-:+!|")
	if t := u.last("Service.Type"); t == "forking" || t == "oneshot" || t == "notify" || t == "dbus" {
		a.notef("it is of type %s, and services of a spec are programs that stay in the foreground", t)
		if t == "forking" {
			var err error
			if line, err = a.foreground(line); err != nil {
				return err
			}
		}
	}
	words := unquoted(line)
	for i, w := range words {
		words[i] = quoted(w)
	}
	a.exec(line, words)
	if s.User == "" && u.last("Service.DynamicUser") == "yes" {
		s.User = a.out.Name
	}
	if s.Group == s.User {
		s.Group = ""
	}
	if dir := strings.TrimLeft(u.last("Service.WorkingDirectory"), "-"); strings.HasPrefix(dir, "/") && !strings.Contains(dir, "%") {
		s.Directory = path.Clean(dir)
	}
	if err := a.environment(u); err != nil {
		return err
	}
	for _, w := range u.words("Unit.Requires") {
		if strings.HasSuffix(w, ".service") && !strings.Contains(w, "%") {
			s.After = append(s.After, w)
		}
	}
	names, left := profiles.PrivilegesFor(u.words("Service.AmbientCapabilities"))
	if len(names) > 0 {
		s.Privileges = append([]string{"basic"}, names...)
	}
	for _, c := range left {
		a.notef("not carried over: AmbientCapabilities=%s", c)
	}
	for _, key := range []string{"ExecStartPre", "ExecStartPost", "ExecReload", "ExecStop", "CapabilityBoundingSet", "BindPaths", "DeviceAllow"} {
		for _, v := range u["Service."+key] {
			a.notef("not carried over: %s=%s", key, v)
		}
	}
	for _, w := range u.words("Service.StateDirectory") {
		a.out.Volumes = append(a.out.Volumes, path.Clean("/var/lib/"+w))
	}
	for _, d := range []struct{ key, dir string }{{"RuntimeDirectory", "/run/"}, {"CacheDirectory", "/var/cache/"}, {"LogsDirectory", "/var/log/"}} {
		for _, w := range u.words("Service." + d.key) {
			a.writes(path.Clean(d.dir+w), true)
		}
	}
	for _, w := range u.words("Service.ReadWritePaths") {
		a.writes(path.Clean(strings.TrimLeft(w, "-+")), false)
	}
	if pid := u.last("Service.PIDFile"); pid != "" {
		a.writes(path.Dir(path.Join("/run", strings.TrimPrefix(path.Clean("/"+pid), "/run"))), false)
	}
	return nil
}

// writes notes a folder that the service writes to, and whether it is made at start.
func (a *adopter) writes(dir string, made bool) {
	if !strings.HasPrefix(dir, "/") || dir == "/" || dir == "/var/run" {
		return
	}
	if !slices.Contains(a.out.Writable, dir) {
		a.out.Writable = append(a.out.Writable, dir)
	}
	if made && !slices.Contains(a.out.Made, dir) {
		a.out.Made = append(a.out.Made, dir)
	}
}

// expand puts in the specifiers of systemd.unit(5) that the name of the unit tells, and those that are
// the same on every machine.
func (u unitFile) expand(name string) {
	prefix, instance, _ := strings.Cut(name, "@")
	r := strings.NewReplacer("%%", "%", "%n", name+".service", "%N", name, "%p", prefix, "%i", instance, "%I", unescaped(instance),
		"%t", "/run", "%S", "/var/lib", "%C", "/var/cache", "%L", "/var/log", "%E", "/etc", "%T", "/tmp", "%V", "/var/tmp")
	for _, values := range u {
		for i, v := range values {
			values[i] = r.Replace(v)
		}
	}
}

// unescaped undoes systemd-escape(1).
func unescaped(s string) string {
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] == '-' {
			b.WriteByte('/')
			continue
		}
		if strings.HasPrefix(s[i:], `\x`) && i+4 <= len(s) {
			if n, err := strconv.ParseUint(s[i+2:i+4], 16, 8); err == nil {
				b.WriteByte(byte(n))
				i += 3
				continue
			}
		}
		b.WriteByte(s[i])
	}
	return b.String()
}

// stays says what keeps programs in the foreground that would leave it.
var stays = map[string]string{
	"apache2": "-DFOREGROUND", "chronyd": "-n", "cron": "-f", "dnsmasq": "-k", "exim4": "-bdf", "haproxy": "-db", "httpd": "-DFOREGROUND",
	"keepalived": "-n", "lighttpd": "-D", "named": "-f", "ntpd": "-n", "redis-server": "--daemonize no", "rsyslogd": "-n", "slapd": "-d 0",
	"smbd": "--foreground --no-process-group", "sshd": "-D", "unbound": "-d", "vsftpd": "-obackground=NO",
}

// foreground changes the command of a program that leaves the foreground, where it is known how.
func (a *adopter) foreground(line string) (string, error) {
	f := strings.Fields(line)
	if len(f) == 0 {
		return line, nil
	}
	switch name := path.Base(f[0]); name {
	case "nginx":
		if strings.Contains(line, "daemon on;") {
			return strings.ReplaceAll(line, "daemon on;", "daemon off;"), nil
		}
		return line + " -g 'daemon off;'", nil
	case "pg_ctlcluster":
		return a.cluster(line)
	default:
		if flag := stays[name]; flag != "" {
			a.notef("exec: %s stays in the foreground with %s", name, flag)
		}
	}
	return line, nil
}

// cluster is the server that pg_ctlcluster(1) of Debian starts, "15-main" for one.
func (a *adopter) cluster(line string) (string, error) {
	for _, w := range strings.Fields(line)[1:] {
		version, name, ok := strings.Cut(w, "-")
		if !ok || version == "" || name == "" || strings.ContainsAny(w, "/$%") {
			continue
		}
		server, config := "/usr/lib/postgresql/"+version+"/bin/postgres", "/etc/postgresql/"+version+"/"+name
		if e, err := a.stat(server[1:]); err != nil || e == nil || !e.IsRegular() {
			return line, err
		}
		a.notef("pg_ctlcluster starts %s, which is put in for it; move the data of the host to the volume", server)
		a.file(config, "configuration")
		a.out.Service.User = "postgres"
		a.out.Service.Listen = append(a.out.Service.Listen, "5432/tcp")
		a.out.Volumes = append(a.out.Volumes, "/var/lib/postgresql")
		a.writes("/run/postgresql", true)
		return server + " -D /var/lib/postgresql/" + version + "/" + name + " -c config_file=" + config + "/postgresql.conf", nil
	}
	return line, nil
}

// environment carries the variables over. What the specifiers of a unit would put in is left, as is what no
// file of a spec may hold.
func (a *adopter) environment(u unitFile) error {
	s := &a.out.Service
	for _, w := range u.words("Service.Environment") {
		k, v, ok := strings.Cut(w, "=")
		if !ok || k == "" || strings.ContainsRune(w, '%') || unfit(w) {
			a.notef("not carried over: Environment=%s", w)
			continue
		}
		if s.Environment == nil {
			s.Environment = map[string]string{}
		}
		s.Environment[k] = v
	}
	for _, f := range u["Service.EnvironmentFile"] {
		name := path.Clean(strings.TrimLeft(f, "-"))
		e, err := a.stat(strings.TrimPrefix(name, "/"))
		if err != nil {
			return err
		}
		if e == nil || !e.IsRegular() || s.EnvironmentFile != "" || !strings.HasPrefix(name, "/") {
			a.notef("not carried over: EnvironmentFile=%s", f)
			continue
		}
		s.EnvironmentFile = name
		a.file(name, "environment")
	}
	return nil
}

// manifest carries a service of SMF over.
func (a *adopter) manifest(service string) error {
	want, _, _ := strings.Cut(strings.TrimPrefix(service, "svc:/"), ":")
	var found []string
	var manifest string
	var svc profiles.SMFService
	var text []byte
	for _, dir := range []string{"lib/svc/manifest", "var/svc/manifest"} {
		names, err := a.root.Glob(dir + "/**")
		if err != nil {
			return err
		}
		for _, name := range names {
			if !strings.HasSuffix(name, ".xml") {
				continue
			}
			data, err := a.read(name, maxDefinition)
			if err != nil {
				return err
			}
			b, err := profiles.ParseBundle(data)
			if err != nil {
				continue // the audit tells of it
			}
			for _, v := range b.Services {
				if v.Name != want && !strings.HasSuffix(v.Name, "/"+want) {
					continue
				}
				if v.Name == want {
					found = nil
				}
				if !slices.Contains(found, v.Name) {
					found = append(found, v.Name)
				}
				manifest, svc, text = name, v, data
			}
		}
	}
	slices.Sort(found)
	switch {
	case len(found) == 0:
		return builder.Input(errors.New("there is no such service"))
	case len(found) > 1:
		return builder.Input(fmt.Errorf("it can be any of %s", strings.Join(found, ", ")))
	}
	start, user := svc.Start, svc.User
	for _, i := range svc.Instances {
		if start == "" {
			start = i.Start
		}
		if user == "" {
			user = i.User
		}
	}
	a.file("/"+manifest, "manifest")
	a.out.Defined, a.out.Name = svc.Name, specName(path.Base(svc.Name))
	a.out.Service.Name = a.out.Name
	service, instance := path.Base(svc.Name), "default"
	if len(svc.Instances) > 0 {
		instance = svc.Instances[0].Name
	}
	// smf_method(7), method tokens.
	start = strings.NewReplacer("%%", "%", "%m", "start", "%s", service, "%i", instance, "%f", "svc:/"+svc.Name+":"+instance).Replace(start)
	a.exec(start, strings.Fields(start))
	a.out.Service.User = user
	context, err := methodContext(text, svc.Name)
	if err != nil {
		return fmt.Errorf("%q: %w", manifest, err)
	}
	a.context(context)
	deps, err := manifestDependencies(text)
	if err != nil {
		return fmt.Errorf("%q: %w", manifest, err)
	}
	for _, d := range deps {
		a.notef("it depends on %s", d)
	}
	return nil
}

// An xmlContext is what a manifest says of how methods run, as far as a spec can say it.
type xmlContext struct {
	Directory  string `xml:"working_directory,attr"`
	Credential struct {
		Group      string `xml:"group,attr"`
		Privileges string `xml:"privileges,attr"`
	} `xml:"method_credential"`
	Environment []struct {
		Name  string `xml:"name,attr"`
		Value string `xml:"value,attr"`
	} `xml:"method_environment>envvar"`
}

type xmlMethods struct {
	Context xmlContext `xml:"method_context"`
	Methods []struct {
		Name    string     `xml:"name,attr"`
		Context xmlContext `xml:"method_context"`
	} `xml:"exec_method"`
	Groups []struct {
		Name  string `xml:"name,attr"`
		Props []struct {
			Name  string `xml:"name,attr"`
			Value string `xml:"value,attr"`
		} `xml:"propval"`
	} `xml:"property_group"`
}

// A startContext is the context of the start method, and how startd takes its end.
type startContext struct {
	xmlContext
	duration string
}

// methodContext reads the context of the start method of a service: its own before that of the instance, and
// that before the service's.
func methodContext(manifest []byte, service string) (startContext, error) {
	var doc struct {
		Services []struct {
			Name string `xml:"name,attr"`
			xmlMethods
			Instances []xmlMethods `xml:"instance"`
		} `xml:"service"`
	}
	d := xml.NewDecoder(bytes.NewReader(manifest))
	d.Strict = false
	if err := d.Decode(&doc); err != nil {
		return startContext{}, err
	}
	var c startContext
	merge := func(m xmlMethods) {
		take := func(x xmlContext) {
			c.Directory = cmp.Or(c.Directory, x.Directory)
			c.Credential.Group = cmp.Or(c.Credential.Group, x.Credential.Group)
			c.Credential.Privileges = cmp.Or(c.Credential.Privileges, x.Credential.Privileges)
			if len(c.Environment) == 0 {
				c.Environment = x.Environment
			}
		}
		for _, e := range m.Methods {
			if e.Name == "start" {
				take(e.Context)
			}
		}
		take(m.Context)
		for _, g := range m.Groups {
			for _, p := range g.Props {
				if g.Name == "startd" && p.Name == "duration" {
					c.duration = cmp.Or(c.duration, p.Value)
				}
			}
		}
	}
	for _, s := range doc.Services {
		if s.Name == service {
			for _, i := range s.Instances {
				merge(i)
			}
			merge(s.xmlMethods)
		}
	}
	return c, nil
}

// context carries the context of a start method over.
func (a *adopter) context(c startContext) {
	s := &a.out.Service
	if c.duration != "child" && c.duration != "wait" {
		a.notef("its start method ends while the service goes on, and services of a spec are programs that stay in the foreground")
	}
	if g := c.Credential.Group; g != ":default" && g != s.User {
		s.Group = g
	}
	if strings.HasPrefix(c.Directory, "/") {
		s.Directory = path.Clean(c.Directory)
	}
	if p := c.Credential.Privileges; p != "" && p != ":default" {
		for w := range strings.SplitSeq(p, ",") {
			w = strings.TrimSpace(w)
			if rest, ok := strings.CutPrefix(w, "-"); ok {
				w = "!" + rest
			}
			s.Privileges = append(s.Privileges, w)
		}
	}
	for _, e := range c.Environment {
		if s.Environment == nil {
			s.Environment = map[string]string{}
		}
		s.Environment[e.Name] = e.Value
	}
}

// manifestDependencies are the services that a manifest waits for.
func manifestDependencies(manifest []byte) ([]string, error) {
	var doc struct {
		Services []struct {
			Dependencies []struct {
				FMRI []struct {
					Value string `xml:"value,attr"`
				} `xml:"service_fmri"`
			} `xml:"dependency"`
		} `xml:"service"`
	}
	d := xml.NewDecoder(bytes.NewReader(manifest))
	d.Strict = false
	if err := d.Decode(&doc); err != nil {
		return nil, err
	}
	var all []string
	for _, s := range doc.Services {
		for _, dep := range s.Dependencies {
			for _, f := range dep.FMRI {
				if !slices.Contains(all, f.Value) {
					all = append(all, f.Value)
				}
			}
		}
	}
	slices.Sort(all)
	return all, nil
}
