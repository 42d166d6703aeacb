package builder

import (
	"bytes"
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"iter"
	"path"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/goldenisc/packer-plugin-isc/image"
	"github.com/goldenisc/packer-plugin-isc/zfs"
)

// SmartOS mounts its own /lib, /sbin and /usr over those of a zone of the brand joyent, read-only
// (usr/src/lib/brand/joyent/zone/platform.xml of illumos-joyent), and the folder site of the zonepath
// over /lib/svc/manifest/site.
var platformDirs = []string{"lib", "sbin", "usr"}

const (
	manifestDir = "lib/svc/manifest/site" // of the root
	methodDir   = "lib/svc/method"
	siteDir     = "site"              // of the zonepath
	movedDir    = "opt/iscadm/method" // of the root, for what was in methodDir
	zoneRoot    = "root"              // of the zonepath
	maxManifest = 1 << 20             // bytes of a manifest whose methods move
)

// Paths is the artifact that says where the files of a root are in a dataset, if not at the same path
// below its folder Root: what compares a clone with the content manifest goes by it.
type Paths struct {
	Schema int    `json:"schema"` // 1
	Root   string `json:"root"`
	// Hidden are directories of which the dataset has nothing: the host has its own.
	Hidden []string `json:"hidden"`
	Moved  []Moved  `json:"moved"`
	// Added are directories that the root does not have, by their path in the dataset.
	Added []string `json:"added"`
}

// A Moved is a file that is elsewhere in the dataset.
type Moved struct {
	Name string `json:"name"` // in the root
	Path string `json:"path"` // in the dataset
	// Of the content, if it is not that of the root: a manifest that names moved methods.
	Size   int64  `json:"size,omitempty"`
	SHA256 string `json:"sha256,omitempty"`

	data []byte
}

// Marshal encodes the paths. The bytes depend on their values only.
func (p *Paths) Marshal() ([]byte, error) {
	return marshalJSON(p)
}

// ParsePaths decodes paths strictly.
func ParsePaths(data []byte) (*Paths, error) {
	p := new(Paths)
	if err := image.DecodeStrict(data, p); err != nil {
		return nil, fmt.Errorf("paths: %w", err)
	}
	if p.Schema != 1 {
		return nil, fmt.Errorf("paths: schema %d: this program knows 1", p.Schema)
	}
	names := append(slices.Clone(p.Hidden), p.Root)
	for _, m := range p.Moved {
		names = append(names, m.Name, m.Path)
	}
	for _, name := range append(names, p.Added...) {
		if clean, err := image.Clean(name); err != nil || clean != name {
			return nil, errors.Join(fmt.Errorf("paths: %q is no clean name", name), err)
		}
	}
	return p, nil
}

// A placement is how the objects of a tree stand in a dataset; the zero value is as in the tree.
type placement struct {
	paths *Paths            // or nil, if nothing moves
	moved map[string]*Moved // of paths, by name
}

// A baseFile is what a base has below one of the platform's directories.
type baseFile struct {
	mode   fs.FileMode // its type
	digest [sha256.Size]byte
	target string
}

func baseFileOf(e *image.Entry) baseFile { return baseFile{e.Type(), e.Digest, e.Target} }

// hiddenBy returns the directory of the platform that a name is below, or is.
func hiddenBy(name string) string {
	top, _, _ := strings.Cut(name, "/")
	if slices.Contains(platformDirs, top) {
		return top
	}
	return ""
}

// platformFiles notes what the base has where SmartOS has its own, so that what an image adds there is
// told apart. It is nil for images that no such zone is made of.
func (s *Spec) platformFiles(t *image.Tree) map[string]baseFile {
	if !slices.ContainsFunc(s.Artifacts, func(k KindBlock) bool {
		z, ok := k.Writer.(*ZFS)
		return ok && s.Image != nil && z.brand(s.Image.OS) == brandJoyent
	}) {
		return nil
	}
	m := map[string]baseFile{}
	for e := range t.All() {
		if hiddenBy(e.Name) != "" {
			m[e.Name] = baseFileOf(e)
		}
	}
	return m
}

