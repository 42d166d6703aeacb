package main

import (
	"context"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/goldenisc/packer-plugin-isc/profiles"
	"github.com/goldenisc/packer-plugin-isc/registry"
)

type dockFlags struct {
	trustFlags
	state    stateFlag
	unsigned bool
	instance string
	values   map[string]*string // by name of the token
	output   string
}

func newDock(a *app) *cobra.Command {
	f := dockFlags{values: map[string]*string{}}
	c := &cobra.Command{
		Use:   "dock REF [FILE…] --instance NAME",
		Short: "Fill in the files that a host sets an instance up with",
		Long: `Fill in the files of an image's dock, all or those that are named, for one instance:
rules of packet filters, the command that makes its interface, the configuration of
its zone. The values are those of the flags, else those that the instance was cloned
with (clone --net, --site); an interface is called after the instance. They are checked,
so that none can break out of a file, and if one is missing nothing is written: what is
half filled in must not be loaded. As the host's root goes by these files, the image
is verified first, as by pull.`,
		Args: cobra.MinimumNArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			for name, v := range f.values {
				if !c.Flags().Changed(name) {
					*v = ""
				}
			}
			return a.dock(c.Context(), args[0], args[1:], &f)
		},
	}
	f.state.flags(c)
	f.trustFlags.flags(c)
	unsignedFlag(c, &f.unsigned)
	c.Flags().StringVar(&f.instance, "instance", "", "`NAME` of the instance, which need not be one of this host")
	for _, t := range profiles.Tokens {
		if t.Name != "name" && t.Name != "ip" {
			f.values[t.Name] = c.Flags().String(t.Name, "", t.What)
		}
	}
	c.Flags().StringVarP(&f.output, "output", "o", "", "write the files to the folder `DIR`; default: print them")
	c.MarkFlagRequired("instance")
	return c
}

func (a *app) dock(ctx context.Context, ref string, only []string, f *dockFlags) error {
	m, store, err := a.open(ctx, ref)
	if err != nil {
		return err
	}
	defer store.Close()
	if _, err := a.trusted(ctx, ref, m, store, f.state, &f.trustFlags, f.unsigned); err != nil {
		return err
	}
	files, err := dockFiles(ctx, m)
	if err != nil {
		return err
	}
	for _, name := range only {
		if _, ok := files[name]; !ok {
			return badInput(fmt.Errorf("dock %q: no file %q (there are %s)", ref, name, strings.Join(slices.Sorted(maps.Keys(files)), ", ")))
		}
	}
	if len(only) > 0 {
		maps.DeleteFunc(files, func(name, _ string) bool { return !slices.Contains(only, name) })
	}
	values, err := a.siteValues(ctx, f)
	if err != nil {
		return err
	}
	filled, err := profiles.Fill(files, values)
	if err != nil {
		return badInput(fmt.Errorf("dock %q: %w", ref, err))
	}
	names := slices.Sorted(maps.Keys(filled))
	if f.output != "" {
		if err := os.MkdirAll(f.output, 0o755); err != nil {
			return err
		}
	}
	for _, name := range names {
		if f.output == "" {
			a.printf("==> %s <==\n%s", name, filled[name])
			continue
		}
		mode := fs.FileMode(0o644)
		if strings.HasPrefix(filled[name], "#!/bin/sh") {
			mode = 0o755
		}
		if err := writeFile(filepath.Join(f.output, name), mode, bytesTo([]byte(filled[name]))); err != nil {
			return err
		}
		a.printf("%s\n", filepath.Join(f.output, name))
	}
	return a.document(map[string]any{"image": m.Digest(), "instance": f.instance, "files": filled})
}

// dockFiles are the files of an image that have tokens of the site: those of the dock requirements, and
// the command files for zonecfg(8), of which that of the archive is zonecfg and others have their block in
// front.
func dockFiles(ctx context.Context, m *registry.Image) (map[string]string, error) {
	d, err := readDock(ctx, m)
	if err != nil {
		return nil, err
	}
	files := maps.Clone(d.Files)
	if files == nil {
		files = map[string]string{}
	}
	for _, art := range m.Config.Artifacts {
		if art.Kind != "zonecfg" {
			continue
		}
		data, err := read(ctx, m, art.Name)
		if err != nil {
			return nil, err
		}
		files[strings.ReplaceAll(strings.TrimPrefix(art.Name, "dock/"), "/", ".")] = string(data)
	}
	return files, nil
}

// siteValues are what is known of an instance: by flags, and by how it was cloned.
func (a *app) siteValues(ctx context.Context, f *dockFlags) (map[string]string, error) {
	values := map[string]string{"name": f.instance}
	_, state, _, err := a.existingHost(ctx, f.state)
	if err != nil {
		return nil, err
	}
	if state != nil {
		if in := state.Instance(f.instance); in != nil {
			for _, t := range profiles.Tokens {
				if v := in.Site.Values[t.Name]; v != "" {
					values[t.Name] = v
				}
			}
		}
	}
	for name, v := range f.values {
		if *v != "" {
			values[name] = *v
		}
	}
	return values, nil
}
