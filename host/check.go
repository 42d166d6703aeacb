package host

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"runtime"
	"slices"
	"sort"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/goldenisc/packer-plugin-isc/image"
)

// CheckMode says how an instance is checked.
type CheckMode struct {
	Full bool // read the content of every file, believing no time
	Jobs int  // files read at a time; default the number of processors
}

// maxDepth bounds how deep a tree is looked into, because each level keeps a directory open.
const maxDepth = 512

// A checker compares a root, whose owner is hostile and perhaps running, with the content manifest.
// It walks by open directories, follows nothing and opens only regular files.
type checker struct {
	golden *Golden
	rules  *rules
	base   *baseline
	site   map[string]SiteFile
	mode   CheckMode
	report image.Progress

	entries []*image.Entry
	inos    map[string]uint64 // of first names of objects of several
	start   int64             // nanoseconds
	dev     uint64
	work    chan reading
	learned bool // base has changed
	ids     struct{ uid, gid int }

	mu  sync.Mutex
	out *Report
}

// A reading is a file whose content is to be compared.
type reading struct {
	f     *os.File
	o     object
	i     int   // of its entry, or -1
	limit int64 // bytes that are hashed
	want  [sha256.Size]byte
	name  string
	clean bool // all else is as it should be
}

// run checks the root. The baseline is brought up to date with what was found unchanged by
// content; learned says whether it was.
func (c *checker) run(ctx context.Context, root *folder) (*Report, error) {
	c.out = &Report{Findings: []Finding{}, Restored: []string{}}
	c.inos = map[string]uint64{}
	c.start = time.Now().UnixNano()
	c.ids.uid, c.ids.gid = ids()
	c.entries = make([]*image.Entry, 0, c.golden.Content.Len())
	for e := range c.golden.Content.All() {
		c.entries = append(c.entries, e)
	}
	o, err := root.stat()
	if err != nil {
		return nil, err
	}
	c.dev = o.dev
	if c.base.dev != c.dev {
		c.base.forget() // moved to another file system
		c.base.dev, c.learned = c.dev, true
	}
	jobs := c.mode.Jobs
	if jobs < 1 {
		jobs = runtime.GOMAXPROCS(0)
	}
	c.work = make(chan reading, 4*jobs)
	g, ctx := errgroup.WithContext(ctx)
	for range jobs {
		g.Go(func() error { return c.hash(ctx) })
	}
	g.Go(func() error {
		defer close(c.work)
		if err := c.compare(ctx, root, ".", 0, &o); err != nil {
			return err
		}
		return c.dir(ctx, root, ".", 0, len(c.entries), 0, c.trusted(0, &o))
	})
	err = g.Wait()
	for r := range c.work { // left by workers that gave up
		r.f.Close()
	}
	if err != nil {
		return nil, err
	}
	c.out.sort()
	return c.out, nil
}

// find notes a finding about a name relative to the root.
func (c *checker) find(name, kind, what string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.out.Findings) == MaxFindings {
		c.out.More++
		return
	}
	path := "/" + name
	if name == "." {
		path = "/"
	}
	c.out.Findings = append(c.out.Findings, Finding{path, kind, what})
}

func (c *checker) trusted(i int, o *object) bool { return !c.mode.Full && c.base.believes(i, o) }

// end returns the index after the last entry below entry i, which is a directory.
func (c *checker) end(i, hi int) int {
	dir := c.entries[i].Name
	return i + 1 + sort.Search(hi-i-1, func(k int) bool {
		n := c.entries[i+1+k].Name
		return dir != "." && !(len(n) > len(dir) && n[len(dir)] == '/' && n[:len(dir)] == dir)
	})
}

// dir compares what is in an open directory with the entries (lo, hi) below entry lo; lo is -1 in a
// directory that the image does not have. same says that no name came or went.
func (c *checker) dir(ctx context.Context, d *folder, name string, lo, hi, depth int, same bool) error {
	prefix := name + "/"
	if name == "." {
		prefix = ""
	}
	var names []string
	if !same || c.siteNames(prefix) {
		var err error
		if names, err = d.names(); err != nil {
			c.find(name, Unread, cause(err))
			return nil
		}
		slices.Sort(names)
		same = false
	}
	i := lo + 1
	if lo < 0 {
		i = hi
	}
	for i < hi || len(names) > 0 {
		if err := ctx.Err(); err != nil {
			return err
		}
		elem, next, order := "", i, -1
		if i < hi {
			elem = c.entries[i].Name[len(prefix):]
			if next = i + 1; c.entries[i].IsDir() {
				next = c.end(i, hi)
			}
		}
		switch {
		case i == hi:
			order = 1
		case len(names) > 0:
			order = strings.Compare(elem, names[0])
		}
		if same {
			order = 0
		}
		if order >= 0 && !same {
			elem, names = names[0], names[1:]
		}
		if order > 0 {
			if err := c.extra(ctx, d, elem, prefix+elem, depth); err != nil {
				return err
			}
			continue
		}
		if order < 0 {
			if err := c.missing(ctx, d, elem, i, next); err != nil {
				return err
			}
		} else if err := c.both(ctx, d, elem, i, next, depth); err != nil {
			return err
		}
		i = next
	}
	return nil
}

