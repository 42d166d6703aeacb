package builder

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/goldenisc/packer-plugin-isc/image"
	"github.com/goldenisc/packer-plugin-isc/ovf"
	"github.com/goldenisc/packer-plugin-isc/profiles"
)

// A DiskSource is a disk that was captured from a virtual machine, such as by a Packer builder. It
// has no tree: nothing in it is edited, checked or listed.
type DiskSource struct {
	Source string `hcl:"source"`          // a file: raw, qcow2, VMDK, VDI, VHD, or an OVA or descriptor with one disk
	SHA256 string `hcl:"sha256,optional"` // of the file; 64 hexadecimal digits
	Format string `hcl:"format,optional"` // raw, qcow2, vmdk, vdi, vhd or ova; default by content
}

// A CapturedDisk is an open disk.
type CapturedDisk struct {
	*ovf.Image
	Digest [sha256.Size]byte // of the disk's bytes
	File   string            // sha256:… of the file
}

var diskFormats = []string{string(ovf.FormatRaw), string(ovf.FormatQCOW2), string(ovf.FormatVMDK), string(ovf.FormatVDI), string(ovf.FormatVHD), string(ovf.FormatOVA)}

// name is how the disk is called among the bases.
func (d *DiskSource) name() string { return "disk:" + d.Source }

// openDisk opens the disk of a spec and reads all of it.
func openDisk(ctx context.Context, s *Spec, p image.Progress) (*CapturedDisk, error) {
	d, err := s.Disk.open(ctx, local(s.Dir, s.Disk.Source), p)
	if err != nil {
		return nil, fmt.Errorf("disk %q: %w", s.Disk.Source, err)
	}
	return d, nil
}

func (d *DiskSource) open(ctx context.Context, name string, p image.Progress) (*CapturedDisk, error) {
	c := new(CapturedDisk)
	if err := c.open(ctx, d, name, p); err != nil {
		if c.Image != nil {
			err = errors.Join(err, c.Close())
		}
		return nil, err
	}
	return c, nil
}

func (c *CapturedDisk) open(ctx context.Context, d *DiskSource, name string, p image.Progress) (err error) {
	// What cannot be packed is refused before all of it is read, unless a digest is demanded: why
	// another file cannot be read does not matter.
	if d.SHA256 == "" {
		if c.Image, err = d.image(ctx, name); err != nil {
			return err
		}
	}
	f, err := os.Open(name)
	if err != nil {
		return err
	}
	c.File, err = hashSparse(ctx, f)
	if err = errors.Join(err, f.Close()); err != nil {
		return err
	}
	if d.SHA256 != "" {
		if c.File != "sha256:"+d.SHA256 {
			return fmt.Errorf("%w: it is %s, the spec wants sha256:%s", ErrMismatch, c.File, d.SHA256)
		}
		if c.Image, err = d.image(ctx, name); err != nil {
			return err
		}
	}
	if c.Format == ovf.FormatRaw {
		digest, err := hex.DecodeString(strings.TrimPrefix(c.File, "sha256:"))
		c.Digest = [sha256.Size]byte(digest)
		return err
	}
	h := sha256.New()
	if err := ovf.WriteRaw(ctx, io.MultiWriter(h, reporter(p, "hash", c.Size)), c.Source, c.Size); err != nil {
		return err
	}
	h.Sum(c.Digest[:0])
	return nil
}

// hashSparse is [hashFile] of a file that is likely to be holes for the most part, which are not read.
func hashSparse(ctx context.Context, f *os.File) (string, error) {
	info, err := f.Stat()
	if err != nil {
		return "", err
	}
	extents, err := ovf.FileExtents(f)
	if err != nil {
		return "", err
	}
	h := sha256.New()
	if err := ovf.WriteRaw(ctx, h, ovf.Source{Content: f, Size: info.Size(), Extents: extents}, info.Size()); err != nil {
		return "", err
	}
	return "sha256:" + hex.EncodeToString(h.Sum(nil)), nil
}

