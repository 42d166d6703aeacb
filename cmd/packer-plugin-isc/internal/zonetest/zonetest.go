// Package zonetest makes a folder or the root of an SSH server a host of illumos as far as isc-zone can
// see. The program below host stands in for its commands.
package zonetest

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

// A Host is one with no zones but its own.
type Host struct {
	bin   string // where the commands are
	state string // where they keep what they know
}

// Names are those of the commands.
var names = []string{"zonecfg", "zoneadm", "zlogin", "zfs", "tar"}

// Install puts the commands into the folder bin. New zones are copies of the folder template.
func Install(t testing.TB, bin string) *Host {
	t.Helper()
	h := &Host{bin: bin, state: filepath.Join(bin, ".zones")}
	check(t, os.MkdirAll(filepath.Join(h.state, "template"), 0o755))
	built, err := program()
	check(t, err)
	check(t, os.WriteFile(filepath.Join(h.state, "host"), built, 0o755))
	for _, name := range names {
		check(t, os.Symlink(filepath.Join(".zones", "host"), filepath.Join(bin, name)))
	}
	return h
}

// program is built once.
var program = sync.OnceValues(func() ([]byte, error) {
	dir, err := os.MkdirTemp("", "zonetest-*")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	name := filepath.Join(dir, "host")
	build := exec.Command("go", "build", "-o", name, "github.com/goldenisc/packer-plugin-isc/cmd/packer-plugin-isc/internal/zonetest/host")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("%w\n%s", err, out)
	}
	return os.ReadFile(name)
})

func check(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// Template is the folder that zones are copies of.
func (h *Host) Template() string { return filepath.Join(h.state, "template") }

// Chroot has commands in a zone see its root as /, which takes root. Without it that is their working
// folder.
func (h *Host) Chroot(t testing.TB) { h.Mark(t, "chroot") }

// Mark makes a file that the commands go by.
func (h *Host) Mark(t testing.TB, name string) {
	t.Helper()
	check(t, os.WriteFile(filepath.Join(h.state, name), nil, 0o644))
}

// Unmark removes it.
func (h *Host) Unmark(t testing.TB, name string) {
	t.Helper()
	check(t, os.Remove(filepath.Join(h.state, name)))
}

// Hold has the next commands stop in a step: configure, install, boot, svcs, shutdown, ready, snapshot or
// tar. The function waits until one has.
func (h *Host) Hold(t testing.TB, step string) (reached func() bool) {
	t.Helper()
	h.Mark(t, "hold-"+step)
	return func() bool {
		for range 600 {
			if _, err := os.Stat(filepath.Join(h.state, "at-"+step)); err == nil {
				return true
			}
			time.Sleep(50 * time.Millisecond)
		}
		return false
	}
}

// Zones are the names of zones that exist.
func (h *Host) Zones(t testing.TB) string {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(h.state, "*.zone"))
	check(t, err)
	var list []string
	for _, f := range files {
		list = append(list, strings.TrimSuffix(filepath.Base(f), ".zone"))
	}
	return strings.Join(list, " ")
}

// Log is what was run, one command a line.
func (h *Host) Log(t testing.TB) string {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(h.state, "log"))
	check(t, err)
	return string(data)
}
