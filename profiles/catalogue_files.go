package profiles

import (
	"bytes"
	"fmt"
	"io"
	"io/fs"
	"regexp"
	"slices"
	"strings"

	"github.com/goldenisc/packer-plugin-isc/image"
)

// The P and X controls: what lies in the image.
var fileControls = []Control{
	{
		ID:    "P01",
		Title: "In directories everybody writes to, files belong to their owners",
		Why:   "Without the sticky bit anybody can replace the files of others.",
		Refs:  []string{"STIG SOL-11.1-070010", "CIS 5.2"},
		On:    everywhere("mode 1000 is added to directories with mode 0002", []string{"**"}, sticky, nil),
	},
	{
		ID:         "P02",
		Title:      "No file is writable by everybody",
		Why:        "What anybody can change nobody can trust.",
		Refs:       []string{"STIG SOL-11.1-070180"},
		Parameters: []Parameter{{Name: "world_writable", Default: "", Type: Patterns, What: "patterns of files that stay so"}},
		On:         everywhere("mode 0002 is taken from files", []string{"**"}, notForAll, nil),
	},
	{
		ID:    "P03",
		Title: "Every file has an owner and a group that exist",
		Why:   "The next account that is given the number would own them.",
		Refs:  []string{"STIG SOL-11.1-070200"},
		On:    where("etc/passwd", everywhere("every uid is in etc/passwd, every gid in etc/group", []string{"**"}, nil, owned)),
	},
	{
		ID:    "P04",
		Title: "Set-id programs are few and known",
		Why:   "Each runs with more rights than who starts it. Those that are left are listed in the report.",
		Refs:  []string{"STIG SOL-11.1-070190"},
		Parameters: []Parameter{{
			Name:    "setid_strip",
			Default: "usr/bin/at,usr/bin/atq,usr/bin/atrm,usr/bin/chkey,usr/bin/rcp,usr/bin/rlogin,usr/bin/rsh,usr/bin/rdist,usr/bin/chfn,usr/bin/chsh,usr/bin/wall,usr/bin/write",
			Type:    Patterns, What: "patterns of programs that lose the bits",
		}},
		On: everywhere("modes 4000 and 2000 are taken from ${setid_strip}", []string{"**"}, stripSetID, inventory),
	},
	{
		ID:    "X01",
		Title: "Nothing is left of building and earlier use",
		Why:   "Instances must not share an identity, and logs and caches of the build tell about it.",
		Scope: ImageOnly,
		Parameters: []Parameter{{
			Name: "residue_allow", Default: "", Type: Patterns, What: "patterns of files that stay, such as what a spec lays on purpose",
		}},
		On: map[string]Method{
			Illumos: sealing(illumosResidue, illumosLogs),
			Solaris: sealing(solarisResidue, illumosLogs),
			Linux:   sealing(linuxResidue, linuxLogs),
		},
	},
	{
		ID:    "X02",
		Title: "The image holds no secrets",
		Why:   "An image is copied: what is in it is known to all who can read it.",
		Scope: ImageOnly,
		Parameters: []Parameter{{
			Name: "secrets_allow", Default: "", Type: Patterns, What: "patterns of files that may hold secrets, such as those of tests",
		}},
		On: everywhere("no private keys, tokens and passwords in addresses in what the spec lays, in what lies below "+strings.Join(secretDirs, ", ")+
			", and in files elsewhere that are named as keys are (*.key, *.pem, *.p12, *.pfx, id_*, .netrc, .npmrc, .pgpass), but for those of tests and examples; "+
			"no passwords and hashes in etc/shadow, not behind a mark that locks them either",
			[]string{"**"}, nil, secrets),
	},
	{
		ID:    "X03",
		Title: "The SMF repository is that of a system that never ran",
		Why:   "Profiles and manifests that a repository has seen are not read again, so hardening would have no effect.",
		Scope: ImageOnly,
		On: map[string]Method{Illumos: {
			How:   "etc/svc/repository.db is a copy of lib/svc/seed/nonglobal.db, 0600 root:sys; its backups are removed",
			Globs: []string{"etc/svc/repository*", "lib/svc/seed/nonglobal.db"},
			Needs: []string{"lib/svc/seed/nonglobal.db"},
			Edits: all(deleted("etc/svc/repository-*"), seed),
		}},
	},
}

