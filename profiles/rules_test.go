package profiles

import (
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/goldenisc/packer-plugin-isc/image"
)

// TestSTIG: every rule of the guide is kept by controls that the profile holds, or says why not.
func TestSTIG(t *testing.T) {
	p, err := Load("stig-solaris11")
	if err != nil {
		t.Fatal(err)
	}
	if len(p.Rules) != 218 {
		t.Errorf("%d rules, the guide has 218", len(p.Rules))
	}
	for _, r := range p.Rules {
		for _, c := range r.Controls {
			for _, os := range []string{Illumos, Solaris} {
				if !slices.Contains(p.Controls[os], c) && ControlByID(c).Absent[os] == "" {
					t.Errorf("%s: the profile does not hold %s on %s", r.ID, c, os)
				}
			}
		}
		if len(r.Controls) == 0 && (r.Reason == "" || r.Status != OnDock && r.Status != NotApplicable) {
			t.Errorf("%s: neither controls nor a reason", r.ID)
		}
	}
	// A control that names a rule is one that keeps it.
	for _, c := range Controls {
		for _, ref := range c.Refs {
			id, ok := strings.CutPrefix(ref, "STIG ")
			if !ok {
				continue
			}
			i := slices.IndexFunc(p.Rules, func(r Rule) bool { return r.ID == id })
			if i < 0 || p.Rules[i].Status == "" && !slices.Contains(p.Rules[i].Controls, c.ID) {
				t.Errorf("%s names %s, which is not kept by it", c.ID, id)
			}
		}
	}
	// The numbers of DISA's guide, V2R6.
	guide, err := os.ReadFile("testdata/stig-ids.txt")
	if err != nil {
		t.Fatal(err)
	}
	ids := lines(string(guide))
	if len(ids) != len(p.Rules) {
		t.Errorf("the guide has %d rules, the profile %d", len(ids), len(p.Rules))
	}
	for _, id := range ids {
		if !slices.ContainsFunc(p.Rules, func(r Rule) bool { return r.ID == id }) {
			t.Errorf("rule %s is not mapped", id)
		}
	}
}

