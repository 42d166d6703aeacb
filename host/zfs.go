package host

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/goldenisc/packer-plugin-isc/image"
	"github.com/goldenisc/packer-plugin-isc/zfs"
)

// zfsPlatform keeps instances as clones of datasets, below a dataset PLACE that is given:
//
//	PLACE/iscadm:golden          what no one mounts: golden copies
//	PLACE/iscadm:golden/HEX@HEX  of an image, by the beginning of its digest; an increment adds a snapshot
//	PLACE/NAME                   an instance; its directory is 0700
//	PLACE/NAME/root              its root, a clone; @iscadm:base is what clone and reset made
//	PLACE/NAME/root:N            an older root, which is kept while it has snapshots
//	PLACE/NAME/evidence-N        what it was before a reset
//	PLACE/NAME/data/VOLUME       a volume, mounted in the root
//	PLACE/NAME/scratch           encrypted by a key that nobody keeps, mounted in the root
//
// Names that end in ":new" are half-made; nothing uses them, and the next command removes them.
// Our own names have a ":", which those of instances and snapshots have not.
//
// All of it is done by zfs(8), here or, for a place that begins with ssh://, on another host, where
// nothing is installed. One state folder must have a place for itself.
type zfsPlatform struct{}

// Names below a place and of snapshots.
const (
	goldenSet  = "iscadm:golden"
	halfMade   = ":new"
	baseSnap   = "iscadm:base"
	checkSnap  = "iscadm:check"
	holdTag    = "iscadm"
	tokenProp  = "iscadm:clone" // of an instance: which operation made it
	zfsRoot    = "root"
	zfsNewRoot = zfsRoot + halfMade
	zfsData    = "data"
	zfsScratch = "scratch"
)

// CheckPlace refuses what is no place of the platform.
func (zfsPlatform) CheckPlace(place string) error {
	_, _, _, err := parsePlace(place)
	return err
}

// goldenName is that of the snapshot of an image: as much of its digest as tells any two apart.
func goldenName(digest string) string { return strings.TrimPrefix(digest, "sha256:")[:32] }

// goldenOf returns the dataset that has the golden snapshot, or nil.
func goldenOf(p *pool, v poolView, digest string) *dataset {
	for _, d := range v.below(p.dataset + "/" + goldenSet) {
		if !strings.HasSuffix(d.name, halfMade) && d.has(goldenName(digest)) {
			return d
		}
	}
	return nil
}

func (z zfsPlatform) Import(ctx context.Context, g *Golden, v *Verified) error {
	p, err := openPool(ctx, g.Place, g.lock)
	if err != nil {
		return err
	}
	return errors.Join(z.importTo(ctx, p, g, v), p.close())
}

func (z zfsPlatform) importTo(ctx context.Context, p *pool, g *Golden, v *Verified) error {
	full, increments, err := z.streams(ctx, p, g.Config)
	if err != nil {
		return err
	}
	view, err := z.tidy(ctx, p)
	if err != nil {
		return err
	}
	// A golden copy that this state knows nothing of was left by a killed import, or is of another
	// state: what it is must be found out again.
	known := filepath.Join(g.Dir, "zfs.known-"+component(g.Place))
	if d := goldenOf(p, view, g.Digest); d != nil {
		snap := d.name + "@" + goldenName(g.Digest)
		if err := z.sameGUID(ctx, p, snap, full, increments); err != nil {
			return err
		}
		if _, err := os.Stat(known); err == nil {
			return nil
		}
		if err := z.readBack(ctx, p, g, snap, full); err != nil {
			return err
		}
		return replaceFile(known+".new", known, nil)
	}
	if err := z.receive(ctx, p, view, g, v, full, increments); err != nil {
		return err
	}
	return replaceFile(known+".new", known, nil)
}

// receive makes the golden copy: by an increment if that can be, or by the full stream.
func (z zfsPlatform) receive(ctx context.Context, p *pool, view poolView, g *Golden, v *Verified, full *image.Artifact, increments []image.Artifact) error {
	var errs []error
	for i := range increments {
		err := z.increment(ctx, p, view, g, v, &increments[i])
		if err == nil {
			return nil
		}
		if ctx.Err() != nil {
			return err
		}
		if !errors.Is(err, errNoBase) {
			errs = append(errs, fmt.Errorf("artifact %q: %w", increments[i].Name, err))
			if view, err = z.tidy(ctx, p); err != nil {
				return errors.Join(append(errs, err)...)
			}
		}
	}
	if full == nil {
		return errors.Join(append(errs, errors.New("the image has no full ZFS stream for this place, and no increment from what is here"))...)
	}
	if err := z.whole(ctx, p, view, g, v, full); err != nil {
		return errors.Join(append(errs, fmt.Errorf("artifact %q: %w", full.Name, err))...)
	}
	return nil
}

