package registry

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/goldenisc/packer-plugin-isc/image"
)

// A BaseImage is an image to build on: an OCI or Docker image for one platform, or the archive of
// one of our images.
type BaseImage struct {
	Digest   string // of what the reference stands for, an index perhaps: this pins it
	Manifest string // digest of the manifest that was chosen
	Platform Platform
	Created  time.Time // zero if the image does not say
	Labels   map[string]string
	Layers   []Layer // the lowest first
	Image    *Image  // if it is one of ours

	store Store
}

// Close closes the place that the layers are in.
func (b *BaseImage) Close() error { return b.store.Close() }

// A Layer is one layer of a base, a tar archive, mostly compressed: whether and how is found by
// content, not by the media type.
type Layer struct {
	MediaType string
	Digest    string
	Size      int64  // bytes, compressed
	DiffID    string // digest of the tar archive, which the image config promises
	store     Store
}

// Open opens a layer. A mismatch with its size or digest is an error in the place of io.EOF.
func (l Layer) Open(ctx context.Context) (io.ReadCloser, error) {
	return l.store.Blob(ctx, Descriptor{MediaType: l.MediaType, Digest: l.Digest, Size: l.Size})
}

// FetchBase finds the image of a platform ("os/arch" or "os/arch/variant") and reads what is said
// of it. Its layers are read when they are opened; the caller closes the base after them.
//
// An index leads to the manifest of that platform. A manifest that says what it runs on must fit.
// Of one of our images the artifact "zone" is the only layer.
func FetchBase(ctx context.Context, ref Ref, platform string, o Options) (*BaseImage, error) {
	b, err := fetchBase(ctx, ref, platform, o)
	if err != nil {
		return nil, fmt.Errorf("base %q: %w", ref, err)
	}
	return b, nil
}

func fetchBase(ctx context.Context, ref Ref, platform string, o Options) (*BaseImage, error) {
	want, err := parsePlatform(platform)
	if err != nil {
		return nil, err
	}
	from, err := Open(ctx, ref, o)
	if err != nil {
		return nil, err
	}
	b, err := readBase(ctx, from, ref.version(), want)
	if err != nil {
		from.Close()
		return nil, err
	}
	return b, nil
}

func parsePlatform(s string) (Platform, error) {
	part := strings.Split(s, "/")
	if len(part) < 2 || len(part) > 3 || slices.Contains(part, "") {
		return Platform{}, fmt.Errorf("platform %q: want OS/ARCH", s)
	}
	p := Platform{OS: part[0], Architecture: part[1]}
	if len(part) == 3 {
		p.Variant = part[2]
	}
	return p, nil
}

// fits says whether p may be taken for want. What an index does not say of the variant is no
// reason to refuse it.
func (p Platform) fits(want Platform) bool {
	return p.OS == want.OS && p.Architecture == want.Architecture &&
		(want.Variant == "" || p.Variant == "" || p.Variant == want.Variant)
}

func readBase(ctx context.Context, from Store, version string, want Platform) (*BaseImage, error) {
	root, err := from.Resolve(ctx, version)
	if err != nil {
		return nil, err
	}
	if isIndex(root.MediaType) && root.ArtifactType == image.TypeImage {
		return readOwnBase(ctx, from, root, want)
	}
	c := chooser{from: from, want: want, seen: map[string]bool{}}
	if err := c.look(ctx, root, 0); err != nil {
		return nil, err
	}
	if c.found == nil && len(c.there) == 0 {
		return nil, fmt.Errorf("no image for %s in it: it is empty", want)
	}
	if c.found == nil {
		return nil, fmt.Errorf("no image for %s in it, but for %s", want, c.others())
	}
	b := &BaseImage{Digest: root.Digest, Manifest: c.digest, store: from}
	if err := b.readConfig(ctx, c.found, want); err != nil {
		return nil, fmt.Errorf("manifest %s: %w", c.digest, err)
	}
	return b, nil
}

func readOwnBase(ctx context.Context, from Store, root Descriptor, want Platform) (*BaseImage, error) {
	m, err := ReadImage(ctx, from, root.Digest)
	if err != nil {
		return nil, err
	}
	p := Platform{OS: m.Config.OS, Architecture: m.Config.Arch}
	if !p.fits(want) {
		return nil, fmt.Errorf("no image for %s in it, but for %q", want, p)
	}
	a := m.Config.Artifact("zone")
	if a == nil {
		return nil, errors.New(`it has no artifact "zone" to build on`)
	}
	diffID := a.UncompressedDigest
	if diffID == "" {
		diffID = a.Digest
	}
	return &BaseImage{
		Digest: root.Digest, Manifest: root.Digest, Platform: p, Created: m.Config.Created, Image: m, store: from,
		Layers: []Layer{{MediaType: a.MediaType, Digest: a.Digest, Size: a.Size, DiffID: diffID, store: from}},
	}, nil
}

