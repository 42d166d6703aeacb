package main

import (
	"context"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"strings"

	"github.com/hashicorp/hcl/v2/hclsimple"
	"github.com/spf13/cobra"

	"github.com/goldenisc/packer-plugin-isc/host"
	"github.com/goldenisc/packer-plugin-isc/profiles"
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
			name, place, _ := strings.Cut(platform, ":")
			if err := checkPlace(name, place); err != nil {
				return badInput(err)
			}
			h, err := a.host(c.Context(), s)
			if err != nil {
				return err
			}
			m, err := a.acquire(c.Context(), h, args[0], copyPlace(name, place), trust)
			if err != nil {
				return err
			}
			a.printf("%s\n", m.Digest)
			return a.document(m)
		},
	}
	s.flags(c)
	trust.flags(c)
	c.Flags().StringVar(&platform, "platform", "dir", "what its instances will be made on: `PLATFORM`, or zfs:POOL/DATASET")
	return c
}

type cloneFlags struct {
	state          stateFlag
	trust          acquireFlags
	to             string
	site, hostname string
	net            []string
	start          bool
}

func newClone(a *app) *cobra.Command {
	var f cloneFlags
	c := &cobra.Command{
		Use:   "clone REF NAME --to PLATFORM:PLACE",
		Short: "Make an instance of an image, which is imported first",
		Long: `Make an instance of an image. The platform dir makes a folder PLACE/NAME, in
which root is the file system of the instance, by copying or, where the file
system can, by sharing blocks. The platform zfs makes datasets PLACE/NAME below
the dataset PLACE, by zfs(8): on this host, POOL/DATASET, or by SSH on another
one, where nothing is installed, ssh://[USER@]HOST[:PORT]/POOL/DATASET, with
?jump=[USER@]HOST,… for hosts to go through and &key=FILE for a key.`,
		Args: cobra.ExactArgs(2),
		RunE: func(c *cobra.Command, args []string) error {
			return a.clone(c.Context(), args[0], args[1], &f)
		},
	}
	f.state.flags(c)
	f.trust.flags(c)
	c.Flags().StringVar(&f.to, "to", "", "where to: `PLATFORM:PLACE`, such as dir:/srv/isc or zfs:tank/isc")
	c.Flags().StringVar(&f.site, "site", "", "`FILE` with site values: hostname = \"…\", values = { … }")
	c.Flags().StringVar(&f.hostname, "hostname", "", "host name of the instance; default its name")
	c.Flags().StringArrayVar(&f.net, "net", nil, "a value of its network, for iscadm dock: `NAME=VALUE`, such as address=10.80.0.11/24 (repeatable)")
	c.Flags().BoolVar(&f.start, "start", false, "start it")
	c.MarkFlagRequired("to")
	return c
}

func (a *app) clone(ctx context.Context, ref, name string, f *cloneFlags) error {
	platform, place, ok := strings.Cut(f.to, ":")
	if !ok || place == "" {
		return badInput(fmt.Errorf("--to %q: not PLATFORM:PLACE, such as dir:/srv/isc", f.to))
	}
	if err := checkPlace(platform, place); err != nil {
		return badInput(err)
	}
	site, err := readSite(f.site)
	if err != nil {
		return badInput(err)
	}
	if f.hostname != "" {
		site.Hostname = f.hostname
	}
	if err := networkValues(&site, f.net); err != nil {
		return badInput(err)
	}
	if err := host.CheckName(name); err != nil {
		return badInput(err)
	}
	h, err := a.host(ctx, f.state)
	if err != nil {
		return err
	}
	m, err := a.acquire(ctx, h, ref, copyPlace(platform, place), f.trust)
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
	where := filepath.Join(in.Place, in.Name)
	if placer(platform) != nil {
		where = in.Place + " " + in.Name
	}
	a.printf("%s\n", where)
	return a.document(in)
}

// networkValues adds the values of --net to the site's, and checks those that the files of a dock are
// filled with. Others are the platform's.
func networkValues(site *host.Site, net []string) error {
	given, err := pairs(net)
	if err != nil {
		return fmt.Errorf("--net: %w", err)
	}
	for name, value := range given {
		if err := profiles.CheckToken(name, value); err != nil {
			return fmt.Errorf("--net: %w", err)
		}
	}
	values := maps.Clone(site.Values)
	if values == nil && len(given) > 0 {
		values = map[string]string{}
	}
	maps.Copy(values, given)
	for _, t := range profiles.Tokens {
		if v, ok := values[t.Name]; ok {
			if err := profiles.CheckToken(t.Name, v); err != nil {
				return fmt.Errorf("site values: %w", err)
			}
		}
	}
	site.Values = values
	return nil
}

// placer returns the platform if its golden copies are where its instances are.
func placer(platform string) host.Placer {
	p, _ := host.Platforms[platform].(host.Placer)
	return p
}

func checkPlace(platform, place string) error {
	if p := placer(platform); p != nil {
		return p.CheckPlace(place)
	}
	return nil
}

// copyPlace is what an image is imported for.
func copyPlace(platform, place string) string {
	if placer(platform) != nil {
		return platform + ":" + place
	}
	return platform
}

func newUpgrade(a *app) *cobra.Command {
	var s stateFlag
	var trust acquireFlags
	var force bool
	c := &cobra.Command{
		Use:   "upgrade NAME REF",
		Short: "Put another image under an instance; volumes stay",
		Long: `Put another version of its image, newer or older, under an instance. The root is
made anew with the same site values; volumes stay, the scratch is gone, and so is
what the instance wrote elsewhere. An image that is not on the host is pulled
first, by an increment if it has one from an image that is.`,
		Args: cobra.ExactArgs(2),
		RunE: func(c *cobra.Command, args []string) error {
			ctx := c.Context()
			h, err := a.host(ctx, s)
			if err != nil {
				return err
			}
			state, err := h.View()
			if err != nil {
				return err
			}
			in := state.Instance(args[0])
			if in == nil {
				return fmt.Errorf("upgrade %q: no such instance", args[0])
			}
			if err := a.confirm(force, "upgrade "+args[0]); err != nil {
				return err
			}
			m, err := a.acquire(ctx, h, args[1], copyPlace(in.Platform, in.Place), trust)
			if err != nil {
				return err
			}
			if err := h.Upgrade(ctx, args[0], m.Digest); err != nil {
				return err
			}
			a.printf("%s: %s %s\n", args[0], m.Name, m.Version)
			return a.document(m)
		},
	}
	s.flags(c)
	trust.flags(c)
	c.Flags().BoolVarP(&force, "force", "F", false, "do not ask")
	return c
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
