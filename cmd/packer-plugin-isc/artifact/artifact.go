// Package artifact is what the plugin's components hand on: an image, by its digest, with every file
// that it consists of.
package artifact

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	sdk "github.com/hashicorp/packer-plugin-sdk/packer"
	registryimage "github.com/hashicorp/packer-plugin-sdk/packer/registry/image"

	"github.com/goldenisc/packer-plugin-isc/image"
	"github.com/goldenisc/packer-plugin-isc/registry"
)

// Keys of State. The values are strings: nothing else passes between Packer's processes unchanged.
const (
	StateDigest    = "isc_digest"    // sha256:… of the index
	StateReference = "isc_reference" // where the image is, as iscadm takes it
	StateConfig    = "isc_config"    // JSON: name, version, base, artifacts and the rest (docs/format.md)
	StateRelease   = "isc_release"   // JSON: channel, epoch and the rest, if it was released
)

// Builder ids of the components that make an image.
const (
	BuilderImage   = "goldenisc.isc-image"
	BuilderZone    = "goldenisc.isc-zone"
	BuilderPackage = "goldenisc.isc-package"
	BuilderSign    = "goldenisc.isc-sign"
	BuilderPublish = "goldenisc.isc-publish"
)

// An Artifact is an image in a layout, an archive or a registry.
type Artifact struct {
	Builder string
	Ref     registry.Ref
	Digest  string // of the image's index
	Config  *image.Config
	Release string // JSON, if it was released
	// Generated is the generated data of the build, without secrets.
	Generated map[string]any

	files []string
}

var _ sdk.Artifact = (*Artifact)(nil)

// New reads the image at ref of the digest, or of its tag if that is empty.
func New(ctx context.Context, builder string, ref registry.Ref, digest string, o registry.Options) (*Artifact, error) {
	store, err := registry.Open(ctx, ref, o)
	if err != nil {
		return nil, err
	}
	defer store.Close()
	m, err := registry.ReadImage(ctx, store, cmp.Or(digest, ref.Tag))
	if err != nil {
		return nil, err
	}
	a := &Artifact{Builder: builder, Ref: ref, Digest: m.Digest(), Config: m.Config}
	switch ref.Place {
	case registry.InArchive:
		a.files = []string{ref.Path}
	case registry.InLayout:
		if a.files, err = files(ctx, store, ref.Path, m); err != nil {
			return nil, err
		}
	}
	return a, nil
}

// files lists what of a layout belongs to the image: the two files that make a folder a layout, then
// its blobs, then the statements about it.
func files(ctx context.Context, from registry.Store, dir string, m *registry.Image) ([]string, error) {
	out := []string{filepath.Join(dir, "oci-layout"), filepath.Join(dir, "index.json")}
	seen := map[string]bool{}
	add := func(digest string) {
		if algorithm, hex, ok := strings.Cut(digest, ":"); ok && !seen[digest] {
			seen[digest] = true
			out = append(out, filepath.Join(dir, "blobs", algorithm, hex))
		}
	}
	var index struct {
		Manifests []registry.Descriptor `json:"manifests"`
	}
	add(m.Digest())
	data, err := from.Manifest(ctx, m.Descriptor)
	if err != nil {
		return nil, err
	}
	if err := json.Unmarshal(data, &index); err != nil {
		return nil, err
	}
	referrers, err := from.Referrers(ctx, m.Digest())
	if err != nil {
		return nil, err
	}
	for _, d := range append(index.Manifests, referrers...) {
		add(d.Digest)
		data, err := from.Manifest(ctx, d)
		if err != nil {
			return nil, err
		}
		var manifest struct {
			Config registry.Descriptor   `json:"config"`
			Layers []registry.Descriptor `json:"layers"`
		}
		if err := json.Unmarshal(data, &manifest); err != nil {
			return nil, err
		}
		add(manifest.Config.Digest)
		for _, l := range manifest.Layers {
			add(l.Digest)
		}
	}
	return out, nil
}

