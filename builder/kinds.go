package builder

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"io"
	"time"

	"github.com/hashicorp/hcl/v2"

	"github.com/goldenisc/packer-plugin-isc/image"
	"github.com/goldenisc/packer-plugin-isc/profiles"
	"github.com/goldenisc/packer-plugin-isc/registry"
)

// A Kind is one artifact format. New decodes its block of the spec into a Writer: a pointer to a
// struct whose hcl tags name the attributes, also if there are errors.
type Kind struct {
	Block string
	New   func(body hcl.Body, ctx *hcl.EvalContext) (Writer, hcl.Diagnostics)
	Disk  bool // it takes a captured disk
}

// A Writer writes the artifacts of one block of the spec. Write puts blobs into the stage, names
// the artifacts after id and returns them in a fixed order; what it writes depends on src only.
// Several Writers run at once over the same source.
type Writer interface {
	Write(ctx context.Context, id string, src *Source, to *registry.Stage) ([]image.Artifact, error)
}

// A Source is what artifacts are made of.
type Source struct {
	Tree      *image.Tree   // frozen; empty if the spec has no base
	Disk      *CapturedDisk // or nil
	Spec      *Spec
	Selection *profiles.Selection
	Created   time.Time // the build date
	Dir       string    // for temporary files
	Progress  image.Progress

	earlier  map[*ZFS][]*earlier // what increments start from
	platform map[string]baseFile // what the base has where SmartOS has its own; nil if that does not matter

	used dependencies // of the artifacts, besides the tree
}

// Kinds is the table of artifact formats.
var Kinds = []Kind{
	{Block: "zone", New: newZone},
	{Block: "zfs", New: newZFS},
	{Block: "zpool", New: newZPool},
	{Block: "ova", New: newOVA, Disk: true},
	{Block: "raw_disk", New: newRawDisk, Disk: true},
	{Block: "qcow2", New: newQCOW2, Disk: true},
	{Block: "vmdk", New: newVMDK, Disk: true},
	{Block: "vhd", New: newVHD, Disk: true},
	{Block: "gcp", New: newGCP, Disk: true},
}

// put writes one blob, compressed as asked for, and describes it.
func put(ctx context.Context, to *registry.Stage, a image.Artifact, c image.Compression, write func(io.Writer) error) (image.Artifact, error) {
	return putAlso(ctx, to, a, c, nil, write)
}

// putAlso is put, and writes the blob's bytes to also as well, unless that is nil.
func putAlso(ctx context.Context, to *registry.Stage, a image.Artifact, c image.Compression, also io.Writer, write func(io.Writer) error) (image.Artifact, error) {
	b, err := to.Create()
	if err != nil {
		return a, err
	}
	defer b.Close()
	out := io.Writer(b)
	if also != nil {
		out = io.MultiWriter(b, also)
	}
	if c == image.None {
		if err := write(out); err != nil {
			return a, err
		}
		a.Digest, a.Size, err = b.Commit()
		return a, err
	}
	z, err := image.NewCompressor(ctx, out, c)
	if err != nil {
		return a, err
	}
	sum := counter{Hash: sha256.New()}
	err = write(io.MultiWriter(&sum, z))
	// Close also after an error: the first one may be only what the compressor ran into.
	if e := z.Close(); e != nil {
		err = e
	}
	if err != nil {
		return a, err
	}
	a.UncompressedDigest, a.UncompressedSize = "sha256:"+hex.EncodeToString(sum.Sum(nil)), sum.n
	a.Digest, a.Size, err = b.Commit()
	return a, err
}

// bytesOf returns what writes data, for put.
func bytesOf(data []byte) func(io.Writer) error {
	return func(w io.Writer) error {
		_, err := w.Write(data)
		return err
	}
}
