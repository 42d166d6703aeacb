package profiles

import (
	"io/fs"
	"maps"
	"testing"

	"github.com/goldenisc/packer-plugin-isc/image"
)

// violations are files of both systems that violate controls.
var violations = map[string]string{
	"etc/ssh/sshd_config": "# sshd\n#PermitRootLogin prohibit-password\nX11Forwarding yes\nMaxAuthTries 6\nPermitEmptyPasswords yes\n" +
		"Subsystem sftp internal-sftp\nMatch User backup\n\tForceCommand internal-sftp\n",
	"etc/ssh/ssh_host_rsa_key": "-----BEGIN OPENSSH PRIVATE KEY-----\nxxxx\n",
	"root/.rhosts":             "+ +\n",
	"root/.bash_history":       "ls\n",
	"tmp/left":                 "x",
	"var/log/build.log":        "secret\n",
	"opt/web/tls.key":          "-----BEGIN PRIVATE KEY-----\nxxxx\n",
	"etc/sudoers":              "Defaults env_reset\nroot ALL=(ALL:ALL) ALL\nsmith ALL=(ALL) NOPASSWD: ALL\n",
	"usr/sbin/gdm":             "\x7fELF",
	"usr/sbin/in.telnetd":      "\x7fELF",
}

// violationsOf are those of one system.
var violationsOf = map[string]map[string]string{
	Illumos: {
		"etc/passwd":                 "root:x:0:0:Super-User:/root:/usr/bin/bash\nlp:x:71:8:printer:/:/bin/sh\nsmith:x:100:1::/home/smith:/bin/sh\n",
		"etc/shadow":                 "root::6445::::::\nlp:$5$salt$known:6445::::::\nsmith:$5$salt$hash:6445::::::\nghost:NP:6445::::::\n",
		"etc/group":                  "root::0:\nother::1:root\nbin::2:\nsys::3:root\nlp::8:\n",
		"etc/default/passwd":         "# comment\nMAXWEEKS=\nMINWEEKS=\nPASSLENGTH=6\nMINNONALPHA=1\n\n#HISTORY=0\n",
		"etc/default/login":          "CONSOLE=/dev/tty\nPASSREQ=NO\n#UMASK=022\n#RETRIES=5\n",
		"etc/default/inetinit":       "TCP_STRONG_ISS=1\n",
		"etc/security/policy.conf":   "CRYPT_ALGORITHMS_ALLOW=1,2a,md5,5,6\n#CRYPT_ALGORITHMS_DEPRECATE=__unix__\nCRYPT_DEFAULT=__unix__\n",
		"etc/security/audit_class":   "0x00000000:no:invalid class\n0x00001000:lo:login or logout\n",
		"etc/cron.d/cron.deny":       "daemon\n",
		"lib/svc/seed/nonglobal.db":  "seed",
		"etc/svc/repository.db":      "used",
		"boot/loader.conf":           "console=\"text\"\npassword=\"secret\"\n",
		"etc/user_attr":              "# users\nroot::::auths=solaris.*;audit_flags=lo\\:no;profiles=All\nsmith::::type=normal\n",
		"etc/pam.conf":               "login auth required pam_unix_cred.so.1\nrlogin auth sufficient pam_rhosts_auth.so.1\n",
		"etc/ftpd/ftpusers":          "root\n",
		"etc/project":                "system:0::::\ndefault:3::::\n",
		"var/pkg/pkg5.image":         "[property]\nflush-content-cache-on-success = False\n\n[facet]\n",
		"etc/proftpd.conf":           "ServerName x\n",
		"etc/profile":                "# profile\ntrap \"\" 2 3\n",
		"etc/.login":                 "# csh\n",
		"var/adm/messages":           "x\n",
		"usr/sadm/defadduser":        "definact=0\n",
		"etc/hosts.allow":            "sshd: 10.0.0.0/8\n",
		"etc/dumpadm.conf":           "DUMPADM_ENABLE=yes\n",
		"lib/svc/method/everybody's": "#!/bin/sh\n",
		manifestDir + "/gone.xml": smfDocument + "<service_bundle type='manifest' name='gone'><service name='site/gone' type='service' version='1'>" +
			"<create_default_instance enabled='true'/><exec_method type='method' name='start' exec='/opt/gone' timeout_seconds='0'/></service></service_bundle>",
	},
	Solaris: { // beyond those of illumos
		"boot/grub/grub.cfg":       "set timeout=0\npassword root secret\n",
		"etc/user_attr.d/web":      "smith::::audit_flags=lo\\:no;type=normal\n",
		"var/share/":               "",
		"system/volatile/x":        "x",
		"etc/svc/profile/node/x":   "x",
		"etc/default/passwd":       "# comment\nMAXWEEKS=8\nMINWEEKS=1\n#MAXDAYS=\nPASSLENGTH=6\nMINNONALPHA=1\n\n#HISTORY=0\n",
		"etc/security/audit_class": "0x0000000000000000:no:invalid class\n0x0000000000001000:lo:login or logout\n",
	},
	Linux: {
		"etc/passwd": "root:x:0:0:root:/root:/bin/bash\nlp:x:7:7:lp:/var/spool/lpd:/bin/sh\nsmith:$1$hash:1000:1::/home/smith:/bin/sh\n",
		"etc/shadow": "root::19000:0:99999:7:::\nlp:$y$j9T$salt$known:19000:0:99999:7:::\nsmith:$6$fixture$fOdyMtWVuwVDt2pyfZZDC6AzRHp/XTh3X.laxYM8stZq9OK58z3n19wLn9ow4B/zZMe4ehb2M1G2h.deShYVn1:19000:0:60:7:::\nghost:!:19000:0:99999:7:::\n",
		"etc/group":  "root:x:0:\ndaemon:x:1:\nlp:x:7:\n",
		"etc/login.defs": "# comment\nPASS_MAX_DAYS\t99999\nPASS_MIN_DAYS\t0\nUMASK\t\t022\n#ENCRYPT_METHOD DES\nFAIL_DELAY 0\nHOME_MODE 0755\n" +
			"SYSLOG_SU_ENAB no\n",
		"etc/security/pwquality.conf":                  "# minlen = 8\n# dictcheck = 1\n",
		"etc/security/pwhistory.conf":                  "# remember = 10\n",
		"etc/security/faillock.conf":                   "# deny = 3\n",
		"etc/security/limits.conf":                     "# limits\n",
		"etc/cron.d/":                                  "",
		"etc/cron.deny":                                "daemon\n",
		"etc/machine-id":                               "0123456789abcdef0123456789abcdef\n",
		"usr/lib/systemd/systemd":                      "\x7fELF",
		"usr/lib/systemd/system/auditd.service":        "[Service]\n",
		"usr/lib/systemd/system/nftables.service":      "[Service]\n",
		"usr/lib/systemd/system/autofs.service":        "[Service]\n",
		"usr/lib/systemd/system/ssh.service":           "[Service]\n",
		"usr/lib/systemd/system/gdm.service":           "[Service]\n",
		"usr/lib/systemd/system/kdump.service":         "[Service]\n",
		"usr/lib/systemd/system/rpc-gssd.service":      "[Service]\n",
		"usr/lib/systemd/system/telnet.socket":         "[Socket]\n",
		"usr/lib/systemd/system/serial-getty@.service": "[Service]\n",
		"usr/lib/systemd/system/avahi-daemon.service":  "[Service]\n",
		"usr/sbin/auditd":                              "\x7fELF",
		"usr/sbin/nft":                                 "\x7fELF",
		"etc/audit/auditd.conf":                        "max_log_file = 100\nspace_left_action = ignore\n",
		"etc/postfix/main.cf":                          "inet_interfaces = all\n",
		"etc/rsyslog.conf":                             "module(load=\"imuxsock\")\nmodule(load=\"imudp\")\ninput(type=\"imudp\" port=\"514\")\n",
		"etc/securetty":                                "console\ntty1\n",
		"etc/pam.d/su":                                 "# su\nauth sufficient pam_rootok.so\n# auth       required   pam_wheel.so\nauth sufficient pam_rhosts.so\n",
		"etc/pam.d/common-auth":                        "auth [success=1 default=ignore] pam_unix.so nullok\n",
		"etc/pam.d/common-session":                     "session required pam_unix.so\n",
		"etc/pam.d/login":                              "# login\nauth  optional  pam_faildelay.so  delay=3000000\n@include common-auth\n",
		"etc/pam.d/system-auth":                        "auth required pam_faillock.so preauth\n",
		"etc/ftpusers":                                 "root\n",
		"etc/apt/":                                     "",
		"etc/fstab":                                    "/dev/vda1 / ext4 defaults 0 1\n",
		"etc/vsftpd.conf":                              "anonymous_enable=YES\n",
		"etc/default/useradd":                          "# INACTIVE=-1\n",
		"etc/nftables.conf":                            "table inet filter {\n\tchain input {\n\t\ttype filter hook input priority 0;\n\t}\n}\n",
		"boot/grub/grub.cfg":                           "set timeout=0\npassword root secret\n",
		"var/lib/systemd/coredump/":                    "",
		"etc/systemd/system/gone.service":              "[Service]\nExecStart=/opt/gone\nUser=nobody-at-all\n",
	},
}

