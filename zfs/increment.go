package zfs

import (
	"bufio"
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strconv"
	"strings"
)

// A Map is what must be kept of a version so that increments from it can be written: the number of
// each of its objects, and digests of what is in them. It is as trusted as the content itself: an
// increment from a wrong map silently damages the file system that receives it.
type Map struct {
	guid    uint64
	options string
	version uint64
	next    uint64
	objects map[string]mapObject // by first path; tables by hiddenMark and their number
}

// A mapObject is an object of a version.
type mapObject struct {
	number, gen uint64
	kind        uint64 // type bits of its mode; 0 for a table
	many        bool   // a file of more than one block; directories may be laid out anew in place
	attrs       [16]byte
	content     [16]byte
}

// GUID returns the guid of the version.
func (m *Map) GUID() uint64 { return m.guid }

// Version returns how many versions there are up to this one, each based on the one before.
func (m *Map) Version() uint64 { return m.version }

// sum returns the beginning of a digest.
func sum(b []byte) [16]byte {
	d := sha256.Sum256(b)
	return [16]byte(d[:16])
}

// Map returns the map of the version in the stream.
func (s *Stream) Map() (*Map, error) {
	m := &Map{guid: s.guid, options: s.opt.identity(), version: s.version, next: s.next, objects: make(map[string]mapObject, len(s.nodes))}
	for _, o := range s.all() {
		path, entry, err := o.mapped()
		if err != nil {
			return nil, err
		}
		m.objects[path] = entry
	}
	return m, nil
}

// mapped returns how a map has the object.
func (o numbered) mapped() (string, mapObject, error) {
	if o.node == nil {
		return hiddenMark + itoa(o.number), mapObject{number: o.number, gen: 1, content: entriesSum(o.table.entries())}, nil
	}
	n := o.node
	m := o.s.shape(n)
	m.number, m.gen = n.number, n.gen
	rec, err := o.s.object(n)
	if err != nil {
		return "", mapObject{}, fmt.Errorf("object %q: %w", n.Path, err)
	}
	m.attrs = sum(slices.Concat(rec.bonus, rec.spill))
	if n.Mode.IsDir() {
		m.content = entriesSum(n.dirEntries())
	}
	return n.Path, m, nil
}

// shape returns what a map has of a node that does not depend on numbers.
func (s *Stream) shape(n *node) mapObject {
	mode, _ := statMode(n.Mode) // checked by NewStream
	m := mapObject{kind: mode & modeType}
	if n.Mode.IsDir() {
		return m
	}
	size, _ := s.content(n)
	m.many = size > recordSize
	m.content = sum(slices.Concat(n.Digest[:], []byte(n.Target), []byte(itoa(uint64(size)))))
	return m
}

// entriesSum returns the digest of entries, which are in an order of their own.
func entriesSum(entries []zapEntry) [16]byte {
	h := sha256.New()
	var b []byte
	for i := range entries {
		e := &entries[i]
		b = binary.LittleEndian.AppendUint64(b[:0], uint64(len(e.name)))
		b = append(b, e.name...)
		b = binary.LittleEndian.AppendUint64(b, e.value)
		for _, v := range e.ints {
			b = binary.LittleEndian.AppendUint16(b, v)
		}
		h.Write(b)
	}
	return [16]byte(h.Sum(nil)[:16])
}

// fits reports whether an object of before can become b under the same number. Receivers refuse one
// that had several blocks of another size, or gets them. A single block of 128 KiB could become
// several, but what fits must do so from any version to any later one.
func (a mapObject) fits(b mapObject) bool { return a.kind == b.kind && a.many == b.many }