// hiddenFiles are the errors of files that a spec puts where a zone of SmartOS would not see them.
func hiddenFiles(s *Spec) (errs []error) {
	check := func(block, name string) {
		clean, err := image.Clean(name)
		if err != nil {
			return // reported for the block itself
		}
		if dir := hiddenBy(clean); dir != "" && movedTo(clean) == "" {
			errs = append(errs, hidden(fmt.Sprintf("%s %q", block, name), dir))
		}
	}
	for _, f := range s.Files {
		check("file", f.Path)
	}
	for _, l := range s.Links {
		check("link", l.Path)
	}
	return errs
}

func hidden(what, dir string) error {
	return fmt.Errorf("%s: SmartOS has its own /%s in zones of the brand %s: use /opt, or %q for manifests and %q for methods, which are moved", what, dir, brandJoyent, "/"+manifestDir, "/"+methodDir)
}

// movedTo returns where in the zonepath a file is that can be moved out of the platform's directories,
// or "".
func movedTo(name string) string {
	if rest, ok := strings.CutPrefix(name, manifestDir+"/"); ok {
		return siteDir + "/" + rest
	}
	if rest, ok := strings.CutPrefix(name, methodDir+"/"); ok {
		return path.Join(zoneRoot, movedDir, rest)
	}
	return ""
}

// place finds out where the objects of the source go.
func (z *ZFS) place(src *Source) (*placement, error) {
	if z.brand(src.Spec.Image.OS) != brandJoyent {
		return &placement{}, nil
	}
	p := &placement{
		paths: &Paths{Schema: 1, Root: zoneRoot, Hidden: platformDirs, Moved: []Moved{}},
		moved: map[string]*Moved{},
	}
	var errs []error
	var dirs []string
	for e := range src.Tree.All() {
		dir := hiddenBy(e.Name)
		if was, ok := src.platform[e.Name]; dir == "" || e.IsDir() || ok && was == baseFileOf(e) {
			continue
		}
		to := movedTo(e.Name)
		switch {
		case to == "":
			errs = append(errs, hidden(fmt.Sprintf("%s %q", image.TypeName(e.Mode), e.Name), dir))
			continue
		case e.HardLink != "":
			errs = append(errs, fmt.Errorf("%q: is a further name of %q, which is not moved with it", e.Name, e.HardLink))
			continue
		case !utf8.ValidString(e.Name):
			errs = append(errs, fmt.Errorf("%q: is not UTF-8", e.Name))
			continue
		}
		p.paths.Moved = append(p.paths.Moved, Moved{Name: e.Name, Path: to})
		for dir := path.Dir(to); dir != "."; dir = path.Dir(dir) {
			dirs = append(dirs, dir)
		}
	}
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	for i := range p.paths.Moved {
		p.moved[p.paths.Moved[i].Name] = &p.paths.Moved[i]
	}
	if err := p.rewrite(src.Tree); err != nil {
		return nil, err
	}
	slices.Sort(dirs)
	for _, dir := range slices.Compact(append(dirs, siteDir)) {
		name, inRoot := strings.CutPrefix(dir, zoneRoot+"/")
		if dir == zoneRoot {
			continue
		}
		e, err := src.Tree.Stat(name)
		switch {
		case inRoot && err == nil && !e.IsDir():
			return nil, fmt.Errorf("%q is a %s: methods cannot be moved below it", name, image.TypeName(e.Mode))
		case !inRoot || err != nil:
			p.paths.Added = append(p.paths.Added, dir)
		}
	}
	slices.Sort(p.paths.Added)
	p.paths.Added = slices.Compact(p.paths.Added)
	return p, nil
}

// rewrite has the manifests among what moved name the methods where they are.
func (p *placement) rewrite(t *image.Tree) error {
	for i := range p.paths.Moved {
		m := &p.paths.Moved[i]
		e, err := t.Stat(m.Name)
		if err != nil {
			return err
		}
		if !strings.HasPrefix(m.Name, manifestDir+"/") || !e.IsRegular() || !strings.HasSuffix(m.Name, ".xml") {
			continue
		}
		if e.Size > maxManifest {
			return fmt.Errorf("manifest %q: %d bytes are more than %d", m.Name, e.Size, maxManifest)
		}
		data, err := t.ReadFile(m.Name)
		if err != nil {
			return err
		}
		now := p.methods(data)
		if bytes.Equal(now, data) {
			continue
		}
		sum := sha256.Sum256(now)
		m.data, m.Size, m.SHA256 = now, int64(len(now)), hex.EncodeToString(sum[:])
	}
	return nil
}

