package image

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"iter"
	"maps"
	"path"
	"slices"
	"strings"
	"time"
)

// A Tree is a root file system: an index in memory, content on disk once. It is filled by a
// base ([ReadTar], [ReadDir], [ReadLayer]), edited by Put and Remove, and frozen. Reads are
// safe for concurrent use as long as nobody edits; a frozen tree can no longer be edited.
//
// Names are those of [Clean]. As on a running system the last element of a name is never
// followed, and the directories before it may be symbolic links, which are resolved within
// the root.
type Tree struct {
	nodes   map[string]*node    // nil once frozen: order is searched instead
	order   []*node             // sorted; stale while dirty
	dirty   bool                // nodes has changed since order was made
	links   map[string][]string // the further names of an object, by its first
	holes   map[*node][]Extent  // data of files that have holes; all others are dense
	sources []source            // where content is; 0 is the spool
	spool   *spool
	owned   []io.Closer // closed with the tree
	limits  Limits
	bytes   int64 // sum of sizes added, against limits
	index   int64 // sum of names, targets and attributes added, against maxIndex
}

// maxIndex bounds what an archive can make the index hold beside its entries.
const maxIndex = 1 << 30

// A node is an Entry with the place of its content. Its size times the number of entries is
// what a tree costs in memory.
type node struct {
	Entry
	at  int64 // of content in its source
	src uint32
}

// A source holds content of files. Only the spool leaves holes out.
type source interface {
	// open returns the content of n as it is stored.
	open(n *node) (io.ReaderAt, io.Closer, error)
	io.Closer
}

// Limits bound what a base may unpack to. They are there for hostile input: compression
// bombs, and archives with names without end.
type Limits struct {
	Entries int   // number of entries
	Bytes   int64 // sum of file sizes, holes included
}

// DefaultLimits are far above any root file system and far below what hurts a build host:
// about 1 GiB of index, and a day of hashing at most.
var DefaultLimits = Limits{Entries: 4 << 20, Bytes: 64 << 30}

// An Extent is a range of a file that holds data.
type Extent struct{ Off, Len int64 }

// A File is the content of a regular file of a [Tree].
type File interface {
	io.ReaderAt
	io.Closer
	Size() int64
	// Extents returns the ranges that hold data, ascending and disjoint; all else is zeros.
	Extents() []Extent
}

// ErrFrozen is returned by edits of a frozen tree.
var ErrFrozen = errors.New("tree is frozen")

// NewTree returns a tree that holds only a root directory, 0755 and owned by root. Its content
// is spooled to a temporary file below dir, or [os.TempDir] if dir is empty; Close removes it.
// Limits that are zero are those of DefaultLimits.
func NewTree(dir string, limits Limits) (*Tree, error) {
	s, err := newSpool(dir)
	if err != nil {
		return nil, err
	}
	t := &Tree{
		nodes:   map[string]*node{},
		links:   map[string][]string{},
		holes:   map[*node][]Extent{},
		sources: []source{s},
		spool:   s,
		limits:  limits.withDefaults(),
		dirty:   true,
	}
	t.nodes["."] = &node{Entry: Entry{Name: ".", Mode: fs.ModeDir | 0o755, ModTime: time.Unix(0, 0).UTC()}}
	return t, nil
}

// Close releases the tree's content.
func (t *Tree) Close() error {
	var errs []error
	for _, s := range t.sources {
		errs = append(errs, s.Close())
	}
	for _, c := range t.owned {
		errs = append(errs, c.Close())
	}
	return errors.Join(errs...)
}

// Own makes the tree close c when it is closed itself, such as the file that content was left in.
func (t *Tree) Own(c io.Closer) { t.owned = append(t.owned, c) }

// Len returns the number of entries, the root included.
func (t *Tree) Len() int {
	if t.nodes == nil {
		return len(t.order)
	}
	return len(t.nodes)
}