// assign gives the objects of s that the map has their numbers: by name, and for files by content,
// so that one which was renamed is not sent again.
func (m *Map) assign(s *Stream) {
	taken := map[uint64]bool{}
	take := func(n *node, o mapObject) {
		n.number, n.gen = o.number, o.gen
		taken[o.number] = true
	}
	var rest []*node
	for _, n := range s.nodes {
		if old, ok := m.objects[n.Path]; ok && old.fits(s.shape(n)) {
			take(n, old)
		} else if n.Mode.IsRegular() && n.Size > 0 && !n.hidden {
			rest = append(rest, n)
		}
	}
	if len(rest) == 0 {
		return
	}
	moved := map[[16]byte]mapObject{} // files that no longer are where they were
	for _, path := range slices.Sorted(maps.Keys(m.objects)) {
		o := m.objects[path]
		if _, ok := moved[o.content]; !ok && o.kind == modeRegular && !taken[o.number] && !strings.Contains(path, hiddenMark) {
			moved[o.content] = o
		}
	}
	for _, n := range rest {
		now := s.shape(n)
		if old, ok := moved[now.content]; ok && old.fits(now) {
			take(n, old)
			delete(moved, now.content)
		}
	}
}

// WriteIncrement writes what makes the version in s of the one that from is the map of: it must be
// that of the stream's base, or of a base of that. Objects that changed are written whole, others
// not at all. A receiver must have the snapshot with the guid of the map, unchanged; with clone set,
// the increment makes a new file system of it instead of adding a snapshot to the old one.
func (s *Stream) WriteIncrement(ctx context.Context, w io.Writer, from *Map, clone bool) error {
	if from.options != s.opt.identity() {
		return fmt.Errorf("increment: the base is of %s, this is of %s", from.options, s.opt.identity())
	}
	if from.guid == s.guid {
		return errors.New("increment: the base is the same version")
	}
	old := make(map[uint64]mapObject, len(from.objects))
	for _, o := range from.objects {
		old[o.number] = o
	}
	e := s.encoder(ctx, w)
	e.delta = true
	flags := uint32(0)
	if clone {
		flags = flagClone
	}
	e.begin(&s.opt, from.guid, flags)
	removed := s.removed(old)
	for number, o := range s.all() {
		for len(removed) > 0 && removed[0].from < number {
			e.freeObjects(removed[0].from, removed[0].to-removed[0].from)
			removed = removed[1:]
		}
		if err := o.increment(e, old); err != nil {
			return err
		}
	}
	for _, r := range removed {
		e.freeObjects(r.from, r.to-r.from)
	}
	return e.end()
}

// removed returns the numbers that only the base has, as ascending ranges.
func (s *Stream) removed(old map[uint64]mapObject) []span {
	gone := maps.Clone(old)
	for number := range s.all() {
		delete(gone, number)
	}
	var ranges []span
	for _, n := range slices.Sorted(maps.Keys(gone)) {
		if k := len(ranges) - 1; k >= 0 && ranges[k].to == n {
			ranges[k].to++
		} else {
			ranges = append(ranges, span{n, n + 1})
		}
	}
	return ranges
}

// increment writes the records that make the object of the one that the base has.
func (o numbered) increment(e *encoder, base map[uint64]mapObject) error {
	path, now, err := o.mapped()
	if err != nil {
		return err
	}
	old, ok := base[o.number]
	switch {
	case !ok:
		return o.write(e)
	case old == now:
		return e.ctx.Err()
	case old.gen != now.gen || !old.fits(now):
		return fmt.Errorf("increment: object %q: number %d means another object in the base: it is not a base of this version", path, o.number)
	case old.content != now.content || o.node == nil || o.node.Mode.IsDir():
		return o.write(e)
	}
	rec, err := o.s.object(o.node)
	if err != nil {
		return fmt.Errorf("object %q: %w", path, err)
	}
	size, _ := o.s.content(o.node)
	rec.blockSize = fileBlock(size)
	e.object(&rec, fileEnd(size))
	e.spill(&rec)
	return e.err
}

const mapHeader = "zfs map 1"

// WriteTo writes the map as text: a line that says what it is, one for the version, and one for
// each object by number.
func (m *Map) WriteTo(w io.Writer) (int64, error) {
	b := &countWriter{w: bufio.NewWriter(w)}
	fmt.Fprintf(b, "%s\n%016x %d %d %s\n", mapHeader, m.guid, m.version, m.next, m.options)
	type named struct {
		path string
		mapObject
	}
	objects := make([]named, 0, len(m.objects))
	for path, o := range m.objects {
		objects = append(objects, named{path, o})
	}
	slices.SortFunc(objects, func(a, b named) int { return cmp.Compare(a.number, b.number) })
	for _, o := range objects {
		many := 0
		if o.many {
			many = 1
		}
		fmt.Fprintf(b, "%d %d %o %d %x %x %q\n", o.number, o.gen, o.kind, many, o.attrs, o.content, o.path)
	}
	if b.err == nil {
		b.err = b.w.Flush()
	}
	return b.n, b.err
}

