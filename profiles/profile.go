package profiles

import (
	"embed"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/gohcl"
	"github.com/hashicorp/hcl/v2/hclsyntax"

	"github.com/goldenisc/packer-plugin-isc/image"
)

// A Profile is a named set of controls.
type Profile struct {
	Name       string
	Title      string
	Controls   map[string][]string // ids by operating system, in the order of the catalogue
	Parameters map[string]string   // defaults that differ from those of the catalogue
}

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

// Limits of a profile file. The parser recurses: without a limit, brackets alone would exhaust
// the stack.
const (
	maxProfile = 256 << 10 // bytes
	maxDepth   = 100       // of brackets and templates
)

// Parse reads a profile:
//
//	name     = "web"
//	title    = "What our web servers keep"
//	controls = {
//	  illumos = ["A01", "E03"]
//	  linux   = ["E03"]
//	}
//	parameters = { password_length = "20" }
//
// The diagnostics hold everything that is wrong with it. The profile is never nil.
func Parse(filename string, src []byte) (*Profile, hcl.Diagnostics) {
	p := &Profile{Controls: map[string][]string{}, Parameters: map[string]string{}}
	start := hcl.Range{Filename: filename, Start: hcl.InitialPos, End: hcl.InitialPos}
	if err := bounded(filename, src); err != nil {
		return p, diagnose(start, "Too large", err.Error())
	}
	file, diags := hclsyntax.ParseConfig(src, filename, hcl.InitialPos)
	if diags.HasErrors() {
		return p, diags
	}
	var f struct {
		Name       string         `hcl:"name"`
		Title      string         `hcl:"title,optional"`
		Controls   hcl.Expression `hcl:"controls"`
		Parameters hcl.Expression `hcl:"parameters,optional"`
	}
	diags = append(diags, gohcl.DecodeBody(file.Body, nil, &f)...)
	if diags.HasErrors() {
		return p, diags
	}
	p.Name, p.Title = f.Name, f.Title
	if !nameOK(p.Name) {
		diags = append(diags, diagnose(start, "Invalid name", fmt.Sprintf("The name %q is not made of lower-case letters, digits and inner hyphens.", p.Name))...)
	}
	diags = append(diags, p.decodeControls(f.Controls)...)
	diags = append(diags, p.decodeParameters(f.Parameters)...)
	return p, diags
}

func bounded(filename string, src []byte) error {
	if len(src) > maxProfile {
		return fmt.Errorf("The file has %d bytes, more than %d.", len(src), maxProfile) //nolint:staticcheck // a diagnostic
	}
	tokens, _ := hclsyntax.LexConfig(src, filename, hcl.InitialPos) // the parser reports what is wrong
	depth := 0
	for _, t := range tokens {
		switch t.Type {
		case hclsyntax.TokenOBrace, hclsyntax.TokenOBrack, hclsyntax.TokenOParen, hclsyntax.TokenOQuote,
			hclsyntax.TokenOHeredoc, hclsyntax.TokenTemplateInterp, hclsyntax.TokenTemplateControl:
			depth++
		case hclsyntax.TokenCBrace, hclsyntax.TokenCBrack, hclsyntax.TokenCParen, hclsyntax.TokenCQuote,
			hclsyntax.TokenCHeredoc, hclsyntax.TokenTemplateSeqEnd:
			depth--
		}
		if depth > maxDepth {
			return fmt.Errorf("Brackets are nested more than %d deep in line %d.", maxDepth, t.Range.Start.Line)
		}
	}
	return nil
}

func diagnose(at hcl.Range, summary, detail string) hcl.Diagnostics {
	return hcl.Diagnostics{{Severity: hcl.DiagError, Summary: summary, Detail: detail, Subject: &at}}
}

