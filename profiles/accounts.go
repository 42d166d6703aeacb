package profiles

import (
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/goldenisc/packer-plugin-isc/image"
)

// readText returns the text of a file, following links; a missing file is empty.
func readText(root Root, name string) (string, error) {
	name, err := follow(root, name)
	if err != nil {
		return "", err
	}
	data, err := root.ReadFile(name)
	if errors.Is(err, fs.ErrNotExist) {
		return "", nil
	}
	return string(data), err
}

// ids returns the numbers in the third field of passwd(5) or group(5).
func ids(root Root, name string) (map[int]bool, error) {
	text, err := readText(root, name)
	if err != nil {
		return nil, err
	}
	all := map[int]bool{}
	for _, f := range records(text) {
		if len(f) > 2 {
			if n, err := strconv.Atoi(f[2]); err == nil {
				all[n] = true
			}
		}
	}
	return all, nil
}

// accounts edits users and groups of a root.
type accounts struct {
	root  Root
	os    string
	epoch time.Time
}

// nologin is the shell of accounts nobody logs in to.
func nologin(os string) string {
	if HasSMF(os) {
		return "/usr/bin/false"
	}
	return "/bin/false"
}

// groupOf returns the group that a user is made with: the one of its name in the spec, else in the
// base, else a new one with the user's number. The name is empty if the user names a number.
func (a *accounts) groupOf(u *User, spec []Group) (Group, error) {
	if u.GID != nil {
		return Group{GID: *u.GID}, nil
	}
	for _, g := range spec {
		if g.Name == u.Name {
			return g, nil
		}
	}
	text, err := readText(a.root, "etc/group")
	if err != nil {
		return Group{}, err
	}
	for _, f := range records(text) {
		if f[0] == u.Name && len(f) > 2 {
			gid, err := strconv.Atoi(f[2])
			return Group{Name: u.Name, GID: gid}, err
		}
	}
	return Group{Name: u.Name, GID: u.UID}, nil
}

func (a *accounts) add(l *Layout) error {
	for _, g := range l.Groups {
		if err := a.group(g); err != nil {
			return err
		}
	}
	for i := range l.Users {
		u := &l.Users[i]
		g, err := a.groupOf(u, l.Groups)
		if err == nil && g.Name != "" {
			err = a.group(g)
		}
		if err == nil {
			err = a.user(u, g.GID)
		}
		if err != nil {
			return err
		}
	}
	for i := range l.Users {
		for _, g := range l.Users[i].Groups {
			if err := a.member(g, l.Users[i].Name); err != nil {
				return fmt.Errorf("user %q: %w", l.Users[i].Name, err)
			}
		}
	}
	for _, g := range l.Groups {
		for _, m := range g.Members {
			if err := a.member(g.Name, m); err != nil {
				return fmt.Errorf("group %q: %w", g.Name, err)
			}
		}
	}
	return nil
}

// edit rewrites one of the account files.
func (a *accounts) edit(name string, mode fs.FileMode, change func(text string) (string, error)) error {
	return rewrite(a.root, image.Entry{Name: name, Mode: mode, GID: sysOf(a.os), ModTime: a.epoch}, change)
}

// clash returns an error if another record than name has the number.
func clash(text, kind, name string, id int) error {
	for _, f := range records(text) {
		if len(f) > 2 && f[2] == strconv.Itoa(id) && f[0] != name {
			return fmt.Errorf("%s %q: %s %d is that of %q in the base", kind, name, map[string]string{"user": "uid", "group": "gid"}[kind], id, f[0])
		}
	}
	return nil
}

func (a *accounts) user(u *User, gid int) error {
	err := a.edit("etc/passwd", 0o644, func(text string) (string, error) {
		if err := clash(text, "user", u.Name, u.UID); err != nil {
			return "", err
		}
		for _, f := range records(text) {
			if f[0] == u.Name && len(f) > 2 && f[2] != strconv.Itoa(u.UID) {
				return "", fmt.Errorf("user %q: has the number %s in the base, not %d: files are its by number", u.Name, f[2], u.UID)
			}
		}
		return setRecord(text, []string{
			u.Name, "x", strconv.Itoa(u.UID), strconv.Itoa(gid), u.Comment, orElse(u.Home, "/"), orElse(u.Shell, nologin(a.os)),
		}), nil
	})
	if err != nil {
		return err
	}
	// An account that has a shell is logged in to by key: its password matches nothing, but it is
	// not locked, which would keep keys out too. See shadow(5) of either system.
	mark := map[bool]map[bool]string{
		true:  {true: "NP", false: "*"},
		false: {true: "*LK*", false: "!"},
	}[u.Shell != ""][HasSMF(a.os)]
	mode := fs.FileMode(0o400)
	if a.os == Linux {
		mode = 0o600
	}
	return a.edit("etc/shadow", mode, func(text string) (string, error) {
		for _, f := range records(text) {
			if f[0] == u.Name && len(f) > 1 && locked(f[1]) {
				return text, nil
			}
		}
		return setRecord(text, []string{u.Name, mark, "", "", "", "", "", "", ""}), nil
	})
}

func (a *accounts) group(g Group) error {
	err := a.edit("etc/group", 0o644, func(text string) (string, error) {
		if err := clash(text, "group", g.Name, g.GID); err != nil {
			return "", err
		}
		for _, f := range records(text) {
			if f[0] != g.Name {
				continue
			}
			if len(f) > 2 && f[2] != strconv.Itoa(g.GID) {
				return "", fmt.Errorf("group %q: has the number %s in the base, not %d", g.Name, f[2], g.GID)
			}
			return text, nil
		}
		password := ""
		if a.os == Linux {
			password = "x"
		}
		return setRecord(text, []string{g.Name, password, strconv.Itoa(g.GID), ""}), nil
	})
	if err != nil || a.os != Linux {
		return err
	}
	if ok, err := exists(a.root, "etc/gshadow"); err != nil || !ok {
		return err
	}
	return a.edit("etc/gshadow", 0o600, func(text string) (string, error) {
		for _, f := range records(text) {
			if f[0] == g.Name {
				return text, nil
			}
		}
		return setRecord(text, []string{g.Name, "!", "", ""}), nil
	})
}

// member makes a user a member of a group.
func (a *accounts) member(group, user string) error {
	for _, name := range []string{"etc/group", "etc/gshadow"} {
		if name == "etc/gshadow" {
			if ok, err := exists(a.root, name); err != nil || !ok || a.os != Linux {
				return err
			}
		}
		err := a.edit(name, 0o644, func(text string) (string, error) {
			found := false
			text = editRecords(text, func(f []string) {
				if f[0] != group || len(f) < 4 {
					return
				}
				found = true
				members := strings.FieldsFunc(f[3], func(r rune) bool { return r == ',' })
				if !slices.Contains(members, user) {
					f[3] = strings.Join(append(members, user), ",")
				}
			})
			if !found && name == "etc/group" {
				return "", fmt.Errorf("there is no group %q", group)
			}
			return text, nil
		})
		if err != nil {
			return err
		}
	}
	return nil
}
