package host

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"
	"time"

	"github.com/goldenisc/packer-plugin-isc/image"
)

// dirPlatform keeps instances as folders, PLACE/NAME, which nobody but their owner can enter, so
// that set-id files of old instances are nobody's:
//
//	root/            the instance
//	snapshots/SNAP/  its kept states
//	evidence-N/      what it was before a reset
//	log/             of its services
//
// It needs no privilege and isolates nothing: it is for trying out, for tests, and for roots that
// something else boots. What ordinary users cannot make is noted in the baseline.
type dirPlatform struct{}

// Names in an instance's folder, and in the state folder.
const (
	rootName     = "root"
	newRoot      = ".new-root"
	oldRoot      = ".old-root"
	newSnapshot  = ".new-snapshot"
	snapshotsDir = "snapshots"

	baselineFile = "baseline"
	nextBaseline = "baseline.next"
	goldenMarks  = "dir.baseline"
)

// Phases of an operation that replaces the root.
const (
	phaseCopy = "copy" // the new root is being made: undone
	phaseSwap = "swap" // it is complete: finished
)

func (dirPlatform) Import(ctx context.Context, g *Golden, v *Verified) error {
	path := filepath.Join(g.Dir, goldenMarks)
	if b, err := readBaseline(path, g.Digest, g.Content); err == nil && g.store.intact(g.Content, b) {
		return nil
	}
	a := zoneArtifact(g.Config)
	if a == nil {
		return errors.New("the image has no zone archive, which a folder is made from")
	}
	r, err := v.Source.Open(ctx, a.Name)
	if err != nil {
		return err
	}
	defer r.Close()
	t, err := image.ReadTar(ctx, r, image.Options{Dir: g.Dir, Progress: v.Progress})
	if err != nil {
		return fmt.Errorf("artifact %q: %w", a.Name, err)
	}
	defer t.Close()
	t.Freeze(time.Time{})
	if err := same(t, g.Content); err != nil {
		return fmt.Errorf("artifact %q differs from the content manifest:\n%w", a.Name, err)
	}
	if err := g.store.add(ctx, t, v.Progress); err != nil {
		return err
	}
	marks, err := g.store.marks(g.Content)
	if err != nil {
		return err
	}
	return marks.write(path, g.Digest)
}

func (dirPlatform) Remove(context.Context, *Golden) error { return nil } // the store is swept

// zoneArtifact returns the first zone archive of an image, or nil.
func zoneArtifact(c *image.Config) *image.Artifact {
	for i := range c.Artifacts {
		if strings.HasPrefix(c.Artifacts[i].MediaType, image.TypeZone) {
			return &c.Artifacts[i]
		}
	}
	return nil
}

// dirs returns the folder of the instance and those that it is made and removed in.
func (dirPlatform) dirs(in *Instance) (dir, making, removing string) {
	p := func(prefix, suffix string) string { return filepath.Join(in.Place, prefix+in.Name+suffix) }
	return p("", ""), p(".", ".new"), p(".", ".destroy")
}

func (p dirPlatform) Clone(ctx context.Context, j *Job) ([]string, error) {
	dir, making, _ := p.dirs(j.Instance)
	if err := os.MkdirAll(j.Instance.Place, 0o700); err != nil {
		return nil, err
	}
	if _, err := os.Lstat(dir); !errors.Is(err, fs.ErrNotExist) {
		return nil, errors.Join(err, fmt.Errorf("%q exists", dir))
	}
	if err := os.Mkdir(making, 0o700); err != nil {
		return nil, err
	}
	notes, err := p.build(ctx, j, making, rootName, baselineFile)
	if err != nil {
		return nil, err
	}
	if err := os.Rename(making, dir); err != nil {
		return nil, err
	}
	return notes, syncDir(j.Instance.Place)
}

