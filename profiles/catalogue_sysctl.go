package profiles

// linuxKernel returns a control that sets kernel parameters of Linux.
func linuxKernel(id, title, why string, pairs ...string) Control {
	return Control{ID: id, Title: title, Why: why, Refs: []string{"CIS Debian 3"}, On: map[string]Method{Linux: sysctl(pairs...)}}
}

// The L controls of the kernel. In an LX zone the kernel is the host's and most have no effect.
var linuxKernelControls = []Control{
	linuxKernel("L01", "The kernel does not tell its addresses", "They are what an attack on it needs first.", "kernel.kptr_restrict", "2"),
	linuxKernel("L02", "Only root reads the kernel's messages", "They hold addresses and what devices said.", "kernel.dmesg_restrict", "1"),
	linuxKernel("L03", "Processes do not trace one another", "One that was taken over reads the keys of its neighbours.", "kernel.yama.ptrace_scope", "2"),
	linuxKernel("L04", "Only root loads programs into the kernel", "The verifier of BPF has had many holes.",
		"kernel.unprivileged_bpf_disabled", "1", "net.core.bpf_jit_harden", "2"),
	linuxKernel("L05", "Links, pipes and files in shared folders are not followed for others", "Races in /tmp are old and still won.",
		"fs.protected_hardlinks", "1", "fs.protected_symlinks", "1", "fs.protected_fifos", "2", "fs.protected_regular", "2"),
	linuxKernel("L06", "Only root measures the kernel", "perf_event_open has had many holes.", "kernel.perf_event_paranoid", "3"),
	linuxKernel("L07", "The kernel is not replaced while it runs", "kexec starts another one that nobody verified.", "kernel.kexec_load_disabled", "1"),
	linuxKernel("L08", "The keyboard gives the kernel no orders", "Whoever reaches a console could kill or restart.", "kernel.sysrq", "0"),
	linuxKernel("L09", "Terminals load no line disciplines", "Rarely used code of the kernel is where holes are.", "dev.tty.ldisc_autoload", "0"),
	linuxKernel("L10", "Packets that cannot be are logged", "They are a sign of an attack or a fault.",
		"net.ipv4.conf.all.log_martians", "1", "net.ipv4.conf.default.log_martians", "1"),
	linuxKernel("L11", "Bogus error messages are not logged", "They fill the log.", "net.ipv4.icmp_ignore_bogus_error_responses", "1"),
	linuxKernel("L12", "Routers do not announce themselves here", "Anybody on the link could become one.",
		"net.ipv6.conf.all.accept_ra", "0", "net.ipv6.conf.default.accept_ra", "0"),
	linuxKernel("L13", "Redirects of known gateways are ignored too", "A gateway that was taken over is still one.",
		"net.ipv4.conf.all.secure_redirects", "0", "net.ipv4.conf.default.secure_redirects", "0"),
	linuxKernel("L14", "Connections in TIME-WAIT are not ended from outside", "RFC 1337: a late reset kills a new connection.", "net.ipv4.tcp_rfc1337", "1"),
	linuxKernel("L15", "Only root handles page faults of others", "userfaultfd makes races of the kernel easy to win.", "vm.unprivileged_userfaultfd", "0"),
	{
		ID: "L16", Title: "Rare file systems are not mounted", Why: "A stick or an image with a broken one attacks the kernel.",
		Refs: []string{"CIS Debian 1.1.1"},
		On:   map[string]Method{Linux: modules("etc/modprobe.d/isc-filesystems.conf", "cramfs", "freevxfs", "hfs", "hfsplus", "jffs2", "udf")},
	},
	{
		ID: "L17", Title: "Rare network protocols are not loaded", Why: "Any program can have the kernel load them, and they have had many holes.",
		Refs: []string{"CIS Debian 3.2"},
		On:   map[string]Method{Linux: modules("etc/modprobe.d/isc-protocols.conf", "dccp", "rds", "sctp", "tipc")},
	},
	{
		ID: "L18", Title: "Disks are not plugged in", Why: "USB storage and FireWire bring data in and carry it out; FireWire reads all memory.",
		Refs: []string{"CIS Debian 1.1.1"},
		On:   map[string]Method{Linux: modules("etc/modprobe.d/isc-plugs.conf", "firewire-core", "thunderbolt", "usb-storage")},
	},
}

// modules is the method that keeps kernel modules from being loaded (modprobe.d(5)).
func modules(name string, names ...string) Method {
	text := "# Made by iscadm.\n"
	for _, n := range names {
		text += "install " + n + " /bin/false\nblacklist " + n + "\n"
	}
	return Method{How: name + ": not loaded: " + join(names), Globs: []string{name}, Edits: file(name, 0o644, text)}
}