// everywhere returns the same method for every operating system.
func everywhere(how string, globs []string, edit func(Root, *Params) error, check func(Root, *Params) (Inspection, error)) map[string]Method {
	m := Method{How: how, Globs: globs, Check: check}
	if edit != nil {
		m.Edits = func(p *Params) []Edit { return []Edit{func(root Root) error { return edit(root, p) }} }
	}
	return map[string]Method{Illumos: m, Linux: m}
}

// where makes methods applicable only to roots that have the file.
func where(name string, on map[string]Method) map[string]Method {
	for os, m := range on {
		m.Needs = []string{name}
		on[os] = m
	}
	return on
}

func sticky(root Root, _ *Params) error {
	return each(root, "**", func(e *image.Entry) error {
		if !e.IsDir() || e.Mode&0o002 == 0 {
			return nil
		}
		return ensureMode(root, e.Name, e.Mode|fs.ModeSticky, e.UID, e.GID)
	})
}

func notForAll(root Root, p *Params) error {
	return each(root, "**", func(e *image.Entry) error {
		if !e.IsRegular() || e.Mode&0o002 == 0 || matchAny(p.List("world_writable"), e.Name) {
			return nil
		}
		return ensureMode(root, e.Name, e.Mode&^0o002, e.UID, e.GID)
	})
}

const setID = fs.ModeSetuid | fs.ModeSetgid

func stripSetID(root Root, p *Params) error {
	for _, pattern := range p.List("setid_strip") {
		err := each(root, pattern, func(e *image.Entry) error {
			if !e.IsRegular() || e.Mode&setID == 0 {
				return nil
			}
			return ensureMode(root, e.Name, e.Mode&^setID, e.UID, e.GID)
		})
		if err != nil {
			return err
		}
	}
	return nil
}

func inventory(root Root, _ *Params) (Inspection, error) {
	var in Inspection
	err := each(root, "**", func(e *image.Entry) error {
		if e.IsRegular() && e.Mode&setID != 0 {
			in.Notes = append(in.Notes, Finding{e.Name, fmt.Sprintf("mode %04o, owner %d:%d", e.Perm(), e.UID, e.GID)})
		}
		return nil
	})
	return in, err
}

func owned(root Root, _ *Params) (Inspection, error) {
	var in Inspection
	uids, err := ids(root, "etc/passwd")
	if err != nil {
		return in, err
	}
	gids, err := ids(root, "etc/group")
	if err != nil {
		return in, err
	}
	err = each(root, "**", func(e *image.Entry) error {
		if !uids[e.UID] {
			in.Findings = append(in.Findings, Finding{e.Name, fmt.Sprintf("owner %d is not in etc/passwd", e.UID)})
		}
		if !gids[e.GID] {
			in.Findings = append(in.Findings, Finding{e.Name, fmt.Sprintf("group %d is not in etc/group", e.GID)})
		}
		return nil
	})
	return in, err
}

