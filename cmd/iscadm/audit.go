package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/goldenisc/packer-plugin-isc/builder"
	"github.com/goldenisc/packer-plugin-isc/host"
	"github.com/goldenisc/packer-plugin-isc/image"
	"github.com/goldenisc/packer-plugin-isc/internal/evidence"
	"github.com/goldenisc/packer-plugin-isc/internal/remote"
	"github.com/goldenisc/packer-plugin-isc/profiles"
	"github.com/goldenisc/packer-plugin-isc/provisioner"
	"github.com/goldenisc/packer-plugin-isc/registry"
)

// controlFlags say which controls.
type controlFlags struct {
	profile string
	set     []string
	as      string
}

func (f *controlFlags) flags(c *cobra.Command) {
	c.Flags().StringVar(&f.profile, "profile", "", "`PROFILE` that is built in, or the name of a profile file; default what an image was built to, else "+builder.DefaultProfile)
	c.Flags().StringArrayVar(&f.set, "set", nil, "a parameter: `NAME=VALUE` (repeatable)")
	c.Flags().StringVar(&f.as, "as", "", "put `COMMAND` in front of every command on a machine, such as \"sudo -n\" or pfexec")
}

// selection is the profile for an operating system, or, if no profile is named, what the report of an
// image, which may be nil, says that the image was held to.
func (f *controlFlags) selection(system string, recorded *profiles.Report) (*profiles.Selection, error) {
	set, err := pairs(f.set)
	if err != nil {
		return nil, badInput(fmt.Errorf("--set: %w", err))
	}
	if f.profile == "" && recorded != nil && recorded.OS == system {
		s, err := recorded.Selection(set)
		return s, badInput(err)
	}
	p, err := f.load()
	if err != nil {
		return nil, err
	}
	s, err := p.Select(system, set, nil)
	return s, badInput(err)
}

func (f *controlFlags) load() (*profiles.Profile, error) {
	if !strings.HasSuffix(f.profile, ".hcl") {
		p, err := profiles.Load(cmp.Or(f.profile, builder.DefaultProfile))
		return p, badInput(err)
	}
	src, err := os.ReadFile(f.profile)
	if err != nil {
		return nil, fmt.Errorf("profile: %w", err)
	}
	p, diags := profiles.Parse(f.profile, src)
	if diags.HasErrors() {
		return nil, diags
	}
	return p, nil
}

// A machine is one that runs: this one, or one that is connected to.
type machine struct {
	remote.Runner
	dir  string // of the root; empty is /
	done func() error
	// again makes another connection, if there is one.
	again func(context.Context) (remote.Runner, func() error, error)
}

// machine connects to a machine, if root names one: ssh://…, or local: for this one. Else it returns nil.
func (f *controlFlags) machine(ctx context.Context, root string) (*machine, error) {
	as := strings.Fields(f.as)
	if root == "local:" {
		return &machine{Runner: provisioner.As(remote.Local{}, as...), done: func() error { return nil }}, nil
	}
	if !strings.HasPrefix(root, "ssh://") {
		return nil, nil
	}
	target, dir, err := remote.ParseTarget(root)
	if err != nil {
		return nil, badInput(err)
	}
	dial := func(ctx context.Context) (remote.Runner, func() error, error) {
		client, err := remote.Dial(ctx, target, remote.Options{})
		if err != nil {
			return nil, nil, err
		}
		return provisioner.As(client, as...), client.Close, nil
	}
	r, done, err := dial(ctx)
	if err != nil {
		return nil, err
	}
	return &machine{Runner: r, dir: dir, done: done, again: dial}, nil
}

// auditFlags say what is audited, and how the report is written.
type auditFlags struct {
	controlFlags
	state    stateFlag
	system   string
	format   string
	recorded bool
}

