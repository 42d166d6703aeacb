package profiles

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"slices"
	"strings"
	"time"

	"github.com/goldenisc/packer-plugin-isc/image"
)

// A Root is a root file system that can be edited: an [image.Tree], an [Overlay], or a live
// machine. Names are those of [image.Clean]; directories in them may be symbolic links, the last
// element is never followed. The error of a missing name is [fs.ErrNotExist].
type Root interface {
	Stat(name string) (*image.Entry, error)
	ReadFile(name string) ([]byte, error)
	// Glob returns the sorted names that match a pattern of [image.NewMatcher].
	Glob(pattern string) ([]string, error)
	// Put makes or replaces an object and missing directories above it; a directory keeps
	// what is in it.
	Put(e image.Entry, data []byte) error
	// Remove removes name and all below it.
	Remove(name string) error
}

// A metaSetter is a Root that can change metadata without being given the content again.
type metaSetter interface {
	SetMeta(name string, mode fs.FileMode, uid, gid int, mtime time.Time, xattrs map[string][]byte) error
}

var (
	_ Root       = (*image.Tree)(nil)
	_ metaSetter = (*image.Tree)(nil)
	_ Root       = (*Overlay)(nil)
	_ metaSetter = (*Overlay)(nil)
)

// An Edit changes a root so that something holds. It is idempotent: where that holds already it
// writes nothing, so that times stay.
type Edit func(Root) error

// maxLinks bounds symbolic links followed in one name, as MAXSYMLINKS does in kernels.
const maxLinks = 40

// follow returns the name of the object that name leads to when symbolic links are followed, also
// that in the last element. The object need not exist.
func follow(root Root, name string) (string, error) {
	return walk(name, true, root.Stat)
}

// walk resolves symbolic links in name within the root, those of its last element only if last is
// set. What does not exist stays as it is written.
func walk(name string, last bool, lstat func(string) (*image.Entry, error)) (string, error) {
	clean, err := image.Clean(name)
	if err != nil {
		return "", err
	}
	rest := strings.Split(clean, "/")
	done := "."
	for followed := 0; len(rest) > 0; {
		elem := rest[0]
		rest = rest[1:]
		switch elem {
		case "", ".":
			continue
		case "..":
			done = path.Dir(done)
			continue
		}
		next := path.Join(done, elem)
		e, err := lstat(next)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return "", err
		}
		if err != nil || e.Type() != fs.ModeSymlink || len(rest) == 0 && !last {
			done = next
			continue
		}
		if followed++; followed > maxLinks {
			return "", &malformedError{clean, "leads through too many symbolic links"}
		}
		if strings.HasPrefix(e.Target, "/") {
			done = "."
		}
		rest = append(strings.Split(e.Target, "/"), rest...)
	}
	return done, nil
}

// exists reports whether something has this name.
func exists(root Root, name string) (bool, error) {
	_, err := root.Stat(name)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	return err == nil, err
}

