package profiles

import (
	"errors"
	"io/fs"
	"path"
	"slices"
	"strings"

	"github.com/goldenisc/packer-plugin-isc/image"
)

// illumosOff are services of a general-purpose system that a container for one service has no use
// for, beyond what the profile generic_limited_net switches off.
var illumosOff = []string{
	"application/cups/in-lpd", "application/management/wbem", "application/print/ipp-listener", "application/print/ppd-cache-update",
	"application/print/rfc1179", "application/stosreg", inetd,
	"network/rpc/bind", "network/rpc/gss", "network/rpc/smserver", "network/security/ktkt_warn",
	"network/sendmail-client", "network/smtp:sendmail", "system/filesystem/autofs", "system/filesystem/rmvolmgr",
	"system/hal", "system/picl", "system/power",
}

// solarisOff are those of Solaris, which also lets itself be administered from elsewhere.
var solarisOff = append(slices.Clone(illumosOff), "system/rad:remote", "system/webui/server")

// linuxOff are units that are masked where they are installed.
var linuxOff = []string{
	"ModemManager.service", "apt-daily-upgrade.timer", "apt-daily.timer", "avahi-daemon.service", "avahi-daemon.socket",
	"bluetooth.service", "ctrl-alt-del.target", "cups.service", "cups.socket", "debug-shell.service", "exim4.service",
	"nfs-server.service", "postfix.service", "rpcbind.service", "rpcbind.socket", "telnet.socket", "vsftpd.service",
}

// unitDirs are where packages put units.
var unitDirs = []string{"usr/lib/systemd/system", "lib/systemd/system"}

// The C controls: services.
var serviceControls = []Control{
	{
		ID:    "C01",
		Title: "Services that no container needs are off",
		Why:   "What does not run cannot be attacked.",
		Refs:  []string{"STIG SOL-11.1-030040", "CIS 2"},
		Parameters: []Parameter{{
			Name: "services_keep", Default: "", Type: List, What: "units that stay as they are (Linux), such as cups.service",
		}},
		On: map[string]Method{
			Illumos: {How: "disabled: " + strings.Join(illumosOff, ", "), SMF: disable(illumosOff...)},
			Solaris: {How: "disabled: " + strings.Join(solarisOff, ", "), SMF: disable(solarisOff...)},
			Linux: {
				How:   "masked where installed: " + strings.Join(linuxOff, ", "),
				Globs: []string{"usr/lib/systemd/system/*", "etc/systemd/system/*"},
				Edits: func(p *Params) []Edit { return []Edit{func(root Root) error { return mask(root, p, linuxOff) }} },
			},
		},
	},
	{
		ID:    "C02",
		Title: "rpcbind answers the machine itself only",
		Why:   "It tells everybody which RPC services run.",
		Refs:  []string{"STIG SOL-11.1-020170", "CIS 2.11"},
		On: map[string]Method{Illumos: {
			How: "network/rpc/bind config/local_only = true",
			SMF: properties("network/rpc/bind", "", "config", "local_only", "boolean", "true"),
		}},
	},
	{
		ID:    "C08",
		Title: "The system log takes no messages from the network",
		Why:   "Anybody could fill or forge it.",
		On: map[string]Method{
			Illumos: {
				How: "system/system-log config/log_from_remote = false",
				SMF: properties("system/system-log", "", "config", "log_from_remote", "boolean", "false"),
			},
			Linux: {
				How:   "etc/rsyslog.conf: imudp, imtcp and imrelp are comments",
				Globs: []string{"etc/rsyslog.conf", "etc/rsyslog.d/*"},
				Needs: []string{"etc/rsyslog.conf"},
				Edits: commented(syslogNetwork, "etc/rsyslog.conf", "etc/rsyslog.d/*"),
			},
		},
	},
	{
		ID:    "C09",
		Title: "Multicast DNS, SLP and SNMP are off",
		Why:   "They announce the machine and what is on it.",
		On: map[string]Method{Illumos: {
			How: "network/dns/multicast, network/slp and application/management/net-snmp disabled",
			SMF: disable("network/dns/multicast", "network/slp", "application/management/net-snmp"),
		}},
	},
}

// mask masks the unwanted units that are installed (systemctl(1), mask).
func mask(root Root, p *Params, units []string) error {
	keep := p.List("services_keep")
	for _, unit := range units {
		installed := false
		for _, dir := range unitDirs {
			ok, err := exists(root, path.Join(dir, unit))
			if err != nil {
				return err
			}
			installed = installed || ok
		}
		if !installed || contains(keep, unit) {
			continue
		}
		err := ensure(root, image.Entry{
			Name: "etc/systemd/system/" + unit, Mode: fs.ModeSymlink | 0o777, Target: "/dev/null", ModTime: p.Epoch,
		}, nil)
		if err != nil {
			return err
		}
	}
	return nil
}

