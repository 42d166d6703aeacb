package image

import (
	"archive/tar"
	"bytes"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/url"
	"os"
	"path"
	"strconv"
	"strings"
	"time"
)

// Options say how a base is read.
type Options struct {
	Dir      string // where content is spooled; default [os.TempDir]
	Limits   Limits // default [DefaultLimits]
	Progress Progress
}

// withDefaults fills in the limits that are zero.
func (l Limits) withDefaults() Limits {
	if l.Entries == 0 {
		l.Entries = DefaultLimits.Entries
	}
	if l.Bytes == 0 {
		l.Bytes = DefaultLimits.Bytes
	}
	return l
}

// ReadTar reads an archive, compressed or not, in any dialect: ustar, pax, GNU with long names and
// sparse files, Sun's extended headers. The archive is hostile: a name that leaves the root, the
// same name as another kind, a file below something that is not a directory, a link to nothing,
// a truncated stream, a missing end marker or data after it are errors that name the entry and
// the byte. Of the same name and kind the later entry counts, as with tar(1).
//
// If r is an uncompressed regular file, content is left in it and not spooled: it must stay
// unchanged, which Open checks, and open until the tree is closed.
func ReadTar(ctx context.Context, r io.Reader, o Options) (*Tree, error) {
	t, err := NewTree(o.Dir, o.Limits)
	if err != nil {
		return nil, err
	}
	if err := t.AddTar(ctx, r, ".", o.Progress); err != nil {
		t.Close()
		return nil, err
	}
	return t, nil
}

// AddTar lays an archive over the directory at, which is made if it is missing. Into a tree that
// holds more than its root the entries go as with Put: symbolic links to directories that are
// there are followed within the root.
func (t *Tree) AddTar(ctx context.Context, r io.Reader, at string, p Progress) error {
	l := &loader{tree: t, how: replaceFiles, progress: p}
	if t.Len() == 1 {
		l.how = refuse
	}
	var err error
	if l.at, err = t.resolve(at); err != nil {
		return err
	}
	if f, ok := r.(*os.File); ok {
		if done, err := l.inPlace(ctx, f); done {
			return err
		}
	}
	return l.stream(ctx, r)
}

// A loader reads one archive into a tree.
type loader struct {
	tree     *Tree
	at       string // the directory that names are relative to
	how      conflict
	layer    *layer // of a container image, else nil
	progress Progress
	src      uint32 // of content that stays in the archive; 0 spools it
	pending  []*node
}

// stream reads an archive that may be compressed.
func (l *loader) stream(ctx context.Context, r io.Reader) error {
	in := &progressReader{r: r, report: l.progress}
	z, _, err := Decompress(in)
	if err != nil {
		return l.blame(ctx, err, in.err)
	}
	defer z.Close()
	a := newReadAhead(z)
	defer a.Close()
	return l.blame(ctx, l.load(ctx, &tarBlocks{r: a}), in.err)
}

// ErrMalformed is the kind of error that is an archive's own fault, not that of reading it.
var ErrMalformed = errors.New("malformed archive")

// A malformedError is an ErrMalformed that says what is wrong in its own words.
type malformedError struct{ error }

func (malformedError) Is(target error) bool { return target == ErrMalformed }
func (e malformedError) Unwrap() error      { return e.error }

// blame makes err the archive's fault unless reading it or writing the spool failed.
func (l *loader) blame(ctx context.Context, err, reading error) error {
	if err == nil || reading != nil || l.tree.spool.err != nil || ctx.Err() != nil {
		return err
	}
	return malformedError{err}
}

// inPlace reads an uncompressed regular file and leaves content where it is. It reports false,
// having read nothing, if f is something else.
func (l *loader) inPlace(ctx context.Context, f *os.File) (bool, error) {
	info, err := f.Stat()
	if err != nil || !info.Mode().IsRegular() {
		return false, nil
	}
	var head [64]byte
	start, err := f.Seek(0, io.SeekCurrent)
	if err != nil {
		return false, nil
	}
	n, _ := f.ReadAt(head[:], start)
	if Sniff(head[:n]) != None {
		return false, nil
	}
	s := &fileSource{f: f, info: info}
	l.src = uint32(len(l.tree.sources))
	l.tree.sources = append(l.tree.sources, s)
	if err := l.load(ctx, &tarBlocks{r: io.NewSectionReader(f, start, info.Size()-start), pos: start}); err != nil {
		return true, l.blame(ctx, err, nil)
	}
	return true, l.tree.digest(ctx, l.pending, l.progress)
}

