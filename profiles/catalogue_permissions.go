package profiles

import (
	"fmt"
	"io/fs"
	"path"
	"strings"

	"github.com/goldenisc/packer-plugin-isc/image"
)

// startFiles are what runs as root while a system starts.
var (
	illumosStart = []string{"lib/svc/method/**", "etc/init.d/**", "etc/rc?.d/**", "lib/svc/manifest/**", "var/svc/manifest/**"}
	linuxStart   = []string{"usr/lib/systemd/system/**", "lib/systemd/system/**", "etc/systemd/system/**", "etc/init.d/**", "etc/rc?.d/**"}
)

// readable are logs that who(1) and last(1) show to everybody.
var readable = []string{"wtmp", "lastlog", "btmp", "wtmpx", "README"}

// The P controls beyond bits of single files.
var permissionControls = []Control{
	{
		ID:    "P05",
		Title: "Logs are not for everybody",
		Why:   "They hold what programs said of what they worked on.",
		Refs:  []string{"STIG SOL-11.1-070240"},
		On: map[string]Method{
			Illumos: {
				How:   "var/adm 0750 root:sys, var/adm/messages 0640 root:root, var/log/authlog 0600",
				Globs: []string{"var/adm", "var/adm/messages*", "var/log/authlog"},
				Edits: all(mode("var/adm", 0o750, 0, illumosSys), mode("var/adm/messages", 0o640, 0, 0), mode("var/log/authlog", 0o600, 0, illumosSys)),
			},
			Linux: {
				How:   "var/log: files 0640 at most, but for " + strings.Join(readable, ", "),
				Globs: []string{"var/log/**"},
				Edits: func(*Params) []Edit { return []Edit{closeLogs} },
			},
		},
	},
	{
		ID:    "P06",
		Title: "What starts the system is root's",
		Why:   "Who can write a start-up file is root after the next start.",
		Refs: []string{
			"STIG SOL-11.1-020300", "STIG SOL-11.1-020350", "STIG SOL-11.1-020360", "STIG SOL-11.1-020370",
		},
		On: map[string]Method{
			Illumos: {How: "owned by root, not writable by group and others: " + strings.Join(illumosStart, ", "), Globs: illumosStart, Edits: rootOnly(illumosStart)},
			Linux:   {How: "owned by root, not writable by group and others: " + strings.Join(linuxStart, ", "), Globs: linuxStart, Edits: rootOnly(linuxStart)},
		},
	},
	{
		ID:    "P07",
		Title: "No file has hidden rights",
		Why:   "Access lists and attributes are not seen in a listing. File capabilities, which are rights of programs, are listed.",
		Refs:  []string{"STIG SOL-11.1-070210", "STIG SOL-11.1-070260", "STIG SOL-11.1-020310"},
		Scope: ImageOnly, // find(1) and ls(1) of a machine do not show them
		On:    everywhere("no extended attributes but security.capability", []string{"**"}, nil, hidden),
	},
	{
		ID:    "P08",
		Title: "The host's zone configurations are root's",
		Why:   "They say what zones may.",
		Refs:  []string{"STIG SOL-11.1-100010"},
		On: map[string]Method{Illumos: {
			How:  "in the global zone: /etc/zones 0755 root:sys, as packaged",
			Dock: "/etc/zones and what is in it have the owner and modes of their package",
		}},
	},
	{
		ID:    "P09",
		Title: "Homes are their owners'",
		Why:   "Keys, histories and start files lie in them.",
		Refs:  []string{"STIG SOL-11.1-070020", "STIG SOL-11.1-070030", "STIG SOL-11.1-070040", "STIG SOL-11.1-070090"},
		On: map[string]Method{
			Illumos: homes(100),
			Linux:   homes(1000),
		},
	},
	{
		ID:    "P10",
		Title: "The folders of the system are folders of root's",
		Why:   "A link in the place of one leads programs, and edits, somewhere else.",
		On: everywhere("etc, etc/svc, usr, var, root, tmp, var/tmp, where they are, are directories of root's that others cannot write without the sticky bit",
			systemFolders, nil, folders),
	},
}

var systemFolders = []string{"etc", "etc/svc", "usr", "var", "root", "tmp", "var/tmp"}

func closeLogs(root Root) error {
	return each(root, "var/log/**", func(e *image.Entry) error {
		if !e.IsRegular() || e.Mode&0o137 == 0 || contains(readable, path.Base(e.Name)) {
			return nil
		}
		return ensureMode(root, e.Name, e.Mode&^0o137, e.UID, e.GID)
	})
}