// BuilderId names the component that made this.
func (a *Artifact) BuilderId() string { return a.Builder }

// Id is the digest of the image's index.
func (a *Artifact) Id() string { return a.Digest }

// Files lists every file of the image; none if it is in a registry.
func (a *Artifact) Files() []string { return a.files }

// String says for people what and where it is.
func (a *Artifact) String() string {
	c := a.Config
	s := fmt.Sprintf("%s %s for %s/%s in %s\n%s", c.Name, c.Version, c.OS, c.Arch, a.Ref, a.Id())
	for _, art := range c.Artifacts {
		s += fmt.Sprintf("\n    %-18s %12d bytes", art.Name, art.Size)
	}
	return s
}

// State returns a value of one of the keys above, the generated data, or the record for HCP Packer.
func (a *Artifact) State(name string) any {
	switch name {
	case StateDigest:
		return a.Id()
	case StateReference:
		return a.Ref.String()
	case StateConfig:
		data, err := a.Config.Marshal()
		if err != nil {
			return nil
		}
		return string(data)
	case StateRelease:
		if a.Release == "" {
			return nil
		}
		return a.Release
	case "generated_data":
		return a.Generated
	case registryimage.ArtifactStateURI:
		return a.record()
	}
	return nil
}

// record is what HCP Packer keeps of an image. Labels are strings only.
func (a *Artifact) record() any {
	c := a.Config
	labels := map[string]any{
		"name": c.Name, "version": c.Version, "os": c.OS, "arch": c.Arch, "profile": c.Profile,
		"created": c.Created.Format(time.RFC3339), "reference": a.Ref.String(),
	}
	m, err := registryimage.FromArtifact(a,
		registryimage.WithProvider("isc"), registryimage.WithRegion(string(a.Ref.Place)),
		registryimage.WithSourceID(cmp.Or(c.Base.Digest, c.Base.Source)), registryimage.SetLabels(labels))
	if err != nil {
		return nil
	}
	return m
}

// unused is how old a blob of no image must be for Destroy to remove it: a build beside this one may
// not have named its own yet.
const unused = time.Hour

// Destroy removes the image from where it was built. One in a registry stays: others may hold it.
func (a *Artifact) Destroy() error {
	switch a.Ref.Place {
	case registry.InArchive:
		if err := os.Remove(a.Ref.Path); !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	case registry.InLayout:
		l, err := registry.OpenLayout(a.Ref.Path)
		if err != nil {
			return err
		}
		if a.Ref.Tag != "" {
			if err := l.Untag(a.Ref.Tag); err != nil {
				return err
			}
		}
		_, err = l.Prune(context.Background(), unused)
		return err
	}
	return nil
}

// From copies the artifact of another component of this plugin: it lives in another process, and dies
// with the call.
func From(source sdk.Artifact, builder string) (*Artifact, error) {
	ref, _, err := Of(source)
	if err != nil {
		return nil, err
	}
	text, _ := source.State(StateConfig).(string)
	c, err := image.ParseConfig([]byte(text))
	if err != nil {
		return nil, fmt.Errorf("the artifact of %q: %w", source.BuilderId(), err)
	}
	a := &Artifact{Builder: builder, Ref: ref, Digest: source.Id(), Config: c, files: source.Files()}
	a.Release, _ = source.State(StateRelease).(string)
	return a, nil
}

// Of returns the reference and digest of an image that a component of this plugin made.
func Of(a sdk.Artifact) (registry.Ref, string, error) {
	digest, _ := a.State(StateDigest).(string)
	name, _ := a.State(StateReference).(string)
	if digest == "" || name == "" {
		return registry.Ref{}, "", fmt.Errorf("the artifact of %q is no image of this plugin: put isc-package before this one, or build with isc-image", a.BuilderId())
	}
	ref, err := registry.Parse(name)
	return ref, digest, err
}