// A fileSource is an archive in which content was left.
type fileSource struct {
	f    *os.File
	info fs.FileInfo
}

func (s *fileSource) open(n *node) (io.ReaderAt, io.Closer, error) {
	now, err := s.f.Stat()
	if err != nil {
		return nil, nil, err
	}
	if now.Size() != s.info.Size() || !now.ModTime().Equal(s.info.ModTime()) {
		return nil, nil, fmt.Errorf("%q changed while it was read", s.f.Name())
	}
	return offsetReader{s.f, n.at}, nopCloser{}, nil
}

func (s *fileSource) Close() error { return nil }

// tarBlocks hands header blocks to archive/tar. It counts what passes, remembers whether the last
// two blocks were the end marker, and shows Sun's extended header X as the pax header x that it is
// in all but name (tar(5) of illumos), which archive/tar does not know.
type tarBlocks struct {
	r       io.Reader
	pos     int64
	zero    int  // zero blocks at the end of what was read as headers
	content bool // what is read now is a file's content
}

func (b *tarBlocks) Read(p []byte) (int, error) {
	if b.content || len(p) != 512 {
		n, err := b.r.Read(p)
		b.pos += int64(n)
		return n, err
	}
	n, err := io.ReadFull(b.r, p)
	b.pos += int64(n)
	if err == io.ErrUnexpectedEOF {
		return n, err
	}
	if n == 512 {
		if bytes.Equal(p, zeros[:512]) {
			b.zero++
		} else {
			b.zero = 0
		}
		if p[156] == 'X' && string(p[257:262]) == "ustar" {
			relabel(p)
		}
	}
	return n, err
}

// relabel turns typeflag X into x and mends the checksum, if it was right.
func relabel(p []byte) {
	sum := 8 * int(' ')
	for i, c := range p {
		if i < 148 || i >= 156 {
			sum += int(c)
		}
	}
	field := strings.Trim(string(p[148:156]), " \x00")
	if have, err := strconv.ParseInt(field, 8, 32); err != nil || int(have) != sum {
		return
	}
	p[156] = 'x'
	copy(p[148:156], fmt.Sprintf("%06o\x00 ", sum-'X'+'x'))
}

// Seek lets archive/tar step over content that stays where it is.
func (b *tarBlocks) Seek(offset int64, whence int) (int64, error) {
	s, ok := b.r.(io.Seeker)
	if !ok || whence != io.SeekCurrent {
		return 0, errors.ErrUnsupported
	}
	_, err := s.Seek(offset, io.SeekCurrent)
	if err != nil {
		return 0, err
	}
	b.pos += offset
	return b.pos, nil
}

// load reads all entries up to the clean end.
func (l *loader) load(ctx context.Context, b *tarBlocks) error {
	tr := tar.NewReader(b)
	for count := 1; ; count++ {
		if err := ctx.Err(); err != nil {
			return err
		}
		b.content = false
		at := b.pos
		h, err := tr.Next()
		if err == io.EOF {
			return b.end()
		}
		if err != nil {
			return fmt.Errorf("entry %d at byte %d: %w", count, at, noEOF(err))
		}
		b.content = true
		if err := l.entry(h, tr, b.pos); err != nil {
			if errors.Is(err, tar.ErrHeader) || errors.Is(err, io.ErrUnexpectedEOF) {
				err = fmt.Errorf("entry %q: %w", h.Name, noEOF(err))
			}
			return fmt.Errorf("byte %d: %w", at, err)
		}
		if l.src != 0 {
			l.progress.Report("read", b.pos, 0)
		}
	}
}

