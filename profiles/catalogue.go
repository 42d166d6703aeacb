package profiles

import (
	"fmt"
	"io/fs"
	"slices"
	"strings"
)

// Controls is the catalogue, sorted by id. To add a control is to add its entry here or in one of
// the lists below: documentation, audit and the test of idempotence follow from it.
var Controls = func() []Control {
	all := slices.Concat(platformControls, kernelControls, auditControls, trailControls, serviceControls, exposureControls, startControls,
		networkControls, packetControls, accountControls, passwordControls, loginControls, sshControls, warningControls,
		fileControls, permissionControls, integrityControls, zoneControls, linuxKernelControls, linuxSystemControls)
	for i := range all {
		all[i].inherit()
	}
	slices.SortFunc(all, func(a, b Control) int { return strings.Compare(a.ID, b.ID) })
	return all
}()

// noDumps has the kernel of Linux write no core files.
var noDumps = sysctl("kernel.core_pattern", "|/bin/false", "fs.suid_dumpable", "0")

// The A controls: what the kernel does for processes.
var platformControls = []Control{
	{
		ID:    "A01",
		Title: "Stacks are not executable",
		Why:   "Code that an attacker writes to a stack must not run.",
		Refs:  []string{"STIG SOL-11.1-080020", "CIS 3.2"},
		On: map[string]Method{
			Illumos: {
				How:  "noexecstack in system/process-security and in the zone's security flags",
				SMF:  securityFlag("noexecstack"),
				Zone: func(z *Zone) { z.flag("NOEXECSTACK") },
			},
			Solaris: extension("sxadm enable nxstack"),
		},
	},
	{
		ID:    "A02",
		Title: "Address spaces are laid out at random",
		Why:   "An attacker who does not know addresses needs a second hole to learn them.",
		Refs:  []string{"STIG SOL-11.1-080030"},
		On: map[string]Method{
			Illumos: {
				How:  "aslr in system/process-security and in the zone's security flags",
				SMF:  securityFlag("aslr"),
				Zone: func(z *Zone) { z.flag("ASLR") },
			},
			Solaris: extension("sxadm delcust aslr"),
			Linux:   sysctl("kernel.randomize_va_space", "2"),
		},
	},
	{
		ID:    "A03",
		Title: "Page zero cannot be mapped",
		Why:   "Else a null pointer followed by the kernel or a privileged program leads to memory of the attacker's choice.",
		On: map[string]Method{
			Illumos: {
				How:  "forbidnullmap in system/process-security and in the zone's security flags",
				SMF:  securityFlag("forbidnullmap"),
				Zone: func(z *Zone) { z.flag("FORBIDNULLMAP") },
			},
			Linux: sysctl("vm.mmap_min_addr", "65536"),
		},
		Absent: map[string]string{Solaris: "sxadm(8) knows no such extension"},
	},
	{
		ID:    "A05",
		Title: "Processes leave no core files",
		Why:   "A core file is a copy of memory: keys, passwords and personal data in it end up on disk.",
		Refs:  []string{"STIG SOL-11.1-080040", "STIG SOL-11.1-080045", "CIS 3.1"},
		On: map[string]Method{
			Illumos: {
				How: "system/coreadm:default: global, per-process and set-id core files off, attempts logged; pattern /var/cores/core.%f.%p",
				SMF: coreadm("/var/cores/core.%f.%p"),
			},
			Solaris: {
				How: "system/coreadm:default: global, per-process and set-id core files off, attempts logged; pattern /var/share/cores/core.%f.%p",
				SMF: coreadm("/var/share/cores/core.%f.%p"),
			},
			Linux: {
				How:   noDumps.How + "; coredump.conf.d: Storage=none",
				Globs: append([]string{"etc/systemd/coredump.conf.d/isc.conf"}, noDumps.Globs...),
				Edits: all(noDumps.Edits, file("etc/systemd/coredump.conf.d/isc.conf", 0o644, "[Coredump]\nStorage=none\nProcessSizeMax=0\n")),
			},
		},
	},
	{
		ID:    "A06",
		Title: "The directory for core files is root's alone",
		Why:   "If core files are switched on to find a fault, they are still not for everybody.",
		Refs:  []string{"STIG SOL-11.1-080060", "STIG SOL-11.1-080070"},
		On: map[string]Method{
			Illumos: {How: "var/cores 0700 root:root", Globs: []string{"var/cores"}, Edits: directory("var/cores", 0o700)},
			Solaris: shared("cores", 0o700),
			Linux: {
				How:   "var/lib/systemd/coredump 0700 root:root, and in etc/tmpfiles.d/isc-coredump.conf, or each start would undo it",
				Globs: []string{"var/lib/systemd/coredump", "etc/tmpfiles.d/isc-coredump.conf"},
				Needs: []string{"var/lib/systemd/coredump"},
				Edits: all(directory("var/lib/systemd/coredump", 0o700),
					// Of two lines for a path that in the first file by name counts (tmpfiles.d(5)); the other is in systemd.conf.
					file("etc/tmpfiles.d/isc-coredump.conf", 0o644, "d /var/lib/systemd/coredump 0700 root root 3d\n")),
			},
		},
	},
}

