package builder

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path"
	"slices"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/goldenisc/packer-plugin-isc/image"
	"github.com/goldenisc/packer-plugin-isc/internal/hcltext"
	"github.com/goldenisc/packer-plugin-isc/internal/sbom"
	"github.com/goldenisc/packer-plugin-isc/profiles"
	"github.com/goldenisc/packer-plugin-isc/registry"
)

// Build options. The zero value builds everything that the spec asks for.
type BuildOptions struct {
	// Created is the build date, from SOURCE_DATE_EPOCH: times after it are set to it. Zero means
	// the newest time in the base.
	Created   time.Time
	Today     time.Time // what waivers are held against; it never reaches the image
	Version   string    // of the program that builds, for the provenance
	Artifacts []string  // names of the artifact blocks to write; default all
	Lock      *Lock     // what bases must be, if not nil
	Dir       string    // for temporary files
	PlainHTTP bool      // also to registries on other machines that bases come from
	Progress  image.Progress
	Log       *slog.Logger // warnings; required
	Trust     Trust        // of images that increments start from; nil takes those that are pinned, and warns of others
	// Provision, if not nil, changes the tree after the spec's own files are laid and before the
	// profile is applied, and reports whether it changed anything: the provenance says so, for
	// nobody can repeat it from the spec.
	Provision func(ctx context.Context, t *image.Tree, created time.Time) (changed bool, err error)
}

// registry is how the registries of bases are spoken to.
func (o BuildOptions) registry() registry.Options { return registry.Options{PlainHTTP: o.PlainHTTP} }

// A Built is a base with everything that the spec asks for applied to it: ready to be written.
type Built struct {
	Source     *Source
	Config     *image.Config // complete but for the artifacts
	Report     *profiles.Report
	Provenance *Provenance
}

// Close releases the content of the tree.
func (b *Built) Close() error {
	err := b.Source.Tree.Close()
	if b.Source.Disk != nil {
		err = errors.Join(err, b.Source.Disk.Close())
	}
	return err
}

// ErrFindings is returned by Prepare for an image that does not hold to its profile.
var ErrFindings = errors.New("controls do not hold")

// Prepare opens the base, lays the image's own files, accounts and services, applies the profile
// and freezes the tree. Nothing is written yet. If controls do not hold that nobody has waived,
// the error is ErrFindings, and the result is there for its report.
func Prepare(ctx context.Context, s *Spec, o BuildOptions) (*Built, error) {
	if s.Base == nil {
		return prepareDisk(ctx, s, o)
	}
	t, base, err := OpenBase(ctx, s, o)
	if err != nil {
		return nil, err
	}
	b, err := prepare(ctx, s, o, t, base)
	if err != nil && b == nil {
		t.Close()
	}
	return b, err
}

func prepare(ctx context.Context, s *Spec, o BuildOptions, t *image.Tree, base image.Base) (*Built, error) {
	switch {
	case o.Lock != nil:
		if err := o.Lock.Check(base.Source, base.Digest); err != nil {
			return nil, err
		}
	case s.Base.SHA256 == "" && base.Digest != "" && !strings.HasPrefix(base.Source, "skeleton:") && !strings.Contains(base.Source, "@sha256:"):
		o.Log.Warn("the base is not pinned", "source", base.Source, "digest", base.Digest)
	}
	facts, err := Inspect(t)
	if err != nil {
		return nil, fmt.Errorf("base %q: %w", base.Source, err)
	}
	if err := s.CheckBase(facts); err != nil {
		return nil, Input(err)
	}
	base.Release = facts.Release
	created := o.Created
	if created.IsZero() {
		created = newest(t)
	}
	created = created.UTC().Truncate(time.Second)
	earlier, sources, err := s.openEarlier(ctx, o)
	if err != nil {
		return nil, err
	}
	platform := s.platformFiles(t)

	e := &editor{
		spec: s, tree: t, created: created, progress: o.Progress,
		asked: profiles.Asked{Files: map[string]string{}, Trees: map[string]bool{}, Users: s.Layout.Users},
	}
	if err := e.run(ctx); err != nil {
		return nil, err
	}
	provisioned := false
	if o.Provision != nil {
		if provisioned, err = o.Provision(ctx, t, created); err != nil {
			return nil, err
		}
	}
	if err := s.Layout.CheckPresent(t); err != nil {
		return nil, s.placed(err)
	}
	selection, err := s.selection()
	if err != nil {
		return nil, Input(err)
	}
	selection = selection.For(e.asked)
	if err := profiles.Apply(t, selection, created); err != nil {
		return nil, s.placed(err)
	}
	t.Freeze(created)
	report, err := profiles.Audit(t, selection, o.Today)
	if err != nil {
		return nil, err
	}
	var disk *CapturedDisk
	if s.Disk != nil {
		if disk, err = captured(ctx, s, o); err != nil {
			return nil, err
		}
		e.sources = append(e.sources, disk.dependency(s))
	}
	e.sources = append(e.sources, sources...)
	mutables, err := s.mutables(t)
	if err != nil {
		return nil, err
	}
	b := &Built{
		Source: &Source{
			Tree: t, Disk: disk, Spec: s, Selection: selection, Created: created, Dir: o.Dir, Progress: o.Progress,
			earlier: earlier, platform: platform,
		},
		Config: config(s, base, created, report, mutables),
		Report: report,
	}
	if b.Provenance, err = newProvenance(s, o.Version, b.Config, e.sources); err != nil {
		if disk != nil {
			disk.Close()
		}
		return nil, err
	}
	b.Provenance.BuildDefinition.Internal.Provisioned = provisioned
	if n := report.Count(profiles.Fail); n > 0 {
		return b, fmt.Errorf("%w: %d of profile %q", ErrFindings, n, report.Profile)
	}
	return b, nil
}

