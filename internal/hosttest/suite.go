package hosttest

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/goldenisc/packer-plugin-isc/host"
	"github.com/goldenisc/packer-plugin-isc/image"
)

// A Suite is what the conformance tests need to know of a platform.
type Suite struct {
	Platform string
	Place    string // where instances can be made
	Root     func(in *host.Instance) string
	// Image makes the images; default [Image].
	Image func(t testing.TB, c *image.Config, files []File) *host.Verified
	// Volumes says that volumes are file systems of their own, whose mount points nobody can remove.
	Volumes bool
}

// where is what images are imported for.
func (s Suite) where() string {
	if _, ok := host.Platforms[s.Platform].(host.Placer); ok {
		return s.Platform + ":" + s.Place
	}
	return s.Platform
}

// Host opens a host in a fresh state folder.
func Host(t testing.TB) *host.Host {
	t.Helper()
	h, err := host.Open(t.Context(), t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	return h
}

// Run runs the conformance tests.
func (s Suite) Run(t *testing.T) {
	for _, test := range []struct {
		name string
		f    func(*testing.T, *host.Host, *host.Instance)
	}{
		{"Clean", s.clean},
		{"Drift", s.drift},
		{"Reset", s.reset},
		{"Rules", s.rules},
		{"Volume", s.volume},
		{"Snapshot", s.snapshot},
		{"Destroy", s.destroy},
	} {
		t.Run(test.name, func(t *testing.T) {
			h := Host(t)
			if s.Image == nil {
				s.Image = Image
			}
			v := s.Image(t, Config(), Small())
			if _, err := h.Import(t.Context(), s.where(), v); err != nil {
				t.Fatal(err)
			}
			in, _, err := h.Clone(t.Context(), host.CloneRequest{
				Image: v.Digest, Name: "web01", Platform: s.Platform, Place: s.Place,
			})
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { h.Destroy(t.Context(), "web01") }) //nolint:errcheck // some tests have done so
			test.f(t, h, in)
		})
	}
}

// Findings checks the instance and returns its findings as text.
func Findings(t testing.TB, h *host.Host, name string, full bool) []string {
	t.Helper()
	r, err := h.Check(t.Context(), name, host.CheckMode{Full: full})
	if err != nil {
		t.Fatal(err)
	}
	found := []string{}
	for _, f := range r.Findings {
		found = append(found, f.String())
	}
	return found
}

// expect checks the instance both ways.
func expect(t *testing.T, h *host.Host, name string, want ...string) {
	t.Helper()
	for _, full := range []bool{false, true} {
		if got := Findings(t, h, name, full); !slices.Equal(got, append([]string{}, want...)) {
			t.Errorf("full %v: findings\n%s\nwant\n%s", full, strings.Join(got, "\n"), strings.Join(want, "\n"))
		}
	}
}

func (s Suite) clean(t *testing.T, h *host.Host, in *host.Instance) {
	expect(t, h, "web01")
	if got := read(t, s.path(in, "etc/hostname")); got != "web01\n" {
		t.Errorf("hostname is %q", got)
	}
	r, err := h.Check(t.Context(), "web01", host.CheckMode{})
	if err != nil {
		t.Fatal(err)
	}
	if r.Entries < 20 {
		t.Errorf("looked at %d entries", r.Entries)
	}
	_, _, err = h.Clone(t.Context(), host.CloneRequest{Image: in.Image, Name: "web01", Platform: s.Platform, Place: s.Place})
	if !errors.Is(err, fs.ErrExist) {
		t.Errorf("a second clone of the same name: %v", err)
	}
	expect(t, h, "web01")
}

func (s Suite) path(in *host.Instance, name string) string {
	return filepath.Join(s.Root(in), filepath.FromSlash(name))
}

