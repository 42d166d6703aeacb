package ovf

import (
	"archive/tar"
	"bytes"
	"fmt"
	"io"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"unicode/utf8"
)

// maxMembers bounds what is kept of an archive.
const maxMembers = 10_000

// contents are the files of a package, in an archive or in a folder.
type contents struct {
	archive    bool
	descriptor string
	names      []string // of an archive, in its order; of a folder once they were listed
	listed     bool
	findings   []Finding

	members map[string]Member
	file    *os.File // the archive
	root    *os.Root // the folder
	current *os.File // the file of the folder that was opened last: one at a time is in use
}

func openContents(name string) (*contents, error) {
	f, err := openFile(name)
	if err != nil {
		return nil, err
	}
	p := &contents{members: map[string]Member{}, file: f}
	if err := p.load(name, f); err != nil {
		p.close()
		return nil, err
	}
	return p, nil
}

func (p *contents) load(name string, f *os.File) error {
	st, err := f.Stat()
	if err != nil {
		return err
	}
	if !st.Mode().IsRegular() {
		return fmt.Errorf("not a file")
	}
	head := make([]byte, 512)
	n, err := f.ReadAt(head, 0)
	if err != nil && err != io.EOF {
		return err
	}
	head = head[:n]
	switch text := bytes.TrimLeft(bytes.TrimPrefix(head, []byte("\ufeff")), " \t\r\n"); {
	case bytes.HasPrefix(head, []byte{0x1f, 0x8b}):
		return fmt.Errorf("compressed: importers read OVAs as they are")
	case bytes.HasPrefix(text, []byte("<")), bytes.HasPrefix(head, []byte{0xff, 0xfe}), bytes.HasPrefix(head, []byte{0xfe, 0xff}):
		p.descriptor = filepath.Base(name)
		p.root, err = os.OpenRoot(filepath.Dir(name))
		return err
	}
	switch format, err := probe(f, st.Size()); {
	case err != nil:
		return err
	case format != FormatOVA && format != FormatRaw: // archives of the oldest kind have no mark
		return fmt.Errorf("a %s disk, not an appliance", format)
	}
	p.archive = true
	return p.index(f, st.Size())
}

func (p *contents) close() {
	p.file.Close()
	if p.current != nil {
		p.current.Close()
	}
	if p.root != nil {
		p.root.Close()
	}
}

func (p *contents) find(refused bool, who Importer, format string, args ...any) {
	p.findings = append(p.findings, Finding{Importer: who, Refused: refused, Message: fmt.Sprintf(format, args...)})
}

// damage notes what makes the archive unreadable for all.
func (p *contents) damage(format string, args ...any) {
	p.findings = append(p.findings, Finding{Importer: Everyone, Refused: true, Damage: true, Message: fmt.Sprintf(format, args...)})
}

// index reads the headers of an archive.
func (p *contents) index(f io.ReaderAt, size int64) error {
	r := io.NewSectionReader(f, 0, size)
	t := tar.NewReader(r)
	extended := false
	for {
		h, err := t.Next()
		if err == io.EOF {
			break
		}
		if err != nil && len(p.names) == 0 && len(p.findings) == 0 {
			return fmt.Errorf("neither an OVF descriptor nor a tar archive: %w", err)
		}
		if err != nil {
			p.damage("the archive is damaged behind %d files: %s", len(p.names), err)
			break
		}
		at, err := r.Seek(0, io.SeekCurrent)
		if err != nil {
			return err
		}
		if len(p.names) == maxMembers {
			return fmt.Errorf("more than %d files in the archive", maxMembers)
		}
		switch _, twice := p.members[h.Name]; {
		case h.Typeflag != tar.TypeReg:
			// A folder does no harm; a link leads somewhere, or nowhere.
			p.find(h.Typeflag != tar.TypeDir, Everyone, "%q is not a file: an OVA has files only", h.Name)
			continue
		case !localName(h.Name):
			p.find(true, Everyone, "%q: not the plain name of a file", h.Name)
			continue
		case twice: // and which one counts, readers differ
			p.damage("%q: twice in the archive", h.Name)
			continue
		case sparse(h):
			p.find(true, Everyone, "%q: a sparse file of tar", h.Name)
			continue
		case h.Size > size-at:
			p.damage("%q: the archive ends within it", h.Name)
			continue
		}
		extended = extended || h.Format == tar.FormatPAX
		p.names = append(p.names, h.Name)
		p.members[h.Name] = Member{Name: h.Name, Size: h.Size, Content: io.NewSectionReader(f, at, h.Size)}
		if p.descriptor == "" && strings.EqualFold(path.Ext(h.Name), ".ovf") {
			p.descriptor = h.Name
		}
	}
	if p.descriptor == "" {
		return fmt.Errorf("no OVF descriptor in the archive")
	}
	p.enter(path.Dir(p.descriptor))
	if extended {
		p.find(false, ESXi, "the archive has PAX headers: an OVA is plain ustar")
	}
	p.end(r, f, size)
	return nil
}

