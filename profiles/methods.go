package profiles

import (
	"errors"
	"io/fs"
	"path"
	"regexp"
	"slices"
	"strings"

	"github.com/goldenisc/packer-plugin-isc/image"
)

// Building blocks of methods.

// A setter sets one key in a text.
type setter func(text, key, value string) string

// settings returns the edit that sets key and value pairs in a file, which is made if it is
// missing. Values may name parameters as ${name}.
func settings(set setter, name string, pairs ...string) func(*Params) []Edit {
	return func(p *Params) []Edit {
		return []Edit{func(root Root) error {
			e := image.Entry{Name: name, Mode: 0o644, GID: sysOf(p.OS), ModTime: p.Epoch}
			return rewrite(root, e, func(text string) (string, error) {
				for i := 0; i+1 < len(pairs); i += 2 {
					text = set(text, pairs[i], p.expand(pairs[i+1]))
				}
				return text, nil
			})
		}}
	}
}

// how says what settings does.
func how(name string, pairs []string) string {
	var all []string
	for i := 0; i+1 < len(pairs); i += 2 {
		all = append(all, pairs[i]+" "+pairs[i+1])
	}
	return name + ": " + strings.Join(all, ", ")
}

// assign returns the method that sets KEY=value pairs of a file.
func assign(name string, pairs ...string) Method {
	return Method{How: how(name, pairs), Globs: []string{name}, Edits: settings(setAssignment, name, pairs...)}
}

// define returns the method that sets "KEY value" pairs of etc/login.defs, where there is one.
func define(pairs ...string) Method {
	const name = "etc/login.defs"
	return Method{
		How: how(name, pairs), Globs: []string{name}, Needs: []string{name}, Edits: settings(setDefinition, name, pairs...),
	}
}

// sshd returns the methods that set keywords of the ssh server, where there is one.
func sshd(pairs ...string) map[string]Method {
	m := Method{
		How:   how(sshdConfig, pairs) + "; no Match says otherwise, there or in what it includes",
		Globs: sshdGlobs, Needs: []string{sshdConfig},
		Edits: settings(setKeyword, sshdConfig, pairs...), Check: overridden(pairs),
	}
	return map[string]Method{Illumos: m, Linux: m}
}

// file returns the edit that makes a file what is given.
func file(name string, mode fs.FileMode, text string) func(*Params) []Edit {
	return func(p *Params) []Edit {
		return []Edit{func(root Root) error {
			return ensure(root, image.Entry{Name: name, Mode: mode, GID: sysOf(p.OS), ModTime: p.Epoch}, []byte(p.expand(text)))
		}}
	}
}

// groupFile is file with a group of its own.
func groupFile(name string, mode fs.FileMode, gid int, text string) func(*Params) []Edit {
	return func(p *Params) []Edit {
		return []Edit{func(root Root) error {
			return ensure(root, image.Entry{Name: name, Mode: mode, GID: gid, ModTime: p.Epoch}, []byte(text))
		}}
	}
}

// directory returns the edit that makes a directory of root's with this mode.
func directory(name string, mode fs.FileMode) func(*Params) []Edit {
	return func(p *Params) []Edit {
		return []Edit{func(root Root) error {
			return ensure(root, image.Entry{Name: name, Mode: fs.ModeDir | mode, ModTime: p.Epoch}, nil)
		}}
	}
}

// delete returns the edit that removes whatever matches the patterns.
func deleted(patterns ...string) func(*Params) []Edit {
	return func(*Params) []Edit {
		return []Edit{func(root Root) error {
			for _, pattern := range patterns {
				names, err := root.Glob(pattern)
				if err != nil {
					return err
				}
				for _, n := range names {
					if err := remove(root, n); err != nil {
						return err
					}
				}
			}
			return nil
		}}
	}
}

// all joins the edits of several.
func all(parts ...func(*Params) []Edit) func(*Params) []Edit {
	return func(p *Params) []Edit {
		var edits []Edit
		for _, f := range parts {
			edits = append(edits, f(p)...)
		}
		return edits
	}
}

