package profiles

import (
	"fmt"
	"io/fs"
	"regexp"
	"strings"

	"github.com/goldenisc/packer-plugin-isc/image"
)

func join(words []string) string { return strings.Join(words, ", ") }

// limitsConf is where pam_limits(8) is. The folder beside it says nothing: another control makes it.
var limitsConf = []string{"etc/security/limits.conf", "usr/etc/security/limits.conf"}

// linux returns a control of Linux alone.
func linux(id, title, why string, refs []string, m Method) Control {
	return Control{ID: id, Title: title, Why: why, Refs: refs, On: map[string]Method{Linux: m}}
}

// The L controls of the system around the kernel.
var linuxSystemControls = []Control{
	linux("L20", "/tmp is emptied at every start and runs no programs", "What lies in a folder of everybody should not be run.",
		[]string{"CIS Debian 1.1.2"}, mount("/tmp", "tmpfs", "/tmp", "tmpfs", "mode=1777,nodev,nosuid,noexec", "0", "0")),
	linux("L21", "Shared memory runs no programs", "It is a folder of everybody, too.",
		[]string{"CIS Debian 1.1.2"}, mount("/dev/shm", "tmpfs", "/dev/shm", "tmpfs", "nodev,nosuid,noexec", "0", "0")),
	linux("L22", "The journal is kept and is not the network's", "Messages that are lost at a restart tell nothing of what led to it.",
		[]string{"CIS Debian 6.2"}, snippet("etc/systemd/journald.conf.d/isc.conf",
			"[Journal]\nStorage=persistent\nCompress=yes\nForwardToSyslog=no\nSystemMaxUse=256M\n", "usr/lib/systemd/systemd", "lib/systemd/systemd")),
	linux("L23", "Account files have their modes", "Who can write them is root; who can read hashes guesses at leisure.",
		[]string{"CIS Debian 7.1"}, Method{
			How:   "etc/passwd and etc/group 0644, etc/shadow and etc/gshadow 0640, and their backups 0600, of root",
			Globs: []string{"etc/passwd*", "etc/group*", "etc/shadow*", "etc/gshadow*"},
			Edits: func(*Params) []Edit { return []Edit{accountModes} },
		}),
	linux("L24", "Only root reads what cron runs", "Jobs hold paths and passwords.",
		[]string{"CIS Debian 2.4"}, Method{
			How:   "etc/crontab, etc/cron.d, etc/cron.{hourly,daily,weekly,monthly}: no bits for others than root",
			Globs: []string{"etc/crontab", "etc/cron.*"}, Needs: []string{"etc/crontab", "etc/cron.d"},
			Edits: restricted(0o077, "etc/crontab", "etc/cron.d", "etc/cron.hourly", "etc/cron.daily", "etc/cron.weekly", "etc/cron.monthly"),
		}),
	linux("L25", "Only root reads the configuration of the ssh server", "It says who gets in, and how.",
		[]string{"CIS Debian 5.1"}, Method{
			How: "etc/ssh/sshd_config and etc/ssh/sshd_config.d/*: no bits for others than root", Globs: []string{"etc/ssh/sshd_config*", "etc/ssh/sshd_config.d/*"},
			Needs: []string{"etc/ssh/sshd_config"},
			Edits: restricted(0o077, "etc/ssh/sshd_config", "etc/ssh/sshd_config.d/*"),
		}),
	linux("L26", "sudo has a terminal of its own and a log", "A program must not type into it, and who ran what must be known.",
		[]string{"CIS Debian 5.2"}, Method{
			How:   "etc/sudoers.d/isc: Defaults use_pty, logfile=/var/log/sudo.log",
			Globs: []string{"etc/sudoers.d/isc"}, Needs: []string{"etc/sudoers"},
			Edits: file("etc/sudoers.d/isc", 0o440, "Defaults use_pty\nDefaults logfile=\"/var/log/sudo.log\"\n"),
		}),
	linux("L27", "su is for a group", "Not every account should get to try root's password.",
		[]string{"CIS Debian 5.2"}, Method{
			How:   "etc/pam.d/su: auth required pam_wheel.so use_uid",
			Globs: []string{"etc/pam.d/su"}, Needs: []string{"etc/pam.d/su"},
			Edits: editFile("etc/pam.d/su", wheel),
		}),
	linux("L28", "PAM takes no empty passwords", "One account without a password would be open to everybody.",
		[]string{"CIS Debian 5.3"}, Method{
			How:   "etc/pam.d: no nullok",
			Globs: []string{"etc/pam.d/*"}, Needs: []string{"etc/pam.d/*"},
			Edits: eachText([]string{"etc/pam.d/*"}, noNull),
		}),
	linux("L29", "Shells that nobody uses end", "A session nobody watches can be taken over.",
		[]string{"CIS Debian 5.4"}, snippet("etc/profile.d/isc-tmout.sh", "if [ -z \"$TMOUT\" ]; then\n\tTMOUT=900\n\treadonly TMOUT\n\texport TMOUT\nfi\n")),
	linux("L30", "Units that are installed later do not start", "A package switches its services on as it is installed.",
		[]string{"CIS Debian 2.1"}, snippet("etc/systemd/system-preset/99-isc.preset", "disable *\n", "usr/lib/systemd/systemd", "lib/systemd/systemd")),
	linux("L31", "No session and no service leaves core files", "A core file is a copy of memory.",
		[]string{"CIS Debian 1.5"}, Method{
			How:   "etc/security/limits.d/isc-core.conf: * hard core 0; etc/systemd/system.conf.d/isc.conf: DefaultLimitCORE=0",
			Globs: []string{"etc/security/limits.d/isc-core.conf", "etc/systemd/system.conf.d/isc.conf"},
			Edits: all(file("etc/security/limits.d/isc-core.conf", 0o644, "* hard core 0\n"),
				file("etc/systemd/system.conf.d/isc.conf", 0o644, "[Manager]\nDefaultLimitCORE=0\nDumpCore=no\n")),
		}),
	linux("L32", "Nothing is mounted by being looked at", "An automounter mounts what others offer.",
		[]string{"CIS Debian 2.1"}, masked("autofs.service", "udisks2.service")),
	linux("L33", "Only root reads the boot loader's configuration", "It may hold a password, and says what to break.",
		[]string{"CIS Debian 1.4"}, Method{
			How: "boot/grub/grub.cfg: no bits for others than root", Globs: []string{"boot/grub*/grub.cfg"}, Needs: []string{"boot/grub*/grub.cfg"},
			Edits: restricted(0o077, "boot/grub*/grub.cfg"),
		}),
	linux("L34", "New homes are private", "Sharing should be a decision.", []string{"CIS Debian 5.4"}, define("HOME_MODE", "0750")),
	linux("L35", "A packet filter drops what is not allowed", "A service that should not listen is stopped, whatever the host lets through.",
		[]string{"CIS Debian 4.2"}, Method{
			How:   "etc/nftables.conf: policy drop for input and forward; unless the spec has a network block, what starts at boot is let in",
			Globs: []string{"etc/nftables.conf"}, Needs: []string{"usr/sbin/nft", "sbin/nft"},
			Edits: editNftables,
		}),
	linux("L36", "The packet filter is loaded at start", "Rules in a file filter nothing.",
		[]string{"CIS Debian 4.2"}, started("nftables.service")),
	linux("L37", "The audit rules cannot be changed while the system runs", "Who is root could first stop being watched.",
		[]string{"CIS Debian 6.3"}, Method{
			How: "etc/audit/rules.d/99-isc-lock.rules: -e 2", Globs: []string{"etc/audit/rules.d/99-isc-lock.rules"}, Needs: auditd,
			Edits: file("etc/audit/rules.d/99-isc-lock.rules", 0o640, "-e 2\n"),
		}),
	linux("L38", "A session has a bounded number of processes", "One program that forks for ever must not stop the others.",
		[]string{"CIS Debian 5.4"}, snippet("etc/security/limits.d/isc-processes.conf", "* hard nproc 4096\n", limitsConf...)),
	linux("L39", "Accounts of shadow and passwd say the same", "A hash in passwd is read by everybody.",
		[]string{"CIS Debian 7.2"}, Method{
			How: "etc/passwd: no hash in field 2", Globs: []string{"etc/passwd"}, Needs: []string{"etc/shadow"},
			Edits: editFile("etc/passwd", func(text string) (string, error) {
				return editRecords(text, func(f []string) {
					if len(f) > 1 && f[1] != "x" {
						f[1] = "x"
					}
				}), nil
			}),
		}),
	linux("L40", "Nothing of root's PATH is somebody else's", "root would run what others wrote.",
		[]string{"CIS Debian 5.4"}, Method{
			How: "usr/local/sbin, usr/local/bin, usr/sbin, usr/bin, sbin, bin: owned by root, not writable by others", Globs: rootPath,
			Edits: rootOnly(rootPath),
		}),
}