// siteNames reports whether site values made a file in the directory that the image does not have.
func (c *checker) siteNames(prefix string) bool {
	for name := range c.site {
		if strings.HasPrefix(name, prefix) && !strings.Contains(name[len(prefix):], "/") && c.golden.Content.Lookup(name) == nil {
			return true
		}
	}
	return false
}

// missing is about entry i, which is not there; the entries up to next are below it.
func (c *checker) missing(ctx context.Context, d *folder, elem string, i, next int) error {
	e := c.entries[i]
	if c.base.marks[i].flags&noObject != 0 {
		return nil
	}
	switch rule := c.rules.of(e.Name); {
	case rule == ruleAny && !c.rules.skip[e.Name]:
		return nil
	case rule == ruleReset:
		if done, err := c.restore(ctx, d, elem, i, next); done || err != nil {
			return err
		}
	}
	c.find(e.Name, Removed, image.TypeName(e.Mode))
	return nil
}

// extra is about a name that the image does not have.
func (c *checker) extra(ctx context.Context, d *folder, elem, name string, depth int) error {
	o, err := d.lstat(elem)
	if errors.Is(err, fs.ErrNotExist) {
		return nil // gone meanwhile
	}
	if err != nil {
		c.find(name, Unread, cause(err))
		return nil
	}
	c.count()
	if s, ok := c.site[name]; ok {
		return c.siteFile(ctx, d, elem, name, s, &o)
	}
	switch rule := c.rules.of(name); {
	case c.rules.skip[name] && o.mode.IsDir():
		return nil // made by clone
	case c.rules.above(name) && o.mode.IsDir():
		return c.enter(ctx, d, elem, name, -1, 0, depth)
	case rule == ruleAny, rule == ruleAppend:
		if !o.mode.IsDir() || c.rules.ignores(name) {
			return nil
		}
		if o.dev != c.dev {
			c.find(name, Changed, "is a mount point")
			return nil
		}
		return c.enter(ctx, d, elem, name, -1, 0, depth)
	case rule == ruleReset:
		if o.dev == c.dev && removeTree(ctx, d, elem) == nil {
			c.restored(name)
			return nil
		}
	}
	c.find(name, Added, image.TypeName(o.mode))
	return nil
}

// enter goes down one directory.
func (c *checker) enter(ctx context.Context, d *folder, elem, name string, lo, hi, depth int) error {
	if depth == maxDepth {
		c.find(name, Unread, fmt.Sprintf("is more than %d levels deep", maxDepth))
		return nil
	}
	sub, err := d.sub(elem)
	if err != nil {
		c.find(name, Unread, cause(err))
		return nil
	}
	defer sub.Close()
	o, err := sub.stat()
	if err != nil {
		return err
	}
	if o.dev != c.dev {
		c.find(name, Changed, "is a mount point")
		return nil
	}
	return c.dir(ctx, sub, name, lo, hi, depth+1, lo >= 0 && c.trusted(lo, &o))
}

// both is about entry i, of which elem is there.
func (c *checker) both(ctx context.Context, d *folder, elem string, i, next, depth int) error {
	e := c.entries[i]
	o, err := d.lstat(elem)
	if errors.Is(err, fs.ErrNotExist) {
		return c.missing(ctx, d, elem, i, next)
	}
	if err != nil {
		c.find(e.Name, Unread, cause(err))
		return nil
	}
	c.count()
	if o.nlink > 1 && e.HardLink == "" && !e.IsDir() {
		c.inos[e.Name] = o.ino
	}
	skip := c.rules.skip[e.Name]
	if !skip && !c.trusted(i, &o) {
		if err := c.compare(ctx, d, elem, i, &o); err != nil {
			return err
		}
	}
	switch {
	case !e.IsDir():
		return nil
	case !o.mode.IsDir():
		if skip { // a volume must be one
			c.find(e.Name, Changed, typeChange(e.Mode, o.mode))
		}
		return nil
	case skip || c.rules.ignores(e.Name):
		return nil
	case o.dev != c.dev:
		c.find(e.Name, Changed, "is a mount point")
		return nil
	}
	return c.enter(ctx, d, elem, e.Name, i, next, depth)
}