// Bytes returns the sum of the sizes of all regular files, hard links counted once.
func (t *Tree) Bytes() int64 {
	var n int64
	for e := range t.All() {
		if e.HardLink == "" {
			n += e.Size
		}
	}
	return n
}

// All yields every entry in the order of [Compare], so that a directory comes before what is
// in it and the first name of an object before its further ones. Entries must not be changed.
// The tree must not be edited meanwhile.
func (t *Tree) All() iter.Seq[*Entry] {
	return func(yield func(*Entry) bool) {
		for _, n := range t.walk() {
			if !yield(&n.Entry) {
				return
			}
		}
	}
}

// walk returns the sorted index.
func (t *Tree) walk() []*node {
	if t.dirty {
		t.settle()
		t.order = slices.AppendSeq(make([]*node, 0, len(t.nodes)), maps.Values(t.nodes))
		slices.SortFunc(t.order, func(a, b *node) int { return Compare(a.Name, b.Name) })
		t.dirty = false
	}
	return t.order
}

// lookup returns the node of exactly this name, or nil.
func (t *Tree) lookup(name string) *node {
	if t.nodes != nil {
		return t.nodes[name]
	}
	i, ok := slices.BinarySearchFunc(t.order, name, func(n *node, name string) int { return Compare(n.Name, name) })
	if !ok {
		return nil
	}
	return t.order[i]
}

// maxLinks bounds symbolic links followed in one name, as MAXSYMLINKS does in kernels.
const maxLinks = 40

// resolve cleans name and follows symbolic links in its directories, within the root. Missing
// directories are left as they are written.
func (t *Tree) resolve(name string) (string, error) {
	clean, err := Clean(name)
	if err != nil {
		return "", err
	}
	if clean == "." || t.lookup(clean) != nil {
		return clean, nil
	}
	rest := strings.Split(clean, "/")
	done := "."
	for followed := 0; len(rest) > 0; {
		elem := rest[0]
		rest = rest[1:]
		if elem == ".." {
			done = path.Dir(done)
			continue
		}
		next := path.Join(done, elem)
		n := t.lookup(next)
		if n == nil || n.Type() != fs.ModeSymlink || len(rest) == 0 {
			done = next
			continue
		}
		if followed++; followed > maxLinks {
			return "", &fs.PathError{Op: "resolve", Path: name, Err: errors.New("too many levels of symbolic links")}
		}
		if strings.HasPrefix(n.Target, "/") {
			done = "."
		}
		target := strings.FieldsFunc(n.Target, func(r rune) bool { return r == '/' })
		target = slices.DeleteFunc(target, func(s string) bool { return s == "." })
		rest = append(target, rest...)
	}
	return done, nil
}

// find resolves name to an existing node.
func (t *Tree) find(op, name string) (*node, error) {
	clean, err := t.resolve(name)
	if err != nil {
		return nil, &fs.PathError{Op: op, Path: name, Err: err}
	}
	n := t.lookup(clean)
	if n == nil {
		return nil, &fs.PathError{Op: op, Path: name, Err: fs.ErrNotExist}
	}
	return n, nil
}

// Stat returns the entry of name, as lstat(2) does. The error of a missing one is [fs.ErrNotExist].
func (t *Tree) Stat(name string) (*Entry, error) {
	n, err := t.find("stat", name)
	if err != nil {
		return nil, err
	}
	return &n.Entry, nil
}

// Open returns the content of a regular file.
func (t *Tree) Open(name string) (File, error) {
	n, err := t.find("open", name)
	if err != nil {
		return nil, err
	}
	if !n.IsRegular() {
		return nil, &fs.PathError{Op: "open", Path: name, Err: fmt.Errorf("is a %s, not a file", TypeName(n.Mode))}
	}
	if n.HardLink != "" {
		n = t.lookup(n.HardLink)
	}
	r, c, err := t.sources[n.src].open(n)
	if err != nil {
		return nil, &fs.PathError{Op: "open", Path: name, Err: err}
	}
	ext, sparse := t.holes[n]
	if !sparse || n.src != 0 {
		return &dense{ReaderAt: r, Closer: c, size: n.Size, ext: ext}, nil
	}
	return newSparse(r, c, n.Size, ext), nil
}

