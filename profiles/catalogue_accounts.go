package profiles

import (
	"fmt"
	"io/fs"
	"path"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/goldenisc/packer-plugin-isc/image"
)

// The E controls: accounts and passwords.
var accountControls = []Control{
	{
		ID:    "E01",
		Title: "Passwords end",
		Why:   "A password that leaked is of use for some time only.",
		Refs:  []string{"STIG SOL-11.1-040010"},
		Parameters: []Parameter{
			{Name: "password_max_weeks", Default: "8", Type: Number, Least: 1, Most: 52, What: "weeks, on illumos"},
			{Name: "password_max_days", Default: "60", Type: Number, Least: 1, Most: 365, What: "days, on Solaris and Linux"},
		},
		On: map[string]Method{
			Illumos: assign("etc/default/passwd", "MAXWEEKS", "${password_max_weeks}"),
			Solaris: inDays("MAXDAYS", "${password_max_days}", "MAXWEEKS"),
			Linux:   checked(define("PASS_MAX_DAYS", "${password_max_days}"), "no password of etc/shadow of an account from 1000 on lasts longer", []string{"etc/shadow", "etc/passwd"}, endless),
		},
	},
	{
		ID:    "E02",
		Title: "A new password is kept for a while",
		Why:   "Else the old one is put back at once.",
		Refs:  []string{"STIG SOL-11.1-040030"},
		On: map[string]Method{
			Illumos: assign("etc/default/passwd", "MINWEEKS", "1"),
			Solaris: inDays("MINDAYS", "1", "MINWEEKS"),
			Linux: {
				How:   "etc/login.defs: PASS_MIN_DAYS 1; field 4 of etc/shadow for passwords of accounts from 1000 on",
				Globs: []string{"etc/login.defs", "etc/shadow", "etc/passwd"},
				Needs: []string{"etc/login.defs"},
				Edits: all(settings(setDefinition, "etc/login.defs", "PASS_MIN_DAYS", "1"), keptForADay),
			},
		},
	},
	{
		ID:         "E03",
		Title:      "Passwords are long",
		Why:        "Length is what guessing costs.",
		Refs:       []string{"STIG SOL-11.1-040040"},
		Parameters: []Parameter{{Name: "password_length", Default: "15", Type: Number, Least: 8, Most: 128, What: "characters at least"}},
		On: map[string]Method{
			Illumos: assign("etc/default/passwd", "PASSLENGTH", "${password_length}"),
			Linux: {
				How:   "etc/security/pwquality.conf: minlen=${password_length}",
				Globs: []string{"etc/security/pwquality.conf"},
				Needs: []string{"etc/security/pwquality.conf"},
				Edits: settings(setAssignment, "etc/security/pwquality.conf", "minlen", "${password_length}"),
			},
		},
	},
	{
		ID:    "E12",
		Title: "No account has an empty password",
		Why:   "Packages ship root with one on some systems.",
		Refs:  []string{"STIG SOL-11.1-040120", "STIG SOL-11.1-040480"},
		On: map[string]Method{
			Illumos: {
				How:   "etc/shadow: empty becomes NP; etc/default/login: PASSREQ=YES",
				Globs: []string{"etc/shadow", "etc/default/login"},
				Edits: all(passwords(func(_, hash string) string { return orElse(hash, "NP") }),
					settings(setAssignment, "etc/default/login", "PASSREQ", "YES")),
			},
			Linux: {
				How:   "etc/shadow: empty becomes !",
				Globs: []string{"etc/shadow"},
				Edits: passwords(func(_, hash string) string { return orElse(hash, "!") }),
			},
		},
	},
	{
		ID:    "E13",
		Title: "Passwords are hashed with SHA-2 or better",
		Why:   "Older hashes can be reversed in hours.",
		Refs:  []string{"STIG SOL-11.1-040130"},
		On: map[string]Method{
			Illumos: assign("etc/security/policy.conf",
				"CRYPT_DEFAULT", "6", "CRYPT_ALGORITHMS_ALLOW", "5,6", "CRYPT_ALGORITHMS_DEPRECATE", "__unix__"),
			Linux: {
				How:   "etc/login.defs: ENCRYPT_METHOD SHA512, unless it is YESCRYPT",
				Globs: []string{"etc/login.defs"},
				Needs: []string{"etc/login.defs"},
				Edits: editFile("etc/login.defs", func(text string) (string, error) {
					if definition(text, "ENCRYPT_METHOD") == "YESCRYPT" {
						return text, nil
					}
					return setDefinition(text, "ENCRYPT_METHOD", "SHA512"), nil
				}),
			},
		},
	},
	{
		ID:    "E14",
		Title: "Accounts lock after failed logins",
		Why:   "Guessing a password must not be free.",
		Refs:  []string{"STIG SOL-11.1-040140", "CIS 6.15"},
		On: map[string]Method{
			Illumos: {
				How:   "etc/default/login: RETRIES 3; etc/security/policy.conf: LOCK_AFTER_RETRIES YES",
				Globs: []string{"etc/default/login", "etc/security/policy.conf"},
				Edits: all(settings(setAssignment, "etc/default/login", "RETRIES", "3"),
					settings(setAssignment, "etc/security/policy.conf", "LOCK_AFTER_RETRIES", "YES")),
			},
			Linux: checked(needed(setAssignment, "etc/security/faillock.conf", "deny", "3", "unlock_time", "900"),
				"where an account has a password, a stack of etc/pam.d has pam_faillock", []string{"etc/shadow", "etc/pam.d/*"}, uncounted),
		},
	},
	{
		ID:         "E16",
		Title:      "New files of users are private",
		Why:        "Sharing should be a decision.",
		Refs:       []string{"STIG SOL-11.1-040250", "CIS 7.3"},
		Parameters: []Parameter{{Name: "umask", Default: "077", Type: Octal, Least: 0o022, What: "octal file creation mask of logins"}},
		On: map[string]Method{
			Illumos: {
				How:   "etc/default/login: UMASK ${umask}; etc/profile and etc/.login: umask ${umask}",
				Globs: []string{"etc/default/login", "etc/profile", "etc/.login"},
				Edits: all(settings(setAssignment, "etc/default/login", "UMASK", "${umask}"),
					settings(setCommand, "etc/profile", "umask", "${umask}"), settings(setCommand, "etc/.login", "umask", "${umask}")),
			},
			Linux: {
				// With a value of its own, or pam_umask gives the group what the owner has (USERGROUPS_ENAB).
				How:   "etc/login.defs: UMASK ${umask}; etc/pam.d/common-session and common-session-noninteractive, where they are: session optional pam_umask.so umask=${umask}",
				Globs: []string{"etc/login.defs", "etc/pam.d/*"},
				Needs: []string{"etc/login.defs"},
				Edits: all(settings(setDefinition, "etc/login.defs", "UMASK", "${umask}"),
					module("etc/pam.d/common-session", "session optional pam_umask.so umask=${umask}", false),
					module("etc/pam.d/common-session-noninteractive", "session optional pam_umask.so umask=${umask}", false)),
			},
		},
	},
	{
		ID:    "E21",
		Title: "root has no password",
		Why:   "What is known for every instance of an image is no secret: installers set one that anybody can look up. The host still gets in, with zlogin or nsenter.",
		On: map[string]Method{
			Illumos: {
				How:   "etc/shadow: root NP, unless it is *LK*",
				Globs: []string{"etc/shadow"},
				Edits: passwords(lockRoot("NP")),
			},
			Linux: {
				How:   "etc/shadow: root !, unless it is locked",
				Globs: []string{"etc/shadow"},
				Edits: passwords(lockRoot("!")),
			},
		},
	},
	{
		ID:    "E24",
		Title: "No file grants logins without a password",
		Why:   ".rhosts and hosts.equiv trust addresses, .netrc holds passwords, .forward runs programs.",
		Refs:  []string{"STIG SOL-11.1-070160", "STIG SOL-11.1-070050", "STIG SOL-11.1-070170"},
		On: map[string]Method{
			Illumos: removal("**/.rhosts", "**/.shosts", "**/.netrc", "**/.forward", "etc/hosts.equiv", "etc/shosts.equiv"),
			Linux:   removal("**/.rhosts", "**/.shosts", "**/.netrc", "**/.forward", "etc/hosts.equiv", "etc/shosts.equiv"),
		},
	},
	{
		ID:    "E26",
		Title: "Only root uses cron and at",
		Why:   "A job is a way to come back.",
		Refs:  []string{"STIG SOL-11.1-040420", "CIS 6.13"},
		On: map[string]Method{
			Illumos: {
				How:   "etc/cron.d: cron.deny and at.deny removed, cron.allow holds root, at.allow nobody; 0400",
				Globs: []string{"etc/cron.d/*"},
				Edits: all(deleted("etc/cron.d/cron.deny", "etc/cron.d/at.deny"),
					file("etc/cron.d/cron.allow", 0o400, "root\n"), file("etc/cron.d/at.allow", 0o400, "")),
			},
			Linux: {
				// Readable: crontab and at run as other users, and take a list that they cannot read
				// for one that does not exist, which lets everybody in.
				How:   "etc: cron.deny and at.deny removed, cron.allow holds root, at.allow nobody; 0644",
				Globs: []string{"etc/cron*", "etc/at.*"},
				Needs: []string{"etc/cron.d", "etc/crontab", "etc/cron.deny", "etc/at.deny"},
				Edits: all(deleted("etc/cron.deny", "etc/at.deny"),
					file("etc/cron.allow", 0o644, "root\n"), file("etc/at.allow", 0o644, "")),
			},
		},
	},
	{
		ID:    "W01",
		Title: "A banner warns before login",
		Why:   "In some places trespass has to be forbidden before it can be punished.",
		Refs:  []string{"STIG SOL-11.1-050380", "CIS 8.1"},
		Parameters: []Parameter{{
			Name: "banner", Default: "Authorised use only. Activity is monitored and recorded.", Type: Text, What: "the text",
		}},
		On: map[string]Method{
			Illumos: banner("etc/issue", "etc/motd"),
			Linux:   banner("etc/issue", "etc/issue.net", "etc/motd"),
		},
	},
}

