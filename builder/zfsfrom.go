package builder

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"

	"github.com/goldenisc/packer-plugin-isc/image"
	"github.com/goldenisc/packer-plugin-isc/registry"
	"github.com/goldenisc/packer-plugin-isc/zfs"
)

// An earlier is an image that increments start from, as one zfs block has it.
type earlier struct {
	source  string // as written in the spec
	digest  string // of its index
	version string
	name    string // of the increment, without the id of the block
	objects *zfs.Map
}

// checkFrom checks a reference of From.
func checkFrom(source, dir string) error {
	loc, err := ParseSource(source, dir)
	if err != nil {
		return err
	}
	switch loc.Scheme {
	case "dir", "tar", "zfs", "skeleton":
		return fmt.Errorf("%q is no image: the object map of a stream is needed, which images have beside it", source)
	}
	return loc.exists()
}

// Trust decides whether an image may be what increments start from. Its object map says which bytes
// are where: a forged one would damage what receives the increment.
type Trust func(ctx context.Context, ref registry.Ref, from registry.Store, m *registry.Image) error

// openEarlier reads the maps of the images that the zfs blocks start from, and describes the images for
// the provenance. Every image is read once.
func (s *Spec) openEarlier(ctx context.Context, o BuildOptions) (map[*ZFS][]*earlier, []Dependency, error) {
	found := map[*ZFS][]*earlier{}
	var sources []Dependency
	noted := map[string]bool{}
	for _, k := range s.Artifacts {
		z, ok := k.Writer.(*ZFS)
		if !ok {
			continue
		}
		for _, source := range z.From {
			e, err := z.open(ctx, s, k.ID, source, o, noted[source])
			if err != nil {
				return nil, nil, fmt.Errorf("increment from %q: %w", source, err)
			}
			found[z] = append(found[z], e)
			if !noted[source] {
				noted[source] = true
				sources = append(sources, Dependency{
					Name: "from", URI: source, Digest: map[string]string{"sha256": strings.TrimPrefix(e.digest, "sha256:")},
				})
			}
		}
		if err := nameEarlier(found[z]); err != nil {
			return nil, nil, Input(err)
		}
	}
	return found, sources, nil
}

// nameEarlier gives the increments of a block their names, by version.
func nameEarlier(list []*earlier) error {
	versions := map[string]int{}
	digests := map[string]string{}
	for _, e := range list {
		versions[e.version]++
		if first, ok := digests[e.digest]; ok {
			return fmt.Errorf("increments from %q and %q: these are the same image", first, e.source)
		}
		digests[e.digest] = e.source
	}
	for _, e := range list {
		e.name = "from-" + e.version
		if versions[e.version] > 1 {
			e.name += "-" + strings.TrimPrefix(e.digest, "sha256:")[:12]
		}
	}
	return nil
}

// open opens one of them, once it is known to be the right one.
func (z *ZFS) open(ctx context.Context, s *Spec, id, source string, o BuildOptions, known bool) (_ *earlier, err error) {
	loc, err := ParseSource(source, s.Dir)
	if err != nil {
		return nil, Input(err)
	}
	store, err := registry.Open(ctx, loc.Ref, o.registry())
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, store.Close()) }()
	m, err := registry.ReadImage(ctx, store, cmp.Or(loc.Ref.Digest, loc.Ref.Tag))
	if err != nil {
		return nil, err
	}
	if !known {
		if err := o.checkEarlier(ctx, source, loc.Ref, store, m); err != nil {
			return nil, err
		}
	}
	e := &earlier{source: source, digest: m.Digest(), version: m.Config.Version}
	a, err := z.mapOf(m.Config, s.Image.OS, id)
	if err != nil {
		return nil, Input(err)
	}
	if e.objects, err = readMap(ctx, m, a); err != nil {
		return nil, fmt.Errorf("artifact %q: %w", a.Name, err)
	}
	if guid := strconv.FormatUint(e.objects.GUID(), 10); guid != a.Attributes[image.AttrGUID] {
		return nil, Input(fmt.Errorf("artifact %q: is of a snapshot of guid %s, not %s", a.Name, guid, a.Attributes[image.AttrGUID]))
	}
	return e, nil
}

