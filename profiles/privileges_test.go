package profiles

import (
	"regexp"
	"slices"
	"strings"
	"testing"
)

// TestPrivilegesFor comes back to the capabilities.
func TestPrivilegesFor(t *testing.T) {
	names, left := PrivilegesFor([]string{"CAP_NET_BIND_SERVICE", "CAP_NET_RAW", "CAP_KILL", "CAP_X"})
	if want := []string{"net_privaddr", "net_icmpaccess"}; len(names) != 2 || !slices.Contains(names, want[0]) || !slices.Contains(names, want[1]) {
		t.Errorf("%q, want %q", names, want)
	}
	if !slices.Equal(left, []string{"CAP_KILL", "CAP_X"}) {
		t.Errorf("left %q", left)
	}
	s := Service{User: "web", Privileges: append([]string{"basic"}, names...)}
	if caps, _ := s.capabilities(); !slices.Equal(caps, []string{"CAP_NET_BIND_SERVICE", "CAP_NET_RAW"}) {
		t.Errorf("back to %q", caps)
	}
	// Of all that there is, what is taken away is what is named.
	b := &baker{layout: &Layout{OS: Linux}}
	text, err := b.unitText(&Service{Name: "web", Exec: "/bin/web", Privileges: []string{"zone", "!sys_mount", "!proc_info"}})
	if err != nil || !strings.Contains(text, "\nCapabilityBoundingSet=~CAP_SYS_ADMIN\n") {
		t.Errorf("%v\n%s", err, text)
	}
}

// TestZonePrivileges: what a service of ours asks for, every zone has, that of a shared stack included; and it is
// not more than it needs.
func TestZonePrivileges(t *testing.T) {
	// Of the default set of zones and what the platform of an exclusive stack adds.
	missing := []string{
		"cpc_cpu", "dtrace_kernel", "dtrace_proc", "dtrace_user", "net_rawaccess", "proc_clock_highres", "proc_priocntl", "proc_zone",
		"sys_config", "sys_devices", "sys_ip_config", "sys_linkdir", "sys_net_config", "sys_res_config", "sys_suser_compat", "sys_time",
	}
	basic := []string{"file_link_any", "file_read", "file_write", "net_access", "proc_exec", "proc_fork", "proc_info", "proc_session"}
	zone := slices.DeleteFunc(slices.Clone(privilegeNames), func(p string) bool { return slices.Contains(missing, p) })
	needs := map[string]string{manifestDir + "/isc-enc-swap.xml": "sys_config", manifestDir + "/isc-netparams.xml": "sys_ip_config"}
	parse := func(spec string, zone []string) (set []string) {
		for name := range strings.SplitSeq(spec, ",") {
			switch {
			case name == "zone":
				set = append(set, zone...)
			case name == "basic":
				set = append(set, basic...)
			case !slices.Contains(privilegeNames, strings.TrimPrefix(name, "!")):
				t.Errorf("%s: there is no privilege %q", spec, name)
			case name[0] == '!':
				set = slices.DeleteFunc(set, func(p string) bool { return p == name[1:] })
			default:
				set = append(set, name)
			}
		}
		return set
	}
	for _, os := range []string{Illumos, Solaris} {
		tree := bare(t, os)
		if err := fullLayout(os).Apply(tree, epoch); err != nil {
			t.Fatal(err)
		}
		if err := Apply(tree, baseline(t, os, nil), epoch); err != nil {
			t.Fatal(err)
		}
		names, err := tree.Glob(manifestDir + "/isc-*.xml")
		if err != nil || len(names) < 3 {
			t.Fatalf("%q, %v", names, err)
		}
		for _, name := range names {
			for _, m := range regexp.MustCompile(` privileges='([^']*)'`).FindAllStringSubmatch(read(t, tree, name), -1) {
				inZone, global := parse(m[1], zone), parse(m[1], privilegeNames)
				for _, p := range basic {
					if !slices.Contains(inZone, p) {
						t.Errorf("%s: no %s", name, p)
					}
				}
				for _, p := range inZone {
					if !slices.Contains(zone, p) {
						t.Errorf("%s: no zone has %s", name, p)
					}
				}
				for _, p := range []string{"dtrace_kernel", "proc_setid", "proc_zone", "sys_audit", "sys_net_config", "sys_time"} {
					if slices.Contains(global, p) {
						t.Errorf("%s has %s", name, p)
					}
				}
				if p := needs[name]; p != "" && !slices.Contains(global, p) {
					t.Errorf("%s: no %s", name, p)
				}
			}
		}
	}
}
