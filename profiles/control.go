package profiles

import (
	"fmt"
	"maps"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"

	"github.com/goldenisc/packer-plugin-isc/image"
)

// The operating systems that controls and layouts exist for. Solaris is Oracle's, from 11.4 on.
const (
	Illumos = "illumos"
	Solaris = "solaris"
	Linux   = "linux"
)

// Platforms are the operating systems in the order they are shown in.
var Platforms = []string{Illumos, Solaris, Linux}

// HasSMF reports whether services of an operating system are those of smf(7): illumos and Solaris are of
// one family, and differ from Linux in the same ways but where a [Method] or a comment says otherwise.
func HasSMF(os string) bool { return os == Illumos || os == Solaris }

// A Control is one requirement on an image.
type Control struct {
	ID         string // a letter for the area and two digits, such as "E03"
	Title      string // what holds
	Why        string
	Refs       []string // "STIG SOL-11.1-040040", "CIS 7.3": numbers only, the texts are licensed
	Scope      Scope
	Parameters []Parameter
	On         map[string]Method // how, by operating system; in the catalogue that of illumos is that of Solaris, too
	// Absent says why the control does not exist on an operating system where one would look for it.
	Absent map[string]string
}

// inherit gives Solaris the method of illumos, unless it has its own or cannot have any.
func (c *Control) inherit() {
	own, ok := c.On[Illumos]
	if _, other := c.On[Solaris]; ok && !other && c.Absent[Solaris] == "" {
		c.On = maps.Clone(c.On)
		c.On[Solaris] = own
	}
}

// A Scope says where a control may be applied.
type Scope int

// Sealing an image must never reach a live machine.
const (
	Both      Scope = iota // images and live machines
	ImageOnly              // only while an image is built
	LiveOnly               // only on live machines: no file of an image says it
)

func (s Scope) String() string { return [...]string{"both", "image", "live"}[s] }

// A Parameter is a value of a control that a profile or a spec may set.
type Parameter struct {
	Name    string
	Default string
	What    string // for people, with the unit
	Type    ParameterType
	// The bounds of a Number: past them a control would hold in name only. Least of an Octal are bits that
	// it must have.
	Least, Most int
}

// check returns what is wrong with a value.
func (p *Parameter) check(v string) error {
	err := p.Type.check(v)
	base := 10
	switch p.Type {
	case Octal:
		base = 8
	case Number:
	default:
		return err
	}
	n, _ := strconv.ParseInt(v, base, 32) // checked with the type
	if err != nil || p.Type == Number && (int(n) < p.Least || int(n) > p.Most) || p.Type == Octal && int(n)&p.Least != p.Least {
		return fmt.Errorf("%q is no %s", v, p.Values())
	}
	return nil
}

// Values says what values the parameter takes, such as "number from 1 to 52".
func (p *Parameter) Values() string {
	switch p.Type {
	case Number:
		return fmt.Sprintf("number from %d to %d", p.Least, p.Most)
	case Octal:
		return fmt.Sprintf("octal mask that has %03o", p.Least)
	}
	return p.Type.String()
}

// A ParameterType says what values a parameter takes.
type ParameterType int

// Values end up in configuration files, so what they may hold is bounded.
const (
	Number   ParameterType = iota // decimal
	Octal                         // three octal digits
	List                          // words, separated by commas, of characters that no file takes for syntax
	Hosts                         // a list of addresses, networks and names of hosts_access(5)
	Patterns                      // a list of patterns of [image.NewMatcher]
	Text                          // printable, may have several lines
)

func (t ParameterType) String() string {
	return [...]string{"number", "octal", "list", "hosts", "patterns", "text"}[t]
}

// syntax are characters that shells, XML, quoted values and comments have for themselves.
const syntax = "\"'`$\\;&|<>(){}#"

// hostForm has no colon outside of brackets: what follows one in hosts.allow may be a command.
var hostForm = regexp.MustCompile(`^([A-Za-z0-9.][A-Za-z0-9._/*?-]*|\[[0-9A-Fa-f:.]+\](/[0-9]+)?)$`)

// check returns what is wrong with the form of a value.
func (t ParameterType) check(v string) error {
	words := split(v)
	switch t {
	case Number:
		if n, err := strconv.ParseInt(v, 10, 32); err != nil || v != strconv.FormatInt(n, 10) {
			return fmt.Errorf("%q is not a number", v)
		}
	case Octal:
		if n, err := strconv.ParseUint(v, 8, 9); err != nil || v != fmt.Sprintf("%03o", n) {
			return fmt.Errorf("%q is not a number of three octal digits", v)
		}
	case List, Hosts, Patterns:
		if strings.ContainsFunc(v, func(r rune) bool { return unicode.IsSpace(r) || !unicode.IsPrint(r) }) {
			return fmt.Errorf("%q is not a list of words separated by commas", v)
		}
		if i := strings.IndexAny(v, syntax); t == List && i >= 0 {
			return fmt.Errorf("%q holds %q, which files take for syntax", v, v[i])
		}
		for _, w := range words {
			if t == Hosts && !hostForm.MatchString(w) {
				return fmt.Errorf("%q is no address, network or name of a host, such as 10.0.0.0/8, [2001:db8::]/32 or .example.com", w)
			}
			if _, err := image.NewMatcher(w); t == Patterns && err != nil {
				return err
			}
		}
	case Text:
		if strings.ContainsFunc(v, func(r rune) bool { return r != '\n' && !unicode.IsPrint(r) }) {
			return fmt.Errorf("%q holds characters that cannot be printed", v)
		}
	}
	return nil
}

