package sbom

import (
	"bytes"
	"debug/buildinfo"
	"debug/elf"
	"encoding/binary"
	"errors"
	"io"
	"runtime/debug"
	"strings"
)

// Sizes of files that are looked into. The smallest Go program, an empty one, has about 1 MB.
const (
	minProgram = 256 << 10
	maxProgram = 2 << 30
)

// program adds the modules of a Go program, if the file is one. A file that cannot be understood
// is none.
func (c *collector) program(name string) error {
	f, err := c.tree.Open(name)
	if err != nil {
		return err
	}
	defer f.Close()
	info, err := readProgram(f)
	if err != nil {
		return err
	}
	if info == nil {
		return nil
	}
	for _, p := range modules(info) {
		p.From = name
		if err := c.add(p); err != nil {
			return err
		}
	}
	return nil
}

// readProgram returns the build information of a Go program, or nil of anything else. The errors
// are those of reading.
func readProgram(r io.ReaderAt) (info *debug.BuildInfo, err error) {
	b := &budget{r: r, left: maxInfo}
	if !hasBuildInfo(b) {
		return nil, b.err
	}
	// The package that reads it is not made for hostile input (see the comment of debug/elf).
	defer func() {
		if recover() != nil {
			info, err = nil, b.err
		}
	}()
	if info, err = buildinfo.Read(b); err != nil {
		return nil, b.err
	}
	return info, nil
}

// maxInfo bounds what is read of one program: tables of sections, and the build information, of
// which the largest known has some 100 KB.
const maxInfo = 16 << 20

// A budget is a reader that ends after so many bytes.
type budget struct {
	r    io.ReaderAt
	left int
	err  error // of reading, but the end
}

func (b *budget) ReadAt(p []byte, off int64) (int, error) {
	if off < 0 || len(p) > b.left {
		return 0, io.ErrUnexpectedEOF
	}
	b.left -= len(p)
	n, err := b.r.ReadAt(p, off)
	if err != nil && err != io.EOF {
		b.err = err
	}
	return n, err
}

// hasBuildInfo reports whether the file is an ELF object with the section .go.buildinfo. It is
// there to be cheap, as nearly all programs are not Go's, and to let nothing through that makes
// debug/elf unpack a compressed table of names.
func hasBuildInfo(r io.ReaderAt) bool {
	var ident [64]byte // of both classes, the longer one
	if _, err := r.ReadAt(ident[:], 0); err != nil || string(ident[:4]) != elf.ELFMAG {
		return false
	}
	var order binary.ByteOrder
	switch elf.Data(ident[elf.EI_DATA]) {
	case elf.ELFDATA2LSB:
		order = binary.LittleEndian
	case elf.ELFDATA2MSB:
		order = binary.BigEndian
	default:
		return false
	}
	var at uint64
	var size, count, names int
	wide := elf.Class(ident[elf.EI_CLASS]) == elf.ELFCLASS64
	switch {
	case wide:
		at, size = order.Uint64(ident[40:]), int(order.Uint16(ident[58:]))
		count, names = int(order.Uint16(ident[60:])), int(order.Uint16(ident[62:]))
		if size != 64 {
			return false
		}
	case elf.Class(ident[elf.EI_CLASS]) == elf.ELFCLASS32:
		at, size = uint64(order.Uint32(ident[32:])), int(order.Uint16(ident[46:]))
		count, names = int(order.Uint16(ident[48:])), int(order.Uint16(ident[50:]))
		if size != 40 {
			return false
		}
	default:
		return false
	}
	// Neither "no sections" nor the escapes for more than 65,279 of them: Go programs have some 30.
	if count == 0 || names >= count || count >= int(elf.SHN_LORESERVE) || at > maxProgram {
		return false
	}
	table := make([]byte, size*count)
	if _, err := r.ReadAt(table, int64(at)); err != nil {
		return false
	}
	s := table[names*size:]
	var flags, off, length uint64
	if wide {
		flags, off, length = order.Uint64(s[8:]), order.Uint64(s[24:]), order.Uint64(s[32:])
	} else {
		flags, off, length = uint64(order.Uint32(s[8:])), uint64(order.Uint32(s[16:])), uint64(order.Uint32(s[20:]))
	}
	if flags&uint64(elf.SHF_COMPRESSED) != 0 || off > maxProgram || length > maxInfo/2 {
		return false
	}
	text := make([]byte, length)
	if _, err := r.ReadAt(text, int64(off)); err != nil && !errors.Is(err, io.EOF) {
		return false
	}
	return bytes.Contains(text, []byte(".go.buildinfo\x00"))
}

// modules returns the modules that a program was built from, replacements in place of what they
// replace, and the standard library.
func modules(info *debug.BuildInfo) []Package {
	var out []Package
	add := func(path, version string) {
		if version == "(devel)" {
			version = ""
		}
		if path == "" || checkText("", path) != "" || checkText("", version) != "" {
			return
		}
		// Paths are in lower case there (purl-spec, types/golang-definition.json).
		out = append(out, Package{Type: Go, Name: path, Version: version, PURL: purl("golang", strings.ToLower(path), version)})
	}
	// "go1.26.0 X:experiment" of a toolchain with experiments.
	if v, ok := strings.CutPrefix(info.GoVersion, "go"); ok {
		v, _, _ = strings.Cut(v, " ")
		add("stdlib", v)
	}
	for _, m := range append([]*debug.Module{&info.Main}, info.Deps...) {
		switch r := m.Replace; {
		case r == nil:
			add(m.Path, m.Version)
		case r.Version == "" || r.Version == "(devel)":
			add(m.Path, "") // by a folder of whoever built it
		default:
			add(r.Path, r.Version)
		}
	}
	return out
}
