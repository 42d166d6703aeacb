package profiles

// The S controls: the ssh server. Where there is none they are not applicable.
var sshControls = []Control{
	{
		ID: "S01", Title: "ssh forwards no X11", Why: "It lets the server at the client's display.",
		Refs: []string{"STIG SOL-11.1-040330", "CIS 6.3"}, On: sshd("X11Forwarding", "no"),
	},
	{
		ID: "S02", Title: "Forwarded X11 would listen to the machine itself only", Why: "If S01 is waived, the display should not be everybody's.",
		Refs: []string{"STIG SOL-11.1-040331"}, On: sshd("X11UseLocalhost", "yes"),
	},
	{
		ID: "S03", Title: "ssh ends a connection after a few failed logins", Why: "Guessing must not be cheap.",
		Refs: []string{"STIG SOL-11.1-040340", "CIS 6.4"}, On: sshd("MaxAuthTries", "3"),
	},
	{
		ID: "S04", Title: "ssh trusts no hosts", Why: "An address is no proof.",
		Refs: []string{"STIG SOL-11.1-040350", "CIS 6.5"}, On: sshd("IgnoreRhosts", "yes", "HostbasedAuthentication", "no"),
	},
	{
		ID: "S05", Title: "root cannot log in over ssh", Why: "Who did it must be known, and root is the name everybody guesses with.",
		Refs: []string{"STIG SOL-11.1-040360", "CIS 6.6"}, On: sshd("PermitRootLogin", "no"),
	},
	{
		ID: "S06", Title: "ssh takes no empty passwords", Why: "One account without a password would be open to everybody.",
		Refs: []string{"STIG SOL-11.1-040370", "CIS 6.7"}, On: sshd("PermitEmptyPasswords", "no"),
	},
	{
		// A count of 0 ends idle sessions in old servers and disables the check since OpenSSH 8.2.
		ID: "S07", Title: "ssh ends dead sessions", Why: "A session nobody watches can be taken over.",
		Refs:       []string{"STIG SOL-11.1-040380"},
		Parameters: []Parameter{{Name: "ssh_idle_seconds", Default: "600", Type: Number, Least: 1, Most: 3600, What: "seconds between checks that the client is alive"}},
		On:         sshd("ClientAliveInterval", "${ssh_idle_seconds}", "ClientAliveCountMax", "1"),
	},
	{
		ID: "S08", Title: "ssh shows the banner", Why: "See W01.",
		Refs: []string{"STIG SOL-11.1-050390", "CIS 8.2"}, On: sshd("Banner", "/etc/issue"),
	},
	{
		ID: "S09", Title: "ssh tells of the last login", Why: "Who did not log in then knows that somebody else did.",
		Refs: []string{"STIG SOL-11.1-040450"}, On: sshd("PrintLastLog", "yes"),
	},
	{
		ID: "S10", Title: "ssh speaks no weak cipher", Why: "What is recorded today is broken some day.",
		Refs: []string{"STIG SOL-11.1-060130", "STIG SOL-11.1-060100", "STIG SOL-11.1-060110"},
		Parameters: []Parameter{
			{Name: "ssh_ciphers", Default: "chacha20-poly1305@openssh.com,aes256-gcm@openssh.com,aes128-gcm@openssh.com,aes256-ctr,aes128-ctr", Type: List, What: "ciphers, see ssh_config(5)"},
			{Name: "ssh_macs", Default: "hmac-sha2-512-etm@openssh.com,hmac-sha2-256-etm@openssh.com,hmac-sha2-512,hmac-sha2-256", Type: List, What: "message authentication codes"},
			// By what goes, so that those against quantum computers stay, whose names servers learned one after the other.
			{
				Name: "ssh_kex", Default: "-diffie-hellman-group1-*,diffie-hellman-group14-*,diffie-hellman-group-exchange-*", Type: List,
				What: "key exchanges, or after - those that the server does not offer of what it would, from OpenSSH 7.5 on",
			},
		},
		On: sshd("Ciphers", "${ssh_ciphers}", "MACs", "${ssh_macs}", "KexAlgorithms", "${ssh_kex}"),
	},
	{
		ID: "S11", Title: "ssh takes keys only", Why: "A key cannot be guessed, and does not leave the client.",
		On: sshd("PasswordAuthentication", "no", "KbdInteractiveAuthentication", "no", "AuthenticationMethods", "publickey"),
	},
	{
		ID: "S12", Title: "The image holds no ssh host keys",
		Why:   "Instances that share a key can pass for one another. The server makes its own at first start.",
		Scope: ImageOnly,
		On:    map[string]Method{Illumos: removal("etc/ssh/ssh_host_*"), Linux: removal("etc/ssh/ssh_host_*")},
	},
	{
		ID:    "S13",
		Title: "There is no ssh server",
		Why:   "The host gets in without one, and a container for one service offers one service.",
		On: map[string]Method{
			Illumos: {How: "network/ssh:default disabled", SMF: disable("network/ssh")},
			Linux:   masked("ssh.service", "sshd.service", "ssh.socket", "sshd.socket"),
		},
	},
}

// The W controls beyond the banner of logins.
var warningControls = []Control{
	{
		ID:    "W02",
		Title: "There is no graphical login that would have to warn",
		Why:   "A container has no screen: C06 switches it off, and it should not be there at all.",
		Refs:  []string{"STIG SOL-11.1-050410", "CIS 8.3", "CIS 8.4"},
		On:    everywhere("no gdm, lightdm, sddm, xdm or dtlogin", displayPrograms, nil, unwanted(displayPrograms, "is a graphical login")),
	},
	{
		ID:    "W03",
		Title: "A server for ftp shows the banner",
		Why:   "See W01. C04 switches such a server off.",
		Refs:  []string{"STIG SOL-11.1-050430"},
		On: map[string]Method{
			Illumos: {
				How: "etc/proftpd.conf: DisplayConnect /etc/issue", Globs: []string{"etc/proftpd.conf"}, Needs: []string{"etc/proftpd.conf"},
				Edits: settings(setCommand, "etc/proftpd.conf", "DisplayConnect", "/etc/issue"),
			},
			Linux: needed(setAssignment, "etc/vsftpd.conf", "banner_file", "/etc/issue"),
		},
	},
	{
		ID:    "W04",
		Title: "The boot menu says what starts",
		Why:   "Whoever stands at a console sees that this is no machine to be repaired in place.",
		On: map[string]Method{Illumos: {
			How:   "boot/loader.conf.local: loader_menu_title=\"Immutable Service Container\" (loader.conf(5)); a zone has no boot menu",
			Globs: []string{"boot/loader.conf.local"},
			Needs: bootLoader,
			Edits: settings(setAssignment, "boot/loader.conf.local", "loader_menu_title", `"Immutable Service Container"`),
		}},
		Absent: map[string]string{Solaris: "its menu is GRUB's, which bootadm(8) writes to the pool, outside of the root"},
	},
}

var displayPrograms = []string{
	"usr/sbin/gdm", "usr/sbin/gdm3", "usr/sbin/lightdm", "usr/bin/sddm", "usr/bin/xdm", "usr/dt/bin/dtlogin", "usr/lib/gdm*",
}

// unwanted returns a check that finds what matches.
func unwanted(patterns []string, what string) func(Root, *Params) (Inspection, error) {
	return func(root Root, _ *Params) (Inspection, error) {
		var in Inspection
		for _, pattern := range patterns {
			names, err := root.Glob(pattern)
			if err != nil {
				return in, err
			}
			for _, n := range names {
				in.Findings = append(in.Findings, Finding{n, what})
			}
		}
		return in, nil
	}
}
