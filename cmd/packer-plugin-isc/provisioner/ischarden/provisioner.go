// Package ischarden is the provisioner isc-harden: it applies a profile of controls to the machine that
// another builder has up, audits it, and fails the build if a control does not hold that nobody has
// waived.
package ischarden

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/hashicorp/hcl/v2/hcldec"
	sdk "github.com/hashicorp/packer-plugin-sdk/packer"
	"github.com/hashicorp/packer-plugin-sdk/template/config"

	"github.com/goldenisc/packer-plugin-isc/builder"
	"github.com/goldenisc/packer-plugin-isc/cmd/packer-plugin-isc/build"
	"github.com/goldenisc/packer-plugin-isc/cmd/packer-plugin-isc/ui"
	"github.com/goldenisc/packer-plugin-isc/image"
	"github.com/goldenisc/packer-plugin-isc/internal/remote"
	"github.com/goldenisc/packer-plugin-isc/profiles"
	"github.com/goldenisc/packer-plugin-isc/provisioner"
)

// A Provisioner hardens machines.
type Provisioner struct {
	config  Config
	profile *profiles.Profile
}

var _ sdk.Provisioner = (*Provisioner)(nil)

// ConfigSpec is what Packer decodes the block by.
func (p *Provisioner) ConfigSpec() hcldec.ObjectSpec { return p.config.FlatMapstructure().HCL2Spec() }

// Prepare checks the configuration, for every operating system that the profile is for: which one the
// machine runs is not known yet.
func (p *Provisioner) Prepare(raws ...any) error {
	if err := config.Decode(&p.config, &config.DecodeOpts{PluginType: "isc-harden", Interpolate: true}, raws...); err != nil {
		return err
	}
	name := cmp.Or(p.config.Profile, builder.DefaultProfile)
	if build.Unknown(name) {
		return nil
	}
	var errs *sdk.MultiError
	if strings.HasSuffix(name, ".hcl") {
		src, err := os.ReadFile(name)
		if err != nil {
			return fmt.Errorf("profile: %w", err)
		}
		profile, diags := profiles.Parse(name, src)
		if _, errs = build.Report(diags, errs); build.Err(errs) != nil {
			return errs
		}
		p.profile = profile
	} else {
		var err error
		if p.profile, err = profiles.Load(name); err != nil {
			return fmt.Errorf("profile: %w", err)
		}
	}
	usable := false
	var failed error
	for _, system := range profiles.Platforms {
		if len(p.profile.Controls[system]) == 0 {
			continue
		}
		if _, err := p.selection(system); err != nil {
			failed = err
		} else {
			usable = true
		}
	}
	if !usable {
		errs = build.Append(errs, failed)
	}
	return build.Err(errs)
}

func (p *Provisioner) selection(system string) (*profiles.Selection, error) {
	var waivers []image.Waiver
	for _, w := range p.config.Waive {
		waivers = append(waivers, image.Waiver{Control: w.Control, Reason: w.Reason, Until: w.Until})
	}
	return p.profile.Select(system, p.config.Set, waivers)
}

// Provision hardens the machine behind the communicator.
func (p *Provisioner) Provision(ctx context.Context, u sdk.Ui, comm sdk.Communicator, _ map[string]any) error {
	r := provisioner.As(runner{comm}, p.config.As...)
	system, err := provisioner.System(ctx, r)
	if err != nil {
		return err
	}
	s, err := p.selection(system)
	if err != nil {
		return err
	}
	o := provisioner.Options{Today: time.Now().UTC().Truncate(time.Second)}
	var report *profiles.Report
	if p.config.AuditOnly {
		u.Sayf("Checking the controls of %s", p.profile.Name)
		report, err = provisioner.Audit(ctx, r, s, o)
	} else {
		u.Sayf("Applying the controls of %s", p.profile.Name)
		var changes []profiles.Change
		if changes, report, err = provisioner.Harden(ctx, r, system, s, o); err == nil {
			for _, c := range changes {
				u.Sayf("    /%s", c.Name)
			}
		}
	}
	if err != nil {
		return err
	}
	if err := p.write(report); err != nil {
		return err
	}
	ui.Findings(u, report)
	if n := report.Count(profiles.Fail); n > 0 {
		return fmt.Errorf("%d controls of %s do not hold: change the machine before this provisioner, or waive them", n, p.profile.Name)
	}
	u.Sayf("%d controls of %s hold", report.Count(profiles.Pass), p.profile.Name)
	return nil
}

// write writes the report, also of a machine that fails.
func (p *Provisioner) write(report *profiles.Report) error {
	if p.config.Report == "" {
		return nil
	}
	data, err := report.Marshal()
	if err != nil {
		return err
	}
	return os.WriteFile(p.config.Report, data, 0o644)
}

// A runner runs commands through Packer's communicator.
type runner struct{ sdk.Communicator }

func (r runner) Run(ctx context.Context, c remote.Command) error {
	var said bytes.Buffer
	stderr := io.Writer(&said)
	if c.Stderr != nil {
		stderr = io.MultiWriter(&said, c.Stderr)
	}
	stdin := c.Stdin
	if stdin == nil {
		stdin = bytes.NewReader(nil)
	}
	cmd := &sdk.RemoteCmd{Command: remote.Quote(c.Args...), Stdin: stdin, Stdout: c.Stdout, Stderr: stderr}
	if err := r.Start(ctx, cmd); err != nil {
		return err
	}
	done := make(chan int, 1)
	go func() { done <- cmd.Wait() }()
	select {
	case status := <-done:
		switch status {
		case 0:
			return nil
		case sdk.CmdDisconnect:
			return errors.New("the connection was lost")
		}
		return &remote.ExitError{Args: c.Args, Status: status, Stderr: said.String()}
	case <-ctx.Done():
		return ctx.Err()
	}
}