// resolveEarlier finds out what the images that increments start from are now, for a lock.
func (s *Spec) resolveEarlier(ctx context.Context, at registry.Options) ([]image.Base, error) {
	var out []image.Base
	for _, k := range s.Artifacts {
		z, ok := k.Writer.(*ZFS)
		if !ok {
			continue
		}
		for _, source := range z.From {
			if slices.ContainsFunc(out, func(b image.Base) bool { return b.Source == source }) {
				continue
			}
			digest, err := resolveImage(ctx, source, s.Dir, at)
			if err != nil {
				return nil, fmt.Errorf("increment from %q: %w", source, err)
			}
			out = append(out, image.Base{Source: source, Digest: digest})
		}
	}
	return out, nil
}

func resolveImage(ctx context.Context, source, dir string, at registry.Options) (_ string, err error) {
	loc, err := ParseSource(source, dir)
	if err != nil {
		return "", Input(err)
	}
	store, err := registry.Open(ctx, loc.Ref, at)
	if err != nil {
		return "", err
	}
	defer func() { err = errors.Join(err, store.Close()) }()
	d, err := store.Resolve(ctx, cmp.Or(loc.Ref.Digest, loc.Ref.Tag))
	return d.Digest, err
}

// checkEarlier holds an image against the lock, and asks whether it is to be trusted.
func (o *BuildOptions) checkEarlier(ctx context.Context, source string, ref registry.Ref, store registry.Store, m *registry.Image) error {
	switch {
	case o.Trust != nil:
		if err := o.Trust(ctx, ref, store, m); err != nil {
			return err
		}
	case o.Lock == nil && ref.Digest == "":
		o.Log.Warn("the image that increments start from is not pinned", "source", source, "digest", m.Digest())
	}
	if o.Lock != nil {
		return o.Lock.Check(source, m.Digest())
	}
	return nil
}

// mapOf finds the map of a stream that an increment of z can start from: of the same id, or else the
// first.
func (z *ZFS) mapOf(c *image.Config, os, id string) (*image.Artifact, error) {
	want := z.attributes(os)
	var first *image.Artifact
	var others []string
	for i := range c.Artifacts {
		a := &c.Artifacts[i]
		if !strings.HasPrefix(a.MediaType, image.TypeZFSMap) {
			continue
		}
		fits := true
		for k, v := range want {
			fits = fits && a.Attributes[k] == v
		}
		switch {
		case !fits:
			others = append(others, describeStream(a.Attributes))
		case a.Name == id+"/map":
			return a, nil
		case first == nil:
			first = a
		}
	}
	if first == nil && len(others) == 0 {
		return nil, errors.New("the image has no ZFS stream")
	}
	if first == nil {
		return nil, fmt.Errorf("its stream is of %s, this one of %s", strings.Join(others, " and of "), describeStream(want))
	}
	return first, nil
}

// describeStream says what must be the same of two streams.
func describeStream(attributes map[string]string) string {
	var out []string
	for _, k := range []string{image.AttrProfile, image.AttrLayout, image.AttrPlatform, image.AttrBrand} {
		if v := attributes[k]; v != "" {
			out = append(out, k+" "+v)
		}
	}
	return strings.Join(out, ", ")
}

// maxMap bounds an object map, in bytes: 32 million objects.
const maxMap = 8 << 30

// readMap reads and verifies a map.
func readMap(ctx context.Context, m *registry.Image, a *image.Artifact) (*zfs.Map, error) {
	r, err := m.Open(ctx, a.Name)
	if err != nil {
		return nil, err
	}
	defer r.Close()
	plain, _, err := image.Decompress(r)
	if err != nil {
		return nil, err
	}
	defer plain.Close()
	objects, err := zfs.ReadMap(io.LimitReader(&contextReader{ctx, plain}, maxMap))
	if _, e := io.Copy(io.Discard, r); e != nil { // to the end, where the digest is checked
		return nil, e
	}
	return objects, Input(err)
}

// bases returns the images that increments of this block start from.
func (z *ZFS) bases(src *Source) ([]*earlier, error) {
	if len(z.From) != len(src.earlier[z]) {
		return nil, errors.New("the images that increments start from were not read")
	}
	return src.earlier[z], nil
}