// inDays is the method that sets a time in days, which excludes that in weeks (passwd(1) of Solaris 11.4).
func inDays(days, value, weeks string) Method {
	return Method{
		How:   passwdDefaults + ": " + days + " " + value + "; " + weeks + ", which excludes it, is a comment",
		Globs: []string{passwdDefaults},
		Edits: all(commented(regexp.MustCompile(`^\s*`+weeks+`\s*=`), passwdDefaults), settings(setAssignment, passwdDefaults, days, value)),
	}
}

// byPassword reports whether a record of shadow(5) is of an account that is logged in to by password.
func byPassword(f []string) bool { return len(f) > 4 && f[1] != "" && !locked(f[1]) }

// endless finds passwords that last longer than new ones do. They are not edited: one that is older would be
// over at once, and keep out also whoever logs in by key.
func endless(root Root, p *Params) (in Inspection, err error) {
	most, err := strconv.Atoi(p.Value("password_max_days"))
	if err != nil {
		return in, err
	}
	people, err := peopleOf(root, 1000)
	if err != nil {
		return in, err
	}
	text, err := readText(root, "etc/shadow")
	for _, f := range records(text) {
		if !people[f[0]] || !byPassword(f) {
			continue
		}
		if n, err := strconv.Atoi(f[4]); err != nil || n > most {
			in.Findings = append(in.Findings, Finding{"etc/shadow", fmt.Sprintf("the password of %q does not end after %d days: chage -M %[2]d %[1]s", f[0], most)})
		}
	}
	return in, err
}

