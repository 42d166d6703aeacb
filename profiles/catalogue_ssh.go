package profiles

// The S controls: the ssh server. Where there is none they are not applicable.
var sshControls = []Control{
	{
		ID: "S01", Title: "ssh forwards no X11", Why: "It lets the server at the client's display.",
		Refs: []string{"STIG SOL-11.1-040330", "CIS 6.3"}, On: sshd("X11Forwarding", "no"),
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
		Parameters: []Parameter{{Name: "ssh_idle_seconds", Default: "600", Type: Number, What: "seconds between checks that the client is alive"}},
		On:         sshd("ClientAliveInterval", "${ssh_idle_seconds}", "ClientAliveCountMax", "1"),
	},
	{
		ID: "S08", Title: "ssh shows the banner", Why: "See W01.",
		Refs: []string{"STIG SOL-11.1-050390", "CIS 8.2"}, On: sshd("Banner", "/etc/issue"),
	},
	{
		ID: "S11", Title: "ssh takes keys only", Why: "A key cannot be guessed, and does not leave the client.",
		On: sshd("PasswordAuthentication", "no", "KbdInteractiveAuthentication", "no"),
	},
	{
		ID: "S12", Title: "The image holds no ssh host keys",
		Why:   "Instances that share a key can pass for one another. The server makes its own at first start.",
		Scope: ImageOnly,
		On:    map[string]Method{Illumos: removal("etc/ssh/ssh_host_*"), Linux: removal("etc/ssh/ssh_host_*")},
	},
}
