package profiles

import (
	"bytes"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"net/url"
	"path"
	"slices"
	"strings"

	"github.com/goldenisc/packer-plugin-isc/image"
)

// A Bundle is an SMF manifest or profile (service_bundle(5)), as far as it says what runs.
type Bundle struct {
	Type     string // "manifest" or "profile"
	Name     string
	Services []SMFService
	Includes []string // files of profiles that it includes (XInclude)
}

// An SMFService is a service of a bundle.
type SMFService struct {
	Name       string // without scheme: "network/ssh"
	Instances  []SMFInstance
	Properties []Property // of the service itself
	Restarter  string     // FMRI; empty is svc.startd
	Start      string     // its start method
	User       string     // that the method runs as; empty is root
}

// An SMFInstance is an instance of one.
type SMFInstance struct {
	Name       string
	Enabled    string // "true", "false", or empty: a profile says nothing of it
	Properties []Property
	Start      string
	User       string
}

// The XML of bundles.
type (
	xmlBundle struct {
		Type     string       `xml:"type,attr"`
		Name     string       `xml:"name,attr"`
		Bundles  []xmlBundle  `xml:"service_bundle"`
		Services []xmlService `xml:"service"`
		Includes []struct {
			Href string `xml:"href,attr"`
		} `xml:"include"` // of XInclude, in the name space of 2001 or the one of 2003, which illumos uses
	}
	xmlService struct {
		Name    string `xml:"name,attr"`
		Default *struct {
			Enabled string `xml:"enabled,attr"`
		} `xml:"create_default_instance"`
		Restart   xmlFMRI       `xml:"restarter"`
		Groups    []xmlGroup    `xml:"property_group"`
		Methods   []xmlMethod   `xml:"exec_method"`
		Context   xmlContext    `xml:"method_context"`
		Instances []xmlInstance `xml:"instance"`
	}
	xmlFMRI struct {
		FMRI struct {
			Value string `xml:"value,attr"`
		} `xml:"service_fmri"`
	}
	xmlMethod struct {
		Name    string     `xml:"name,attr"`
		Exec    string     `xml:"exec,attr"`
		Context xmlContext `xml:"method_context"`
	}
	xmlContext struct {
		Credential struct {
			User string `xml:"user,attr"`
		} `xml:"method_credential"`
	}
	xmlInstance struct {
		Name    string      `xml:"name,attr"`
		Enabled string      `xml:"enabled,attr"`
		Restart xmlFMRI     `xml:"restarter"`
		Groups  []xmlGroup  `xml:"property_group"`
		Methods []xmlMethod `xml:"exec_method"`
		Context xmlContext  `xml:"method_context"`
	}
	xmlGroup struct {
		Name  string `xml:"name,attr"`
		Props []struct {
			Name  string `xml:"name,attr"`
			Type  string `xml:"type,attr"`
			Value string `xml:"value,attr"`
		} `xml:"propval"`
		Lists []struct {
			Name  string `xml:"name,attr"`
			Type  string `xml:"type,attr"`
			Lists []struct {
				Nodes []struct {
					Value string `xml:"value,attr"`
				} `xml:"value_node"`
			} `xml:",any"`
		} `xml:"property"`
		Nested []xmlGroup `xml:"property_group"` // of Solaris
	}
)

// ParseBundle reads an SMF document. Like svccfg(8) it wants the document type of services and takes
// profiles that the DTD does not describe, with XInclude in them; unlike it, it takes at most 1 MiB.
func ParseBundle(data []byte) (*Bundle, error) {
	if len(data) > maxText {
		return nil, fmt.Errorf("has %d bytes: no manifest is that large", len(data))
	}
	d := xml.NewDecoder(bytes.NewReader(data))
	d.CharsetReader = func(label string, r io.Reader) (io.Reader, error) {
		if strings.EqualFold(label, "us-ascii") || strings.EqualFold(label, "iso-8859-1") {
			return r, nil // names and paths are ASCII
		}
		return nil, fmt.Errorf("character set %q", label)
	}
	typed := false
	for {
		token, err := d.Token()
		if err == io.EOF {
			return nil, errors.New("is empty")
		}
		if err != nil {
			return nil, err
		}
		switch t := token.(type) {
		case xml.Directive:
			typed = typed || strings.HasPrefix(string(t), "DOCTYPE service_bundle") && bytes.Contains(t, []byte("service_bundle.dtd.1"))
		case xml.StartElement:
			if !typed || t.Name.Local != "service_bundle" {
				return nil, errors.New("has no document type of services: svccfg would refuse it")
			}
			var x xmlBundle
			if err := d.DecodeElement(&x, &t); err != nil {
				return nil, err
			}
			b := new(Bundle)
			b.add(&x)
			b.Type, b.Name = x.Type, x.Name
			return b, nil
		}
	}
}