// methods replaces the paths of methods that moved in a manifest.
func (p *placement) methods(data []byte) []byte {
	prefix := []byte("/" + methodDir + "/")
	var out []byte
	for {
		i := bytes.Index(data, prefix)
		if i < 0 {
			return append(out, data...)
		}
		end := i + len(prefix)
		for end < len(data) && !bytes.ContainsRune([]byte("'\"<>& \t\r\n;:"), rune(data[end])) {
			end++
		}
		to := string(data[i:end])
		if m := p.moved[strings.TrimPrefix(to, "/")]; m != nil {
			to = strings.TrimPrefix(m.Path, zoneRoot)
		}
		out = append(append(out, data[:i]...), to...)
		data = data[end:]
	}
}

// objects yields the objects of the source as the dataset has them.
func (p *placement) objects(ctx context.Context, src *Source) iter.Seq2[*zfs.Object, error] {
	return func(yield func(*zfs.Object, error) bool) {
		if p.paths != nil && !p.zonepath(src, yield) {
			return
		}
		first := map[string]string{} // paths of objects whose first name the platform hides, by that name
		for e := range src.Tree.All() {
			if err := ctx.Err(); err != nil {
				yield(nil, err)
				return
			}
			o := objectOf(src.Tree, e)
			if p.paths != nil && !p.move(e, o, first) {
				continue
			}
			if !yield(o, nil) {
				return
			}
		}
	}
}

// where returns the path in a zonepath of a name, or "" if it is hidden there.
func (p *placement) where(name string) string {
	if dir := hiddenBy(name); dir == "" || name == dir { // what the host mounts over must be there
		return path.Join(zoneRoot, name)
	}
	if m := p.moved[name]; m != nil {
		return m.Path
	}
	return ""
}

// move sets the object's path in a zonepath, and reports whether it is there at all.
func (p *placement) move(e *image.Entry, o *zfs.Object, first map[string]string) bool {
	if o.Path = p.where(e.Name); o.Path == "" {
		return false
	}
	if e.HardLink != "" {
		if o.Link = p.where(e.HardLink); o.Link == "" {
			if o.Link = first[e.HardLink]; o.Link == "" {
				first[e.HardLink] = o.Path
			}
		}
	}
	if m := p.moved[e.Name]; m != nil && m.data != nil {
		o.Size, o.Digest = m.Size, sha256.Sum256(m.data)
		o.Open = func() (zfs.Content, error) { return zfs.BytesContent(m.data), nil }
	}
	return true
}

// zonepath yields the directories that the root does not have.
func (p *placement) zonepath(src *Source, yield func(*zfs.Object, error) bool) bool {
	for _, dir := range append([]string{"."}, p.paths.Added...) {
		o := &zfs.Object{Path: dir, Mode: fs.ModeDir | 0o755, ModTime: src.Created}
		if dir == "." {
			o.Mode = fs.ModeDir | 0o700 // zoneadm(8) refuses a zonepath that others can enter
		}
		if !yield(o, nil) {
			return false
		}
	}
	return true
}

// objectOf describes an entry of a tree for package zfs.
func objectOf(t *image.Tree, e *image.Entry) *zfs.Object {
	o := &zfs.Object{
		Path: e.Name, Mode: e.Mode, UID: e.UID, GID: e.GID, ModTime: e.ModTime, Size: e.Size,
		Rdev: zfs.Device(e.Rdev), Target: e.Target, Link: e.HardLink, Xattrs: e.Xattrs, Digest: e.Digest,
	}
	if e.IsRegular() && e.Size > 0 {
		o.Open = func() (zfs.Content, error) {
			f, err := t.Open(e.Name)
			if err != nil {
				return nil, err
			}
			return zfsContent{f}, nil
		}
	}
	return o
}

// A zfsContent is a file of a tree as package zfs has one.
type zfsContent struct{ image.File }

func (c zfsContent) Extents() []zfs.Extent {
	var out []zfs.Extent
	for _, x := range c.File.Extents() {
		out = append(out, zfs.Extent(x))
	}
	return out
}

// latest returns the map of the latest version among bases, or nil.
func latest(bases []*earlier) *zfs.Map {
	if len(bases) == 0 {
		return nil
	}
	return slices.MaxFunc(bases, func(a, b *earlier) int { return cmp.Compare(a.objects.Version(), b.objects.Version()) }).objects
}
