package profiles

import (
	"fmt"
	"io/fs"
	"slices"
	"strings"

	"github.com/goldenisc/packer-plugin-isc/image"
)

// auditd is what tells that a Linux root can audit.
var auditd = []string{"usr/sbin/auditd", "sbin/auditd"}

// What B02 has the kernel of Linux record: the events of the STIG and of chapter 6.2.3 of the CIS benchmark
// of Debian 12, by key. The rules are those of audit.rules(7).

// auditWatches are the files that are watched. The folder of one has to be there, or the rule is refused; it
// comes with what matches needs, which none of our controls makes.
var auditWatches = []struct {
	path, key string
	needs     []string
}{
	{"/etc/passwd", "identity", nil},
	{"/etc/group", "identity", nil},
	{"/etc/shadow", "identity", nil},
	{"/etc/gshadow", "identity", nil},
	{"/etc/security/opasswd", "identity", limitsConf},
	{"/etc/sudoers", "scope", nil},
	{"/etc/sudoers.d", "scope", nil},
	{"/etc/ssh/sshd_config", "sshd", []string{"etc/ssh/sshd_config"}},
	{"/etc/pam.d", "pam", nil},
	{"/etc/hosts", "network", nil},
	{"/etc/systemd/system", "services", []string{"usr/lib/systemd/systemd", "lib/systemd/systemd"}},
	{"/etc/localtime", "time", nil},
	{"/var/log/lastlog", "logins", nil},
	{"/var/log/faillog", "logins", nil},
	{"/var/run/utmp", "session", []string{"var/run"}},
	{"/var/log/wtmp", "session", nil},
	{"/var/log/btmp", "session", nil},
}

// auditCalls are the system calls that are recorded: those of all machines, those that only x86 has besides,
// and those that only its programs of 32 bits have. One that auditctl(8) does not know costs the whole rule.
var auditCalls = []struct{ all, x86, x86of32, filters, key string }{
	{"adjtimex,settimeofday,clock_settime", "", "stime,clock_settime64", "", "time"},
	{"sethostname,setdomainname", "", "", "", "network"},
	{"fchmod,fchmodat,setxattr,lsetxattr,fsetxattr,removexattr,lremovexattr,fremovexattr", "chmod", "", ofUsers, "permissions"},
	{"fchown,fchownat", "chown,lchown", "fchown32,chown32,lchown32", ofUsers, "permissions"},
	{"openat,truncate,ftruncate", "open,creat", "truncate64,ftruncate64", " -F exit=-EACCES" + ofUsers, "access"},
	{"openat,truncate,ftruncate", "open,creat", "truncate64,ftruncate64", " -F exit=-EPERM" + ofUsers, "access"},
	{"unlinkat,renameat,renameat2", "unlink,rename", "", ofUsers, "delete"},
	{"mount,umount2", "", "umount", ofUsers, "mounts"},
	{"init_module,finit_module,delete_module", "", "", "", "modules"},
}

const ofUsers = " -F auid>=1000 -F auid!=unset"

// x86Loader tells that a root is of amd64.
var x86Loader = []string{"lib64/ld-linux-x86-64.so.2", "usr/lib64/ld-linux-x86-64.so.2", "lib/ld-musl-x86_64.so.1"}

const auditRulesPath = "etc/audit/rules.d/50-isc.rules"

// auditGlobs are what the rules depend on.
func auditGlobs() []string {
	all := append([]string{auditRulesPath}, x86Loader...)
	for _, w := range auditWatches {
		all = append(all, w.needs...)
	}
	return all
}

func auditRules(p *Params) []Edit {
	return []Edit{func(root Root) error {
		var b strings.Builder
		// A rule that is refused all the same must not be the last one that is read: that locks them (L37).
		b.WriteString("## Made by iscadm.\n-c\n")
		for _, w := range auditWatches {
			ok, err := applicable(root, &Method{Needs: w.needs})
			if err != nil {
				return err
			}
			if ok {
				fmt.Fprintf(&b, "-w %s -p wa -k %s\n", w.path, w.key)
			}
		}
		x86, err := applicable(root, &Method{Needs: x86Loader})
		if err != nil {
			return err
		}
		rule := func(arch, filters, key string, calls ...string) {
			calls = slices.DeleteFunc(calls, func(c string) bool { return c == "" })
			fmt.Fprintf(&b, "-a always,exit -F arch=%s -S %s%s -k %s\n", arch, strings.Join(calls, ","), filters, key)
		}
		for _, c := range auditCalls {
			if x86 {
				rule("b64", c.filters, c.key, c.all, c.x86)
				rule("b32", c.filters, c.key, c.all, c.x86, c.x86of32)
			} else {
				rule("b64", c.filters, c.key, c.all)
			}
		}
		return ensure(root, image.Entry{Name: auditRulesPath, Mode: 0o640, ModTime: p.Epoch}, []byte(b.String()))
	}}
}