// Residue of builds and of earlier use: what virt-sysprep(1) takes for it, too. Wtmpx and the like are emptied, not removed: login does not make them.
var (
	illumosResidue = []string{
		"tmp/*", "var/tmp/*", "var/pkg/cache/*", "var/pkg/history/*", "var/svc/log/*", "var/crash/*", "var/cores/*",
		"root/.bash_history", "root/.sh_history", "root/.lesshst", "root/.viminfo", "home/*/.bash_history", "export/home/*/.bash_history",
		"root/.ssh/known_hosts", "var/cron/log", "var/audit/*", "etc/svc/volatile/*", "etc/nodename", "etc/hostname.*", "etc/defaultrouter",
		"etc/dhcp/*.dhc", "etc/dhcp/*.dh6", "var/mail/[^:]*", "var/spool/clientmqueue/*", "var/spool/cron/atjobs/*", "var/fm/fmd/*log*", "var/adm/exacct/*",
		"etc/passwd-", "etc/shadow-", "etc/.pwd.lock", "etc/opasswd",
	}
	// Where Solaris has moved what grows, and the profiles that named and addressed one machine.
	solarisResidue = append(slices.Clone(illumosResidue),
		"var/share/audit/*", "var/share/cores/*", "var/share/crash/*", "var/share/mail/[^:]*", "system/volatile/*",
		"etc/svc/profile/node/*", "etc/svc/profile/sysconfig/*")
	illumosLogs = []string{
		"var/adm/messages*", "var/adm/wtmpx", "var/adm/utmpx", "var/adm/lastlog", "var/adm/sulog", "var/adm/loginlog",
		"var/log/**",
	}
	linuxResidue = []string{
		"tmp/*", "var/tmp/*", "var/cache/apt/*.bin", "var/cache/apt/archives/*.deb", "var/lib/apt/lists/*_*",
		"var/cache/dnf/*", "var/cache/apk/*", "var/lib/systemd/random-seed", "var/lib/dbus/machine-id",
		"var/lib/cloud/instances/*", "var/log/journal/*", "root/.bash_history", "root/.ash_history", "root/.lesshst", "root/.viminfo",
		"root/.wget-hsts", "home/*/.bash_history", "home/*/.lesshst", "root/.ssh/known_hosts",
		"etc/passwd-", "etc/group-", "etc/shadow-", "etc/gshadow-", "etc/subuid-", "etc/subgid-", "etc/.pwd.lock",
		"etc/udev/rules.d/70-persistent-net.rules", "etc/blkid.tab",
		"var/lib/dhcp/*", "var/lib/dhclient/*", "var/lib/dhcpcd/*", "var/lib/NetworkManager/*.lease", "var/lib/NetworkManager/secret_key",
		"var/lib/systemd/credential.secret", "var/lib/systemd/timers/*", "var/lib/sss/db/*", "var/lib/samba/private/*.tdb",
		"var/lib/rpm/__db*", "var/lib/AccountsService/users/*", "var/lib/misc/random-seed", "var/account/pacct*", "var/crash/*",
		"var/spool/mail/*", "var/mail/*", "var/spool/abrt/*", "var/lib/yum/uuid", "etc/sysconfig/rhn/systemid",
		"etc/pki/consumer/*", "var/lib/puppet/*", "var/lib/cloud/data/*", "var/lib/cloud/sem/*", "etc/puppetlabs/puppet/ssl/*",
		"etc/hostid", "etc/krb5.keytab", "etc/NetworkManager/system-connections/*", "var/lib/urandom/random-seed", "var/lib/random-seed",
		"boot/loader/random-seed", "efi/loader/random-seed", "boot/efi/loader/random-seed",
	}
	// The name is that of the machine that built the base. etc/resolv.conf, which may be its too, stays: in a
	// container nothing else may say whom to ask, and where something does it writes that file anew.
	linuxLogs = []string{"etc/machine-id", "etc/hostname", "var/log/**"}
)

// sealing is the method that removes and empties what matches, unless it is allowed to stay.
func sealing(residue, logs []string) Method {
	return Method{
		How:   "but for ${residue_allow}: removed: " + strings.Join(residue, ", ") + "; emptied: " + strings.Join(logs, ", "),
		Globs: []string{"**"},
		Edits: func(p *Params) []Edit {
			return []Edit{func(root Root) error {
				for _, pattern := range residue {
					names, err := root.Glob(pattern)
					if err != nil {
						return err
					}
					for _, n := range names {
						if matchAny(p.List("residue_allow"), n) {
							continue
						}
						if err := remove(root, n); err != nil {
							return err
						}
					}
				}
				return nil
			}, emptied(logs, p)}
		},
	}
}

