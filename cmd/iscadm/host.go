package main

import (
	"cmp"
	"context"
	"errors"
	"os"
	"time"

	"github.com/spf13/cobra"

	"github.com/goldenisc/packer-plugin-isc/host"
)

// stateFlag is shared by the verbs that use this host's state.
type stateFlag struct{ dir string }

func (s *stateFlag) flags(c *cobra.Command) {
	c.Flags().StringVar(&s.dir, "state", "", "`FOLDER` of this host's state; default $ISCADM_STATE, for root /var/lib/iscadm, else below $XDG_STATE_HOME")
}

// path is the state folder.
func (s stateFlag) path() (string, error) {
	if dir := cmp.Or(s.dir, os.Getenv("ISCADM_STATE")); dir != "" {
		return dir, nil
	}
	return host.DefaultDir()
}

// host opens the state folder.
func (a *app) host(ctx context.Context, s stateFlag) (*host.Host, error) {
	dir, err := s.path()
	if err != nil {
		return nil, err
	}
	h, err := host.Open(ctx, dir)
	if err != nil {
		return nil, err
	}
	for _, line := range h.Recovered {
		a.notef("recovered: %s\n", line)
	}
	h.Progress = a.progress()
	return h, nil
}

func newStart(a *app) *cobra.Command {
	var s stateFlag
	c := &cobra.Command{
		Use:   "start NAME…",
		Short: "Start the service of instances",
		Args:  cobra.MinimumNArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			h, err := a.host(c.Context(), s)
			if err != nil {
				return err
			}
			return a.each(args, func(name string) error {
				p, err := h.Start(c.Context(), name)
				switch {
				case err != nil:
					return err
				case p == nil:
					a.printf("%s: mounted\n", name)
				default:
					a.printf("%s: process %d, log %s\n", name, p.PID, p.Log)
				}
				return nil
			})
		},
	}
	s.flags(c)
	return c
}

func newStop(a *app) *cobra.Command {
	var s stateFlag
	var timeout time.Duration
	c := &cobra.Command{
		Use:   "stop NAME…",
		Short: "Stop the service of instances",
		Args:  cobra.MinimumNArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			h, err := a.host(c.Context(), s)
			if err != nil {
				return err
			}
			return a.each(args, func(name string) error { return h.Stop(c.Context(), name, timeout) })
		},
	}
	s.flags(c)
	c.Flags().DurationVar(&timeout, "timeout", host.StopTimeout, "how long it may take to end before it is killed")
	return c
}

// each runs f for every name, reports what fails and goes on.
func (a *app) each(names []string, f func(string) error) error {
	status := 0
	for _, name := range names {
		if err := f(name); err != nil {
			if len(names) == 1 {
				return err
			}
			if e := a.report(err); e != nil {
				return e
			}
			status = worst(status, statusOf(err))
		}
	}
	return answer(status)
}

// named returns the instances that are meant: those named, or all.
func named(h *host.Host, args []string, all bool) ([]string, error) {
	if all == (len(args) > 0) {
		return nil, badInput(errors.New("name instances, or -a for all of them"))
	}
	if !all {
		return args, nil
	}
	s, err := h.View()
	if err != nil {
		return nil, err
	}
	var names []string
	for _, in := range s.Instances {
		names = append(names, in.Name)
	}
	return names, nil
}
