package builder

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"strconv"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/gohcl"

	"github.com/goldenisc/packer-plugin-isc/image"
	"github.com/goldenisc/packer-plugin-isc/ovf"
	"github.com/goldenisc/packer-plugin-isc/profiles"
	"github.com/goldenisc/packer-plugin-isc/registry"
	"github.com/goldenisc/packer-plugin-isc/zfs"
)

// A ZPool is a whole pool of one vdev with the root in its dataset ROOT/NAME, after the image, which
// is the one to boot from. The dataset has the snapshot of the first zfs block of layout top, of the
// same guid, so that the increments of that block go into it; without such a block it is the one that
// an empty zfs block stands for. Hosts import the pool, and can write to it.
type ZPool struct {
	ID          string `hcl:"id,optional"`          // default zpool
	Pool        string `hcl:"pool,optional"`        // its name; default rpool
	Size        string `hcl:"size,optional"`        // of the vdev, at least 64MiB; default a quarter more than the root, and 512MiB. What is free costs nothing but in an artifact that is not compressed
	Ashift      int    `hcl:"ashift,optional"`      // logarithm of the smallest block: 9 to 13, default 12
	VDev        string `hcl:"vdev,optional"`        // what it is on the host: file (default), for zpool import -d FOLDER, or disk, which is a partition too
	Compression string `hcl:"compression,optional"` // of the artifact: none, gzip or zstd (default)

	faulty bool // its values are reported already
}

// Values of ZPool.VDev.
const (
	vdevFile = "file"
	vdevDisk = "disk"
)

// Of pools.
const (
	defaultPool   = "rpool"
	defaultAshift = 12
	poolFree      = 512 << 20 // bytes more than the root: a host keeps 128 MiB to itself
)

func newZPool(body hcl.Body, ctx *hcl.EvalContext) (Writer, hcl.Diagnostics) {
	p := &ZPool{Pool: defaultPool, Ashift: defaultAshift, VDev: vdevFile, Compression: string(image.Zstd)}
	diags := gohcl.DecodeBody(body, ctx, p)
	diags = append(diags, compression(body, p.Compression)...)
	diags = append(diags, oneOf(body, "vdev", p.VDev, vdevFile, vdevDisk)...)
	p.faulty = diags.HasErrors()
	return p, diags
}

// problems returns what is wrong with the pool, without anything in it.
func (p *ZPool) problems(s *Spec) (out []Problem) {
	if s.Image == nil || p.faulty {
		return nil
	}
	size := int64(1 << 30)
	if p.Size != "" {
		n, err := profiles.ParseSize(p.Size)
		if err != nil {
			return []Problem{{"size", err}}
		}
		size = n
	}
	if err := checkPool(p.Pool, p.Ashift, size); err != nil {
		out = append(out, Problem{"", err})
	}
	return out
}

// checkPool says what is wrong with a pool, by making an empty one.
func checkPool(name string, ashift int, size int64) error {
	if ashift == 0 {
		return errors.New("ashift 0: not from 9 to 13") // 0 is the default of package zfs
	}
	p, err := zfs.NewPool(context.Background(), nil, zfs.PoolOptions{Name: name, Ashift: ashift, Size: size})
	if err != nil {
		return err
	}
	return p.Close()
}

// Write writes the pool.
func (p *ZPool) Write(ctx context.Context, id string, src *Source, to *registry.Stage) ([]image.Artifact, error) {
	r := rootPool{name: p.Pool, ashift: p.Ashift, file: p.VDev == vdevFile}
	if p.Size != "" {
		n, err := profiles.ParseSize(p.Size)
		if err != nil {
			return nil, Input(err)
		}
		r.size = n
	}
	pool, attributes, err := r.make(ctx, src)
	if err != nil {
		return nil, err
	}
	defer pool.Close()
	a := image.Artifact{Name: id, Kind: "zpool", MediaType: image.TypeZPool, Attributes: attributes}
	a.Attributes["capacity"] = strconv.FormatInt(pool.Size(), 10)
	a.Attributes["vdev"] = p.VDev
	if p.Compression != string(image.None) {
		a.MediaType += "+" + p.Compression
	}
	total := pool.Size()
	a, err = put(ctx, to, a, image.Compression(p.Compression), func(w io.Writer) error {
		return ovf.WriteRaw(ctx, &progressWriter{w: w, report: func(n int64) { src.Progress.Report(id, n, total) }}, poolSource(pool), total)
	})
	return []image.Artifact{a}, err
}