// emptied returns the edit that takes the content of files that match.
func emptied(patterns []string, p *Params) Edit {
	return func(root Root) error {
		for _, pattern := range patterns {
			err := each(root, pattern, func(e *image.Entry) error {
				if !e.IsRegular() || e.Size == 0 || matchAny(p.List("residue_allow"), e.Name) {
					return nil
				}
				empty := *e
				empty.HardLink, empty.ModTime = "", p.Epoch
				return root.Put(empty, nil)
			})
			if err != nil {
				return err
			}
		}
		return nil
	}
}

func seed(p *Params) []Edit {
	return []Edit{func(root Root) error {
		data, err := root.ReadFile("lib/svc/seed/nonglobal.db")
		if err != nil {
			return err
		}
		return ensure(root, image.Entry{Name: "etc/svc/repository.db", Mode: 0o600, GID: illumosSys, ModTime: p.Epoch}, data)
	}}
}

// secretDirs are what is searched for secrets file by file: of the rest, which is what packages bring, only
// what is named as keys are.
var secretDirs = []string{"etc", "root", "home", "export", "opt", "srv", "var", "usr/local"}

var (
	keyName  = regexp.MustCompile(`(^|/)([^/]*\.(key|pem|p12|pfx)|id_(rsa|dsa|ecdsa|ed25519)(_sk)?|\.(netrc|npmrc|pgpass))$`)
	keysShow = regexp.MustCompile(`(^|/)(tests?|testdata|examples?)/`) // what they are for
)

// Of a file that no name tells to hold keys the beginning is searched, in bytes: keys are small, and
// all that was read once is not read again.
const (
	maxSecret  = 64 << 10
	maxKeyFile = 1 << 20
)

// credentials are what is searched for: a fixed text that tells fast that a file has none, which is
// true of nearly all, and the form of the secret.
var credentials = []struct {
	hint string
	form *regexp.Regexp
	what string
}{
	// The headings of PEM (RFC 7468, PKCS #1, SEC 1, OpenSSH, PGP) and of age.
	{"PRIVATE KEY", regexp.MustCompile(`-----BEGIN ([A-Z0-9]+ )*PRIVATE KEY( BLOCK)?-----`), "a private key"},
	{"AGE-SECRET-KEY-", regexp.MustCompile(`AGE-SECRET-KEY-1[0-9A-Z]{10}`), "a private key"},
	{"client-key-data", regexp.MustCompile(`client-key-data:\s*[A-Za-z0-9+/=]{20}`), "a private key"},
	// Tokens that say themselves whose they are.
	{"AKIA", regexp.MustCompile(`\bAKIA[0-9A-Z]{16}\b`), "an access key of AWS"},
	{"aws_secret_access_key", regexp.MustCompile(`aws_secret_access_key\s*=\s*[A-Za-z0-9/+=]{40}`), "a secret key of AWS"},
	{"gh", regexp.MustCompile(`\b(gh[pousr]_[A-Za-z0-9]{36}|github_pat_[A-Za-z0-9_]{40})`), "a token of GitHub"},
	{"glpat-", regexp.MustCompile(`\bglpat-[A-Za-z0-9_-]{20}`), "a token of GitLab"},
	{"xox", regexp.MustCompile(`\bxox[abeoprs]-[A-Za-z0-9-]{20}`), "a token of Slack"},
	{"AIza", regexp.MustCompile(`\bAIza[A-Za-z0-9_-]{35}`), "a key of Google"},
	{"sk_live_", regexp.MustCompile(`\bsk_live_[A-Za-z0-9]{20}`), "a key of Stripe"},
	{"_authToken", regexp.MustCompile(`_authToken\s*=\s*[A-Za-z0-9._-]{20}`), "a token of npm"},
	{`"auth"`, regexp.MustCompile(`"auth"\s*:\s*"[A-Za-z0-9+/=]{8}`), "a login of a registry"},
	{"://", regexp.MustCompile(`\bhttps?://[A-Za-z0-9._-]+:[^@/\s"'$]{6,}@`), "a password in an address"},
}