var rootPath = []string{"usr/local/sbin", "usr/local/bin", "usr/sbin", "usr/bin", "sbin", "bin"}

// mount is the method that mounts a place with a line of fstab(5), where there is a file.
func mount(where string, fields ...string) Method {
	return Method{
		How: "etc/fstab: " + strings.Join(fields, " "), Globs: []string{"etc/fstab"}, Needs: []string{"etc/fstab"},
		Edits: editFile("etc/fstab", func(text string) (string, error) { return setFstab(text, 1, fields...), nil }),
	}
}

// accountModes takes bits away, and gives none: a stricter mode stays.
func accountModes(root Root) error {
	for _, m := range []struct {
		pattern string
		most    fs.FileMode
	}{
		{"etc/passwd", 0o644},
		{"etc/group", 0o644},
		{"etc/shadow", 0o640},
		{"etc/gshadow", 0o640},
		{"etc/passwd-", 0o600},
		{"etc/group-", 0o600},
		{"etc/shadow-", 0o600},
		{"etc/gshadow-", 0o600},
	} {
		e, err := root.Stat(m.pattern)
		if err != nil || !e.IsRegular() {
			continue // E23 says what is wrong with it
		}
		if e.Mode.Perm()&^m.most != 0 || e.UID != 0 {
			if err := ensureMode(root, m.pattern, e.Mode&(m.most|^fs.ModePerm), 0, e.GID); err != nil {
				return err
			}
		}
	}
	return nil
}