// compare is about entry i, which is not known to be unchanged.
func (c *checker) compare(ctx context.Context, d *folder, elem string, i int, o *object) error {
	e := c.entries[i]
	flags := c.base.marks[i].flags
	rule := c.rules.of(e.Name)
	if rule == ruleAny {
		return nil
	}
	if flags&noObject != 0 {
		c.find(e.Name, Added, image.TypeName(o.mode))
		return nil
	}
	want, size, sum := e, e.Size, e.Digest
	if s, ok := c.site[e.Name]; ok {
		want, size = siteEntry(e, e.Name), s.Size
		sum = s.sum()
	}
	var f *os.File
	if o.mode.IsRegular() && want.IsRegular() {
		var err error
		var now object
		if f, now, err = d.open(elem); err != nil {
			c.find(e.Name, Unread, cause(err))
			return nil
		}
		*o = now
	}
	diffs, err := c.metadata(d, f, elem, want, o, flags, i)
	if err != nil {
		diffs = append(diffs, cause(err))
	}
	if f != nil && (o.size < size || o.size > size && rule != ruleAppend) {
		diffs = append(diffs, fmt.Sprintf("content, size %d → %d", size, o.size))
		f.Close()
		f = nil
	}
	if rule == ruleReset && len(diffs) == 0 && f != nil {
		ok, err := sumIs(ctx, f, size, sum)
		f.Close()
		if err == nil && ok {
			return nil
		}
		f, diffs = nil, append(diffs, "content")
	}
	if rule == ruleReset && len(diffs) > 0 {
		if f != nil {
			f.Close()
			f = nil
		}
		if done, err := c.restore(ctx, d, elem, i, i+1); done || err != nil {
			return err
		}
	}
	for _, what := range diffs {
		c.find(e.Name, Changed, what)
	}
	if f == nil {
		// Not of a directory, which is more than its metadata: names may have come and gone in it,
		// and whether they have is asked of the mark that would be made here.
		if len(diffs) == 0 && !o.mode.IsDir() {
			c.learn(i, o)
		}
		return nil
	}
	if first, ok := c.inos[e.HardLink]; ok && first == o.ino {
		return f.Close() // read by its first name
	}
	select {
	case c.work <- reading{f, *o, i, size, sum, e.Name, len(diffs) == 0}:
		return nil
	case <-ctx.Done():
		f.Close()
		return ctx.Err()
	}
}

// metadata says how an object differs from its entry, content apart.
func (c *checker) metadata(d *folder, f *os.File, elem string, e *image.Entry, o *object, flags uint8, i int) ([]string, error) {
	if o.mode.Type() != e.Type() {
		return []string{typeChange(e.Mode, o.mode)}, nil
	}
	var diffs []string
	diff := func(format string, a ...any) { diffs = append(diffs, fmt.Sprintf(format, a...)) }
	link := e.Type() == fs.ModeSymlink
	if flags&noMode == 0 && !link && o.mode != e.Mode {
		diff("mode %04o → %04o", e.Perm(), image.Perm(o.mode))
	}
	if flags&noOwner == 0 && (o.uid != e.UID || o.gid != e.GID) {
		diff("owner %d:%d → %d:%d", e.UID, e.GID, o.uid, o.gid)
	}
	if flags&noOwner != 0 && exact && (o.uid != c.ids.uid) {
		diff("owner %d → %d", c.ids.uid, o.uid)
	}
	if e.Mode&fs.ModeDevice != 0 && o.rdev != e.Rdev {
		diff("device %d,%d → %d,%d", e.Rdev.Major, e.Rdev.Minor, o.rdev.Major, o.rdev.Minor)
	}
	if link {
		target, err := d.readlink(elem)
		if err != nil {
			return diffs, err
		}
		if target != e.Target {
			diff("target %q → %q", e.Target, target)
		}
	}
	if exact && flags&isSite == 0 && !e.IsDir() {
		if n := uint64(c.golden.Content.Nlink(c.entries[i])); o.nlink != n {
			diff("hard links %d → %d", n, o.nlink)
		} else if first, ok := c.inos[e.HardLink]; ok && first != o.ino {
			diff("is no longer the same object as %q", "/"+e.HardLink)
		}
	}
	var attrs map[string][]byte
	var err error
	if f != nil {
		attrs, err = fileXattrs(f)
	} else {
		attrs, err = d.xattrs(elem)
	}
	if err != nil {
		return diffs, err
	}
	want := e.Xattrs
	if flags&noXattrs != 0 {
		want = nil // what could not be set is not missed
		for key := range e.Xattrs {
			delete(attrs, key)
		}
	}
	if what := xattrChange(want, attrs); what != "" {
		diffs = append(diffs, what)
	}
	return diffs, nil
}

