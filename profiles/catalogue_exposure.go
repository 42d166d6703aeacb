package profiles

import (
	"regexp"

	"github.com/goldenisc/packer-plugin-isc/image"
)

// displays are the graphical logins of Linux distributions.
var displays = []string{"gdm.service", "gdm3.service", "lightdm.service", "sddm.service", "xdm.service"}

// remote are the services of inetd(8) that hand out shells, files and names in the clear.
var remote = []string{
	"network/finger", "network/login:rlogin", "network/login:klogin", "network/login:eklogin", "network/shell", "network/shell:kshell",
	"network/rexec", "network/telnet", "network/ftp", "network/tftp/udp6", "network/uucp", "network/talk", "network/comsat",
	"network/chargen:dgram", "network/chargen:stream", "network/daytime:dgram", "network/daytime:stream", "network/discard:dgram",
	"network/discard:stream", "network/echo:dgram", "network/echo:stream", "network/time:dgram", "network/time:stream",
}

// clearText are programs of servers that send passwords in the clear, and of name services that do.
var clearText = []string{
	"usr/sbin/in.fingerd", "usr/sbin/in.rlogind", "usr/sbin/in.rshd", "usr/sbin/in.rexecd", "usr/sbin/in.telnetd", "usr/sbin/in.ftpd",
	"usr/sbin/in.tftpd", "usr/sbin/in.uucpd", "usr/sbin/telnetd", "usr/sbin/vsftpd", "usr/sbin/proftpd", "usr/sbin/pure-ftpd",
	"usr/sbin/ypserv", "usr/sbin/ypbind", "usr/lib/netsvc/yp/ypserv", "usr/lib/netsvc/yp/ypbind", "usr/bin/Xvnc", "usr/bin/pidgin",
}

// wrapped are the settings that have services of inetd and RPC ask hosts_access(5).
var wrapped = append(properties(inetd, "", "defaults", "tcp_wrappers", "boolean", "true"),
	properties("network/rpc/bind", "", "config", "enable_tcpwrappers", "boolean", "true")...)

