package image

import (
	"bufio"
	"bytes"
	"encoding/hex"
	"fmt"
	"io"
	"io/fs"
	"iter"
	"slices"
	"sort"
	"strconv"
	"strings"
	"time"
)

// A Content is the content manifest of an image: what a root must look like, without the content
// itself. It is kept as two artifacts, because the keywords of mtree(5) cannot say everything:
// WriteMtree writes what they can, WriteObjects the rest.
type Content struct {
	entries []Entry // in the order of Compare, from the root on
	nlink   map[string]int
}

// NewContent returns the content manifest of a tree.
func NewContent(t *Tree) *Content {
	c := &Content{entries: make([]Entry, 0, t.Len()), nlink: map[string]int{}}
	for e := range t.All() {
		c.entries = append(c.entries, *e)
	}
	c.count()
	return c
}

// count notes how many names every object of several has.
func (c *Content) count() {
	for i := range c.entries {
		if first := c.entries[i].HardLink; first != "" {
			c.nlink[first] = max(c.nlink[first], 1) + 1
		}
	}
}

// All yields every entry in the order of [Compare]. Entries must not be changed.
func (c *Content) All() iter.Seq[*Entry] {
	return func(yield func(*Entry) bool) {
		for i := range c.entries {
			if !yield(&c.entries[i]) {
				return
			}
		}
	}
}

// Len returns the number of entries, the root included.
func (c *Content) Len() int { return len(c.entries) }

// Lookup returns the entry of a clean name, or nil.
func (c *Content) Lookup(name string) *Entry {
	i := sort.Search(len(c.entries), func(i int) bool { return Compare(c.entries[i].Name, name) >= 0 })
	if i == len(c.entries) || c.entries[i].Name != name {
		return nil
	}
	return &c.entries[i]
}

// Nlink returns the number of names of e's object.
func (c *Content) Nlink(e *Entry) int {
	first := e.Name
	if e.HardLink != "" {
		first = e.HardLink
	}
	return max(c.nlink[first], 1)
}

// WriteMtree writes the manifest as mtree(5): one line an object, full paths from ".", names in
// the encoding of vis(3), the standard keywords only. FreeBSD's and NetBSD's mtree and go-mtree
// read it; so does bsdtar. Link counts stand with what has content or is a device, as those of
// directories differ between file systems.
func (c *Content) WriteMtree(w io.Writer) error {
	b := bufio.NewWriterSize(w, 64<<10)
	b.WriteString(mtreeHeader)
	var line []byte
	for i := range c.entries {
		e := &c.entries[i]
		line = c.appendLine(line[:0], e)
		b.Write(line)
	}
	return b.Flush()
}

const mtreeHeader = "#mtree\n"

// mtreeTypes are the values of the keyword type.
var mtreeTypes = []struct {
	name string
	mode fs.FileMode
}{
	{"file", 0},
	{"dir", fs.ModeDir},
	{"link", fs.ModeSymlink},
	{"fifo", fs.ModeNamedPipe},
	{"socket", fs.ModeSocket},
	{"char", fs.ModeDevice | fs.ModeCharDevice},
	{"block", fs.ModeDevice},
}

// appendLine appends the line of e. The order of keywords is fixed.
func (c *Content) appendLine(b []byte, e *Entry) []byte {
	b = appendName(b, e.Name)
	b = append(b, " type="...)
	for _, t := range mtreeTypes {
		if t.mode == e.Type() {
			b = append(b, t.name...)
		}
	}
	b = append(b, " mode="...)
	if e.Perm() != 0 {
		b = append(b, '0')
	}
	b = strconv.AppendUint(b, uint64(e.Perm()), 8)
	number := func(key string, n int64) {
		b = append(b, key...)
		b = strconv.AppendInt(b, n, 10)
	}
	number(" uid=", int64(e.UID))
	number(" gid=", int64(e.GID))
	if !e.IsDir() {
		number(" nlink=", int64(c.Nlink(e)))
	}
	if e.IsRegular() {
		number(" size=", e.Size)
	}
	number(" time=", e.ModTime.Unix())
	var nsec [10]byte // a one and nine digits
	strconv.AppendInt(nsec[:0], 1e9+int64(e.ModTime.Nanosecond()), 10)
	nsec[0] = '.'
	b = append(b, nsec[:]...)
	switch {
	case e.IsRegular():
		b = append(b, " sha256digest="...)
		b = hex.AppendEncode(b, e.Digest[:])
	case e.Type() == fs.ModeSymlink:
		b = append(b, " link="...)
		b = appendVis(b, e.Target)
	case e.Mode&fs.ModeDevice != 0:
		b = fmt.Appendf(b, " device=native,%d,%d", e.Rdev.Major, e.Rdev.Minor)
	}
	return append(b, '\n')
}

