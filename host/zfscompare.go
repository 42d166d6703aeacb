package host

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"iter"
	"os"
	"path"
	"slices"
	"strings"

	"github.com/goldenisc/packer-plugin-isc/image"
	"github.com/goldenisc/packer-plugin-isc/zfs"
)

// A comparison compares a file system that was read from a stream with the content manifest. It
// needs no mount, so that it does for other hosts and for datasets that must not be mounted yet.
type comparison struct {
	content *image.Content
	rules   *rules              // nil: nothing may differ, times included
	site    map[string]SiteFile // by name
	keep    func(e *image.Entry, r io.Reader) error

	report Report
	under  map[string]bool // directories of which nothing more is said
}

func (c *comparison) find(name, kind, what string) {
	if len(c.report.Findings) == MaxFindings {
		c.report.More++
		return
	}
	p := "/" + name
	if name == "." {
		p = "/"
	}
	c.report.Findings = append(c.report.Findings, Finding{p, kind, what})
}

// covered reports whether something above the name, or itself, is in the set.
func covered(set map[string]bool, name string) bool {
	for ; name != "."; name = path.Dir(name) {
		if set[name] {
			return true
		}
	}
	return false
}

func (c *comparison) of(name string) string {
	if c.rules == nil {
		return ruleNone
	}
	return c.rules.of(name)
}

// run compares all objects.
func (c *comparison) run(ctx context.Context, objects iter.Seq2[*zfs.Object, error]) (*Report, error) {
	c.report = Report{Findings: []Finding{}, Restored: []string{}}
	c.under = map[string]bool{}
	all := map[string]*zfs.Object{}
	for o, err := range objects {
		if err != nil {
			return nil, err
		}
		all[o.Path] = o
	}
	names := make([]string, 0, len(all))
	for n := range all {
		names = append(names, n)
	}
	slices.SortFunc(names, image.Compare)
	buf := make([]byte, copyBuffer)
	for _, n := range names {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		c.report.Entries++
		if err := c.object(n, all[n], buf); err != nil {
			return nil, fmt.Errorf("%q: %w", "/"+n, err)
		}
	}
	for e := range c.content.All() {
		if all[e.Name] != nil || covered(c.under, e.Name) || c.below(e.Name) {
			continue
		}
		if c.of(e.Name) == ruleAny {
			continue
		}
		c.find(e.Name, Removed, image.TypeName(e.Mode))
		c.under[e.Name] = true
	}
	c.report.sort()
	return &c.report, nil
}

// below reports whether the name is within a volume or the scratch.
func (c *comparison) below(name string) bool {
	return c.rules != nil && name != "." && covered(c.rules.skip, path.Dir(name))
}

func (c *comparison) object(name string, o *zfs.Object, buf []byte) error {
	if covered(c.under, name) || c.below(name) {
		return nil
	}
	rule := c.of(name)
	if c.rules != nil && c.rules.skip[name] {
		if !o.Mode.IsDir() {
			c.find(name, Changed, "is no directory")
		}
		return nil
	}
	e := c.content.Lookup(name)
	s, site := c.site[name]
	if e == nil && !site {
		switch {
		case c.rules != nil && c.rules.above(name) && o.Mode.IsDir():
		case rule == ruleAny, rule == ruleAppend:
		default:
			c.find(name, Added, image.TypeName(o.Mode))
			c.under[name] = true
		}
		return nil
	}
	if rule == ruleAny {
		return nil
	}
	if e == nil || site {
		e = siteEntry(e, name)
	}
	if o.Link != "" || e.HardLink != "" {
		if o.Link != e.HardLink && !site {
			c.find(name, Changed, fmt.Sprintf("is the same object as %q, not %q", o.Link, e.HardLink))
		}
		if o.Link != "" {
			return nil
		}
	}
	if o.Mode.Type() != e.Type() {
		c.find(name, Changed, typeChange(e.Mode, o.Mode))
		c.under[name] = true
		return nil
	}
	diff := func(format string, a ...any) { c.find(name, Changed, fmt.Sprintf(format, a...)) }
	link := e.Mode&os.ModeSymlink != 0
	if !link && o.Mode != e.Mode {
		diff("mode %04o → %04o", e.Perm(), image.Perm(o.Mode))
	}
	if o.UID != e.UID || o.GID != e.GID {
		diff("owner %d:%d → %d:%d", e.UID, e.GID, o.UID, o.GID)
	}
	if e.Mode&os.ModeDevice != 0 && (o.Rdev.Major != e.Rdev.Major || o.Rdev.Minor != e.Rdev.Minor) {
		diff("device %d,%d → %d,%d", e.Rdev.Major, e.Rdev.Minor, o.Rdev.Major, o.Rdev.Minor)
	}
	if link && o.Target != e.Target {
		diff("target %q → %q", e.Target, o.Target)
	}
	if c.rules == nil && !o.ModTime.Equal(e.ModTime) {
		diff("time %v → %v", e.ModTime, o.ModTime)
	}
	if what := xattrChange(e.Xattrs, o.Xattrs); what != "" {
		diff("%s", what)
	}
	if !e.IsRegular() {
		return nil
	}
	size, sum := e.Size, e.Digest
	if site {
		size, sum = s.Size, s.sum()
	}
	if o.Size < size || o.Size > size && rule != ruleAppend {
		diff("content, size %d → %d", size, o.Size)
		return nil
	}
	h := sha256.New()
	if err := readObject(h, o, size, buf); err != nil {
		return err
	}
	c.report.Hashed++
	c.report.Bytes += size
	if [sha256.Size]byte(h.Sum(nil)) != sum {
		diff("content")
		return nil
	}
	if c.keep == nil {
		return nil
	}
	r, w := io.Pipe()
	go func() { w.CloseWithError(readObject(w, o, size, make([]byte, copyBuffer))) }()
	return errors.Join(c.keep(e, r), r.Close())
}

// readObject writes the first size bytes of a file.
func readObject(w io.Writer, o *zfs.Object, size int64, buf []byte) error {
	if size == 0 {
		return nil
	}
	f, err := o.Open()
	if err != nil {
		return err
	}
	defer f.Close()
	_, err = io.CopyBuffer(struct{ io.Writer }{w}, io.NewSectionReader(f, 0, size), buf)
	return err
}

// text is the first findings, to be an error.
func (c *comparison) text() string {
	const most = 10
	var b strings.Builder
	for i, f := range c.report.Findings {
		if i == most {
			fmt.Fprintf(&b, "\nand %d more", len(c.report.Findings)-most+c.report.More)
			break
		}
		fmt.Fprintf(&b, "\n%s", f)
	}
	return b.String()
}
