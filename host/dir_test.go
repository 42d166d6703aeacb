package host_test

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/goldenisc/packer-plugin-isc/host"
	"github.com/goldenisc/packer-plugin-isc/internal/hosttest"
)

func TestDir(t *testing.T) {
	hosttest.Suite{
		Platform: "dir",
		Place:    t.TempDir(),
		Root:     func(in *host.Instance) string { return filepath.Join(in.Place, in.Name, "root") },
	}.Run(t)
}

// TestDamagedGolden shows that what is wrong in the store does not get into an instance, and that
// another pull puts it right.
func TestDamagedGolden(t *testing.T) {
	h := hosttest.Host(t)
	v := hosttest.Image(t, hosttest.Config(), hosttest.Small())
	r := host.CloneRequest{Image: v.Digest, Name: "web01", Platform: "dir", Place: t.TempDir()}
	if _, err := h.Import(t.Context(), "dir", v); err != nil {
		t.Fatal(err)
	}
	sum := sha256.Sum256([]byte("seed\n"))
	name := hex.EncodeToString(sum[:])
	path := filepath.Join(h.Dir(), "content", name[:2], name[2:])
	if err := os.WriteFile(path, []byte("evil\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, _, err := h.Clone(t.Context(), r); err == nil || !strings.Contains(err.Error(), "damaged") {
		t.Fatalf("clone: %v", err)
	}
	if found := litter(t, h.Dir(), r.Place); len(found) > 0 {
		t.Errorf("litter: %q", found)
	}
	if _, err := h.Import(t.Context(), "dir", v); err != nil {
		t.Fatal(err)
	}
	if _, _, err := h.Clone(t.Context(), r); err != nil {
		t.Fatal(err)
	}
	if got := hosttest.Findings(t, h, "web01", true); len(got) > 0 {
		t.Errorf("findings: %q", got)
	}
	if err := h.SetRelease(t.Context(), v.Digest, hosttest.Time, "key lost"); err != nil {
		t.Fatal(err)
	}
	want := []string{`expired "/": 2024-05-06T07:08:09Z`, `revoked "/": key lost`}
	if got := hosttest.Findings(t, h, "web01", false); !slices.Equal(got, want) {
		t.Errorf("findings: %q", got)
	}
	if err := h.Destroy(t.Context(), "web01"); err != nil {
		t.Fatal(err)
	}
}

// TestCancel gives up a clone in the middle.
func TestCancel(t *testing.T) {
	h := hosttest.Host(t)
	v := hosttest.Image(t, hosttest.Config(), hosttest.Small())
	if _, err := h.Import(t.Context(), "dir", v); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	h.Progress = func(string, int64, int64) { cancel() }
	r := host.CloneRequest{Image: v.Digest, Name: "web01", Platform: "dir", Place: t.TempDir()}
	if _, _, err := h.Clone(ctx, r); !errors.Is(err, context.Canceled) {
		t.Fatalf("clone: %v", err)
	}
	if found := litter(t, h.Dir(), r.Place); len(found) > 0 {
		t.Errorf("litter: %q", found)
	}
	s, err := h.View()
	if err != nil || len(s.Instances) > 0 {
		t.Errorf("in the state: %v, %v", s.Instances, err)
	}
}
