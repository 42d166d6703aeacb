package image

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"strings"
	"unicode/utf8"
)

// A Dialect is a variant of the tar format that is written.
type Dialect string

const (
	// Pax is the POSIX.1-2001 interchange format: nothing is lost. GNU tar, bsdtar and with them
	// the OmniOS illumos and lx brands read it.
	Pax Dialect = "pax"
	// USTARStrict is POSIX.1-1988 without any extension, for the shared brand library of illumos,
	// whose tar(1) takes a pax header for a file: names split 155/100, sizes below 8 GiB, ids below
	// 2097152, whole seconds, no extended attributes. What does not fit is an error.
	USTARStrict Dialect = "ustar-strict"
)

// WriteTar writes a frozen tree as an archive. The bytes depend on the tree and the dialect only:
// entries stand in the order of [Compare], owners are numbers, times are as in the tree.
func WriteTar(ctx context.Context, w io.Writer, t *Tree, d Dialect, p Progress) error {
	tw := tar.NewWriter(w)
	buf := make([]byte, 256<<10)
	total := t.Bytes()
	var done int64
	for e := range t.All() {
		if err := ctx.Err(); err != nil {
			return err
		}
		if err := writeEntry(tw, t, e, d, buf); err != nil {
			return err
		}
		if e.HardLink == "" {
			done += e.Size
		}
		p.Report("write", done, total)
	}
	return tw.Close()
}

func writeEntry(tw *tar.Writer, t *Tree, e *Entry, d Dialect, buf []byte) error {
	h, err := header(e, d)
	if err != nil {
		return fmt.Errorf("entry %q: %w", e.Name, err)
	}
	if err := tw.WriteHeader(h); err != nil {
		if !strings.HasPrefix(err.Error(), "archive/tar") { // the writer's, not the entry's
			return err
		}
		return fmt.Errorf("entry %q: does not fit %s: %w", e.Name, d, err)
	}
	if h.Typeflag != tar.TypeReg || e.Size == 0 {
		return nil
	}
	f, err := t.Open(e.Name)
	if err != nil {
		return err
	}
	_, err = io.CopyBuffer(onlyWriter{tw}, io.NewSectionReader(f, 0, f.Size()), buf)
	return errors.Join(err, f.Close())
}

// onlyWriter hides ReadFrom, so that the buffer is used.
type onlyWriter struct{ io.Writer }

// header describes e in the dialect.
func header(e *Entry, d Dialect) (*tar.Header, error) {
	h := &tar.Header{
		Name: e.Name, Mode: int64(e.Perm()), Uid: e.UID, Gid: e.GID,
		ModTime: e.ModTime, Format: tar.FormatPAX,
	}
	if e.Name == "." {
		h.Name = "./"
	}
	switch e.Type() {
	case 0:
		h.Typeflag, h.Size = tar.TypeReg, e.Size
	case fs.ModeDir:
		h.Typeflag = tar.TypeDir
		if e.Name != "." {
			h.Name += "/"
		}
	case fs.ModeSymlink:
		h.Typeflag, h.Linkname = tar.TypeSymlink, e.Target
	case fs.ModeNamedPipe:
		h.Typeflag = tar.TypeFifo
	case fs.ModeDevice | fs.ModeCharDevice:
		h.Typeflag = tar.TypeChar
	case fs.ModeDevice:
		h.Typeflag = tar.TypeBlock
	default:
		return nil, fmt.Errorf("an archive cannot hold a %s: remove it", TypeName(e.Mode))
	}
	if e.Mode&fs.ModeDevice != 0 {
		h.Devmajor, h.Devminor = int64(e.Rdev.Major), int64(e.Rdev.Minor)
	}
	if e.HardLink != "" {
		h.Typeflag, h.Linkname, h.Size, h.Devmajor, h.Devminor = tar.TypeLink, e.HardLink, 0, 0, 0
	}
	switch d {
	case Pax:
		records := map[string]string{}
		for name, value := range e.Xattrs {
			records["SCHILY.xattr."+escapeKey.Replace(name)] = string(value)
		}
		if !utf8.ValidString(h.Name) || !utf8.ValidString(h.Linkname) {
			records["hdrcharset"] = "BINARY"
		}
		if len(records) > 0 {
			h.PAXRecords = records
		}
	case USTARStrict:
		h.Format = tar.FormatUSTAR
		if len(e.Xattrs) > 0 {
			return nil, fmt.Errorf("%s has no extended attributes", d)
		}
		if e.ModTime.Nanosecond() != 0 {
			return nil, fmt.Errorf("%s has whole seconds only: its time is %s", d, e.ModTime.Format("2006-01-02T15:04:05.999999999Z"))
		}
		if e.UID >= 1<<21 || e.GID >= 1<<21 {
			return nil, fmt.Errorf("%s has ids below %d only: its owner is %d:%d", d, 1<<21, e.UID, e.GID)
		}
	default:
		return nil, fmt.Errorf("unknown dialect %q", d)
	}
	return h, nil
}
