package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/dustin/go-humanize"
	"github.com/spf13/cobra"

	"github.com/goldenisc/packer-plugin-isc/builder"
	"github.com/goldenisc/packer-plugin-isc/image"
	"github.com/goldenisc/packer-plugin-isc/internal/sbom"
	"github.com/goldenisc/packer-plugin-isc/profiles"
	"github.com/goldenisc/packer-plugin-isc/registry"
)

// open finds one of our images by reference. The caller closes the store.
func (a *app) open(ctx context.Context, name string) (*registry.Image, registry.Store, error) {
	ref, err := registry.Parse(name)
	if err != nil {
		return nil, nil, badInput(err)
	}
	store, err := registry.Open(ctx, ref, a.registry())
	if err != nil {
		return nil, nil, err
	}
	version := ref.Digest
	if version == "" {
		version = ref.Tag
	}
	m, err := registry.ReadImage(ctx, store, version)
	if err != nil {
		return nil, nil, errors.Join(err, store.Close())
	}
	return m, store, nil
}

// maxEvidence bounds what is read into memory of reports and the like, in bytes.
const maxEvidence = 64 << 20

// read returns the verified bytes of a small artifact.
func read(ctx context.Context, m *registry.Image, artifact string) ([]byte, error) {
	r, err := m.Open(ctx, artifact)
	if err != nil {
		return nil, err
	}
	defer r.Close()
	data, err := io.ReadAll(io.LimitReader(r, maxEvidence+1))
	if err != nil {
		return nil, fmt.Errorf("artifact %q: %w", artifact, err)
	}
	if len(data) > maxEvidence {
		return nil, fmt.Errorf("artifact %q: more than %d bytes", artifact, maxEvidence)
	}
	return data, nil
}

// readContent returns the content manifest of an image.
func readContent(ctx context.Context, m *registry.Image) (*image.Content, error) {
	mtree, err := m.Open(ctx, "content")
	if err != nil {
		return nil, err
	}
	defer mtree.Close()
	objects, err := m.Open(ctx, "objects")
	if err != nil {
		return nil, err
	}
	defer objects.Close()
	return image.ReadContent(mtree, objects)
}

func readReport(ctx context.Context, m *registry.Image) (*profiles.Report, error) {
	data, err := read(ctx, m, "report")
	if err != nil {
		return nil, err
	}
	return profiles.ParseReport(data)
}

func readDock(ctx context.Context, m *registry.Image) (*profiles.Dock, error) {
	data, err := read(ctx, m, "dock/requirements")
	if err != nil {
		return nil, err
	}
	return profiles.ParseDock(data)
}

func newInspect(a *app) *cobra.Command {
	var f inspectFlags
	c := &cobra.Command{
		Use:   "inspect REF",
		Short: "Show what an image holds, what was checked of it, its releases and signatures",
		Args:  cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			return a.inspect(c.Context(), args[0], &f)
		},
	}
	f.flags(c)
	c.Flags().BoolVar(&f.packages, "packages", false, "list all packages, not only how many there are")
	return c
}

// An inspectDocument is what inspect --json prints.
type inspectDocument struct {
	Digest    string `json:"digest"`
	Reference string `json:"reference"`
	*image.Config
	Report *profiles.Report `json:"report"`
	Dock   *profiles.Dock   `json:"dock"`

	Packages []sbom.Package `json:"packages"`
	Releases *saidDocument  `json:"releases"`
}

