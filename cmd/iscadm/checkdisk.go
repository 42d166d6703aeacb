package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/dustin/go-humanize"
	"github.com/spf13/cobra"

	"github.com/goldenisc/packer-plugin-isc/host"
	"github.com/goldenisc/packer-plugin-isc/internal/hcltext"
	"github.com/goldenisc/packer-plugin-isc/ovf"
	"github.com/goldenisc/packer-plugin-isc/registry"
	"github.com/goldenisc/packer-plugin-isc/signing"
)

// diskFlags say which disks of machines are compared with an image, and what vouches for that.
type diskFlags struct {
	trustFlags
	disks            []string
	format, artifact string
	unsigned         bool
}

func (f *diskFlags) flags(c *cobra.Command) {
	fl := c.Flags()
	fl.StringArrayVar(&f.disks, "disk", nil, "compare the disk of a virtual machine, a `FILE` or device, with the image REF (repeatable)")
	fl.StringVar(&f.format, "format", "", "`FORMAT` that the hypervisor has the disk in: raw, qcow2, vmdk, vdi, vhd; default by the suffix of its name, else raw")
	fl.StringVar(&f.artifact, "artifact", "", "the disk is that of the artifact `NAME`; default any of the image")
	unsignedFlag(c, &f.unsigned)
	f.trustFlags.flags(c)
	for _, other := range []string{"all", "full", "learn", "jobs"} {
		c.MarkFlagsMutuallyExclusive("disk", other)
	}
}

// set tells whether flags are given that say nothing without a disk.
func (f *diskFlags) set() bool {
	return f.format != "" || f.artifact != "" || f.unsigned || f.policy != "" || len(f.keys) > 0
}

// A diskDocument is one element of what check --disk --json prints.
type diskDocument struct {
	Name   string `json:"name"` // as it was given
	Image  string `json:"image"`
	Status string `json:"status"` // clean, drift, unknown, failed
	Error  string `json:"error,omitempty"`
	// Nobody's signature vouches for the image.
	Unverified bool `json:"unverified,omitempty"`
	*host.DiskReport
}

// checkDisks compares disks with an image.
func (a *app) checkDisks(ctx context.Context, args []string, f *checkFlags) error {
	if len(args) != 1 {
		return badInput(errors.New("check: with --disk, name the image that it is of, by its reference"))
	}
	format := ovf.Format(f.disk.format)
	if format != "" && !slices.Contains(host.DiskFormats, format) {
		var names []string
		for _, n := range host.DiskFormats {
			names = append(names, string(n))
		}
		return badInput(fmt.Errorf("format %q is not known: %q.%s", format, names, hcltext.Suggest(f.disk.format, names)))
	}
	m, store, err := a.open(ctx, args[0])
	if err != nil {
		return err
	}
	defer store.Close()
	findings, unverified, err := a.vouchedDisk(ctx, args[0], m, store, f)
	if err != nil {
		return err
	}
	disks, err := host.ReadDisks(ctx, m.Config, m, f.disk.artifact)
	if err != nil {
		return noDisk(err)
	}
	status := 0
	docs := []diskDocument{}
	for _, name := range f.disk.disks {
		doc := diskDocument{Name: name, Image: m.Digest(), Status: "clean", Unverified: unverified}
		s := a.checkDisk(ctx, disks, format, findings, &doc)
		docs = append(docs, doc)
		status = worst(status, s)
	}
	if err := a.document(docs); err != nil {
		return err
	}
	return answer(status)
}

// noDisk makes an error the caller's if it is that there is nothing to compare.
func noDisk(err error) error {
	if errors.Is(err, host.ErrDisk) {
		return badInput(err)
	}
	return err
}

// vouchedDisk verifies an image that disks are compared with. It is in use, so that its release has
// expired, or was revoked, is a finding about each disk, as about an instance.
func (a *app) vouchedDisk(ctx context.Context, name string, m *registry.Image, store registry.Store, f *checkFlags) ([]host.Finding, bool, error) {
	unverified, err := a.trusted(ctx, name, m, store, f.state, &f.disk.trustFlags, f.disk.unsigned)
	var refused *signing.Error
	if errors.As(err, &refused) {
		switch refused.Reason {
		case signing.ReasonExpired, signing.ReasonAge:
			return []host.Finding{{Path: "/", Kind: host.Expired, What: refused.Error()}}, false, nil
		case signing.ReasonRevoked:
			return []host.Finding{{Path: "/", Kind: host.Revoked, What: refused.Error()}}, false, nil
		}
	}
	return nil, unverified, err
}

// checkDisk compares one disk, and completes what is told of it.
func (a *app) checkDisk(ctx context.Context, disks *host.Disks, format ovf.Format, findings []host.Finding, doc *diskDocument) int {
	r, err := disks.Check(ctx, doc.Name, format, a.progress())
	if err = noDisk(err); err != nil {
		a.report(err)
		doc.Status, doc.Error = "failed", err.Error()
		return statusOf(err)
	}
	doc.DiskReport = r
	r.Findings = append(append([]host.Finding{}, findings...), r.Findings...)
	status := 0
	for _, x := range r.Findings {
		a.printf("%s: %s\n", doc.Name, x)
		if x.Kind == host.Unread {
			status = worst(status, statusUnknown)
		} else {
			status = worst(status, statusNo)
		}
	}
	switch status {
	case statusNo:
		doc.Status = "drift"
	case statusUnknown:
		doc.Status = "unknown"
	}
	if r.Looks != "" {
		a.notef("%s: it was read as raw, but looks like %s: say --format %s if that is what the hypervisor reads it as\n", doc.Name, r.Looks, r.Looks)
	}
	if !a.quiet {
		of := ""
		if len(r.Artifacts) > 0 {
			of = " of " + strings.Join(r.Artifacts, ", ")
		}
		a.printf("%s: %s: %s disk%s (%s read)\n", doc.Name, doc.Status, r.Format, of, humanize.IBytes(uint64(r.Bytes)))
	}
	return status
}
