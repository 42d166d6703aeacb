package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"github.com/goldenisc/packer-plugin-isc/builder"
	"github.com/goldenisc/packer-plugin-isc/internal/adopt"
	"github.com/goldenisc/packer-plugin-isc/profiles"
	"github.com/goldenisc/packer-plugin-isc/provisioner"
)

type adoptFlags struct {
	controlFlags
	service, out string
}

func newAdopt(a *app) *cobra.Command {
	var f adoptFlags
	c := &cobra.Command{
		Use:   "adopt ROOT --service NAME [-o FILE]",
		Short: "Propose a spec for a service of an existing root or host",
		Long: `Look up a service of a root, dir:PATH, tar:PATH, zfs:PATH or a reference, or of a
machine, ssh://[USER@]HOST[:PORT] or local:, and write a commented spec to start
from: its program, account, ports and files, with the packages they are from, and
what the profile would change or refuse. Nothing is changed. What a program opens
when it runs no file says.`,
		Args: cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error { return a.adopt(c.Context(), args[0], &f) },
	}
	f.flags(c)
	c.Flags().StringVar(&f.service, "service", "", "`NAME` of the unit, or of the service of SMF")
	c.Flags().StringVarP(&f.out, "output", "o", "", "write to `FILE`, which must not exist; default stdout")
	c.MarkFlagRequired("service") //nolint:errcheck // it was just defined
	return c
}

func (a *app) adopt(ctx context.Context, root string, f *adoptFlags) error {
	found, err := a.adoption(ctx, root, f)
	if err != nil {
		return err
	}
	text := found.Spec(cmp.Or(f.profile, builder.DefaultProfile))
	if a.json {
		return a.document(map[string]any{"spec": string(text), "files": list(found.Files), "notes": list(found.Notes), "findings": list(found.Broken)})
	}
	if f.out == "" {
		_, err = a.out.Write(text)
		return err
	}
	file, err := os.OpenFile(f.out, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o666)
	if err != nil {
		return err
	}
	_, err = file.Write(text)
	return errors.Join(err, file.Close())
}

func (a *app) adoption(ctx context.Context, root string, f *adoptFlags) (*adopt.Adoption, error) {
	host, err := f.machine(ctx, root)
	if err != nil {
		return nil, err
	}
	if host != nil {
		defer host.done()
		system, err := provisioner.System(ctx, host)
		if err != nil {
			return nil, err
		}
		s, err := f.selection(system, nil)
		if err != nil {
			return nil, err
		}
		s = s.Live()
		m, err := provisioner.Open(ctx, host, host.dir, append(s.Globs(), adopt.Globs...), "")
		if err != nil {
			return nil, err
		}
		defer m.Close()
		return adopt.Adopt(m, builder.Facts{OS: system}, f.service, s, time.Now())
	}
	system, recorded, err := a.recordedOf(ctx, root)
	if err != nil {
		return nil, err
	}
	spec := &builder.Spec{Image: &builder.Image{OS: system}, Base: &builder.Base{Source: root}, Dir: "."}
	t, _, err := builder.OpenBase(ctx, spec, builder.BuildOptions{PlainHTTP: a.plainHTTP, Progress: a.progress()})
	if err != nil {
		return nil, err
	}
	defer t.Close()
	facts, err := builder.Inspect(t)
	if err != nil {
		return nil, err
	}
	facts.Source = sourceFrom(root, f.out)
	if !slices.Contains(profiles.Platforms, facts.OS) {
		return nil, badInput(fmt.Errorf("adopt %q: it does not say that it is an illumos, a Solaris or a Linux system", root))
	}
	s, err := f.selection(facts.OS, recorded)
	if err != nil {
		return nil, err
	}
	return adopt.Adopt(t, facts, f.service, s, time.Now())
}

// list is a list that is [] in JSON if it is empty.
func list[T any](all []T) []T { return append([]T{}, all...) }