func (a *app) inspect(ctx context.Context, name string, f *inspectFlags) error {
	m, store, err := a.open(ctx, name)
	if err != nil {
		return err
	}
	defer store.Close()
	report, err := readReport(ctx, m)
	if err != nil {
		return err
	}
	dock, err := readDock(ctx, m)
	if err != nil {
		return err
	}
	packages, err := builder.Packages(ctx, m)
	if err != nil {
		return err
	}
	said, err := a.said(ctx, store, name, m, f)
	if err != nil {
		return err
	}
	if a.json {
		return a.document(&inspectDocument{m.Digest(), name, m.Config, report, dock, append([]sbom.Package{}, packages...), said})
	}
	c := m.Config
	row := func(key, format string, args ...any) {
		if v := fmt.Sprintf(format, args...); strings.TrimSpace(v) != "" {
			a.printf("%-12s %s\n", key, v)
		}
	}
	row("image", "%s %s", c.Name, c.Version)
	row("digest", "%s", m.Digest())
	row("platform", "%s/%s", c.OS, c.Arch)
	row("built", "%s", c.Created.Format("2006-01-02 15:04:05 MST"))
	row("base", "%s", c.Base.Source)
	row("", "%s", c.Base.Digest)
	row("", "%s", c.Base.Release)
	for _, s := range c.Services {
		row("service", "%s", s.ID)
		row("", "%s", s.Exec)
		user := s.User
		if user == "" {
			user = "root"
		}
		row("", "as %s%s", user, listening(s.Listen))
		if s.Health != "" {
			row("", "health %s", s.Health)
		}
	}
	if c.Scratch != "" {
		row("scratch", "%s, encrypted, its key dies at shutdown", c.Scratch)
	}
	for _, v := range c.Volumes {
		row("volume", "%s %s", v.Path, size(v.Size))
	}
	for _, r := range c.Mutable {
		row("mutable", "%s: %s", r.Rule, strings.Join(r.Paths, " "))
	}
	a.inspectExposure(report)
	for _, line := range dock.Summary() {
		row("dock", "%s", line)
	}
	for _, name := range slices.Sorted(maps.Keys(dock.Files)) {
		row("dock", "file       %s", name)
	}
	a.inspectPackages(packages, f.packages)
	a.inspectSaid(said)
	a.printf("artifacts\n")
	for _, art := range c.Artifacts {
		more := ""
		if art.UncompressedSize > 0 {
			more = " from " + size(art.UncompressedSize)
		}
		if art.From != "" {
			more += ", increment from " + art.From
		}
		a.printf("  %-20s %10s%s  %s\n", art.Name, size(art.Size), more, art.Digest)
	}
	if m.Runnable != nil {
		a.printf("  %-20s %10s  %s\n", "(runnable)", "", m.Runnable.Digest)
	}
	return nil
}

func listening(ports []string) string {
	if len(ports) == 0 {
		return ""
	}
	return ", listens on " + strings.Join(ports, ", ")
}

func size(n int64) string {
	if n == 0 {
		return ""
	}
	return humanize.IBytes(uint64(n))
}

func newExport(a *app) *cobra.Command {
	var out string
	c := &cobra.Command{
		Use:   "export REF ARTIFACT [-o FILE]",
		Short: "Write one artifact's bytes, verified",
		Long: `Write one artifact's bytes, verified: one of those that inspect lists, or a file of
the dock requirements, such as dock/ipf.conf.`,
		Args: cobra.ExactArgs(2),
		RunE: func(c *cobra.Command, args []string) error {
			return a.export(c.Context(), args[0], args[1], out)
		},
	}
	c.Flags().StringVarP(&out, "output", "o", "", "write to `FILE`; default stdout")
	return c
}

func (a *app) export(ctx context.Context, name, artifact, out string) error {
	m, store, err := a.open(ctx, name)
	if err != nil {
		return err
	}
	defer store.Close()
	art := m.Config.Artifact(artifact)
	if art == nil {
		return a.exportDockFile(ctx, m, artifact, out)
	}
	r, err := m.Open(ctx, artifact)
	if err != nil {
		return err
	}
	defer r.Close()
	if out == "" {
		// What a pipe is given cannot be taken back: a mismatch shows in the exit status only.
		if _, ok := terminal(a.out); ok && binaryType(art.MediaType) {
			return badInput(errors.New("export: not written to a terminal: use -o FILE"))
		}
		_, err = io.Copy(a.out, r)
		return err
	}
	err = writeFile(out, 0o666, func(w io.Writer) error {
		_, err := io.Copy(w, r)
		return err
	})
	if err != nil {
		return fmt.Errorf("export %q: %w", artifact, err)
	}
	return nil
}