// The C controls beyond the list of services that are off: what answers from outside.
var exposureControls = []Control{
	{
		ID:    "C03",
		Title: "Generic security services are off",
		Why:   "Only NFS with Kerberos needs the daemon, which listens for RPC.",
		Refs:  []string{"STIG SOL-11.1-030030", "CIS 2.7"},
		On: map[string]Method{
			Illumos: {How: "network/rpc/gss:default disabled", SMF: disable("network/rpc/gss")},
			Linux:   masked("rpc-gssd.service", "rpc-svcgssd.service", "gssproxy.service"),
		},
	},
	{
		ID:    "C04",
		Title: "Nothing hands out shells, files or names in the clear",
		Why:   "Passwords of finger, rlogin, telnet, ftp, tftp, uucp and NIS can be read on the wire. Programs that are left are listed.",
		Refs: []string{
			"STIG SOL-11.1-020090", "STIG SOL-11.1-020100", "STIG SOL-11.1-020110", "STIG SOL-11.1-020130", "STIG SOL-11.1-020140",
			"STIG SOL-11.1-020150", "STIG SOL-11.1-020160", "STIG SOL-11.1-020180",
		},
		On: map[string]Method{
			Illumos: {
				How:   "disabled: finger, login, shell, rexec, telnet, ftp, tftp, uucp, talk, comsat and the small services",
				Globs: clearText, SMF: disable(remote...), Check: noted(clearText, "serves in the clear"),
			},
			Linux: {
				How:   "masked: inetd.service, xinetd.service, telnet.socket, rsh.socket, rlogin.socket, tftp.socket, vsftpd.service, ypserv.service",
				Globs: append([]string{"usr/lib/systemd/system/*", "lib/systemd/system/*", "etc/systemd/system/*"}, clearText...),
				Edits: func(p *Params) []Edit {
					return []Edit{func(root Root) error {
						return mask(root, p, []string{
							"inetd.service", "openbsd-inetd.service", "rlogin.socket", "rsh.socket", "telnet.socket", "tftp.socket",
							"tftpd-hpa.service", "vsftpd.service", "xinetd.service", "ypserv.service",
						})
					}}
				},
				Check: noted(clearText, "serves in the clear"),
			},
		},
	},
	{
		ID:    "C05",
		Title: "Services of inetd and RPC ask who calls",
		Why:   "A second list of who may connect stands where the packet filter is not.",
		Refs:  []string{"STIG SOL-11.1-030050", "STIG SOL-11.1-050140", "CIS 2.12"},
		Parameters: []Parameter{{
			Name: "ssh_from", Default: "ALL", Type: Hosts, What: "addresses and networks that sshd of illumos answers, see hosts_access(5)",
		}},
		On: map[string]Method{
			Illumos: {
				How:   "etc/hosts.deny: ALL: ALL; etc/hosts.allow: sshd: ${ssh_from}; network/inetd defaults/tcp_wrappers and network/rpc/bind config/enable_tcpwrappers true",
				Globs: []string{"etc/hosts.deny", "etc/hosts.allow"},
				Edits: all(settings(setLine, "etc/hosts.deny", "ALL: ALL", ""), settings(setAccess, "etc/hosts.allow", "sshd", "${ssh_from}")),
				SMF:   wrapped,
			},
			Solaris: {
				How:   "etc/hosts.deny: ALL: ALL; network/inetd defaults/tcp_wrappers and network/rpc/bind config/enable_tcpwrappers true; sshd asks no wrapper: D15 and AllowUsers bound it",
				Globs: []string{"etc/hosts.deny"},
				Edits: settings(setLine, "etc/hosts.deny", "ALL: ALL", ""),
				SMF:   wrapped,
			},
		},
	},
	{
		ID:    "C06",
		Title: "There is no graphical login, and X listens to nobody",
		Why:   "A container has no screen.",
		Refs:  []string{"STIG SOL-11.1-030010", "STIG SOL-11.1-020560", "STIG SOL-11.1-040410", "CIS 2.1"},
		On: map[string]Method{
			Illumos: {
				How: "application/graphical-login/gdm and cde-login disabled; application/x11/x11-server options/tcp_listen = false",
				SMF: append(disable("application/graphical-login/gdm", "application/graphical-login/cde-login"),
					properties("application/x11/x11-server", "", "options", "tcp_listen", "boolean", "false")...),
			},
			Linux: masked(displays...),
		},
	},
	{
		ID:    "C07",
		Title: "Mail is taken from the machine itself only",
		Why:   "A mail server that nobody meant to run relays for everybody.",
		Refs:  []string{"CIS 2.2"},
		On: map[string]Method{
			Illumos: {
				How: "network/smtp:sendmail config/local_only = true",
				SMF: properties("network/smtp", "sendmail", "config", "local_only", "boolean", "true"),
			},
			Linux: needed(setAssignment, "etc/postfix/main.cf", "inet_interfaces", "loopback-only"),
		},
	},
	{
		ID:    "C10",
		Title: "Serial lines have no login",
		Why:   "The host gets in with zlogin or nsenter; whoever else reaches a line should not.",
		Refs:  []string{"STIG SOL-11.1-040310", "CIS 6.1"},
		On: map[string]Method{
			Illumos: {
				How: "system/console-login:terma and termb disabled; the zone's console stays",
				SMF: disable("system/console-login:terma", "system/console-login:termb"),
			},
			Linux: masked("serial-getty@.service"),
		},
	},
}

// syslogNetwork are the lines that make rsyslogd(8) take messages from the network.
var syslogNetwork = regexp.MustCompile(`^\s*(\$ModLoad\s+im(udp|tcp|relp)|\$(UDP|TCP|InputTCP|InputRELP)Server\S*|(module|input)\s*\(.*"im(udp|tcp|relp)")`)

// noted returns a check that lists what matches and is a file.
func noted(patterns []string, what string) func(Root, *Params) (Inspection, error) {
	return func(root Root, _ *Params) (Inspection, error) {
		var in Inspection
		for _, pattern := range patterns {
			err := each(root, pattern, func(e *image.Entry) error {
				if e.IsRegular() {
					in.Notes = append(in.Notes, Finding{e.Name, what})
				}
				return nil
			})
			if err != nil {
				return in, err
			}
		}
		return in, nil
	}
}

// setAccess sets who a daemon answers in hosts_access(5).
func setAccess(text, daemon, from string) string { return setCommand(text, daemon+":", from) }
