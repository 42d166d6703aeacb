package basetest

// ServerDebian are packages over the minimal system that a server has, as far as controls are about them,
// and an auditor.
var ServerDebian = []string{"auditd", "cron", "libpam-pwquality", "lynis", "nftables", "openssh-server", "rsyslog", "sudo", "systemd-sysv"}
