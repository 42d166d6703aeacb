//go:build unix

package host_test

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/goldenisc/packer-plugin-isc/host"
	"github.com/goldenisc/packer-plugin-isc/image"
	"github.com/goldenisc/packer-plugin-isc/internal/hosttest"
)

// instance clones an image of these files as "web01" and returns its root.
func instance(t *testing.T, h *host.Host, files []hosttest.File) (root string, notes []string) {
	t.Helper()
	v := hosttest.Image(t, hosttest.Config(), files)
	if _, err := h.Import(t.Context(), "dir", v); err != nil {
		t.Fatal(err)
	}
	in, notes, err := h.Clone(t.Context(), host.CloneRequest{Image: v.Digest, Name: "web01", Platform: "dir", Place: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { h.Destroy(t.Context(), "web01") }) //nolint:errcheck // some tests have done so
	return filepath.Join(in.Place, in.Name, "root"), notes
}

// TestHostile checks a tree whose owner does what they can.
func TestHostile(t *testing.T) {
	h := hosttest.Host(t)
	root, _ := instance(t, h, hosttest.Small())
	at := func(name string) string { return filepath.Join(root, name) }
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	outside := t.TempDir()
	must(os.WriteFile(filepath.Join(outside, "secret"), []byte("x"), 0o600))
	// A fifo in the place of a file, a directory that is a link to outside, one that leads to itself,
	// names that are hard to write, and a very deep tree.
	must(os.Remove(at("etc/passwd")))
	must(unix.Mkfifo(at("etc/passwd"), 0o644))
	must(os.Chmod(at("usr/ro"), 0o755))
	must(os.RemoveAll(at("usr/ro")))
	must(os.Symlink(outside, at("usr/ro")))
	must(os.Symlink("loop", at("loop")))
	must(os.WriteFile(at("a\nb\x1b[2J"), nil, 0o600))
	must(os.Mkdir(at("var/cache"), 0o755))
	deep, err := unix.Open(at("var/cache"), unix.O_RDONLY|unix.O_DIRECTORY, 0)
	must(err)
	for range 3000 {
		must(unix.Mkdirat(deep, "d", 0o755))
		next, err := unix.Openat(deep, "d", unix.O_RDONLY|unix.O_DIRECTORY, 0)
		must(err)
		unix.Close(deep)
		deep = next
	}
	unix.Close(deep)
	want := []string{
		`added "/a\nb\x1b[2J": file`,
		`changed "/etc/passwd": type file → fifo`,
		`added "/loop": symbolic link`,
		`changed "/usr/ro": type directory → symbolic link`,
	}
	for _, full := range []bool{false, true} {
		if got := hosttest.Findings(t, h, "web01", full); !slices.Equal(got, want) {
			t.Errorf("findings\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
		}
	}
	if _, err := h.Reset(t.Context(), "web01", false); err != nil {
		t.Fatal(err)
	}
	if got := hosttest.Findings(t, h, "web01", true); len(got) > 0 {
		t.Errorf("after reset: %q", got)
	}
	if _, err := os.Stat(filepath.Join(outside, "secret")); err != nil {
		t.Error(err)
	}
}

// TestSwap checks while the instance swaps a directory for a link to outside and back.
func TestSwap(t *testing.T) {
	h := hosttest.Host(t)
	root, _ := instance(t, h, hosttest.Small())
	outside := t.TempDir()
	if err := os.WriteFile(filepath.Join(outside, "OUTSIDE"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	stop, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		bin, away := filepath.Join(root, "usr"), filepath.Join(root, "away")
		for {
			select {
			case <-stop:
				return
			default:
			}
			if os.Rename(bin, away) == nil {
				os.Symlink(outside, bin) //nolint:errcheck // the next round tries again
				runtime.Gosched()
				os.Remove(bin) //nolint:errcheck // likewise
				os.Rename(away, bin)
			}
		}
	}()
	for i := range 30 {
		for _, f := range hosttest.Findings(t, h, "web01", i%2 == 0) {
			if strings.Contains(f, "OUTSIDE") {
				t.Error("followed a link: " + f)
			}
		}
	}
	close(stop)
	<-done
}

// TestTampered refuses archives that are not what the content manifest says.
func TestTampered(t *testing.T) {
	good := hosttest.Image(t, hosttest.Config(), hosttest.Small())
	for i, change := range []func([]hosttest.File) []hosttest.File{
		func(f []hosttest.File) []hosttest.File { return append(f, hosttest.Regular("usr/evil", "")) },
		func(f []hosttest.File) []hosttest.File { return f[:len(f)-1] },
		func(f []hosttest.File) []hosttest.File { f[1].Data = "evil!!\n"; return f },
		func(f []hosttest.File) []hosttest.File { f[1].Mode |= fs.ModeSetuid; return f },
		func(f []hosttest.File) []hosttest.File { f[4].Target = "/x"; return f },
		func(f []hosttest.File) []hosttest.File { f[8].HardLink = ""; f[8].Data = f[7].Data; return f },
	} {
		bad := hosttest.Image(t, hosttest.Config(), change(hosttest.Small()))
		src := hosttest.Source{}
		for name, data := range good.Source.(hosttest.Source) {
			src[name] = data
		}
		src["zone"] = bad.Source.(hosttest.Source)["zone"]
		h := hosttest.Host(t)
		_, err := h.Import(t.Context(), "dir", &host.Verified{Digest: good.Digest, Config: good.Config, Source: src, Unsigned: true})
		if err == nil || !strings.Contains(err.Error(), "content manifest") {
			t.Errorf("change %d: %v", i, err)
		}
		s, err := h.View()
		if err != nil || len(s.Images) > 0 {
			t.Errorf("change %d: left in the state: %v, %v", i, s.Images, err)
		}
		if found := litter(t, h.Dir()); len(found) > 0 {
			t.Errorf("change %d: litter %q", i, found)
		}
	}
}

// TestStart runs a service from an instance.
func TestStart(t *testing.T) {
	h := hosttest.Host(t)
	c := hosttest.Config()
	c.Services = []image.Service{{Name: "web", Exec: "/usr/bin/web one two"}}
	svc := hosttest.Regular("usr/bin/web", "#!/bin/sh\necho \"$@ $ISC_ROOT $(pwd)\"\nwhile :; do sleep 1; done\n")
	svc.Mode = 0o755
	v := hosttest.Image(t, c, append(hosttest.Small(), svc))
	if _, err := h.Import(t.Context(), "dir", v); err != nil {
		t.Fatal(err)
	}
	in, _, err := h.Clone(t.Context(), host.CloneRequest{Image: v.Digest, Name: "web01", Platform: "dir", Place: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	p, err := h.Start(t.Context(), "web01")
	if err != nil {
		t.Fatal(err)
	}
	defer h.Stop(t.Context(), "web01", 0) //nolint:errcheck // stopped below, if all goes well
	if _, err := h.Start(t.Context(), "web01"); err == nil {
		t.Error("started twice")
	}
	if _, err := h.Reset(t.Context(), "web01", false); err == nil || !strings.Contains(err.Error(), "running") {
		t.Errorf("reset of a running instance: %v", err)
	}
	s, err := h.View()
	if err != nil || s.Instance("web01").Status() != "running" {
		t.Errorf("status %q, %v", s.Instance("web01").Status(), err)
	}
	root := filepath.Join(in.Place, "web01", "root")
	want := fmt.Sprintf("one two %s %s\n", root, root)
	for got := ""; got != want; {
		data, err := os.ReadFile(p.Log)
		if err != nil {
			t.Fatal(err)
		}
		if got = string(data); got != "" && got != want {
			t.Fatalf("the service said %q, not %q", got, want)
		}
	}
	if err := h.Stop(t.Context(), "web01", host.StopTimeout); err != nil {
		t.Fatal(err)
	}
	if got := hosttest.Findings(t, h, "web01", false); len(got) > 0 {
		t.Errorf("findings: %q", got)
	}
	if err := h.Destroy(t.Context(), "web01"); err != nil {
		t.Fatal(err)
	}
}

// TestOldChanges finds what was added to directories so long ago that the check could mark them.
func TestOldChanges(t *testing.T) {
	t.Cleanup(host.SetLearnAge(0))
	h := hosttest.Host(t)
	root, _ := instance(t, h, hosttest.Small())
	for _, name := range []string{"added", "etc/added", "usr/bin/added"} {
		if err := os.WriteFile(filepath.Join(root, name), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	want := []string{`added "/added": file`, `added "/etc/added": file`, `added "/usr/bin/added": file`}
	for range 3 { // a check must not make the next one believe what it found
		if got := hosttest.Findings(t, h, "web01", false); !slices.Equal(got, want) {
			t.Errorf("findings %q, want %q", got, want)
		}
	}
}
