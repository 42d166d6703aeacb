package profiles

import (
	"embed"
	"fmt"
	"slices"
	"strings"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/gohcl"
	"github.com/hashicorp/hcl/v2/hclsyntax"

	"github.com/goldenisc/packer-plugin-isc/image"
	"github.com/goldenisc/packer-plugin-isc/internal/hcltext"
)

// A Profile is a named set of controls.
type Profile struct {
	Name       string
	Title      string
	Controls   map[string][]string // ids by operating system, in the order of the catalogue; empty: none anywhere
	Parameters map[string]string   // defaults that differ from those of the catalogue
	Waivers    []image.Waiver      // of everybody who uses the profile; those of an image go before
	Rules      []Rule              // of somebody else's guide that the profile follows, sorted by id
}

// The profiles that are built in. What the guide of stig-solaris11 is and whose, its head says.
//
//go:embed *.hcl
var builtin embed.FS

// Names returns the names of the profiles that are built in, sorted.
func Names() []string {
	files, err := builtin.ReadDir(".")
	if err != nil {
		panic(err) // the file system is part of the program
	}
	var names []string
	for _, f := range files {
		names = append(names, strings.TrimSuffix(f.Name(), ".hcl"))
	}
	return names
}

// Load returns a profile that is built in.
func Load(name string) (*Profile, error) {
	if !slices.Contains(Names(), name) {
		return nil, fmt.Errorf("no profile %q (there are %s)%s", name, strings.Join(Names(), ", "), didYouMean(name, Names()))
	}
	file := name + ".hcl"
	src, err := builtin.ReadFile(file)
	if err != nil {
		return nil, err
	}
	p, diags := Parse(file, src)
	if diags.HasErrors() {
		return nil, fmt.Errorf("profile %q: %w", name, diags)
	}
	return p, nil
}

// Parse reads a profile:
//
//	name     = "web"
//	title    = "What our web servers keep"
//	controls = {
//	  illumos = ["A01", "E03"]
//	  solaris = ["illumos", "E34"] # those of illumos that exist there, and one more
//	  linux   = ["E03"]
//	}
//	parameters = { password_length = "20" }
//
// These may stand there too: extends, the name of a built-in profile whose controls, parameters,
// waivers and rules it has; except, ids of controls that it has not; only, the systems that it is
// for; blocks waive with control, reason and until; and rules, a map from rules of a guide to the
// controls that keep them.
//
// The diagnostics hold everything that is wrong with it. The profile is never nil.
func Parse(filename string, src []byte) (*Profile, hcl.Diagnostics) {
	p := &Profile{Controls: map[string][]string{}, Parameters: map[string]string{}}
	start := hcl.Range{Filename: filename, Start: hcl.InitialPos, End: hcl.InitialPos}
	if diags := hcltext.Bounded(filename, src); diags.HasErrors() {
		return p, diags
	}
	file, diags := hclsyntax.ParseConfig(src, filename, hcl.InitialPos)
	if diags.HasErrors() {
		return p, diags
	}
	var f struct {
		Name       string         `hcl:"name"`
		Title      string         `hcl:"title,optional"`
		Extends    string         `hcl:"extends,optional"`
		Controls   hcl.Expression `hcl:"controls,optional"`
		Except     hcl.Expression `hcl:"except,optional"`
		Only       hcl.Expression `hcl:"only,optional"`
		Parameters hcl.Expression `hcl:"parameters,optional"`
		Rules      hcl.Expression `hcl:"rules,optional"`
		Waive      []struct {
			Control string    `hcl:"control"`
			Reason  string    `hcl:"reason"`
			Until   string    `hcl:"until"`
			Range   hcl.Range `hcl:",def_range"`
		} `hcl:"waive,block"`
	}
	diags = append(diags, gohcl.DecodeBody(file.Body, nil, &f)...)
	if diags.HasErrors() {
		return p, diags
	}
	p.Name, p.Title = f.Name, f.Title
	if !nameOK(p.Name) {
		diags = append(diags, diagnose(start, "Invalid name", fmt.Sprintf("The name %q is not made of lower-case letters, digits and inner hyphens.", p.Name))...)
	}
	if v, more := f.Controls.Value(nil); f.Extends == "" && !more.HasErrors() && v.IsNull() {
		return p, append(diags, diagnose(start, "No controls", "A profile names controls, or extends another.")...)
	}
	if f.Extends != "" {
		base, err := Load(f.Extends)
		if f.Extends == p.Name {
			err = fmt.Errorf("profile %q extends itself", p.Name)
		}
		if err != nil {
			return p, append(diags, diagnose(start, "Unsuitable profile to extend", err.Error())...)
		}
		p.Controls, p.Parameters, p.Waivers, p.Rules = base.Controls, base.Parameters, base.Waivers, base.Rules
	}
	diags = append(diags, p.decodeControls(f.Controls)...)
	diags = append(diags, p.decodeExcept(f.Except)...)
	diags = append(diags, p.decodeOnly(f.Only)...)
	diags = append(diags, p.decodeParameters(f.Parameters)...)
	diags = append(diags, p.decodeRules(f.Rules)...)
	for _, w := range f.Waive {
		waiver := image.Waiver{Control: w.Control, Reason: w.Reason, Until: w.Until}
		for _, err := range p.checkWaivers([]image.Waiver{waiver}, "") {
			diags = append(diags, diagnose(w.Range, "Unsuitable waiver", err.Error())...)
		}
		p.Waivers = slices.DeleteFunc(p.Waivers, func(o image.Waiver) bool { return o.Control == w.Control })
		p.Waivers = append(p.Waivers, waiver)
	}
	return p, diags
}