// enter takes the package out of the folder of the archive in which all of it is. Names in descriptor
// and manifest are relative to that, as virt-v2v has it; others look for them at the top.
func (p *contents) enter(folder string) {
	within := func(name string) bool { return strings.HasPrefix(name, folder+"/") }
	if folder == "." || slices.ContainsFunc(p.names, func(n string) bool { return !within(n) }) {
		return
	}
	for _, who := range []Importer{VirtualBox7, ESXi, ProxmoxVE} {
		p.find(true, who, "all is in the folder %q of the archive: files are looked for at its top", folder)
	}
	members := map[string]Member{}
	for i, n := range p.names {
		m := p.members[n]
		m.Name = strings.TrimPrefix(n, folder+"/")
		p.names[i], members[m.Name] = m.Name, m
	}
	p.members, p.descriptor = members, path.Base(p.descriptor)
}

// end looks for the two zero blocks and what follows them.
func (p *contents) end(r io.Seeker, f io.ReaderAt, size int64) {
	at, err := r.Seek(0, io.SeekCurrent)
	if err != nil || at < 2*sectorSize {
		return
	}
	mark := make([]byte, 2*sectorSize)
	if _, err := f.ReadAt(mark, at-int64(len(mark))); err != nil || !bytes.Equal(mark, zeros[:len(mark)]) {
		p.find(false, Everyone, "the archive has no end marker: it may be cut short")
		return
	}
	if !onlyZeros(io.NewSectionReader(f, at, size-at)) {
		p.find(false, Everyone, "bytes follow the end of the archive")
	}
}

func onlyZeros(r io.Reader) bool {
	buf := make([]byte, 32<<10)
	for {
		n, err := r.Read(buf)
		if !bytes.Equal(buf[:n], zeros[:n]) {
			return false
		}
		if err != nil {
			return true
		}
	}
}

// sparse tells whether a member is not simply there: in GNU tar's formats, old and new.
func sparse(h *tar.Header) bool {
	for k := range h.PAXRecords {
		if strings.HasPrefix(k, "GNU.sparse.") {
			return true
		}
	}
	return h.Typeflag == tar.TypeGNUSparse
}

// localName tells whether a name is one of a file within the package, on every system. Folders are
// allowed to descriptors that lie in one, but no way out.
func localName(name string) bool {
	return name != "" && utf8.ValidString(name) && !strings.ContainsAny(name, "\x00\\:") && filepath.IsLocal(name) && path.Clean(name) == name
}

// has tells whether a file is there.
func (p *contents) has(name string) bool {
	if p.archive {
		_, ok := p.members[name]
		return ok
	}
	if !localName(name) {
		return false
	}
	st, err := p.root.Stat(name)
	return err == nil && st.Mode().IsRegular()
}

// list returns the names in the archive, or in the folder, which is read once.
func (p *contents) list() []string {
	if p.archive || p.listed {
		return p.names
	}
	p.listed = true
	if d, err := p.root.Open("."); err == nil {
		p.names, _ = d.Readdirnames(maxMembers)
		d.Close()
	}
	return p.names
}

// similar returns a file whose name differs from this one in case only, or "".
func (p *contents) similar(name string) string {
	names := p.list()
	if i := slices.IndexFunc(names, func(n string) bool { return strings.EqualFold(n, name) }); i >= 0 {
		return names[i]
	}
	return ""
}

// beside returns the files with a suffix, in any case: all of an archive; of a folder, which may hold
// several appliances, the one that is called as the descriptor.
func (p *contents) beside(suffix string) (names []string) {
	own := stem(p.descriptor) + suffix
	for _, n := range p.list() {
		if strings.EqualFold(path.Ext(n), suffix) && (p.archive || strings.EqualFold(n, own)) && p.has(n) {
			names = append(names, n)
		}
	}
	if len(names) == 0 && p.has(own) { // in a folder too large to be listed
		names = append(names, own)
	}
	return names
}

// open returns a file of the package, to be read before the next one is opened.
func (p *contents) open(name string) (Member, error) {
	if p.archive {
		return p.members[name], nil
	}
	f, err := p.root.Open(name)
	if err != nil {
		return Member{}, err
	}
	if p.current != nil {
		p.current.Close()
	}
	p.current = f
	st, err := f.Stat()
	if err != nil {
		return Member{}, err
	}
	if !st.Mode().IsRegular() {
		return Member{}, fmt.Errorf("%q: not a file", name)
	}
	return Member{Name: name, Size: st.Size(), Content: f}, nil
}

// read returns a small file of the package.
func (p *contents) read(name string, most int64) ([]byte, error) {
	m, err := p.open(name)
	if err != nil {
		return nil, err
	}
	if m.Size > most {
		return nil, fmt.Errorf("%q: %d bytes: more than %d", name, m.Size, most)
	}
	b := make([]byte, m.Size)
	return b, readFull(m.Content, b, 0, fmt.Sprintf("%q", name))
}