// exportDockFile writes one of the files in the dock requirements, such as dock/ipf.conf.
func (a *app) exportDockFile(ctx context.Context, m *registry.Image, artifact, out string) error {
	var names []string
	for _, art := range m.Config.Artifacts {
		names = append(names, art.Name)
	}
	file, ok := strings.CutPrefix(artifact, "dock/")
	if ok && slices.Contains(names, "dock/requirements") {
		dock, err := readDock(ctx, m)
		if err != nil {
			return err
		}
		for _, name := range slices.Sorted(maps.Keys(dock.Files)) {
			if name != file {
				names = append(names, "dock/"+name)
				continue
			}
			if out == "" {
				_, err := io.WriteString(a.out, dock.Files[name])
				return err
			}
			if err := writeFile(out, 0o666, bytesTo([]byte(dock.Files[name]))); err != nil {
				return fmt.Errorf("export %q: %w", artifact, err)
			}
			return nil
		}
	}
	return badInput(fmt.Errorf("the image has no artifact %q, only %s", artifact, strings.Join(names, ", ")))
}

func binaryType(mediaType string) bool {
	return strings.HasPrefix(mediaType, image.TypeZone) || strings.HasPrefix(mediaType, image.TypeZFS) || strings.HasPrefix(mediaType, image.TypeZFSMap)
}

func newDiff(a *app) *cobra.Command {
	return &cobra.Command{
		Use:   "diff REF REF",
		Short: "Show what differs between two images; exit with 3 if anything does",
		Args:  cobra.ExactArgs(2),
		RunE: func(c *cobra.Command, args []string) error {
			return a.diff(c.Context(), args[0], args[1])
		},
	}
}

// A difference is one line of diff: what kind of thing, which, and how it differs.
type difference struct {
	Kind string `json:"kind"` // file, profile, set, waiver, control, service, boot, set-id, dock, package
	Name string `json:"name"`
	How  string `json:"how"` // added, removed, or what has changed
}

func (a *app) diff(ctx context.Context, old, now string) error {
	var diffs []difference
	var images [2]*registry.Image
	var contents [2]*image.Content
	var reports [2]*profiles.Report
	var docks [2]*profiles.Dock
	var packages [2][]sbom.Package
	for i, name := range []string{old, now} {
		m, store, err := a.open(ctx, name)
		if err != nil {
			return err
		}
		defer store.Close()
		images[i] = m
		if contents[i], err = readContent(ctx, m); err != nil {
			return err
		}
		if reports[i], err = readReport(ctx, m); err != nil {
			return err
		}
		reports[i] = reports[i].At(time.Now())
		if docks[i], err = readDock(ctx, m); err != nil {
			return err
		}
		if packages[i], err = builder.Packages(ctx, m); err != nil {
			return err
		}
	}
	diffs = append(diffs, diffServices(images[0].Config, images[1].Config)...)
	diffs = append(diffs, diffExposure(reports[0], reports[1])...)
	diffs = append(diffs, diffDocks(docks[0], docks[1])...)
	diffs = append(diffs, diffHeld(reports[0], reports[1])...)
	diffs = append(diffs, diffControls(reports[0], reports[1])...)
	diffs = append(diffs, diffPackages(packages[0], packages[1])...)
	diffs = append(diffs, diffFiles(contents[0], contents[1])...)
	for _, d := range diffs {
		a.printf("%-8s %-30s %s\n", d.Kind, d.Name, d.How)
	}
	if err := a.document(map[string]any{"from": images[0].Digest(), "to": images[1].Digest(), "differences": append([]difference{}, diffs...)}); err != nil {
		return err
	}
	if len(diffs) > 0 {
		return answer(statusNo)
	}
	return nil
}