func (b *Bundle) add(x *xmlBundle) {
	for i := range x.Services {
		b.Services = append(b.Services, x.Services[i].service())
	}
	for _, i := range x.Includes {
		b.Includes = append(b.Includes, i.Href)
	}
	for i := range x.Bundles {
		b.add(&x.Bundles[i])
	}
}

func (x *xmlService) service() SMFService {
	s := SMFService{Name: x.Name, Restarter: x.Restart.FMRI.Value, User: x.Context.Credential.User}
	s.Properties = listed(x.Name, "", x.Groups)
	s.Start, s.User = start(x.Methods, s.User)
	if x.Default != nil {
		s.Instances = append(s.Instances, SMFInstance{Name: "default", Enabled: x.Default.Enabled})
	}
	for _, i := range x.Instances {
		inst := SMFInstance{Name: i.Name, Enabled: i.Enabled, Properties: listed(x.Name, i.Name, i.Groups), User: i.Context.Credential.User}
		inst.Start, inst.User = start(i.Methods, inst.User)
		s.Instances = append(s.Instances, inst)
	}
	return s
}

// start returns the start method and the user it runs as.
func start(methods []xmlMethod, user string) (exec, as string) {
	for _, m := range methods {
		if m.Name == "start" || m.Name == "inetd_start" {
			if m.Context.Credential.User != "" {
				user = m.Context.Credential.User
			}
			return m.Exec, user
		}
	}
	return "", user
}

func listed(service, instance string, groups []xmlGroup) []Property {
	var all []Property
	for _, g := range groups {
		for _, p := range g.Props {
			all = append(all, Property{service, instance, g.Name, p.Name, p.Type, p.Value})
		}
		for _, p := range g.Lists {
			var values []string
			for _, l := range p.Lists {
				for _, n := range l.Nodes {
					values = append(values, n.Value)
				}
			}
			all = append(all, Property{service, instance, g.Name, p.Name, p.Type, strings.Join(values, " ")})
		}
		for _, p := range listed(service, instance, g.Nested) {
			p.Group = g.Name + "/" + p.Group
			all = append(all, p)
		}
	}
	return all
}

// An SMF is what a root knows of services: what its manifests bring and its profiles switch.
type SMF struct {
	services map[string]*SMFService // by name
	set      map[string]string      // by service, instance and property, of profiles
	Bad      []Finding              // documents that cannot be read
}

// The manifests that early and late import read, and the profiles in the order they are applied in
// (smf_bootstrap(7)).
var (
	manifestGlobs = []string{"lib/svc/manifest/**", "var/svc/manifest/**"}
	profileFiles  = []string{
		"etc/svc/profile/generic.xml", "etc/svc/profile/platform.xml", "etc/svc/profile/site.xml", "etc/svc/profile/site/*.xml",
		"var/svc/profile/site.xml",
	}
)

// ReadSMF reads the manifests and profiles of a root. Documents that are malformed are listed, and
// left out.
func ReadSMF(root Root) (*SMF, error) {
	s := &SMF{services: map[string]*SMFService{}, set: map[string]string{}}
	for _, pattern := range manifestGlobs {
		err := each(root, pattern, func(e *image.Entry) error {
			if !e.IsRegular() || !strings.HasSuffix(e.Name, ".xml") {
				return nil
			}
			b, err := s.read(root, e)
			if b != nil && err == nil {
				s.bring(b)
			}
			return err
		})
		if err != nil {
			return nil, err
		}
	}
	for _, pattern := range profileFiles {
		names, err := root.Glob(pattern)
		if err != nil {
			return nil, err
		}
		for _, n := range names {
			if err := s.profile(root, n, 8); err != nil {
				return nil, err
			}
		}
	}
	return s, nil
}