// sysctlPath sorts after 99-sysctl.conf, the link to sysctl.conf that distributions ship: the
// last file that sets a key wins (sysctl.d(5)).
const sysctlPath = "etc/sysctl.d/99-zz-isc.conf"

// sysctlOthers are where it is set as well. What does not follow systemd reads etc/sysctl.conf last.
var sysctlOthers = []string{
	"etc/sysctl.conf", "etc/sysctl.d/*.conf", "run/sysctl.d/*.conf", "usr/local/lib/sysctl.d/*.conf", "usr/lib/sysctl.d/*.conf", "lib/sysctl.d/*.conf",
}

// sysctl returns the method that sets kernel parameters, from key and value pairs, for good: lines of files
// that are read later become comments if they set another value.
func sysctl(pairs ...string) Method {
	var how []string
	for i := 0; i+1 < len(pairs); i += 2 {
		how = append(how, pairs[i]+"="+pairs[i+1])
	}
	return Method{
		How:   sysctlPath + ": " + strings.Join(how, ", ") + "; no file that is read later says otherwise",
		Globs: append([]string{sysctlPath}, sysctlOthers...),
		Edits: func(p *Params) []Edit {
			return append(settings(setAssignment, sysctlPath, pairs...)(p), func(root Root) error { return sysctlLast(root, p, pairs) })
		},
	}
}

func sysctlLast(root Root, p *Params, pairs []string) error {
	for _, pattern := range sysctlOthers {
		names, err := root.Glob(pattern)
		if err != nil {
			return err
		}
		for _, name := range names {
			if name != sysctlOthers[0] && path.Base(name) <= path.Base(sysctlPath) {
				continue
			}
			target, err := follow(root, name)
			if err != nil {
				return err
			}
			if e, err := root.Stat(target); errors.Is(err, fs.ErrNotExist) || err == nil && !e.IsRegular() {
				continue // such as a link to /dev/null, by which a file of a package is not read
			} else if err != nil {
				return err
			}
			err = rewrite(root, image.Entry{Name: target, ModTime: p.Epoch}, func(text string) (string, error) {
				for i := 0; i+1 < len(pairs); i += 2 {
					text = noAssignment(text, pairs[i], pairs[i+1])
				}
				return text, nil
			})
			if err != nil {
				return err
			}
		}
	}
	return nil
}

// noAssignment makes comments of the lines of sysctl.d(5) that set a key to another value. A minus in front has
// errors ignored; the first separator of a key tells whether its dots are slashes. Patterns do not count:
// what is set by name goes before them.
func noAssignment(text, key, value string) string {
	l := lines(text)
	for i, line := range l {
		k, v, ok := strings.Cut(line, "=")
		k = strings.TrimPrefix(strings.TrimSpace(k), "-")
		if n := strings.IndexAny(k, "./"); n >= 0 && k[n] == '/' {
			k = strings.NewReplacer("/", ".", ".", "/").Replace(k)
		}
		if ok && k == key && strings.TrimSpace(v) != value {
			l[i] = "#" + line
		}
	}
	return keepIfSame(text, l)
}

