package zfs

import (
	"bufio"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"time"
)

// Dump prints a stream as text, line by line so that two of them can be compared: its records in
// order, without what differs in all of them (guids and running checksums) and with the digest of
// each block; then, for full streams, the objects of each file system with their attributes and
// directory entries.
func Dump(w io.Writer, r io.ReaderAt, size int64) error {
	p := &printer{w: bufio.NewWriter(w)}
	z := NewReader(io.NewSectionReader(r, 0, size))
	for {
		rec, err := z.Next()
		if err == io.EOF {
			break
		}
		if err != nil {
			p.w.Flush()
			return err
		}
		p.record(rec)
	}
	for _, name := range p.full {
		s, err := Open(r, size, name)
		if err == nil {
			err = p.snapshot(s)
		}
		if err != nil {
			p.w.Flush()
			return err
		}
	}
	return p.w.Flush()
}

// A printer prints a stream. Its writer keeps the first error.
type printer struct {
	w    *bufio.Writer
	full []string // snapshots of full streams of file systems
}

func (p *printer) line(format string, args ...any) { fmt.Fprintf(p.w, format+"\n", args...) }

var compressionNames = map[uint8]string{
	0: "", compressOff: "off", compressLZJB: "lzjb", compressEmpty: "empty", compressZLE: "zle", compressLZ4: "lz4", compressZstd: "zstd",
}

func compressionName(c uint8) string {
	if c >= compressGzip1 && c <= compressGzip9 {
		return fmt.Sprintf("gzip-%d", c-compressGzip1+1)
	}
	if s, ok := compressionNames[c]; ok {
		return s
	}
	return fmt.Sprintf("compression %d", c)
}

func (p *printer) record(rec *Record) {
	var b strings.Builder
	say := func(format string, args ...any) { fmt.Fprintf(&b, format, args...) }
	switch rec.Type {
	case RecordBegin:
		h := rec.Header
		say(" %q guid %#016x", h.Name, h.GUID)
		if h.FromGUID != 0 {
			say(" from %#016x", h.FromGUID)
		}
		say(" created %s", h.Created.Format(time.RFC3339))
		for _, f := range []struct {
			set  bool
			name string
		}{
			{h.Package, "package"},
			{h.Clone, "clone"},
			{!h.FileSystem && !h.Package, "volume"},
			{h.spillFlags, "spill flags"},
			{h.order == binary.BigEndian, "big-endian"},
		} {
			if f.set {
				say(", %s", f.name)
			}
		}
		if len(h.Features) > 0 {
			say(" features %s", strings.Join(h.Features, ","))
		}
		if h.FileSystem && !h.Package && h.FromGUID == 0 {
			p.full = append(p.full, h.Name)
		}
	case RecordObject:
		say(" %d %s, blocks of %d", rec.Object, typeName(rec.Kind), rec.BlockSize)
		if rec.BonusSize > 0 {
			say(", bonus %s %d %s", typeName(rec.BonusType), rec.BonusSize, short(rec.Payload))
		}
		if rec.Slots > 1 {
			say(", %d slots", rec.Slots)
		}
		if rec.HasSpill {
			say(", spill")
		}
	case RecordFreeObjects:
		say(" %d to %d", rec.Object, rec.Object+rec.Count)
	case RecordFree:
		if rec.Length == noLength {
			say(" %d from %d", rec.Object, rec.Offset)
		} else {
			say(" %d from %d to %d", rec.Object, rec.Offset, rec.Offset+rec.Length)
		}
	case RecordWriteByRef:
		say(" %d at %d, %d of object %d at %d of %#016x", rec.Object, rec.Offset, rec.Length, rec.RefObject, rec.RefOffset, rec.RefGUID)
	case RecordWrite, RecordWriteEmbedded:
		say(" %d at %d, %d", rec.Object, rec.Offset, rec.Length)
		if rec.Compression != 0 {
			say(" %s %d", compressionName(rec.Compression), rec.PayloadSize)
		}
		say(" %s", short(rec.Payload))
	case RecordSpill:
		say(" %d, %d %s", rec.Object, rec.Length, short(rec.Payload))
	}
	p.line("%v%s", rec.Type, b.String())
}

// short returns the beginning of a digest of b.
func short(b []byte) string {
	sum := sha256.Sum256(b)
	return fmt.Sprintf("%x", sum[:8])
}

// snapshot prints the objects of a file system by number.
func (p *printer) snapshot(s *Snapshot) error {
	p.line("\nfile system %q version %d", s.header.Name, s.zpl.version)
	if a := s.zpl.attrs; a != nil {
		for _, n := range slices.Sorted(maps.Keys(a.names)) {
			p.line("attribute %d %s %d", n, a.names[n], a.lengths[n])
		}
		for _, n := range slices.Sorted(maps.Keys(a.layouts)) {
			var names []string
			for _, attr := range a.layouts[n] {
				names = append(names, strings.TrimPrefix(a.names[attr], "ZPL_"))
			}
			p.line("layout %d %s", n, strings.Join(names, " "))
		}
	}
	for n, d := range s.set.numbersOf() {
		p.line("object %d %s", n, typeName(d.kind))
		if d.bonusType == typeZnode || d.bonusType == typeSA {
			if err := p.inode(s, d); err != nil {
				return fmt.Errorf("snapshot %q: object %d: %w", s.header.Name, n, err)
			}
		}
		if err := p.entries(s, d); err != nil {
			return fmt.Errorf("snapshot %q: object %d: %w", s.header.Name, n, err)
		}
	}
	return nil
}

func (p *printer) inode(s *Snapshot, d *dnode) error {
	z, err := s.set.inode(d, s.zpl.attrs)
	if err != nil {
		return err
	}
	p.line("  mode %#o uid %d gid %d links %d size %d parent %d gen %d flags %#x", z.mode, z.uid, z.gid, z.links, z.size, z.parent, z.gen, z.flags)
	p.line("  modified %s", time.Unix(z.sec, z.nsec).UTC().Format(time.RFC3339Nano))
	if len(z.layouts) > 0 {
		p.line("  layouts %d", z.layouts)
	}
	if len(z.acl) > 0 {
		p.line("  acl %x", z.acl)
	}
	if z.xattr != 0 {
		p.line("  extended attributes in object %d", z.xattr)
	}
	switch z.mode & modeType {
	case modeSymlink:
		target, err := s.target(d, z)
		if err != nil {
			return err
		}
		p.line("  target %q", target)
	case modeChar, modeBlock:
		p.line("  device %#x", z.rdev)
	}
	if len(z.dxattr) > 0 {
		m, err := unpackXattrs(z.dxattr)
		if err != nil {
			return err
		}
		for _, name := range slices.Sorted(maps.Keys(m)) {
			p.line("  extended attribute %q %d %s", name, len(m[name]), short(m[name]))
		}
	}
	return nil
}

// entries prints what is in a directory or another zap, by name.
func (p *printer) entries(s *Snapshot, d *dnode) error {
	switch d.kind {
	case typeDirectory:
		entries, err := s.directory(d)
		if err != nil {
			return err
		}
		for _, e := range entries {
			p.line("  entry %q %#o %d", e.name, e.kind, e.object)
		}
	case typeMaster, typeUnlinked, typeSAMaster:
		var lines []string
		if _, err := s.set.zap(d, func(e *zapItem) error {
			lines = append(lines, fmt.Sprintf("  entry %q %x", e.name, e.value))
			return nil
		}); err != nil {
			return err
		}
		slices.Sort(lines)
		for _, l := range lines {
			p.line("%s", l)
		}
	}
	return nil
}