// keptForADay returns the edit that has the passwords of people kept for a day.
func keptForADay(p *Params) []Edit {
	return []Edit{func(root Root) error {
		people, err := peopleOf(root, 1000)
		if err != nil {
			return err
		}
		return shadowEdit(root, p, func(f []string) {
			if people[f[0]] && byPassword(f) && (f[3] == "" || f[3] == "0") {
				f[3] = "1"
			}
		})
	}}
}

// uncounted finds that failed logins with passwords are not counted. No stack is edited: what comes before
// and after a module, and by how many it jumps, differs from site to site, and a mistake locks everybody out.
func uncounted(root Root, _ *Params) (in Inspection, err error) {
	var who string
	text, err := readText(root, "etc/shadow")
	for _, f := range records(text) {
		if byPassword(f) {
			who = f[0]
		}
	}
	if err != nil || who == "" {
		return in, err
	}
	counted := false
	err = each(root, "etc/pam.d/*", func(e *image.Entry) error {
		if !e.IsRegular() || e.Size > maxText {
			return nil
		}
		text, err := readText(root, e.Name)
		for _, line := range lines(text) {
			f := fields(line)
			counted = counted || len(f) > 2 && f[0] == "auth" && slices.ContainsFunc(f, func(w string) bool { return path.Base(w) == "pam_faillock.so" })
		}
		return err
	})
	if !counted {
		in.Findings = append(in.Findings, Finding{"etc/pam.d", fmt.Sprintf("no stack has pam_faillock, so that etc/security/faillock.conf counts nothing, and %q logs in by password", who)})
	}
	return in, err
}

