package main

import (
	"context"
	"fmt"
	"io/fs"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/goldenisc/packer-plugin-isc/host"
)

type listFlags struct {
	state        stateFlag
	bare, parse  bool
	fields, what string
}

func newList(a *app) *cobra.Command {
	var f listFlags
	c := &cobra.Command{
		Use:   "list",
		Short: "List instances, images or snapshots",
		Args:  cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			return a.list(c.Context(), &f)
		},
	}
	f.state.flags(c)
	fl := c.Flags()
	fl.BoolVarP(&f.bare, "no-header", "H", false, "no header")
	fl.BoolVarP(&f.parse, "parsable", "p", false, "for scripts: fields divided by colons, in which : and \\ are escaped by \\")
	fl.StringVarP(&f.fields, "output", "o", "", "`FIELDS` to print, divided by commas")
	fl.StringVarP(&f.what, "type", "t", "instance", "instance, image or snapshot")
	return c
}

// A table is what list can print: the fields, those printed by default first, and the rows.
type table struct {
	fields  []string
	shown   int
	rows    [][]string
	objects any
}

func (a *app) list(ctx context.Context, f *listFlags) error {
	h, err := a.host(ctx, f.state)
	if err != nil {
		return err
	}
	s, err := h.View()
	if err != nil {
		return err
	}
	var t table
	switch f.what {
	case "instance":
		t = instanceTable(s)
	case "image":
		t = imageTable(s)
	case "snapshot":
		t = snapshotTable(s)
	default:
		return badInput(fmt.Errorf("-t %q is none of instance, image and snapshot", f.what))
	}
	if a.json {
		return a.document(t.objects)
	}
	columns, err := t.columns(f.fields)
	if err != nil {
		return badInput(err)
	}
	return a.printTable(t, columns, f)
}

// columns returns the indexes of the fields to print.
func (t *table) columns(fields string) ([]int, error) {
	var list []int
	if fields == "" {
		for i := range t.shown {
			list = append(list, i)
		}
		return list, nil
	}
	for name := range strings.SplitSeq(fields, ",") {
		i := slices.Index(t.fields, name)
		if i < 0 {
			return nil, fmt.Errorf("-o: no field %q, only %s", name, strings.Join(t.fields, ","))
		}
		list = append(list, i)
	}
	return list, nil
}

func (a *app) printTable(t table, columns []int, f *listFlags) error {
	w := tabwriter.NewWriter(a.out, 0, 8, 2, ' ', 0)
	end := "\t"
	pick := func(row []string, escape func(string) string) string {
		var cells []string
		for _, i := range columns {
			cells = append(cells, escape(row[i]))
		}
		return strings.Join(cells, end)
	}
	if f.parse {
		end = ":"
		escape := strings.NewReplacer(`\`, `\\`, `:`, `\:`).Replace
		for _, row := range t.rows {
			a.printf("%s\n", pick(row, escape))
		}
		return nil
	}
	if !f.bare {
		fmt.Fprintln(w, pick(t.fields, strings.ToUpper))
	}
	for _, row := range t.rows {
		fmt.Fprintln(w, pick(row, func(s string) string {
			if s == "" {
				return "-"
			}
			return printable(s)
		}))
	}
	return w.Flush()
}

func day(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return t.UTC().Format(time.RFC3339)
}

func instanceTable(s *host.State) table {
	t := table{fields: []string{"name", "status", "image", "version", "platform", "place", "digest", "created", "reset"}, shown: 6}
	type object struct {
		host.Instance
		Status string `json:"status"`
	}
	objects := []object{}
	for _, in := range s.Instances {
		m := s.Image(in.Image)
		objects = append(objects, object{in, in.Status()})
		t.rows = append(t.rows, []string{in.Name, in.Status(), m.Name, m.Version, in.Platform, in.Place, in.Image, day(in.Created), day(in.Reset)})
	}
	t.objects = objects
	return t
}

func imageTable(s *host.State) table {
	t := table{fields: []string{"name", "version", "os", "arch", "digest", "imported", "signed", "expires", "revoked"}, shown: 5}
	for _, m := range s.Images {
		signed := "no"
		if !m.Unsigned {
			signed = "yes"
		}
		t.rows = append(t.rows, []string{m.Name, m.Version, m.OS, m.Arch, m.Digest, day(m.Imported), signed, day(m.Expires), m.Revoked})
	}
	t.objects = append([]host.Image{}, s.Images...)
	return t
}

func snapshotTable(s *host.State) table {
	t := table{fields: []string{"name", "created"}, shown: 2}
	type object struct {
		Name    string    `json:"name"`
		Created time.Time `json:"created"`
	}
	objects := []object{}
	for _, in := range s.Instances {
		for _, p := range in.Snapshots {
			t.rows = append(t.rows, []string{in.Name + "@" + p.Name, day(p.Created)})
			objects = append(objects, object{in.Name + "@" + p.Name, p.Created})
		}
	}
	t.objects = objects
	return t
}

func newShow(a *app) *cobra.Command {
	var s stateFlag
	c := &cobra.Command{
		Use:   "show NAME",
		Short: "Show an instance",
		Args:  cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			h, err := a.host(c.Context(), s)
			if err != nil {
				return err
			}
			return a.show(h, args[0])
		},
	}
	s.flags(c)
	return c
}

func (a *app) show(h *host.Host, name string) error {
	s, err := h.View()
	if err != nil {
		return err
	}
	in := s.Instance(name)
	if in == nil {
		return fmt.Errorf("show %q: no such instance: %w", name, fs.ErrNotExist)
	}
	m := s.Image(in.Image)
	row := func(key, value string) {
		if value != "" {
			a.printf("%-10s %s\n", key, value)
		}
	}
	row("instance", in.Name)
	row("status", in.Status())
	row("image", m.Name+" "+m.Version)
	row("digest", m.Digest)
	if m.Unsigned {
		row("signed", "no")
	}
	row("revoked", m.Revoked)
	row("place", in.Platform+":"+in.Place)
	row("hostname", in.Site.Hostname)
	row("created", day(in.Created))
	row("reset", day(in.Reset))
	if in.Process != nil {
		row("process", fmt.Sprint(in.Process.PID))
		row("log", in.Process.Log)
	}
	for _, p := range in.Snapshots {
		row("snapshot", p.Name+" "+day(p.Created))
	}
	return a.document(map[string]any{"instance": in, "image": m, "status": in.Status()})
}
