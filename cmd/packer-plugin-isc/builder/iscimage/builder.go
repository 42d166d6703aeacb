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
	"strconv"
	"time"

	"github.com/hashicorp/hcl/v2"
	sdk "github.com/hashicorp/packer-plugin-sdk/packer"
	"github.com/hashicorp/packer-plugin-sdk/template/config"
	"github.com/zclconf/go-cty/cty"

	"github.com/goldenisc/packer-plugin-isc/builder"
	"github.com/goldenisc/packer-plugin-isc/cmd/packer-plugin-isc/artifact"
	"github.com/goldenisc/packer-plugin-isc/cmd/packer-plugin-isc/ui"
	"github.com/goldenisc/packer-plugin-isc/cmd/packer-plugin-isc/unknown"
	"github.com/goldenisc/packer-plugin-isc/cmd/packer-plugin-isc/version"
	"github.com/goldenisc/packer-plugin-isc/image"
	"github.com/goldenisc/packer-plugin-isc/registry"
)

// A Builder makes one image.
type Builder struct {
	config Config
	spec   *builder.Spec
	ref    registry.Ref
	lock   *builder.Lock
	date   time.Time
}

var _ sdk.Builder = (*Builder)(nil)

// generated are the names of what provisioners may use as build.NAME.
var generated = []string{"ISCName", "ISCVersion", "ISCOutput"}

// Prepare checks everything that can be checked without the base, and reports all of it at once.
func (b *Builder) Prepare(raws ...any) ([]string, []string, error) {
	var blocks cty.Value
	for i, raw := range raws {
		v, ok := raw.(cty.Value)
		if !ok {
			m, isMap := raw.(map[string]any)
			if !isMap {
				continue
			}
			var err error
			if v, err = legacy(m, raws); err != nil {
				return nil, nil, err
			}
		}
		if v.IsNull() || !v.Type().IsObjectType() {
			continue
		}
		fields, spec := split(v)
		if spec.LengthInt() > 0 {
			var err error
			if blocks, err = unknown.In(spec); err != nil {
				return nil, nil, err
			}
		}
		if ok {
			raws[i] = fields
		} else {
			raws[i] = without(raw.(map[string]any), spec)
		}
	}
	b.config = Config{}
	if err := config.Decode(&b.config, &config.DecodeOpts{PluginType: artifact.BuilderImage, Interpolate: true}, raws...); err != nil {
		return nil, nil, err
	}
	warnings, errs := b.prepare(blocks)
	if errs != nil && len(errs.Errors) > 0 {
		return nil, warnings, errs
	}
	return generated, warnings, nil
}

func (b *Builder) prepare(blocks cty.Value) (warnings []string, errs *sdk.MultiError) {
	fail := func(err error) {
		if err != nil {
			errs = sdk.MultiErrorAppend(errs, err)
		}
	}
	var diags hcl.Diagnostics
	switch c := &b.config; {
	case unknown.Is(c.Spec):
	case c.Spec != "" && blocks != cty.NilVal:
		fail(errors.New("spec: there are blocks of a spec in the template, too: it is either or"))
	case c.Spec != "":
		src, err := os.ReadFile(c.Spec)
		if err != nil {
			fail(fmt.Errorf("spec: %w", err))
			break
		}
		var set []string
		for _, name := range slices.Sorted(maps.Keys(c.Set)) {
			set = append(set, name+"="+c.Set[name])
		}
		b.spec, diags = builder.ParseSpec(c.Spec, src, builder.Options{Set: set, Vars: c.Variables, Env: os.Environ()})
	case blocks != cty.NilVal:
		for _, name := range []struct {
			name string
			n    int
		}{{"set", len(c.Set)}, {"variables", len(c.Variables)}} {
			if name.n > 0 {
				fail(fmt.Errorf("%s: it goes with a spec in a file, and this one is in the template", name.name))
			}
		}
		dir, err := os.Getwd()
		fail(err)
		b.spec, diags = builder.ParseValue(blocks, dir)
	default:
		fail(errors.New("a spec is missing: either the blocks image and base, or spec = \"FILE\""))
	}
	for _, d := range diags {
		text := describe(d)
		if d.Severity == hcl.DiagWarning {
			warnings = append(warnings, text)
		} else {
			fail(errors.New(text))
		}
	}
	fail(b.output())
	fail(b.dates())
	return warnings, errs
}

// output checks where the image goes.
func (b *Builder) output() (err error) {
	switch {
	case b.config.Output == "":
		return errors.New("output: it is missing: oci:DIR[:TAG] or oci-archive:FILE[:TAG]")
	case unknown.Is(b.config.Output):
		return nil
	}
	if b.ref, err = registry.Parse(b.config.Output); err != nil {
		return fmt.Errorf("output: %w", err)
	}
	switch {
	case b.ref.Place == registry.InRegistry:
		return fmt.Errorf("output: %q is in a registry: write to a layout, and publish with the post-processor isc-publish", b.config.Output)
	case b.ref.Digest != "":
		return fmt.Errorf("output: %q names a digest, which is what comes out", b.config.Output)
	}
	return nil
}

