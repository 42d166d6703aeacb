package profiles

import (
	"bytes"
	"fmt"
	"slices"
	"strings"
)

// Rules of packet filters that drop what the layout does not name. Values in them are numbers and
// tokens only, so nothing of a spec can break out of a rule.
//
// The tokens are [Tokens]; [Fill] puts the site's values for them.

// byProtocol parts ports by protocol, sorted by number.
func byProtocol(ports []string) (tcp, udp []int, err error) {
	for _, s := range ports {
		p, err := ParsePort(s)
		if err != nil {
			return nil, nil, err
		}
		if p.Protocol == "tcp" {
			tcp = append(tcp, p.Number)
		} else {
			udp = append(udp, p.Number)
		}
	}
	slices.Sort(tcp)
	slices.Sort(udp)
	return slices.Compact(tcp), slices.Compact(udp), nil
}

// outbound returns the ports that programs may call.
func (l *Layout) outbound() []string {
	if l.Network == nil {
		return nil
	}
	return l.Network.Outbound
}

// protocols are ports by protocol, sorted by number.
type protocols struct{ tcp, udp []int }

// allowed returns what may be called in the guest, and what it may call elsewhere.
func (l *Layout) allowed() (in, out protocols, err error) {
	if in.tcp, in.udp, err = byProtocol(l.Inbound()); err == nil {
		out.tcp, out.udp, err = byProtocol(l.outbound())
	}
	return in, out, err
}

// A redirect sends a port of the host's to one of the instance's.
type redirect struct{ from, to Port }

// redirects returns the published ports, sorted.
func (l *Layout) redirects() ([]redirect, error) {
	if l.Network == nil {
		return nil, nil
	}
	var all []redirect
	for _, k := range sortedKeys(l.Network.Publish) {
		from, err := ParsePort(k)
		if err != nil {
			return nil, err
		}
		to, err := ParsePort(l.Network.Publish[k])
		if err != nil {
			return nil, err
		}
		all = append(all, redirect{from, to})
	}
	return all, nil
}

// numbers writes a set of nft(8).
func numbers(ports []int) string {
	return "{ " + strings.Trim(strings.ReplaceAll(fmt.Sprint(ports), " ", ", "), "[]") + " }"
}

// nftables returns the rules of nft(8) that an image filters itself with.
func (l *Layout) nftables() ([]byte, error) {
	in, out, err := l.allowed()
	if err != nil {
		return nil, err
	}
	var b bytes.Buffer
	line := func(format string, args ...any) { fmt.Fprintf(&b, format+"\n", args...) }
	accept := func(proto string, ports []int) {
		if len(ports) > 0 {
			line("\t\t%s dport %s ct state new accept", proto, numbers(ports))
		}
	}
	line("#!/usr/sbin/nft -f")
	line("# Made by iscadm. What no rule names is dropped. Changes are drift.")
	line("flush ruleset")
	line("table inet isc {")
	line("\tchain input {")
	line("\t\ttype filter hook input priority 0; policy drop;")
	line("\t\tiif lo accept")
	line("\t\tct state established,related accept")
	line("\t\tct state invalid drop")
	// What IPv6 does not work without (RFC 4890, 4.4.1). An answer to a question that went to a group is no
	// established connection: neither that of multicast listeners nor that of DHCP.
	line("\t\ticmpv6 type { destination-unreachable, packet-too-big, time-exceeded, parameter-problem, nd-neighbor-solicit, nd-neighbor-advert, nd-router-advert } accept")
	line("\t\ticmpv6 type { mld-listener-query, mld-listener-report, mld-listener-done, mld2-listener-report } accept")
	line("\t\tip6 saddr fe80::/10 udp sport 547 udp dport 546 accept")
	line("\t\ticmp type { destination-unreachable, time-exceeded, parameter-problem } accept")
	accept("tcp", in.tcp)
	accept("udp", in.udp)
	line("\t}")
	line("\tchain forward {")
	line("\t\ttype filter hook forward priority 0; policy drop;")
	line("\t}")
	line("\tchain output {")
	// Without a network block nothing is known of what programs call, and the dock is to say it.
	policy := "accept"
	if l.Network != nil {
		policy = "drop"
	}
	line("\t\ttype filter hook output priority 0; policy %s;", policy)
	line("\t\toif lo accept")
	line("\t\tct state established,related accept")
	line("\t\ticmpv6 type { nd-neighbor-solicit, nd-neighbor-advert, nd-router-solicit, mld-listener-report, mld-listener-done, mld2-listener-report } accept")
	line("\t\tip6 daddr ff02::1:2 udp sport 546 udp dport 547 accept")
	accept("tcp", out.tcp)
	accept("udp", out.udp)
	line("\t}")
	line("}")
	return b.Bytes(), nil
}

