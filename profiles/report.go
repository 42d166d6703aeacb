package profiles

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"path"
	"slices"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/goldenisc/packer-plugin-isc/image"
)

// A Status is the outcome of one control.
type Status string

// The outcomes. Only Fail makes a report negative.
const (
	Pass          Status = "pass"
	Fail          Status = "fail"
	Waived        Status = "waived"
	NotApplicable Status = "not-applicable"
	OnDock        Status = "dock" // the image cannot say: the host, or who runs the machine, has to provide it
)

// A Report says which controls a root keeps. Its JSON holds neither the day nor the machine that
// it was made on, so that it can be part of a reproducible image.
type Report struct {
	Schema     int               `json:"schema"` // 1
	Profile    string            `json:"profile"`
	OS         string            `json:"os"`
	Parameters map[string]string `json:"parameters"` // all that the controls use
	Controls   []Result          `json:"controls"`   // in the order of the catalogue
	Rules      []Ruled           `json:"rules,omitempty"`
	Waivers    []image.Waiver    `json:"waivers,omitempty"`
	Services   []BootService     `json:"services,omitempty"` // that start at boot
	SetID      []Finding         `json:"setID,omitempty"`    // files that run with the rights of others, by path
}

// A Result is the outcome of one control.
type Result struct {
	ID       string    `json:"id"`
	Title    string    `json:"title"`
	Status   Status    `json:"status"`
	Reason   string    `json:"reason,omitempty"`   // why it is waived, not applicable or up to the dock, or what was not tested
	Until    string    `json:"until,omitempty"`    // end of the waiver
	Findings []Finding `json:"findings,omitempty"` // what violates it
	Notes    []Finding `json:"notes,omitempty"`    // worth knowing, whatever the status
}

// A Finding is one place where a control does not hold.
type Finding struct {
	Path    string `json:"path,omitempty"` // in the root
	Problem string `json:"problem"`
}

// String returns the finding in one line.
func (f Finding) String() string {
	if f.Path == "" {
		return f.Problem
	}
	return f.Path + ": " + f.Problem
}

// OK reports whether no control failed.
func (r *Report) OK() bool { return r.Count(Fail) == 0 }

// Count returns how many controls have this status.
func (r *Report) Count(s Status) int {
	n := 0
	for _, c := range r.Controls {
		if c.Status == s {
			n++
		}
	}
	return n
}

// At returns the report as it reads on a day: a control whose waiver has ended fails. The report that an
// image holds knows no day.
func (r *Report) At(today time.Time) *Report {
	now := *r
	now.Controls = slices.Clone(r.Controls)
	for i := range now.Controls {
		if c := &now.Controls[i]; c.Status == Waived && (image.Waiver{Until: c.Until}).Ended(today) {
			c.Status, c.Findings = Fail, []Finding{{Problem: "its waiver ended on " + c.Until}}
		}
	}
	now.Rules = rulesOf(r.Rules, r.OS, &now)
	return &now
}

// Selection returns the controls that the report is of, with its parameters, those of set in their place,
// and its waivers: what an image was held to, whatever the profile of that name holds today.
func (r *Report) Selection(set map[string]string) (*Selection, error) {
	p := &Profile{Name: r.Profile, Controls: map[string][]string{r.OS: {}}, Parameters: map[string]string{}}
	for _, c := range r.Controls {
		if err := p.add(r.OS, c.ID); err != nil {
			return nil, fmt.Errorf("report: %w", err)
		}
	}
	for _, rule := range r.Rules {
		p.Rules = append(p.Rules, rule.rule())
	}
	parameters := maps.Clone(r.Parameters)
	maps.Copy(parameters, set)
	return p.Select(r.OS, parameters, r.Waivers)
}

// Marshal returns the report as JSON. The bytes depend on its values only.
func (r *Report) Marshal() ([]byte, error) { return marshal(r) }

// ParseReport decodes a report strictly.
func ParseReport(data []byte) (*Report, error) {
	r := new(Report)
	if err := image.DecodeStrict(data, r); err != nil {
		return nil, fmt.Errorf("report: %w", err)
	}
	if r.Schema != 1 {
		return nil, fmt.Errorf("report: schema %d: this program knows 1", r.Schema)
	}
	return r, nil
}

func marshal(v any) ([]byte, error) {
	data, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		return nil, err
	}
	return append(data, '\n'), nil
}

// maxDiff bounds the lines of a file that a finding shows.
const maxDiff = 5

