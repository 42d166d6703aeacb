package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/goldenisc/packer-plugin-isc/host"
)

func newReset(a *app) *cobra.Command {
	var s stateFlag
	var all, force, keep bool
	c := &cobra.Command{
		Use:   "reset NAME…|-a",
		Short: "Put instances back into their golden state; volumes stay",
		RunE: func(c *cobra.Command, args []string) error {
			h, err := a.host(c.Context(), s)
			if err != nil {
				return err
			}
			names, err := named(h, args, all)
			if err != nil {
				return err
			}
			if err := a.confirm(force, "reset "+strings.Join(names, ", ")); err != nil {
				return err
			}
			return a.each(names, func(name string) error {
				evidence, err := h.Reset(c.Context(), name, keep)
				if err == nil && evidence != "" {
					a.printf("%s: kept as %s\n", name, evidence)
				}
				return err
			})
		},
	}
	s.flags(c)
	c.Flags().BoolVarP(&all, "all", "a", false, "all instances")
	c.Flags().BoolVarP(&force, "force", "F", false, "do not ask")
	c.Flags().BoolVar(&keep, "keep", false, "keep what the instance was, as evidence")
	return c
}

func newSnapshot(a *app) *cobra.Command {
	return snapshotVerb("snapshot", "Keep the state of an instance under a name", false, a,
		func(ctx context.Context, h *host.Host, name, snap string) error { return h.Snapshot(ctx, name, snap) })
}

func newRollback(a *app) *cobra.Command {
	return snapshotVerb("rollback", "Put an instance back into the state of a snapshot", true, a,
		func(ctx context.Context, h *host.Host, name, snap string) error { return h.Rollback(ctx, name, snap) })
}

func snapshotVerb(verb, short string, destroys bool, a *app, do func(context.Context, *host.Host, string, string) error) *cobra.Command {
	var s stateFlag
	var force bool
	c := &cobra.Command{
		Use:   verb + " NAME@SNAP",
		Short: short,
		Args:  cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			name, snap, ok := strings.Cut(args[0], "@")
			if !ok {
				return badInput(fmt.Errorf("%q is not NAME@SNAP", args[0]))
			}
			h, err := a.host(c.Context(), s)
			if err != nil {
				return err
			}
			if destroys {
				if err := a.confirm(force, verb+" "+args[0]); err != nil {
					return err
				}
			}
			return do(c.Context(), h, name, snap)
		},
	}
	s.flags(c)
	if destroys {
		c.Flags().BoolVarP(&force, "force", "F", false, "do not ask")
	}
	return c
}

func newDestroy(a *app) *cobra.Command {
	var s stateFlag
	var force bool
	c := &cobra.Command{
		Use:   "destroy NAME…|NAME@SNAP…",
		Short: "Remove instances with their volumes, or snapshots",
		Args:  cobra.MinimumNArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			h, err := a.host(c.Context(), s)
			if err != nil {
				return err
			}
			if err := a.confirm(force, "destroy "+strings.Join(args, ", ")); err != nil {
				return err
			}
			return a.each(args, func(arg string) error {
				if name, snap, ok := strings.Cut(arg, "@"); ok {
					return h.Forget(c.Context(), name, snap)
				}
				return h.Destroy(c.Context(), arg)
			})
		},
	}
	s.flags(c)
	c.Flags().BoolVarP(&force, "force", "F", false, "do not ask")
	return c
}

func newPrune(a *app) *cobra.Command {
	var s stateFlag
	c := &cobra.Command{
		Use:   "prune",
		Short: "Remove the images that no instance is made of, and what pulls that were given up left",
		Args:  cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			h, err := a.host(c.Context(), s)
			if err != nil {
				return err
			}
			gone, err := h.Prune(c.Context())
			for _, m := range gone {
				a.printf("%s %s %s\n", m.Digest, m.Name, m.Version)
			}
			if err != nil {
				return err
			}
			if err := removeOld(stagingDir(h), time.Now().Add(-givenUp)); err != nil {
				return err
			}
			return a.document(append([]host.Image{}, gone...))
		},
	}
	s.flags(c)
	return c
}

// givenUp is how long nothing was added to a pull that nobody goes on with.
const givenUp = 24 * time.Hour

// removeOld removes what is in a folder and was not changed since.
func removeOld(dir string, since time.Time) error {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	for _, e := range entries {
		info, e2 := e.Info()
		if e2 == nil && info.ModTime().Before(since) {
			err = errors.Join(err, os.RemoveAll(filepath.Join(dir, e.Name())))
		}
	}
	return err
}