// selection is the profile of the spec with its parameters and waivers.
func (s *Spec) selection() (*profiles.Selection, error) {
	p := s.Profile
	if p == nil {
		p = &Profile{Name: DefaultProfile}
	}
	var waivers []image.Waiver
	for _, w := range p.Waive {
		waivers = append(waivers, image.Waiver{Control: w.Control, Reason: w.Reason, Until: w.Until})
	}
	profile, err := s.loadProfile(p)
	if err != nil {
		return nil, err
	}
	return profile.Select(s.Image.OS, p.Set, waivers)
}

// loadProfile returns one that is built in, or that of a file.
func (s *Spec) loadProfile(p *Profile) (*profiles.Profile, error) {
	if p.Source == "" {
		return profiles.Load(p.Name)
	}
	name := local(s.Dir, p.Source)
	src, err := readBounded(name)
	if err != nil {
		return nil, fmt.Errorf("profile: %w", err)
	}
	profile, diags := profiles.Parse(name, src)
	if diags.HasErrors() {
		return nil, diags
	}
	return profile, nil
}

// newest returns the newest time of a tree.
func newest(t *image.Tree) time.Time {
	var at time.Time
	for e := range t.All() {
		if e.ModTime.After(at) {
			at = e.ModTime
		}
	}
	return at
}

// An editor applies the blocks of a spec to a tree.
type editor struct {
	spec     *Spec
	tree     *image.Tree
	created  time.Time
	progress image.Progress
	sources  []Dependency // what was read, but for the base
	asked    profiles.Asked
}

// run goes from what is most general to what is most specific, so that a file of the spec wins
// over one that a tree brings or that is generated.
func (e *editor) run(ctx context.Context) error {
	for i := range e.spec.Removes {
		if err := e.remove(&e.spec.Removes[i]); err != nil {
			return err
		}
	}
	for i := range e.spec.Trees {
		if err := e.lay(ctx, &e.spec.Trees[i]); err != nil {
			return fmt.Errorf("tree %q: %w", e.spec.Trees[i].Path, err)
		}
	}
	if err := e.spec.Layout.Apply(e.tree, e.created); err != nil {
		return e.spec.placed(err)
	}
	for i := range e.spec.Files {
		f := &e.spec.Files[i]
		err := e.file(f)
		if err == nil {
			err = e.noteLaid("file", f.Path)
		}
		if err != nil {
			return declined(fmt.Errorf("file %q: %w", f.Path, err))
		}
	}
	for i := range e.spec.Links {
		l := &e.spec.Links[i]
		err := e.link(l)
		if err == nil {
			err = e.noteLaid("link", l.Path)
		}
		if err != nil {
			return declined(fmt.Errorf("link %q: %w", l.Path, err))
		}
	}
	return nil
}

// declined makes bad input of what a tree does not take; what this machine does not do is a PathError.
func declined(err error) error {
	if errors.As(err, new(*fs.PathError)) {
		return err
	}
	return Input(err)
}

// remove takes out what matches. A pattern that matches nothing is an error: it would hide that
// the base has changed.
func (e *editor) remove(r *Remove) error {
	for _, pattern := range r.Paths {
		names, err := e.tree.Glob(pattern)
		if err == nil && len(names) == 0 {
			err = errors.New("nothing in the base matches")
		}
		if err != nil {
			return Input(fmt.Errorf("remove %q: %w", pattern, err))
		}
		for _, name := range names {
			if err := e.tree.Remove(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
				return fmt.Errorf("remove %q: %w", pattern, err)
			}
		}
	}
	return nil
}

