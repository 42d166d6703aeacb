package registry

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/goldenisc/packer-plugin-isc/image"
)

// A Runnable makes an archive of an image a standard OCI image as well, which Podman and the lx
// tools of illumos can take. The members are those of the image configuration (config.md).
type Runnable struct {
	Artifact string // name of a tar archive of the root among the artifacts, such as "zone"

	User         string
	Env          []string // NAME=value
	Entrypoint   []string
	Cmd          []string
	WorkingDir   string
	ExposedPorts []string // "8080/tcp"
	Labels       map[string]string
}

// ociConfig is the image configuration of a runnable image (config.md), as far as we write and
// read it.
type ociConfig struct {
	Created      *time.Time `json:"created,omitempty"`
	Architecture string     `json:"architecture"`
	Variant      string     `json:"variant,omitempty"`
	OS           string     `json:"os"`
	Config       runConfig  `json:"config"`
	RootFS       rootFS     `json:"rootfs"`
}

type runConfig struct {
	User         string              `json:"User,omitempty"`
	ExposedPorts map[string]struct{} `json:"ExposedPorts,omitempty"`
	Env          []string            `json:"Env,omitempty"`
	Entrypoint   []string            `json:"Entrypoint,omitempty"`
	Cmd          []string            `json:"Cmd,omitempty"`
	WorkingDir   string              `json:"WorkingDir,omitempty"`
	Labels       map[string]string   `json:"Labels,omitempty"`
}

type rootFS struct {
	Type    string   `json:"type"` // layers
	DiffIDs []string `json:"diff_ids"`
}

// An Image is one of our images: an index whose every manifest has been checked against the
// config. Manifests and config are verified; a blob is when it is opened.
type Image struct {
	Descriptor Descriptor // of the index
	Config     *image.Config
	Runnable   *Descriptor // of the manifest of the standard image, if there is one

	store Store
}

// Digest is the digest of the index, which is what names and signs an image.
func (m *Image) Digest() string { return m.Descriptor.Digest }

// Open opens the blob of an artifact. A mismatch with its size or digest is an error in the place
// of io.EOF.
func (m *Image) Open(ctx context.Context, artifact string) (io.ReadCloser, error) {
	a := m.Config.Artifact(artifact)
	if a == nil {
		return nil, fmt.Errorf("image %s: artifact %q: %w", m.Digest(), artifact, os.ErrNotExist)
	}
	return m.store.Blob(ctx, blobOf(a))
}

func blobOf(a *image.Artifact) Descriptor {
	return Descriptor{MediaType: a.MediaType, Digest: a.Digest, Size: a.Size}
}

// artifactManifest is the manifest of one artifact.
func artifactManifest(a *image.Artifact, config Descriptor) manifest {
	layer := blobOf(a)
	layer.Annotations = map[string]string{annotationTitle: a.Name}
	return manifest{
		SchemaVersion: 2, MediaType: typeManifest, ArtifactType: a.MediaType,
		Config: &config, Layers: []Descriptor{layer},
	}
}

// imageIndex is the index over these manifests.
func imageIndex(c *image.Config, manifests []Descriptor) index {
	return index{
		SchemaVersion: 2, MediaType: typeIndex, ArtifactType: image.TypeImage, Manifests: manifests,
		Annotations: map[string]string{
			annotationTitle:   c.Name,
			annotationVersion: c.Version,
			annotationCreated: c.Created.UTC().Format(time.RFC3339),
		},
	}
}

// WriteImage makes an image of the artifacts that c lists, whose blobs the layout has, and moves
// the tag to it last. It returns the digest of the index, which depends on c and runnable only.
// runnable may be nil.
func WriteImage(ctx context.Context, l *Layout, tag string, c *image.Config, runnable *Runnable) (digest string, err error) {
	if err := checkTag(tag); err != nil {
		return "", err
	}
	data, err := c.Marshal()
	if err != nil {
		return "", err
	}
	if err := checkConfig(data, c); err != nil {
		return "", err
	}
	for i := range c.Artifacts {
		if ok, err := l.Has(ctx, blobOf(&c.Artifacts[i])); err != nil || !ok {
			return "", errors.Join(fmt.Errorf("artifact %q: the layout has no blob %s of %d bytes",
				c.Artifacts[i].Name, c.Artifacts[i].Digest, c.Artifacts[i].Size), err)
		}
	}
	var run *manifest
	if runnable != nil {
		if run, err = runnableManifest(l, c, runnable); err != nil {
			return "", fmt.Errorf("runnable image of artifact %q: %w", runnable.Artifact, err)
		}
	}

	if _, err := l.PutBlob(data); err != nil {
		return "", err
	}
	config := Descriptor{MediaType: image.TypeConfig, Digest: Digest(data), Size: int64(len(data))}
	var manifests []Descriptor
	add := func(m manifest, p Platform) error {
		data, err := json.Marshal(m)
		if err != nil {
			return err
		}
		d, err := l.PutManifest(ctx, data, "")
		d.Platform = &p
		manifests = append(manifests, d)
		return err
	}
	for i := range c.Artifacts {
		if err := ctx.Err(); err != nil {
			return "", err
		}
		if err := add(artifactManifest(&c.Artifacts[i], config), unknown); err != nil {
			return "", err
		}
	}
	if run != nil {
		if err := add(*run, Platform{OS: c.OS, Architecture: c.Arch}); err != nil {
			return "", err
		}
	}
	if data, err = json.Marshal(imageIndex(c, manifests)); err != nil {
		return "", err
	}
	d, err := l.PutManifest(ctx, data, tag)
	return d.Digest, err
}