// The B controls: auditing.
var auditControls = []Control{
	{
		ID:    "B01",
		Title: "Auditing runs",
		Why:   "What happened can only be told from records that were written then.",
		Refs:  []string{"STIG SOL-11.1-010040"},
		On: map[string]Method{
			Illumos: {How: "system/auditd:default enabled", SMF: enable("system/auditd")},
			Linux:   started("auditd.service"),
		},
	},
	{
		ID:    "B02",
		Title: "Logins, administration, process and file changes are audited",
		Why:   "These are the events that an intrusion consists of.",
		Refs:  []string{"STIG SOL-11.1-010220", "CIS 4.5"},
		Parameters: []Parameter{
			{Name: "audit_flags", Default: "lo,am,aa,ps,fd,fm,-fa,ex", Type: List, What: "audit classes of /etc/security/audit_class, see audit_flags(7), on illumos"},
			{Name: "audit_flags_solaris", Default: "cusa,-fa,-ex,-ps,fd,fm", Type: List, What: "the same on Solaris, whose class cusa holds logins and administration"},
		},
		On: map[string]Method{
			Illumos: {
				How: "system/auditd:default preselection/flags = ${audit_flags}",
				SMF: properties("system/auditd", "default", "preselection", "flags", "astring", "${audit_flags}"),
			},
			Solaris: {
				How: "system/auditd:default preselection/flags = ${audit_flags_solaris}",
				SMF: properties("system/auditd", "default", "preselection", "flags", "astring", "${audit_flags_solaris}"),
			},
			Linux: {
				How: auditRulesPath + ": accounts, rights, logins, time, network, mounts, modules, refused access, where there is what they are about; " +
					"on amd64 of programs of 32 bits too",
				Globs: auditGlobs(),
				Needs: auditd,
				Edits: auditRules,
			},
		},
	},
	{
		ID:    "B03",
		Title: "Events of nobody in particular are audited",
		Why:   "A login that fails belongs to no user yet.",
		Refs:  []string{"STIG SOL-11.1-010310"},
		On: map[string]Method{Illumos: {
			How: "system/auditd:default preselection/naflags = lo,na",
			SMF: properties("system/auditd", "default", "preselection", "naflags", "astring", "lo,na"),
		}},
	},
	{
		ID:    "B04",
		Title: "Arguments of executed programs are audited",
		Why:   "That sh ran says little, what it ran with says all.",
		Refs:  []string{"STIG SOL-11.1-010300"},
		On: map[string]Method{
			Illumos: {
				How: "system/auditd:default policy/argv = true",
				SMF: properties("system/auditd", "default", "policy", "argv", "boolean", "true"),
			},
			Linux: {
				How:   "etc/audit/rules.d/51-isc-exec.rules: execve of programs that run as root for somebody else",
				Globs: []string{"etc/audit/rules.d/51-isc-exec.rules"},
				Needs: auditd,
				Edits: file("etc/audit/rules.d/51-isc-exec.rules", 0o640,
					"-a always,exit -F arch=b64 -S execve -C uid!=euid -F euid=0 -k exec\n-a always,exit -F arch=b64 -S execve -F auid>=1000 -F auid!=unset -k exec\n"),
			},
		},
	},
	{
		ID:    "B05",
		Title: "Audit records name the zone",
		Why:   "The records of many zones meet in one trail.",
		Refs:  []string{"STIG SOL-11.1-100040"},
		On: map[string]Method{Illumos: {
			How:  "in the global zone: auditconfig -setpolicy +zonename",
			Dock: "the audit policy zonename is set in the global zone",
		}},
	},
	{
		ID:    "B06",
		Title: "The zone has an audit trail",
		Why:   "Without the policy perzone the audit daemon of a zone switches itself off, without an error.",
		Refs:  []string{"STIG SOL-11.1-100050"},
		On: map[string]Method{Illumos: {
			How:  "in the global zone: auditconfig -setpolicy +perzone, or a trail of the global zone that covers its zones",
			Dock: "the audit policy perzone is set in the global zone, or the global zone's trail covers its zones",
		}},
	},
}

// securityFlag returns the setting of one security flag for all processes (security-flags(7)).
func securityFlag(name string) []Property {
	return append(enable("system/process-security"),
		properties("system/process-security", "", "default", name, "boolean", "true")...)
}

// extension is the method of a security extension of Solaris, which sxadm(8) keeps in a private way.
func extension(command string) Method { return Method{How: command, Live: command} }

// coreadm returns the settings of coreadm(8) that leave no core files but where the pattern says, once
// they are switched on.
func coreadm(pattern string) []Property {
	return append(enable("system/coreadm"), properties("system/coreadm", "default", "config_params",
		"global_enabled", "boolean", "false",
		"process_enabled", "boolean", "false",
		"global_setid_enabled", "boolean", "false",
		"process_setid_enabled", "boolean", "false",
		"global_log_enabled", "boolean", "true",
		"global_pattern", "astring", pattern,
		"init_pattern", "astring", "")...)
}

// shared is the method that closes a directory of Solaris's /var/share. That is a file system of its own,
// rpool/VARSHARE, which most archives of a root do not hold: then it is up to whoever runs the zone.
func shared(name string, mode fs.FileMode) Method {
	dir := "var/share/" + name
	return Method{
		How:   fmt.Sprintf("%s %04o root:root", dir, mode),
		Globs: []string{dir}, Needs: []string{"var/share"}, Edits: directory(dir, mode),
		Live: fmt.Sprintf("chown root:root /%s; chmod %04o /%[1]s", dir, mode),
	}
}

// properties returns settings of one property group from name, type and value triples.
func properties(service, instance, group string, triples ...string) []Property {
	var all []Property
	for i := 0; i+2 < len(triples); i += 3 {
		all = append(all, Property{service, instance, group, triples[i], triples[i+1], triples[i+2]})
	}
	return all
}
