// Package iscpackage is the post-processor isc-package: it takes the disk that another builder left and
// makes an image of it, with appliances and other containers of that disk.
package iscpackage

import (
	"context"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/hashicorp/hcl/v2/hcldec"
	sdk "github.com/hashicorp/packer-plugin-sdk/packer"
	"github.com/hashicorp/packer-plugin-sdk/template/config"
	"github.com/zclconf/go-cty/cty"

	"github.com/goldenisc/packer-plugin-isc/builder"
	"github.com/goldenisc/packer-plugin-isc/cmd/packer-plugin-isc/artifact"
	"github.com/goldenisc/packer-plugin-isc/cmd/packer-plugin-isc/build"
)

// A PostProcessor packages disks.
type PostProcessor struct {
	config Config
	blocks cty.Value
	job    build.Job
}

var _ sdk.PostProcessor = (*PostProcessor)(nil)

// schema is that of a spec less what takes a tree.
func schema() []builder.Block {
	return slices.DeleteFunc(slices.Clone(builder.Schema()), func(b builder.Block) bool {
		return b.Name != "image" && !slices.Contains(kinds(), b.Name)
	})
}

// kinds are the artifacts that a disk alone can be written as.
func kinds() (names []string) {
	for _, k := range builder.Kinds {
		if k.Disk {
			names = append(names, k.Block)
		}
	}
	return names
}

// ConfigSpec is what Packer decodes the block by.
func (p *PostProcessor) ConfigSpec() hcldec.ObjectSpec {
	spec := hcldec.ObjectSpec(new(Config).FlatMapstructure().HCL2Spec())
	maps.Copy(spec, build.Blocks(schema()))
	return spec
}

// Configure checks the configuration. Which file it is about is not known yet.
func (p *PostProcessor) Configure(raws ...any) error {
	blocks, raws, err := build.Split(schema(), raws)
	if err != nil {
		return err
	}
	p.config = Config{}
	if err := config.Decode(&p.config, &config.DecodeOpts{PluginType: artifact.BuilderPackage, Interpolate: true}, raws...); err != nil {
		return err
	}
	c := &p.config
	p.job = build.Job{Component: artifact.BuilderPackage, Force: c.PackerForce, Artifacts: c.Artifacts, Dir: c.TemporaryFolder}
	var errs *sdk.MultiError
	if p.blocks = blocks; blocks == cty.NilVal {
		errs = build.Append(errs, fmt.Errorf("image: the block is missing"))
	} else {
		// A file that is there stands in for the disk.
		_, diags := build.Parse(withDisk(blocks, os.Args[0]))
		_, errs = build.Report(diags, errs)
	}
	if _, err := filepath.Match(c.Disk, ""); err != nil {
		errs = build.Append(errs, fmt.Errorf("disk_file: %q: %w", c.Disk, err))
	}
	p.job.Output, err = build.Output(c.Output)
	errs = build.Append(errs, err)
	p.job.Created, err = builder.SourceDate()
	return build.Err(build.Append(errs, err))
}

// withDisk adds the disk block to a spec, and the default artifact if there is none.
func withDisk(blocks cty.Value, name string) cty.Value {
	spec := blocks.AsValueMap()
	spec["disk"] = cty.ObjectVal(map[string]cty.Value{"source": cty.StringVal(name)})
	for _, kind := range kinds() {
		if _, ok := spec[kind]; ok {
			return cty.ObjectVal(spec)
		}
	}
	spec["ova"] = cty.EmptyObjectVal
	return cty.ObjectVal(spec)
}

// PostProcess makes an image of the disk among the files of an artifact. Those are kept unless the
// template says otherwise.
func (p *PostProcessor) PostProcess(ctx context.Context, u sdk.Ui, source sdk.Artifact) (sdk.Artifact, bool, bool, error) {
	a, err := p.pack(ctx, u, source)
	if err != nil {
		return nil, true, false, err
	}
	return a, true, false, nil
}

func (p *PostProcessor) pack(ctx context.Context, u sdk.Ui, source sdk.Artifact) (*artifact.Artifact, error) {
	name, err := choose(source.Files(), p.config.Disk)
	if err != nil {
		return nil, fmt.Errorf("the artifact of %q: %w", source.BuilderId(), err)
	}
	if name, err = filepath.Abs(name); err != nil {
		return nil, err
	}
	if err := p.job.Vacant(ctx); err != nil {
		return nil, err
	}
	spec, diags := build.Parse(withDisk(p.blocks, name))
	_, errs := build.Report(diags, nil)
	if err := build.Err(errs); err != nil {
		return nil, err
	}
	p.job.Spec = spec
	u.Sayf("Packaging %s", name)
	return p.job.Run(ctx, u)
}

// Extensions of the files that builders leave disks in, and of what describes them. Builders of QEMU
// leave a name without any.
var (
	appliances = []string{".ova", ".ovf"}
	disks      = []string{".qcow2", ".qcow", ".vmdk", ".vdi", ".raw", ".img", ""}
)

// choose finds the disk.
func choose(files []string, pattern string) (string, error) {
	match := func(extensions []string) (found []string) {
		for _, name := range files {
			if slices.Contains(extensions, strings.ToLower(filepath.Ext(name))) {
				found = append(found, name)
			}
		}
		return found
	}
	found := match(appliances)
	if len(found) == 0 {
		found = match(disks)
	}
	if pattern != "" {
		found = nil
		for _, name := range files {
			if ok, err := filepath.Match(pattern, filepath.Base(name)); err != nil {
				return "", err
			} else if ok {
				found = append(found, name)
			}
		}
	}
	switch {
	case len(found) == 1:
		return found[0], nil
	case len(found) > 1:
		return "", fmt.Errorf("several files may be the disk, choose one by disk_file: %s", strings.Join(found, ", "))
	case pattern != "":
		return "", fmt.Errorf("disk_file: no file is called %q: there are %s", pattern, strings.Join(files, ", "))
	case len(files) == 0:
		return "", fmt.Errorf("it has no files")
	}
	return "", fmt.Errorf("none of the files is a disk: %s", strings.Join(files, ", "))
}
