//go:build unix

package host_test

import (
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/goldenisc/packer-plugin-isc/host"
	"github.com/goldenisc/packer-plugin-isc/internal/hosttest"
)

// tampering is one way to change an instance; it returns the path that a check must name.
var tampering = []struct {
	name string
	do   func(root string) (string, error)
}{
	{"content of the same size and times", func(root string) (string, error) {
		p := filepath.Join(root, "etc/passwd")
		info, err := os.Stat(p)
		if err != nil {
			return "", err
		}
		data, err := os.ReadFile(p)
		if err != nil {
			return "", err
		}
		data[0] ^= 1
		if err := os.WriteFile(p, data, 0o644); err != nil {
			return "", err
		}
		return "/etc/passwd", os.Chtimes(p, info.ModTime(), info.ModTime())
	}},
	{"another file of the same size and times in its place", func(root string) (string, error) {
		p := filepath.Join(root, "usr/big")
		info, err := os.Stat(p)
		if err != nil {
			return "", err
		}
		if err := os.WriteFile(p+".new", make([]byte, info.Size()), 0o644); err != nil {
			return "", err
		}
		if err := os.Chtimes(p+".new", info.ModTime(), info.ModTime()); err != nil {
			return "", err
		}
		return "/usr/big", os.Rename(p+".new", p)
	}},
	{"two files swapped", func(root string) (string, error) {
		a, b := filepath.Join(root, "usr/empty"), filepath.Join(root, "etc/passwd")
		t := filepath.Join(root, "etc/t")
		for _, r := range [][2]string{{a, t}, {b, a}, {t, b}} {
			if err := os.Rename(r[0], r[1]); err != nil {
				return "", err
			}
		}
		return "/usr/empty", nil
	}},
	{"added at the top", func(root string) (string, error) { return "/new", os.WriteFile(filepath.Join(root, "new"), nil, 0o600) }},
	{"added deep down", func(root string) (string, error) {
		return "/usr/bin/new", os.Symlink("/etc/shadow", filepath.Join(root, "usr/bin/new"))
	}},
	{"removed", func(root string) (string, error) { return "/usr/empty", os.Remove(filepath.Join(root, "usr/empty")) }},
	{"made set-id", func(root string) (string, error) {
		return "/usr/bin/a", os.Chmod(filepath.Join(root, "usr/bin/a"), 0o555|os.ModeSetuid)
	}},
	{"mode of a directory", func(root string) (string, error) { return "/etc", os.Chmod(filepath.Join(root, "etc"), 0o777) }},
	{"a link that leads elsewhere", func(root string) (string, error) {
		p := filepath.Join(root, "etc/mtab")
		if err := os.Remove(p); err != nil {
			return "", err
		}
		return "/etc/mtab", os.Symlink("../proc/self/mountz", p)
	}},
	{"hard links parted", func(root string) (string, error) {
		p := filepath.Join(root, "usr/bin/b")
		data, err := os.ReadFile(p)
		if err != nil {
			return "", err
		}
		if err := os.Remove(p); err != nil {
			return "", err
		}
		if err := os.WriteFile(p, data, 0o600); err != nil {
			return "", err
		}
		if err := os.Chmod(p, 0o555); err != nil {
			return "", err
		}
		return "/usr/bin/b", os.Chtimes(p, hosttest.Time, hosttest.Time)
	}},
	{"files joined", func(root string) (string, error) {
		p := filepath.Join(root, "usr/joined")
		return "/usr/joined", os.Link(filepath.Join(root, "usr/empty"), p)
	}},
	{"a log cut short", func(root string) (string, error) {
		return "/var/log/messages", os.Truncate(filepath.Join(root, "var/log/messages"), 2)
	}},
	{"a log rewritten and longer", func(root string) (string, error) {
		return "/var/log/messages", os.WriteFile(filepath.Join(root, "var/log/messages"), []byte("other\nand more\n"), 0o644)
	}},
	{"a directory moved away and a copy in its place", func(root string) (string, error) {
		p := filepath.Join(root, "usr/bin")
		if err := os.Rename(p, filepath.Join(root, "var/bin")); err != nil {
			return "", err
		}
		if err := os.Mkdir(p, 0o755); err != nil {
			return "", err
		}
		return "/usr/bin/su", os.Chtimes(p, hosttest.Time, hosttest.Time)
	}},
}

// TestTampering changes an instance in every way, alone and several at once, and wants each change
// named by every fast check that follows, with changes that are old enough to be marked.
func TestTampering(t *testing.T) {
	t.Cleanup(host.SetLearnAge(0))
	h := hosttest.Host(t)
	root, _ := instance(t, h, hosttest.Small())
	try := func(t *testing.T, which ...int) {
		var want []string
		for _, i := range which {
			p, err := tampering[i].do(root)
			if err != nil {
				t.Fatalf("%s: %v", tampering[i].name, err)
			}
			want = append(want, p)
		}
		time.Sleep(2 * time.Millisecond)
		for n, full := range []bool{false, false, true, false} {
			got := strings.Join(hosttest.Findings(t, h, "web01", full), "\n")
			for _, p := range want {
				if !strings.Contains(got, fmt.Sprintf("%q", p)) {
					t.Errorf("check %d (full %v) does not name %s:\n%s", n+1, full, p, got)
				}
			}
		}
		if _, err := h.Reset(t.Context(), "web01", false); err != nil {
			t.Fatal(err)
		}
		if got := hosttest.Findings(t, h, "web01", false); len(got) > 0 {
			t.Fatalf("after reset: %q", got)
		}
	}
	for i, c := range tampering {
		t.Run(c.name, func(t *testing.T) { try(t, i) })
	}
	// Pairs that do not touch the same path.
	r := rand.New(rand.NewPCG(1, 2))
	for range 10 {
		a, b := r.IntN(len(tampering)), 3+r.IntN(3)
		if a != b && tampering[a].name != "two files swapped" && tampering[a].name != "a directory moved away and a copy in its place" && tampering[a].name != "files joined" {
			t.Run(tampering[a].name+", and "+tampering[b].name, func(t *testing.T) { try(t, a, b) })
		}
	}
}
