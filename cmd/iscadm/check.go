package main

import (
	"context"
	"errors"
	"runtime"

	"github.com/dustin/go-humanize"
	"github.com/spf13/cobra"

	"github.com/goldenisc/packer-plugin-isc/host"
)

type checkFlags struct {
	state            stateFlag
	all, full, learn bool
	jobs             int
	disk             diskFlags
}

func newCheck(a *app) *cobra.Command {
	var f checkFlags
	c := &cobra.Command{
		Use:   "check NAME…|-a|REF --disk FILE",
		Short: "Compare instances, or disks of virtual machines, with their images; exit with 3 on drift",
		Long: `Compare instances with the content manifests of their images, or the disk of a
virtual machine with the image that it is of: partition table, EFI system
partition, root and hash tree of a Linux guest, or all of a captured disk. The
machine must be off. The status is 0 if nothing has changed, 3 if something has,
the image is not verified, or its release has expired or was revoked, and 4 if it
cannot be found out: start the machine only on 0.`,
		RunE: func(c *cobra.Command, args []string) error {
			switch {
			case len(f.disk.disks) > 0:
				return a.checkDisks(c.Context(), args, &f)
			case f.disk.set():
				return badInput(errors.New("check: --key, --policy, --unsigned, --format and --artifact go with --disk"))
			}
			return a.check(c.Context(), args, &f)
		},
	}
	f.state.flags(c)
	fl := c.Flags()
	fl.BoolVarP(&f.all, "all", "a", false, "all instances")
	fl.BoolVar(&f.full, "full", false, "read the content of every file, whatever its times say")
	fl.BoolVar(&f.learn, "learn", false, "print the mutable block that would make the findings expected")
	fl.IntVarP(&f.jobs, "jobs", "j", runtime.GOMAXPROCS(0), "read `N` files at a time")
	f.disk.flags(c)
	return c
}

// A checkDocument is one element of what check --json prints.
type checkDocument struct {
	Name   string `json:"name"`
	Status string `json:"status"` // clean, drift, unknown, failed
	Error  string `json:"error,omitempty"`
	// Nobody's signature vouches for the image.
	Unverified bool `json:"unverified,omitempty"`
	*host.Report
}

func (a *app) check(ctx context.Context, args []string, f *checkFlags) error {
	h, err := a.host(ctx, f.state)
	if err != nil {
		return err
	}
	names, err := named(h, args, f.all)
	if err != nil {
		return err
	}
	status := 0
	docs := []checkDocument{}
	for _, name := range names {
		doc, s := a.checkOne(ctx, h, name, f)
		docs = append(docs, doc)
		status = worst(status, s)
	}
	if err := a.document(docs); err != nil {
		return err
	}
	return answer(status)
}

// unverified says whether the image of an instance was taken without asking for a signature.
func unverified(h *host.Host, name string) (bool, error) {
	s, err := h.View()
	if err != nil {
		return false, err
	}
	in := s.Instance(name)
	return in != nil && s.Image(in.Image).Unsigned, nil
}

func (a *app) checkOne(ctx context.Context, h *host.Host, name string, f *checkFlags) (checkDocument, int) {
	r, err := h.Check(ctx, name, host.CheckMode{Full: f.full, Jobs: f.jobs})
	if err != nil {
		a.report(err)
		return checkDocument{Name: name, Status: "failed", Error: err.Error()}, statusOf(err)
	}
	doc := checkDocument{Name: name, Status: "clean", Report: r}
	if doc.Unverified, err = unverified(h, name); err != nil {
		a.report(err)
		return checkDocument{Name: name, Status: "failed", Error: err.Error()}, statusOf(err)
	}
	if doc.Unverified {
		a.notef("%s: its image is not verified: nobody's signature was asked for\n", name)
	}
	status := 0
	for _, x := range r.Findings {
		a.printf("%s: %s\n", name, x)
		if x.Kind == host.Unread {
			status = worst(status, statusUnknown)
		} else {
			status = worst(status, statusNo)
		}
	}
	for _, p := range r.Restored {
		a.printf("%s: put back %q\n", name, p)
	}
	if r.More > 0 {
		a.printf("%s: and %d more\n", name, r.More)
	}
	switch status {
	case statusNo:
		doc.Status = "drift"
	case statusUnknown:
		doc.Status = "unknown"
	}
	if !a.quiet {
		a.printf("%s: %s: %d entries, %d files read (%s)\n", name, doc.Status, r.Entries, r.Hashed, humanize.IBytes(uint64(r.Bytes)))
	}
	if f.learn {
		a.printf("%s", host.Learn(r.Findings))
	}
	return doc, status
}