func (p *Profile) decodeControls(expr hcl.Expression) hcl.Diagnostics {
	pairs, diags := hcl.ExprMap(expr)
	for _, pair := range pairs {
		var os string
		diags = append(diags, gohcl.DecodeExpression(pair.Key, nil, &os)...)
		if !slices.Contains(Platforms, os) {
			diags = append(diags, diagnose(pair.Key.Range(), "Unknown operating system",
				fmt.Sprintf("%q is none of %s%s.", os, strings.Join(Platforms, ", "), didYouMean(os, Platforms)))...)
			continue
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
			if err := p.add(os, id); err != nil {
				diags = append(diags, diagnose(item.Range(), "Unsuitable control", err.Error())...)
			}
		}
		slices.SortFunc(p.Controls[os], strings.Compare)
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
			if err := p.Type.check(value); err != nil {
				return fmt.Errorf("parameter %q: %w", name, err)
			}
			return nil
		}
	}
	return fmt.Errorf("no parameter %q%s", name, didYouMean(name, names))
}

// A Selection is a profile with the parameters and waivers of one image.
type Selection struct {
	profile string
	os      string
	ids     []string
	value   map[string]string
	waivers []image.Waiver
}

// Select joins the profile with parameters and waivers for an operating system. Unknown names,
// malformed values and dates are all reported, joined.
func (p *Profile) Select(os string, set map[string]string, waivers []image.Waiver) (*Selection, error) {
	s := &Selection{profile: p.Name, os: os, ids: p.Controls[os], value: map[string]string{}}
	var errs []error
	if !slices.Contains(Platforms, os) {
		errs = append(errs, fmt.Errorf("no operating system %q%s", os, didYouMean(os, Platforms)))
	}
	for _, c := range Controls {
		for _, q := range c.Parameters {
			s.value[q.Name] = q.Default
		}
	}
	maps.Copy(s.value, p.Parameters)
	for _, name := range slices.Sorted(maps.Keys(set)) {
		if err := checkParameter(name, set[name]); err != nil {
			errs = append(errs, err)
		}
		s.value[name] = set[name]
	}
	seen := map[string]bool{}
	for _, w := range waivers {
		switch {
		case ControlByID(w.Control) == nil:
			errs = append(errs, fmt.Errorf("waiver: %w", unknownControl(w.Control)))
		case !slices.Contains(s.ids, w.Control):
			errs = append(errs, fmt.Errorf("waiver of control %q: profile %q does not hold it on %s", w.Control, p.Name, os))
		case seen[w.Control]:
			errs = append(errs, fmt.Errorf("waiver of control %q: there are two", w.Control))
		}
		seen[w.Control] = true
		if strings.TrimSpace(w.Reason) == "" {
			errs = append(errs, fmt.Errorf("waiver of control %q: no reason", w.Control))
		}
		if _, err := time.Parse(time.DateOnly, w.Until); err != nil {
			errs = append(errs, fmt.Errorf("waiver of control %q: %q is not a day written YYYY-MM-DD", w.Control, w.Until))
		}
		s.waivers = append(s.waivers, w)
	}
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	slices.SortFunc(s.waivers, func(a, b image.Waiver) int { return strings.Compare(a.Control, b.Control) })
	return s, nil
}

// Controls returns the controls of the selection that are not waived, in the order of the
// catalogue.
func (s *Selection) Controls() []*Control {
	var all []*Control
	for _, id := range s.ids {
		if s.waiver(id) == nil {
			all = append(all, ControlByID(id))
		}
	}
	return all
}

// Live returns the selection without the controls that only images keep: removing what identifies
// a machine, or resetting its SMF repository, must not reach a live one.
func (s *Selection) Live() *Selection {
	live := *s
	live.ids = slices.DeleteFunc(slices.Clone(s.ids), func(id string) bool { return ControlByID(id).Scope == ImageOnly })
	return &live
}

// Globs returns the patterns of all files that the controls read or write, sorted: what has to be
// fetched of a live machine before [Apply] or [Audit].
func (s *Selection) Globs() []string {
	var all []string
	for _, id := range s.ids {
		m := ControlByID(id).On[s.os]
		all = append(all, m.Globs...)
		all = append(all, m.Needs...)
		if len(m.SMF) > 0 {
			all = append(all, sitePath)
		}
	}
	slices.Sort(all)
	return slices.Compact(all)
}

// Waivers returns the waivers, sorted by control.
func (s *Selection) Waivers() []image.Waiver { return s.waivers }