// A rootPool is a pool that a host or a virtual machine starts from.
type rootPool struct {
	name   string
	ashift int
	size   int64  // bytes; 0 is as large as fits the root, and more
	more   int64  // bytes, besides the root
	file   bool   // it is a file on the host
	path   string // of the vdev, if it is known
}

// make makes the pool, and says what is in it.
func (r *rootPool) make(ctx context.Context, src *Source) (*zfs.Pool, map[string]string, error) {
	img := src.Spec.Image
	z := src.poolStream()
	bases, err := z.bases(src)
	if err != nil {
		return nil, nil, err
	}
	s, err := z.stream(ctx, src, &placement{}, latest(bases))
	if err != nil {
		return nil, nil, Input(err)
	}
	size := r.size
	if size == 0 {
		if size, err = poolSize(src.Tree, r.more); err != nil {
			return nil, nil, err
		}
	}
	boot := "ROOT/" + img.Name
	props := map[string]string{"canmount": "noauto", "mountpoint": "/"}
	if z.platform(img.OS) == zfs.Illumos {
		// What beadm(8) knows a boot environment by.
		props["org.opensolaris.libbe:uuid"] = bootUUID(r.name, s.GUID())
		props["org.opensolaris.libbe:policy"] = "static"
	}
	pool, err := zfs.NewPool(ctx, []zfs.Dataset{
		{Properties: map[string]string{"mountpoint": "/" + r.name}},
		{Name: "ROOT", Properties: map[string]string{"canmount": "off", "mountpoint": "legacy"}},
		{Name: boot, Properties: props, Content: s},
	}, zfs.PoolOptions{Name: r.name, Size: size, Ashift: r.ashift, File: r.file, Path: r.path, Boot: boot, Created: src.Created})
	if err != nil {
		return nil, nil, Input(err)
	}
	a := z.attributes(img.OS)
	a[image.AttrGUID] = strconv.FormatUint(s.GUID(), 10)
	a["pool"] = r.name
	a["poolGuid"] = strconv.FormatUint(pool.GUID(), 10)
	a["ashift"] = strconv.Itoa(r.ashift)
	a["bootfs"] = r.name + "/" + boot
	if z.LZ4 {
		a["blocks"] = "lz4"
	}
	return pool, a, nil
}

// poolStream returns the zfs block whose snapshot is that of pools.
func (src *Source) poolStream() *ZFS {
	for _, k := range src.Spec.Artifacts {
		if z, ok := k.Writer.(*ZFS); ok && z.Layout == layoutTop {
			return z
		}
	}
	return &ZFS{Profile: "zpl5", Layout: layoutTop}
}

// poolSize returns the size of a pool for a tree and more bytes besides it, in bytes: whole MiB.
func poolSize(t *image.Tree, more int64) (int64, error) {
	const (
		block  = 128 << 10 // a file of more has whole blocks
		object = 2 << 10   // and its part of tables and directories
	)
	need := more
	for e := range t.All() {
		need += object
		if !e.IsRegular() || e.HardLink != "" {
			continue
		}
		size := e.Size
		if size > block { // there may be holes
			f, err := t.Open(e.Name)
			if err != nil {
				return 0, err
			}
			size = block
			for _, x := range f.Extents() {
				size += (x.Len + 2*block - 1) / block * block
			}
			if err := f.Close(); err != nil {
				return 0, err
			}
		}
		need += size + 1<<defaultAshift
	}
	const mib = 1 << 20
	return (need + need/4 + poolFree + mib - 1) / mib * mib, nil
}

// bootUUID returns the uuid of a boot environment: version 8 of RFC 9562, of what is in it.
func bootUUID(pool string, guid uint64) string {
	u := sha256.Sum256(fmt.Appendf(nil, "isc boot environment %q %d", pool, guid))
	u[6] = u[6]&0x0f | 0x80
	u[8] = u[8]&0x3f | 0x80
	return fmt.Sprintf("%x-%x-%x-%x-%x", u[:4], u[4:6], u[6:8], u[8:10], u[10:16])
}

// poolSource is a pool as package ovf has a disk.
func poolSource(p *zfs.Pool) ovf.Source {
	s := ovf.Source{Content: p, Size: p.Size(), Extents: []ovf.Extent{}}
	for _, x := range p.Extents() {
		s.Extents = append(s.Extents, ovf.Extent{Offset: x.Off, Length: x.Len})
	}
	return s
}
