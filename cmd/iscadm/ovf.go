package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"

	"github.com/dustin/go-humanize"
	"github.com/spf13/cobra"

	"github.com/goldenisc/packer-plugin-isc/internal/hcltext"
	"github.com/goldenisc/packer-plugin-isc/ovf"
)

func newOVF(a *app) *cobra.Command {
	c := &cobra.Command{
		Use:   "ovf",
		Short: "Look at virtual appliances, ours and others'",
	}
	var importers []string
	check := &cobra.Command{
		Use:   "check FILE",
		Short: "Verify an OVA, or a descriptor with its files, and say which importers refuse it and why",
		Long: "Verifies the manifest, the certificate and every grain of every disk, and says for each importer whether it\n" +
			"refuses the appliance, and why. The status is 3 if the appliance is damaged or one of the importers asked\n" +
			"about refuses it, 0 if there are warnings at most. vcsim, the simulator of vSphere, counts only if asked about.",
		Args: cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			return a.ovfCheck(c.Context(), args[0], importers)
		},
	}
	check.Flags().StringSliceVar(&importers, "importer", nil, "the `IMPORTER`s whose refusal counts (repeatable): "+importerNames())
	c.AddCommand(check)
	return c
}

func importerNames() string {
	var names []string
	for _, i := range ovf.Importers {
		names = append(names, string(i))
	}
	return strings.Join(names, ", ")
}

// A verdict is what one importer says of a package.
type verdict struct {
	Importer ovf.Importer `json:"importer"`
	Refused  bool         `json:"refused"`
	Asked    bool         `json:"asked"` // it counts for the exit status
}

func (a *app) ovfCheck(ctx context.Context, file string, importers []string) error {
	for _, name := range importers {
		if !slices.Contains(ovf.Importers, ovf.Importer(name)) {
			return badInput(fmt.Errorf("importer %q is not known: %s.%s", name, importerNames(), hcltext.Suggest(name, strings.Split(importerNames(), ", "))))
		}
	}
	r, err := ovf.Check(ctx, file)
	if path := (*fs.PathError)(nil); err != nil && ctx.Err() == nil && !errors.As(err, &path) {
		return badInput(err)
	}
	if err != nil {
		return err
	}
	status := 0
	if r.Damaged() {
		status = statusNo
	}
	var verdicts []verdict
	for _, who := range ovf.Importers {
		v := verdict{who, r.Refused(who), slices.Contains(importers, string(who)) || len(importers) == 0 && who != ovf.Vcsim}
		if v.Asked && v.Refused {
			status = statusNo
		}
		verdicts = append(verdicts, v)
	}
	a.ovfReport(file, r, verdicts)
	if err := a.document(struct {
		File string `json:"file"`
		*ovf.Report
		Damaged   bool      `json:"damaged"`
		Importers []verdict `json:"importers"`
	}{file, r, r.Damaged(), verdicts}); err != nil {
		return err
	}
	return answer(status)
}

func (a *app) ovfReport(file string, r *ovf.Report, verdicts []verdict) {
	kind := "OVF descriptor and its files"
	if r.Archive {
		kind = "OVA"
	}
	a.printf("%-12s %s (%s)\n", "appliance", file, kind)
	for _, d := range r.Disks {
		stored := humanize.IBytes(uint64(d.Populated))
		a.printf("%-12s %s: %s, %s, %s of it stored in %s\n", "disk", d.File, d.Kind, humanize.IBytes(uint64(d.Capacity)), stored, humanize.IBytes(uint64(d.Size)))
	}
	if len(r.Manifest) > 0 {
		a.printf("%-12s %s\n", "manifest", strings.Join(r.Manifest, ", "))
	}
	if s := r.Signer; s != nil {
		a.printf("%-12s %s, until %s, by a certificate that nobody here vouches for\n", "signer", s.Subject, s.NotAfter.Format("2006-01-02"))
	}
	for _, v := range verdicts {
		word := "takes it"
		if v.Refused {
			word = "refuses it"
		}
		a.printf("%-12s %s\n", v.Importer, word)
	}
	for _, f := range r.Findings {
		a.printf("%s\n", f)
	}
	if r.More {
		a.printf("… and more\n")
	}
}
