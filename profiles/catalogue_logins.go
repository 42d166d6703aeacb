package profiles

import (
	"errors"
	"fmt"
	"io/fs"
	"path"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/goldenisc/packer-plugin-isc/image"
)

// The E controls of who can log in.
var loginControls = []Control{
	{
		ID:    "E22",
		Title: "Accounts of the system are not logged in to",
		Why:   "They own files and run daemons; nobody is them. Which of them are not needed at all is the site's to say.",
		Refs:  []string{"STIG SOL-11.1-090040", "STIG SOL-11.1-090030"},
		Parameters: []Parameter{{
			Name: "accounts_remove", Default: "", Type: List, What: "accounts that are removed, such as listen,gdm,svctag,nobody4",
		}},
		On: map[string]Method{
			Illumos: {
				How:   "etc/shadow: accounts below 100 other than root have *LK* or NP; ${accounts_remove} are removed",
				Globs: []string{"etc/passwd", "etc/shadow"},
				Needs: []string{"etc/passwd"},
				Edits: systemAccounts(100),
			},
			Linux: {
				How:   "etc/shadow: accounts below 1000 other than root have no password; etc/passwd: their shell is nologin, but for that of the identity block; ${accounts_remove} are removed",
				Globs: []string{"etc/passwd", "etc/shadow", unitDir + identityService + ".service"},
				Needs: []string{"etc/passwd"},
				Edits: systemAccounts(1000),
			},
		},
	},
	{
		ID:    "E23",
		Title: "Accounts and groups are whole, and each is one",
		Why:   "Two names of one number share all rights; what programs read differently can be anybody.",
		Refs: []string{
			"STIG SOL-11.1-070060", "STIG SOL-11.1-070070", "STIG SOL-11.1-070080", "STIG SOL-11.1-070100", "STIG SOL-11.1-070110",
			"STIG SOL-11.1-070120", "STIG SOL-11.1-070130", "STIG SOL-11.1-070140", "STIG SOL-11.1-070150", "STIG SOL-11.1-070220",
		},
		On: everywhere("etc/passwd, etc/group and etc/shadow are files of the right fields; names and numbers are there once; groups of users and accounts of hashes exist; 0 is root's alone; none are of NIS",
			[]string{"etc/passwd", "etc/group", "etc/shadow"}, nil, checkAccounts),
	},
	{
		ID:    "E25",
		Title: "root logs in on the console only",
		Why:   "Elsewhere somebody logs in under his own name first.",
		Refs:  []string{"STIG SOL-11.1-040430", "CIS 6.14"},
		On: map[string]Method{
			Illumos: assign(loginDefaults, "CONSOLE", "/dev/console"),
			Linux: {
				How:   "etc/securetty: console",
				Globs: []string{"etc/securetty"},
				Needs: []string{"etc/securetty"},
				Edits: file("etc/securetty", 0o600, "console\n"),
			},
		},
	},
	{
		ID:    "E27",
		Title: "PAM trusts no hosts",
		Why:   "An address is no proof.",
		Refs:  []string{"STIG SOL-11.1-040390", "CIS 6.8"},
		On: map[string]Method{
			Illumos: {
				How:   "etc/pam.conf and etc/pam.d: lines of pam_rhosts_auth are comments",
				Globs: []string{"etc/pam.conf", "etc/pam.d/*"},
				Edits: commented(regexp.MustCompile(`\bpam_rhosts(_auth)?\.so`), "etc/pam.conf", "etc/pam.d/*"),
			},
			Linux: {
				How:   "etc/pam.d: lines of pam_rhosts are comments",
				Globs: []string{"etc/pam.d/*"},
				Edits: commented(regexp.MustCompile(`\bpam_rhosts(_auth)?\.so`), "etc/pam.d/*"),
			},
		},
	},
	{
		ID:    "E28",
		Title: "nobody has no keys for RPC",
		Why:   "Keys that anybody can use prove nothing.",
		Refs:  []string{"STIG SOL-11.1-040320", "CIS 6.2"},
		On:    map[string]Method{Illumos: assign("etc/default/keyserv", "ENABLE_NOBODY_KEYS", "NO")},
	},
	{
		ID:    "E29",
		Title: "Accounts of the system cannot use ftp",
		Why:   "Their passwords would travel in the clear.",
		Refs:  []string{"STIG SOL-11.1-040400", "CIS 6.9"},
		On: map[string]Method{
			Illumos: {
				How:   "etc/ftpd/ftpusers holds root and all accounts below 100",
				Globs: []string{"etc/ftpd/ftpusers", "etc/passwd"},
				Needs: []string{"etc/ftpd"},
				Edits: ftpusers("etc/ftpd/ftpusers", 100),
			},
			Linux: {
				How:   "etc/ftpusers holds root and all accounts below 1000",
				Globs: []string{"etc/ftpusers", "etc/passwd"},
				Needs: []string{"etc/ftpusers", "usr/sbin/*ftpd"},
				Edits: ftpusers("etc/ftpusers", 1000),
			},
		},
	},
	{
		ID:         "E30",
		Title:      "An account has a bounded number of sessions",
		Why:        "Somebody who has a password should not be able to keep all others out.",
		Refs:       []string{"STIG SOL-11.1-040500"},
		Parameters: []Parameter{{Name: "max_sessions", Default: "10", Type: Number, Least: 1, Most: 1000, What: "sessions of one account"}},
		On: map[string]Method{
			Illumos: {
				// Not by the project default: all who have none of their own are in that, and would share its sessions.
				How:   "etc/project: project user.NAME of each account from 100 on that has a shell has project.max-tasks=(privileged,${max_sessions},deny)",
				Globs: []string{"etc/project", "etc/passwd"},
				Needs: []string{"etc/project"},
				Edits: sessions,
			},
			Linux: snippet("etc/security/limits.d/isc-sessions.conf", "* hard maxlogins ${max_sessions}\n", limitsConf...),
		},
	},
	{
		ID:    "E31",
		Title: "su and failed logins are logged",
		Why:   "Who became root, and who tried, must be known afterwards.",
		On: map[string]Method{
			Illumos: {
				How:   "etc/default/su: SYSLOG YES, SULOG /var/adm/sulog; etc/default/login: SYSLOG_FAILED_LOGINS 0",
				Globs: []string{"etc/default/su", loginDefaults},
				Edits: all(settings(setAssignment, "etc/default/su", "SYSLOG", "YES", "SULOG", "/var/adm/sulog"),
					settings(setAssignment, loginDefaults, "SYSLOG_FAILED_LOGINS", "0")),
			},
			Linux: define("SYSLOG_SU_ENAB", "yes", "SYSLOG_SG_ENAB", "yes", "FAILLOG_ENAB", "yes"),
		},
	},
	{
		ID:    "E32",
		Title: "sudo asks who it is",
		Why:   "A rule without a password makes a stolen session root's.",
		Refs:  []string{"CIS Debian 5.2"},
		On: map[string]Method{
			Illumos: {How: "no NOPASSWD, !authenticate or rule of ALL for ALL in sudoers and what it includes", Globs: sudoers, Needs: sudoers, Check: checkSudoers},
			Linux:   {How: "no NOPASSWD, !authenticate or rule of ALL for ALL in sudoers and what it includes", Globs: sudoers, Needs: sudoers, Check: checkSudoers},
		},
	},
	{
		ID:    "E33",
		Title: "No password is guessed at once",
		Why:   "An account whose password is empty, its own name or one of the few that everybody tries is open to everybody.",
		On: everywhere("etc/shadow: no hash ($1$, $5$, $6$ of crypt(3)) is of the account's name, of nothing, or of "+strings.Join(guesses[1:], ", ")+"; of yescrypt, bcrypt, scrypt and Sun's MD5 the report says that they were not tested",
			[]string{"etc/shadow"}, nil, checkGuessable),
	},
	{
		ID:    "E34",
		Title: "What holds for accounts is what their files say",
		Why: "The service account-policy of Solaris 11.4 writes /etc/default/login, /etc/default/passwd and /etc/security/policy.conf anew from its properties where it is " +
			"told to, and what controls E01 to E17 have set there is gone at the first start.",
		On: map[string]Method{Solaris: {
			How: "system/account-policy config/etc_default_login, etc_default_passwd and etc_security_policyconf: disabled = true",
			SMF: slices.Concat(
				properties("system/account-policy", "", "config/etc_default_login", "disabled", "boolean", "true"),
				properties("system/account-policy", "", "config/etc_default_passwd", "disabled", "boolean", "true"),
				properties("system/account-policy", "", "config/etc_security_policyconf", "disabled", "boolean", "true")),
		}},
	},
}

