package profiles

import (
	"bytes"
	"fmt"
	"io/fs"
	"regexp"
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
		On: map[string]Method{
			Illumos: {
				How:   "removed: " + strings.Join(illumosResidue, ", ") + "; emptied: " + strings.Join(illumosLogs, ", "),
				Globs: []string{"**"},
				Edits: all(deleted(illumosResidue...), emptied(illumosLogs...)),
			},
			Linux: {
				How:   "removed: " + strings.Join(linuxResidue, ", ") + "; emptied: " + strings.Join(linuxLogs, ", "),
				Globs: []string{"**"},
				Edits: all(deleted(linuxResidue...), emptied(linuxLogs...)),
			},
		},
	},
	{
		ID:    "X02",
		Title: "The image holds no secrets",
		Why:   "An image is copied: what is in it is known to all who can read it.",
		Scope: ImageOnly,
		Parameters: []Parameter{{
			Name: "secrets_allow", Default: "", Type: Patterns, What: "patterns of files that may hold private keys, such as those of tests",
		}},
		On: everywhere("no private keys below "+strings.Join(secretDirs, ", ")+"; no password hashes in etc/shadow",
			[]string{"etc/**", "root/**", "home/**", "export/**", "opt/**", "srv/**", "var/**", "usr/local/**"}, nil, secrets),
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

// Residue of builds. Wtmpx and the like are emptied, not removed: login does not make them.
var (
	illumosResidue = []string{
		"tmp/*", "var/tmp/*", "var/pkg/cache/*", "var/pkg/history/*", "var/svc/log/*", "var/crash/*", "var/cores/*",
		"root/.bash_history", "root/.sh_history", "root/.lesshst", "root/.viminfo", "var/cron/log", "var/audit/*",
		"etc/svc/volatile/*",
	}
	illumosLogs = []string{
		"var/adm/messages*", "var/adm/wtmpx", "var/adm/utmpx", "var/adm/lastlog", "var/adm/sulog", "var/adm/loginlog",
		"var/log/**",
	}
	linuxResidue = []string{
		"tmp/*", "var/tmp/*", "var/cache/apt/*.bin", "var/cache/apt/archives/*.deb", "var/lib/apt/lists/*_*",
		"var/cache/dnf/*", "var/cache/apk/*", "var/lib/systemd/random-seed", "var/lib/dbus/machine-id",
		"var/lib/cloud/instances/*", "var/log/journal/*", "root/.bash_history", "root/.ash_history", "root/.lesshst", "root/.viminfo",
		"root/.wget-hsts",
	}
	linuxLogs = []string{"etc/machine-id", "var/log/**"}
)

// emptied returns the edit that takes the content of files that match.
func emptied(patterns ...string) func(*Params) []Edit {
	return func(p *Params) []Edit {
		return []Edit{func(root Root) error {
			for _, pattern := range patterns {
				err := each(root, pattern, func(e *image.Entry) error {
					if !e.IsRegular() || e.Size == 0 {
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
		}}
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

// secretDirs are what is searched for private keys: the rest is what packages bring, and full of
// the keys of their tests.
var secretDirs = []string{"etc", "root", "home", "export", "opt", "srv", "var", "usr/local"}

// maxSecret bounds the files that are searched, in bytes: keys are small.
const maxSecret = 64 << 10

// privateKey are the headings of PEM (RFC 7468, PKCS #1, SEC 1, OpenSSH, PGP) and of age.
var privateKey = regexp.MustCompile(`-----BEGIN ([A-Z0-9]+ )*PRIVATE KEY( BLOCK)?-----|AGE-SECRET-KEY-1[0-9A-Z]`)

func secrets(root Root, p *Params) (Inspection, error) {
	var in Inspection
	for _, dir := range secretDirs {
		err := each(root, dir+"/**", func(e *image.Entry) error {
			if !e.IsRegular() || e.Size == 0 || e.Size > maxSecret || matchAny(p.List("secrets_allow"), e.Name) {
				return nil
			}
			data, err := root.ReadFile(e.Name)
			if err != nil {
				return err
			}
			if !bytes.Contains(data, []byte("PRIVATE KEY")) && !bytes.Contains(data, []byte("SECRET-KEY")) {
				return nil // told fast, and true of nearly all
			}
			if m := privateKey.Find(data); m != nil {
				line := 1 + bytes.Count(data[:bytes.Index(data, m)], []byte("\n"))
				in.Findings = append(in.Findings, Finding{e.Name, fmt.Sprintf("holds a private key in line %d", line)})
			}
			return nil
		})
		if err != nil {
			return in, err
		}
	}
	text, err := readText(root, "etc/shadow")
	if err != nil {
		return in, err
	}
	for _, f := range records(text) {
		if len(f) > 1 && f[1] != "" && !locked(f[1]) {
			in.Findings = append(in.Findings, Finding{"etc/shadow", fmt.Sprintf("account %q has a password hash", f[0])})
		}
	}
	return in, nil
}
