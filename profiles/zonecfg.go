package profiles

import (
	"bytes"
	"cmp"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"
)

// zone returns what the controls of a selection, which may be nil, ask of a zone of the layout.
func (s *Selection) zone(l *Layout) *Zone {
	z := new(Zone)
	if s == nil {
		return z
	}
	z.p = s.params(time.Time{})
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
	"solaris":     {Solaris, false},
	"lx":          {Linux, false},
}

// DefaultBrand returns the brand of zones of an operating system.
func DefaultBrand(os string) string {
	if os == Linux {
		return "lx"
	}
	return os // illumos and solaris
}

// zonecfgHead is the comment at the head of a command file. The [Tokens] are what differs from
// site to site and zone to zone.
const zonecfgHead = `# Command file for zonecfg -z NAME -f FILE, made by iscadm.
#   @…@ is what iscadm dock fills in:
#   @NAME@      name of the zone
#   @ZONEPATH@  its zonepath, such as /zones/web01
%s#   @ADDRESS@   the address it may use, with prefix length, such as 10.80.0.11/24
#   @ROUTER@    its default router
`

const (
	zonecfgPhysical = "#   @PHYSICAL@  its VNIC, such as web01_0\n"
	zonecfgUplink   = "#   @UPLINK@    the link or etherstub that its interface is made over, such as isc0\n"
	zonecfgDataset  = "#   @DATASET@   the dataset delegated to it, for scratch space and volumes\n"
	zonecfgGolden   = "#   @GOLDEN@    where the root of the image is mounted in the global zone, read-only\n"
)

// A zoneConfig is the configuration of a zone, whatever it is written as. Sizes are bytes; zero means
// that there is no cap.
type zoneConfig struct {
	brand                   string
	privileges              string // limitpriv
	lwps, processes, shares int
	cpus                    float64
	memory, swap, locked    int64
	delegate                bool     // a dataset
	readOnly                []string // subtrees of the root, absolute
	flags                   []string
	immutable               string      // file-mac-profile
	protection              []string    // of the interface
	attrs                   [][2]string // of type string
}

// zoneConfig returns the configuration of a zone of the brand (or the default one, if it is empty) for
// the layout and the controls of the selection, which may be nil.
func (l *Layout) zoneConfig(s *Selection, brandName string) (*zoneConfig, error) {
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
	limits := l.Limits
	if limits == nil {
		limits = &Limits{}
	}
	c := &zoneConfig{
		brand:      brandName,
		privileges: strings.Join(append([]string{"default"}, prefixed("!", z.Drop)...), ","),
		// The caps of the layout go before those of the controls.
		lwps: cmp.Or(limits.LWPs, z.LWPs), processes: cmp.Or(limits.Processes, z.Processes), shares: limits.Shares, cpus: limits.CPUs,
		delegate: (l.Scratch != nil || len(l.Volumes) > 0) && HasSMF(br.os),
	}
	for _, p := range z.ReadOnly {
		name, err := subtree(p)
		if err != nil {
			return nil, err
		}
		c.readOnly = append(c.readOnly, "/"+name)
	}
	for _, v := range []struct {
		text string
		to   *int64
	}{{limits.Memory, &c.memory}, {limits.MaxSwap, &c.swap}, {limits.Locked, &c.locked}} {
		if n, err := ParseSize(v.text); err == nil {
			*v.to = n
		}
	}
	if br.flags {
		c.flags = z.Flags
	}
	c.immutable, c.protection = z.Immutable, z.Protection
	if brandName == "lx" {
		c.attrs = append(c.attrs, [2]string{"kernel-version", "5.10"})
	}
	c.attrs = append(c.attrs, [2]string{"isc-image", l.Name})
	return c, nil
}

func prefixed(prefix string, words []string) []string {
	all := make([]string, len(words))
	for i, w := range words {
		all[i] = prefix + w
	}
	return all
}

// Zonecfg returns the command file for zonecfg(8) that configures a zone of the brand (or the
// default one, if it is empty) for the layout and the controls of the selection, which may be
// nil. Its comment names the tokens that the site fills in.
func (l *Layout) Zonecfg(s *Selection, brandName string) ([]byte, error) {
	c, err := l.zoneConfig(s, brandName)
	if err != nil {
		return nil, err
	}
	var b bytes.Buffer
	line := func(format string, args ...any) { fmt.Fprintf(&b, format+"\n", args...) }
	// Solaris makes the interface with the zone, and names datasets in it by an alias.
	solaris := c.brand == "solaris"
	fmt.Fprintf(&b, zonecfgHead, map[bool]string{true: zonecfgUplink, false: zonecfgPhysical}[solaris])
	if c.delegate {
		b.WriteString(zonecfgDataset)
	}
	if len(c.readOnly) > 0 {
		b.WriteString(zonecfgGolden)
	}
	line("create -b")
	line("set brand=%s", c.brand)
	line("set zonepath=@ZONEPATH@")
	line("set autoboot=false")
	line("set ip-type=exclusive")
	line("set limitpriv=%q", c.privileges)
	if c.immutable != "" {
		line("set file-mac-profile=%s", c.immutable)
	}
	for _, v := range []struct {
		name string
		cap  int
	}{{"max-lwps", c.lwps}, {"max-processes", c.processes}, {"cpu-shares", c.shares}} {
		if v.cap > 0 {
			line("set %s=%d", v.name, v.cap)
		}
	}
	if c.shares > 0 {
		line("set scheduling-class=FSS")
	}
	for _, dir := range c.readOnly {
		line("add fs")
		line("set dir=%q", dir)
		line("set special=%q", "@GOLDEN@"+dir)
		line("set type=lofs")
		line("add options [ro,nodevices]")
		line("end")
	}
	if solaris {
		line("add anet")
		line("set linkname=net0")
		line("set lower-link=@UPLINK@")
		if len(c.protection) > 0 {
			line("set link-protection=%q", strings.Join(c.protection, ","))
		}
		line("set configure-allowed-address=true")
	} else {
		line("add net")
		line("set physical=@PHYSICAL@")
	}
	line("set allowed-address=@ADDRESS@")
	line("set defrouter=@ROUTER@")
	line("end")
	if c.delegate {
		line("add dataset")
		line("set name=@DATASET@")
		if solaris {
			line("set alias=isc")
		}
		line("end")
	}
	if c.memory+c.swap+c.locked > 0 {
		line("add capped-memory")
		for _, v := range []struct {
			name string
			size int64
		}{{"physical", c.memory}, {"swap", c.swap}, {"locked", c.locked}} {
			if v.size > 0 {
				line("set %s=%s", v.name, scaled(v.size))
			}
		}
		line("end")
	}
	if c.cpus > 0 {
		line("add capped-cpu")
		line("set ncpus=%s", strconv.FormatFloat(math.Round(c.cpus*100)/100, 'f', -1, 64))
		line("end")
	}
	if len(c.flags) > 0 {
		line("add security-flags")
		line("set default=%s", strings.Join(c.flags, ","))
		line("set lower=none")
		line("set upper=all")
		line("end")
	}
	for _, a := range c.attrs {
		line("add attr")
		line("set name=%s", a[0])
		line("set type=string")
		line("set value=%q", a[1])
		line("end")
	}
	line("verify")
	line("commit")
	return b.Bytes(), nil
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