// peopleOf returns the names of accounts whose number is at least first, but for those of nobody.
func peopleOf(root Root, first int) (map[string]bool, error) {
	text, err := readText(root, "etc/passwd")
	people := map[string]bool{}
	for _, f := range records(text) {
		if len(f) > 2 {
			if n, err := strconv.Atoi(f[2]); err == nil && n >= first && n < 60000 {
				people[f[0]] = true
			}
		}
	}
	return people, err
}

// shadowEdit edits the records of etc/shadow, if there is one.
func shadowEdit(root Root, p *Params, change func(fields []string)) error {
	for _, edit := range editFile("etc/shadow", func(text string) (string, error) { return editRecords(text, change), nil })(p) {
		if err := edit(root); err != nil {
			return err
		}
	}
	return nil
}

// systemAccounts returns the edit that keeps people out of the accounts below first.
func systemAccounts(first int) func(*Params) []Edit {
	return func(p *Params) []Edit {
		return []Edit{func(root Root) error {
			people, err := peopleOf(root, first)
			if err != nil {
				return err
			}
			keyed, err := identityUser(root)
			if err != nil {
				return err
			}
			gone := p.List("accounts_remove")
			system := func(name string) bool { return name != "root" && !people[name] }
			drop := func(text string) string {
				return keepIfSame(text, slices.DeleteFunc(lines(text), func(line string) bool {
					name, _, ok := strings.Cut(line, ":")
					return ok && contains(gone, name) && name != "root"
				}))
			}
			for _, edit := range editFile("etc/passwd", func(text string) (string, error) {
				return editRecords(drop(text), func(f []string) {
					if p.OS == Linux && len(f) > 6 && system(f[0]) && f[0] != keyed && !noShell(f[6]) {
						f[6] = "/usr/sbin/nologin"
					}
				}), nil
			})(p) {
				if err := edit(root); err != nil {
					return err
				}
			}
			mark := map[bool]string{true: "*LK*", false: "!"}[HasSMF(p.OS)]
			for _, edit := range editFile("etc/shadow", func(text string) (string, error) {
				return editRecords(drop(text), func(f []string) {
					if len(f) > 1 && system(f[0]) && (!locked(f[1]) || f[1] == "UP" || unlocked(f[1]) != "") {
						f[1] = mark
					}
				}), nil
			})(p) {
				if err := edit(root); err != nil {
					return err
				}
			}
			return nil
		}}
	}
}

