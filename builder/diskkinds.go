package builder

import (
	"context"
	"encoding/hex"
	"errors"
	"io"
	"strconv"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/gohcl"

	"github.com/goldenisc/packer-plugin-isc/image"
	"github.com/goldenisc/packer-plugin-isc/internal/disk"
	"github.com/goldenisc/packer-plugin-isc/internal/tempfile"
	"github.com/goldenisc/packer-plugin-isc/ovf"
	"github.com/goldenisc/packer-plugin-isc/registry"
)

// levels are how hard disks are compressed.
var levels = map[string]ovf.Level{"": ovf.Default, "default": ovf.Default, "fast": ovf.Fast, "small": ovf.Small}

// A RawDisk is the bytes of the disk.
type RawDisk struct {
	ID          string `hcl:"id,optional"`          // default raw_disk
	Compression string `hcl:"compression,optional"` // none, gzip or zstd (default)
	Guest       `hcl:",remain"`
}

func newRawDisk(body hcl.Body, ctx *hcl.EvalContext) (Writer, hcl.Diagnostics) {
	d := &RawDisk{Compression: string(image.Zstd)}
	diags := gohcl.DecodeBody(body, ctx, d)
	diags = append(diags, compression(body, d.Compression)...)
	return d, append(diags, d.check(body)...)
}

// compression checks that of a block.
func compression(body hcl.Body, value string) hcl.Diagnostics {
	return oneOf(body, "compression", value, string(image.None), string(image.Gzip), string(image.Zstd))
}

// Write writes the disk.
func (d *RawDisk) Write(ctx context.Context, id string, src *Source, to *registry.Stage) ([]image.Artifact, error) {
	return src.writeDisks(ctx, id, to, &d.Guest, rawHardware, func(v *virtualDisk, id string) (image.Artifact, error) {
		a := v.artifact(id, "raw_disk", image.TypeRawDisk)
		return v.put(ctx, to, a, d.Compression, func(w io.Writer) error { return ovf.WriteRaw(ctx, w, v.Source, v.Size) })
	})
}

// A VHD is a fixed virtual hard disk as Azure takes it: whole MiB, a footer at the end.
type VHD struct {
	ID          string `hcl:"id,optional"`          // default vhd
	Compression string `hcl:"compression,optional"` // none, gzip or zstd (default)
	Guest       `hcl:",remain"`
}

func newVHD(body hcl.Body, ctx *hcl.EvalContext) (Writer, hcl.Diagnostics) {
	d := &VHD{Compression: string(image.Zstd)}
	diags := gohcl.DecodeBody(body, ctx, d)
	diags = append(diags, compression(body, d.Compression)...)
	return d, append(diags, d.check(body)...)
}

// Write writes the disk.
func (d *VHD) Write(ctx context.Context, id string, src *Source, to *registry.Stage) ([]image.Artifact, error) {
	return src.writeDisks(ctx, id, to, &d.Guest, azureHardware, func(v *virtualDisk, id string) (image.Artifact, error) {
		a := v.artifact(id, "vhd", image.TypeVHD)
		return v.put(ctx, to, a, d.Compression, func(w io.Writer) error {
			return ovf.WriteVHD(ctx, w, v.Source, v.id, src.Created)
		})
	})
}

// A GCP is the archive that Google's Compute Engine makes an image of: disk.raw, of whole GiB, in a
// tar with gzip.
type GCP struct {
	ID    string `hcl:"id,optional"` // default gcp
	Guest `hcl:",remain"`
}

func newGCP(body hcl.Body, ctx *hcl.EvalContext) (Writer, hcl.Diagnostics) {
	d := new(GCP)
	diags := gohcl.DecodeBody(body, ctx, d)
	return d, append(diags, d.check(body)...)
}

// Write writes the archive.
func (d *GCP) Write(ctx context.Context, id string, src *Source, to *registry.Stage) ([]image.Artifact, error) {
	return src.writeDisks(ctx, id, to, &d.Guest, gcpHardware, func(v *virtualDisk, id string) (image.Artifact, error) {
		a := v.artifact(id, "gcp", image.TypeGCP)
		return v.put(ctx, to, a, string(image.Gzip), func(w io.Writer) error { return ovf.WriteGCP(ctx, w, v.Source, src.Created) })
	})
}

// A QCOW2 is a disk for QEMU and what is built on it, with compressed clusters.
type QCOW2 struct {
	ID    string `hcl:"id,optional"`    // default qcow2
	Level string `hcl:"level,optional"` // fast, default or small
	Guest `hcl:",remain"`
}

func newQCOW2(body hcl.Body, ctx *hcl.EvalContext) (Writer, hcl.Diagnostics) {
	d := &QCOW2{Level: "default"}
	diags := gohcl.DecodeBody(body, ctx, d)
	diags = append(diags, oneOf(body, "level", d.Level, "fast", "default", "small")...)
	return d, append(diags, d.check(body)...)
}

// Write writes the disk: what is compressed is spooled, as the head of the file tells where it is.
func (d *QCOW2) Write(ctx context.Context, id string, src *Source, to *registry.Stage) ([]image.Artifact, error) {
	return src.writeDisks(ctx, id, to, &d.Guest, qemuHardware, func(v *virtualDisk, id string) (_ image.Artifact, err error) {
		a := v.artifact(id, "qcow2", image.TypeQCOW2)
		s, err := tempfile.New(src.Dir)
		if err != nil {
			return a, err
		}
		defer func() { err = errors.Join(err, s.Close()) }()
		q, err := ovf.PackQCOW2(ctx, s, v.Source, v.options(src, d.Level))
		if err != nil {
			return a, err
		}
		return put(ctx, to, a, image.None, func(w io.Writer) error {
			_, err := q.WriteTo(contextWriter{ctx, w})
			return err
		})
	})
}