func newAudit(a *app) *cobra.Command {
	var f auditFlags
	c := &cobra.Command{
		Use:   "audit ROOT",
		Short: "Check the controls of a profile on a root, an image or a machine",
		Long: `Check the controls of a profile on a root: dir:PATH, tar:PATH, zfs:PATH, a
reference to an image, instance:NAME, ssh://[USER@]HOST[:PORT] or local:, which is
this machine. Nothing is changed. An image and its instances are held to the
controls, parameters and waivers that the image was built with, unless --profile
names others. With --recorded, show the report that an image was built with; a
waiver that has ended since is a finding. Exit with 3 if a control does not hold.`,
		Args: cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error { return a.audit(c.Context(), args[0], &f) },
	}
	f.flags(c)
	f.state.flags(c)
	c.Flags().StringVar(&f.system, "os", "", "`OS` of the root, if it does not say so itself: illumos, solaris or linux")
	c.Flags().StringVar(&f.format, "format", "text", "`FORMAT` of the report: text, json, "+strings.Join(evidence.Formats(), ", "))
	c.Flags().BoolVar(&f.recorded, "recorded", false, "the report that an image holds instead of a new audit")
	for _, name := range []string{"profile", "set", "os", "as"} {
		c.MarkFlagsMutuallyExclusive("recorded", name)
	}
	return c
}

func (a *app) audit(ctx context.Context, root string, f *auditFlags) error {
	switch {
	case f.format == "json":
		a.json = true
	case f.format == "text":
	case !slices.Contains(evidence.Formats(), f.format):
		return badInput(fmt.Errorf("--format %q is none of text, json, %s", f.format, strings.Join(evidence.Formats(), ", ")))
	case a.json:
		return badInput(fmt.Errorf("--json and --format %s exclude each other", f.format))
	}
	now := time.Now()
	report, err := a.auditReport(ctx, root, f, now)
	if err != nil {
		return err
	}
	if f.format == "text" || f.format == "json" {
		a.controls(report)
		err = a.document(report)
	} else {
		err = evidence.Write(a.out, f.format, report, evidence.Subject{Root: root, Version: buildVersion(), Date: now})
	}
	if err != nil {
		return err
	}
	if n := report.Count(profiles.Fail); n > 0 {
		return answer(statusNo)
	}
	return nil
}

// auditReport returns the report that an image holds, or that of an audit.
func (a *app) auditReport(ctx context.Context, root string, f *auditFlags, now time.Time) (*profiles.Report, error) {
	if !f.recorded {
		if name, ok := strings.CutPrefix(root, "instance:"); ok {
			return a.auditInstance(ctx, name, f, now)
		}
		return a.auditRoot(ctx, root, f.system, nil, &f.controlFlags, now)
	}
	m, store, err := a.open(ctx, root)
	if err != nil {
		return nil, err
	}
	defer store.Close()
	report, err := readReport(ctx, m)
	if err != nil {
		return nil, err
	}
	return report.At(now), nil
}

// auditInstance audits the root of an instance, which is of the system of its image.
func (a *app) auditInstance(ctx context.Context, name string, f *auditFlags, now time.Time) (report *profiles.Report, err error) {
	h, err := a.host(ctx, f.state)
	if err != nil {
		return nil, err
	}
	err = h.Root(ctx, name, func(dir string, g *host.Golden) error {
		var recorded *profiles.Report
		switch data, err := g.Report(); {
		case errors.Is(err, fs.ErrNotExist):
			if f.profile == "" {
				a.notef("%s: this host does not know what its image was held to: it is held to %s\n", name, builder.DefaultProfile)
			}
		case err != nil:
			return err
		default:
			if recorded, err = profiles.ParseReport(data); err != nil {
				return err
			}
		}
		report, err = a.auditRoot(ctx, "dir:"+dir, cmp.Or(f.system, g.Config.OS), recorded, &f.controlFlags, now)
		return err
	})
	return report, err
}