// ReadFile returns the content of a regular file, which must be no larger than MaxRead bytes.
func (t *Tree) ReadFile(name string) ([]byte, error) {
	f, err := t.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	if f.Size() > MaxRead {
		return nil, &fs.PathError{Op: "read", Path: name, Err: fmt.Errorf("%d bytes are too many to edit", f.Size())}
	}
	return io.ReadAll(io.NewSectionReader(f, 0, f.Size()))
}

// MaxRead bounds what ReadFile reads: it is for configuration, package lists and the like.
const MaxRead = 64 << 20

// Glob returns the names that match the pattern, sorted: * and ? and [] as in [path.Match], and
// the element ** for any number of elements, none included.
func (t *Tree) Glob(pattern string) ([]string, error) {
	m, err := NewMatcher(pattern)
	if err != nil {
		return nil, err
	}
	prefix, rest := m.literal()
	if rest == "" {
		if t.lookup(prefix) == nil {
			return nil, nil
		}
		return []string{prefix}, nil
	}
	var names []string
	if prefix != "." {
		if t.lookup(prefix) == nil {
			return nil, nil
		}
		if m.Match(prefix) { // by **
			names = append(names, prefix)
		}
		for _, n := range t.descendants(prefix) {
			if m.Match(n.Name) {
				names = append(names, n.Name)
			}
		}
		slices.SortFunc(names, Compare)
		return names, nil
	}
	for _, n := range t.walk() {
		if m.Match(n.Name) {
			names = append(names, n.Name)
		}
	}
	return names, nil
}

// Put makes or replaces one object. Its content is data; Size and Digest of e are set from it.
// Missing parent directories are made, owned by root with mode 0755 and the times of e. A name
// that shared an object with others (a hard link) is parted from them. With HardLink set, e is
// made a further name of that object. A directory keeps what is in it; nothing else replaces a
// directory that is not empty.
func (t *Tree) Put(e Entry, data []byte) error {
	return t.PutFrom(e, bytes.NewReader(data))
}

// PutFrom is Put with content that is read from r to its end.
func (t *Tree) PutFrom(e Entry, r io.Reader) error {
	name, err := t.resolve(e.Name)
	if err != nil {
		return &fs.PathError{Op: "put", Path: e.Name, Err: err}
	}
	e.Name = name
	if e.HardLink != "" {
		if e.HardLink, err = t.resolve(e.HardLink); err != nil {
			return &fs.PathError{Op: "put", Path: e.Name, Err: err}
		}
	}
	return t.add(e, r, replaceFiles)
}

// A conflict says what add does where an entry of another type stands.
type conflict int

const (
	refuse       conflict = iota // archives: the same name again as another kind is an error
	replaceFiles                 // edits: anything but a directory that is not empty
	replaceAll                   // layers: anything, with all that is below it
)

// add makes or replaces the entry, whose Name and HardLink are clean. Content of a regular file
// is read from r to its end and hashed.
func (t *Tree) add(e Entry, r io.Reader, how conflict) error {
	n, err := t.place(e, how)
	if err != nil || !n.IsRegular() || n.HardLink != "" {
		return err
	}
	at, ext, size, sum, err := t.spool.store(r, t.limits.Bytes-t.bytes)
	if err != nil {
		t.unlink(n)
		if errors.Is(err, ErrTooLarge) {
			return t.tooLarge(e.Name)
		}
		return &fs.PathError{Op: "store", Path: e.Name, Err: err}
	}
	n.at, n.Size, n.Digest = at, size, sum
	if ext != nil {
		t.holes[n] = ext
	}
	t.bytes += size
	return nil
}

// tooLarge names the entry that went over the limit of the tree.
func (t *Tree) tooLarge(name string) error {
	return fmt.Errorf("entry %q: %w of %d bytes", name, ErrTooLarge, t.limits.Bytes)
}