// build makes a golden root in a folder, and its baseline in the state.
func (dirPlatform) build(ctx context.Context, j *Job, in, name, marks string) ([]string, error) {
	files, err := j.Instance.Site.files(j.Golden, j.Instance.Name)
	if err != nil {
		return nil, err
	}
	golden, err := readBaseline(filepath.Join(j.Golden.Dir, goldenMarks), j.Golden.Digest, j.Golden.Content)
	if err != nil {
		return nil, err
	}
	rules, err := newRules(j.Golden.Config)
	if err != nil {
		return nil, err
	}
	if err := os.Mkdir(filepath.Join(in, name), 0o700); err != nil {
		return nil, err
	}
	root, err := openFolder(filepath.Join(in, name))
	if err != nil {
		return nil, err
	}
	defer root.Close()
	b := &builder{content: j.Golden.Content, store: j.Golden.store, golden: golden, site: files, rules: rules, report: j.Progress}
	if err := b.build(ctx, root); err != nil {
		return nil, err
	}
	if err := b.marks.write(j.path(marks), j.Golden.Digest); err != nil {
		return nil, err
	}
	return b.skipped.notes(), nil
}

func (p dirPlatform) Check(ctx context.Context, j *Job, mode CheckMode) (*Report, error) {
	dir, _, _ := p.dirs(j.Instance)
	return checkRoot(ctx, j, filepath.Join(dir, rootName), mode)
}

// checkRoot checks the instance's root, which is a folder of this host.
func checkRoot(ctx context.Context, j *Job, path string, mode CheckMode) (*Report, error) {
	rules, err := newRules(j.Golden.Config)
	if err != nil {
		return nil, err
	}
	base, err := readBaseline(j.path(baselineFile), j.Golden.Digest, j.Golden.Content)
	if err != nil {
		return nil, err
	}
	root, err := openFolder(path)
	if err != nil {
		return nil, err
	}
	defer root.Close()
	c := &checker{golden: j.Golden, rules: rules, base: base, mode: mode, report: j.Progress, site: map[string]SiteFile{}}
	for _, f := range j.Instance.Files {
		c.site[f.Path] = f
	}
	r, err := c.run(ctx, root)
	if err == nil && c.learned {
		err = base.write(j.path(baselineFile), j.Golden.Digest)
	}
	return r, err
}

func (p dirPlatform) Reset(ctx context.Context, j *Job, keep string) error {
	dir, _, _ := p.dirs(j.Instance)
	if keep != "" {
		if _, err := os.Lstat(filepath.Join(dir, keep)); !errors.Is(err, fs.ErrNotExist) {
			return errors.Join(err, fmt.Errorf("%q exists", filepath.Join(dir, keep)))
		}
	}
	if _, err := p.build(ctx, j, dir, newRoot, nextBaseline); err != nil {
		return err
	}
	return p.swap(ctx, j)
}

// swap puts the new root, which is complete, in the place of the root.
func (p dirPlatform) swap(ctx context.Context, j *Job) error {
	dir, _, _ := p.dirs(j.Instance)
	d, err := openFolder(dir)
	if err != nil {
		return err
	}
	o, err := d.lstat(newRoot)
	d.Close()
	if err != nil {
		return err
	}
	if !exact {
		o.ino = 0 // no numbers to go by, and no exchange either
	}
	if err := j.Journal(phaseSwap, o.ino); err != nil {
		return err
	}
	return p.finishSwap(context.WithoutCancel(ctx), j)
}