// noEOF says what an unexpected end means here.
func noEOF(err error) error {
	if errors.Is(err, io.ErrUnexpectedEOF) {
		return fmt.Errorf("the archive is truncated: %w", err)
	}
	return err
}

// end requires the end marker and nothing but zeros behind it.
func (b *tarBlocks) end() error {
	if b.zero < 2 {
		return fmt.Errorf("byte %d: the end marker is missing: the archive is truncated", b.pos)
	}
	b.content = true
	buf := make([]byte, 64<<10)
	for {
		n, err := b.r.Read(buf)
		for i, c := range buf[:n] {
			if c != 0 {
				return fmt.Errorf("byte %d: data after the end marker", b.pos+int64(i))
			}
		}
		b.pos += int64(n)
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return noEOF(err)
		}
	}
}

// entry enters one archive member, whose content is read from r or stays at byte at.
func (l *loader) entry(h *tar.Header, r io.Reader, at int64) error {
	e := Entry{UID: h.Uid, GID: h.Gid, ModTime: h.ModTime, Mode: ModeOf(uint32(h.Mode)&0o7777, 0)}
	switch h.Typeflag {
	case tar.TypeReg, tar.TypeCont, tar.TypeGNUSparse:
	case tar.TypeDir:
		e.Mode |= fs.ModeDir
	case tar.TypeSymlink:
		e.Mode = fs.ModeSymlink | 0o777
		e.Target = h.Linkname
		if e.Target == "" || len(e.Target) > MaxName || strings.IndexByte(e.Target, 0) >= 0 {
			return fmt.Errorf("entry %q: symbolic link to %.80q", h.Name, e.Target)
		}
	case tar.TypeLink:
	case tar.TypeChar:
		e.Mode |= fs.ModeDevice | fs.ModeCharDevice
	case tar.TypeBlock:
		e.Mode |= fs.ModeDevice
	case tar.TypeFifo:
		e.Mode |= fs.ModeNamedPipe
	case tar.TypeXGlobalHeader:
		return globalHeader(h)
	case 'V': // a GNU volume label
		return nil
	default:
		return fmt.Errorf("entry %q: members of type %q are not supported", h.Name, h.Typeflag)
	}
	if e.Mode&fs.ModeDevice != 0 {
		if h.Devmajor < 0 || h.Devminor < 0 || h.Devmajor > 1<<32-1 || h.Devminor > 1<<32-1 {
			return fmt.Errorf("entry %q: device number %d,%d", h.Name, h.Devmajor, h.Devminor)
		}
		e.Rdev = Device{uint32(h.Devmajor), uint32(h.Devminor)}
	}
	if h.Size < 0 {
		return fmt.Errorf("entry %q: negative size", h.Name)
	}
	var err error
	if e.Xattrs, err = xattrsOf(h.PAXRecords); err != nil {
		return fmt.Errorf("entry %q: %w", h.Name, err)
	}
	if e.Name, err = l.name(h.Name); err != nil {
		return fmt.Errorf("entry %w", err)
	}
	if err := e.inRange(); err != nil {
		return err
	}
	if l.layer != nil {
		if done, err := l.layer.whiteout(e.Name); done {
			return err
		}
	}
	if h.Typeflag == tar.TypeLink {
		if e.HardLink, err = l.name(h.Linkname); err != nil {
			return fmt.Errorf("entry %q: hard link: %w", h.Name, err)
		}
		if e.HardLink == e.Name {
			return fmt.Errorf("entry %q: hard link to itself", h.Name)
		}
	}
	if l.src == 0 || h.Typeflag != tar.TypeReg || isSparse(h) {
		if err := l.tree.add(e, r, l.how); err != nil {
			return err
		}
	} else {
		n, err := l.tree.place(e, l.how)
		if err != nil {
			return err
		}
		if h.Size > l.tree.limits.Bytes-l.tree.bytes {
			return l.tree.tooLarge(e.Name)
		}
		n.Size, n.at, n.src = h.Size, at, l.src
		l.tree.bytes += h.Size
		l.pending = append(l.pending, n)
	}
	if l.layer != nil {
		l.layer.fresh[e.Name] = true
	}
	return nil
}