// runnableManifest stores the configuration of the standard image and returns its manifest.
func runnableManifest(l *Layout, c *image.Config, r *Runnable) (*manifest, error) {
	a := c.Artifact(r.Artifact)
	if a == nil {
		return nil, errors.New("there is no such artifact")
	}
	layer, diffID, err := runnableLayer(a)
	if err != nil {
		return nil, err
	}
	created := c.Created.UTC()
	oci := ociConfig{
		Created: &created, Architecture: c.Arch, OS: c.OS,
		Config: runConfig{
			User: r.User, Env: r.Env, Entrypoint: r.Entrypoint, Cmd: r.Cmd, WorkingDir: r.WorkingDir, Labels: r.Labels,
		},
		RootFS: rootFS{Type: "layers", DiffIDs: []string{diffID}},
	}
	if len(r.ExposedPorts) > 0 {
		oci.Config.ExposedPorts = map[string]struct{}{}
		for _, p := range r.ExposedPorts {
			oci.Config.ExposedPorts[p] = struct{}{}
		}
	}
	data, err := json.Marshal(oci)
	if err != nil {
		return nil, err
	}
	digest, err := l.PutBlob(data)
	if err != nil {
		return nil, err
	}
	return &manifest{
		SchemaVersion: 2, MediaType: typeManifest,
		Config: &Descriptor{MediaType: typeConfig, Digest: digest, Size: int64(len(data))},
		Layers: []Descriptor{layer},
	}, nil
}

// runnableLayer returns an archive as a layer, and the digest of what it unpacks to.
func runnableLayer(a *image.Artifact) (layer Descriptor, diffID string, err error) {
	_, compression, compressed := strings.Cut(a.MediaType, "+")
	diffID = a.UncompressedDigest
	layer = Descriptor{MediaType: typeLayer, Digest: a.Digest, Size: a.Size}
	switch {
	case !strings.HasPrefix(a.MediaType, image.TypeZone):
		return layer, "", fmt.Errorf("media type %q is no archive of a root", a.MediaType)
	case !compressed:
		diffID = a.Digest
	case compression == "gzip" || compression == "zstd":
		layer.MediaType += "+" + compression
	default:
		return layer, "", fmt.Errorf("media type %q: a layer is gzip or zstd", a.MediaType)
	}
	_, err = digestHex(diffID)
	return layer, diffID, err
}

// checkConfig refuses a config that nobody could read back.
func checkConfig(data []byte, c *image.Config) error {
	if len(data) > image.MaxConfig {
		return fmt.Errorf("image config: %d bytes are more than %d", len(data), image.MaxConfig)
	}
	if _, err := image.ParseConfig(data); err != nil {
		return err
	}
	if n := len(c.Artifacts); n == 0 || n > maxManifests-1 {
		return fmt.Errorf("image config: %d artifacts: want 1 to %d", n, maxManifests-1)
	}
	var errs []error
	for i := range c.Artifacts {
		a := &c.Artifacts[i]
		if a.MediaType == "" {
			errs = append(errs, fmt.Errorf("image config: artifact %q: no media type", a.Name))
		}
		_, err := digestHex(a.Digest)
		if err == nil && a.UncompressedDigest != "" {
			_, err = digestHex(a.UncompressedDigest)
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("image config: artifact %q: %w", a.Name, err))
		}
	}
	return errors.Join(errs...)
}

// ReadImage reads one of our images and refuses whatever [WriteImage] does not write: the bytes of
// the index and of the manifests of the artifacts follow from the config. The image reads its artifacts from the store, which the
// caller closes after it.
func ReadImage(ctx context.Context, from Store, tagOrDigest string) (*Image, error) {
	d, err := from.Resolve(ctx, tagOrDigest)
	if err != nil {
		return nil, err
	}
	m, err := readImage(ctx, from, d)
	if err != nil {
		return nil, fmt.Errorf("image %s: %w", d.Digest, err)
	}
	return m, nil
}