// A chooser looks for the manifest of a platform. The first that fits is taken, as other clients
// do.
type chooser struct {
	from   Store
	want   Platform
	seen   map[string]bool // manifests on the way, against cycles and repetitions
	there  []string
	found  *manifest
	digest string
}

// others says what is there instead.
func (c *chooser) others() string {
	const most = 20
	slices.Sort(c.there)
	c.there = slices.Compact(c.there)
	more := ""
	if n := len(c.there) - most; n > 0 {
		c.there, more = c.there[:most], fmt.Sprintf(" and %d more", n)
	}
	return fmt.Sprintf("%q", c.there) + more
}

func (c *chooser) look(ctx context.Context, d Descriptor, depth int) error {
	if depth > maxDepth {
		return fmt.Errorf("index %s: more than %d indexes in one another", d.Digest, maxDepth)
	}
	if c.seen[d.Digest] {
		return nil
	}
	c.seen[d.Digest] = true
	if len(c.seen) > maxManifests {
		return fmt.Errorf("more than %d manifests", maxManifests)
	}
	data, err := c.from.Manifest(ctx, d)
	if err != nil {
		return err
	}
	m, err := parseManifest(data)
	if err != nil {
		return fmt.Errorf("manifest %s: %w", d.Digest, err)
	}
	if m.MediaType != d.MediaType {
		return fmt.Errorf("manifest %s: is of type %q, its descriptor says %q", d.Digest, m.MediaType, d.MediaType)
	}
	if isManifest(m.MediaType) {
		c.found, c.digest = m, d.Digest
		return nil
	}
	for _, child := range m.Manifests {
		switch {
		case isIndex(child.MediaType) && (child.Platform == nil || child.Platform.fits(c.want)):
			if err := c.look(ctx, child, depth+1); err != nil {
				return err
			}
		case child.Platform == nil:
			c.there = append(c.there, child.MediaType+" of no platform")
		case !child.Platform.fits(c.want) || !isManifest(child.MediaType):
			c.there = append(c.there, child.Platform.String())
		default:
			return c.look(ctx, child, depth+1)
		}
		if c.found != nil {
			return nil
		}
	}
	return nil
}

// readConfig reads the config of a standard image and pairs its layers with what it promises of
// them.
func (b *BaseImage) readConfig(ctx context.Context, m *manifest, want Platform) error {
	if t := m.Config.MediaType; t != typeConfig && t != typeDockerConfig {
		return fmt.Errorf("config of type %q: not a container image", t)
	}
	r, err := b.store.Blob(ctx, *m.Config)
	if err != nil {
		return err
	}
	data, err := readVerified(r, *m.Config, image.MaxConfig)
	if err != nil {
		return fmt.Errorf("config: %w", err)
	}
	var c ociConfig
	if err := json.Unmarshal(data, &c); err != nil {
		return fmt.Errorf("config: %w", err)
	}
	b.Platform = Platform{OS: c.OS, Architecture: c.Architecture, Variant: c.Variant}
	if !b.Platform.fits(want) {
		return fmt.Errorf("it is for %q, not for %s", b.Platform, want)
	}
	if c.Created != nil {
		b.Created = *c.Created
	}
	b.Labels = c.Config.Labels
	if len(m.Layers) == 0 {
		return errors.New("no layers in it")
	}
	if len(c.RootFS.DiffIDs) != len(m.Layers) {
		return fmt.Errorf("%d layers, but its config knows %d", len(m.Layers), len(c.RootFS.DiffIDs))
	}
	for i, l := range m.Layers {
		if !strings.Contains(l.MediaType, ".tar") {
			return fmt.Errorf("layer %d is of type %q: not a tar archive", i, l.MediaType)
		}
		if _, err := digestHex(c.RootFS.DiffIDs[i]); err != nil {
			return fmt.Errorf("config: layer %d: %w", i, err)
		}
		b.Layers = append(b.Layers, Layer{
			MediaType: l.MediaType, Digest: l.Digest, Size: l.Size, DiffID: c.RootFS.DiffIDs[i], store: b.store,
		})
	}
	return nil
}