// appendName appends a name as mtree writes it: "." or "./a/b".
func appendName(b []byte, name string) []byte {
	if name != "." {
		b = append(b, "./"...)
	}
	return appendVis(b, name)
}

// appendVis appends s in the encoding of vis(3), of which only the octal form is used: it is the
// one that every reader decodes alike.
func appendVis(b []byte, s string) []byte {
	for i := range len(s) {
		c := s[i]
		if visEncoded[c] {
			b = append(b, '\\', '0'+c>>6, '0'+c>>3&7, '0'+c&7)
			continue
		}
		b = append(b, c)
	}
	return b
}

// visEncoded are the bytes that are not written as they are.
var visEncoded = func() (set [256]bool) {
	for c := range set {
		set[c] = c <= ' ' || c >= 0x7f || strings.IndexByte(`\#*?[=`, byte(c)) >= 0
	}
	return set
}()

// unvis decodes what appendVis writes, and nothing else.
func unvis(s string) (string, error) {
	if strings.IndexByte(s, '\\') < 0 {
		return s, nil
	}
	b := make([]byte, 0, len(s))
	for i := 0; i < len(s); i++ {
		if s[i] != '\\' {
			b = append(b, s[i])
			continue
		}
		if i+3 >= len(s) {
			return "", fmt.Errorf("%q: incomplete escape", s)
		}
		n, err := strconv.ParseUint(s[i+1:i+4], 8, 8)
		if err != nil {
			return "", fmt.Errorf("%q: escape %q is not octal", s, s[i:i+4])
		}
		b = append(b, byte(n))
		i += 3
	}
	return string(b), nil
}

// ReadContent reads a content manifest back from its two artifacts. Both are signed bytes and read
// strictly: only what WriteMtree and WriteObjects write is accepted.
func ReadContent(mtree, objects io.Reader) (*Content, error) {
	c := &Content{nlink: map[string]int{}}
	counts, err := c.readMtree(mtree)
	if err != nil {
		return nil, fmt.Errorf("content manifest: %w", err)
	}
	if err := c.readObjects(objects); err != nil {
		return nil, fmt.Errorf("objects: %w", err)
	}
	c.count()
	for i := range c.entries {
		e := &c.entries[i]
		if n, ok := counts[e.Name]; ok && n != c.Nlink(e) || !ok && !e.IsDir() && c.Nlink(e) != 1 {
			return nil, fmt.Errorf("content manifest: %q: its link count is not that of the objects, %d", e.Name, c.Nlink(e))
		}
	}
	return c, nil
}

// readMtree reads the lines and returns the link counts other than 1.
func (c *Content) readMtree(r io.Reader) (map[string]int, error) {
	counts := map[string]int{}
	s := bufio.NewScanner(r)
	s.Buffer(make([]byte, 0, 64<<10), 16*MaxName) // two names, four bytes a byte, and the keywords
	s.Split(scanWholeLines)
	var again []byte
	var in []string // the directory of the last entry, and those above it
	for n := 1; s.Scan(); n++ {
		line := s.Text()
		if n == 1 {
			if line != mtreeHeader {
				return nil, fmt.Errorf("line 1: not %q", mtreeHeader)
			}
			continue
		}
		e, nlink, err := parseLine(line)
		if err != nil {
			return nil, fmt.Errorf("line %d: %w", n, err)
		}
		if k := len(c.entries); k > 0 {
			if Compare(c.entries[k-1].Name, e.Name) >= 0 {
				return nil, fmt.Errorf("line %d: %q is out of order", n, e.Name)
			}
			// What is in a directory follows it, so that it is one of these.
			for up := parent(e.Name); len(in) > 0 && in[len(in)-1] != up; {
				in = in[:len(in)-1]
			}
			if len(in) == 0 {
				return nil, fmt.Errorf("line %d: %q is not in a directory", n, e.Name)
			}
		} else if e.Name != "." || !e.IsDir() {
			return nil, fmt.Errorf("line %d: the root is missing", n)
		}
		if nlink > 1 {
			counts[e.Name] = nlink
			c.nlink[e.Name] = nlink
		}
		if again = c.appendLine(again[:0], &e); string(again) != line {
			return nil, fmt.Errorf("line %d: not in canonical form: %q", n, strings.TrimSuffix(line, "\n"))
		}
		delete(c.nlink, e.Name)
		if len(c.entries) == cap(c.entries) { // append grows it by a quarter, and copies five times as much
			c.entries = slices.Grow(c.entries, max(len(c.entries), 256))
		}
		c.entries = append(c.entries, e)
		if e.IsDir() {
			in = append(in, e.Name)
		}
	}
	if err := s.Err(); err != nil {
		return nil, err
	}
	if len(c.entries) == 0 {
		return nil, fmt.Errorf("no entries")
	}
	return counts, nil
}