type countWriter struct {
	w   *bufio.Writer
	n   int64
	err error
}

func (c *countWriter) Write(p []byte) (int, error) {
	n, err := c.w.Write(p)
	c.n += int64(n)
	if c.err == nil {
		c.err = err
	}
	return n, err
}

// maxMapObjects bounds a map that is read.
const maxMapObjects = 1 << 25

// ReadMap reads what WriteTo wrote, strictly.
func ReadMap(r io.Reader) (*Map, error) {
	s := bufio.NewScanner(r)
	s.Buffer(nil, 256<<10) // a path of 16 KiB, quoted
	m := &Map{objects: map[string]mapObject{}}
	numbers := map[uint64]bool{}
	line := 0
	for ; s.Scan(); line++ {
		var err error
		switch line {
		case 0:
			if s.Text() != mapHeader {
				return nil, fmt.Errorf("object map: begins with %q, not %q", s.Text()[:min(40, len(s.Text()))], mapHeader)
			}
		case 1:
			err = m.parseVersion(s.Text())
		default:
			if line > maxMapObjects {
				return nil, fmt.Errorf("object map: more than %d objects", maxMapObjects)
			}
			err = m.parseObject(s.Text(), numbers)
		}
		if err != nil {
			return nil, fmt.Errorf("object map: line %d: %w", line+1, err)
		}
	}
	if err := s.Err(); err != nil {
		return nil, fmt.Errorf("object map: %w", err)
	}
	if root, ok := m.objects["."]; !ok || root.number != objRoot {
		return nil, errors.New("object map: without a root")
	}
	return m, nil
}

var errMapLine = errors.New("damaged")

func (m *Map) parseVersion(text string) error {
	f := strings.SplitN(text, " ", 4)
	if len(f) != 4 {
		return errMapLine
	}
	guid, err1 := strconv.ParseUint(f[0], 16, 64)
	version, err2 := strconv.ParseUint(f[1], 10, 32)
	next, err3 := strconv.ParseUint(f[2], 10, 48)
	if err1 != nil || err2 != nil || err3 != nil || guid == 0 || version == 0 || next < objFirst {
		return errMapLine
	}
	m.guid, m.version, m.next, m.options = guid, version, next, f[3]
	return nil
}

func (m *Map) parseObject(text string, numbers map[uint64]bool) error {
	f := strings.SplitN(text, " ", 7)
	if len(f) != 7 || f[3] != "0" && f[3] != "1" {
		return errMapLine
	}
	var o mapObject
	var errs [5]error
	o.number, errs[0] = strconv.ParseUint(f[0], 10, 48)
	o.gen, errs[1] = strconv.ParseUint(f[1], 10, 32)
	o.kind, errs[2] = strconv.ParseUint(f[2], 8, 32)
	o.many = f[3] == "1"
	for i, d := range []*[16]byte{&o.attrs, &o.content} {
		if len(f[4+i]) != hex.EncodedLen(len(d)) {
			return errMapLine
		}
		_, errs[3+i] = hex.Decode(d[:], []byte(f[4+i]))
	}
	path, err := strconv.Unquote(f[6])
	if err = errors.Join(append(errs[:], err)...); err != nil {
		return errMapLine
	}
	_, twice := m.objects[path]
	switch {
	case twice || numbers[o.number]:
		return fmt.Errorf("object %q, number %d: more than once", path, o.number)
	case o.number == 0 || o.number >= m.next || o.gen == 0 || o.gen > m.version:
		return fmt.Errorf("object %q: number %d of generation %d", path, o.number, o.gen)
	}
	numbers[o.number] = true
	m.objects[path] = o
	return nil
}