const (
	ruleHead = "# Made by iscadm for the image %s. What no rule names is dropped.\n"
	noRoutes = "block in log quick all with opt lsrr\nblock in log quick all with opt ssrr\n"
)

// ipf returns the rules of ipf(5) of a zone: on OmniOS the host keeps them outside of the zone's
// root, as ZONEPATH/etc/ipf.conf and ipf6.conf.
func (l *Layout) ipf(six bool) ([]byte, error) {
	var b bytes.Buffer
	fmt.Fprintf(&b, ruleHead, l.Name)
	b.WriteString("block in log all\nblock out log all\npass in quick on lo0 all\npass out quick on lo0 all\n")
	if six {
		b.WriteString("pass in quick proto ipv6-icmp all\npass out quick proto ipv6-icmp all\n")
	} else {
		b.WriteString(noRoutes)
	}
	for _, side := range []struct {
		way   string
		ports []string
	}{{"in", l.Inbound()}, {"out", l.outbound()}} {
		tcp, udp, err := byProtocol(side.ports)
		if err != nil {
			return nil, err
		}
		for _, n := range tcp {
			fmt.Fprintf(&b, "pass %s quick proto tcp from any to any port = %d flags S keep state\n", side.way, n)
		}
		for _, n := range udp {
			fmt.Fprintf(&b, "pass %s quick proto udp from any to any port = %d keep state\n", side.way, n)
		}
	}
	return b.Bytes(), nil
}

// ipnat returns the rules of ipnat(5) of the host.
func (l *Layout) ipnat() ([]byte, error) {
	all, err := l.redirects()
	if err != nil {
		return nil, err
	}
	var b bytes.Buffer
	fmt.Fprintf(&b, "# Made by iscadm for the image %s: what is published, and the way out.\n", l.Name)
	for _, r := range all {
		fmt.Fprintf(&b, "rdr @OUTSIDE@ 0.0.0.0/0 port %d -> @IP@ port %d %s\n", r.from.Number, r.to.Number, r.from.Protocol)
	}
	if len(l.outbound()) > 0 {
		b.WriteString("map @OUTSIDE@ @IP@/32 -> 0/32 portmap tcp/udp auto\nmap @OUTSIDE@ @IP@/32 -> 0/32\n")
	}
	return b.Bytes(), nil
}

// pfPorts writes the rules of pf.conf(7) that let ports in and out. The last rule that matches counts.
func (l *Layout) pfPorts(b *bytes.Buffer, in, out string) error {
	for _, side := range []struct {
		match string
		ports []string
	}{{in, l.Inbound()}, {out, l.outbound()}} {
		tcp, udp, err := byProtocol(side.ports)
		if err != nil {
			return err
		}
		for _, n := range tcp {
			fmt.Fprintf(b, side.match+" flags S/SA keep state\n", "tcp", n)
		}
		for _, n := range udp {
			fmt.Fprintf(b, side.match+" keep state\n", "udp", n)
		}
	}
	return nil
}

// pf returns the rules that a zone of Solaris filters itself with.
func (l *Layout) pf() ([]byte, error) {
	var b bytes.Buffer
	fmt.Fprintf(&b, ruleHead, l.Name)
	b.WriteString("set skip on lo0\nblock log all\npass in inet6 proto icmp6 all\npass out inet6 proto icmp6 all\n")
	err := l.pfPorts(&b, "pass in proto %s to port %d", "pass out proto %s to port %d")
	return b.Bytes(), err
}

