// Package build is what those components share that make an image of a spec: isc-image, isc-zone and
// isc-package.
package build

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"time"

	sdk "github.com/hashicorp/packer-plugin-sdk/packer"

	"github.com/goldenisc/packer-plugin-isc/builder"
	"github.com/goldenisc/packer-plugin-isc/cmd/packer-plugin-isc/artifact"
	"github.com/goldenisc/packer-plugin-isc/cmd/packer-plugin-isc/ui"
	"github.com/goldenisc/packer-plugin-isc/cmd/packer-plugin-isc/version"
	"github.com/goldenisc/packer-plugin-isc/image"
	"github.com/goldenisc/packer-plugin-isc/registry"
)

// A Job is one image to make.
type Job struct {
	Component string // the builder id of the artifact
	Spec      *builder.Spec
	Output    registry.Ref
	Force     bool     // replace what is there
	Artifacts []string // ids of artifact blocks; empty: all
	Lock      *builder.Lock
	Created   time.Time // the build date; zero: the newest time in the base
	Dir       string    // for temporary files
	Provision func(ctx context.Context, t *image.Tree, created time.Time) (bool, error)

	Provisioned bool // the base is what provisioners made
}

// Output parses where an image goes. Of what is not known yet it returns nothing.
func Output(s string) (registry.Ref, error) {
	switch {
	case s == "":
		return registry.Ref{}, errors.New("output: it is missing: oci:DIR[:TAG] or oci-archive:FILE[:TAG]")
	case Unknown(s):
		return registry.Ref{}, nil
	}
	ref, err := registry.Parse(s)
	switch {
	case err != nil:
		return ref, fmt.Errorf("output: %w", err)
	case ref.Place == registry.InRegistry:
		return ref, fmt.Errorf("output: %q is in a registry: write to a layout, and publish with the post-processor isc-publish", s)
	case ref.Digest != "":
		return ref, fmt.Errorf("output: %q names a digest, which is what comes out", s)
	}
	return ref, nil
}

// Vacant makes sure, before the work, that nothing is overwritten without -force.
func (j *Job) Vacant(ctx context.Context) error {
	if j.Force {
		return nil
	}
	if _, err := os.Lstat(j.Output.Path); err != nil {
		return nil
	}
	exists := fmt.Errorf("output %q exists: use -force to replace it", j.Output)
	if j.Output.Place == registry.InArchive {
		return exists
	}
	l, err := registry.OpenLayout(j.Output.Path)
	if err != nil {
		return fmt.Errorf("output: %w", err)
	}
	defer l.Close()
	tags, err := l.Tags(ctx)
	if err != nil {
		return fmt.Errorf("output: %w", err)
	}
	if slices.Contains(tags, j.Output.Tag) {
		return exists
	}
	return nil
}

// Run makes the image.
func (j *Job) Run(ctx context.Context, u sdk.Ui) (*artifact.Artifact, error) {
	if j.Provisioned {
		j.Provision = func(context.Context, *image.Tree, time.Time) (bool, error) { return true, nil }
	}
	report, done := ui.Progress(u)
	defer done()
	built, err := builder.Prepare(ctx, j.Spec, builder.BuildOptions{
		Created: j.Created, Today: time.Now(), Version: version.Plugin.String(), Artifacts: j.Artifacts, Lock: j.Lock,
		Dir: j.Dir, Progress: report, Log: ui.Log(u), Provision: j.Provision,
	})
	if errors.Is(err, builder.ErrFindings) {
		ui.Findings(u, built.Report)
		return nil, errors.Join(err, built.Close())
	}
	if err != nil {
		return nil, err
	}
	a, err := j.write(ctx, u, built)
	if err := errors.Join(err, built.Close()); err != nil {
		return nil, err
	}
	return a, nil
}

// write writes the artifacts, those of an archive into a layout first.
func (j *Job) write(ctx context.Context, u sdk.Ui, built *builder.Built) (*artifact.Artifact, error) {
	dir := j.Output.Path
	if j.Output.Place == registry.InArchive {
		var err error
		if dir, err = os.MkdirTemp(j.Dir, "isc-layout-*"); err != nil {
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
	digest, err := built.Write(ctx, l, j.Output.Tag, j.Artifacts)
	if err != nil {
		return nil, err
	}
	if j.Output.Place == registry.InArchive {
		from := registry.Ref{Place: registry.InLayout, Path: dir, Tag: j.Output.Tag}
		if _, err := registry.Copy(ctx, from, j.Output, registry.Options{}); err != nil {
			return nil, err
		}
	}
	a, err := artifact.New(ctx, j.Component, j.Output, digest, registry.Options{})
	if err != nil {
		return nil, err
	}
	ui.Digest(u, a.Digest, a.Config.Artifacts)
	u.Sayf("%s in %s", a.Id(), j.Output)
	return a, nil
}