// editFile returns the edit of an existing file; a missing one is left missing.
func editFile(name string, change func(text string) (string, error)) func(*Params) []Edit {
	return func(p *Params) []Edit {
		return []Edit{func(root Root) error {
			target, err := follow(root, name)
			if err != nil {
				return err
			}
			if ok, err := exists(root, target); err != nil || !ok {
				return err
			}
			return rewrite(root, image.Entry{Name: target, ModTime: p.Epoch}, change)
		}}
	}
}

func contains(list []string, s string) bool { return slices.Contains(list, s) }

// matchAny reports whether one of the patterns matches. They were checked with the parameter that
// they are from.
func matchAny(patterns []string, name string) bool {
	return slices.ContainsFunc(patterns, func(p string) bool {
		m, err := image.NewMatcher(p)
		return err == nil && m.Match(name)
	})
}

// setLine adds a line unless there is one that says the same in other blanks.
func setLine(text, line, _ string) string {
	want := strings.Join(strings.Fields(line), " ")
	l := lines(text)
	if slices.ContainsFunc(l, func(have string) bool { return strings.Join(strings.Fields(have), " ") == want }) {
		return text
	}
	return unlines(append(l, line))
}

// setCommand sets "KEY value" as shells and simple daemons have it: the last one counts.
func setCommand(text, key, value string) string {
	l := lines(text)
	set := regexp.MustCompile(`^` + regexp.QuoteMeta(key) + `\s+(.*?)\s*$`)
	found := false
	for i, line := range l {
		if m := set.FindStringSubmatch(line); m != nil {
			found = true
			if m[1] != value {
				l[i] = key + " " + value
			}
		}
	}
	if !found {
		l = replaceOrAppend(l, regexp.MustCompile(`^#\s?`+regexp.QuoteMeta(key)+`\s+\S+\s*$`), key+" "+value)
	}
	return keepIfSame(text, l)
}

// setOption sets KEY=value in a section of a file of [sections], such as those of systemd, pkg(7)
// and dnf. A section that is missing is added.
func setOption(section string) setter {
	return func(text, key, value string) string {
		l := lines(text)
		head := slices.IndexFunc(l, func(s string) bool { return strings.TrimSpace(s) == "["+section+"]" })
		if head < 0 {
			return unlines(append(l, "["+section+"]", key+"="+value))
		}
		end := len(l)
		if n := slices.IndexFunc(l[head+1:], func(s string) bool { return strings.HasPrefix(strings.TrimSpace(s), "[") }); n >= 0 {
			end = head + 1 + n
		}
		inner := unlines(slices.Clone(l[head+1 : end]))
		changed := setAssignment(inner, key, value)
		if changed == inner {
			return text
		}
		return unlines(slices.Concat(l[:head+1], lines(changed), l[end:]))
	}
}

// commented returns the edit that makes comments of lines in files that match the patterns.
func commented(line *regexp.Regexp, patterns ...string) func(*Params) []Edit {
	return eachText(patterns, func(text string) string {
		l := lines(text)
		for i, have := range l {
			if !strings.HasPrefix(have, "#") && line.MatchString(have) {
				l[i] = "#" + have
			}
		}
		return keepIfSame(text, l)
	})
}

// eachText returns the edit of the texts of all files that match the patterns.
func eachText(patterns []string, change func(text string) string) func(*Params) []Edit {
	return func(p *Params) []Edit {
		return []Edit{func(root Root) error {
			for _, pattern := range patterns {
				err := each(root, pattern, func(e *image.Entry) error {
					if !e.IsRegular() {
						return nil
					}
					return rewrite(root, image.Entry{Name: e.Name, ModTime: p.Epoch}, func(text string) (string, error) { return change(text), nil })
				})
				if err != nil {
					return err
				}
			}
			return nil
		}}
	}
}

// needed is a method of edits of one file that applies only where there is such a file.
func needed(set setter, name string, pairs ...string) Method {
	return Method{How: how(name, pairs), Globs: []string{name}, Needs: []string{name}, Edits: settings(set, name, pairs...)}
}