// pfDock returns the rules of a host of Solaris, for the address of the zone: they stand among others in
// the host's pf.conf, and say nothing of traffic that is not the zone's.
func (l *Layout) pfDock() ([]byte, error) {
	all, err := l.redirects()
	if err != nil {
		return nil, err
	}
	var b bytes.Buffer
	fmt.Fprintf(&b, "# Made by iscadm for the image %s: rules for its zone, to be added to /etc/firewall/pf.conf of the host.\n", l.Name)
	b.WriteString("block log from any to @IP@\nblock log from @IP@ to any\n")
	if err := l.pfPorts(&b, "pass proto %s from any to @IP@ port %d", "pass proto %s from @IP@ to any port %d"); err != nil {
		return nil, err
	}
	for _, r := range all {
		fmt.Fprintf(&b, "pass in on @OUTSIDE@ inet proto %s to port %d rdr-to @IP@ port %d\n", r.from.Protocol, r.from.Number, r.to.Number)
	}
	if len(l.outbound()) > 0 {
		b.WriteString("match out on @OUTSIDE@ inet from @IP@ nat-to (@OUTSIDE@)\n")
	}
	return b.Bytes(), nil
}

// nftDock returns the rules of nft(8) of a host of Linux, for the interface of the guest. What it may call
// elsewhere it may call on the host too, as with ipf(5) and pf.conf(7).
func (l *Layout) nftDock() ([]byte, error) {
	all, err := l.redirects()
	if err != nil {
		return nil, err
	}
	in, out, err := l.allowed()
	if err != nil {
		return nil, err
	}
	var b bytes.Buffer
	line := func(format string, args ...any) { fmt.Fprintf(&b, format+"\n", args...) }
	fmt.Fprintf(&b, ruleHead, l.Name)
	only := func(match string, ports protocols) {
		if len(ports.tcp) > 0 {
			line("\t\t%s \"@PHYSICAL@\" tcp dport %s accept", match, numbers(ports.tcp))
		}
		if len(ports.udp) > 0 {
			line("\t\t%s \"@PHYSICAL@\" udp dport %s accept", match, numbers(ports.udp))
		}
		line("\t\t%s \"@PHYSICAL@\" drop", match)
	}
	// A table that is there would keep its rules and get these behind them. The first line is for the case
	// that there is none to delete.
	line("table inet isc-@NAME@ {}")
	line("delete table inet isc-@NAME@")
	line("table inet isc-@NAME@ {")
	line("\tchain input {")
	line("\t\ttype filter hook input priority 0; policy accept;")
	line("\t\tct state established,related accept")
	line("\t\ticmpv6 type { nd-neighbor-solicit, nd-neighbor-advert, nd-router-solicit } accept")
	only("iifname", out)
	line("\t}")
	line("\tchain forward {")
	line("\t\ttype filter hook forward priority 0; policy accept;")
	line("\t\tct state established,related accept")
	only("oifname", in)
	only("iifname", out)
	line("\t}")
	if len(all) > 0 {
		line("\tchain prerouting {")
		line("\t\ttype nat hook prerouting priority -100; policy accept;")
		for _, r := range all {
			line("\t\tiifname \"@OUTSIDE@\" %s dport %d dnat ip to @IP@:%d", r.from.Protocol, r.from.Number, r.to.Number)
		}
		line("\t}")
	}
	if len(l.outbound()) > 0 {
		line("\tchain postrouting {")
		line("\t\ttype nat hook postrouting priority 100; policy accept;")
		line("\t\toifname \"@OUTSIDE@\" ip saddr @IP@ masquerade")
		line("\t}")
	}
	line("}")
	return b.Bytes(), nil
}