func TestRuled(t *testing.T) {
	const src = `name = "x"
controls = { illumos = ["E03", "D15", "E20"] }
rules = {
  "1" = "E03"
  "2" = "E03 D15"
  "3" = "D15"
  "4" = "not applicable: there is none"
  "5" = "dock: the host"
  "6" = "E20"
  "7" = "A01"
}
waive {
  control = "D15"
  reason  = "no network"
  until   = "2027-01-01"
}
`
	p, diags := Parse("x.hcl", []byte(src))
	if diags.HasErrors() {
		t.Fatal(diags)
	}
	s, err := p.Select(Illumos, nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	r, err := Audit(newTree(t, map[string]string{"etc/default/passwd": "PASSLENGTH=15\n"}), s, today)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, rule := range r.Rules {
		got = append(got, rule.ID+" "+string(rule.Status))
	}
	want := []string{"1 pass", "2 waived", "3 waived", "4 not-applicable", "5 dock", "6 not-applicable", "7 fail"}
	if !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
	if len(r.Waivers) != 1 || r.Waivers[0].Reason != "no network" {
		t.Errorf("waivers %+v", r.Waivers)
	}
	// The waiver of an image goes before that of its profile, and past its day it is an error.
	s, err = p.Select(Illumos, nil, []image.Waiver{{Control: "D15", Reason: "mine", Until: "2020-01-01"}})
	if err != nil {
		t.Fatal(err)
	}
	if r, err = Audit(newTree(t, nil), s, today); err != nil {
		t.Fatal(err)
	}
	if r.OK() || len(r.Waivers) != 1 || r.Waivers[0].Reason != "mine" {
		t.Errorf("ok %v, waivers %+v", r.OK(), r.Waivers)
	}
}

func TestExtends(t *testing.T) {
	p, diags := Parse("x.hcl", []byte(`name = "x"
extends  = "isc-baseline"
controls = { linux = ["L10"] }
except   = ["S05"]
only     = ["linux"]
`))
	if diags.HasErrors() {
		t.Fatal(diags)
	}
	base, err := Load("isc-baseline")
	if err != nil {
		t.Fatal(err)
	}
	if _, ok := p.Controls[Illumos]; ok || len(p.Controls[Linux]) != len(base.Controls[Linux]) || slices.Contains(p.Controls[Linux], "S05") ||
		!slices.Contains(p.Controls[Linux], "L10") {
		t.Errorf("got %v", p.Controls)
	}
	for src, want := range map[string]string{
		`extends = "isc-baselin"`:  `did you mean "isc-baseline"?`,
		`extends = "x"`:            "extends itself",
		`except = ["Z99"]`:         `no control "Z99"`,
		`except = ["S05"]`:         "is not held anyway",
		`only = ["sunos"]`:         "is none of illumos, solaris, linux",
		`rules = { "1" = "" }`:     "neither controls nor",
		`rules = { "1" = "E003" }`: `did you mean "E03"?`,
		"waive {\ncontrol = \"A01\"\nreason = \"\"\nuntil = \"x\"\n}": "no reason",
	} {
		_, diags := Parse("x.hcl", []byte("name = \"x\"\ncontrols = { illumos = [\"A01\"] }\n"+src+"\n"))
		if !diags.HasErrors() || !strings.Contains(diags.Error()+errorsOf(diags), want) {
			t.Errorf("%s: %v, want %q", src, diags, want)
		}
	}
}

func errorsOf[E error](all []E) string {
	text := ""
	for _, e := range all {
		text += e.Error() + "\n"
	}
	return text
}

// TestRecorded: an image is held to what its report says, and a report read later knows which waivers have
// ended, for controls and for the rules they keep.
func TestRecorded(t *testing.T) {
	p, err := Load("stig-solaris11")
	if err != nil {
		t.Fatal(err)
	}
	p.Name = "somebody's own" // which no program has built in
	waivers := []image.Waiver{{Control: "S05", Reason: "by key", Until: "2026-06-01"}}
	s, err := p.Select(Solaris, map[string]string{"ssh_idle_seconds": "300"}, waivers)
	if err != nil {
		t.Fatal(err)
	}
	tree := violating(t, Solaris)
	first, err := Audit(tree, s, today)
	if err != nil {
		t.Fatal(err)
	}
	data, err := first.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	recorded, err := ParseReport(data)
	if err != nil {
		t.Fatal(err)
	}
	again, err := recorded.Selection(nil)
	if err != nil {
		t.Fatal(err)
	}
	second, err := Audit(tree, again, today)
	if err != nil {
		t.Fatal(err)
	}
	if other, err := second.Marshal(); err != nil || string(other) != string(data) {
		t.Errorf("%v\n%s", err, other)
	}
	if set, err := recorded.Selection(map[string]string{"ssh_idle_seconds": "60"}); err != nil || set.value["ssh_idle_seconds"] != "60" {
		t.Errorf("got %v, %v", set, err)
	}
	status := func(r *Report) (control, rule Status) {
		for _, c := range r.Controls {
			if c.ID == "S05" {
				control = c.Status
			}
		}
		for _, o := range r.Rules {
			if o.ID == "SOL-11.1-040360" {
				rule = o.Status
			}
		}
		return control, rule
	}
	if c, r := status(recorded.At(today)); c != Waived || r != Waived {
		t.Errorf("on its last day: %s, %s", c, r)
	}
	if c, r := status(recorded.At(today.AddDate(0, 0, 1))); c != Fail || r != Fail {
		t.Errorf("after it: %s, %s", c, r)
	}
	if c, _ := status(recorded); c != Waived {
		t.Error("the report itself was changed")
	}
	recorded.Controls = append(recorded.Controls, Result{ID: "E99"})
	if _, err := recorded.Selection(nil); err == nil || !strings.Contains(err.Error(), `no control "E99"`) {
		t.Errorf("a control of a later version: %v", err)
	}
}
