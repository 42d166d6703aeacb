package profiles

import (
	"slices"
	"strings"
)

// privilegeSets are the names of sets in a privilege specification (priv_str_to_set(3C)).
var privilegeSets = []string{"basic", "zone", "all", "none"}

// privilegeNames are the privileges of privileges(7) of illumos.
var privilegeNames = []string{
	"contract_event", "contract_identity", "contract_observer", "cpc_cpu", "dtrace_kernel", "dtrace_proc", "dtrace_user",
	"file_chown", "file_chown_self", "file_dac_execute", "file_dac_read", "file_dac_search", "file_dac_write",
	"file_downgrade_sl", "file_flag_set", "file_link_any", "file_owner", "file_read", "file_setid", "file_upgrade_sl",
	"file_write", "graphics_access", "graphics_map", "ipc_dac_read", "ipc_dac_write", "ipc_owner", "net_access",
	"net_bindmlp", "net_icmpaccess", "net_mac_aware", "net_mac_implicit", "net_observability", "net_privaddr",
	"net_rawaccess", "proc_audit", "proc_chroot", "proc_clock_highres", "proc_exec", "proc_fork", "proc_info",
	"proc_lock_memory", "proc_owner", "proc_prioup", "proc_priocntl", "proc_secflags", "proc_session", "proc_setid",
	"proc_taskid", "proc_zone", "sys_acct", "sys_admin", "sys_audit", "sys_config", "sys_devices", "sys_dl_config",
	"sys_flow_config", "sys_ip_config", "sys_ipc_config", "sys_iptun_config", "sys_linkdir", "sys_mount",
	"sys_net_config", "sys_nfs", "sys_ppp_config", "sys_res_bind", "sys_res_config", "sys_resource", "sys_smb",
	"sys_suser_compat", "sys_time", "sys_trans_label", "win_colormap", "win_config",
}

// oldPrivileges are the privileges beyond the basic ones that all versions of illumos and of Solaris 11 have.
var oldPrivileges = []string{
	"contract_event", "contract_observer", "cpc_cpu", "dtrace_kernel", "dtrace_proc", "dtrace_user", "file_chown", "file_chown_self",
	"file_dac_execute", "file_dac_read", "file_dac_search", "file_dac_write", "file_owner", "file_setid", "graphics_access", "graphics_map",
	"ipc_dac_read", "ipc_dac_write", "ipc_owner", "net_icmpaccess", "net_privaddr", "net_rawaccess", "proc_audit", "proc_chroot",
	"proc_clock_highres", "proc_lock_memory", "proc_owner", "proc_priocntl", "proc_setid", "proc_taskid", "proc_zone", "sys_acct",
	"sys_admin", "sys_audit", "sys_config", "sys_devices", "sys_ip_config", "sys_ipc_config", "sys_linkdir", "sys_mount",
	"sys_net_config", "sys_nfs", "sys_res_config", "sys_resource", "sys_time",
}

// upTo returns the specification of the basic privileges and of those of names that the zone has. The restarter
// cannot start a method with one that the zone does not have, nor with a name that its system does not know, so
// it is what the zone has without the others.
func upTo(names ...string) string {
	set := []string{"zone"}
	for _, p := range oldPrivileges {
		if !slices.Contains(names, p) {
			set = append(set, "!"+p)
		}
	}
	return strings.Join(set, ",")
}

// illumosOnly are basic privileges that nothing on Linux takes from a service: a filter of system calls holds
// before systemd itself executes the program, and threads are made by the calls that make processes.
var illumosOnly = []string{"file_read", "file_write", "proc_exec", "proc_fork", "proc_session"}

// capabilities are the capabilities(7) of Linux that correspond to privileges. The basic ones,
// which every process has on illumos, have none.
var capabilities = map[string][]string{
	"file_chown":       {"CAP_CHOWN"},
	"file_dac_execute": {"CAP_DAC_OVERRIDE"},
	"file_dac_read":    {"CAP_DAC_READ_SEARCH"},
	"file_dac_search":  {"CAP_DAC_READ_SEARCH"},
	"file_dac_write":   {"CAP_DAC_OVERRIDE"},
	"file_flag_set":    {"CAP_LINUX_IMMUTABLE"},
	"file_owner":       {"CAP_FOWNER"},
	"file_setid":       {"CAP_FSETID"},
	"ipc_owner":        {"CAP_IPC_OWNER"},
	"net_icmpaccess":   {"CAP_NET_RAW"},
	"net_privaddr":     {"CAP_NET_BIND_SERVICE"},
	"net_rawaccess":    {"CAP_NET_RAW"},
	"proc_audit":       {"CAP_AUDIT_WRITE"},
	"proc_chroot":      {"CAP_SYS_CHROOT"},
	"proc_lock_memory": {"CAP_IPC_LOCK"},
	"proc_owner":       {"CAP_KILL", "CAP_SYS_PTRACE"},
	"proc_priocntl":    {"CAP_SYS_NICE"},
	"proc_prioup":      {"CAP_SYS_NICE"},
	"proc_setid":       {"CAP_SETGID", "CAP_SETUID"},
	"sys_acct":         {"CAP_SYS_PACCT"},
	"sys_admin":        {"CAP_SYS_ADMIN"},
	"sys_ip_config":    {"CAP_NET_ADMIN"},
	"sys_mount":        {"CAP_SYS_ADMIN"},
	"sys_net_config":   {"CAP_NET_ADMIN"},
	"sys_resource":     {"CAP_SYS_RESOURCE"},
	"sys_time":         {"CAP_SYS_TIME"},
}

// PrivilegesFor returns the privileges that a service of a spec names for capabilities(7), and the capabilities
// that none stands for alone.
func PrivilegesFor(caps []string) (names, left []string) {
	for _, c := range caps {
		i := slices.IndexFunc(privilegeNames, func(n string) bool { return slices.Equal(capabilities[n], []string{c}) })
		if i < 0 {
			left = append(left, c)
		} else {
			names = append(names, privilegeNames[i])
		}
	}
	return names, left
}

// privileges returns the privileges of a service: those it names, or basic for a user other than
// root, and net_privaddr if it listens on a port below 1024. It is empty for root's services that
// name none: they have what the zone has.
func (s *Service) privileges() []string {
	set := slices.Clone(s.Privileges)
	if len(set) == 0 {
		if s.root() {
			return nil
		}
		set = []string{"basic"}
	}
	low := slices.ContainsFunc(s.Listen, func(l string) bool {
		p, err := ParsePort(l)
		return err == nil && p.Number < 1024
	})
	if low && !slices.Contains(set, "net_privaddr") && !slices.Contains(set, "all") && !slices.Contains(set, "zone") {
		set = append(set, "net_privaddr")
	}
	return set
}

func (s *Service) root() bool { return s.User == "" || s.User == "root" }

// capabilities returns the capabilities of a service, sorted; bounded is false if there is no
// bound on them.
func (s *Service) capabilities() (caps []string, bounded bool) {
	set := s.privileges()
	if set == nil || slices.Contains(set, "all") || slices.Contains(set, "zone") {
		return nil, false
	}
	for _, p := range set {
		if !strings.HasPrefix(p, "!") {
			caps = append(caps, capabilities[p]...)
		}
	}
	slices.Sort(caps)
	return slices.Compact(caps), true
}

// withheld returns the capabilities that a service without such a bound is not to have, sorted.
func (s *Service) withheld() (caps []string) {
	for _, p := range s.Privileges {
		if name, ok := strings.CutPrefix(p, "!"); ok {
			caps = append(caps, capabilities[name]...)
		}
	}
	slices.Sort(caps)
	return slices.Compact(caps)
}
