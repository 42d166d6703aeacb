package main

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/dustin/go-humanize"
	"github.com/hashicorp/hcl/v2/hclsimple"
	"github.com/spf13/cobra"

	"github.com/goldenisc/packer-plugin-isc/host"
	"github.com/goldenisc/packer-plugin-isc/image"
	"github.com/goldenisc/packer-plugin-isc/registry"
)

// stateFlag is shared by the verbs that use this host's state.
type stateFlag struct{ dir string }

func (s *stateFlag) flags(c *cobra.Command) {
	c.Flags().StringVar(&s.dir, "state", "", "`FOLDER` of this host's state; default $ISCADM_STATE, for root /var/lib/iscadm, else below $XDG_STATE_HOME")
}

// host opens the state folder.
func (a *app) host(ctx context.Context, s stateFlag) (*host.Host, error) {
	dir := cmp.Or(s.dir, os.Getenv("ISCADM_STATE"))
	if dir == "" {
		var err error
		if dir, err = host.DefaultDir(); err != nil {
			return nil, err
		}
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

// acquire finds an image, makes sure that it may be used and imports it for a platform.
//
// What comes from a registry or an archive is first copied into a layout below the state folder,
// where a cut-off copy goes on the next time, and each blob is used only after all of it was
// verified: neither a parser nor a system call ever sees bytes that somebody is still sending.
func (a *app) acquire(ctx context.Context, h *host.Host, name, platform string, trust trustFlags) (*host.Image, error) {
	ref, err := registry.Parse(name)
	if err != nil {
		return nil, badInput(err)
	}
	if err := trust.check(ref); err != nil {
		return nil, err
	}
	m, store, err := a.open(ctx, name)
	if err != nil {
		return nil, err
	}
	defer store.Close()
	state, err := h.View()
	if err != nil {
		return nil, err
	}
	if old := state.Image(m.Digest()); old != nil && slices.Contains(old.Platforms, platform) {
		return old, nil
	}
	layout, ok := store.(*registry.Layout)
	if !ok {
		dir := filepath.Join(h.Dir(), "staging", strings.TrimPrefix(m.Digest(), "sha256:"))
		if layout, err = a.stage(ctx, ref, m.Digest(), dir); err != nil {
			return nil, err
		}
		defer os.RemoveAll(dir)
	}
	a.notef("%s %s: no signature was asked for\n", m.Config.Name, m.Config.Version)
	return h.Import(ctx, platform, &host.Verified{
		Digest: m.Digest(), Config: m.Config, Source: staged{layout, m.Config}, Unsigned: true, Progress: a.progress(),
	})
}

// stage copies an image into a layout.
func (a *app) stage(ctx context.Context, ref registry.Ref, digest, dir string) (*registry.Layout, error) {
	ref.Tag, ref.Digest = "", digest
	to := registry.Ref{Place: registry.InLayout, Path: dir, Tag: "staged"}
	if _, err := registry.Copy(ctx, ref, to, registry.Options{Progress: a.progress()}); err != nil {
		return nil, err
	}
	return registry.OpenLayout(dir)
}

// staged hands out the artifacts of an image as files of a layout that were verified on the very
// descriptor they are read from.
type staged struct {
	layout *registry.Layout
	config *image.Config
}

func (s staged) Open(_ context.Context, artifact string) (io.ReadCloser, error) {
	a := s.config.Artifact(artifact)
	if a == nil {
		return nil, fmt.Errorf("artifact %q: %w", artifact, fs.ErrNotExist)
	}
	f, err := s.layout.Open(a.Digest)
	if err != nil {
		return nil, err
	}
	h := sha256.New()
	n, err := io.Copy(h, f)
	if sum := "sha256:" + hex.EncodeToString(h.Sum(nil)); err == nil && (n != a.Size || sum != a.Digest) {
		err = fmt.Errorf("artifact %q: %w: %d bytes %s, not %d bytes %s", artifact, registry.ErrMismatch, n, sum, a.Size, a.Digest)
	}
	if err == nil {
		_, err = f.Seek(0, io.SeekStart)
	}
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}

// trustFlags say what vouches for an image.
type trustFlags struct{ unsigned bool }

func (t *trustFlags) flags(c *cobra.Command) {
	c.Flags().BoolVar(&t.unsigned, "unsigned", false, "take an image from a registry that nobody has signed, at your own risk")
}

// check refuses what is not the caller's own: a folder or file of this machine is.
func (t *trustFlags) check(ref registry.Ref) error {
	if ref.Place == registry.InRegistry && !t.unsigned {
		return &statusError{statusNo, fmt.Errorf("%s: not verified: nothing says whose signature to accept (--unsigned takes it as it is)", ref)}
	}
	return nil
}

func newPull(a *app) *cobra.Command {
	var s stateFlag
	var trust trustFlags
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
	trust          trustFlags
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
				if err == nil {
					a.printf("%s: process %d, log %s\n", name, p.PID, p.Log)
				}
				return err
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

type checkFlags struct {
	state            stateFlag
	all, full, learn bool
	jobs             int
}

func newCheck(a *app) *cobra.Command {
	var f checkFlags
	c := &cobra.Command{
		Use:   "check NAME…|-a",
		Short: "Compare instances with the content manifests of their images; exit with 3 on drift",
		RunE: func(c *cobra.Command, args []string) error {
			return a.check(c.Context(), args, &f)
		},
	}
	f.state.flags(c)
	fl := c.Flags()
	fl.BoolVarP(&f.all, "all", "a", false, "all instances")
	fl.BoolVar(&f.full, "full", false, "read the content of every file, whatever its times say")
	fl.BoolVar(&f.learn, "learn", false, "print the mutable block that would make the findings expected")
	fl.IntVarP(&f.jobs, "jobs", "j", runtime.GOMAXPROCS(0), "read `N` files at a time")
	return c
}

// A checkDocument is one element of what check --json prints.
type checkDocument struct {
	Name   string `json:"name"`
	Status string `json:"status"` // clean, drift, unknown, failed
	Error  string `json:"error,omitempty"`
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

func (a *app) checkOne(ctx context.Context, h *host.Host, name string, f *checkFlags) (checkDocument, int) {
	r, err := h.Check(ctx, name, host.CheckMode{Full: f.full, Jobs: f.jobs})
	if err != nil {
		a.report(err)
		return checkDocument{Name: name, Status: "failed", Error: err.Error()}, statusOf(err)
	}
	doc := checkDocument{Name: name, Status: "clean", Report: r}
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
		Short: "Remove the images that no instance is made of",
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
			return a.document(append([]host.Image{}, gone...))
		},
	}
	s.flags(c)
	return c
}

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
