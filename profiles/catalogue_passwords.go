package profiles

import (
	"regexp"
	"strings"
)

const (
	passwdDefaults = "etc/default/passwd"
	loginDefaults  = "etc/default/login"
	pwquality      = "etc/security/pwquality.conf"
)

// quality returns a control of what passwords are made of: a key of etc/default/passwd on illumos
// and of pwquality.conf(5) on Linux.
func quality(id, title, why, stig, key, value, linuxKey, linuxValue string) Control {
	return Control{
		ID: id, Title: title, Why: why, Refs: []string{"STIG SOL-11.1-" + stig},
		On: map[string]Method{
			Illumos: assign(passwdDefaults, key, value),
			Linux:   needed(setAssignment, pwquality, linuxKey, linuxValue),
		},
	}
}

// The E controls of what passwords are made of.
var passwordControls = []Control{
	{
		ID:    "E04",
		Title: "Old passwords are not taken again",
		Why:   "Else changing one is a formality.",
		Refs:  []string{"STIG SOL-11.1-040050"},
		On: map[string]Method{
			Illumos: assign(passwdDefaults, "HISTORY", "5"),
			Linux:   needed(setAssignment, "etc/security/pwhistory.conf", "remember", "5"),
		},
	},
	quality("E05", "A new password differs from the old one", "Who knows the old one tries its neighbours first.",
		"040060", "MINDIFF", "8", "difok", "8"),
	quality("E06", "Passwords hold capital letters", "More kinds of characters make guessing dearer.",
		"040070", "MINUPPER", "1", "ucredit", "-1"),
	quality("E07", "Passwords hold small letters", "More kinds of characters make guessing dearer.",
		"040080", "MINLOWER", "1", "lcredit", "-1"),
	{
		ID:    "E08",
		Title: "Passwords hold digits",
		Why:   "More kinds of characters make guessing dearer.",
		Refs:  []string{"STIG SOL-11.1-040090"},
		On: map[string]Method{
			Illumos: {
				How:   passwdDefaults + ": MINDIGIT 1; MINNONALPHA, which excludes it, is a comment",
				Globs: []string{passwdDefaults},
				Edits: all(commented(regexp.MustCompile(`^\s*MINNONALPHA=`), passwdDefaults),
					settings(setAssignment, passwdDefaults, "MINDIGIT", "1")),
			},
			Linux: needed(setAssignment, pwquality, "dcredit", "-1"),
		},
	},
	quality("E09", "Passwords hold special characters", "More kinds of characters make guessing dearer.",
		"040100", "MINSPECIAL", "1", "ocredit", "-1"),
	quality("E10", "Passwords do not repeat characters", "Length that is one character again and again is none.",
		"040110", "MAXREPEATS", "3", "maxrepeat", "3"),
	{
		ID:    "E11",
		Title: "Passwords are no words of a dictionary",
		Why:   "Those are tried first.",
		Refs:  []string{"STIG SOL-11.1-040190"},
		On: map[string]Method{
			Illumos: assign(passwdDefaults, "DICTIONLIST", "/usr/share/lib/dict/words", "DICTIONDBDIR", "/var/passwd"),
			Linux:   needed(setAssignment, pwquality, "dictcheck", "1"),
		},
	},
	{
		ID:    "E15",
		Title: "A failed login is answered late",
		Why:   "Guessing one at a time must take its time.",
		Refs:  []string{"STIG SOL-11.1-040160", "CIS 6.10"},
		On: map[string]Method{
			Illumos: assign(loginDefaults, "SLEEPTIME", "4"),
			Linux: {
				How:   "etc/login.defs: FAIL_DELAY 4; etc/pam.d/login, where it is: auth optional pam_faildelay.so delay=4000000, for Debian's login takes no other word",
				Globs: []string{"etc/login.defs", "etc/pam.d/login"},
				Needs: []string{"etc/login.defs"},
				Edits: all(settings(setDefinition, "etc/login.defs", "FAIL_DELAY", "4"),
					module("etc/pam.d/login", "auth optional pam_faildelay.so delay=4000000", true)),
			},
		},
	},
	{
		ID:    "E17",
		Title: "New files of daemons are writable by their owner only",
		Why:   "A daemon that takes no care of its files must not give them away.",
		Refs:  []string{"CIS 5.1"},
		On: map[string]Method{
			Illumos: assign("etc/default/init", "CMASK", "022"),
			Solaris: {
				How: "system/environment:init umask/umask = 022",
				SMF: properties("system/environment", "init", "umask", "umask", "astring", "022"),
			},
		},
	},
	{
		ID:    "E18",
		Title: "Terminals take no messages of others",
		Why:   "Some terminals can be made to run what is written to them.",
		Refs:  []string{"STIG SOL-11.1-040270", "CIS 7.5"},
		On: map[string]Method{
			Illumos: {
				How:   "etc/profile and etc/.login: mesg n",
				Globs: []string{"etc/profile", "etc/.login"},
				Edits: all(settings(setCommand, "etc/profile", "mesg", "n"), settings(setCommand, "etc/.login", "mesg", "n")),
			},
			Linux: snippet("etc/profile.d/isc-mesg.sh", "mesg n 2>/dev/null || true\n"),
		},
	},
	{
		ID:         "E19",
		Title:      "Accounts that nobody uses lock",
		Why:        "Nobody sees what is done with them.",
		Refs:       []string{"STIG SOL-11.1-040280", "STIG SOL-11.1-040020", "CIS 7.6"},
		Parameters: []Parameter{{Name: "inactive_days", Default: "35", Type: Number, Least: 1, Most: 365, What: "days without a login"}},
		On: map[string]Method{
			Illumos: {
				How:   "usr/sadm/defadduser: definact ${inactive_days}; field 7 of etc/shadow for accounts from 100 on",
				Globs: []string{"usr/sadm/defadduser", "etc/shadow", "etc/passwd"},
				Edits: all(settings(setAssignment, "usr/sadm/defadduser", "definact", "${inactive_days}"), inactive(100)),
			},
			Linux: {
				How:   "etc/default/useradd: INACTIVE ${inactive_days}; field 7 of etc/shadow for accounts from 1000 on",
				Globs: []string{"etc/default/useradd", "etc/shadow", "etc/passwd"},
				Needs: []string{"etc/default/useradd", "etc/login.defs"},
				Edits: all(settings(setAssignment, "etc/default/useradd", "INACTIVE", "${inactive_days}"), inactive(1000)),
			},
		},
	},
	{
		ID:    "E20",
		Title: "root is a role",
		Why:   "Who became root is known only if somebody logged in before. The zone's console, zlogin -C, takes root's login no longer.",
		Refs:  []string{"STIG SOL-11.1-040230", "STIG SOL-11.1-040200"},
		On: map[string]Method{
			Illumos: {
				How:   "etc/user_attr: root has type=role",
				Globs: []string{"etc/user_attr"},
				Needs: []string{"etc/user_attr"},
				Edits: editFile("etc/user_attr", func(text string) (string, error) { return setAttr(text, "root", "type", "role"), nil }),
			},
		},
	},
}

// setAttr sets an attribute of a record of user_attr(5), which is added if it is missing.
func setAttr(text, name, key, value string) string {
	found := false
	text = editAttrs(text, func(have string, all []string) []string {
		if have != name {
			return all
		}
		found = true
		for i, a := range all {
			if strings.HasPrefix(a, key+"=") {
				all[i] = key + "=" + value
				return all
			}
		}
		return append(all, key+"="+value)
	})
	if !found {
		text = unlines(append(lines(text), name+"::::"+key+"="+value))
	}
	return text
}

// inactive returns the edit of the field of shadow(5) that locks an account nobody used for so many
// days, of the accounts of people: those whose number is at least first.
func inactive(first int) func(*Params) []Edit {
	return func(p *Params) []Edit {
		return []Edit{func(root Root) error {
			people, err := peopleOf(root, first)
			if err != nil {
				return err
			}
			return shadowEdit(root, p, func(f []string) {
				if len(f) > 6 && people[f[0]] {
					f[6] = p.Value("inactive_days")
				}
			})
		}}
	}
}