func diagnose(at hcl.Range, summary, detail string) hcl.Diagnostics {
	return hcl.Diagnostics{{Severity: hcl.DiagError, Summary: summary, Detail: detail, Subject: &at}}
}

func (p *Profile) decodeControls(expr hcl.Expression) hcl.Diagnostics {
	pairs, diags := optionalMap(expr)
	seen := map[string]bool{}
	like := map[string][]string{} // by operating system, those whose controls it has too
	for _, pair := range pairs {
		var os string
		diags = append(diags, gohcl.DecodeExpression(pair.Key, nil, &os)...)
		if !slices.Contains(Platforms, os) {
			diags = append(diags, diagnose(pair.Key.Range(), "Unknown operating system",
				fmt.Sprintf("%q is none of %s%s.", os, strings.Join(Platforms, ", "), didYouMean(os, Platforms)))...)
			continue
		}
		if seen[os] {
			diags = append(diags, diagnose(pair.Key.Range(), "Duplicate operating system", fmt.Sprintf("%q is listed twice.", os))...)
		}
		seen[os] = true
		if p.Controls[os] == nil {
			p.Controls[os] = []string{}
		}
		items, more := hcl.ExprList(pair.Value)
		diags = append(diags, more...)
		for _, item := range items {
			var id string
			more := gohcl.DecodeExpression(item, nil, &id)
			diags = append(diags, more...)
			if more.HasErrors() {
				continue
			}
			if slices.Contains(Platforms, id) && id != os {
				like[os] = append(like[os], id)
				continue
			}
			if err := p.add(os, id); err != nil {
				diags = append(diags, diagnose(item.Range(), "Unsuitable control", err.Error())...)
			}
		}
	}
	for os, others := range like {
		for _, other := range others {
			for _, id := range p.Controls[other] {
				if _, ok := ControlByID(id).On[os]; ok && !slices.Contains(p.Controls[os], id) {
					p.Controls[os] = append(p.Controls[os], id)
				}
			}
		}
	}
	for os := range p.Controls {
		slices.Sort(p.Controls[os])
	}
	return diags
}

func (p *Profile) add(os, id string) error {
	c := ControlByID(id)
	switch {
	case c == nil:
		return unknownControl(id)
	case !slices.Contains(c.Platforms(), os):
		return fmt.Errorf("control %q does not exist on %s, only on %s", id, os, strings.Join(c.Platforms(), ", "))
	case slices.Contains(p.Controls[os], id):
		return fmt.Errorf("control %q is listed twice", id)
	}
	p.Controls[os] = append(p.Controls[os], id)
	return nil
}

func (p *Profile) decodeParameters(expr hcl.Expression) hcl.Diagnostics {
	if v, diags := expr.Value(nil); !diags.HasErrors() && v.IsNull() {
		return nil // left out
	}
	pairs, diags := hcl.ExprMap(expr)
	for _, pair := range pairs {
		var name, value string
		more := gohcl.DecodeExpression(pair.Key, nil, &name)
		more = append(more, gohcl.DecodeExpression(pair.Value, nil, &value)...)
		diags = append(diags, more...)
		if more.HasErrors() {
			continue
		}
		if err := checkParameter(name, value); err != nil {
			diags = append(diags, diagnose(pair.Key.Range(), "Unsuitable parameter", err.Error())...)
			continue
		}
		p.Parameters[name] = value
	}
	return diags
}

func unknownControl(id string) error {
	var ids []string
	for _, c := range Controls {
		ids = append(ids, c.ID)
	}
	return fmt.Errorf("no control %q%s", id, didYouMean(id, ids))
}

func checkParameter(name, value string) error {
	var names []string
	for _, c := range Controls {
		for _, p := range c.Parameters {
			if p.Name != name {
				names = append(names, p.Name)
				continue
			}
			if err := p.check(value); err != nil {
				return fmt.Errorf("parameter %q: %w", name, err)
			}
			return nil
		}
	}
	return fmt.Errorf("no parameter %q%s", name, didYouMean(name, names))
}