// auditRoot audits a root, which may be of an image that recorded is the report of.
func (a *app) auditRoot(ctx context.Context, root, system string, recorded *profiles.Report, f *controlFlags, now time.Time) (*profiles.Report, error) {
	m, err := f.machine(ctx, root)
	if err != nil {
		return nil, err
	}
	if m != nil {
		defer m.done()
		if system == "" {
			if system, err = provisioner.System(ctx, m); err != nil {
				return nil, err
			}
		}
		s, err := f.selection(system, nil)
		if err != nil {
			return nil, err
		}
		return provisioner.Audit(ctx, m, s, provisioner.Options{Root: m.dir, Today: now})
	}
	if recorded == nil {
		is := ""
		if is, recorded, err = a.recordedOf(ctx, root); err != nil {
			return nil, err
		}
		system = cmp.Or(system, is)
	}
	spec := &builder.Spec{
		Image: &builder.Image{OS: system, Arch: runtime.GOARCH}, Base: &builder.Base{Source: root}, Dir: ".",
	}
	t, _, err := builder.OpenBase(ctx, spec, builder.BuildOptions{PlainHTTP: a.plainHTTP, Progress: a.progress()})
	if err != nil {
		return nil, err
	}
	defer t.Close()
	if system == "" {
		facts, err := builder.Inspect(t)
		if err != nil {
			return nil, err
		}
		if system = facts.OS; system == "" {
			return nil, badInput(fmt.Errorf("audit %q: it does not say which operating system it is: use --os", root))
		}
	}
	s, err := f.selection(system, recorded)
	if err != nil {
		return nil, err
	}
	return profiles.Audit(t, s, now)
}

// recordedOf is what one of our images says of itself: its system, and the report it was built with. Of
// others' it is linux, of what is no image nothing.
func (a *app) recordedOf(ctx context.Context, root string) (system string, report *profiles.Report, err error) {
	loc, err := builder.ParseSource(root, ".")
	if err != nil {
		return "", nil, badInput(fmt.Errorf("audit %q: %w", root, err))
	}
	if loc.Ref.Place == "" {
		return "", nil, nil
	}
	store, err := registry.Open(ctx, loc.Ref, a.registry())
	if err != nil {
		return "", nil, err
	}
	defer store.Close()
	m, err := registry.ReadImage(ctx, store, cmp.Or(loc.Ref.Digest, loc.Ref.Tag))
	if err != nil {
		return profiles.Linux, nil, nil // one of others'
	}
	if report, err = readReport(ctx, m); err != nil {
		return "", nil, err
	}
	return m.Config.OS, report, nil
}

// controls prints a report: what does not hold with all findings, and a line for everything else.
func (a *app) controls(r *profiles.Report) {
	for _, c := range r.Controls {
		a.printf("%-4s %-15s %s\n", c.ID, c.Status, c.Title)
		ended := c.Status == profiles.Fail && c.Until != "" // the reason was that of its waiver
		if c.Reason != "" && !ended && (c.Status != profiles.NotApplicable || a.verbose) {
			a.printf("     %s\n", c.Reason)
		}
		if c.Status != profiles.Fail && !a.verbose {
			continue
		}
		for _, f := range c.Findings {
			a.printf("     %s\n", f)
		}
	}
}

func newHarden(a *app) *cobra.Command {
	var f controlFlags
	var h hardenFlags
	c := &cobra.Command{
		Use:   "harden ROOT",
		Short: "Apply the controls of a profile to a machine or a folder",
		Long: `Apply the controls of a profile to a running machine, ssh://[USER@]HOST[:PORT] or
local:, or to the root in a folder, dir:PATH. What only images can be, such as
sealed, is left out. What is replaced is saved first, and put back if anything
fails; --undo puts it back later. Exit with 3 if a control does not hold that
no edit can make hold.`,
		Args: cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error { return a.harden(c.Context(), args[0], &f, &h) },
	}
	f.flags(c)
	h.state.flags(c)
	c.Flags().BoolVar(&h.dryRun, "dry-run", false, "show what would be changed, and change nothing")
	c.Flags().StringVar(&h.backup, "backup", "", "save what is replaced in `FILE`; default a new one below the state folder")
	c.Flags().StringVar(&h.undo, "undo", "", "put back what `FILE` holds, instead")
	c.MarkFlagsMutuallyExclusive("undo", "dry-run")
	return c
}

type hardenFlags struct {
	state        stateFlag
	dryRun       bool
	backup, undo string
}