// The B controls beyond what is audited: the trail and what happens to it.
var trailControls = []Control{
	{
		ID:    "B07",
		Title: "A system that cannot audit stops",
		Why:   "Who fills the disk first could else do unseen what comes next. It costs availability, so only the strictest profiles have it.",
		Refs:  []string{"STIG SOL-11.1-010420"},
		On: map[string]Method{
			Illumos: {
				How: "system/auditd:default policy/cnt = false, policy/ahlt = true",
				SMF: properties("system/auditd", "default", "policy", "cnt", "boolean", "false", "ahlt", "boolean", "true"),
			},
			Linux: needed(setAudit, "etc/audit/auditd.conf", "disk_full_action", "HALT", "disk_error_action", "HALT"),
		},
	},
	{
		ID:    "B08",
		Title: "The audit trail leaves room and is cut into files",
		Why:   "A trail that fills its disk ends itself and whatever else writes there.",
		Refs:  []string{"STIG SOL-11.1-010400", "STIG SOL-11.1-010410", "STIG SOL-11.1-010370"},
		Parameters: []Parameter{
			{Name: "audit_free_percent", Default: "2", Type: Number, Least: 1, Most: 50, What: "percent of the file system that stay free"},
			{Name: "audit_file_bytes", Default: "4194304", Type: Number, Least: 524288, Most: 1000000000, What: "bytes after which a new file is begun, on illumos"},
			{Name: "audit_file_megabytes", Default: "8", Type: Number, Least: 1, Most: 1000, What: "MiB after which a new file is begun, on Linux"},
		},
		On: map[string]Method{
			Illumos: {
				How: "system/auditd:default audit_binfile: p_dir /var/audit, p_minfree ${audit_free_percent}, p_fsize ${audit_file_bytes}",
				SMF: properties("system/auditd", "default", "audit_binfile", "p_dir", "astring", "/var/audit",
					"p_minfree", "count", "${audit_free_percent}", "p_fsize", "count", "${audit_file_bytes}"),
			},
			Linux: needed(setAudit, "etc/audit/auditd.conf", "max_log_file", "${audit_file_megabytes}",
				"max_log_file_action", "ROTATE", "space_left_action", "SYSLOG"),
		},
	},
	{
		ID:    "B09",
		Title: "Only root reads the audit trail",
		Why:   "It tells what everybody did, with arguments.",
		Refs:  []string{"STIG SOL-11.1-010440", "STIG SOL-11.1-070250"},
		On: map[string]Method{
			Illumos: {How: "var/audit 0750 root:root", Globs: []string{"var/audit"}, Edits: directory("var/audit", 0o750)},
			Solaris: shared("audit", 0o750),
			Linux: {
				// The daemon gives the folder to the group at each start.
				How:   "var/log/audit 0700 root:root; etc/audit/auditd.conf: log_group root",
				Globs: []string{"var/log/audit", "etc/audit/auditd.conf"}, Needs: auditd,
				Edits: all(directory("var/log/audit", 0o700), editFile("etc/audit/auditd.conf", func(text string) (string, error) {
					return setAudit(text, "log_group", "root"), nil
				})),
			},
		},
	},
	{
		ID:    "B10",
		Title: "Nobody is audited less than others",
		Why:   "Flags of one account take precedence over those of the system.",
		Refs:  []string{"STIG SOL-11.1-010360"},
		On: map[string]Method{
			Illumos: {
				How:   "etc/user_attr: no key audit_flags",
				Globs: []string{"etc/user_attr"},
				Needs: []string{"etc/user_attr"},
				Edits: editFile("etc/user_attr", func(text string) (string, error) { return dropAttr(text, "audit_flags"), nil }),
			},
			Solaris: {
				How:   "etc/user_attr and etc/user_attr.d: no key audit_flags",
				Globs: []string{"etc/user_attr", "etc/user_attr.d/*"},
				Needs: []string{"etc/user_attr", "etc/user_attr.d/*"},
				Edits: eachText([]string{"etc/user_attr", "etc/user_attr.d/*"}, func(text string) string { return dropAttr(text, "audit_flags") }),
			},
		},
	},
	{
		ID:    "B11",
		Title: "Trouble with auditing is told to somebody",
		Why:   "Auditing that has failed is found out else when its records are wanted.",
		Refs:  []string{"STIG SOL-11.1-010380", "STIG SOL-11.1-010390"},
		On: map[string]Method{
			Illumos: {
				How:   "etc/mail/aliases: audit_warn: root, unless it is somebody else",
				Globs: []string{"etc/mail/aliases"},
				Edits: alias("audit_warn", "root"),
			},
			Linux: needed(setAudit, "etc/audit/auditd.conf", "action_mail_acct", "root"),
		},
	},
	{
		ID:    "B12",
		Title: "What the benchmark's own audit class holds is audited",
		Why:   "The benchmark adds a class cis to etc/security/audit_class and sorts events into it by hand; the classes of B02 hold the same events, and need no private tables.",
		Refs:  []string{"CIS 4.1", "CIS 4.2", "CIS 4.3", "CIS 4.4"},
		On: map[string]Method{Illumos: {
			How:   "every class that B02 names is in etc/security/audit_class",
			Globs: []string{"etc/security/audit_class"},
			Needs: []string{"etc/security/audit_class"},
			Check: auditClasses,
		}},
	},
}