// A VMDK is a stream-optimized disk by itself: what vSphere uploads, AWS imports as a snapshot, and
// ESXi clones with vmkfstools.
type VMDK struct {
	ID    string `hcl:"id,optional"`    // default vmdk
	Level string `hcl:"level,optional"` // fast, default or small
	Guest `hcl:",remain"`
}

func newVMDK(body hcl.Body, ctx *hcl.EvalContext) (Writer, hcl.Diagnostics) {
	d := &VMDK{Level: "default"}
	diags := gohcl.DecodeBody(body, ctx, d)
	diags = append(diags, oneOf(body, "level", d.Level, "fast", "default", "small")...)
	return d, append(diags, d.check(body)...)
}

// Write writes the disk, in one pass.
func (d *VMDK) Write(ctx context.Context, id string, src *Source, to *registry.Stage) ([]image.Artifact, error) {
	return src.writeDisks(ctx, id, to, &d.Guest, esxiHardware, func(v *virtualDisk, id string) (image.Artifact, error) {
		a := v.artifact(id, "vmdk", image.TypeVMDK)
		return put(ctx, to, a, image.None, func(w io.Writer) error {
			_, err := ovf.WriteVMDK(ctx, w, v.Source, v.options(src, d.Level))
			return err
		})
	})
}

// What the machines that the kinds are for have. An OVA describes its own.
var (
	rawHardware   = []disk.Hardware{disk.VirtioBlk, disk.VirtioNet}
	qemuHardware  = []disk.Hardware{disk.VirtioBlk, disk.VirtioNet}
	azureHardware = []disk.Hardware{disk.HyperV}
	gcpHardware   = []disk.Hardware{disk.VirtioSCSI, disk.NVMe, disk.VirtioNet} // newer series have NVMe alone
	esxiHardware  = []disk.Hardware{disk.PVSCSI, disk.VMXNet3}
)

// A virtualDisk is what the disk kinds write: a captured disk, or one made of the tree.
type virtualDisk struct {
	ovf.Source
	id         [16]byte // of its content
	attributes map[string]string
	close      func() error // of what it is read from; may be nil
	golden     []byte       // what a host compares it with; nil of one that guests write to
	second     *virtualDisk // what goes with it; may be nil
}

// kindSecond is the kind of artifacts that are a second disk.
const kindSecond = "second-disk"

// writeDisks is [Source.writeDisk] for formats of one disk a file: the second disk, if there is one, is
// an artifact of its own.
func (src *Source) writeDisks(ctx context.Context, id string, to *registry.Stage, g *Guest, machine []disk.Hardware, write func(v *virtualDisk, id string) (image.Artifact, error)) ([]image.Artifact, error) {
	return src.writeDisk(ctx, id, to, g, machine, func(v *virtualDisk) ([]image.Artifact, error) {
		a, err := write(v, id)
		if err != nil || v.second == nil {
			return []image.Artifact{a}, err
		}
		second, err := write(v.second, id+"/second")
		second.Kind = kindSecond
		return []image.Artifact{a, second}, err
	})
}

// writeDisk opens the disk of a source, which for one made of the tree has drivers for the machine,
// writes it, and what a host compares it with.
func (src *Source) writeDisk(ctx context.Context, id string, to *registry.Stage, g *Guest, machine []disk.Hardware, write func(*virtualDisk) ([]image.Artifact, error)) ([]image.Artifact, error) {
	v, err := src.disk(ctx, g, machine)
	if err != nil {
		return nil, err
	}
	list, err := write(v)
	if v.close != nil {
		err = errors.Join(err, v.close())
	}
	if err != nil || v.golden == nil {
		return list, err
	}
	golden, err := put(ctx, to, image.Artifact{Name: id + "/golden", Kind: "golden", MediaType: image.TypeGolden}, image.None, bytesOf(v.golden))
	return append(list, golden), err
}

// disk returns the disk of a source: the captured one if there is one.
func (src *Source) disk(ctx context.Context, g *Guest, machine []disk.Hardware) (*virtualDisk, error) {
	if d := src.Disk; d != nil {
		v := &virtualDisk{Source: d.Source, attributes: map[string]string{"source": string(d.Format)}}
		copy(v.id[:], d.Digest[:])
		return v, nil
	}
	return g.build(ctx, src, machine)
}

// artifact describes the disk's artifact.
func (v *virtualDisk) artifact(id, kind, mediaType string) image.Artifact {
	a := image.Artifact{Name: id, Kind: kind, MediaType: mediaType, Attributes: map[string]string{
		"capacity": strconv.FormatInt(v.Size, 10), "disk": hex.EncodeToString(v.id[:]),
	}}
	for k, value := range v.attributes {
		a.Attributes[k] = value
	}
	return a
}

// put writes the artifact, compressed.
func (v *virtualDisk) put(ctx context.Context, to *registry.Stage, a image.Artifact, c string, write func(io.Writer) error) (image.Artifact, error) {
	if c != string(image.None) {
		a.MediaType += "+" + c
	}
	return put(ctx, to, a, image.Compression(c), write)
}

// options are those of the compressing writers.
func (v *virtualDisk) options(src *Source, level string) ovf.WriteOptions {
	return ovf.WriteOptions{Level: levels[level], ID: v.id, Progress: func(done, total int64) { src.Progress.Report("compress", done, total) }}
}

// A contextWriter ends when its context does.
type contextWriter struct {
	ctx context.Context
	w   io.Writer
}

func (c contextWriter) Write(p []byte) (int, error) {
	if err := c.ctx.Err(); err != nil {
		return 0, err
	}
	return c.w.Write(p)
}