// image opens the disk in the file.
func (d *DiskSource) image(ctx context.Context, name string) (*ovf.Image, error) {
	i, err := ovf.OpenImage(ctx, name, ovf.Format(d.Format))
	if err != nil && !errors.Is(err, context.Canceled) && !errors.Is(err, os.ErrNotExist) && !errors.Is(err, os.ErrPermission) {
		err = Input(err)
	}
	return i, err
}

// A reportWriter reports how much was written.
type reportWriter struct {
	progress    image.Progress
	stage       string
	done, total int64
}

func reporter(p image.Progress, stage string, total int64) io.Writer {
	return &reportWriter{progress: p, stage: stage, total: total}
}

func (r *reportWriter) Write(p []byte) (int, error) {
	r.done += int64(len(p))
	r.progress.Report(r.stage, r.done, r.total)
	return len(p), nil
}

// Resolve opens what a spec starts from and says what it was: the base, the captured disk, or both.
// Of the options Dir, Progress and PlainHTTP count.
func Resolve(ctx context.Context, s *Spec, o BuildOptions) ([]image.Base, error) {
	var out []image.Base
	if s.Base != nil {
		t, base, err := OpenBase(ctx, s, o)
		if err != nil {
			return nil, err
		}
		if err := t.Close(); err != nil {
			return nil, err
		}
		out = append(out, base)
	}
	if s.Disk != nil {
		d, err := openDisk(ctx, s, o.Progress)
		if err != nil {
			return nil, err
		}
		if err := d.Close(); err != nil {
			return nil, err
		}
		out = append(out, image.Base{Source: s.Disk.name(), Digest: d.File})
	}
	earlier, err := s.resolveEarlier(ctx, o.registry())
	return append(out, earlier...), err
}

// captured opens the disk of a spec for a build, held against the lock.
func captured(ctx context.Context, s *Spec, o BuildOptions) (*CapturedDisk, error) {
	d, err := openDisk(ctx, s, o.Progress)
	if err != nil {
		return nil, err
	}
	if o.Lock != nil {
		if err := o.Lock.Check(s.Disk.name(), d.File); err != nil {
			return nil, errors.Join(err, d.Close())
		}
	} else if s.Disk.SHA256 == "" {
		o.Log.Warn("the disk is not pinned", "source", s.Disk.Source, "digest", d.File)
	}
	return d, nil
}

// dependency describes the disk for the provenance.
func (d *CapturedDisk) dependency(s *Spec) Dependency {
	return Dependency{Name: "disk", URI: s.Disk.Source, Digest: map[string]string{"sha256": strings.TrimPrefix(d.File, "sha256:")}}
}

// prepareDisk is [Prepare] for a spec whose image is a captured disk alone. The build date, if none
// is given, is 1970: nothing in the disk is looked at.
func prepareDisk(ctx context.Context, s *Spec, o BuildOptions) (*Built, error) {
	d, err := captured(ctx, s, o)
	if err != nil {
		return nil, err
	}
	b, err := prepareCaptured(ctx, s, o, d)
	if err != nil {
		return nil, errors.Join(err, d.Close())
	}
	return b, nil
}

func prepareCaptured(ctx context.Context, s *Spec, o BuildOptions, d *CapturedDisk) (b *Built, err error) {
	t, err := image.NewTree(o.Dir, image.Limits{})
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, t.Close())
		}
	}()
	created := o.Created
	if created.IsZero() {
		created = time.Unix(0, 0)
	}
	created = created.UTC().Truncate(time.Second)
	if o.Provision != nil {
		changed, err := o.Provision(ctx, t, created)
		if err == nil && changed {
			err = Input(errors.New("provisioners have no root to work on: a captured disk stays as it is"))
		}
		if err != nil {
			return nil, err
		}
	}
	t.Freeze(created)
	selection, err := s.selection()
	if err != nil {
		return nil, Input(err)
	}
	report, err := profiles.Audit(t, selection, o.Today)
	if err != nil {
		return nil, err
	}
	b = &Built{
		Source: &Source{Tree: t, Disk: d, Spec: s, Selection: selection, Created: created, Dir: o.Dir, Progress: o.Progress},
		Config: config(s, image.Base{Source: s.Disk.name(), Digest: d.File}, created, report, s.Layout.Mutables),
		Report: report,
	}
	b.Provenance, err = newProvenance(s, o.Version, b.Config, nil)
	return b, err
}