// read parses a document, or lists it as bad.
func (s *SMF) read(root Root, e *image.Entry) (*Bundle, error) {
	if e.Size > maxText {
		s.Bad = append(s.Bad, Finding{e.Name, fmt.Sprintf("has %d bytes: no manifest is that large", e.Size)})
		return nil, nil
	}
	data, err := root.ReadFile(e.Name)
	if err != nil {
		return nil, err
	}
	b, err := ParseBundle(data)
	if err != nil {
		s.Bad = append(s.Bad, Finding{e.Name, "is no manifest or profile: " + err.Error()})
		return nil, nil
	}
	return b, nil
}

func (s *SMF) bring(b *Bundle) {
	for i := range b.Services {
		svc := b.Services[i]
		have := s.services[svc.Name]
		if have == nil {
			s.services[svc.Name] = &svc
			continue
		}
		have.Instances = append(have.Instances, svc.Instances...)
		have.Properties = append(have.Properties, svc.Properties...)
	}
}

// profile applies a profile and those that it includes, up to a depth.
func (s *SMF) profile(root Root, name string, depth int) error {
	target, err := follow(root, name)
	if err != nil {
		return err
	}
	e, err := root.Stat(target)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil || !e.IsRegular() {
		return err
	}
	b, err := s.read(root, e)
	if b == nil || err != nil {
		return err
	}
	for _, href := range b.Includes {
		u, err := url.Parse(href)
		if err != nil || u.Scheme != "file" && u.Scheme != "" || depth == 0 {
			s.Bad = append(s.Bad, Finding{target, fmt.Sprintf("includes %q, which is not read", href)})
			continue
		}
		included := u.Path
		if !strings.HasPrefix(included, "/") {
			included = path.Join(path.Dir(target), included)
		}
		if err := s.profile(root, strings.TrimPrefix(included, "/"), depth-1); err != nil {
			return err
		}
	}
	for _, svc := range b.Services {
		props := svc.Properties
		for _, i := range svc.Instances {
			if i.Enabled != "" {
				s.set[svc.Name+":"+i.Name] = i.Enabled
			}
			props = append(props, i.Properties...)
		}
		for _, p := range props {
			s.set[svc.Name+":"+p.Instance+"\x00"+p.Group+"/"+p.Name] = p.Value
		}
	}
	return nil
}

// System reports whether the root holds the manifests of a system, not just those of an image that
// takes the rest from its host: only then is it known what is missing.
func (s *SMF) System() bool {
	return s.services["system/svc/restarter"] != nil && s.services["milestone/multi-user"] != nil
}

// Has reports whether a manifest brings the instance.
func (s *SMF) Has(service, instance string) bool {
	svc := s.services[service]
	return svc != nil && slices.ContainsFunc(svc.Instances, func(i SMFInstance) bool { return i.Name == instance })
}

// Services returns the names of the services, sorted.
func (s *SMF) Services() []string { return slices.Sorted(maps.Keys(s.services)) }

// value returns a property of an instance, of profiles before those of manifests.
func (s *SMF) value(svc *SMFService, inst *SMFInstance, group, name string) string {
	for _, i := range []string{inst.Name, ""} {
		if v, ok := s.set[svc.Name+":"+i+"\x00"+group+"/"+name]; ok {
			return v
		}
	}
	for _, props := range [][]Property{inst.Properties, svc.Properties} {
		for _, p := range props {
			if p.Group == group && p.Name == name {
				return p.Value
			}
		}
	}
	return ""
}

// enabled reports whether an instance is started at boot.
func (s *SMF) enabled(svc *SMFService, inst *SMFInstance) bool {
	if v, ok := s.set[svc.Name+":"+inst.Name]; ok {
		return v == "true"
	}
	return inst.Enabled == "true"
}