// place enters a node for e, without content, after making room for it.
func (t *Tree) place(e Entry, how conflict) (*node, error) {
	if t.nodes == nil {
		return nil, ErrFrozen
	}
	e.ModTime = clampTime(e.ModTime)
	if err := t.parents(e.Name, e.ModTime, how); err != nil {
		return nil, err
	}
	old := t.nodes[e.Name]
	if e.Name == "." && !e.IsDir() {
		return nil, fmt.Errorf("entry %q: the root is a %s", e.Name, TypeName(e.Mode))
	}
	if old == nil && len(t.nodes) >= t.limits.Entries {
		return nil, fmt.Errorf("entry %q: more than %d entries", e.Name, t.limits.Entries)
	}
	t.index += int64(len(e.Name) + len(e.Target))
	for k, v := range e.Xattrs {
		t.index += int64(len(k) + len(v))
	}
	if t.index > maxIndex {
		return nil, fmt.Errorf("entry %q: names and extended attributes exceed %d bytes", e.Name, maxIndex)
	}
	var first *node
	if e.HardLink != "" {
		if first = t.nodes[e.HardLink]; first == nil {
			return nil, fmt.Errorf("entry %q: hard link to %q, which does not exist", e.Name, e.HardLink)
		}
		if first.HardLink != "" {
			first = t.nodes[first.HardLink]
		}
		switch {
		case first.IsDir():
			return nil, fmt.Errorf("entry %q: hard link to directory %q", e.Name, e.HardLink)
		case old != nil && (old == first || old.HardLink == first.Name):
			return old, nil // already the same object
		}
		e.Mode = first.Mode
	}
	if old != nil {
		if old.Type() != e.Type() && how == refuse {
			return nil, fmt.Errorf("entry %q: is a %s and again a %s", e.Name, TypeName(old.Mode), TypeName(e.Mode))
		}
		if old.IsDir() && e.IsDir() {
			old.Entry = e
			return old, nil
		}
		if old.IsDir() && how == replaceFiles && len(t.descendants(old.Name)) > 0 {
			return nil, fmt.Errorf("entry %q: is a directory that is not empty", e.Name)
		}
		t.remove(old)
	}
	n := &node{Entry: e}
	n.Size, n.Digest = 0, [sha256.Size]byte{}
	if first != nil {
		n.Entry = first.Entry
		n.Name, n.HardLink = e.Name, first.Name
		t.links[first.Name] = append(t.links[first.Name], n.Name)
	}
	t.nodes[n.Name] = n
	t.dirty = true
	return n, nil
}

// parents makes the missing directories above name and refuses one that is not a directory.
func (t *Tree) parents(name string, mtime time.Time, how conflict) error {
	if name == "." {
		return nil
	}
	dir := parent(name)
	switch p := t.nodes[dir]; {
	case p == nil:
		_, err := t.place(Entry{Name: dir, Mode: fs.ModeDir | 0o755, ModTime: mtime}, how)
		return err
	case p.IsDir():
		return nil
	default:
		return fmt.Errorf("entry %q: %q is a %s, not a directory", name, dir, TypeName(p.Mode))
	}
}

// descendants returns all nodes below the directory, in no order.
func (t *Tree) descendants(dir string) []*node {
	var found []*node
	if t.dirty {
		for name, n := range t.nodes {
			if below(name, dir) {
				found = append(found, n)
			}
		}
		return found
	}
	i, _ := slices.BinarySearchFunc(t.order, dir, func(n *node, name string) int { return Compare(n.Name, name) })
	for _, n := range t.order[i+1:] {
		if !below(n.Name, dir) {
			break
		}
		found = append(found, n)
	}
	return found
}

// below reports whether name is somewhere below dir.
func below(name, dir string) bool {
	if dir == "." {
		return name != "."
	}
	return len(name) > len(dir) && name[len(dir)] == '/' && strings.HasPrefix(name, dir)
}

