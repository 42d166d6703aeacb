package host

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"hash"
	"io"
	"io/fs"
	"path/filepath"
	"slices"
	"strings"

	"github.com/goldenisc/packer-plugin-isc/image"
	"github.com/goldenisc/packer-plugin-isc/internal/disk"
	"github.com/goldenisc/packer-plugin-isc/ovf"
)

// ErrDisk is the error of what cannot be compared, whatever is on it: an image that says nothing of
// disks, or a file that is not read.
var ErrDisk = errors.New("no disk that can be compared")

// Disks are what an image says of the disks that virtual machines start from.
type Disks struct {
	golden    []*disk.Golden // a machine's is one of them
	artifacts [][]string     // that each of them is of
	captured  *image.Entry   // or all that is on a captured one
}

// maxGolden bounds the description of a disk, in bytes: it has about 500.
const maxGolden = 64 << 10

// ReadDisks reads what an image says of its disks: of those of one artifact, or of all if artifact is
// empty. The image is verified.
func ReadDisks(ctx context.Context, c *image.Config, src Source, artifact string) (*Disks, error) {
	d := new(Disks)
	var known []string
	seen := map[string]int{} // by digest: where it is in d
	for _, a := range c.Artifacts {
		if a.MediaType != image.TypeGolden {
			continue
		}
		of := strings.TrimSuffix(a.Name, "/golden")
		known = append(known, of)
		if artifact != "" && artifact != of {
			continue
		}
		if i, ok := seen[a.Digest]; ok {
			d.artifacts[i] = append(d.artifacts[i], of)
			continue
		}
		seen[a.Digest] = len(d.golden)
		g, err := readGoldenDisk(ctx, src, a.Name)
		if err != nil {
			return nil, fmt.Errorf("artifact %q: %w", a.Name, err)
		}
		d.golden, d.artifacts = append(d.golden, g), append(d.artifacts, []string{of})
	}
	switch {
	case len(d.golden) > 0:
		return d, nil
	case artifact != "":
		return nil, fmt.Errorf("%w: the image has no artifact %q with a disk that stays as it is, only %q", ErrDisk, artifact, known)
	case strings.HasPrefix(c.Base.Source, "disk:"):
		return d, d.readCaptured(ctx, src)
	}
	return nil, fmt.Errorf("%w: %s %s has no disk that stays as it is, which those of Linux roots and captured ones do", ErrDisk, c.Name, c.Version)
}

func readGoldenDisk(ctx context.Context, src Source, name string) (*disk.Golden, error) {
	r, err := src.Open(ctx, name)
	if err != nil {
		return nil, err
	}
	defer r.Close()
	text, err := io.ReadAll(io.LimitReader(r, maxGolden))
	if err != nil {
		return nil, err
	}
	return disk.ParseGolden(text)
}

// readCaptured takes the disk from the content manifest, whose only file it is.
func (d *Disks) readCaptured(ctx context.Context, src Source) error {
	mtree, err := src.Open(ctx, "content")
	if err != nil {
		return err
	}
	defer mtree.Close()
	objects, err := src.Open(ctx, "objects")
	if err != nil {
		return err
	}
	defer objects.Close()
	content, err := image.ReadContent(mtree, objects)
	if err != nil {
		return err
	}
	if d.captured = content.Lookup("disk.raw"); d.captured == nil || !d.captured.IsRegular() {
		return fmt.Errorf("%w: the content manifest has no disk", ErrDisk)
	}
	return nil
}

// A DiskReport is the result of comparing a disk. The paths of its findings are the parts of a disk.
type DiskReport struct {
	Format    ovf.Format `json:"format"`              // what the file was read as
	Artifacts []string   `json:"artifacts,omitempty"` // that have the disk, or the one that it is most like
	Looks     ovf.Format `json:"looks,omitempty"`     // what else the content of a changed disk looks like
	Report
}

// suffixes of files, by which their format is known.
var suffixes = map[string]ovf.Format{
	".qcow2": ovf.FormatQCOW2, ".vmdk": ovf.FormatVMDK, ".vdi": ovf.FormatVDI, ".vhd": ovf.FormatVHD,
}

// DiskFormats are those that machines have their disks in.
var DiskFormats = []ovf.Format{ovf.FormatRaw, ovf.FormatQCOW2, ovf.FormatVMDK, ovf.FormatVDI, ovf.FormatVHD}

