// Package iscsign is the post-processor isc-sign: it signs an image, attests its SBOM and provenance, and
// releases it in a channel. Doing it again changes nothing.
package iscsign

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strconv"
	"time"

	"github.com/hashicorp/hcl/v2/hcldec"
	sdk "github.com/hashicorp/packer-plugin-sdk/packer"
	"github.com/hashicorp/packer-plugin-sdk/template/config"

	"github.com/goldenisc/packer-plugin-isc/cmd/packer-plugin-isc/artifact"
	"github.com/goldenisc/packer-plugin-isc/cmd/packer-plugin-isc/build"
	"github.com/goldenisc/packer-plugin-isc/internal/release"
	"github.com/goldenisc/packer-plugin-isc/registry"
	"github.com/goldenisc/packer-plugin-isc/signing"
)

// A PostProcessor signs images.
type PostProcessor struct {
	config  Config
	options release.Options
}

var _ sdk.PostProcessor = (*PostProcessor)(nil)

// ConfigSpec is what Packer decodes the block by.
func (p *PostProcessor) ConfigSpec() hcldec.ObjectSpec { return p.config.FlatMapstructure().HCL2Spec() }

// Configure checks the configuration. The key is not opened yet: it may not be made for all who
// validate a template.
func (p *PostProcessor) Configure(raws ...any) error {
	if err := config.Decode(&p.config, &config.DecodeOpts{PluginType: artifact.BuilderSign, Interpolate: true}, raws...); err != nil {
		return err
	}
	var errs *sdk.MultiError
	c := &p.config
	if c.Key == "" {
		errs = sdk.MultiErrorAppend(errs, errors.New("key: it is missing"))
	}
	if c.Epoch < 0 || c.Epoch > signing.MaxEpoch {
		errs = sdk.MultiErrorAppend(errs, fmt.Errorf("epoch: %d is no number from 1", c.Epoch))
	}
	p.options = release.Options{
		Channel: cmp.Or(c.Channel, "stable"), Epoch: c.Epoch, MinimumEpoch: c.MinimumEpoch,
		Encoding: release.Encoding(c.SignatureFormat), Identity: c.Identity,
	}
	var err error
	if p.options.Lifetime, err = signing.ParseDuration(cmp.Or(c.Expires, "90d")); err != nil && !build.Unknown(c.Expires) {
		errs = sdk.MultiErrorAppend(errs, fmt.Errorf("expires: %w", err))
	}
	if err := p.options.Check(); err != nil && !build.Unknown(c.SignatureFormat) {
		errs = sdk.MultiErrorAppend(errs, err)
	}
	if errs != nil && len(errs.Errors) > 0 {
		return errs
	}
	return nil
}

// PostProcess signs the image of an artifact where it is.
func (p *PostProcessor) PostProcess(ctx context.Context, u sdk.Ui, source sdk.Artifact) (sdk.Artifact, bool, bool, error) {
	a, err := p.sign(ctx, u, source)
	if err != nil {
		return nil, true, true, err
	}
	return a, true, true, nil
}

func (p *PostProcessor) sign(ctx context.Context, u sdk.Ui, source sdk.Artifact) (*artifact.Artifact, error) {
	ref, digest, err := artifact.Of(source)
	if err != nil {
		return nil, err
	}
	key, err := signing.OpenKey(ctx, p.config.Key, password)
	if err != nil {
		return nil, err
	}
	at := ref
	at.Tag, at.Digest = "", digest // what was built, whatever its tag names by now
	to, err := registry.OpenTarget(ctx, at, registry.Options{PlainHTTP: p.config.PlainHTTP})
	if err != nil {
		return nil, err
	}
	defer to.Close()
	subject, err := release.New(ctx, to, at, key)
	if err != nil {
		return nil, err
	}
	r, err := subject.Release(ctx, p.options)
	if err != nil {
		return nil, fmt.Errorf("sign %s: %w", digest, err)
	}
	u.Sayf("%s %s: epoch %d in %s, until %s", r.Name, r.Version, r.Epoch, r.Channel, r.Expires.Format(time.RFC3339))
	u.Machine("isc-release", r.Channel, strconv.FormatInt(r.Epoch, 10), r.Expires.Format(time.RFC3339), key.Public().ID())
	// Its files are more than before.
	a, err := artifact.New(ctx, artifact.BuilderSign, ref, digest, registry.Options{PlainHTTP: p.config.PlainHTTP})
	if err != nil {
		return nil, err
	}
	if len(a.Files()) == 0 {
		if a, err = artifact.From(source, artifact.BuilderSign); err != nil {
			return nil, err
		}
	}
	data, err := json.Marshal(map[string]any{
		"name": r.Name, "version": r.Version, "channel": r.Channel, "epoch": r.Epoch,
		"issued": r.Issued, "expires": r.Expires, "minimumEpoch": r.MinimumEpoch, "key": key.Public().ID(),
	})
	a.Release = string(data)
	return a, err
}

// password is a [signing.PasswordFunc]: Packer's plugins have no terminal.
func password(bool) ([]byte, error) {
	v, ok := os.LookupEnv("COSIGN_PASSWORD")
	if !ok {
		return nil, errors.New("COSIGN_PASSWORD is not set in the environment: it is the password of the key, empty if it has none")
	}
	return []byte(v), nil
}
