// Package iscimage is the builder isc-image: it makes an image of a spec, as "iscadm build" does, and
// lets provisioners work on its tree.
package iscimage

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"
	"time"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hcldec"
	sdk "github.com/hashicorp/packer-plugin-sdk/packer"
	"github.com/hashicorp/packer-plugin-sdk/template/config"
	"github.com/zclconf/go-cty/cty"

	"github.com/goldenisc/packer-plugin-isc/builder"
	"github.com/goldenisc/packer-plugin-isc/cmd/packer-plugin-isc/artifact"
	"github.com/goldenisc/packer-plugin-isc/cmd/packer-plugin-isc/build"
	"github.com/goldenisc/packer-plugin-isc/image"
)

// A Builder makes one image.
type Builder struct {
	config Config
	job    build.Job
}

var _ sdk.Builder = (*Builder)(nil)

// generated are the names of what provisioners may use as build.NAME.
var generated = []string{"ISCName", "ISCVersion", "ISCOutput"}

// ConfigSpec is what Packer decodes a source by: the fields of Config and the blocks of a spec.
func (b *Builder) ConfigSpec() hcldec.ObjectSpec {
	spec := hcldec.ObjectSpec(new(Config).FlatMapstructure().HCL2Spec())
	maps.Copy(spec, build.Blocks(builder.Schema()))
	return spec
}

// Prepare checks everything that can be checked without the base, and reports all of it at once.
func (b *Builder) Prepare(raws ...any) ([]string, []string, error) {
	blocks, raws, err := build.Split(builder.Schema(), raws)
	if err != nil {
		return nil, nil, err
	}
	b.config = Config{}
	if err := config.Decode(&b.config, &config.DecodeOpts{PluginType: artifact.BuilderImage, Interpolate: true}, raws...); err != nil {
		return nil, nil, err
	}
	c := &b.config
	b.job = build.Job{Component: artifact.BuilderImage, Force: c.PackerForce, Artifacts: c.Artifacts, Dir: c.TemporaryFolder}
	diags, errs := b.spec(blocks)
	warnings, errs := build.Report(diags, errs)
	b.job.Output, err = build.Output(c.Output)
	errs = build.Append(errs, err)
	b.job.Created, err = builder.SourceDate()
	errs = build.Append(errs, err)
	return generated, warnings, build.Err(errs)
}

// spec reads the spec of the template, or of the file that it names.
func (b *Builder) spec(blocks cty.Value) (diags hcl.Diagnostics, errs *sdk.MultiError) {
	c := &b.config
	switch {
	case build.Unknown(c.Spec):
	case c.Spec != "" && blocks != cty.NilVal:
		errs = build.Append(errs, errors.New("spec: there are blocks of a spec in the template, too: it is either or"))
	case c.Spec != "":
		src, err := os.ReadFile(c.Spec)
		if err != nil {
			return nil, build.Append(errs, fmt.Errorf("spec: %w", err))
		}
		var set []string
		for _, name := range slices.Sorted(maps.Keys(c.Set)) {
			set = append(set, name+"="+c.Set[name])
		}
		b.job.Spec, diags = builder.ParseSpec(c.Spec, src, builder.Options{Set: set, Vars: c.Variables, Env: os.Environ()})
		if c.Locked {
			b.job.Lock, err = builder.ReadLock(builder.LockName(c.Spec))
			errs = build.Append(errs, err)
		}
	case blocks == cty.NilVal:
		errs = build.Append(errs, errors.New(`a spec is missing: either the blocks image and base, or spec = "FILE"`))
	default:
		b.job.Spec, diags = build.Parse(blocks)
		for _, f := range []struct {
			name  string
			given bool
		}{{"set", len(c.Set) > 0}, {"variables", len(c.Variables) > 0}, {"locked", c.Locked}} {
			if f.given {
				errs = build.Append(errs, fmt.Errorf("%s: it goes with a spec in a file, and this one is in the template", f.name))
			}
		}
	}
	return diags, errs
}

// Run builds the image.
func (b *Builder) Run(ctx context.Context, u sdk.Ui, hook sdk.Hook) (sdk.Artifact, error) {
	if err := b.job.Vacant(ctx); err != nil {
		return nil, err
	}
	img := b.job.Spec.Image
	data := map[string]any{
		"ID": "", "PackerRunUUID": os.Getenv("PACKER_RUN_UUID"), "ConnType": "isc-tree",
		"ISCName": img.Name, "ISCVersion": img.Version, "ISCOutput": b.job.Output.String(),
	}
	b.job.Provision = func(ctx context.Context, t *image.Tree, created time.Time) (bool, error) {
		return b.provision(ctx, u, hook, data, t, created)
	}
	u.Sayf("Building %s %s", img.Name, img.Version)
	a, err := b.job.Run(ctx, u)
	if err != nil {
		return nil, err
	}
	a.Generated = data
	return a, nil
}

// provision lets the template's provisioners work on the tree.
func (b *Builder) provision(ctx context.Context, u sdk.Ui, hook sdk.Hook, data map[string]any, t *image.Tree, created time.Time) (changed bool, err error) {
	c := &communicator{ctx: ctx, tree: t, system: b.job.Spec.Image.OS, created: created, dir: b.job.Dir}
	defer func() { err = errors.Join(err, c.close()) }()
	if err := hook.Run(ctx, sdk.HookProvision, u, c, data); err != nil {
		if ctx.Err() != nil {
			return false, ctx.Err()
		}
		if e := hook.Run(ctx, sdk.HookCleanupProvision, u, c, data); e != nil {
			err = errors.Join(err, e)
		}
		c.keep = b.keep(u, c)
		return false, err
	}
	if err := ctx.Err(); err != nil {
		return false, err
	}
	return c.finish(ctx)
}

// keep says whether the tree is to be left for a look at it, as -on-error has it.
func (b *Builder) keep(u sdk.Ui, c *communicator) bool {
	dir := c.folder()
	if dir == "" {
		return false
	}
	switch b.config.PackerOnError {
	case "abort":
	case "ask":
		answer, err := u.Ask(fmt.Sprintf("Keep the tree in %s? [y/N]", dir))
		if err != nil || answer != "y" && answer != "Y" {
			return false
		}
	default:
		return false
	}
	u.Sayf("The tree is left in %s", dir)
	return true
}