// passwords returns the edit of the second field of etc/shadow: hash is given an account and what
// it has, and returns what it should have.
func passwords(hash func(name, hash string) string) func(*Params) []Edit {
	return editFile("etc/shadow", func(text string) (string, error) {
		return editRecords(text, func(f []string) {
			if len(f) > 1 {
				f[1] = hash(f[0], f[1])
			}
		}), nil
	})
}

// locked reports whether no password can match what stands in shadow(5).
func locked(hash string) bool {
	return strings.HasPrefix(hash, "*") || strings.HasPrefix(hash, "!") || hash == "NP" || hash == "UP"
}

// unlocked returns the hash that stands in shadow(5), without the marks in front that lock it (passwd(1)), or
// nothing.
func unlocked(hash string) string {
	bare := strings.TrimLeft(strings.ReplaceAll(hash, "*LK*", ""), "!*")
	if locked(hash) && !strings.HasPrefix(bare, "$") && len(bare) != 13 { // that of the traditional crypt(3)
		return ""
	}
	return bare
}

func lockRoot(mark string) func(name, hash string) string {
	return func(name, hash string) string {
		if name == "root" && (!locked(hash) || hash == "UP" || unlocked(hash) != "") {
			return mark
		}
		return hash
	}
}

func removal(patterns ...string) Method {
	return Method{How: "removed: " + strings.Join(patterns, ", "), Globs: patterns, Edits: deleted(patterns...)}
}

func banner(names ...string) Method {
	return Method{
		How:   strings.Join(names, ", ") + ": ${banner}",
		Globs: names,
		Edits: func(p *Params) []Edit {
			text := p.Value("banner")
			if text != "" && !strings.HasSuffix(text, "\n") {
				text += "\n"
			}
			var edits []Edit
			for _, n := range names {
				edits = append(edits, func(root Root) error {
					name, err := follow(root, n)
					if err != nil {
						return err
					}
					return ensure(root, image.Entry{Name: name, Mode: fs.FileMode(0o644), GID: sysOf(p.OS), ModTime: p.Epoch}, []byte(text))
				})
			}
			return edits
		},
	}
}

func orElse(s, def string) string {
	if s == "" {
		return def
	}
	return s
}
