package profiles

import (
	"io/fs"
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
	const name = "etc/ssh/sshd_config"
	m := Method{
		How: how(name, pairs), Globs: []string{name}, Needs: []string{name}, Edits: settings(setKeyword, name, pairs...),
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