// content returns the content manifest: that of the tree, or of a captured disk as one file.
func (b *Built) content() (*image.Content, error) {
	src := b.Source
	if src.Spec.Base != nil {
		return image.NewContent(src.Tree), nil
	}
	at := fmt.Sprintf("time=%d.000000000", src.Created.Unix())
	text := fmt.Sprintf("#mtree\n. type=dir mode=0755 uid=0 gid=0 %s\n./disk.raw type=file mode=0444 uid=0 gid=0 nlink=1 size=%d %s sha256digest=%x\n",
		at, src.Disk.Size, at, src.Disk.Digest)
	var none bytes.Buffer
	if err := image.NewContent(src.Tree).WriteObjects(&none); err != nil {
		return nil, err
	}
	return image.ReadContent(strings.NewReader(text), &none)
}

// disk checks the block of a captured disk.
func (c *checker) disk(d *DiskSource) {
	if d.Source == "" {
		c.on("disk.source", errors.New("is empty"))
	} else {
		c.on("disk.source", regularFile(local(c.spec.Dir, d.Source)))
	}
	if d.SHA256 != "" && !sha256Form.MatchString(d.SHA256) {
		c.on("disk.sha256", fmt.Errorf("%q is not 64 lower-case hexadecimal digits", d.SHA256))
	}
	if d.Format != "" {
		c.on("disk.format", checkOneOf(d.Format, diskFormats))
	}
	if c.spec.Base != nil {
		return
	}
	// A disk alone: there is no root to put anything into.
	none := errors.New("needs a root, which a captured disk has not: it is packed as it is")
	for i := range c.spec.Files {
		c.on(fmt.Sprintf("file[%d]", i), none)
	}
	for i := range c.spec.Trees {
		c.on(fmt.Sprintf("tree[%d]", i), none)
	}
	for i := range c.spec.Links {
		c.on(fmt.Sprintf("link[%d]", i), none)
	}
	for i := range c.spec.Removes {
		c.on(fmt.Sprintf("remove[%d]", i), none)
	}
	l := &c.spec.Layout
	for i := range l.Users {
		c.on(fmt.Sprintf("user[%d]", i), none)
	}
	for i := range l.Groups {
		c.on(fmt.Sprintf("group[%d]", i), none)
	}
	for i := range l.Services {
		c.on(fmt.Sprintf("service[%d]", i), none)
	}
	for i := range l.Volumes {
		c.on(fmt.Sprintf("volume[%d]", i), none)
	}
	for i := range l.Mutables {
		c.on(fmt.Sprintf("mutable[%d]", i), none)
	}
	if l.Scratch != nil {
		c.on("scratch", none)
	}
	if l.Swap != nil {
		c.on("swap", none)
	}
	if p := c.spec.Profile; p != nil && (p.Source != "" || p.Name != "none") {
		c.on("profile", errors.New("cannot be applied to a captured disk: its name must be none"))
	}
	if len(c.spec.Artifacts) == 0 {
		c.on("disk", fmt.Errorf("needs an artifact block: one of %s", list(diskKinds())))
	}
	count := map[string]int{}
	for _, k := range c.spec.Artifacts {
		at := fmt.Sprintf("%s[%d]", k.Kind, count[k.Kind])
		count[k.Kind]++
		if !slices.Contains(diskKinds(), k.Kind) {
			c.on(at, fmt.Errorf("%w; a disk becomes %s", none, list(diskKinds())))
		}
	}
}

// diskKinds are the kinds that take a captured disk.
func diskKinds() (names []string) {
	for _, k := range Kinds {
		if k.Disk {
			names = append(names, k.Block)
		}
	}
	return names
}
