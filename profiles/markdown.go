package profiles

import (
	"bytes"
	_ "embed"
	"fmt"
	"slices"
	"strings"
)

// areas are the headings of the catalogue, by the first letter of an id.
var areas = []struct{ letter, title string }{
	{"A", "Processes and the kernel"},
	{"B", "Auditing"},
	{"C", "Services"},
	{"D", "Network"},
	{"E", "Accounts and passwords"},
	{"K", "Cryptography, integrity and time"},
	{"L", "Linux"},
	{"P", "Permissions"},
	{"S", "The ssh server"},
	{"W", "Warnings"},
	{"X", "What is left behind"},
	{"Z", "The zone"},
}

// What scanners say of hardened roots, measured by TestRealDebian.
//
//go:embed scanners.md
var scanners string

// Markdown returns the catalogue as docs/controls.md has it.
func Markdown() []byte {
	var b bytes.Buffer
	line := func(format string, args ...any) { fmt.Fprintf(&b, format+"\n", args...) }
	line("# Controls")
	line("")
	line("<!-- Made by go generate ./profiles from the catalogue. Do not edit. -->")
	line("")
	line("What a hardened image keeps, why, and how that is applied and checked. `iscadm profile controls` prints the same.")
	line("")
	line("A control of kind *edit* changes files of the image and *smf* sets properties in the site profile `/%s`; both are", sitePath)
	line("checked by applying them to a copy that is thrown away: the control holds if nothing would change. *check* looks at the")
	line("finished image. *zone* is written to the zonecfg command file and *dock* to the dock requirements of the image: the host keeps")
	line("them, and the report on an image says `dock`. So it does of *live*: a command that people run on the machine. A control of scope *image* is")
	line("never applied to a live machine. *absent* says why an operating system has no such control.")
	line("")
	line("References are ids of the DISA Solaris 11 X86 STIG, items of the CIS benchmark for Solaris 11 and chapters of that for Debian.")
	all := profilesOf()
	byProfile(line, all)
	for _, a := range areas {
		line("")
		line("## %s", a.title)
		for i := range Controls {
			if c := &Controls[i]; strings.HasPrefix(c.ID, a.letter) {
				c.markdown(line, all)
			}
		}
	}
	b.WriteString(scanners)
	return b.Bytes()
}

// profilesOf returns the profiles that are built in.
func profilesOf() []*Profile {
	var all []*Profile
	for _, name := range Names() {
		p, err := Load(name)
		if err != nil {
			panic(err) // a test loads them all
		}
		all = append(all, p)
	}
	return all
}

// byProfile writes which profile holds how many controls.
func byProfile(line func(string, ...any), all []*Profile) {
	line("")
	line("| profile | %s |", strings.Join(Platforms, " | "))
	line("|---|%s", strings.Repeat("---|", len(Platforms)))
	for _, p := range all {
		var counts []string
		for _, os := range Platforms {
			counts = append(counts, fmt.Sprintf("%d controls", len(p.Controls[os])))
		}
		line("| `%s` | %s |", p.Name, strings.Join(counts, " | "))
	}
}

func (c *Control) markdown(line func(string, ...any), profiles []*Profile) {
	line("")
	line("### %s %s", c.ID, c.Title)
	line("")
	line("%s", c.Why)
	line("")
	line("| | |")
	line("|---|---|")
	if len(c.Refs) > 0 {
		line("| references | %s |", strings.Join(c.Refs, ", "))
	}
	line("| scope | %s |", c.Scope)
	for _, os := range Platforms {
		m, ok := c.On[os]
		who := os
		switch same := c.On[Illumos].reads(c.On[Solaris]); {
		case c.Absent[os] != "":
			line("| %s, absent | %s |", os, cell(c.Absent[os]))
			continue
		case !ok || os == Solaris && same:
			continue
		case os == Illumos && same:
			who = Illumos + " and " + Solaris
		}
		line("| %s | %s |", who, cell(m.How))
		if len(m.Needs) > 0 {
			line("| %s, applicable if there is | %s |", who, cell(strings.Join(m.Needs, " or ")))
		}
		line("| %s, kept and checked | %s |", who, cell(strings.Join(m.kept(), "; ")))
	}
	for _, p := range c.Parameters {
		line("| parameter `%s` | %s: %s; default %s |", p.Name, p.Values(), cell(p.What), code(p.Default))
	}
	if holders := c.holders(profiles); len(holders) > 0 {
		line("| profiles | %s |", strings.Join(holders, ", "))
	}
}

// reads reports whether two methods are the same for those who read of them.
func (m Method) reads(o Method) bool {
	return m.How == o.How && slices.Equal(m.Needs, o.Needs) && slices.Equal(m.kept(), o.kept())
}

// kept says for each kind of a method how it is applied and checked.
func (m *Method) kept() []string {
	says := map[string]string{
		KindEdit:  "edit, checked by applying it to a copy",
		KindSMF:   "smf profile, checked by applying it to a copy",
		KindCheck: "check of the finished image",
		KindZone:  "zone configuration",
		KindDock:  "dock requirement",
		KindLive:  m.byHand(),
	}
	var all []string
	for _, k := range m.Kinds() {
		all = append(all, says[k])
	}
	return all
}

// holders returns the names of the profiles that hold the control.
func (c *Control) holders(profiles []*Profile) []string {
	var all []string
	for _, p := range profiles {
		for _, os := range Platforms {
			if slices.Contains(p.Controls[os], c.ID) {
				all = append(all, "`"+p.Name+"`")
				break
			}
		}
	}
	return all
}

var celled = strings.NewReplacer("|", `\|`, "\n", " ", "*", `\*`, "_", `\_`)

func cell(s string) string { return celled.Replace(s) }

func code(s string) string {
	if s == "" {
		return "empty"
	}
	return "`" + strings.ReplaceAll(s, "|", `\|`) + "`"
}