// remove removes name if it is there.
func remove(root Root, name string) error {
	err := root.Remove(name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

// ensure puts e with this content unless it is there already, whatever its time.
func ensure(root Root, e image.Entry, data []byte) error {
	old, err := root.Stat(e.Name)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err == nil && sameMeta(old, &e) {
		if !e.IsRegular() {
			return nil
		}
		have, err := root.ReadFile(e.Name)
		if err != nil {
			return err
		}
		if bytes.Equal(have, data) {
			return nil
		}
	}
	return root.Put(e, data)
}

// sameMeta compares all but names, times and content. The permission bits of a symbolic link mean
// nothing and differ from system to system.
func sameMeta(a, b *image.Entry) bool {
	link := a.Type() == fs.ModeSymlink && b.Type() == fs.ModeSymlink
	return (a.Mode == b.Mode || link) && a.UID == b.UID && a.GID == b.GID && a.Target == b.Target
}

// ensureMode gives an existing object the mode bits and owner, keeping type, content and time.
func ensureMode(root Root, name string, mode fs.FileMode, uid, gid int) error {
	e, err := root.Stat(name)
	if err != nil {
		return err
	}
	mode = e.Type() | mode&^fs.ModeType
	if e.Mode == mode && e.UID == uid && e.GID == gid {
		return nil
	}
	if m, ok := root.(metaSetter); ok {
		return m.SetMeta(name, mode, uid, gid, e.ModTime, e.Xattrs)
	}
	var data []byte
	if e.IsRegular() {
		if data, err = root.ReadFile(name); err != nil {
			return err
		}
	}
	changed := *e
	changed.Mode, changed.UID, changed.GID = mode, uid, gid
	return root.Put(changed, data)
}

// rewrite replaces the text of a file by what change makes of it. A missing file counts as empty
// and is made with the metadata of e; an existing one keeps its own, but takes e's time if its
// text changes. A symbolic link is followed.
func rewrite(root Root, e image.Entry, change func(text string) (string, error)) error {
	name, err := follow(root, e.Name)
	if err != nil {
		return err
	}
	e.Name = name
	var text string
	old, err := root.Stat(name)
	switch {
	case errors.Is(err, fs.ErrNotExist):
	case err != nil:
		return err
	case !old.IsRegular():
		return &malformedError{name, "is a " + image.TypeName(old.Mode) + ", not a file"}
	case old.Size > maxText:
		return &malformedError{name, fmt.Sprintf("has %d bytes: no configuration is that large", old.Size)}
	default:
		data, err := root.ReadFile(name)
		if err != nil {
			return err
		}
		text = string(data)
		if problem := malformed(text); problem != "" {
			return &malformedError{name, problem}
		}
		mtime := e.ModTime
		e = *old
		e.HardLink, e.ModTime = "", mtime
	}
	changed, err := change(text)
	if err != nil {
		return fmt.Errorf("%q: %w", name, err)
	}
	if changed == text {
		return nil
	}
	return root.Put(e, []byte(changed))
}

// An Overlay is a Root that shows another one and keeps edits to itself.
type Overlay struct {
	base    Root
	put     map[string]*layered
	removed map[string]bool // what the base has below these is hidden
}

type layered struct {
	image.Entry
	data []byte
	meta bool // only metadata changed: the content is the base's
}

// NewOverlay returns an overlay without edits.
func NewOverlay(base Root) *Overlay {
	return &Overlay{base: base, put: map[string]*layered{}, removed: map[string]bool{}}
}

// hidden reports whether the base's object of this name was removed.
func (o *Overlay) hidden(name string) bool {
	for {
		if o.removed[name] {
			return true
		}
		if name == "." {
			return false
		}
		name = path.Dir(name)
	}
}

// lstat returns the entry of a name without links in its directories.
func (o *Overlay) lstat(name string) (*image.Entry, error) {
	if l := o.put[name]; l != nil {
		return &l.Entry, nil
	}
	if o.hidden(name) {
		return nil, &fs.PathError{Op: "stat", Path: name, Err: fs.ErrNotExist}
	}
	return o.base.Stat(name)
}

func (o *Overlay) resolve(name string) (string, error) { return walk(name, false, o.lstat) }

// Stat returns the entry of name, as lstat(2) does.
func (o *Overlay) Stat(name string) (*image.Entry, error) {
	if len(o.put) == 0 && len(o.removed) == 0 {
		return o.base.Stat(name) // the usual case of an audit, which looks at everything
	}
	name, err := o.resolve(name)
	if err != nil {
		return nil, err
	}
	return o.lstat(name)
}

// ReadFile returns the content of a regular file.
func (o *Overlay) ReadFile(name string) ([]byte, error) {
	e, err := o.Stat(name)
	if err != nil {
		return nil, err
	}
	if !e.IsRegular() {
		return nil, &fs.PathError{Op: "read", Path: name, Err: fmt.Errorf("is a %s, not a file", image.TypeName(e.Mode))}
	}
	if l := o.put[e.Name]; l != nil && !l.meta {
		return l.data, nil
	}
	return o.base.ReadFile(e.Name)
}

// Glob returns the sorted names that match the pattern.
func (o *Overlay) Glob(pattern string) ([]string, error) {
	m, err := image.NewMatcher(pattern)
	if err != nil {
		return nil, err
	}
	names, err := o.base.Glob(pattern)
	if err != nil {
		return nil, err
	}
	names = slices.DeleteFunc(slices.Clone(names), func(n string) bool { return o.put[n] != nil || o.hidden(n) })
	for n := range o.put {
		if m.Match(n) {
			names = append(names, n)
		}
	}
	slices.SortFunc(names, image.Compare)
	return names, nil
}

// Put records an object.
func (o *Overlay) Put(e image.Entry, data []byte) error {
	name, err := o.resolve(e.Name)
	if err != nil {
		return err
	}
	e.Name = name
	if err := o.parents(name, e.ModTime); err != nil {
		return err
	}
	if old, err := o.lstat(name); err == nil && old.IsDir() && !e.IsDir() {
		below, err := o.Glob(globQuote(name) + "/*")
		if err != nil {
			return err
		}
		if len(below) > 0 {
			return &fs.PathError{Op: "put", Path: name, Err: errors.New("is a directory that is not empty")}
		}
	}
	e.Size = 0
	if e.IsRegular() {
		e.Size = int64(len(data))
	}
	o.put[name] = &layered{Entry: e, data: bytes.Clone(data)}
	return nil
}

// parents records the missing directories above name.
func (o *Overlay) parents(name string, mtime time.Time) error {
	dir := path.Dir(name)
	if name == "." {
		return nil
	}
	e, err := o.lstat(dir)
	switch {
	case err == nil && e.IsDir():
		return nil
	case err == nil:
		return &fs.PathError{Op: "put", Path: name, Err: fmt.Errorf("%q is a %s, not a directory", dir, image.TypeName(e.Mode))}
	case !errors.Is(err, fs.ErrNotExist):
		return err
	}
	if err := o.parents(dir, mtime); err != nil {
		return err
	}
	o.put[dir] = &layered{Entry: image.Entry{Name: dir, Mode: fs.ModeDir | 0o755, ModTime: mtime}}
	return nil
}

// SetMeta records new metadata of name; its type, content and target stay.
func (o *Overlay) SetMeta(name string, mode fs.FileMode, uid, gid int, mtime time.Time, xattrs map[string][]byte) error {
	e, err := o.Stat(name)
	if err != nil {
		return err
	}
	l := o.put[e.Name]
	if l == nil {
		l = &layered{Entry: *e, meta: true}
		o.put[e.Name] = l
	}
	l.Mode = l.Type() | mode&^fs.ModeType
	l.UID, l.GID, l.ModTime, l.Xattrs = uid, gid, mtime, xattrs
	return nil
}

// Remove records that name and all below it is gone.
func (o *Overlay) Remove(name string) error {
	e, err := o.Stat(name)
	if err != nil {
		return err
	}
	if e.Name == "." {
		return &fs.PathError{Op: "remove", Path: name, Err: errors.New("is the root")}
	}
	gone := e.Name
	for n := range o.put {
		if n == gone || strings.HasPrefix(n, gone+"/") {
			delete(o.put, n)
		}
	}
	if _, err := o.base.Stat(gone); err == nil {
		o.removed[gone] = true
	} else if !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// A Change is one difference between an overlay and what is below it.
type Change struct {
	Name   string
	Before *image.Entry // nil of what is new
	After  *image.Entry // nil of what was removed, with all below it
	Old    []byte       // content of a regular file before, where it changed
	New    []byte       // and after

	meta bool // only metadata changed: the content stays
}

// Changes returns what differs from the base, sorted by name. What was put as it was is no
// change, nor is a time alone.
func (o *Overlay) Changes() ([]Change, error) {
	var changes []Change
	for name := range o.removed {
		if o.put[name] != nil || o.hidden(path.Dir(name)) {
			continue
		}
		before, err := o.base.Stat(name)
		if err != nil {
			return nil, err
		}
		changes = append(changes, Change{Name: name, Before: before})
	}
	for name, l := range o.put {
		c, err := o.change(name, l)
		if err != nil {
			return nil, err
		}
		if c != nil {
			changes = append(changes, *c)
		}
	}
	slices.SortFunc(changes, func(a, b Change) int { return image.Compare(a.Name, b.Name) })
	return changes, nil
}

func (o *Overlay) change(name string, l *layered) (*Change, error) {
	c := &Change{Name: name, After: &l.Entry, New: l.data, meta: l.meta}
	before, err := o.base.Stat(name)
	if errors.Is(err, fs.ErrNotExist) {
		return c, nil
	}
	if err != nil {
		return nil, err
	}
	c.Before = before
	same := sameMeta(before, &l.Entry)
	if before.IsRegular() && !l.meta {
		if c.Old, err = o.base.ReadFile(name); err != nil {
			return nil, err
		}
		same = same && bytes.Equal(c.Old, l.data)
	}
	if same {
		return nil, nil
	}
	return c, nil
}

// globQuote returns a pattern that matches just this name.
func globQuote(name string) string {
	return strings.NewReplacer(`\`, `\\`, `*`, `\*`, `?`, `\?`, `[`, `\[`).Replace(name)
}