// credential returns what a text holds and in which line, from 1.
func credential(data []byte) (what string, line int) {
	for _, c := range credentials {
		if !bytes.Contains(data, []byte(c.hint)) {
			continue
		}
		if at := c.form.FindIndex(data); at != nil {
			return c.what, 1 + bytes.Count(data[:at[0]], []byte("\n"))
		}
	}
	return "", 0
}

// knownHashes are password hashes that installers leave: anybody can look their passwords up. The
// first is that of an empty password (pkgcreatezone of OmniOS).
var knownHashes = []string{"$5$kr1VgdIt$"}

func secrets(root Root, p *Params) (Inspection, error) {
	var in Inspection
	allowed := p.List("secrets_allow")
	err := each(root, "**", func(e *image.Entry) error {
		if !e.IsRegular() || e.Size == 0 {
			return nil
		}
		key, laid := keyName.MatchString(e.Name), p.laid(e.Name)
		if inside := slices.ContainsFunc(secretDirs, func(dir string) bool { return strings.HasPrefix(e.Name, dir+"/") }); !inside && !laid &&
			(!key || keysShow.MatchString(e.Name)) || matchAny(allowed, e.Name) {
			return nil
		}
		most := maxSecret
		if key || laid {
			most = maxKeyFile
		}
		data, err := head(root, e, most)
		if err != nil {
			return err
		}
		if what, line := credential(data); what != "" {
			in.Findings = append(in.Findings, Finding{e.Name, fmt.Sprintf("holds %s in line %d", what, line)})
		} else if bytes.HasPrefix(data, []byte{0x30}) && (strings.HasSuffix(e.Name, ".p12") || strings.HasSuffix(e.Name, ".pfx")) {
			in.Findings = append(in.Findings, Finding{e.Name, "is a store of PKCS #12, which are for private keys"})
		}
		return nil
	})
	if err != nil {
		return in, err
	}
	slices.SortFunc(in.Findings, func(a, b Finding) int { return image.Compare(a.Path, b.Path) })
	text, err := readText(root, "etc/shadow")
	if err != nil {
		return in, err
	}
	for _, f := range records(text) {
		if len(f) < 2 {
			continue
		}
		hash := unlocked(f[1])
		switch {
		case f[1] == "":
			in.Findings = append(in.Findings, Finding{"etc/shadow", fmt.Sprintf("account %q has an empty password", f[0])})
		case hash == "":
		case slices.ContainsFunc(knownHashes, func(h string) bool { return strings.HasPrefix(hash, h) }):
			in.Findings = append(in.Findings, Finding{"etc/shadow", fmt.Sprintf("account %q has a password that everybody knows", f[0])})
		case hash != f[1]:
			in.Findings = append(in.Findings, Finding{"etc/shadow", fmt.Sprintf("account %q is locked, but still has a password hash", f[0])})
		default:
			in.Findings = append(in.Findings, Finding{"etc/shadow", fmt.Sprintf("account %q has a password hash", f[0])})
		}
	}
	return in, nil
}

// head returns the first bytes of a file, n at most where the Root can read less than all.
func head(root Root, e *image.Entry, n int) ([]byte, error) {
	if o, ok := root.(*Overlay); ok && (o.put[e.Name] == nil || o.put[e.Name].meta) {
		return head(o.base, e, n)
	}
	opener, ok := root.(interface {
		Open(name string) (image.File, error)
	})
	if !ok || e.Size <= int64(n) {
		data, err := root.ReadFile(e.Name)
		return data[:min(n, len(data))], err
	}
	f, err := opener.Open(e.Name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	data := make([]byte, n)
	read, err := f.ReadAt(data, 0)
	if err == io.EOF {
		err = nil
	}
	return data[:read], err
}