func (a *app) harden(ctx context.Context, root string, f *controlFlags, h *hardenFlags) error {
	m, err := f.machine(ctx, root)
	if err != nil {
		return err
	}
	system := ""
	if m == nil {
		m = &machine{Runner: provisioner.As(remote.Local{}, strings.Fields(f.as)...), done: func() error { return nil }}
		if m.dir, system, err = folder(ctx, root); err != nil {
			return err
		}
	} else if system, err = provisioner.System(ctx, m); err != nil {
		return errors.Join(err, m.done())
	}
	defer m.done()
	o := provisioner.Options{Root: m.dir, Today: time.Now().UTC().Truncate(time.Second), Reconnect: m.again}
	if h.undo != "" {
		return a.undo(ctx, m, system, h.undo, o)
	}
	s, err := f.selection(system, nil)
	if err != nil {
		return err
	}
	if h.dryRun {
		changes, err := provisioner.Plan(ctx, m, s, o)
		if err != nil {
			return err
		}
		if !a.json {
			if err := provisioner.Diff(a.out, changes); err != nil {
				return err
			}
		}
		a.lasting(m.dir, changes)
		return a.document(map[string]any{"changes": namesOf(changes)})
	}
	saved := ""
	o.Save = func(b *profiles.Backup, changes []profiles.Change) (err error) {
		a.lasting(m.dir, changes)
		saved, err = h.save(root, b, o.Today)
		return err
	}
	changes, report, err := provisioner.Harden(ctx, m, system, s, o)
	if saved != "" {
		a.notef("what was replaced is in %s: --undo %s puts it back\n", saved, saved)
	}
	if err != nil {
		return err
	}
	a.notef("%d objects changed\n", len(changes))
	a.controls(report)
	if err := a.document(map[string]any{"changes": namesOf(changes), "backup": saved, "report": report}); err != nil {
		return err
	}
	if report.Count(profiles.Fail) > 0 {
		return answer(statusNo)
	}
	return nil
}

// lasting says what cannot be taken back of a root that runs, before it is done.
func (a *app) lasting(dir string, changes []profiles.Change) {
	if dir != "" && dir != "/" {
		return
	}
	for _, what := range provisioner.Lasting(changes) {
		a.notef("until the next start, also after --undo: %s\n", what)
	}
}

// folder returns the root in a folder, and the system that it says it is.
func folder(ctx context.Context, root string) (dir, system string, err error) {
	path, ok := strings.CutPrefix(root, "dir:")
	if !ok {
		return "", "", badInput(fmt.Errorf("harden %q: neither ssh://HOST, local: nor dir:PATH: to make an image of something else, build one", root))
	}
	if dir, err = filepath.Abs(path); err != nil {
		return "", "", err
	}
	t, err := image.ReadDir(ctx, dir, image.Options{})
	if err != nil {
		return "", "", err
	}
	facts, err := builder.Inspect(t)
	if err = errors.Join(err, t.Close()); err != nil {
		return "", "", err
	}
	if facts.OS == "" {
		return "", "", badInput(fmt.Errorf("harden %q: it does not say which operating system it is", root))
	}
	return dir, facts.OS, nil
}

func namesOf(changes []profiles.Change) []string {
	list := []string{}
	for _, c := range changes {
		list = append(list, c.Name)
	}
	return list
}

// save writes a backup, which holds secrets, to a new file.
func (h *hardenFlags) save(root string, b *profiles.Backup, at time.Time) (string, error) {
	data, err := b.Marshal()
	if err != nil {
		return "", err
	}
	name := h.backup
	if name == "" {
		dir, err := h.state.path()
		if err != nil {
			return "", err
		}
		dir = filepath.Join(dir, "backups")
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return "", err
		}
		host := strings.Map(func(r rune) rune {
			if r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || r == '.' || r == '-' {
				return r
			}
			return '_'
		}, root)
		name = filepath.Join(dir, at.Format("20060102T150405Z")+"-"+host+".json")
	}
	if _, err := os.Lstat(name); err == nil {
		return "", badInput(fmt.Errorf("backup %q exists", name))
	}
	return name, writeFile(name, 0o600, bytesTo(data))
}

// undo puts a backup back.
func (a *app) undo(ctx context.Context, r remote.Runner, system, name string, o provisioner.Options) error {
	data, err := os.ReadFile(name)
	if err != nil {
		return err
	}
	b, err := profiles.ParseBackup(data)
	if err != nil {
		return badInput(fmt.Errorf("%q: %w", name, err))
	}
	if err := provisioner.Undo(ctx, r, system, b, o); err != nil {
		return err
	}
	a.notef("%d objects put back\n", len(b.Names()))
	return a.document(map[string]any{"restored": b.Names()})
}