// vnic are the commands that make the network of the zone: a VNIC that cannot forge addresses, over
// an etherstub unless the site has a link for it. Nobody but the host leads out of an etherstub, and what
// ipnat(5) translates it has to pass on.
const vnic = `#!/bin/sh
# Made by iscadm for the image %s: the zone's interface, which cannot forge addresses.
# Set UPLINK to a link of the host's for a zone that has its own place there. If there is no such link it becomes an
# etherstub, a network within the host, which has the address of the zone's router there and passes packets of IPv4 on.
set -e
UPLINK=${UPLINK:-@UPLINK@}
ADDRESS=@ADDRESS@
ROUTER=@ROUTER@
if ! dladm show-link "$UPLINK" >/dev/null 2>&1; then
	dladm create-etherstub "$UPLINK"
	dladm create-vnic -l "$UPLINK" "${UPLINK}_host0" || { dladm delete-etherstub "$UPLINK"; exit 1; }
fi
case "$ROUTER" in
*:*) ;;
*)
	if dladm show-vnic "${UPLINK}_host0" >/dev/null 2>&1; then
		ipadm show-if "${UPLINK}_host0" >/dev/null 2>&1 || ipadm create-if "${UPLINK}_host0"
		ipadm show-addr "${UPLINK}_host0/isc" >/dev/null 2>&1 ||
			ipadm create-addr -T static -a "$ROUTER/${ADDRESS#*/}" "${UPLINK}_host0/isc"
		routeadm -u -e ipv4-forwarding
	fi
	;;
esac
dladm show-vnic @PHYSICAL@ >/dev/null 2>&1 || dladm create-vnic -l "$UPLINK" @PHYSICAL@
dladm set-linkprop -p protection=mac-nospoof,restricted,ip-nospoof,dhcp-nospoof @PHYSICAL@
dladm set-linkprop -p allowed-ips=@IP@ @PHYSICAL@
`

// NetworkFiles returns what a host sets up the network of an instance with, by name: ipf.conf,
// ipf6.conf, ipnat.conf and vnic.sh for illumos, pf.conf for Solaris, nftables.conf for Linux. [Fill]
// puts the site's values for the tokens.
func (l *Layout) NetworkFiles() (map[string]string, error) {
	if err := l.named(); err != nil {
		return nil, err
	}
	files := map[string]string{}
	writers := map[string]func() ([]byte, error){}
	switch l.OS {
	case Solaris:
		writers["pf.conf"] = l.pfDock
	case Linux:
		writers["nftables.conf"] = l.nftDock
		fallthrough // a host of illumos runs guests of Linux too: LX zones
	case Illumos:
		writers["ipf.conf"] = func() ([]byte, error) { return l.ipf(false) }
		writers["ipf6.conf"] = func() ([]byte, error) { return l.ipf(true) }
		writers["ipnat.conf"] = l.ipnat
		writers["vnic.sh"] = func() ([]byte, error) { return fmt.Appendf(nil, vnic, l.Name), nil }
	}
	for name, write := range writers {
		data, err := write()
		if err != nil {
			return nil, fmt.Errorf("network: %w", err)
		}
		files[name] = string(data)
	}
	return files, nil
}

// A filter is a packet filter that a root can hold: the program that tells so, the file of its rules, and
// the service that reads them, if it is not another control that starts it.
type filter struct {
	programs []string
	rules    string
	service  string
	write    func(*Layout) ([]byte, error)
}

var filters = map[string]filter{
	Linux:   {[]string{"usr/sbin/nft", "sbin/nft"}, "etc/nftables.conf", "", (*Layout).nftables},
	Solaris: {[]string{"usr/sbin/pfctl"}, "etc/firewall/pf.conf", "network/firewall", (*Layout).pf},
}

// ownFilter bakes the rules that a root filters itself with, if it has a filter of its own and the spec a
// network block. A zone of illumos is filtered by its host.
func (b *baker) ownFilter() error {
	f := filters[b.layout.OS]
	for _, name := range f.programs {
		ok, err := exists(b.root, name)
		if err != nil {
			return err
		}
		if !ok {
			continue
		}
		rules, err := f.write(b.layout)
		if err == nil {
			err = b.file(f.rules, 0o644, sysOf(b.layout.OS), rules)
		}
		if err == nil && f.service != "" {
			err = editSite(enable(f.service), &Params{OS: b.layout.OS, Epoch: b.epoch})(b.root)
		}
		return err
	}
	return nil
}