// noShell reports whether a shell lets nobody in. sync, shutdown and halt do one thing only.
func noShell(shell string) bool {
	return contains([]string{"nologin", "false", "true", "sync", "shutdown", "halt"}, path.Base(shell))
}

func ftpusers(name string, first int) func(*Params) []Edit {
	return func(p *Params) []Edit {
		return []Edit{func(root Root) error {
			people, err := peopleOf(root, first)
			if err != nil {
				return err
			}
			passwd, err := readText(root, "etc/passwd")
			if err != nil {
				return err
			}
			e := image.Entry{Name: name, Mode: fs.FileMode(0o644), GID: sysOf(p.OS), ModTime: p.Epoch}
			return rewrite(root, e, func(text string) (string, error) {
				text = setLine(text, "root", "")
				for _, f := range records(passwd) {
					if !people[f[0]] {
						text = setLine(text, f[0], "")
					}
				}
				return text, nil
			})
		}}
	}
}

// sessions returns the edit that bounds the tasks of each account of people: a login is one (newtask(1)). An
// account is in the project user.NAME without being named there (getdefaultproj(3PROJECT)).
func sessions(p *Params) []Edit {
	return []Edit{func(root Root) error {
		people, err := peopleOf(root, 100)
		if err != nil {
			return err
		}
		shell, err := shells(root)
		if err != nil {
			return err
		}
		for _, edit := range editFile("etc/project", func(text string) (string, error) {
			for _, name := range sortedKeys(people) {
				if shell[name] != "" && noShell(shell[name]) {
					continue
				}
				text = setProject(text, "user."+name, "project.max-tasks", "(privileged,"+p.Value("max_sessions")+",deny)")
			}
			return text, nil
		})(p) {
			if err := edit(root); err != nil {
				return err
			}
		}
		return nil
	}}
}