// streams chooses those of an image that fit the place, by the version of its file system.
func (zfsPlatform) streams(ctx context.Context, p *pool, c *image.Config) (full *image.Artifact, increments []image.Artifact, err error) {
	props, err := p.get(ctx, p.dataset, "version", "type")
	if err != nil {
		return nil, nil, err
	}
	if props["type"] != "filesystem" {
		return nil, nil, fmt.Errorf("%q is no file system", p.dataset)
	}
	n, err := strconv.Atoi(props["version"])
	if err != nil {
		return nil, nil, fmt.Errorf("version %q of %q: %w", props["version"], p.dataset, err)
	}
	old := n < 5
	for i := range c.Artifacts {
		a := &c.Artifacts[i]
		if !strings.HasPrefix(a.MediaType, image.TypeZFS) || a.Attributes[image.AttrLayout] == "root" {
			continue
		}
		zpl4 := a.Attributes[image.AttrProfile] == zfs.ZPL4.String()
		switch {
		case old && !zpl4:
		case a.Kind == image.KindIncrement:
			increments = append(increments, *a)
		case full == nil || full.Attributes[image.AttrProfile] == zfs.ZPL4.String() && !zpl4:
			full = a
		}
	}
	// An increment leads to the stream that was chosen, not to that of the other profile.
	if full != nil {
		increments = slices.DeleteFunc(increments, func(a image.Artifact) bool {
			return a.Attributes[image.AttrProfile] != full.Attributes[image.AttrProfile]
		})
	}
	return full, increments, nil
}

// tidy makes the dataset of the golden copies, removes what killed imports left, and returns what
// there is.
func (zfsPlatform) tidy(ctx context.Context, p *pool) (poolView, error) {
	v, err := p.view(ctx)
	if err != nil {
		return nil, err
	}
	set := p.dataset + "/" + goldenSet
	if v[set] == nil {
		// Inherited by all below: receive sets nothing.
		args := []string{"create", "-o", "mountpoint=none"}
		for _, o := range []string{"readonly=on", "devices=off", "setuid=off", "exec=off", "atime=off"} {
			args = append(args, "-o", o)
		}
		if err := p.zfs(ctx, append(args, set)...); err != nil {
			return nil, err
		}
		return p.view(ctx)
	}
	changed := false
	for _, d := range v.below(set) {
		if strings.HasSuffix(d.name, halfMade) {
			changed = true
			for _, s := range d.snapshots {
				p.zfs(ctx, "release", holdTag, d.name+"@"+s.name) //nolint:errcheck // it may not be held
			}
			if err := p.patiently(ctx, "destroy", "-r", d.name); err != nil {
				return nil, err
			}
			continue
		}
		left := slices.DeleteFunc(slices.Clone(d.snapshots), func(s snapshot) bool { return strings.HasSuffix(s.name, halfMade) })
		if len(left) == len(d.snapshots) {
			continue
		}
		changed = true
		for _, s := range d.snapshots {
			if !strings.HasSuffix(s.name, halfMade) {
				continue
			}
			p.zfs(ctx, "release", holdTag, d.name+"@"+s.name) //nolint:errcheck // it may not be held
			if err := p.patiently(ctx, "destroy", d.name+"@"+s.name); err != nil {
				return nil, err
			}
		}
		if len(left) > 0 {
			if err := p.patiently(ctx, "rollback", d.name+"@"+left[len(left)-1].name); err != nil {
				return nil, err
			}
		}
	}
	if changed {
		return p.view(ctx)
	}
	return v, nil
}

// sameGUID checks that a golden snapshot is of one of the image's streams.
func (zfsPlatform) sameGUID(ctx context.Context, p *pool, snap string, full *image.Artifact, increments []image.Artifact) error {
	props, err := p.get(ctx, snap, "guid")
	if err != nil {
		return err
	}
	if full != nil {
		increments = append([]image.Artifact{*full}, increments...)
	}
	for _, a := range increments {
		if want := a.Attributes[image.AttrGUID]; want == "" || want == props["guid"] {
			return nil
		}
	}
	return fmt.Errorf("%q is of another stream (guid %s): destroy it", snap, props["guid"])
}

// stage unpacks a verified artifact into a file of the image's folder, which is removed when it is
// closed.
func stage(ctx context.Context, dir string, v *Verified, a *image.Artifact) (*staged, error) {
	r, err := v.Source.Open(ctx, a.Name)
	if err != nil {
		return nil, err
	}
	defer r.Close()
	z, _, err := image.Decompress(r)
	if err != nil {
		return nil, err
	}
	defer z.Close()
	s, err := newStaged(dir)
	if err != nil {
		return nil, err
	}
	if s.size, err = io.Copy(s, &contextReader{ctx, z}); err != nil {
		return nil, errors.Join(err, s.Close())
	}
	return s, nil
}