func (s *Selection) waiver(id string) *image.Waiver {
	for i := range s.waivers {
		if s.waivers[i].Control == id {
			return &s.waivers[i]
		}
	}
	return nil
}

func (s *Selection) params(epoch time.Time) *Params {
	return &Params{OS: s.os, Epoch: epoch, value: s.value}
}

// Apply makes every control of the selection hold that is not waived and that a root alone can
// keep. What is new or changed gets the time epoch. The day does not matter: a waiver that has
// ended makes [Audit] fail, it does not change bytes.
func Apply(root Root, s *Selection, epoch time.Time) error {
	p := s.params(epoch)
	for _, c := range s.Controls() {
		m := c.On[s.os]
		if ok, err := applicable(root, &m); err != nil {
			return fmt.Errorf("control %s: %w", c.ID, err)
		} else if !ok {
			continue
		}
		for _, edit := range m.edits(p) {
			if err := edit(root); err != nil {
				return fmt.Errorf("control %s: %w", c.ID, err)
			}
		}
	}
	return nil
}

// maxFindings bounds the findings of one control in a report, which travels with the image.
const maxFindings = 200

func bound(f []Finding) []Finding {
	if len(f) <= maxFindings {
		return f
	}
	return append(f[:maxFindings:maxFindings], Finding{Problem: fmt.Sprintf("and %d more", len(f)-maxFindings)})
}

func applicable(root Root, m *Method) (bool, error) {
	for _, pattern := range m.Needs {
		names, err := root.Glob(pattern)
		if err != nil || len(names) > 0 {
			return err == nil, err
		}
	}
	return len(m.Needs) == 0, nil
}

// Audit reports on every control of the selection without changing the root. A waiver holds until
// the end of its day, of which today tells; after that its control fails.
func Audit(root Root, s *Selection, today time.Time) (*Report, error) {
	r := &Report{Schema: 1, Profile: s.profile, OS: s.os, Parameters: map[string]string{}, Controls: []Result{}}
	for _, id := range s.ids {
		c := ControlByID(id)
		for _, p := range c.Parameters {
			r.Parameters[p.Name] = s.value[p.Name]
		}
		res, err := s.audit(root, c, today)
		if err != nil {
			return nil, fmt.Errorf("control %s: %w", id, err)
		}
		r.Controls = append(r.Controls, res)
	}
	return r, nil
}

func (s *Selection) audit(root Root, c *Control, today time.Time) (Result, error) {
	res := Result{ID: c.ID, Title: c.Title, Status: Pass}
	m := c.On[s.os]
	if w := s.waiver(c.ID); w != nil {
		res.Status, res.Reason, res.Until = Waived, w.Reason, w.Until
		if today.Format(time.DateOnly) > w.Until {
			res.Status = Fail
			res.Findings = []Finding{{Problem: "its waiver ended on " + w.Until}}
		}
		return res, nil
	}
	if !m.inImage() {
		res.Status, res.Reason = OnDock, m.How
		return res, nil
	}
	ok, err := applicable(root, &m)
	if err != nil {
		return res, err
	}
	if !ok {
		res.Status, res.Reason = NotApplicable, "there is no "+strings.Join(m.Needs, " or ")
		return res, nil
	}
	over := NewOverlay(root)
	p := s.params(time.Time{})
	for _, edit := range m.edits(p) {
		if err := edit(over); err != nil {
			return res, err
		}
	}
	changes, err := over.Changes()
	if err != nil {
		return res, err
	}
	for i, c := range changes {
		// A directory that is missing needs no mention beside what is missing in it.
		if i+1 < len(changes) && c.Before == nil && c.After.IsDir() && strings.HasPrefix(changes[i+1].Name, c.Name+"/") {
			continue
		}
		res.Findings = append(res.Findings, c.finding())
	}
	if m.Check != nil {
		seen, err := m.Check(root, p)
		if err != nil {
			return res, err
		}
		res.Findings = append(res.Findings, seen.Findings...)
		res.Notes = seen.Notes
	}
	if len(res.Findings) > 0 {
		res.Status = Fail
	}
	res.Findings, res.Notes = bound(res.Findings), bound(res.Notes)
	return res, nil
}