func diffServices(old, now *image.Config) []difference {
	var diffs []difference
	find := func(c *image.Config, name string) *image.Service {
		for i := range c.Services {
			if c.Services[i].Name == name {
				return &c.Services[i]
			}
		}
		return nil
	}
	for _, s := range old.Services {
		switch n := find(now, s.Name); {
		case n == nil:
			diffs = append(diffs, difference{"service", s.Name, "removed"})
		case n.Exec != s.Exec || n.User != s.User || n.Health != s.Health:
			diffs = append(diffs, difference{"service", s.Name, fmt.Sprintf("%s as %s → %s as %s", s.Exec, s.User, n.Exec, n.User)})
		case !slices.Equal(n.Listen, s.Listen):
			diffs = append(diffs, difference{"service", s.Name, fmt.Sprintf("listens on %v → %v", s.Listen, n.Listen)})
		}
	}
	for _, s := range now.Services {
		if find(old, s.Name) == nil {
			diffs = append(diffs, difference{"service", s.Name, "added" + listening(s.Listen)})
		}
	}
	return diffs
}

func diffControls(old, now *profiles.Report) []difference {
	var diffs []difference
	status := func(r *profiles.Report) map[string]profiles.Status {
		m := map[string]profiles.Status{}
		for _, c := range r.Controls {
			m[c.ID] = c.Status
		}
		return m
	}
	before, after := status(old), status(now)
	for _, c := range old.Controls {
		if s, ok := after[c.ID]; !ok {
			diffs = append(diffs, difference{"control", c.ID, "removed"})
		} else if s != c.Status {
			diffs = append(diffs, difference{"control", c.ID, fmt.Sprintf("%s → %s", c.Status, s)})
		}
	}
	for _, c := range now.Controls {
		if _, ok := before[c.ID]; !ok {
			diffs = append(diffs, difference{"control", c.ID, "added"})
		}
	}
	return diffs
}

func diffFiles(old, now *image.Content) []difference {
	var diffs []difference
	for e := range old.All() {
		n := now.Lookup(e.Name)
		if n == nil {
			diffs = append(diffs, difference{"file", e.Name, "removed"})
		} else if how := changed(e, n); how != "" {
			diffs = append(diffs, difference{"file", e.Name, how})
		}
	}
	for e := range now.All() {
		if old.Lookup(e.Name) == nil {
			diffs = append(diffs, difference{"file", e.Name, "added"})
		}
	}
	slices.SortStableFunc(diffs, func(a, b difference) int { return image.Compare(a.Name, b.Name) })
	return diffs
}

// changed says what differs between two entries of one name, the time alone not counting.
func changed(old, now *image.Entry) string {
	var what []string
	if old.Type() != now.Type() {
		return image.TypeName(old.Mode) + " → " + image.TypeName(now.Mode)
	}
	if old.Perm() != now.Perm() {
		what = append(what, fmt.Sprintf("mode %04o → %04o", old.Perm(), now.Perm()))
	}
	if old.UID != now.UID || old.GID != now.GID {
		what = append(what, fmt.Sprintf("owner %d:%d → %d:%d", old.UID, old.GID, now.UID, now.GID))
	}
	if old.Target != now.Target {
		what = append(what, fmt.Sprintf("target %q → %q", old.Target, now.Target))
	}
	if old.Rdev != now.Rdev {
		what = append(what, "device number")
	}
	if old.Digest != now.Digest {
		what = append(what, fmt.Sprintf("content (%d → %d bytes)", old.Size, now.Size))
	}
	if old.HardLink != now.HardLink {
		what = append(what, "hard links")
	}
	for k, v := range old.Xattrs {
		if w, ok := now.Xattrs[k]; !ok || !bytes.Equal(v, w) {
			what = append(what, "attribute "+k)
		}
	}
	for k := range now.Xattrs {
		if _, ok := old.Xattrs[k]; !ok {
			what = append(what, "attribute "+k)
		}
	}
	slices.Sort(what)
	return strings.Join(what, ", ")
}