// A staged file has no name that outlives this process's next visit to its folder.
type staged struct {
	*os.File
	size int64
}

// stagedName is taken by whoever has the lock of the images or of an instance.
const stagedName = "zfs.stream"

func newStaged(dir string) (*staged, error) {
	f, err := os.OpenFile(filepath.Join(dir, stagedName), os.O_RDWR|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return nil, err
	}
	return &staged{File: f}, nil
}

func (s *staged) Close() error { return errors.Join(s.File.Close(), os.Remove(s.Name())) }

type contextReader struct {
	ctx context.Context
	r   io.Reader
}

func (r *contextReader) Read(p []byte) (int, error) {
	if err := r.ctx.Err(); err != nil {
		return 0, err
	}
	return r.r.Read(p)
}

// inspect reads the header of a staged stream, and all its records: zfs receive is not to find
// anything that we have not.
func (s *staged) inspect(a *image.Artifact) (*zfs.Header, error) {
	if _, err := s.Seek(0, io.SeekStart); err != nil {
		return nil, err
	}
	var head *zfs.Header
	for r := zfs.NewReader(s); ; {
		rec, err := r.Next()
		if err == io.EOF {
			break
		}
		if err != nil {
			return nil, err
		}
		if rec.Type != zfs.RecordBegin {
			continue
		}
		if head != nil {
			return nil, errors.New("the stream is of several snapshots")
		}
		head = rec.Header
		if err := accept(head, a); err != nil {
			return nil, err
		}
	}
	if head == nil {
		return nil, io.ErrUnexpectedEOF
	}
	return head, nil
}

// accept refuses a stream that is another than its image says, or does more than make one snapshot.
func accept(h *zfs.Header, a *image.Artifact) error {
	switch {
	case h.Package:
		return errors.New("the stream sets properties or has several snapshots")
	case !h.FileSystem:
		return errors.New("the stream is of no file system")
	case h.GUID == 0:
		return errors.New("the stream's snapshot has no guid")
	case (h.FromGUID != 0) != (a.Kind == image.KindIncrement):
		return fmt.Errorf("the stream is no %q", a.Kind)
	}
	if want := a.Attributes[image.AttrGUID]; want != "" && want != strconv.FormatUint(h.GUID, 10) {
		return fmt.Errorf("the stream's snapshot has guid %d, not %s", h.GUID, want)
	}
	return nil
}

// platformOf is the system whose forms of device numbers and attributes a stream has.
func platformOf(a *image.Artifact) zfs.Platform {
	for _, p := range []zfs.Platform{zfs.Linux, zfs.Illumos, zfs.FreeBSD} {
		if a != nil && a.Attributes[image.AttrPlatform] == p.String() {
			return p
		}
	}
	return zfs.Linux
}

// whole receives a full stream: below a name that nothing uses, until all of it is there and
// checked.
func (z zfsPlatform) whole(ctx context.Context, p *pool, view poolView, g *Golden, v *Verified, a *image.Artifact) error {
	v.Progress.Report("stage", 0, 0)
	s, err := stage(ctx, g.Dir, v, a)
	if err != nil {
		return err
	}
	defer s.Close()
	head, err := s.inspect(a)
	if err != nil {
		return err
	}
	if err := z.compare(ctx, g, s, a); err != nil {
		return err
	}
	set := p.dataset + "/" + goldenSet + "/"
	name := goldenName(g.Digest)
	made := set + name + halfMade
	if err := p.receive(ctx, made+"@"+name, s); err != nil {
		return err
	}
	if err := p.zfs(ctx, "set", "canmount=noauto", made); err != nil {
		return err
	}
	if err := z.keep(ctx, p, made+"@"+name, head.GUID); err != nil {
		return err
	}
	final := set + name
	for i := 1; view[final] != nil; i++ { // its snapshot was destroyed, but for clones
		final = set + name + "." + strconv.Itoa(i)
	}
	return p.patiently(ctx, "rename", made, final)
}

var errNoBase = errors.New("its base is not here")