var wheelLine = regexp.MustCompile(`^#?\s*auth\s+required\s+pam_wheel\.so(\s+use_uid)?\s*$`)

// wheel puts the rule in place of the one that is a comment, else in front of all others.
func wheel(text string) (string, error) {
	const want = "auth       required   pam_wheel.so use_uid"
	l := lines(text)
	for i, line := range l {
		if wheelLine.MatchString(line) {
			if strings.Join(strings.Fields(line), " ") != strings.Join(strings.Fields(want), " ") {
				l[i] = want
			}
			return keepIfSame(text, l), nil
		}
	}
	i := 0
	for i < len(l) && (strings.HasPrefix(l[i], "#") || strings.TrimSpace(l[i]) == "") {
		i++
	}
	return unlines(append(l[:i:i], append([]string{want}, l[i:]...)...)), nil
}

var nullok = regexp.MustCompile(`\s+nullok(_secure)?\b`)

func noNull(text string) string {
	l := lines(text)
	for i, line := range l {
		if !strings.HasPrefix(strings.TrimSpace(line), "#") {
			l[i] = nullok.ReplaceAllString(line, "")
		}
	}
	return keepIfSame(text, l)
}

// dropsByDefault reports whether a set of rules of nft(8) drops what no rule takes, of what comes in and
// of what is passed on.
func dropsByDefault(text string) bool {
	text = nftUnread.ReplaceAllString(text, "")
	return inputDrop.MatchString(text) && forwardDrop.MatchString(text)
}

var (
	nftUnread   = regexp.MustCompile(`"[^"\n]*"|#.*`) // strings and comments, which are no rules
	inputDrop   = regexp.MustCompile(`hook\s+input\b[^;}]*;\s*policy\s+drop\b`)
	forwardDrop = regexp.MustCompile(`hook\s+forward\b[^;}]*;\s*policy\s+drop\b`)
)

func editNftables(p *Params) []Edit {
	return []Edit{func(root Root) error {
		e := image.Entry{Name: "etc/nftables.conf", Mode: 0o644, ModTime: p.Epoch}
		return rewrite(root, e, func(text string) (string, error) {
			if dropsByDefault(text) {
				return text, nil
			}
			services, err := BootServices(root, Linux)
			if err != nil {
				return "", err
			}
			var listen []string
			for _, b := range services {
				for _, p := range b.Ports {
					if _, err := ParsePort(p); err == nil {
						listen = append(listen, p)
					}
				}
			}
			rules, err := (&Layout{OS: Linux, Services: []Service{{Listen: listen}}}).nftables()
			if err != nil {
				return "", fmt.Errorf("rules: %w", err)
			}
			return string(rules), nil
		})
	}}
}
