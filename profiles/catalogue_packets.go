package profiles

import (
	_ "embed"
	"strconv"
	"strings"
)

// The start method of the service that sets the parameters of the network stack.
//
//go:embed method/isc-netparams.sh
var netparamsMethod []byte

const netparams = "isc-netparams"

func netparamsManifest(os string) []byte {
	exec := func(name string) element {
		return el("exec_method", "type", "method", "name", name, "exec", "/lib/svc/method/"+netparams, "timeout_seconds", "60").with(
			methodContext(os).with(el("method_credential", "user", "root", "group", "root",
				"privileges", upTo("sys_ip_config", "net_rawaccess")))) // a zone that shares the stack of its host has neither
	}
	return document("Made by iscadm. Changes are drift.",
		el("service_bundle", "type", "manifest", "name", netparams).with(
			el("service", "name", "site/"+netparams, "type", "service", "version", "1").with(
				el("create_default_instance", "enabled", "true"),
				el("single_instance"),
				require("loopback", "svc:/network/loopback:default"),
				el("dependent", "name", netparams+"_network", "grouping", "optional_all", "restart_on", "none").
					with(el("service_fmri", "value", "svc:/milestone/network:default")),
				exec("start"),
				exec("refresh"),
				el("exec_method", "type", "method", "name", "stop", "exec", ":true", "timeout_seconds", "0"),
				el("property_group", "name", "startd", "type", "framework").with(
					el("propval", "name", "duration", "type", "astring", "value", "transient")),
				el("stability", "value", "Evolving"),
				el("template").with(el("common_name").with(
					element{name: "loctext", attrs: []string{"xml:lang", "C"}, text: "parameters of the network stack"})),
			)))
}

// stack returns the method that sets parameters of the network stack, as "protocol name value" triples.
// Those whose values are numbers are private: ipadm(8) wants an underscore in front, which is left out
// here. They are properties of a
// service of ours, which sets them at every start: the file etc/ipadm/ipadm.conf has a private
// format and is emptied when a zone is cloned.
func stack(triples ...string) Method {
	set := enable("site/" + netparams)
	var says []string
	for i := 0; i+2 < len(triples); i += 3 {
		typ, name := "count", "_"+triples[i+1]
		if _, err := strconv.Atoi(triples[i+2]); err != nil {
			typ, name = "astring", triples[i+1]
		}
		set = append(set, Property{"site/" + netparams, "default", triples[i], triples[i+1], typ, triples[i+2]})
		says = append(says, "ipadm set-prop -p "+name+"="+triples[i+2]+" "+triples[i])
	}
	manifest, method := manifestDir+"/"+netparams+".xml", "lib/svc/method/"+netparams
	return Method{
		How:   "by the service site/" + netparams + ": " + strings.Join(says, ", "),
		Globs: []string{manifest, method},
		Edits: all(func(p *Params) []Edit {
			return groupFile(manifest, 0o444, illumosSys, string(netparamsManifest(p.OS)))(p)
		},
			groupFile(method, 0o555, illumosBin, string(netparamsMethod))),
		SMF: set,
	}
}

// The D controls of the illumos network stack that Linux has no switch for, or that differ.
var packetControls = []Control{
	illumosNetwork("D01", "Broadcasts into other networks are not forwarded", "They multiply an attacker's packets.",
		[]string{"STIG SOL-11.1-050010", "CIS 3.5"}, "ip", "forward_directed_broadcasts", "0"),
	illumosNetwork("D02", "Questions for the time are not answered", "The clock tells how long the machine is up, and seeds bad random numbers.",
		[]string{"STIG SOL-11.1-050020"}, "ip", "respond_to_timestamp", "0"),
	illumosNetwork("D03", "Broadcast questions for the time are not answered", "They multiply an attacker's packets.",
		[]string{"STIG SOL-11.1-050030"}, "ip", "respond_to_timestamp_broadcast", "0"),
	illumosNetwork("D04", "Questions for the netmask are not answered", "They draw a map of the network.",
		[]string{"STIG SOL-11.1-050040"}, "ip", "respond_to_address_mask_broadcast", "0"),
	illumosNetwork("D06", "Multicast pings are not answered", "They find every machine with one packet.",
		[]string{"STIG SOL-11.1-050060"}, "ipv4", "respond_to_echo_multicast", "0", "ipv6", "respond_to_echo_multicast", "0"),
	{
		ID:    "D16",
		Title: "Source-routed packets are neither made nor taken",
		Why:   "Whoever chooses the way chooses the way around filters.",
		Refs:  []string{"STIG SOL-11.1-050370"},
		On: map[string]Method{
			Illumos: withDock(stack("ip", "forward_src_routed", "0"),
				"the packet filter drops packets with the options lsrr and ssrr"),
			Solaris: withDock(stack("ip", "forward_src_routed", "0"), "no rule of the packet filter has allow-opts"),
			Linux:   sysctl("net.ipv4.conf.all.accept_source_route", "0", "net.ipv4.conf.default.accept_source_route", "0"),
		},
	},
	{
		ID:    "D18",
		Title: "The container calls out only to where it must",
		Why:   "An intruder fetches tools and sends data home.",
		On: map[string]Method{
			Illumos: {How: "dock: outbound rules of this document, all else dropped", Dock: "a packet filter outside of the zone lets only the outbound ports of this document out"},
			Linux:   {How: "dock: outbound rules of this document, all else dropped", Dock: "a packet filter outside of the guest lets only the outbound ports of this document out"},
		},
	},
}

func illumosNetwork(id, title, why string, refs []string, triples ...string) Control {
	return Control{ID: id, Title: title, Why: why, Refs: refs, On: map[string]Method{Illumos: stack(triples...)}}
}

func withDock(m Method, dock string) Method {
	m.Dock = dock
	return m
}