// A Method is how a control is kept on one operating system: at least one of Edits, SMF, Zone,
// Dock, Check and Live.
type Method struct {
	How   string   // for people: what is set where
	Globs []string // what Edits and Check read or write: what has to be fetched of a live machine
	// Needs are patterns of which one must match, or the control is not applicable: there is
	// nothing in the root that it could be about.
	Needs []string

	Edits func(p *Params) []Edit
	SMF   []Property    // of the site profile; values may name parameters as ${name}
	Zone  func(z *Zone) // settings of the zone
	Dock  string        // what the host has to provide, for people
	Check func(Root, *Params) (Inspection, error)
	Live  string // the command that people set a running machine with, where no edit can
}

// An Inspection is the outcome of a check that is no edit.
type Inspection struct {
	Findings []Finding // violations
	Notes    []Finding // worth knowing
	Untested []Finding // what the check could not look into: no violation, and no proof that there is none
}

// The kinds of methods.
const (
	KindEdit  = "edit"  // of files of the tree
	KindSMF   = "smf"   // properties in the site profile of the tree
	KindCheck = "check" // of the built tree
	KindZone  = "zone"  // zone configuration
	KindDock  = "dock"  // requirement on the host
	KindLive  = "live"  // command that people run on the machine
)

// Kinds returns of what kinds a method is.
func (m *Method) Kinds() []string {
	var k []string
	if m.Edits != nil {
		k = append(k, KindEdit)
	}
	if len(m.SMF) > 0 {
		k = append(k, KindSMF)
	}
	if m.Check != nil {
		k = append(k, KindCheck)
	}
	if m.Zone != nil {
		k = append(k, KindZone)
	}
	if m.Dock != "" {
		k = append(k, KindDock)
	}
	if m.Live != "" {
		k = append(k, KindLive)
	}
	return k
}

// inImage reports whether an image alone can keep or break the control.
func (m *Method) inImage() bool { return m.Edits != nil || len(m.SMF) > 0 || m.Check != nil }

// byHand says what whoever runs the machine has to do: such a command changes how a machine starts, or
// cannot be taken back, so it is neither run nor its effect looked for.
func (m *Method) byHand() string {
	return "by hand on the running machine, neither run nor checked by iscadm: " + m.Live
}

// edits returns all edits of the method.
func (m *Method) edits(p *Params) []Edit {
	var all []Edit
	if m.Edits != nil {
		all = m.Edits(p)
	}
	if len(m.SMF) > 0 {
		all = append(all, editSite(m.SMF, p))
	}
	return all
}

// Kind returns the kinds of the control's methods, joined by "+", such as "smf+zone".
func (c *Control) Kind() string {
	var kinds []string
	for _, os := range c.Platforms() {
		m := c.On[os]
		for _, k := range m.Kinds() {
			if !slices.Contains(kinds, k) {
				kinds = append(kinds, k)
			}
		}
	}
	return strings.Join(kinds, "+")
}

// Platforms returns the operating systems that the control exists on.
func (c *Control) Platforms() []string {
	var all []string
	for _, os := range Platforms {
		if _, ok := c.On[os]; ok {
			all = append(all, os)
		}
	}
	return all
}

// A Description is a control as programs read it.
type Description struct {
	ID         string                 `json:"id"`
	Title      string                 `json:"title"`
	Why        string                 `json:"why"`
	Platforms  []string               `json:"platforms"`
	Kind       string                 `json:"kind"`
	Scope      string                 `json:"scope"`
	Refs       []string               `json:"refs"`
	Parameters []ParameterDescription `json:"parameters"`
	How        map[string]string      `json:"how"`              // by platform
	Absent     map[string]string      `json:"absent,omitempty"` // why not, by platform
}

// A ParameterDescription is a parameter as programs read it.
type ParameterDescription struct {
	Name    string `json:"name"`
	Type    string `json:"type"`
	Default string `json:"default"`
	What    string `json:"what"`
	Least   int    `json:"least,omitempty"`
	Most    int    `json:"most,omitempty"`
}

// Describe returns the control as programs read it.
func (c *Control) Describe() Description {
	d := Description{
		ID: c.ID, Title: c.Title, Why: c.Why, Platforms: c.Platforms(), Kind: c.Kind(), Scope: c.Scope.String(),
		Refs: slices.Concat([]string{}, c.Refs), Parameters: []ParameterDescription{}, How: map[string]string{},
		Absent: c.Absent,
	}
	for _, p := range c.Parameters {
		d.Parameters = append(d.Parameters, ParameterDescription{p.Name, p.Type.String(), p.Default, p.What, p.Least, p.Most})
	}
	for os, m := range c.On {
		d.How[os] = m.How
	}
	return d
}

// ControlByID returns the control of the catalogue, or nil.
func ControlByID(id string) *Control {
	for i := range Controls {
		if Controls[i].ID == id {
			return &Controls[i]
		}
	}
	return nil
}

// Params are what edits are given.
type Params struct {
	OS    string
	Epoch time.Time // of what is new or changed
	value map[string]string
	asked Asked
}

// laid reports whether a spec laid the file.
func (p *Params) laid(name string) bool { return p.asked.Files[name] != "" || p.asked.Trees[name] }

// Value returns the value of a parameter.
func (p *Params) Value(name string) string { return p.value[name] }

// List returns the words of a parameter of type List or Patterns.
func (p *Params) List(name string) []string {
	return split(p.value[name])
}

func split(list string) []string {
	return strings.FieldsFunc(list, func(r rune) bool { return r == ',' })
}

// expand replaces ${name} by the parameter's value.
func (p *Params) expand(s string) string { return os.Expand(s, p.Value) }
