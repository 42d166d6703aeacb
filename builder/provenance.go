package builder

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"time"

	ctyjson "github.com/zclconf/go-cty/cty/json"

	"github.com/goldenisc/packer-plugin-isc/image"
)

// BuildType says how the parameters of a Provenance are to be read: "iscadm build" of the spec
// externalParameters.spec, with the values of --set in externalParameters.set and of variables in
// externalParameters.variables, those that the spec declares as sensitive being named in
// externalParameters.sensitive only; at the build date internalParameters.created, which is
// SOURCE_DATE_EPOCH or the newest time in the base. The resolved dependencies are the base
// (name "base"), the provenance of one that is our image (its artifact: "base/provenance"), a captured
// disk beside it ("disk"), the profile file ("profile"), the images that increments start from
// ("from"), what file and tree blocks lay into the image (name: the path in the image), and of disks that are made of the
// root the program in their initrd ("guest/init", by "guest/init/toolchain") and a boot stub that
// the root has not ("guest/stub"). With these, and the same version of the program, the build gives
// the same image, unless internalParameters.provisioned is true: then Packer's provisioners have had
// their part in it.
const BuildType = "https://github.com/goldenisc/packer-plugin-isc/build/v1"

// BuilderID names iscadm, run by whoever signs. Who that is stands in the signature alone.
const BuilderID = "https://github.com/goldenisc/packer-plugin-isc/cmd/iscadm"

// A Provenance is a predicate of type https://slsa.dev/provenance/v1 (slsa.dev/spec/v1.0/provenance):
// what an image was made of. There is no clock and no name of a machine in it, so that the same
// inputs give the same bytes: metadata has neither times nor an invocation, and the spec goes by
// its base name.
type Provenance struct {
	BuildDefinition BuildDefinition `json:"buildDefinition"`
	RunDetails      RunDetails      `json:"runDetails"`
}

// A BuildDefinition is what goes into a build.
type BuildDefinition struct {
	BuildType string             `json:"buildType"` // the constant BuildType
	External  Inputs             `json:"externalParameters"`
	Internal  InternalParameters `json:"internalParameters"`
	Resolved  []Dependency       `json:"resolvedDependencies"`
}

// Inputs are what the caller decides.
type Inputs struct {
	Spec      *Dependency                `json:"spec,omitempty"`      // the base name of the file, and its digest
	Set       []string                   `json:"set,omitempty"`       // as of Options.Set
	Variables map[string]json.RawMessage `json:"variables,omitempty"` // the values of variables, but for the sensitive ones
	Sensitive []string                   `json:"sensitive,omitempty"` // names of the sensitive ones, sorted
}

// InternalParameters are what the program decides.
type InternalParameters struct {
	Created     time.Time `json:"created"`               // the build date
	Provisioned bool      `json:"provisioned,omitempty"` // provisioners changed the tree
}

// A Dependency is a ResourceDescriptor of in-toto (spec/v1/resource_descriptor.md).
type Dependency struct {
	Name   string            `json:"name,omitempty"`
	URI    string            `json:"uri,omitempty"`    // as the spec has it
	Digest map[string]string `json:"digest,omitempty"` // hexadecimal, by algorithm: sha256, or dirHash of a folder
}

// RunDetails are how the build was run.
type RunDetails struct {
	Builder struct {
		ID      string            `json:"id"`
		Version map[string]string `json:"version,omitempty"`
	} `json:"builder"`
}

// Marshal encodes the predicate. The bytes depend on its values only.
func (p *Provenance) Marshal() ([]byte, error) {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if err := e.Encode(p); err != nil {
		return nil, fmt.Errorf("provenance: %w", err)
	}
	return b.Bytes(), nil
}

// newInputs are those of a spec file, before its variables are known.
func newInputs(filename string, src []byte, opts Options) Inputs {
	sum := sha256.Sum256(src)
	return Inputs{
		Spec:      &Dependency{Name: filepath.Base(filename), Digest: map[string]string{"sha256": hex.EncodeToString(sum[:])}},
		Set:       slices.Clone(opts.Set),
		Variables: map[string]json.RawMessage{},
	}
}

