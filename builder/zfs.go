package builder

import (
	"context"
	"fmt"
	"io"
	"regexp"
	"strconv"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/gohcl"

	"github.com/goldenisc/packer-plugin-isc/image"
	"github.com/goldenisc/packer-plugin-isc/profiles"
	"github.com/goldenisc/packer-plugin-isc/registry"
	"github.com/goldenisc/packer-plugin-isc/zfs"
)

// A ZFS is a send stream of the root, as zfs receive takes it; its object map; and an increment from
// each of the images that From names.
type ZFS struct {
	ID       string `hcl:"id,optional"`       // default zfs
	Profile  string `hcl:"profile,optional"`  // zpl5 (default), or zpl4 for pools of a version below 24
	Layout   string `hcl:"layout,optional"`   // top (default): the dataset is the root; root: it is a zonepath, with the root in its folder root
	Platform string `hcl:"platform,optional"` // linux, illumos or freebsd: what mounts it; default image.os, and illumos for layout root

	// Brand is what the zone is to be: illumos, ipkg, lipkg, sparse or lx for layout top, joyent or lx for
	// layout root. Default illumos or joyent, for a Linux image lx. It is of no use elsewhere.
	Brand string `hcl:"brand,optional"`

	Compression string `hcl:"compression,optional"` // of the artifact: none, gzip or zstd (default; gzip for layout root, as imgadm reads no zstd)
	LZ4         bool   `hcl:"lz4,optional"`         // blocks compressed in the stream, and so on the pool, which must have feature@lz4_compress

	// MinPlatform is the oldest platform of SmartOS that the image runs on, such as 20240101T000000Z.
	MinPlatform string `hcl:"min_platform,optional"`

	// From names images, as references, that have a stream of the same profile, layout and platform. The
	// latest of them is the one whose object numbers are kept.
	From []string `hcl:"from,optional"`

	faulty bool // its values are reported already
}

// Values of ZFS.Layout.
const (
	layoutTop  = "top"
	layoutRoot = "root"
)

// Brands of zones.
const (
	brandJoyent        = "joyent"
	brandJoyentMinimal = "joyent-minimal"
	brandLX            = "lx"
)

// platformForm is that of platform versions of SmartOS.
var platformForm = regexp.MustCompile(`^20[1-9]\d(0[1-9]|1[0-2])\d{2}T\d{6}Z$`)

var (
	zfsProfiles  = map[string]zfs.Profile{"zpl5": zfs.ZPL5, "zpl4": zfs.ZPL4}
	zfsPlatforms = map[string]zfs.Platform{"linux": zfs.Linux, "illumos": zfs.Illumos, "freebsd": zfs.FreeBSD}
	zfsBrands    = map[string][]string{layoutTop: {"illumos", "ipkg", "lipkg", "sparse", brandLX}, layoutRoot: {brandJoyent, brandLX}}
)

func newZFS(body hcl.Body, ctx *hcl.EvalContext) (Writer, hcl.Diagnostics) {
	z := &ZFS{Profile: "zpl5", Layout: layoutTop}
	diags := gohcl.DecodeBody(body, ctx, z)
	diags = append(diags, oneOf(body, "profile", z.Profile, "zpl5", "zpl4")...)
	diags = append(diags, oneOf(body, "layout", z.Layout, layoutTop, layoutRoot)...)
	if z.Platform != "" {
		diags = append(diags, oneOf(body, "platform", z.Platform, sortedKeys(zfsPlatforms)...)...)
	}
	if z.Compression == "" {
		z.Compression = string(image.Zstd)
		if z.Layout == layoutRoot {
			z.Compression = string(image.Gzip)
		}
	}
	diags = append(diags, compression(body, z.Compression)...)
	z.faulty = diags.HasErrors()
	return z, diags
}

// problems returns what does not go together.
func (z *ZFS) problems(s *Spec) (out []Problem) {
	if s.Image == nil || z.faulty {
		return nil
	}
	on := func(path, format string, args ...any) { out = append(out, Problem{path, fmt.Errorf(format, args...)}) }
	brand, brands := z.brand(s.Image.OS), zfsBrands[z.Layout]
	switch {
	case z.Brand == brandJoyentMinimal:
		on("brand", "zones of the brand %s import no manifest of their own: services would never start. Use %s", brandJoyentMinimal, brandJoyent)
	case checkOneOf(brand, brands) != nil:
		on("brand", "%w, for layout %q", checkOneOf(brand, brands), z.Layout)
	case s.Image.OS == profiles.Linux && brand != brandLX:
		on("brand", "a Linux image is one for zones of the brand %s", brandLX)
	case s.Image.OS != profiles.Linux && brand == brandLX:
		on("brand", "zones of the brand %s are of Linux images", brandLX)
	}
	if z.Layout == layoutRoot {
		if z.Compression == string(image.Zstd) {
			on("compression", "imgadm, which installs streams of layout root, reads no zstd: gzip or none")
		}
		if z.platform(s.Image.OS) != zfs.Illumos {
			on("platform", "zonepaths are of illumos hosts only")
		}
	}
	if z.MinPlatform != "" && (z.Layout != layoutRoot || !platformForm.MatchString(z.MinPlatform)) {
		on("min_platform", "%q: of layout root, a date and time such as 20240101T000000Z", z.MinPlatform)
	}
	if z.LZ4 && z.Profile == "zpl4" {
		on("lz4", "pools that need zpl4 have no lz4_compress")
	}
	for i, source := range z.From {
		if err := checkFrom(source, s.Dir); err != nil {
			on(fmt.Sprintf("from[%d]", i), "%w", err)
		}
	}
	if brand == brandJoyent {
		for _, err := range hiddenFiles(s) {
			on("brand", "%w", err)
		}
	}
	return out
}

