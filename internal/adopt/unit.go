package adopt

import (
	"bytes"
	"encoding/xml"
	"errors"
	"fmt"
	"path"
	"slices"
	"strings"

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

// words are the words of all values of a key, without quotes around them.
func (u unitFile) words(key string) []string {
	var all []string
	for _, v := range u[key] {
		for _, w := range strings.Fields(v) {
			all = append(all, strings.Trim(w, `"'`))
		}
	}
	return all
}

// unit carries a systemd unit over.
func (a *adopter) unit(service string) error {
	name := strings.TrimSuffix(service, ".service")
	if name == "" || strings.ContainsAny(name, "/*?[]\\\n") {
		return badInput(fmt.Errorf("%q is no name of a unit", service))
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
		return badInput(errors.New("there is no such service"))
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
	a.unitV = u
	a.out.Name = specName(name)
	s := &a.out.Service
	s.Name, s.Description = a.out.Name, strings.Join(strings.Fields(hcltext.Printable(u.last("Unit.Description"))), " ")
	a.exec(strings.TrimLeft(u.last("Service.ExecStart"), "@-:+!|"))
	s.User, s.Group = u.last("Service.User"), u.last("Service.Group")
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
	if t := u.last("Service.Type"); t == "forking" || t == "oneshot" || t == "notify" || t == "dbus" {
		a.notef("it is of type %s, and services of a spec are programs that stay in the foreground", t)
	}
	for _, key := range []string{"ExecStartPre", "ExecStartPost", "ExecReload", "ExecStop", "AmbientCapabilities", "CapabilityBoundingSet", "ReadWritePaths", "BindPaths", "DeviceAllow"} {
		for _, v := range u["Service."+key] {
			a.notef("not carried over: %s=%s", key, v)
		}
	}
	for key, dir := range map[string]string{"StateDirectory": "/var/lib/", "CacheDirectory": "/var/cache/"} {
		for _, w := range u.words("Service." + key) {
			a.out.Volumes = append(a.out.Volumes, path.Clean(dir+w))
		}
	}
	return nil
}

// environment carries the variables over that need no quoting rules to be read.
func (a *adopter) environment(u unitFile) error {
	s := &a.out.Service
	for _, w := range u.words("Service.Environment") {
		k, v, ok := strings.Cut(w, "=")
		if !ok || k == "" || strings.ContainsAny(w, `"'%$\`) {
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
		return badInput(errors.New("there is no such service"))
	case len(found) > 1:
		return badInput(fmt.Errorf("it can be any of %s", strings.Join(found, ", ")))
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
	a.exec(start)
	a.out.Service.User = user
	deps, err := manifestDependencies(text)
	if err != nil {
		return fmt.Errorf("%q: %w", manifest, err)
	}
	for _, d := range deps {
		a.notef("it depends on %s", d)
	}
	return nil
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