// lay puts a folder or an archive over the root.
func (e *editor) lay(ctx context.Context, tr *Tree) error {
	loc, err := ParseSource(tr.Source, e.spec.Dir)
	if err != nil {
		return err
	}
	before := map[string]bool{}
	content := map[string][sha256.Size]byte{}
	for en := range e.tree.All() {
		before[en.Name] = true
		content[en.Name] = en.Digest
	}
	if loc.Scheme == "dir" {
		err = e.tree.AddDir(ctx, loc.Path, tr.Path, e.progress)
	} else {
		var f *os.File
		if f, err = os.Open(loc.Path); err != nil {
			return err
		}
		e.tree.Own(f)
		err = e.tree.AddTar(ctx, f, tr.Path, e.progress)
	}
	if err == nil {
		err = e.noteTree(ctx, tr, loc)
	}
	for en := range e.tree.All() {
		if content[en.Name] != en.Digest {
			e.asked.Trees[en.Name] = true
		}
	}
	if err != nil || loc.Scheme != "dir" && tr.Owner == "" && tr.Group == "" {
		return err
	}
	return e.own(tr, before)
}

// own gives what a tree brought its owner: the numbers in a folder are those of whoever works on
// this machine. Directories that were there before keep theirs.
func (e *editor) own(tr *Tree, before map[string]bool) error {
	at, err := image.Clean(tr.Path)
	if err != nil {
		return err
	}
	var as image.Entry
	if err := chown(e.tree, &as, tr.Owner, tr.Group); err != nil {
		return err
	}
	var names []string
	for en := range e.tree.All() {
		if (en.Name == at || at == "." || strings.HasPrefix(en.Name, at+"/")) && !before[en.Name] {
			names = append(names, en.Name)
		}
	}
	for _, name := range names {
		en, err := e.tree.Stat(name)
		if err != nil {
			return err
		}
		if err := e.tree.SetMeta(name, en.Mode, as.UID, as.GID, en.ModTime, en.Xattrs); err != nil {
			return err
		}
	}
	return nil
}

// file puts one file.
func (e *editor) file(f *File) error {
	perm, err := f.Perm()
	if err != nil {
		return err
	}
	en := image.Entry{Name: f.Path, Mode: image.ModeOf(perm, 0), ModTime: e.created}
	if err := chown(e.tree, &en, f.Owner, f.Group); err != nil {
		return err
	}
	if f.Content != nil {
		return e.tree.Put(en, []byte(*f.Content))
	}
	src, err := os.Open(local(e.spec.Dir, f.Source))
	if err != nil {
		return err
	}
	defer src.Close()
	if err := e.tree.PutFrom(en, src); err != nil {
		return err
	}
	return e.noteFile(f)
}

func (e *editor) link(l *Link) error {
	en := image.Entry{Name: l.Path, ModTime: e.created}
	if l.Hard {
		en.HardLink = l.Target
	} else {
		en.Mode, en.Target = fs.ModeSymlink|0o777, l.Target
	}
	return e.tree.Put(en, nil)
}

// noteLaid notes that a block has put a file into the tree for its own sake.
func (e *editor) noteLaid(block, name string) error {
	en, err := e.tree.Stat(name)
	if err == nil {
		e.asked.Files[en.Name] = fmt.Sprintf("%s %q", block, name)
	}
	return err
}

// config describes the image, but for its artifacts.
func config(s *Spec, base image.Base, created time.Time, report *profiles.Report, mutables []profiles.Mutable) *image.Config {
	c := &image.Config{
		Schema: 1, Name: s.Image.Name, Version: s.Image.Version, OS: s.Image.OS, Arch: s.Image.Arch,
		Created: created, Base: base, Profile: report.Profile,
		Services: s.Layout.Describe(),
	}
	if s.Layout.Scratch != nil {
		c.Scratch = s.Layout.Scratch.MountPoint()
	}
	for _, m := range mutables {
		c.Mutable = append(c.Mutable, image.Mutable{Paths: m.Paths, Rule: m.Rule})
	}
	for _, v := range s.Layout.Volumes {
		size, _ := profiles.ParseSize(v.Size) // checked with the spec
		c.Volumes = append(c.Volumes, image.Volume{Path: v.Path, Size: size})
	}
	if s.Profile != nil {
		for _, w := range s.Profile.Waive {
			c.Waivers = append(c.Waivers, image.Waiver{Control: w.Control, Reason: w.Reason, Until: w.Until})
		}
	}
	return c
}

// mutables returns the rules for what may differ. A captured disk has no files that they could be about.
func (s *Spec) mutables(t *image.Tree) ([]profiles.Mutable, error) {
	own := s.Layout.Mutables
	defaults := len(own) == 0
	if s.Image.MutableDefaults != nil {
		defaults = *s.Image.MutableDefaults
	}
	if !defaults || s.Disk != nil {
		return own, nil
	}
	personal, err := s.Layout.Personal(t)
	return slices.Concat(own, profiles.DefaultMutables(s.Image.OS), personal), err
}