// scanWholeLines is [bufio.ScanLines] that keeps the end of the line and wants one.
func scanWholeLines(data []byte, atEOF bool) (int, []byte, error) {
	if i := bytes.IndexByte(data, '\n'); i >= 0 {
		return i + 1, data[:i+1], nil
	}
	if atEOF && len(data) > 0 {
		return 0, nil, fmt.Errorf("the last line has no end")
	}
	return 0, nil, nil
}

// parseLine reads one line; that it is canonical is checked by writing it again.
func parseLine(line string) (e Entry, nlink int, err error) {
	name, rest, _ := strings.Cut(strings.TrimSuffix(line, "\n"), " ")
	if name, err = unvis(strings.TrimPrefix(name, "./")); err != nil {
		return e, 0, err
	}
	if e.Name, err = Clean(name); err != nil {
		return e, 0, err
	}
	e.Name = strings.Clone(e.Name) // not all of the line
	nlink = 1
	for rest != "" {
		var word string
		word, rest, _ = strings.Cut(rest, " ")
		key, value, _ := strings.Cut(word, "=")
		switch key {
		case "type":
			i := slices.IndexFunc(mtreeTypes, func(t struct {
				name string
				mode fs.FileMode
			},
			) bool {
				return t.name == value
			})
			if i < 0 {
				return e, 0, fmt.Errorf("type %q", value)
			}
			e.Mode = mtreeTypes[i].mode
		case "mode":
			var m uint64
			m, err = strconv.ParseUint(value, 8, 12)
			e.Mode = ModeOf(uint32(m), e.Mode)
		case "uid":
			e.UID, err = parseID(value)
		case "gid":
			e.GID, err = parseID(value)
		case "nlink":
			nlink, err = strconv.Atoi(value)
		case "size":
			e.Size, err = strconv.ParseInt(value, 10, 64)
		case "time":
			e.ModTime, err = parseTime(value)
		case "sha256digest":
			if hex.DecodedLen(len(value)) != len(e.Digest) {
				err = fmt.Errorf("%q is not of 32 bytes", value)
			} else {
				_, err = hex.Decode(e.Digest[:], []byte(value))
			}
		case "link":
			e.Target, err = unvis(value)
			e.Target = strings.Clone(e.Target)
		case "device":
			e.Rdev, err = parseDevice(value)
		default:
			err = fmt.Errorf("unknown keyword")
		}
		if err != nil {
			return e, 0, fmt.Errorf("%q: %s: %w", e.Name, key, err)
		}
	}
	if e.Size < 0 || nlink < 1 {
		return e, 0, fmt.Errorf("%q: size %d, %d links", e.Name, e.Size, nlink)
	}
	return e, nlink, nil
}

func parseID(s string) (int, error) {
	n, err := strconv.ParseUint(s, 10, 32)
	return int(n), err
}

func parseTime(s string) (time.Time, error) {
	sec, nsec, _ := strings.Cut(s, ".")
	a, err := strconv.ParseInt(sec, 10, 64)
	if err != nil {
		return time.Time{}, err
	}
	b, err := strconv.ParseUint(nsec, 10, 30)
	if err != nil {
		return time.Time{}, err
	}
	return time.Unix(a, int64(b)).UTC(), nil
}

func parseDevice(s string) (d Device, err error) {
	f := strings.Split(s, ",")
	if len(f) != 3 || f[0] != "native" {
		return d, fmt.Errorf("not native,MAJOR,MINOR")
	}
	major, err := strconv.ParseUint(f[1], 10, 32)
	if err != nil {
		return d, err
	}
	minor, err := strconv.ParseUint(f[2], 10, 32)
	return Device{uint32(major), uint32(minor)}, err
}
