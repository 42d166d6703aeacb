package profiles

import (
	"math"
	"strconv"
	"strings"
)

// DetachedConfig is the name below a zonepath that zonecfg create -a reads a configuration from.
const DetachedConfig = "SUNWdetached.xml"

const zoneDocument = `<?xml version='1.0' encoding='UTF-8'?>
<!DOCTYPE zone PUBLIC '-//Sun Microsystems Inc//DTD Zones//EN' 'file:///usr/share/lib/xml/dtd/zonecfg.dtd.1'>
<!-- Made by iscadm. Filled in by iscadm dock, it is for zonecfg -z NAME create -a ZONEPATH. -->
`

// Detached returns the same configuration of a zone as [Layout.Zonecfg], as zoneadm detach leaves it in
// the zonepath and zonecfg create -a takes it (zonecfg.dtd.1). The tokens are the same.
func (l *Layout) Detached(s *Selection, brandName string) ([]byte, error) {
	c, err := l.zoneConfig(s, brandName)
	if err != nil {
		return nil, err
	}
	var b strings.Builder
	b.WriteString(zoneDocument)
	c.element().write(&b, "")
	return []byte(b.String()), nil
}

func (c *zoneConfig) element() element {
	zone := el("zone", "name", "@NAME@", "zonepath", "@ZONEPATH@", "autoboot", "false", "brand", c.brand, "ip-type", "exclusive",
		"limitpriv", c.privileges)
	if c.shares > 0 {
		zone.attrs = append(zone.attrs, "scheduling-class", "FSS")
	}
	for _, dir := range c.readOnly {
		zone = zone.with(el("filesystem", "special", "@GOLDEN@"+dir, "directory", dir, "type", "lofs").
			with(el("fsoption", "name", "ro"), el("fsoption", "name", "nodevices")))
	}
	zone = zone.with(el("network", "physical", "@PHYSICAL@", "allowed-address", "@ADDRESS@", "defrouter", "@ROUTER@"))
	if c.delegate {
		zone = zone.with(el("dataset", "name", "@DATASET@"))
	}
	// The command file's capped-cpu and capped-memory are, but for physical, names for these.
	for _, r := range []struct {
		name, action string
		limit        int64
	}{
		{"zone.max-lwps", "deny", int64(c.lwps)},
		{"zone.max-processes", "deny", int64(c.processes)},
		{"zone.cpu-shares", "none", int64(c.shares)},
		{"zone.cpu-cap", "deny", int64(math.Round(c.cpus * 100))},
		{"zone.max-swap", "deny", c.swap},
		{"zone.max-locked-memory", "deny", c.locked},
	} {
		if r.limit > 0 {
			zone = zone.with(el("rctl", "name", r.name).
				with(el("rctl-value", "priv", "privileged", "limit", strconv.FormatInt(r.limit, 10), "action", r.action)))
		}
	}
	if c.memory > 0 {
		zone = zone.with(el("mcap", "physcap", strconv.FormatInt(c.memory, 10)))
	}
	for _, a := range c.attrs {
		zone = zone.with(el("attr", "name", a[0], "type", "string", "value", a[1]))
	}
	if len(c.flags) > 0 {
		zone = zone.with(el("security-flags", "default", strings.Join(c.flags, ","), "lower", "none", "upper", "all"))
	}
	return zone
}