func readImage(ctx context.Context, from Store, d Descriptor) (*Image, error) {
	data, err := from.Manifest(ctx, d)
	if err != nil {
		return nil, err
	}
	x, err := parseManifest(data)
	if err != nil {
		return nil, err
	}
	if d.MediaType != x.MediaType || x.MediaType != typeIndex || x.ArtifactType != image.TypeImage {
		return nil, fmt.Errorf("not an image of this program: an index of the type %q is one, this is %q of %q", image.TypeImage, x.MediaType, x.ArtifactType)
	}
	var strict index
	if err := image.DecodeStrict(data, &strict); err != nil {
		return nil, err
	}
	if len(strict.Manifests) == 0 {
		return nil, errors.New("no manifests in it")
	}

	// The first manifest leads to the config, which says what all of them must be.
	first, err := readArtifact(ctx, from, strict.Manifests[0])
	if err != nil {
		return nil, err
	}
	config := *first.Config
	if config.MediaType != image.TypeConfig || config.Size > image.MaxConfig {
		return nil, fmt.Errorf("config of type %q and %d bytes: want %q and at most %d", config.MediaType, config.Size, image.TypeConfig, image.MaxConfig)
	}
	r, err := from.Blob(ctx, config)
	if err != nil {
		return nil, err
	}
	configData, err := readVerified(r, config, image.MaxConfig)
	if err != nil {
		return nil, err
	}
	c, err := image.ParseConfig(configData)
	if err != nil {
		return nil, err
	}
	if err := checkConfig(configData, c); err != nil {
		return nil, err
	}

	if want, err := json.Marshal(imageIndex(c, strict.Manifests)); err != nil || !bytes.Equal(want, data) {
		return nil, errors.Join(errors.New("index does not follow from the config"), err)
	}
	m := &Image{Descriptor: d.bare(), Config: c, store: from}
	n := len(c.Artifacts)
	if len(strict.Manifests) != n && len(strict.Manifests) != n+1 {
		return nil, fmt.Errorf("%d manifests for %d artifacts", len(strict.Manifests), n)
	}
	for i, md := range strict.Manifests[:n] {
		a := &c.Artifacts[i]
		want, err := json.Marshal(artifactManifest(a, config))
		if err != nil {
			return nil, err
		}
		wantDescriptor := Descriptor{MediaType: typeManifest, ArtifactType: a.MediaType, Digest: Digest(want), Size: int64(len(want))}
		if md.bareString() != wantDescriptor.bareString() || md.Platform == nil || md.Platform.String() != unknown.String() {
			return nil, fmt.Errorf("artifact %q: manifest %s does not follow from the config", a.Name, md.Digest)
		}
	}
	if len(strict.Manifests) > n {
		if err := m.readRunnable(ctx, strict.Manifests[n]); err != nil {
			return nil, fmt.Errorf("runnable manifest %s: %w", strict.Manifests[n].Digest, err)
		}
	}
	return m, nil
}

func (d Descriptor) bareString() string {
	return fmt.Sprintf("%q %q %s %d", d.MediaType, d.ArtifactType, d.Digest, d.Size)
}

func readArtifact(ctx context.Context, from Store, d Descriptor) (*manifest, error) {
	data, err := from.Manifest(ctx, d)
	if err != nil {
		return nil, err
	}
	var m manifest
	if err := image.DecodeStrict(data, &m); err != nil {
		return nil, fmt.Errorf("manifest %s: %w", d.Digest, err)
	}
	if _, err := parseManifest(data); err != nil {
		return nil, fmt.Errorf("manifest %s: %w", d.Digest, err)
	}
	if m.MediaType != d.MediaType || m.MediaType != typeManifest {
		return nil, fmt.Errorf("manifest %s: is of type %q, its descriptor says %q", d.Digest, m.MediaType, d.MediaType)
	}
	return &m, nil
}

// readRunnable checks that the standard image is one of the archives and says what it is.
func (m *Image) readRunnable(ctx context.Context, d Descriptor) error {
	if d.Platform == nil || d.Platform.OS != m.Config.OS || d.Platform.Architecture != m.Config.Arch {
		return fmt.Errorf("its platform is not %s/%s", m.Config.OS, m.Config.Arch)
	}
	man, err := readArtifact(ctx, m.store, d)
	if err != nil {
		return err
	}
	if man.Config.MediaType != typeConfig || len(man.Layers) != 1 || man.Subject != nil {
		return errors.New("want an image of one layer")
	}
	r, err := m.store.Blob(ctx, *man.Config)
	if err != nil {
		return err
	}
	data, err := readVerified(r, *man.Config, image.MaxConfig)
	if err != nil {
		return err
	}
	var oci ociConfig
	if err := image.DecodeStrict(data, &oci); err != nil {
		return fmt.Errorf("config: %w", err)
	}
	if oci.OS != m.Config.OS || oci.Architecture != m.Config.Arch || oci.RootFS.Type != "layers" {
		return fmt.Errorf("its config is of %s/%s", oci.OS, oci.Architecture)
	}
	for i := range m.Config.Artifacts {
		layer, diffID, err := runnableLayer(&m.Config.Artifacts[i])
		if err == nil && layer.bareString() == man.Layers[0].bareString() && slices.Equal(oci.RootFS.DiffIDs, []string{diffID}) {
			m.Runnable = &d
			return nil
		}
	}
	return errors.New("its layer is none of the archives")
}