// dates reads the lock and the build date.
func (b *Builder) dates() (err error) {
	if b.config.Locked {
		if b.config.Spec == "" {
			return errors.New("locked: it goes with a spec in a file")
		}
		if b.lock, err = builder.ReadLock(builder.LockName(b.config.Spec)); err != nil {
			return err
		}
	}
	if v := os.Getenv("SOURCE_DATE_EPOCH"); v != "" {
		sec, err := strconv.ParseInt(v, 10, 64)
		if err != nil || sec < 0 || sec > 1<<33-1 {
			return fmt.Errorf("SOURCE_DATE_EPOCH: %q is not a number of seconds", v)
		}
		b.date = time.Unix(sec, 0).UTC()
	}
	return nil
}

// describe puts a diagnostic on one line that stands for itself: Packer shows no source.
func describe(d *hcl.Diagnostic) string {
	text := d.Summary
	if d.Detail != "" {
		text = d.Detail
	}
	if at := d.Subject; at != nil && at.Filename != "" {
		if at.Start != at.End { // in a file; in a value the name is the path of the block
			return fmt.Sprintf("%s: %s", at, text)
		}
		return at.Filename + ": " + text
	}
	return text
}

// Run builds the image.
func (b *Builder) Run(ctx context.Context, u sdk.Ui, hook sdk.Hook) (sdk.Artifact, error) {
	if err := b.vacant(ctx); err != nil {
		return nil, err
	}
	report, done := ui.Progress(u)
	defer done()
	data := map[string]any{
		"ID": "", "PackerRunUUID": os.Getenv("PACKER_RUN_UUID"), "ConnType": "isc-tree",
		"ISCName": b.spec.Image.Name, "ISCVersion": b.spec.Image.Version, "ISCOutput": b.ref.String(),
	}
	u.Sayf("Building %s %s from %s", b.spec.Image.Name, b.spec.Image.Version, b.spec.Base.Source)
	built, err := builder.Prepare(ctx, b.spec, builder.BuildOptions{
		Created: b.date, Today: time.Now(), Version: version.Plugin.String(), Artifacts: b.config.Artifacts, Lock: b.lock,
		Dir: b.config.TemporaryFolder, Progress: report, Log: ui.Log(u),
		Provision: func(ctx context.Context, t *image.Tree, created time.Time) (bool, error) {
			return b.provision(ctx, u, hook, data, t, created)
		},
	})
	if errors.Is(err, builder.ErrFindings) {
		ui.Findings(u, built.Report)
		return nil, errors.Join(err, built.Close())
	}
	if err != nil {
		return nil, err
	}
	a, err := b.write(ctx, u, built)
	if err != nil {
		return nil, errors.Join(err, built.Close())
	}
	a.Generated = data
	return a, built.Close()
}

// vacant makes sure that nothing is overwritten without -force.
func (b *Builder) vacant(ctx context.Context) error {
	if b.config.PackerForce {
		return nil
	}
	if b.ref.Place == registry.InArchive {
		if _, err := os.Lstat(b.ref.Path); err == nil {
			return fmt.Errorf("output %q exists: use -force to replace it", b.ref.Path)
		}
		return nil
	}
	if _, err := os.Lstat(b.ref.Path); err != nil {
		return nil
	}
	l, err := registry.OpenLayout(b.ref.Path)
	if err != nil {
		return fmt.Errorf("output: %w", err)
	}
	defer l.Close()
	tags, err := l.Tags(ctx)
	if err != nil {
		return fmt.Errorf("output: %w", err)
	}
	for _, tag := range tags {
		if tag == b.ref.Tag {
			return fmt.Errorf("output %q exists: use -force to replace it", b.ref)
		}
	}
	return nil
}

// provision lets the template's provisioners work on the tree.
func (b *Builder) provision(ctx context.Context, u sdk.Ui, hook sdk.Hook, data map[string]any, t *image.Tree, created time.Time) (changed bool, err error) {
	c := &communicator{build: ctx, tree: t, system: b.spec.Image.OS, created: created, dir: b.config.TemporaryFolder}
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

// write writes the artifacts, into a layout beside an archive first.
func (b *Builder) write(ctx context.Context, u sdk.Ui, built *builder.Built) (*artifact.Artifact, error) {
	dir := b.ref.Path
	if b.ref.Place == registry.InArchive {
		var err error
		if dir, err = os.MkdirTemp(b.config.TemporaryFolder, "isc-layout-*"); err != nil {
			return nil, err
		}
		defer os.RemoveAll(dir)
	}
	l, err := registry.CreateLayout(dir)
	if err != nil {
		return nil, err
	}
	defer l.Close()
	u.Say("Writing the artifacts")
	digest, err := built.Write(ctx, l, b.ref.Tag, b.config.Artifacts)
	if err != nil {
		return nil, err
	}
	if b.ref.Place == registry.InArchive {
		from := registry.Ref{Place: registry.InLayout, Path: dir, Tag: b.ref.Tag}
		if _, err := registry.Copy(ctx, from, b.ref, registry.Options{}); err != nil {
			return nil, err
		}
	}
	a, err := artifact.New(ctx, artifact.BuilderImage, b.ref, digest, registry.Options{})
	if err != nil {
		return nil, err
	}
	ui.Digest(u, a.Digest, a.Config.Artifacts)
	u.Sayf("%s in %s", a.Id(), b.ref)
	return a, nil
}