// increment receives an increment if the golden copy that it starts from is the newest snapshot
// of its dataset here. What comes of it is read back whole and compared before it gets its name: the
// stream says only what changes.
func (z zfsPlatform) increment(ctx context.Context, p *pool, view poolView, g *Golden, v *Verified, a *image.Artifact) error {
	var base *dataset
	for _, d := range view.below(p.dataset + "/" + goldenSet) {
		n := len(d.snapshots)
		if n == 0 || d.snapshots[n-1].deferred {
			continue
		}
		if from := a.Attributes[image.AttrFromGUID]; from != "" {
			props, err := p.get(ctx, d.name+"@"+d.snapshots[n-1].name, "guid")
			if err != nil {
				return err
			}
			if props["guid"] != from {
				continue
			}
		} else if a.From == "" || d.snapshots[n-1].name != goldenName(a.From) {
			continue
		}
		base = d
		break
	}
	if base == nil {
		return errNoBase
	}
	v.Progress.Report("stage", 0, 0)
	s, err := stage(ctx, g.Dir, v, a)
	if err != nil {
		return err
	}
	head, err := s.inspect(a)
	if err != nil {
		return errors.Join(err, s.Close())
	}
	name := goldenName(g.Digest)
	made := base.name + "@" + name + halfMade
	err = p.receive(ctx, made, s)
	if err = errors.Join(err, s.Close()); err != nil {
		return err
	}
	if err := z.readBack(ctx, p, g, made, a); err != nil {
		return err
	}
	if err := z.keep(ctx, p, made, head.GUID); err != nil {
		return err
	}
	return p.patiently(ctx, "rename", made, base.name+"@"+name)
}

// readBack compares what the pool sends of a snapshot.
func (z zfsPlatform) readBack(ctx context.Context, p *pool, g *Golden, snap string, a *image.Artifact) error {
	s, err := newStaged(g.Dir)
	if err != nil {
		return err
	}
	defer s.Close()
	if err := s.fill(ctx, p, snap); err != nil {
		return err
	}
	return z.compare(ctx, g, s, a)
}

// fill takes what the pool sends of a snapshot.
func (s *staged) fill(ctx context.Context, p *pool, snap string) error {
	if err := p.send(ctx, snap, s); err != nil {
		return err
	}
	var err error
	s.size, err = s.Seek(0, io.SeekCurrent)
	return err
}

// keep checks the guid of a received snapshot and holds it.
func (zfsPlatform) keep(ctx context.Context, p *pool, snap string, guid uint64) error {
	props, err := p.get(ctx, snap, "guid")
	if err != nil {
		return err
	}
	if props["guid"] != strconv.FormatUint(guid, 10) {
		return fmt.Errorf("%q has guid %s, not %d", snap, props["guid"], guid)
	}
	return p.zfs(ctx, "hold", holdTag, snap)
}

// compare compares a full stream with the content manifest, and stores what check and clone need of
// its content.
func (zfsPlatform) compare(ctx context.Context, g *Golden, s *staged, a *image.Artifact) error {
	snap, err := zfs.Open(s, s.size, "")
	if err != nil {
		return err
	}
	rules, err := newRules(g.Config)
	if err != nil {
		return err
	}
	kept, err := image.NewTree(g.Dir, image.DefaultLimits)
	if err != nil {
		return err
	}
	defer kept.Close()
	c := &comparison{content: g.Content, keep: func(e *image.Entry, r io.Reader) error {
		if e.Name != "etc/inet/hosts" && rules.of(e.Name) != ruleReset {
			return nil
		}
		return kept.PutFrom(image.Entry{Name: hex.EncodeToString(e.Digest[:]), Mode: 0o600, Size: e.Size}, r)
	}}
	if _, err := c.run(ctx, snap.Objects(platformOf(a))); err != nil {
		return err
	}
	if len(c.report.Findings) > 0 {
		return fmt.Errorf("differs from the content manifest:%s", c.text())
	}
	return g.store.add(ctx, kept, nil)
}

// Remove destroys the golden snapshot, which stays as long as evidence is a clone of it, and
// datasets that have none left.
func (z zfsPlatform) Remove(ctx context.Context, g *Golden) error {
	p, err := openPool(ctx, g.Place, g.lock)
	if err != nil {
		return err
	}
	return errors.Join(z.removeFrom(ctx, p, g), p.close())
}

func (z zfsPlatform) removeFrom(ctx context.Context, p *pool, g *Golden) error {
	view, err := z.tidy(ctx, p)
	if err != nil {
		return err
	}
	if d := goldenOf(p, view, g.Digest); d != nil {
		snap := d.name + "@" + goldenName(g.Digest)
		p.zfs(ctx, "release", holdTag, snap) //nolint:errcheck // an earlier try may have done it
		if err := p.patiently(ctx, "destroy", "-d", snap); err != nil {
			return err
		}
		if view, err = p.view(ctx); err != nil {
			return err
		}
	}
	for _, d := range view.below(p.dataset + "/" + goldenSet) {
		if len(d.snapshots) == 0 {
			if err := p.patiently(ctx, "destroy", d.name); err != nil {
				return err
			}
		}
	}
	return nil
}