// DiskFormat is the format of a disk by the suffix of its name, else raw. It is never told by content:
// a guest can write to a raw disk what makes it look like another format, with a sound disk in it.
func DiskFormat(name string) ovf.Format {
	if f, ok := suffixes[strings.ToLower(filepath.Ext(name))]; ok {
		return f
	}
	return ovf.FormatRaw
}

// Check compares the disk in a file or on a device, which no running machine has, with what the image
// says. It is read once, by all processors. An empty format is that of the name.
func (d *Disks) Check(ctx context.Context, name string, format ovf.Format, p image.Progress) (*DiskReport, error) {
	if format == "" {
		format = DiskFormat(name)
	}
	i, err := ovf.OpenImage(ctx, name, format)
	if err != nil {
		if path := (*fs.PathError)(nil); errors.As(err, &path) || ctx.Err() != nil {
			return nil, err
		}
		return nil, fmt.Errorf("%w: %w", ErrDisk, err)
	}
	defer i.Close()
	r := &DiskReport{Format: format, Report: Report{Findings: []Finding{}, Restored: []string{}}}
	if d.captured != nil {
		err = d.whole(ctx, i, r, p)
	} else {
		err = d.parts(ctx, i, r, p)
	}
	switch {
	case ctx.Err() != nil:
		return nil, ctx.Err()
	case err != nil:
		r.Findings = append(r.Findings, Finding{disk.PartDisk, Unread, cause(err)})
	}
	if len(r.Findings) > 0 && format == ovf.FormatRaw {
		if other, err := ovf.OpenImage(ctx, name, ""); err == nil {
			if slices.Contains(DiskFormats, other.Format) && other.Format != format {
				r.Looks = other.Format
			}
			other.Close()
		}
	}
	return r, nil
}

// parts compares what of a disk has to stay as it is.
func (d *Disks) parts(ctx context.Context, i *ovf.Image, r *DiskReport, p image.Progress) error {
	which, diffs, err := disk.Verify(ctx, d.golden, i.Content, i.Size, func(done, total int64) { p.Report("check", done, total) })
	if err != nil {
		return err
	}
	g := d.golden[which]
	r.Artifacts, r.Entries, r.Hashed, r.Bytes = d.artifacts[which], 4, 1, g.Root+g.Blocks*4096+g.ESPSize
	for _, x := range diffs {
		r.Findings = append(r.Findings, Finding{x.Part, Changed, x.What})
	}
	return nil
}

// whole compares all of a disk. Behind it may be zeros: some formats have disks of round sizes only.
func (d *Disks) whole(ctx context.Context, i *ovf.Image, r *DiskReport, p image.Progress) error {
	want := d.captured
	r.Entries, r.Hashed = 1, 1
	if i.Size < want.Size {
		r.Findings = append(r.Findings, Finding{disk.PartDisk, Changed, fmt.Sprintf("%d bytes, not %d", i.Size, want.Size)})
		return nil
	}
	w := &wholeDisk{Hash: sha256.New(), left: want.Size, total: i.Size, progress: p}
	if err := ovf.WriteRaw(ctx, w, i.Source, i.Size); err != nil {
		return err
	}
	r.Bytes = w.done
	switch {
	case [sha256.Size]byte(w.Sum(nil)) != want.Digest:
		r.Findings = append(r.Findings, Finding{disk.PartDisk, Changed, "content"})
	case w.more:
		r.Findings = append(r.Findings, Finding{disk.PartDisk, Changed, fmt.Sprintf("more than the %d bytes, and not zeros", want.Size)})
	}
	return nil
}

// A wholeDisk hashes so many bytes, and tells whether more than zeros follow.
type wholeDisk struct {
	hash.Hash
	left, done, total int64
	more              bool
	progress          image.Progress
}

func (w *wholeDisk) Write(p []byte) (int, error) {
	n := min(w.left, int64(len(p)))
	w.Hash.Write(p[:n])
	w.left -= n
	w.more = w.more || slices.ContainsFunc(p[n:], func(b byte) bool { return b != 0 })
	w.done += int64(len(p))
	w.progress.Report("check", w.done, w.total)
	return len(p), nil
}
