package profiles

import (
	"bytes"
	"cmp"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"slices"
	"strings"

	"github.com/goldenisc/packer-plugin-isc/image"
)

// A Property is one setting of an SMF service: the value of a property, or whether an instance is
// enabled if Name is empty.
type Property struct {
	Service  string // without scheme: "system/auditd"
	Instance string // empty for a property of the service itself
	Group    string // property group; of Solaris also one in another, "config/etc_default_login"
	Name     string
	Type     string // "boolean", "astring", "count"
	Value    string // "true" or "false" to enable an instance
}

const inetd = "network/inetd"

// enable and disable return the settings that switch default instances.
func enable(services ...string) []Property  { return switched("true", services) }
func disable(services ...string) []Property { return switched("false", services) }

// switched takes "service" or "service:instance".
func switched(value string, services []string) []Property {
	var all []Property
	for _, s := range services {
		service, instance, ok := strings.Cut(s, ":")
		if !ok {
			instance = "default"
		}
		all = append(all, Property{Service: service, Instance: instance, Value: value})
	}
	return all
}

// sitePath is the profile that holds all SMF settings of the controls. Profiles in this directory
// are applied after the generic and platform ones, before services start (smf_bootstrap(7)).
const sitePath = "etc/svc/profile/site/isc-hardening.xml"

// The groups of illumos and Solaris that own configuration (etc/group as packaged in SUNWcs).
const (
	illumosBin = 2
	illumosSys = 3
)

// sysOf returns the group that owns configuration files on an operating system.
func sysOf(os string) int {
	if HasSMF(os) {
		return illumosSys
	}
	return 0
}

// editSite returns the edit that makes the settings hold in the site profile. Settings of other
// controls stay; the file is written sorted, so that the order of edits does not matter.
func editSite(set []Property, p *Params) Edit {
	return func(root Root) error {
		var have []Property
		data, err := root.ReadFile(sitePath)
		switch {
		case errors.Is(err, fs.ErrNotExist):
		case err != nil:
			return err
		default:
			if have, err = parseSite(data); err != nil {
				return &malformedError{sitePath, "is no profile: " + err.Error()}
			}
		}
		for _, s := range set {
			s.Value = p.expand(s.Value)
			i := slices.IndexFunc(have, func(h Property) bool {
				return h.Service == s.Service && h.Instance == s.Instance && h.Group == s.Group && h.Name == s.Name
			})
			if i < 0 {
				have = append(have, s)
			} else {
				have[i] = s
			}
		}
		return ensure(root, image.Entry{Name: sitePath, Mode: 0o444, GID: sysOf(p.OS), ModTime: p.Epoch}, writeSite(have))
	}
}

// writeSite writes a profile.
func writeSite(set []Property) []byte {
	set = slices.Clone(set)
	slices.SortFunc(set, func(a, b Property) int {
		return cmp.Or(cmp.Compare(a.Service, b.Service), cmp.Compare(a.Instance, b.Instance),
			cmp.Compare(a.Group, b.Group), cmp.Compare(a.Name, b.Name))
	})
	bundle := el("service_bundle", "type", "profile", "name", "isc-hardening")
	for service, rest := range grouped(set, func(p Property) string { return p.Service }) {
		typ := "service"
		if service == inetd {
			typ = "restarter" // as in its manifest and in the shipped profiles
		}
		s := el("service", "name", service, "version", "1", "type", typ)
		for instance, rest := range grouped(rest, func(p Property) string { return p.Instance }) {
			groups, enabled := propertyGroups(rest)
			if instance == "" {
				s = s.with(groups...)
				continue
			}
			i := el("instance", "name", instance)
			if enabled != "" {
				i.attrs = append(i.attrs, "enabled", enabled)
			}
			s = s.with(i.with(groups...))
		}
		bundle = bundle.with(s)
	}
	return document("Made by iscadm from the controls of the profile. Changes are drift.", bundle)
}

// grouped yields runs of equal keys.
func grouped(set []Property, key func(Property) string) func(yield func(string, []Property) bool) {
	return func(yield func(string, []Property) bool) {
		for len(set) > 0 {
			k := key(set[0])
			n := slices.IndexFunc(set, func(p Property) bool { return key(p) != k })
			if n < 0 {
				n = len(set)
			}
			if !yield(k, set[:n]) {
				return
			}
			set = set[n:]
		}
	}
}

func propertyGroups(set []Property) (groups []element, enabled string) {
	for group, rest := range grouped(set, func(p Property) string { return p.Group }) {
		if group == "" {
			enabled = rest[0].Value
			continue
		}
		outer, inner, nested := strings.Cut(group, "/")
		g := el("property_group", "name", outer, "type", orElse(groupTypes[group], "application"))
		if nested {
			g = el("property_group", "name", inner) // of the type that its manifest gives it
		}
		for _, p := range rest {
			g = g.with(el("propval", "name", p.Name, "type", p.Type, "value", p.Value))
		}
		if !nested {
			groups = append(groups, g)
			continue
		}
		if n := len(groups); n == 0 || groups[n-1].attrs[1] != outer {
			groups = append(groups, el("property_group", "name", outer))
		}
		last := &groups[len(groups)-1]
		*last = last.with(g)
	}
	return groups, enabled
}

// groupTypes are the types of property groups that are no application's, as in their manifests:
// svccfg takes another type for a conflict.
var groupTypes = map[string]string{"audit_binfile": "plugin", "firewall_config_default": "com.sun,fw_configuration"}

type siteGroup struct {
	Name  string `xml:"name,attr"`
	Props []struct {
		Name  string `xml:"name,attr"`
		Type  string `xml:"type,attr"`
		Value string `xml:"value,attr"`
	} `xml:"propval"`
	Nested []siteGroup `xml:"property_group"`
}

type siteBundle struct {
	XMLName  xml.Name `xml:"service_bundle"`
	Services []struct {
		Name      string      `xml:"name,attr"`
		Groups    []siteGroup `xml:"property_group"`
		Instances []struct {
			Name    string      `xml:"name,attr"`
			Enabled string      `xml:"enabled,attr"`
			Groups  []siteGroup `xml:"property_group"`
		} `xml:"instance"`
	} `xml:"service"`
}

// maxSite bounds the site profile that is read, in bytes.
const maxSite = 1 << 20

// parseSite reads what writeSite wrote. What it does not know is left out, and so is put right by
// the next edit.
func parseSite(data []byte) ([]Property, error) {
	if len(data) > maxSite {
		return nil, fmt.Errorf("%d bytes: more than %d", len(data), maxSite)
	}
	d := xml.NewDecoder(bytes.NewReader(data))
	d.CharsetReader = func(label string, _ io.Reader) (io.Reader, error) {
		return nil, fmt.Errorf("encoding %q", label)
	}
	var b siteBundle
	if err := d.Decode(&b); err != nil {
		return nil, err
	}
	var set []Property
	for _, s := range b.Services {
		groups := func(instance string, groups []siteGroup) {
			for _, g := range groups {
				for _, p := range g.Props {
					set = append(set, Property{s.Name, instance, g.Name, p.Name, p.Type, p.Value})
				}
				for _, n := range g.Nested {
					for _, p := range n.Props {
						set = append(set, Property{s.Name, instance, g.Name + "/" + n.Name, p.Name, p.Type, p.Value})
					}
				}
			}
		}
		groups("", s.Groups)
		for _, i := range s.Instances {
			if i.Enabled != "" {
				set = append(set, Property{Service: s.Name, Instance: i.Name, Value: i.Enabled})
			}
			groups(i.Name, i.Groups)
		}
	}
	return set, nil
}
