package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/hashicorp/hcl/v2/hclsimple"
	"github.com/spf13/cobra"

	"github.com/goldenisc/packer-plugin-isc/host"
)

func newPull(a *app) *cobra.Command {
	var s stateFlag
	var trust acquireFlags
	var platform string
	c := &cobra.Command{
		Use:   "pull REF",
		Short: "Bring an image into this host's store",
		Args:  cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			h, err := a.host(c.Context(), s)
			if err != nil {
				return err
			}
			m, err := a.acquire(c.Context(), h, args[0], platform, trust)
			if err != nil {
				return err
			}
			a.printf("%s\n", m.Digest)
			return a.document(m)
		},
	}
	s.flags(c)
	trust.flags(c)
	c.Flags().StringVar(&platform, "platform", "dir", "the `PLATFORM` that its instances will be made on")
	return c
}

type cloneFlags struct {
	state          stateFlag
	trust          acquireFlags
	to             string
	site, hostname string
	start          bool
}

func newClone(a *app) *cobra.Command {
	var f cloneFlags
	c := &cobra.Command{
		Use:   "clone REF NAME --to PLATFORM:PLACE",
		Short: "Make an instance of an image, which is imported first",
		Long: `Make an instance of an image. The platform dir makes a folder PLACE/NAME, in
which root is the file system of the instance, by copying or, where the file
system can, by sharing blocks.`,
		Args: cobra.ExactArgs(2),
		RunE: func(c *cobra.Command, args []string) error {
			return a.clone(c.Context(), args[0], args[1], &f)
		},
	}
	f.state.flags(c)
	f.trust.flags(c)
	c.Flags().StringVar(&f.to, "to", "", "where to: `PLATFORM:PLACE`, such as dir:/srv/isc")
	c.Flags().StringVar(&f.site, "site", "", "`FILE` with site values: hostname = \"…\", values = { … }")
	c.Flags().StringVar(&f.hostname, "hostname", "", "host name of the instance; default its name")
	c.Flags().BoolVar(&f.start, "start", false, "start it")
	c.MarkFlagRequired("to")
	return c
}

func (a *app) clone(ctx context.Context, ref, name string, f *cloneFlags) error {
	platform, place, ok := strings.Cut(f.to, ":")
	if !ok || place == "" {
		return badInput(fmt.Errorf("--to %q: not PLATFORM:PLACE, such as dir:/srv/isc", f.to))
	}
	site, err := readSite(f.site)
	if err != nil {
		return badInput(err)
	}
	if f.hostname != "" {
		site.Hostname = f.hostname
	}
	if err := host.CheckName(name); err != nil {
		return badInput(err)
	}
	h, err := a.host(ctx, f.state)
	if err != nil {
		return err
	}
	m, err := a.acquire(ctx, h, ref, platform, f.trust)
	if err != nil {
		return err
	}
	in, notes, err := h.Clone(ctx, host.CloneRequest{Image: m.Digest, Name: name, Platform: platform, Place: place, Site: site})
	if err != nil {
		return err
	}
	for _, n := range notes {
		a.notef("%s: %s\n", name, n)
	}
	if f.start {
		if _, err := h.Start(ctx, name); err != nil {
			return err
		}
	}
	a.printf("%s\n", filepath.Join(in.Place, in.Name))
	return a.document(in)
}

// readSite reads a file of site values.
func readSite(name string) (host.Site, error) {
	var site struct {
		Hostname string            `hcl:"hostname,optional"`
		Values   map[string]string `hcl:"values,optional"`
	}
	if name == "" {
		return host.Site{}, nil
	}
	src, err := os.ReadFile(name)
	if err != nil {
		return host.Site{}, err
	}
	// The decoder goes by the ending of the name.
	if err := hclsimple.Decode(strings.TrimSuffix(name, filepath.Ext(name))+".hcl", src, nil, &site); err != nil {
		return host.Site{}, err
	}
	return host.Site{Hostname: site.Hostname, Values: site.Values}, nil
}