// checked is a method that looks at other files, too.
func checked(m Method, how string, globs []string, check func(Root, *Params) (Inspection, error)) Method {
	m.How, m.Globs, m.Check = m.How+"; "+how, slices.Concat(m.Globs, globs), check
	return m
}

// module returns the edit that has a line of pam.d(5) in a file that is there, in place of those of its type
// and module. One that is missing becomes the first or the last, so that no jump of another line is changed.
func module(name, line string, first bool) func(*Params) []Edit {
	return func(p *Params) []Edit {
		line := p.expand(line)
		want := strings.Fields(line)
		return editFile(name, func(text string) (string, error) {
			l, found := lines(text), false
			for i, have := range l {
				f := fields(have)
				if len(f) < 3 || strings.TrimPrefix(f[0], "-") != want[0] || !slices.ContainsFunc(f, func(w string) bool { return path.Base(w) == want[2] }) {
					continue
				}
				found = true
				if !slices.Equal(f, want) {
					l[i] = line
				}
			}
			switch {
			case found:
			case first:
				at := slices.IndexFunc(l, func(have string) bool { return len(fields(have)) > 0 })
				l = slices.Insert(l, max(at, 0), line)
			default:
				l = append(l, line)
			}
			return keepIfSame(text, l), nil
		})(p)
	}
}

// snippet is a method that makes one file of our own, which holds just this text.
func snippet(name, text string, needs ...string) Method {
	return Method{
		How: name + ": " + strings.Join(lines(text), "; "), Globs: []string{name}, Needs: needs, Edits: file(name, 0o644, text),
	}
}

// restricted returns the edit that takes permission bits from what matches the patterns.
func restricted(bits fs.FileMode, patterns ...string) func(*Params) []Edit {
	return func(*Params) []Edit {
		return []Edit{func(root Root) error {
			for _, pattern := range patterns {
				err := each(root, pattern, func(e *image.Entry) error {
					if e.Type() == fs.ModeSymlink || e.Mode&bits == 0 {
						return nil
					}
					return ensureMode(root, e.Name, e.Mode&^bits, e.UID, e.GID)
				})
				if err != nil {
					return err
				}
			}
			return nil
		}}
	}
}

// mode returns the edit that gives an object that is there mode and owner.
func mode(name string, mode fs.FileMode, uid, gid int) func(*Params) []Edit {
	return func(*Params) []Edit {
		return []Edit{func(root Root) error {
			e, err := root.Stat(name)
			if errors.Is(err, fs.ErrNotExist) || err == nil && e.Type() == fs.ModeSymlink {
				return nil
			}
			if err != nil {
				return err
			}
			return ensureMode(root, name, mode, uid, gid)
		}}
	}
}

// masked is the method that masks units where they are installed (systemctl(1), mask).
func masked(units ...string) Method {
	return Method{
		How:   "masked where installed: " + strings.Join(units, ", "),
		Globs: []string{"usr/lib/systemd/system/*", "lib/systemd/system/*", "etc/systemd/system/*"},
		Needs: unitPaths(units),
		Edits: func(p *Params) []Edit { return []Edit{func(root Root) error { return mask(root, p, units) }} },
	}
}

func unitPaths(units []string) []string {
	var all []string
	for _, dir := range unitDirs {
		for _, u := range units {
			all = append(all, dir+"/"+u)
		}
	}
	return all
}

// started is the method that has a unit started with the multi-user target, where it is installed.
func started(unit string) Method {
	return Method{
		How:   unit + " is wanted by multi-user.target",
		Globs: []string{"etc/systemd/system/multi-user.target.wants/" + unit},
		Needs: unitPaths([]string{unit}),
		Edits: func(p *Params) []Edit {
			return []Edit{func(root Root) error {
				e, err := root.Stat("etc/systemd/system/multi-user.target.wants/" + unit)
				if err == nil && e.Type() == fs.ModeSymlink && path.Base(e.Target) == unit {
					return nil
				}
				return ensure(root, image.Entry{
					Name: "etc/systemd/system/multi-user.target.wants/" + unit, Mode: fs.ModeSymlink | 0o777,
					Target: "/lib/systemd/system/" + unit, ModTime: p.Epoch,
				}, nil)
			}}
		},
	}
}
