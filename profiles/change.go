package profiles

import (
	"errors"
	"fmt"
	"io/fs"
	"iter"
	"regexp"
	"slices"
	"strings"

	"github.com/goldenisc/packer-plugin-isc/image"
)

// Commit makes changes of an [Overlay] in the root that is below it.
func Commit(root Root, changes []Change) error {
	for _, c := range changes {
		if c.After == nil {
			if err := remove(root, c.Name); err != nil {
				return err
			}
		}
	}
	for i := range changes {
		c := &changes[i]
		switch {
		case c.After == nil:
		case c.meta:
			// Through a Root that cannot, ensureMode puts the content again.
			if err := ensureMode(root, c.Name, c.After.Mode, c.After.UID, c.After.GID); err != nil {
				return err
			}
		default:
			if err := replace(root, c); err != nil {
				return err
			}
		}
	}
	return nil
}

// replace puts what a change has after it. A directory in the place of something else, or the
// other way round, does not come about by Put alone.
func replace(root Root, c *Change) error {
	if c.Before != nil && c.Before.Type() != c.After.Type() {
		if err := remove(root, c.Name); err != nil {
			return err
		}
	}
	return root.Put(*c.After, c.New)
}

// A Backup is what changes replace and remove, to be put back.
type Backup struct {
	added   []string
	saved   []layered
	Running Running
}

// Running is the state of a running system that no file holds, as it was before a change of files.
type Running struct {
	Kernel  map[string]string `json:"kernel,omitempty"`  // values of sysctl(8)
	Units   []string          `json:"units,omitempty"`   // of systemd, that are stopped or started
	Active  []string          `json:"active,omitempty"`  // those of them that ran, and instances of templates
	Enabled map[string]string `json:"enabled,omitempty"` // general/enabled of instances of smf(7): true or false
}

// check refuses what is no name: they are handed to programs, which take some arguments for options.
func (r *Running) check() error {
	for _, k := range sortedKeys(r.Kernel) {
		if !kernelForm.MatchString(k) || strings.ContainsFunc(r.Kernel[k], func(c rune) bool { return c != '\t' && unfit(c) }) {
			return fmt.Errorf("%q is no value of sysctl(8)", k)
		}
	}
	for _, u := range slices.Concat(r.Units, r.Active) {
		if !unitForm.MatchString(u) || u[0] == '-' {
			return fmt.Errorf("%q is no unit", u)
		}
	}
	for _, f := range sortedKeys(r.Enabled) {
		if v := r.Enabled[f]; !fmriForm.MatchString(f) || v != "true" && v != "false" {
			return fmt.Errorf("%q is no instance that is enabled or not", f)
		}
	}
	return nil
}

var kernelForm = regexp.MustCompile(`^[A-Za-z0-9_][A-Za-z0-9_./:*-]*$`)

// Save reads what the changes replace and remove from the root that they are to be made in.
func Save(root Root, changes []Change) (*Backup, error) {
	b := new(Backup)
	for _, c := range changes {
		if c.Before == nil {
			b.added = append(b.added, c.Name)
			continue
		}
		names := []string{c.Name}
		if c.Before.IsDir() && (c.After == nil || !c.After.IsDir()) {
			var err error
			if names, err = root.Glob(globQuote(c.Name) + "/**"); err != nil {
				return nil, err
			}
		}
		for _, n := range names {
			if err := b.save(root, n); err != nil {
				return nil, err
			}
		}
	}
	return b, nil
}

func (b *Backup) save(root Root, name string) error {
	e, err := root.Stat(name)
	if err != nil {
		return err
	}
	l := layered{Entry: *e}
	if e.IsRegular() {
		if l.data, err = root.ReadFile(name); err != nil {
			return err
		}
	}
	l.HardLink = ""
	b.saved = append(b.saved, l)
	return nil
}

// Restore puts everything back and removes what is new.
func (b *Backup) Restore(root Root) error {
	// Directories go after what is in them.
	for _, name := range slices.Backward(b.added) {
		if err := remove(root, name); err != nil {
			return err
		}
	}
	for _, l := range b.saved {
		now, err := root.Stat(l.Name)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		if err == nil && now.Type() != l.Type() {
			if err := remove(root, l.Name); err != nil {
				return err
			}
		}
		if err := root.Put(l.Entry, l.data); err != nil {
			return err
		}
	}
	return nil
}

// A lister is a Root that yields its entries without being asked for each by name.
type lister interface{ All() iter.Seq[*image.Entry] }

var _ lister = (*image.Tree)(nil)

// each calls do with every entry that matches the pattern; do may change entries, but not add any
// that match.
func each(root Root, pattern string, do func(*image.Entry) error) error {
	if pattern == "**" {
		if l, ok := listerOf(root); ok {
			for e := range l.All() {
				if err := do(e); err != nil {
					return err
				}
			}
			return nil
		}
	}
	names, err := root.Glob(pattern)
	if err != nil {
		return err
	}
	for _, n := range names {
		e, err := root.Stat(n)
		if errors.Is(err, fs.ErrNotExist) {
			continue // it was below something that do removed
		}
		if err != nil {
			return err
		}
		if err := do(e); err != nil {
			return err
		}
	}
	return nil
}

// listerOf returns what lists the whole root, seen through overlays that hold few edits.
func listerOf(root Root) (lister, bool) {
	switch r := root.(type) {
	case *Overlay:
		below, ok := listerOf(r.base)
		return overlayLister{r, below}, ok
	case lister:
		return r, true
	}
	return nil, false
}

type overlayLister struct {
	over  *Overlay
	below lister
}

// All yields the entries of the base that are not hidden, and those that were put, in no order that
// matters to do of each. Entries that do edits meanwhile are those of the snapshot.
func (l overlayLister) All() iter.Seq[*image.Entry] {
	return func(yield func(*image.Entry) bool) {
		edited := len(l.over.removed) > 0
		put := make([]*image.Entry, 0, len(l.over.put))
		for _, name := range sortedKeys(l.over.put) {
			e := l.over.put[name].Entry
			put = append(put, &e)
		}
		known := make(map[string]bool, len(put))
		for _, e := range put {
			known[e.Name] = true
		}
		for e := range l.below.All() {
			if known[e.Name] || edited && l.over.hidden(e.Name) {
				continue
			}
			if !yield(e) {
				return
			}
		}
		for _, e := range put {
			if !yield(e) {
				return
			}
		}
	}
}