func read(t *testing.T, path string) string {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

func write(t *testing.T, path, data string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(data), 0o644); err != nil {
		t.Fatal(err)
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// tamper makes one of every kind of drift, and returns what check must find.
func (s Suite) tamper(t *testing.T, in *host.Instance) []string {
	write(t, s.path(in, "etc/hostname"), "other\n")
	must(t, os.Remove(s.path(in, "etc/mtab")))
	must(t, os.Symlink("/etc/passwd", s.path(in, "etc/mtab")))
	info, err := os.Stat(s.path(in, "etc/passwd"))
	must(t, err)
	write(t, s.path(in, "etc/passwd"), "evil:x:0:0::/:/bin/sh\n"[:info.Size()])
	must(t, os.Chtimes(s.path(in, "etc/passwd"), info.ModTime(), info.ModTime()))
	must(t, os.Mkdir(s.path(in, "opt"), 0o755))
	write(t, s.path(in, "opt/new"), "")
	must(t, os.Remove(s.path(in, "usr/bin/b")))
	write(t, s.path(in, "usr/bin/b"), "#!/bin/sh\n")
	must(t, os.Chmod(s.path(in, "usr/bin/b"), 0o555))
	must(t, os.Chmod(s.path(in, "usr/empty"), 0o666))
	must(t, os.Remove(s.path(in, "usr/big")))
	must(t, os.Mkdir(s.path(in, "usr/big"), 0o755))
	must(t, os.Remove(s.path(in, "usr/new\nline")))
	must(t, os.Truncate(s.path(in, "var/log/messages"), 2))
	return []string{
		`changed "/etc/hostname": content`,
		`changed "/etc/mtab": target "../proc/self/mounts" → "/etc/passwd"`,
		`changed "/etc/passwd": content`,
		`added "/opt": directory`,
		`changed "/usr/big": type file → directory`,
		`changed "/usr/bin/a": hard links 2 → 1`,
		`changed "/usr/bin/b": hard links 2 → 1`,
		`changed "/usr/empty": mode 0644 → 0666`,
		`removed "/usr/new\nline": file`,
		`changed "/var/log/messages": content, size 6 → 2`,
	}
}

func (s Suite) drift(t *testing.T, h *host.Host, in *host.Instance) {
	expect(t, h, "web01", s.tamper(t, in)...)
}

func (s Suite) reset(t *testing.T, h *host.Host, in *host.Instance) {
	s.tamper(t, in)
	if _, err := h.Reset(t.Context(), "web01", false); err != nil {
		t.Fatal(err)
	}
	expect(t, h, "web01")
	write(t, s.path(in, "etc/evil"), "")
	if _, err := h.Reset(t.Context(), "web01", true); err != nil {
		t.Fatal(err)
	}
	expect(t, h, "web01")
}

func (s Suite) rules(t *testing.T, h *host.Host, in *host.Instance) {
	write(t, s.path(in, "var/log/messages"), "first\nsecond\n")
	write(t, s.path(in, "var/log/new"), "")
	must(t, os.Mkdir(s.path(in, "var/cache"), 0o755))
	write(t, s.path(in, "var/cache/x"), "")
	write(t, s.path(in, "scratch/x"), "")
	write(t, s.path(in, "var/lib/web/data"), "")
	expect(t, h, "web01")
	write(t, s.path(in, "var/reset/conf"), "evil!!\n")
	write(t, s.path(in, "var/reset/more"), "")
	r, err := h.Check(t.Context(), "web01", host.CheckMode{})
	must(t, err)
	if want := []string{"/var/reset/conf", "/var/reset/more"}; !slices.Equal(r.Restored, want) || len(r.Findings) > 0 {
		t.Errorf("restored %q, findings %v", r.Restored, r.Findings)
	}
	if got := read(t, s.path(in, "var/reset/conf")); got != "golden\n" {
		t.Errorf("content after check: %q", got)
	}
	must(t, os.RemoveAll(s.path(in, "var/reset")))
	r, err = h.Check(t.Context(), "web01", host.CheckMode{})
	must(t, err)
	if len(r.Restored) != 2 || len(r.Findings) > 0 {
		t.Errorf("restored %q, findings %v", r.Restored, r.Findings)
	}
	expect(t, h, "web01")
	write(t, s.path(in, "var/log/messages"), "First\nsecond\n")
	expect(t, h, "web01", `changed "/var/log/messages": content`)
}

func (s Suite) volume(t *testing.T, h *host.Host, in *host.Instance) {
	write(t, s.path(in, "var/lib/web/data"), "kept")
	write(t, s.path(in, "scratch/x"), "gone")
	if _, err := h.Reset(t.Context(), "web01", false); err != nil {
		t.Fatal(err)
	}
	if got := read(t, s.path(in, "var/lib/web/data")); got != "kept" {
		t.Errorf("the volume has %q", got)
	}
	if _, err := os.Lstat(s.path(in, "scratch/x")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the scratch outlived reset: %v", err)
	}
	expect(t, h, "web01")
	if s.Volumes {
		return
	}
	// What the instance makes of its volume is not followed.
	outside := t.TempDir()
	write(t, filepath.Join(outside, "data"), "outside")
	must(t, os.RemoveAll(s.path(in, "var/lib")))
	must(t, os.Symlink(outside, s.path(in, "var/lib")))
	if _, err := h.Reset(t.Context(), "web01", false); err != nil {
		t.Fatal(err)
	}
	if got := read(t, filepath.Join(outside, "data")); got != "outside" {
		t.Errorf("outside the root: %q", got)
	}
	expect(t, h, "web01")
}

func (s Suite) snapshot(t *testing.T, h *host.Host, in *host.Instance) {
	if _, ok := host.Platforms[s.Platform].(host.Snapshotter); !ok {
		t.Skip("the platform has no snapshots")
	}
	ctx := t.Context()
	must(t, h.Snapshot(ctx, "web01", "clean"))
	want := s.tamper(t, in)
	must(t, h.Snapshot(ctx, "web01", "dirty"))
	must(t, h.Rollback(ctx, "web01", "clean"))
	expect(t, h, "web01")
	must(t, h.Rollback(ctx, "web01", "dirty"))
	expect(t, h, "web01", want...)
	if err := h.Snapshot(ctx, "web01", "dirty"); !errors.Is(err, fs.ErrExist) {
		t.Errorf("a second snapshot of the same name: %v", err)
	}
	if err := h.Rollback(ctx, "web01", "none"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("rollback to nothing: %v", err)
	}
	must(t, h.Forget(ctx, "web01", "dirty"))
	state, err := h.View()
	must(t, err)
	if snaps := state.Instance("web01").Snapshots; len(snaps) != 1 || snaps[0].Name != "clean" {
		t.Errorf("snapshots: %v", snaps)
	}
}

func (s Suite) destroy(t *testing.T, h *host.Host, in *host.Instance) {
	if gone, err := h.Prune(t.Context()); err != nil || len(gone) > 0 {
		t.Errorf("prune removed %v: %v", gone, err)
	}
	expect(t, h, "web01")
	must(t, h.Destroy(t.Context(), "web01"))
	if _, err := os.Lstat(s.Root(in)); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the root is still there: %v", err)
	}
	if err := h.Destroy(t.Context(), "web01"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("destroyed twice: %v", err)
	}
	if gone, err := h.Prune(t.Context()); err != nil || len(gone) != 1 {
		t.Errorf("prune removed %v: %v", gone, err)
	}
	state, err := h.View()
	must(t, err)
	if len(state.Instances)+len(state.Images) > 0 {
		t.Errorf("left in the state: %v", state)
	}
}