// setProject sets an attribute of a record of project(5). One that is missing is added, with the first free
// number from 100 on, as projadd(8) does.
func setProject(text, name, key, value string) string {
	taken, found := map[string]bool{}, false
	text = editRecords(text, func(f []string) {
		if len(f) < 6 {
			return
		}
		taken[f[1]] = true
		if f[0] != name {
			return
		}
		found = true
		all := attrs(f[5])
		i := slices.IndexFunc(all, func(a string) bool { return strings.HasPrefix(a, key+"=") })
		if i < 0 {
			all = append(all, key+"="+value)
		} else {
			all[i] = key + "=" + value
		}
		f[5] = strings.Join(all, ";")
	})
	if found {
		return text
	}
	id := 100
	for taken[strconv.Itoa(id)] {
		id++
	}
	return setRecord(text, []string{name, strconv.Itoa(id), "", "", "", key + "=" + value})
}

// accountFiles are files of records: how many fields one has, at least and at most.
var accountFiles = []struct {
	name     string
	min, max int
}{{"etc/passwd", 7, 7}, {"etc/group", 4, 4}, {"etc/shadow", 8, 9}}

// checkAccounts finds what is wrong with the account files.
func checkAccounts(root Root, p *Params) (Inspection, error) {
	in := new(Inspection)
	found := func(name, format string, args ...any) {
		in.Findings = append(in.Findings, Finding{name, fmt.Sprintf(format, args...)})
	}
	names := map[string]map[string]bool{}
	groups := map[string]bool{}
	for _, file := range accountFiles {
		all, err := accountRecords(root, file.name, file.min, file.max, found)
		if err != nil {
			return *in, err
		}
		names[file.name] = map[string]bool{}
		numbers := map[string]string{}
		for _, f := range all {
			if names[file.name][f[0]] {
				found(file.name, "%q is there twice", f[0])
			}
			names[file.name][f[0]] = true
			if file.name == "etc/shadow" {
				if !names["etc/passwd"][f[0]] {
					found(file.name, "%q is not in etc/passwd", f[0])
				}
				continue
			}
			if _, err := strconv.ParseUint(f[2], 10, 31); err != nil {
				found(file.name, "%q: %q is no number", f[0], f[2])
			} else if other, dup := numbers[f[2]]; dup {
				found(file.name, "%q has the number %s, which is that of %q", f[0], f[2], other)
			}
			numbers[f[2]] = f[0]
			if file.name == "etc/group" {
				groups[f[2]] = true
			}
		}
	}
	passwd, err := readText(root, "etc/passwd")
	if err != nil {
		return *in, err
	}
	for _, f := range records(passwd) {
		switch {
		case len(f) < 7:
		case !groups[f[3]]:
			found("etc/passwd", "%q: its group %s is not in etc/group", f[0], f[3])
		case f[3] == "0" && f[0] != "root" && HasSMF(p.OS):
			found("etc/passwd", "%q has the group of root", f[0])
		}
	}
	return *in, nil
}

// accountRecords reads an account file that must be a regular one.
func accountRecords(root Root, name string, least, most int, found func(string, string, ...any)) (all [][]string, err error) {
	e, err := root.Stat(name)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, nil
	case err != nil:
		return nil, err
	case !e.IsRegular():
		found(name, "is a %s, not a file", image.TypeName(e.Mode))
		return nil, nil
	}
	text, err := readText(root, name)
	if problem := malformed(text); err == nil && problem != "" {
		found(name, "%s", problem)
		return nil, nil
	}
	for i, line := range lines(text) {
		if line != "" && (line[0] == '+' || line[0] == '-') {
			found(name, "line %d, %.40q, takes accounts of NIS: who they are is said elsewhere", i+1, line)
		}
		if !isRecord(line) {
			continue
		}
		f := strings.Split(line, ":")
		if len(f) < least || len(f) > most || f[0] == "" {
			found(name, "line %d has %d fields, not %d", i+1, len(f), most)
			continue
		}
		all = append(all, f)
	}
	return all, err
}