// Remove removes name and, of a directory, all that is below it. The next name of an object of
// several becomes its first. The error of a missing name is [fs.ErrNotExist].
func (t *Tree) Remove(name string) error {
	if t.nodes == nil {
		return ErrFrozen
	}
	n, err := t.find("remove", name)
	if err != nil {
		return err
	}
	if n.Name == "." {
		return &fs.PathError{Op: "remove", Path: name, Err: errors.New("is the root")}
	}
	t.remove(n)
	return nil
}

// remove takes out n and all below it.
func (t *Tree) remove(n *node) {
	if n.IsDir() {
		for _, c := range t.descendants(n.Name) {
			t.unlink(c)
		}
	}
	t.unlink(n)
}

// unlink takes out one node and promotes the next name of its object.
func (t *Tree) unlink(n *node) {
	delete(t.nodes, n.Name)
	t.dirty = true
	if n.HardLink != "" {
		names := t.links[n.HardLink]
		if i := slices.Index(names, n.Name); i >= 0 {
			t.links[n.HardLink] = slices.Delete(names, i, i+1)
		}
		return
	}
	names := t.links[n.Name]
	delete(t.links, n.Name)
	if len(names) > 0 {
		t.promote(n, names[0], names[1:])
	}
	delete(t.holes, n)
}

// promote makes first the first name of the object of n, whose further names are rest.
func (t *Tree) promote(n *node, first string, rest []string) {
	p := t.nodes[first]
	p.HardLink, p.at, p.src = "", n.at, n.src
	if ext, ok := t.holes[n]; ok {
		t.holes[p] = ext
	}
	for _, name := range rest {
		t.nodes[name].HardLink = first
	}
	if len(rest) > 0 {
		t.links[first] = rest
	}
}

// SetMeta changes mode bits, owner, times and extended attributes of name, and with it of all
// names of the object; its type, content and target stay.
func (t *Tree) SetMeta(name string, mode fs.FileMode, uid, gid int, mtime time.Time, xattrs map[string][]byte) error {
	if t.nodes == nil {
		return ErrFrozen
	}
	n, err := t.find("set", name)
	if err != nil {
		return err
	}
	first := n.Name
	if n.HardLink != "" {
		first = n.HardLink
	}
	for _, name := range append([]string{first}, t.links[first]...) {
		n := t.nodes[name]
		n.Mode = n.Type() | mode&^fs.ModeType
		n.UID, n.GID, n.ModTime, n.Xattrs = uid, gid, mtime, xattrs
	}
	return nil
}

// Freeze ends editing. Times after latest are set to it, unless it is zero; the lowest name of
// every object becomes its first.
func (t *Tree) Freeze(latest time.Time) {
	if t.nodes == nil {
		return
	}
	t.settle()
	t.share()
	for _, n := range t.nodes {
		if !latest.IsZero() && n.ModTime.After(latest) {
			n.ModTime = latest
		}
	}
	t.walk()
	t.nodes = nil
}

// settle makes the lowest name of every object its first.
func (t *Tree) settle() {
	for first, names := range t.links {
		if len(names) == 0 {
			continue
		}
		lowest := slices.MinFunc(names, Compare)
		if Compare(lowest, first) > 0 {
			continue
		}
		rest := slices.DeleteFunc(append([]string{first}, names...), func(s string) bool { return s == lowest })
		n := t.nodes[first]
		n.HardLink = lowest
		delete(t.links, first)
		t.promote(n, lowest, rest)
		delete(t.holes, n)
	}
}

// share gives every further name of an object the metadata of its first.
func (t *Tree) share() {
	for first, names := range t.links {
		for _, name := range names {
			n := t.nodes[name]
			n.Entry = t.nodes[first].Entry
			n.Name, n.HardLink = name, first
		}
	}
}

// Nlink returns the number of names in the tree of e's object.
func (t *Tree) Nlink(e *Entry) int {
	first := e.Name
	if e.HardLink != "" {
		first = e.HardLink
	}
	return 1 + len(t.links[first])
}