// maxID is the largest user or group id: the one above is nobody's by convention of chown(2).
const maxID = 1<<32 - 2

// clampTime keeps times within what archives and file systems can say: from the epoch to 2242.
func clampTime(t time.Time) time.Time {
	switch s := t.Unix(); {
	case s < 0:
		return time.Unix(0, 0).UTC()
	case s > 1<<33-1:
		return time.Unix(1<<33-1, 0).UTC()
	}
	return t.UTC()
}

// name places an archive's name below at.
func (l *loader) name(s string) (string, error) {
	name, err := Clean(s)
	if err != nil {
		return "", err
	}
	if l.at != "." {
		name = path.Join(l.at, name)
	}
	if l.how == refuse {
		return name, nil
	}
	return l.tree.resolve(name)
}

// isSparse reports whether the member's bytes in the archive are not its content.
func isSparse(h *tar.Header) bool {
	for k := range h.PAXRecords {
		if strings.HasPrefix(k, "GNU.sparse.") {
			return true
		}
	}
	return false
}

// globalHeader accepts a pax global header only if it changes nothing that is kept.
func globalHeader(h *tar.Header) error {
	for k := range h.PAXRecords {
		switch k {
		case "path", "linkpath", "size", "uid", "gid", "mtime":
			return fmt.Errorf("global header sets %q for all entries: not supported", k)
		}
		if strings.HasPrefix(k, "SCHILY.") || strings.HasPrefix(k, "GNU.sparse.") {
			return fmt.Errorf("global header sets %q for all entries: not supported", k)
		}
	}
	return nil
}

// xattrsOf returns the extended attributes among pax records: star's and GNU tar's SCHILY.xattr
// (value as it is), libarchive's LIBARCHIVE.xattr (name URL-encoded, value in base64). An ACL in
// text form has no place in a tree and would be lost.
func xattrsOf(records map[string]string) (map[string][]byte, error) {
	var attrs map[string][]byte
	set := func(name string, value []byte) error {
		if name == "" || len(name) > 255 || strings.IndexByte(name, 0) >= 0 || len(value) > maxXattr {
			return fmt.Errorf("extended attribute %.80q of %d bytes", name, len(value))
		}
		if attrs == nil {
			attrs = map[string][]byte{}
		}
		attrs[name] = value
		return nil
	}
	for k, v := range records {
		if strings.HasPrefix(k, "SCHILY.acl.") {
			return nil, fmt.Errorf("pax record %q: ACLs are not supported", k)
		}
		name, ok := strings.CutPrefix(k, "LIBARCHIVE.xattr.")
		if !ok {
			continue
		}
		name, err := url.PathUnescape(name)
		if err != nil {
			return nil, fmt.Errorf("pax record %q: %w", k, err)
		}
		value, err := base64.RawStdEncoding.DecodeString(strings.TrimRight(v, "="))
		if err != nil {
			return nil, fmt.Errorf("pax record %q: %w", k, err)
		}
		if err := set(name, value); err != nil {
			return nil, err
		}
	}
	for k, v := range records {
		name, ok := strings.CutPrefix(k, "SCHILY.xattr.")
		if !ok {
			continue
		}
		if err := set(unescapeKey.Replace(name), []byte(v)); err != nil {
			return nil, err
		}
	}
	return attrs, nil
}

// maxXattr is XATTR_SIZE_MAX of Linux; illumos and FreeBSD have no lower bound.
const maxXattr = 64 << 10

// GNU tar escapes what cannot stand in the key of a pax record.
var (
	unescapeKey = strings.NewReplacer("%25", "%", "%3D", "=")
	escapeKey   = strings.NewReplacer("%", "%25", "=", "%3D")
)

// progressReader reports what passes through it.
type progressReader struct {
	r      io.Reader
	n      int64
	err    error // other than io.EOF
	report Progress
}

func (p *progressReader) Read(b []byte) (int, error) {
	n, err := p.r.Read(b)
	p.n += int64(n)
	p.report.Report("read", p.n, 0)
	if err != nil && err != io.EOF {
		p.err = err
	}
	return n, err
}