// The D controls: the network stack and what is around it.
var networkControls = []Control{
	network(stack("ip", "respond_to_echo_broadcast", "0"), "D05", "Broadcast pings are not answered", "They multiply an attacker's packets.",
		[]string{"STIG SOL-11.1-050050"}, "net.ipv4.icmp_echo_ignore_broadcasts", "1"),
	network(stack("ipv4", "ignore_redirect", "1", "ipv6", "ignore_redirect", "1"), "D07", "Redirects are ignored", "Anybody on the link could reroute traffic through himself.",
		[]string{"STIG SOL-11.1-050070"},
		"net.ipv4.conf.all.accept_redirects", "0", "net.ipv4.conf.default.accept_redirects", "0",
		"net.ipv6.conf.all.accept_redirects", "0", "net.ipv6.conf.default.accept_redirects", "0"),
	network(stack("ipv4", "strict_dst_multihoming", "1", "ipv6", "strict_dst_multihoming", "1"), "D08", "Packets that came in by the wrong interface are dropped", "Their source address is forged, or the network is broken.",
		[]string{"STIG SOL-11.1-050080"}, "net.ipv4.conf.all.rp_filter", "1", "net.ipv4.conf.default.rp_filter", "1"),
	onSolaris(stack("ipv4", "send_redirects", "off", "ipv6", "send_redirects", "off"),
		network(stack("ipv4", "send_redirects", "0", "ipv6", "send_redirects", "0"), "D09", "Redirects are not sent", "A container is no router.",
			[]string{"STIG SOL-11.1-050090"}, "net.ipv4.conf.all.send_redirects", "0", "net.ipv4.conf.default.send_redirects", "0")),
	network(stack("tcp", "rev_src_routes", "0"), "D10", "Source-routed packets are dropped", "The sender must not choose the way around filters.",
		[]string{"STIG SOL-11.1-050100"},
		"net.ipv4.conf.all.accept_source_route", "0", "net.ipv4.conf.default.accept_source_route", "0",
		"net.ipv6.conf.all.accept_source_route", "0", "net.ipv6.conf.default.accept_source_route", "0"),
	network(stack("tcp", "conn_req_max_q0", "4096"), "D11", "Half-open connections do not fill the queue", "A SYN flood is cheap.",
		[]string{"STIG SOL-11.1-050110"}, "net.ipv4.tcp_max_syn_backlog", "4096", "net.ipv4.tcp_syncookies", "1"),
	network(stack("tcp", "conn_req_max_q", "1024"), "D12", "Queues of connections to accept are long enough", "A short one is filled easily.",
		[]string{"STIG SOL-11.1-050120"}, "net.core.somaxconn", "1024"),
	network(routing, "D13", "Packets are not forwarded", "A container is no router.",
		[]string{"STIG SOL-11.1-050130", "CIS 3.17"}, "net.ipv4.ip_forward", "0", "net.ipv6.conf.all.forwarding", "0"),
	{
		ID:    "D14",
		Title: "TCP sequence numbers cannot be guessed",
		Why:   "Who can guess them can forge connections.",
		Refs:  []string{"CIS 3.3"},
		On:    map[string]Method{Illumos: assign("etc/default/inetinit", "TCP_STRONG_ISS", "2")},
	},
	{
		ID:    "D15",
		Title: "A firewall denies what is not allowed",
		Why:   "A service that should not listen, or a program that should not call out, is stopped by a party that the zone cannot change.",
		Refs:  []string{"STIG SOL-11.1-050240"},
		On: map[string]Method{
			Illumos: {How: "dock: ipf rules for the zone, outside of its root", Dock: "a packet filter outside of the zone passes the inbound and outbound ports of this document and drops the rest"},
			Solaris: {
				How:  "etc/firewall/pf.conf and network/firewall of an image with a network block and pfctl(8); dock: rules of pf for the zone's address",
				Dock: "a packet filter, the zone's own or one outside of it, passes the inbound and outbound ports of this document and drops the rest",
			},
			Linux: {How: "dock: rules for the guest, outside of it", Dock: "a packet filter outside of the guest passes the inbound and outbound ports of this document and drops the rest"},
		},
	},
	{
		ID:    "D17",
		Title: "Addresses cannot be forged",
		Why:   "A zone that was taken over must not pass for another one.",
		Refs:  []string{"STIG SOL-11.1-050470"},
		On: map[string]Method{
			Illumos: {
				How:  "dock: dladm set-linkprop -p protection=mac-nospoof,restricted,ip-nospoof,dhcp-nospoof; zonecfg allowed-address",
				Dock: "the VNIC has link protection mac-nospoof, restricted, ip-nospoof and dhcp-nospoof and an allowed-address",
			},
			Solaris: {
				How:  "zonecfg resource anet: link-protection mac-nospoof, restricted, ip-nospoof and dhcp-nospoof; allowed-address",
				Zone: func(z *Zone) { z.Protection = []string{"mac-nospoof", "restricted", "ip-nospoof", "dhcp-nospoof"} },
			},
			Linux: {How: "dock: anti-spoofing on the guest's port of the bridge", Dock: "the guest's port lets only its own MAC and IP addresses through"},
		},
	},
}

func network(illumos Method, id, title, why string, refs []string, pairs ...string) Control {
	return Control{ID: id, Title: title, Why: why, Refs: refs, On: map[string]Method{Illumos: illumos, Linux: sysctl(pairs...)}}
}

// onSolaris returns a control with a method of its own for Solaris.
func onSolaris(m Method, c Control) Control {
	c.On[Solaris] = m
	return c
}

// routing is what forwards packets and learns routes on illumos and Solaris (routeadm(8)).
var routing = Method{
	How: "network/ipv4-forwarding, network/ipv6-forwarding, network/routing/route, ripng and rdisc disabled",
	SMF: disable("network/ipv4-forwarding", "network/ipv6-forwarding", "network/routing/route", "network/routing/ripng:default", "network/routing/rdisc"),
}