func rootOnly(patterns []string) func(*Params) []Edit {
	return func(*Params) []Edit {
		return []Edit{func(root Root) error {
			for _, pattern := range patterns {
				err := each(root, pattern, func(e *image.Entry) error {
					if e.Type() == fs.ModeSymlink || e.Mode&0o022 == 0 && e.UID == 0 {
						return nil
					}
					return ensureMode(root, e.Name, e.Mode&^0o022, 0, e.GID)
				})
				if err != nil {
					return err
				}
			}
			return nil
		}}
	}
}

// hidden lists extended attributes. Those of Linux's overlays and of SELinux labels say nothing of
// rights that the image has anywhere else.
func hidden(root Root, _ *Params) (Inspection, error) {
	var in Inspection
	err := each(root, "**", func(e *image.Entry) error {
		for _, name := range sortedKeys(e.Xattrs) {
			switch {
			case name == "security.capability":
				in.Notes = append(in.Notes, Finding{e.Name, fmt.Sprintf("has file capabilities (%d bytes)", len(e.Xattrs[name]))})
			case name == "security.selinux", strings.HasPrefix(name, "trusted.overlay."):
			case journal(e.Name) && strings.HasPrefix(name, "system.posix_acl_"): // the group adm reads it (tmpfiles.d(5))
			default:
				in.Findings = append(in.Findings, Finding{e.Name, fmt.Sprintf("has the extended attribute %q", name)})
			}
		}
		return nil
	})
	return in, err
}

// homes is the method that closes the homes of people and root to others.
func homes(first int) Method {
	edit := func(root Root) error {
		people, err := peopleOf(root, first)
		if err != nil {
			return err
		}
		passwd, err := readText(root, "etc/passwd")
		if err != nil {
			return err
		}
		for _, f := range records(passwd) {
			if len(f) < 6 || !people[f[0]] && f[0] != "root" {
				continue
			}
			home, err := image.Clean(f[5])
			if err != nil || home == "." || contains(notHomes, home) {
				continue
			}
			if err := closeHome(root, home); err != nil {
				return err
			}
		}
		return nil
	}
	return Method{
		How:   fmt.Sprintf("homes of root and of accounts from %d on, and the dot files in them, have no bits of 0027", first),
		Globs: []string{"etc/passwd", "root", "root/.*", "home/*", "home/*/.*", "export/home/*", "export/home/*/.*"},
		Needs: []string{"etc/passwd"},
		Edits: func(*Params) []Edit { return []Edit{edit} },
	}
}

// notHomes are folders of the system that accounts have for a home.
var notHomes = []string{
	"bin", "dev", "etc", "export", "export/home", "home", "lib", "nonexistent", "opt", "run", "sbin", "srv", "tmp", "usr", "usr/bin",
	"usr/sbin", "var", "var/empty", "var/lib", "var/run",
}

func closeHome(root Root, home string) error {
	e, err := root.Stat(home)
	if err != nil || !e.IsDir() {
		return nil // it is made at first login, or it is a link that leads elsewhere
	}
	if e.Mode&0o027 != 0 {
		if err := ensureMode(root, home, e.Mode&^0o027, e.UID, e.GID); err != nil {
			return err
		}
	}
	return each(root, globQuote(home)+"/.*", func(e *image.Entry) error {
		if e.Type() == fs.ModeSymlink || e.Mode&0o027 == 0 {
			return nil
		}
		return ensureMode(root, e.Name, e.Mode&^0o027, e.UID, e.GID)
	})
}

func journal(name string) bool {
	return name == "var/log/journal" || strings.HasPrefix(name, "var/log/journal/")
}

func folders(root Root, _ *Params) (Inspection, error) {
	var in Inspection
	for _, name := range systemFolders {
		if ok, err := exists(root, name); err != nil || !ok {
			if err != nil {
				return in, err
			}
			continue
		}
		e, err := root.Stat(name)
		if err != nil {
			return in, err
		}
		switch {
		case e.Name != name:
			// Below a link that is reported itself.
		case !e.IsDir():
			in.Findings = append(in.Findings, Finding{name, fmt.Sprintf("is a %s, not a directory", image.TypeName(e.Mode))})
		case e.UID != 0:
			in.Findings = append(in.Findings, Finding{name, fmt.Sprintf("is owned by %d", e.UID)})
		case e.Mode&0o002 != 0 && e.Mode&fs.ModeSticky == 0:
			in.Findings = append(in.Findings, Finding{name, fmt.Sprintf("mode %04o: anybody can replace what is in it", e.Perm())})
		}
	}
	return in, nil
}
