package profiles

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/goldenisc/packer-plugin-isc/image"
)

// A Selection is a profile with the parameters and waivers of one image.
type Selection struct {
	profile string
	os      string
	ids     []string
	value   map[string]string
	waivers []image.Waiver
	rules   []Rule
	live    bool // of a machine
	asked   Asked
}

// Asked is what a spec puts into an image itself.
type Asked struct {
	Files map[string]string // the block, such as `file "/etc/motd"`, of what lies there for its own sake
	Trees map[string]bool   // what is there with much else
	Users []User
}

// For returns the selection for an image of which a spec asks something: it is searched for secrets wherever
// it lies, and a control that takes back what a block is for cannot be applied. Trees may be all that a
// machine was: what they bring is sealed like a base.
func (s *Selection) For(asked Asked) *Selection {
	image := *s
	image.asked = asked
	return &image
}

// Select joins the profile with parameters and waivers for an operating system. Unknown names,
// malformed values and dates are all reported, joined.
func (p *Profile) Select(os string, set map[string]string, waivers []image.Waiver) (*Selection, error) {
	s := &Selection{profile: p.Name, os: os, ids: p.Controls[os], rules: p.Rules, value: map[string]string{}}
	var errs []error
	if !slices.Contains(Platforms, os) {
		errs = append(errs, fmt.Errorf("no operating system %q (there are %s)%s", os, strings.Join(Platforms, ", "), didYouMean(os, Platforms)))
	} else if _, ok := p.Controls[os]; !ok && len(p.Controls) > 0 {
		errs = append(errs, fmt.Errorf("profile %q is for %s, not for %s", p.Name, strings.Join(sortedKeys(p.Controls), ", "), os))
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
	errs = append(errs, p.checkWaivers(waivers, os)...)
	s.waivers = slices.Clone(waivers)
	for _, w := range p.Waivers {
		own := func(o image.Waiver) bool { return o.Control == w.Control }
		if slices.Contains(s.ids, w.Control) && !slices.ContainsFunc(waivers, own) {
			s.waivers = append(s.waivers, w)
		}
	}
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	slices.SortFunc(s.waivers, func(a, b image.Waiver) int { return strings.Compare(a.Control, b.Control) })
	return s, nil
}

// checkWaivers returns what is wrong with waivers of controls on an operating system, or on any if
// it is empty.
func (p *Profile) checkWaivers(waivers []image.Waiver, os string) []error {
	var errs []error
	seen := map[string]bool{}
	for _, w := range waivers {
		held := slices.Contains(p.Controls[os], w.Control)
		if os == "" {
			for _, ids := range p.Controls {
				held = held || slices.Contains(ids, w.Control)
			}
		}
		switch {
		case ControlByID(w.Control) == nil:
			errs = append(errs, fmt.Errorf("waiver: %w", unknownControl(w.Control)))
		case !held && os == "":
			errs = append(errs, fmt.Errorf("waiver of control %q: profile %q does not hold it", w.Control, p.Name))
		case !held:
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
	}
	return errs
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
	live.live = true
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
	all = append(all, bootGlobs(s.os)...)
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
	return &Params{OS: s.os, Epoch: epoch, value: s.value, asked: s.asked}
}

// Apply makes every control of the selection hold that is not waived and that a root alone can
// keep. What is new or changed gets the time epoch. The day does not matter: a waiver that has
// ended makes [Audit] fail, it does not change bytes. If a control cannot be applied the root is
// left as it was.
func Apply(root Root, s *Selection, epoch time.Time) error {
	over := NewOverlay(root)
	p := s.params(epoch)
	for _, c := range s.Controls() {
		m := c.On[s.os]
		if ok, err := applicable(over, &m); err != nil {
			return fmt.Errorf("control %s: %w", c.ID, err)
		} else if !ok {
			continue
		}
		for _, edit := range m.edits(p) {
			if err := edit(over); err != nil {
				return fmt.Errorf("control %s: %w", c.ID, err)
			}
		}
		if err := s.asked.kept(root, over); err != nil {
			return misfit(fmt.Errorf("control %s %w: waive it, or leave the block out", c.ID, err))
		}
	}
	changes, err := over.Changes()
	if err != nil {
		return err
	}
	return Commit(root, changes)
}

// kept returns what was taken back of what a spec asks for between two states of a root.
func (a *Asked) kept(before, after Root) error {
	for _, name := range sortedKeys(a.Files) {
		was, err := before.Stat(name)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return err
		}
		switch is, err := after.Stat(name); {
		case errors.Is(err, fs.ErrNotExist):
			return fmt.Errorf("removes %q, which %s lays", name, a.Files[name])
		case err != nil:
			return err
		case was.Size > 0 && is.Size == 0 && is.IsRegular():
			return fmt.Errorf("empties %q, which %s lays", name, a.Files[name])
		case was.UID != is.UID:
			return fmt.Errorf("gives %q, which %s lays, the owner %d", name, a.Files[name], is.UID)
		}
	}
	was, err := shells(before)
	if err != nil {
		return err
	}
	is, err := shells(after)
	if err != nil {
		return err
	}
	for _, u := range a.Users {
		switch shell, there := is[u.Name]; {
		case was[u.Name] == shell:
		case !there:
			return fmt.Errorf("removes user %q of the spec", u.Name)
		default:
			return fmt.Errorf("gives user %q of the spec, whose number is %d, the shell %q", u.Name, u.UID, shell)
		}
	}
	return nil
}

// shells returns the shells of accounts.
func shells(root Root) (map[string]string, error) {
	text, err := readText(root, "etc/passwd")
	all := map[string]string{}
	for _, f := range records(text) {
		if len(f) > 6 {
			all[f[0]] = f[6]
		}
	}
	return all, err
}

// maxFindings bounds the findings of one control in a report, which travels with the image.
const maxFindings = 200

func bound(f []Finding) []Finding {
	if len(f) <= maxFindings {
		return f
	}
	return append(f[:maxFindings:maxFindings], Finding{Problem: fmt.Sprintf("and %d more", len(f)-maxFindings)})
}

// absent finds the services that a method enables and that no manifest of the root brings: the site
// profile would name them in vain.
func absent(root Root, m *Method) ([]Finding, error) {
	var found []Finding
	var smf *SMF
	for _, p := range m.SMF {
		if p.Name != "" || p.Value != "true" {
			continue
		}
		if smf == nil {
			var err error
			if smf, err = ReadSMF(root); err != nil {
				return nil, err
			}
		}
		if smf.System() && !smf.Has(p.Service, p.Instance) {
			found = append(found, Finding{sitePath, "no manifest brings svc:/" + p.Service + ":" + p.Instance + ", which is to be enabled"})
		}
	}
	return found, nil
}

// orMore joins names with "or", only the first few of many.
func orMore(names []string) string {
	const few = 3
	if len(names) > few {
		return fmt.Sprintf("%s or %d others", strings.Join(names[:few], " or "), len(names)-few)
	}
	return strings.Join(names, " or ")
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
	r.Rules, r.Waivers = s.ruled(r), s.waivers
	services, err := BootServices(root, s.os)
	if err != nil && !AboutFile(err) {
		return nil, fmt.Errorf("services: %w", err)
	}
	r.Services = services
	setid, err := inventory(root, nil)
	if err != nil {
		return nil, fmt.Errorf("set-id files: %w", err)
	}
	r.SetID = setid.Notes
	return r, nil
}

func (s *Selection) audit(root Root, c *Control, today time.Time) (Result, error) {
	res := Result{ID: c.ID, Title: c.Title, Status: Pass}
	m := c.On[s.os]
	if w := s.waiver(c.ID); w != nil {
		res.Status, res.Reason, res.Until = Waived, w.Reason, w.Until
		if w.Ended(today) {
			res.Status = Fail
			res.Findings = []Finding{{Problem: "its waiver ended on " + w.Until}}
		}
		return res, nil
	}
	if !m.inImage() {
		res.Status, res.Reason = OnDock, m.How
		if m.Live != "" {
			res.Reason = m.byHand()
		}
		return res, nil
	}
	ok, err := applicable(root, &m)
	if err != nil {
		return res, err
	}
	if !ok {
		res.Status, res.Reason = NotApplicable, "there is no "+orMore(m.Needs)
		return res, nil
	}
	over := NewOverlay(root)
	p := s.params(time.Time{})
	// found notes an error that is about a file of the root, and returns others.
	found := func(err error) error {
		f, ok := asFinding(err)
		if !ok {
			return err
		}
		if !slices.Contains(res.Findings, f) {
			res.Findings = append(res.Findings, f)
		}
		return nil
	}
	for _, edit := range m.edits(p) {
		if err := found(edit(over)); err != nil {
			return res, err
		}
	}
	if len(m.SMF) > 0 {
		absent, err := absent(root, &m)
		if err := found(err); err != nil {
			return res, err
		}
		res.Findings = append(res.Findings, absent...)
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
		if err := found(err); err != nil {
			return res, err
		}
		res.Findings = append(res.Findings, seen.Findings...)
		res.Notes = append(seen.Untested, seen.Notes...)
		if n := len(seen.Untested); n > 0 {
			res.Reason = fmt.Sprintf("not tested: %s", seen.Untested[0].Problem)
			if n > 1 {
				res.Reason += fmt.Sprintf(", and %d more", n-1)
			}
		}
	}
	if len(res.Findings) > 0 {
		res.Status = Fail
	}
	res.Findings, res.Notes = bound(res.Findings), bound(res.Notes)
	return res, nil
}