// ownViolations returns those of one system; Solaris has those of illumos as well.
func ownViolations(os string) map[string]string {
	own := map[string]string{}
	if os == Solaris {
		maps.Copy(own, violationsOf[Illumos])
	}
	maps.Copy(own, violationsOf[os])
	return own
}

// violating returns a tree in which nearly every control is violated.
func violating(t testing.TB, os string) *image.Tree {
	files := maps.Clone(violations)
	maps.Copy(files, ownViolations(os))
	tree := newTree(t, files)
	dir := func(name string, mode fs.FileMode) {
		put(t, tree, image.Entry{Name: name, Mode: fs.ModeDir | mode, ModTime: old}, "")
	}
	dir("var/spool/everybody", 0o777)
	dir("var/tmp", 0o777)
	dir("home/smith", 0o755)
	put(t, tree, image.Entry{Name: "var/adm/spellhist", Mode: 0o666, ModTime: old}, "")
	put(t, tree, image.Entry{Name: "opt/orphan", Mode: 0o644, UID: 4711, GID: 4712, ModTime: old}, "")
	put(t, tree, image.Entry{Name: "usr/bin/rcp", Mode: fs.ModeSetuid | 0o555, ModTime: old}, "\x7fELF")
	put(t, tree, image.Entry{Name: "usr/bin/su", Mode: fs.ModeSetuid | 0o555, ModTime: old}, "\x7fELF")
	put(t, tree, image.Entry{Name: "usr/local/bin", Mode: fs.ModeDir | 0o775, UID: 100, ModTime: old}, "")
	put(t, tree, image.Entry{Name: "usr/bin/ping", Mode: 0o755, ModTime: old, Xattrs: map[string][]byte{
		"security.capability": {1, 0, 0, 2}, "user.comment": []byte("x"),
	}}, "\x7fELF")
	for name, mode := range map[string]fs.FileMode{
		"lib/svc/method/everybody's": 0o777, "usr/lib/systemd/system/auditd.service": 0o664, "etc/passwd": 0o664, "boot/grub/grub.cfg": 0o644,
	} {
		if e, err := tree.Stat(name); err == nil {
			if err := tree.SetMeta(name, mode, 0, 0, e.ModTime, nil); err != nil {
				t.Fatal(err)
			}
		}
	}
	return tree
}
