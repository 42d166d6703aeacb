// Package iscimage is the data source isc-image: it finds out which image a reference names, and
// answers only if that is a release by the keys or the policy given.
package iscimage

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/hashicorp/hcl/v2/hcldec"
	sdk "github.com/hashicorp/packer-plugin-sdk/packer"
	"github.com/hashicorp/packer-plugin-sdk/template/config"
	"github.com/zclconf/go-cty/cty"
	"github.com/zclconf/go-cty/cty/gocty"

	"github.com/goldenisc/packer-plugin-isc/cmd/packer-plugin-isc/build"
	"github.com/goldenisc/packer-plugin-isc/registry"
	"github.com/goldenisc/packer-plugin-isc/signing"
)

// A Datasource resolves and verifies one reference.
type Datasource struct {
	config Config
	ref    registry.Ref
}

var _ sdk.Datasource = (*Datasource)(nil)

// ConfigSpec is what Packer decodes the block by.
func (d *Datasource) ConfigSpec() hcldec.ObjectSpec { return d.config.FlatMapstructure().HCL2Spec() }

// OutputSpec is what a template can use of it.
func (d *Datasource) OutputSpec() hcldec.ObjectSpec { return new(Output).FlatMapstructure().HCL2Spec() }

// Configure checks the configuration.
func (d *Datasource) Configure(raws ...any) error {
	if err := config.Decode(&d.config, nil, raws...); err != nil {
		return err
	}
	var errs *sdk.MultiError
	if d.config.Reference == "" {
		errs = sdk.MultiErrorAppend(errs, errors.New("reference: it is missing"))
	} else if ref, err := registry.Parse(d.config.Reference); err != nil && !build.Unknown(d.config.Reference) {
		errs = sdk.MultiErrorAppend(errs, err)
	} else {
		d.ref = ref
	}
	switch keys, policy := len(d.config.Keys) > 0, d.config.Policy != ""; {
	case !keys && !policy:
		errs = sdk.MultiErrorAppend(errs, errors.New("keys: nothing says whose release to take: give public keys, or a policy file"))
	case keys && policy:
		errs = sdk.MultiErrorAppend(errs, errors.New("policy: there are keys, too: it is either or"))
	}
	if errs != nil && len(errs.Errors) > 0 {
		return errs
	}
	return nil
}

// Execute resolves and verifies.
func (d *Datasource) Execute() (cty.Value, error) {
	out, err := d.resolve(context.Background())
	if err != nil {
		// A value of no type would not pass between the processes.
		return cty.NullVal(cty.DynamicPseudoType), fmt.Errorf("image %q: %w", d.config.Reference, err)
	}
	return gocty.ToCtyValue(out, hcldec.ImpliedType(d.OutputSpec()))
}

func (d *Datasource) resolve(ctx context.Context) (*FlatOutput, error) {
	policy, err := d.policy(ctx)
	if err != nil {
		return nil, err
	}
	store, err := registry.Open(ctx, d.ref, registry.Options{PlainHTTP: d.config.PlainHTTP})
	if err != nil {
		return nil, err
	}
	defer store.Close()
	m, err := registry.ReadImage(ctx, store, cmp.Or(d.ref.Digest, d.ref.Tag))
	if err != nil {
		return nil, err
	}
	in := signing.Input{Digest: m.Digest(), Reference: d.ref.String(), Name: m.Config.Name, Policy: policy, Now: time.Now()}
	in.Candidates, in.Incomplete = registry.Statements(ctx, store, m.Digest())
	decision, err := signing.Verify(in)
	if err != nil {
		return nil, err
	}
	r := decision.Release
	switch {
	case r == nil:
		return nil, errors.New("it is signed, but nobody says that it is a release")
	case d.config.Channel != "" && r.Channel != d.config.Channel:
		return nil, fmt.Errorf("it is a release of channel %q, not of %q", r.Channel, d.config.Channel)
	case r.Epoch < d.config.MinimumEpoch:
		return nil, fmt.Errorf("it is a release of epoch %d, and %d is the lowest that is taken", r.Epoch, d.config.MinimumEpoch)
	}
	pinned := d.ref
	pinned.Digest = m.Digest()
	if pinned.Place != registry.InRegistry {
		pinned.Tag = ""
	}
	c := m.Config
	expires := r.Expires.Format(time.RFC3339)
	reference, digest := pinned.String(), m.Digest()
	out := &FlatOutput{
		Digest: &digest, Reference: &reference, Name: &c.Name, Version: &c.Version, OS: &c.OS, Arch: &c.Arch,
		Channel: &r.Channel, Epoch: &r.Epoch, Expires: &expires, Artifacts: map[string]string{},
	}
	for _, a := range c.Artifacts {
		out.Artifacts[a.Name] = a.Digest
	}
	return out, nil
}

func (d *Datasource) policy(ctx context.Context) (*signing.Policy, error) {
	if d.config.Policy != "" {
		p, _, diags, err := signing.LoadPolicy(d.config.Policy)
		if err != nil {
			return nil, err
		}
		if diags.HasErrors() {
			return nil, fmt.Errorf("policy: %w", diags)
		}
		return p, nil
	}
	var keys []*signing.PublicKey
	for _, name := range d.config.Keys {
		k, err := signing.OpenPublicKey(ctx, name)
		if err != nil {
			return nil, err
		}
		keys = append(keys, k)
	}
	return signing.ForKeys(keys...), nil
}
