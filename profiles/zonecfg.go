package profiles

import (
	"bytes"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
)

// zone returns what the controls of a selection, which may be nil, ask of a zone of the layout.
func (s *Selection) zone(l *Layout) *Zone {
	z := new(Zone)
	if s == nil {
		return z
	}
	for _, c := range s.Controls() {
		if m, ok := c.On[s.os]; ok && m.Zone != nil {
			m.Zone(z)
		}
	}
	// What a service asks for stays.
	z.Drop = slices.DeleteFunc(z.Drop, func(p string) bool {
		return slices.ContainsFunc(l.Services, func(s Service) bool { return contains(s.Privileges, p) })
	})
	slices.Sort(z.Drop)
	return z
}

// A brand is a zone brand that zonecfg(8) configures.
type brand struct {
	os    string
	flags bool // has security flags: illumos only
}

var brands = map[string]brand{
	"illumos":     {Illumos, true},
	"ipkg":        {Illumos, true},
	"lipkg":       {Illumos, true},
	"sparse":      {Illumos, true},
	"pkgsrc":      {Illumos, true},
	"alien-root":  {Illumos, true},
	"whole-root":  {Illumos, true},
	"sparse-root": {Illumos, true},
	"solaris":     {Illumos, false},
	"lx":          {Linux, false},
}

// DefaultBrand returns the brand of zones of an operating system.
func DefaultBrand(os string) string {
	if os == Linux {
		return "lx"
	}
	return "illumos"
}

// zonecfgHead is the comment at the head of a command file. The tokens are what differs from
// site to site and zone to zone.
const zonecfgHead = `# Command file for zonecfg -z NAME -f FILE, made by iscadm. Replace before use:
#   @NAME@      name of the zone
#   @ZONEPATH@  its zonepath, such as /zones/web01
#   @PHYSICAL@  its VNIC, such as web01_0
#   @ADDRESS@   the address it may use, with prefix length, such as 10.80.0.11/24
#   @ROUTER@    its default router
`

const zonecfgDataset = "#   @DATASET@   the dataset delegated to it, for scratch space and volumes\n"

// Tokens are the names that the command file of [Layout.Zonecfg] leaves to the site, as @NAME@.
var Tokens = []string{"NAME", "ZONEPATH", "PHYSICAL", "ADDRESS", "ROUTER", "DATASET"}

// Zonecfg returns the command file for zonecfg(8) that configures a zone of the brand (or the
// default one, if it is empty) for the layout and the controls of the selection, which may be
// nil. Its comment names the tokens that the site fills in.
func (l *Layout) Zonecfg(s *Selection, brandName string) ([]byte, error) {
	brandName = orElse(brandName, DefaultBrand(l.OS))
	br, ok := brands[brandName]
	switch {
	case brandName == "joyent" || brandName == "joyent-minimal":
		return nil, fmt.Errorf("brand %q: its zones are made by vmadm, not zonecfg", brandName)
	case !ok:
		return nil, fmt.Errorf("no brand %q%s", brandName, didYouMean(brandName, sortedKeys(brands)))
	case br.os != l.OS:
		return nil, fmt.Errorf("brand %q is for %s, the image is for %s", brandName, br.os, l.OS)
	}
	z := s.zone(l)
	var b bytes.Buffer
	line := func(format string, args ...any) { fmt.Fprintf(&b, format+"\n", args...) }
	b.WriteString(zonecfgHead)
	delegate := (l.Scratch != nil || len(l.Volumes) > 0) && br.os == Illumos
	if delegate {
		b.WriteString(zonecfgDataset)
	}
	line("create -b")
	line("set brand=%s", brandName)
	line("set zonepath=@ZONEPATH@")
	line("set autoboot=false")
	line("set ip-type=exclusive")
	privs := []string{"default"}
	for _, p := range z.Drop {
		privs = append(privs, "!"+p)
	}
	line("set limitpriv=%q", strings.Join(privs, ","))
	z.caps(l.Limits, line)
	line("add net")
	line("set physical=@PHYSICAL@")
	line("set allowed-address=@ADDRESS@")
	line("set defrouter=@ROUTER@")
	line("end")
	if delegate {
		line("add dataset")
		line("set name=@DATASET@")
		line("end")
	}
	memory(l.Limits, line)
	if br.flags && len(z.Flags) > 0 {
		line("add security-flags")
		line("set default=%s", strings.Join(z.Flags, ","))
		line("set lower=none")
		line("set upper=all")
		line("end")
	}
	if brandName == "lx" {
		attr(line, "kernel-version", "5.10")
	}
	attr(line, "isc-image", l.Name)
	line("verify")
	line("commit")
	return b.Bytes(), nil
}

// caps writes the resource controls; those of the layout go before those of the controls.
func (z *Zone) caps(l *Limits, line func(string, ...any)) {
	if l == nil {
		l = &Limits{}
	}
	cap := func(name string, set, def int) {
		if set == 0 {
			set = def
		}
		if set > 0 {
			line("set %s=%d", name, set)
		}
	}
	cap("max-lwps", l.LWPs, z.LWPs)
	cap("max-processes", l.Processes, z.Processes)
	cap("cpu-shares", l.Shares, 0)
	if l.Shares > 0 {
		line("set scheduling-class=FSS")
	}
}

func memory(l *Limits, line func(string, ...any)) {
	if l == nil {
		return
	}
	sizes := []struct{ name, value string }{{"physical", l.Memory}, {"swap", l.MaxSwap}, {"locked", l.Locked}}
	if l.Memory+l.MaxSwap+l.Locked != "" {
		line("add capped-memory")
		for _, s := range sizes {
			if n, err := ParseSize(s.value); err == nil {
				line("set %s=%s", s.name, scaled(n))
			}
		}
		line("end")
	}
	if l.CPUs > 0 {
		line("add capped-cpu")
		line("set ncpus=%s", strconv.FormatFloat(math.Round(l.CPUs*100)/100, 'f', -1, 64))
		line("end")
	}
}

// scaled writes bytes as zonecfg does, with the largest unit that leaves no rest.
func scaled(n int64) string {
	for _, u := range []struct {
		shift uint
		name  string
	}{{40, "T"}, {30, "G"}, {20, "M"}, {10, "K"}} {
		if n>>u.shift<<u.shift == n {
			return strconv.FormatInt(n>>u.shift, 10) + u.name
		}
	}
	return strconv.FormatInt(n, 10)
}

func attr(line func(string, ...any), name, value string) {
	line("add attr")
	line("set name=%s", name)
	line("set type=string")
	line("set value=%q", value)
	line("end")
}