// sudoers are the places of the rules of sudo(8), those of packages on illumos included.
var sudoers = []string{"etc/sudoers", "etc/sudoers.d/*", "etc/opt/ooce/sudoers", "opt/local/etc/sudoers"}

var (
	sudoFree = regexp.MustCompile(`\bNOPASSWD\s*:|!\s*authenticate\b`)
	sudoAll  = regexp.MustCompile(`^\s*ALL\s+ALL\s*=\s*(\([^)]*\))?\s*ALL\s*$`)
	sudoMore = regexp.MustCompile(`^\s*[@#]include(dir)?\s+(.*?)\s*$`)
)

// sudoRules returns the rules of sudoers(5), without comments, those of several lines as one. A comment
// ends with its line whatever stands there; # before a number is none, but an id.
func sudoRules(text string) []string {
	l := lines(text)
	for i, line := range l {
		quoted := false
		for j := 0; j < len(line) && !sudoMore.MatchString(line); j++ {
			switch rest := strings.TrimPrefix(line[j+1:], "-"); {
			case line[j] == '\\':
				j++
			case line[j] == '"':
				quoted = !quoted
			case line[j] == '#' && !quoted && (rest == "" || rest[0] < '0' || rest[0] > '9'):
				l[i] = line[:j]
				j = len(line)
			}
		}
	}
	return lines(strings.ReplaceAll(unlines(l), "\\\n", " "))
}

// sudoInclude returns the pattern of the files that a line of a file includes, or nothing.
func sudoInclude(file, line string) (string, error) {
	m := sudoMore.FindStringSubmatch(line)
	if m == nil {
		return "", nil
	}
	name := strings.ReplaceAll(strings.Trim(m[2], `"`), `\ `, " ")
	if !path.IsAbs(name) {
		name = "/" + path.Join(path.Dir(file), name)
	}
	// %h is the name of the host, which an image does not know.
	pattern := strings.ReplaceAll(globQuote(path.Clean(name)), "%h", "*")
	if m[1] != "" {
		pattern += "/*"
	}
	_, err := image.NewMatcher(pattern)
	return pattern, err
}

// checkSudoers finds rules that give root away, and files that sudo would not read or that others
// can write, also of what is included from elsewhere.
func checkSudoers(root Root, _ *Params) (Inspection, error) {
	var in Inspection
	patterns, read := slices.Clone(sudoers), map[string]bool{}
	for len(patterns) > 0 {
		pattern := patterns[0]
		patterns = patterns[1:]
		err := each(root, pattern, func(e *image.Entry) error {
			name, err := follow(root, e.Name)
			if err != nil {
				return err
			}
			if e, err = root.Stat(name); errors.Is(err, fs.ErrNotExist) || err == nil && (!e.IsRegular() || read[e.Name]) {
				return nil
			}
			if err != nil {
				return err
			}
			read[e.Name] = true
			if e.Mode&0o022 != 0 || e.UID != 0 {
				in.Findings = append(in.Findings, Finding{e.Name, fmt.Sprintf("mode %04o of %d: others than root can change it", e.Perm(), e.UID)})
			}
			if e.Size > maxText {
				in.Findings = append(in.Findings, Finding{e.Name, "is too large for rules"})
				return nil
			}
			data, err := root.ReadFile(e.Name)
			if err != nil {
				return err
			}
			if problem := malformed(string(data)); problem != "" {
				in.Findings = append(in.Findings, Finding{e.Name, problem})
				return nil
			}
			for i, line := range sudoRules(string(data)) {
				if sudoFree.MatchString(line) || sudoAll.MatchString(line) {
					in.Findings = append(in.Findings, Finding{e.Name, fmt.Sprintf("rule %d: %q", i+1, strings.TrimSpace(line))})
				}
				switch include, err := sudoInclude(e.Name, line); {
				case err != nil:
					in.Findings = append(in.Findings, Finding{e.Name, fmt.Sprintf("rule %d: %v", i+1, err)})
				case include != "":
					patterns = append(patterns, include)
				}
			}
			return nil
		})
		if err != nil {
			return in, err
		}
	}
	return in, nil
}
