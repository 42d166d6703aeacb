// Package iscpublish is the post-processor isc-publish: it copies an image with all that is said of it
// to where hosts pull it from. Doing it again changes nothing.
package iscpublish

import (
	"context"
	"errors"
	"fmt"

	"github.com/hashicorp/hcl/v2/hcldec"
	sdk "github.com/hashicorp/packer-plugin-sdk/packer"
	"github.com/hashicorp/packer-plugin-sdk/template/config"

	"github.com/goldenisc/packer-plugin-isc/cmd/packer-plugin-isc/artifact"
	"github.com/goldenisc/packer-plugin-isc/cmd/packer-plugin-isc/build"
	"github.com/goldenisc/packer-plugin-isc/cmd/packer-plugin-isc/ui"
	"github.com/goldenisc/packer-plugin-isc/registry"
)

// A PostProcessor publishes images.
type PostProcessor struct {
	config Config
	to     registry.Ref
}

var _ sdk.PostProcessor = (*PostProcessor)(nil)

// ConfigSpec is what Packer decodes the block by.
func (p *PostProcessor) ConfigSpec() hcldec.ObjectSpec { return p.config.FlatMapstructure().HCL2Spec() }

// Configure checks the configuration.
func (p *PostProcessor) Configure(raws ...any) (err error) {
	if err := config.Decode(&p.config, &config.DecodeOpts{PluginType: artifact.BuilderPublish, Interpolate: true}, raws...); err != nil {
		return err
	}
	if p.config.Destination == "" {
		return errors.New("destination: it is missing: HOST/REPO:TAG")
	}
	if build.Unknown(p.config.Destination) {
		return nil
	}
	if p.to, err = registry.Parse(p.config.Destination); err != nil {
		return fmt.Errorf("destination: %w", err)
	}
	if p.to.Digest != "" {
		return fmt.Errorf("destination: %q names a digest, which the image has already", p.config.Destination)
	}
	return nil
}

// PostProcess publishes the image of an artifact, which is kept.
func (p *PostProcessor) PostProcess(ctx context.Context, u sdk.Ui, source sdk.Artifact) (sdk.Artifact, bool, bool, error) {
	a, err := p.publish(ctx, u, source)
	if err != nil {
		return nil, true, true, err
	}
	return a, true, true, nil
}

func (p *PostProcessor) publish(ctx context.Context, u sdk.Ui, source sdk.Artifact) (*artifact.Artifact, error) {
	from, digest, err := artifact.Of(source)
	if err != nil {
		return nil, err
	}
	a, err := artifact.From(source, artifact.BuilderPublish)
	if err != nil {
		return nil, err
	}
	// What was built, whatever its tag names by now.
	from.Tag, from.Digest = "", digest
	u.Sayf("Publishing %s at %s", digest, p.to)
	progress, done := ui.Progress(u)
	defer done()
	if _, err := registry.Copy(ctx, from, p.to, registry.Options{PlainHTTP: p.config.PlainHTTP, Progress: progress}); err != nil {
		return nil, fmt.Errorf("publish at %q: %w (nobody sees a part of it; run the same again, or: iscadm push %s %s)", p.to, err, from, p.to)
	}
	a.Ref = p.to
	if a.Ref.Place == registry.InRegistry {
		a.Ref.Digest = digest
	}
	ui.Published(u, a.Ref.String())
	return a, nil
}