// finishSwap goes on from wherever swap was cut short, which the names and the inode number of the
// new root tell.
func (p dirPlatform) finishSwap(ctx context.Context, j *Job) error {
	dir, _, _ := p.dirs(j.Instance)
	d, err := openFolder(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	fresh, err := d.lstat(newRoot)
	made := err == nil
	now, err := d.lstat(rootName)
	there := err == nil
	inode := j.Instance.Pending.Inode
	switch {
	case made && there && inode != 0 && now.ino == inode: // exchanged
		err = d.rename(newRoot, d, oldRoot)
	case made && there:
		err = p.replace(ctx, d, j)
	case made && fresh.mode.IsDir():
		err = d.rename(newRoot, d, rootName)
	case !there:
		err = fmt.Errorf("%q is gone", filepath.Join(dir, rootName))
	default:
		err = nil
	}
	if err != nil {
		return err
	}
	if err := os.Rename(j.path(nextBaseline), j.path(baselineFile)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err := errors.Join(syncDir(j.Dir), syncDir(dir)); err != nil {
		return err
	}
	if keep := j.Instance.Pending.Arg; keep != "" && j.Instance.Pending.Op == opReset {
		if err := d.rename(oldRoot, d, keep); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		return syncDir(dir)
	}
	return nil
}

func (p dirPlatform) Litter(in *Instance) bool {
	dir, _, _ := p.dirs(in)
	_, err := os.Lstat(filepath.Join(dir, oldRoot))
	return err == nil
}

func (p dirPlatform) Clean(ctx context.Context, in *Instance) error {
	dir, _, _ := p.dirs(in)
	d, err := openFolder(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	return removeTree(ctx, d, oldRoot)
}

// replace moves the volumes into the new root and swaps it with the root.
func (p dirPlatform) replace(ctx context.Context, d *folder, j *Job) error {
	names, err := volumes(j.Golden.Config)
	if err != nil {
		return err
	}
	for _, name := range names {
		if err := moveVolume(ctx, d, name); err != nil {
			return fmt.Errorf("volume %q: %w", "/"+name, err)
		}
		if err := p.closeParent(d, j, name); err != nil {
			return fmt.Errorf("volume %q: %w", "/"+name, err)
		}
	}
	if err := removeTree(ctx, d, oldRoot); err != nil {
		return err
	}
	if err := d.exchange(rootName, newRoot); err == nil {
		return d.rename(newRoot, d, oldRoot)
	}
	if err := d.rename(rootName, d, oldRoot); err != nil {
		return err
	}
	return d.rename(newRoot, d, rootName)
}

// moveVolume moves a directory from the root to the new root. What the instance made of it, a link
// or a file, is not taken along; a volume that is not there was moved before. The mode of its new
// parent is up to closeParent.
func moveVolume(ctx context.Context, d *folder, name string) error {
	old, err := openBelow(d, rootName+"/"+path.Dir(name))
	if err != nil {
		return nil // not a directory any more
	}
	defer old.Close()
	elem := name[strings.LastIndexByte(name, '/')+1:]
	o, err := old.lstat(elem)
	if err != nil || !o.mode.IsDir() {
		return nil
	}
	fresh, err := openBelow(d, newRoot+"/"+path.Dir(name))
	if err != nil {
		return err
	}
	defer fresh.Close()
	if obeysModes() { // both may be read-only
		self, err := old.stat()
		if err != nil {
			return err
		}
		if err := errors.Join(old.chmodSelf(0o700), fresh.chmodSelf(0o700)); err != nil {
			return err
		}
		defer old.chmodSelf(image.Perm(self.mode))
	}
	if err := removeTree(ctx, fresh, elem); err != nil {
		return err
	}
	return old.rename(elem, fresh, elem)
}

// obeysModes reports whether the modes of directories bind this process.
func obeysModes() bool { return exact && !privileged() }

// closeParent gives the parent of a volume in the new root the mode that it has in the image, or in the
// snapshot that is rolled back to: what it has now may be what a move that was cut short left.
func (p dirPlatform) closeParent(d *folder, j *Job, name string) error {
	if !obeysModes() {
		return nil
	}
	parent := path.Dir(name)
	f, err := openBelow(d, newRoot+"/"+parent)
	if err != nil {
		return nil // not a directory: nothing was moved into it
	}
	defer f.Close()
	if pending := j.Instance.Pending; pending.Op == opRollback {
		from, err := openBelow(d, snapshotsDir+"/"+pending.Arg+"/"+parent)
		if err != nil {
			return err
		}
		defer from.Close()
		o, err := from.stat()
		if err != nil {
			return err
		}
		return f.chmodSelf(image.Perm(o.mode))
	}
	if e := j.Golden.Content.Lookup(parent); e != nil {
		return f.chmodSelf(image.Perm(e.Mode))
	}
	return nil
}

// openBelow opens a directory below d, none of whose elements may be a link.
func openBelow(d *folder, path string) (*folder, error) {
	f := d
	for elem := range strings.SplitSeq(path, "/") {
		if elem == "." {
			continue
		}
		next, err := f.sub(elem)
		if f != d {
			f.Close()
		}
		if err != nil {
			return nil, err
		}
		f = next
	}
	return f, nil
}

func (p dirPlatform) Snapshot(ctx context.Context, j *Job, name string) error {
	dir, _, _ := p.dirs(j.Instance)
	if err := p.copy(ctx, j, filepath.Join(dir, rootName), filepath.Join(dir, newSnapshot)); err != nil {
		return err
	}
	if err := os.Mkdir(filepath.Join(dir, snapshotsDir), 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	if err := os.Rename(filepath.Join(dir, newSnapshot), filepath.Join(dir, snapshotsDir, name)); err != nil {
		return err
	}
	return syncDir(filepath.Join(dir, snapshotsDir))
}

// copy copies a root without its volumes and scratch.
func (dirPlatform) copy(ctx context.Context, j *Job, from, to string) error {
	rules, err := newRules(j.Golden.Config)
	if err != nil {
		return err
	}
	src, err := openFolder(from)
	if err != nil {
		return err
	}
	defer src.Close()
	if err := os.Mkdir(to, 0o700); err != nil {
		return err
	}
	dst, err := openFolder(to)
	if err != nil {
		return err
	}
	defer dst.Close()
	return copyTree(ctx, dst, src, rules.skip, j.Progress)
}

func (p dirPlatform) Rollback(ctx context.Context, j *Job, name string) error {
	dir, _, _ := p.dirs(j.Instance)
	base, err := readBaseline(j.path(baselineFile), j.Golden.Digest, j.Golden.Content)
	if err != nil {
		return err
	}
	if err := p.copy(ctx, j, filepath.Join(dir, snapshotsDir, name), filepath.Join(dir, newRoot)); err != nil {
		return err
	}
	base.forget()
	if err := base.write(j.path(nextBaseline), j.Golden.Digest); err != nil {
		return err
	}
	return p.swap(ctx, j)
}

func (p dirPlatform) Forget(ctx context.Context, j *Job, name string) error {
	dir, _, _ := p.dirs(j.Instance)
	d, err := openFolder(filepath.Join(dir, snapshotsDir))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer d.Close()
	return removeTree(ctx, d, name)
}

func (p dirPlatform) Destroy(ctx context.Context, j *Job) error {
	dir, making, removing := p.dirs(j.Instance)
	place, err := openFolder(j.Instance.Place)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer place.Close()
	for _, path := range []string{removing, making} {
		if err := removeTree(ctx, place, filepath.Base(path)); err != nil {
			return err
		}
	}
	if err := os.Rename(dir, removing); err != nil {
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		return err
	}
	return errors.Join(removeTree(ctx, place, filepath.Base(removing)), place.syncAll())
}

// unlinkBelow removes a file of a folder, if there are both.
func unlinkBelow(dir, name string) error {
	d, err := openFolder(dir)
	if err == nil {
		err = errors.Join(d.unlink(name, false), d.Close())
	}
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

func (p dirPlatform) Recover(ctx context.Context, j *Job) (bool, error) {
	dir, making, _ := p.dirs(j.Instance)
	pending := j.Instance.Pending
	if err := unlinkBelow(dir, clockFile); err != nil {
		return true, err
	}
	switch {
	case pending.Op == opClone:
		return p.recoverClone(ctx, j, dir, making)
	case pending.Op == opDestroy:
		return false, p.Destroy(ctx, j)
	case pending.Op == opForget:
		if err := p.Forget(ctx, j, pending.Arg); err != nil {
			return true, err
		}
		j.Instance.forget(pending.Arg)
		return true, nil
	case pending.Phase == phaseSwap:
		if pending.Op == opReset {
			j.Instance.Reset = now()
		}
		return true, p.finishSwap(ctx, j)
	}
	d, err := openFolder(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return true, nil // somebody removed it; destroy says so
	}
	if err != nil {
		return true, err
	}
	defer d.Close()
	if pending.Op == opSnapshot {
		if _, err := d.lstat(snapshotsDir + "/" + pending.Arg); err == nil {
			j.Instance.keep(pending.Arg)
		}
		return true, removeTree(ctx, d, newSnapshot)
	}
	os.Remove(j.path(nextBaseline))
	return true, removeTree(ctx, d, newRoot)
}

// recoverClone keeps a clone that got its name, and undoes any other. The folder is ours only if
// its baseline was written, which happens before.
func (dirPlatform) recoverClone(ctx context.Context, j *Job, dir, making string) (bool, error) {
	_, err1 := os.Lstat(making)
	_, err2 := os.Lstat(dir)
	_, err3 := os.Lstat(j.path(baselineFile))
	if errors.Is(err1, fs.ErrNotExist) && err2 == nil && err3 == nil {
		return true, nil
	}
	place, err := openFolder(j.Instance.Place)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	defer place.Close()
	return false, removeTree(ctx, place, filepath.Base(making))
}