// Write writes the artifacts into the layout, all at once, and then the image, whose tag moves
// last. It returns the digest of the index and completes the config.
func (b *Built) Write(ctx context.Context, l *registry.Layout, tag string, only []string) (string, error) {
	blocks := b.Source.Spec.Artifacts
	if len(blocks) == 0 {
		blocks = []KindBlock{{Kind: "zone", ID: "zone", Writer: defaultZone()}}
	}
	blocks, err := choose(blocks, only)
	if err != nil {
		return "", err
	}
	stage := l.Stage()
	defer stage.Close()
	written := make([][]image.Artifact, len(blocks)+2)
	g, gctx := errgroup.WithContext(ctx)
	for i, k := range blocks {
		g.Go(func() (err error) {
			if written[i], err = k.Writer.Write(gctx, k.ID, b.Source, stage); err != nil {
				return fmt.Errorf("artifact %q: %w", k.ID, err)
			}
			return nil
		})
	}
	g.Go(func() (err error) {
		written[len(blocks)], err = b.evidence(gctx, stage)
		return err
	})
	var packages []sbom.Package
	g.Go(func() (err error) {
		packages, err = sbom.Packages(gctx, b.Source.Tree)
		return malformed(err)
	})
	if err := g.Wait(); err != nil {
		return "", err
	}
	b.Provenance.add(b.Source.dependencies())
	if written[len(blocks)+1], err = b.attest(ctx, stage, packages, written[len(blocks)]); err != nil {
		return "", err
	}
	if err := stage.Commit(); err != nil {
		return "", err
	}
	b.Config.Artifacts = slices.Concat(written...)
	return registry.WriteImage(ctx, l, tag, b.Config, b.runnable(blocks))
}

// choose picks the artifact blocks by id.
func choose(blocks []KindBlock, only []string) ([]KindBlock, error) {
	if len(only) == 0 {
		return blocks, nil
	}
	var ids []string
	var chosen []KindBlock
	for _, k := range blocks {
		ids = append(ids, k.ID)
		if slices.Contains(only, k.ID) {
			chosen = append(chosen, k)
		}
	}
	for _, id := range only {
		if !slices.Contains(ids, id) {
			return nil, Input(fmt.Errorf("the spec has no artifact %q.%s", id, hcltext.Suggest(id, ids)))
		}
	}
	return chosen, nil
}

// evidence writes what every image has: the content manifest, the report on its controls, and
// what it wants of its dock.
func (b *Built) evidence(ctx context.Context, to *registry.Stage) ([]image.Artifact, error) {
	content, err := b.content()
	if err != nil {
		return nil, err
	}
	dock, err := b.Source.Spec.Layout.Dock(b.Source.Selection)
	if err != nil {
		return nil, err
	}
	report, err := b.Report.Marshal()
	if err != nil {
		return nil, err
	}
	var out []image.Artifact
	for _, e := range []struct {
		name, kind, mediaType string
		write                 func(io.Writer) error
	}{
		{"content", "content", image.TypeContent, content.WriteMtree},
		{"objects", "objects", image.TypeObjects, content.WriteObjects},
		{"report", "report", image.TypeReport, bytesOf(report)},
		{"dock/requirements", "dock", image.TypeDock, bytesOf(dock)},
	} {
		a, err := put(ctx, to, image.Artifact{Name: e.name, Kind: e.kind, MediaType: e.mediaType}, image.None, e.write)
		if err != nil {
			return nil, fmt.Errorf("artifact %q: %w", e.name, err)
		}
		out = append(out, a)
	}
	return out, nil
}

// runnable describes the standard OCI image of the root: the first archive that every client can
// read, started with the first service.
func (b *Built) runnable(blocks []KindBlock) *registry.Runnable {
	for _, k := range blocks {
		z, ok := k.Writer.(*Zone)
		if !ok || z.Dialect != string(image.Pax) {
			continue
		}
		r := &registry.Runnable{Artifact: k.ID}
		if services := b.Config.Services; len(services) > 0 {
			s := services[0]
			r.Entrypoint = strings.Fields(s.Exec)
			r.User = s.User
			for _, s := range services {
				r.ExposedPorts = append(r.ExposedPorts, s.Listen...)
			}
			slices.Sort(r.ExposedPorts)
			r.ExposedPorts = slices.Compact(r.ExposedPorts)
			if dir := b.Source.Spec.Layout.Services[0].Directory; dir != "" {
				r.WorkingDir = path.Clean(dir)
			}
		}
		return r
	}
	return nil
}