// brand returns the brand of the zone.
func (z *ZFS) brand(os string) string {
	switch {
	case z.Brand != "":
		return z.Brand
	case z.Layout == layoutRoot && os != profiles.Linux:
		return brandJoyent
	}
	return profiles.DefaultBrand(os)
}

// platform returns what mounts the dataset.
func (z *ZFS) platform(os string) zfs.Platform {
	switch {
	case z.Platform != "":
		return zfsPlatforms[z.Platform]
	case z.Layout == layoutRoot || os != profiles.Linux:
		return zfs.Illumos
	}
	return zfs.Linux
}

// attributes are what must be the same of two streams for an increment to lead from one to the other.
func (z *ZFS) attributes(os string) map[string]string {
	a := map[string]string{
		image.AttrProfile: z.Profile, image.AttrLayout: z.Layout, image.AttrPlatform: z.platform(os).String(),
	}
	if a[image.AttrPlatform] == zfs.Illumos.String() {
		a[image.AttrBrand] = z.brand(os)
	}
	return a
}

// Write writes the full stream, the increments, the map, and what the programs that install it want
// beside it.
func (z *ZFS) Write(ctx context.Context, id string, src *Source, to *registry.Stage) ([]image.Artifact, error) {
	os := src.Spec.Image.OS
	place, err := z.place(src)
	if err != nil {
		return nil, Input(err)
	}
	bases, err := z.bases(src)
	if err != nil {
		return nil, err
	}
	s, err := z.stream(ctx, src, place, latest(bases))
	if err != nil {
		return nil, Input(err)
	}
	full := image.Artifact{Name: id, Kind: "zfs", MediaType: image.TypeZFS, Attributes: z.attributes(os)}
	full.Attributes[image.AttrGUID] = strconv.FormatUint(s.GUID(), 10)
	if z.LZ4 {
		full.Attributes["blocks"] = "lz4"
	}
	sums := newFileSums()
	full, err = z.put(ctx, to, full, src, sums, func(w io.Writer) error { return s.Write(ctx, w) })
	if err != nil {
		return nil, err
	}
	out := []image.Artifact{full}
	for _, b := range bases {
		a := image.Artifact{Name: id + "/" + b.name, Kind: image.KindIncrement, MediaType: image.TypeZFS, From: b.digest, Attributes: z.attributes(os)}
		a.Attributes[image.AttrGUID] = full.Attributes[image.AttrGUID]
		a.Attributes[image.AttrFromGUID] = strconv.FormatUint(b.objects.GUID(), 10)
		a.Attributes["version"] = b.version
		a, err := z.put(ctx, to, a, src, nil, func(w io.Writer) error { return s.WriteIncrement(ctx, w, b.objects, false) })
		if err != nil {
			return nil, fmt.Errorf("increment from %q: %w", b.source, err)
		}
		out = append(out, a)
	}
	m, err := s.Map()
	if err != nil {
		return nil, err
	}
	objects := image.Artifact{Name: id + "/map", Kind: "zfs-map", MediaType: image.TypeZFSMap + "+zstd", Attributes: z.attributes(os)}
	objects.Attributes[image.AttrGUID] = full.Attributes[image.AttrGUID]
	objects, err = put(ctx, to, objects, image.Zstd, func(w io.Writer) error {
		_, err := m.WriteTo(contextWriter{ctx, w})
		return err
	})
	if err != nil {
		return nil, err
	}
	sidecars, err := z.sidecars(ctx, id, src, to, &full, sums, place)
	return append(append(out, objects), sidecars...), err
}

// stream returns the send stream of the tree.
func (z *ZFS) stream(ctx context.Context, src *Source, place *placement, base *zfs.Map) (*zfs.Stream, error) {
	o := zfs.Options{
		Profile: zfsProfiles[z.Profile], Platform: z.platform(src.Spec.Image.OS), LZ4: z.LZ4,
		Name: "image@golden", Created: src.Created, Base: base,
	}
	if z.Layout == layoutRoot {
		o.Name = "image@final" // what imgadm makes of any other name
	}
	if z.Layout == layoutRoot && place.moved == nil {
		o.Layout = zfs.ZonePath
	}
	return zfs.NewStream(place.objects(ctx, src), o)
}

// put writes a stream, compressed, and reports how far it is.
func (z *ZFS) put(ctx context.Context, to *registry.Stage, a image.Artifact, src *Source, sums io.Writer, write func(io.Writer) error) (image.Artifact, error) {
	if z.Compression != string(image.None) {
		a.MediaType += "+" + z.Compression
	}
	total := src.Tree.Bytes()
	return putAlso(ctx, to, a, image.Compression(z.Compression), sums, func(w io.Writer) error {
		return write(&progressWriter{w: w, report: func(n int64) { src.Progress.Report(a.Name, min(n, total), total) }})
	})
}

// A progressWriter tells how much went through it.
type progressWriter struct {
	w      io.Writer
	n      int64
	report func(n int64)
}

func (p *progressWriter) Write(b []byte) (int, error) {
	n, err := p.w.Write(b)
	p.n += int64(n)
	p.report(p.n)
	return n, err
}