// finding says what a change would put right.
func (c *Change) finding() Finding {
	f := Finding{Path: c.Name}
	switch {
	case c.After == nil:
		f.Problem = "is there and should not be"
		return f
	case c.Before == nil:
		f.Problem = "is missing"
		switch {
		case c.After.IsRegular():
			f.Problem += c.content()
		case c.After.Target != "":
			f.Problem += fmt.Sprintf(": should lead to %q", c.After.Target)
		}
		return f
	}
	var what []string
	b, a := c.Before, c.After
	if b.Type() != a.Type() {
		what = append(what, fmt.Sprintf("is a %s, should be a %s", image.TypeName(b.Mode), image.TypeName(a.Mode)))
	}
	if b.Perm() != a.Perm() {
		what = append(what, fmt.Sprintf("mode %04o, should be %04o", b.Perm(), a.Perm()))
	}
	if b.UID != a.UID || b.GID != a.GID {
		what = append(what, fmt.Sprintf("owner %d:%d, should be %d:%d", b.UID, b.GID, a.UID, a.GID))
	}
	if b.Target != a.Target {
		what = append(what, fmt.Sprintf("leads to %q, should to %q", b.Target, a.Target))
	}
	if !slices.Equal(c.Old, c.New) {
		what = append(what, "content"+c.content())
	}
	f.Problem = strings.Join(what, "; ")
	return f
}

// content says how the content differs.
func (c *Change) content() string {
	old, changed := lines(string(c.Old)), lines(string(c.New))
	switch {
	case len(c.New) == 0 && len(c.Old) > 0:
		return fmt.Sprintf(": %d bytes, should be empty", len(c.Old))
	case secret(c.Name):
		return ": the lines of " + strings.Join(firstFields(old, changed), ", ")
	case c.Name == sitePath:
		return diff(settingsOf(c.Old), settingsOf(c.New))
	case !text(c.Old) || !text(c.New):
		return fmt.Sprintf(": %d bytes, should be %d others", len(c.Old), len(c.New))
	}
	return diff(old, changed)
}

// settingsOf returns the settings of a site profile as lines for people.
func settingsOf(data []byte) []string {
	set, err := parseSite(data)
	if err != nil {
		return nil // it is replaced as a whole
	}
	var all []string
	for _, p := range set {
		name := p.Service
		if p.Instance != "" {
			name += ":" + p.Instance
		}
		if p.Group == "" {
			all = append(all, fmt.Sprintf("%s enabled=%s", name, p.Value))
		} else {
			all = append(all, fmt.Sprintf("%s %s/%s=%s", name, p.Group, p.Name, p.Value))
		}
	}
	return all
}

// text reports whether a file can be shown by lines.
func text(data []byte) bool {
	return utf8.Valid(data) && !bytes.ContainsFunc(data, func(r rune) bool { return unicode.IsControl(r) && r != '\n' && r != '\t' })
}

// secret reports whether a file's content must not be shown.
func secret(name string) bool {
	return slices.Contains([]string{"shadow", "gshadow", "master.passwd"}, path.Base(name))
}

// firstFields returns the names of records that differ.
func firstFields(old, changed []string) []string {
	var names []string
	for _, l := range slices.Concat(without(old, changed), without(changed, old)) {
		name, _, _ := strings.Cut(l, ":")
		if !slices.Contains(names, name) {
			names = append(names, name)
		}
	}
	return names
}

// diff shows the lines that are there and those that should be.
func diff(old, changed []string) string {
	var b strings.Builder
	for _, side := range []struct {
		verb  string
		lines []string
	}{{"has", without(old, changed)}, {"should have", without(changed, old)}} {
		if len(side.lines) == 0 {
			continue
		}
		shown := side.lines[:min(len(side.lines), maxDiff)]
		for i, l := range shown {
			shown[i] = fmt.Sprintf("%.120q", l)
		}
		fmt.Fprintf(&b, ": %s %s", side.verb, strings.Join(shown, ", "))
		if n := len(side.lines) - len(shown); n > 0 {
			fmt.Fprintf(&b, " and %d more lines", n)
		}
	}
	return b.String()
}

// without returns the lines of a that are not in b.
func without(a, b []string) []string {
	in := map[string]bool{}
	for _, l := range b {
		in[l] = true
	}
	return slices.DeleteFunc(slices.Clone(a), func(l string) bool { return in[l] })
}