// alias returns the edit that sends mail to a name somewhere (aliases(5)), unless it goes somewhere
// already.
func alias(name, to string) func(*Params) []Edit {
	return func(p *Params) []Edit {
		return []Edit{func(root Root) error {
			e := image.Entry{Name: "etc/mail/aliases", Mode: fs.FileMode(0o644), GID: sysOf(p.OS), ModTime: p.Epoch}
			return rewrite(root, e, func(text string) (string, error) {
				l := lines(text)
				for _, line := range l {
					if have, _, ok := strings.Cut(line, ":"); ok && strings.EqualFold(strings.TrimSpace(have), name) {
						return text, nil
					}
				}
				return unlines(append(l, name+": "+to)), nil
			})
		}}
	}
}

// attrs splits the last field of user_attr(5). A backslash keeps a semicolon; one at the end keeps
// nothing, and is left out: it would keep the semicolon before an attribute added after it.
func attrs(s string) []string {
	var all []string
	start, skip := 0, false
	for i := 0; i <= len(s); i++ {
		switch {
		case i == len(s) || s[i] == ';' && !skip:
			end := i
			if skip {
				end--
			}
			if end > start {
				all = append(all, s[start:end])
			}
			start = i + 1
		case s[i] == '\\' && !skip:
			skip = true
			continue
		}
		skip = false
	}
	return all
}

// editAttrs lets change edit the attributes of every record of user_attr(5); a record has five
// fields, of which the last may hold anything.
func editAttrs(text string, change func(name string, all []string) []string) string {
	l := lines(text)
	for i, line := range l {
		f := strings.SplitN(line, ":", 5)
		if line == "" || line[0] == '#' || len(f) < 5 {
			continue
		}
		f[4] = strings.Join(change(f[0], attrs(f[4])), ";")
		l[i] = strings.Join(f, ":")
	}
	return keepIfSame(text, l)
}

func dropAttr(text, key string) string {
	return editAttrs(text, func(_ string, all []string) []string {
		var kept []string
		for _, a := range all {
			if !strings.HasPrefix(a, key+"=") {
				kept = append(kept, a)
			}
		}
		return kept
	})
}

// auditClasses finds the classes that are asked for and that the system does not know: auditd
// ignores them without a word.
func auditClasses(root Root, p *Params) (Inspection, error) {
	var in Inspection
	text, err := readText(root, "etc/security/audit_class")
	if err != nil {
		return in, err
	}
	known := map[string]bool{}
	for _, f := range records(text) { // mask:name:description
		if len(f) > 1 {
			known[f[1]] = true
		}
	}
	parameter := map[string]string{Illumos: "audit_flags", Solaris: "audit_flags_solaris"}[p.OS]
	for _, c := range p.List(parameter) {
		if c = strings.TrimLeft(c, "+-^"); !known[c] {
			in.Findings = append(in.Findings, Finding{"etc/security/audit_class", "there is no class " + c + ", which " + parameter + " asks for"})
		}
	}
	return in, nil
}