// note adds a variable. One whose value is wrong is left out: it fails the build.
func (in *Inputs) note(v *variable) {
	if v.sensitive {
		in.Sensitive = append(in.Sensitive, v.name)
		return
	}
	if !v.value.IsWhollyKnown() {
		return
	}
	if data, err := ctyjson.Marshal(v.value, v.value.Type()); err == nil {
		in.Variables[v.name] = data
	}
}

// newProvenance describes the build of an image from the sources, besides the base, that were read.
func newProvenance(s *Spec, version string, c *image.Config, sources []Dependency) (*Provenance, error) {
	p := &Provenance{BuildDefinition: BuildDefinition{
		BuildType: BuildType, External: s.Inputs, Internal: InternalParameters{Created: c.Created},
	}}
	p.RunDetails.Builder.ID = BuilderID
	if version != "" {
		p.RunDetails.Builder.Version = map[string]string{"iscadm": version}
	}
	base := Dependency{Name: "base", URI: c.Base.Source}
	if sum, ok := strings.CutPrefix(c.Base.Digest, "sha256:"); ok {
		base.Digest = map[string]string{"sha256": sum}
	}
	p.BuildDefinition.Resolved = append(p.BuildDefinition.Resolved, base)
	if sum, ok := strings.CutPrefix(c.Base.Provenance, "sha256:"); ok {
		p.BuildDefinition.Resolved = append(p.BuildDefinition.Resolved, Dependency{
			Name: "base/provenance", URI: c.Base.Source, Digest: map[string]string{"sha256": sum},
		})
	}
	if s.Profile != nil && s.Profile.Source != "" {
		src, err := readBounded(local(s.Dir, s.Profile.Source))
		if err != nil {
			return nil, fmt.Errorf("profile: %w", err)
		}
		sum := sha256.Sum256(src)
		p.BuildDefinition.Resolved = append(p.BuildDefinition.Resolved, Dependency{
			Name: "profile", URI: s.Profile.Source, Digest: map[string]string{"sha256": hex.EncodeToString(sum[:])},
		})
	}
	p.BuildDefinition.Resolved = append(p.BuildDefinition.Resolved, sources...)
	return p, nil
}

// noteFile notes the source of a file block, once it is in the tree.
func (e *editor) noteFile(f *File) error {
	en, err := e.tree.Stat(f.Path)
	if err != nil {
		return err
	}
	e.sources = append(e.sources, Dependency{
		Name: f.Path, URI: f.Source, Digest: map[string]string{"sha256": hex.EncodeToString(en.Digest[:])},
	})
	return nil
}

// noteTree notes the source of a tree block, once it is in the tree: an archive by its digest, a
// folder by what its files hold. Times, owners and modes in it are those of a work tree, and do
// not count.
func (e *editor) noteTree(ctx context.Context, tr *Tree, loc Location) error {
	d := Dependency{Name: tr.Path, URI: tr.Source, Digest: map[string]string{}}
	if loc.Scheme == "dir" {
		sum, err := e.dirHash(ctx, loc.Path, tr.Path)
		if err != nil {
			return err
		}
		d.Digest["dirHash"] = sum
	} else {
		f, err := os.Open(loc.Path)
		if err != nil {
			return err
		}
		sum, err := hashFile(ctx, f)
		if err = errors.Join(err, f.Close()); err != nil {
			return err
		}
		d.Digest["sha256"] = strings.TrimPrefix(sum, "sha256:")
	}
	e.sources = append(e.sources, d)
	return nil
}

// dirHash returns the digest of the regular files of a folder that has just been laid at a path
// of the tree, which knows the digests of their content: dirHash of in-toto
// (spec/v1/digest_set.md), as of golang.org/x/mod/sumdb/dirhash.
func (e *editor) dirHash(ctx context.Context, dir, at string) (string, error) {
	var names []string
	err := filepath.WalkDir(dir, func(name string, d fs.DirEntry, err error) error {
		if err == nil {
			err = ctx.Err()
		}
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		rel, err := filepath.Rel(dir, name)
		names = append(names, filepath.ToSlash(rel))
		return err
	})
	if err != nil {
		return "", err
	}
	slices.Sort(names)
	h := sha256.New()
	for _, name := range names {
		en, err := e.tree.Stat(path.Join(at, name))
		if err != nil {
			return "", err
		}
		fmt.Fprintf(h, "%x  %s\n", en.Digest, name)
	}
	return hex.EncodeToString(h.Sum(nil)), nil
}