// siteFile compares a file that site values made where the image has none.
func (c *checker) siteFile(ctx context.Context, d *folder, elem, name string, s SiteFile, o *object) error {
	f, now, err := d.open(elem)
	if err != nil || now.size != s.Size {
		if err == nil {
			f.Close()
		}
		c.find(name, Changed, "content")
		return nil
	}
	if m := uint32(0o644); exact && image.Perm(now.mode) != m {
		c.find(name, Changed, fmt.Sprintf("mode %04o → %04o", m, image.Perm(now.mode)))
	}
	select {
	case c.work <- reading{f: f, o: now, i: -1, limit: s.Size, want: s.sum(), name: name}:
		return nil
	case <-ctx.Done():
		f.Close()
		return ctx.Err()
	}
}

// hash compares contents.
func (c *checker) hash(ctx context.Context) error {
	h, buf := sha256.New(), make([]byte, copyBuffer)
	for {
		var r reading
		select {
		case <-ctx.Done():
			return ctx.Err()
		case next, ok := <-c.work:
			if !ok {
				return nil
			}
			r = next
		}
		h.Reset()
		n, err := io.CopyBuffer(h, &plainReader{ctx, r.f, r.limit}, buf)
		r.f.Close()
		if ctx.Err() != nil {
			return ctx.Err()
		}
		c.mu.Lock()
		c.out.Hashed++
		c.out.Bytes += n
		done := c.out.Bytes
		c.mu.Unlock()
		c.report.Report("check", done, 0)
		switch {
		case err != nil:
			c.find(r.name, Unread, cause(err))
		case n != r.limit || [sha256.Size]byte(h.Sum(nil)) != r.want:
			c.find(r.name, Changed, "content")
		case r.clean && r.i >= 0 && r.o.size == r.limit:
			c.learn(r.i, &r.o)
		}
	}
}

// A plainReader reads up to n bytes of a file, and nothing but reads.
type plainReader struct {
	ctx context.Context
	f   *os.File
	n   int64
}

func (r *plainReader) Read(p []byte) (int, error) {
	if err := r.ctx.Err(); err != nil {
		return 0, err
	}
	if r.n <= 0 {
		return 0, io.EOF
	}
	n, err := r.f.Read(p[:min(int64(len(p)), r.n)])
	r.n -= int64(n)
	return n, err
}

// sumIs reports whether the first size bytes of f have this digest.
func sumIs(ctx context.Context, f *os.File, size int64, sum [sha256.Size]byte) (bool, error) {
	h := sha256.New()
	n, err := io.Copy(h, &plainReader{ctx, f, size})
	return n == size && [sha256.Size]byte(h.Sum(nil)) == sum, err
}

// learnAge is how long ago the last change of an object must be for it to be marked; a variable for
// tests, which cannot make changes older.
var learnAge = 2 * time.Second

// learn marks an object that was found unchanged by content, if its last change is so long ago
// that another one would show in its change time.
func (c *checker) learn(i int, o *object) {
	c.mu.Lock()
	defer c.mu.Unlock()
	m := &c.base.marks[i]
	if o.ctime > c.start-int64(learnAge) || m.ino == o.ino && m.ctime == o.ctime || !exact {
		return
	}
	m.ino, m.ctime = o.ino, o.ctime
	c.learned = true
}

func (c *checker) count() {
	c.mu.Lock()
	c.out.Entries++
	c.mu.Unlock()
}

func (c *checker) restored(name string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.out.Restored = append(c.out.Restored, "/"+name)
}

func (s SiteFile) sum() (sum [sha256.Size]byte) {
	if b, err := hex.DecodeString(strings.TrimPrefix(s.Digest, "sha256:")); err == nil {
		copy(sum[:], b)
	}
	return sum
}

func typeChange(from, to fs.FileMode) string {
	return fmt.Sprintf("type %s → %s", image.TypeName(from), image.TypeName(to))
}

// cause is what the system said, without the path that stands beside it.
func cause(err error) string {
	var pe *fs.PathError
	if errors.As(err, &pe) {
		return pe.Err.Error()
	}
	return err.Error()
}
