package host_test

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/goldenisc/packer-plugin-isc/host"
	"github.com/goldenisc/packer-plugin-isc/image"
	"github.com/goldenisc/packer-plugin-isc/internal/hosttest"
	"github.com/goldenisc/packer-plugin-isc/internal/zfsfake"
)

// A crash is one operation done by a process of its own, to be killed.
type crash struct {
	Op, State, Place, Image string // Image is a file
	Platform                string // default dir
}

func (c crash) platform() string { return cmp.Or(c.Platform, "dir") }

// where is what images are imported for.
func (c crash) where() string {
	if _, ok := host.Platforms[c.platform()].(host.Placer); ok {
		return c.platform() + ":" + c.Place
	}
	return c.platform()
}

// TestMain is also the process that is killed, and the fake of zfs(8).
func TestMain(m *testing.M) {
	if name := filepath.Base(os.Args[0]); name == "zfs" || name == "zpool" {
		os.Exit(zfsfake.Main(name, os.Args[1:], os.Stdin, os.Stdout, os.Stderr))
	}
	if job := os.Getenv("HOST_TEST_CRASH"); job != "" {
		if err := runCrash(job); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

type savedImage struct {
	Digest string
	Config *image.Config
	Source hosttest.Source
}

func runCrash(job string) error {
	var c crash
	if err := json.Unmarshal([]byte(job), &c); err != nil {
		return err
	}
	ctx := context.Background()
	data, err := os.ReadFile(c.Image)
	if err != nil {
		return err
	}
	var m savedImage
	if err := json.Unmarshal(data, &m); err != nil {
		return err
	}
	h, err := host.Open(ctx, c.State)
	if err != nil {
		return err
	}
	fmt.Println("ready")
	switch c.Op {
	case "import":
		_, err = h.Import(ctx, c.where(), &host.Verified{Digest: m.Digest, Config: m.Config, Source: m.Source, Unsigned: true})
	case "clone":
		_, _, err = h.Clone(ctx, host.CloneRequest{Image: m.Digest, Name: "web01", Platform: c.platform(), Place: c.Place})
	case "upgrade":
		err = h.Upgrade(ctx, "web01", m.Digest)
	case "reset":
		_, err = h.Reset(ctx, "web01", false)
	case "keep":
		_, err = h.Reset(ctx, "web01", true)
	case "snapshot":
		err = h.Snapshot(ctx, "web01", "s")
	case "rollback":
		err = h.Rollback(ctx, "web01", "s")
	case "destroy":
		err = h.Destroy(ctx, "web01")
	}
	return err
}

// crashFiles are enough that operations take a while.
func crashFiles() []hosttest.File {
	files := append(hosttest.Small(), hosttest.Dir("opt"))
	for i := range 200 {
		files = append(files, hosttest.Regular(fmt.Sprintf("opt/file-%d", i), strings.Repeat(fmt.Sprint(i), 500)))
	}
	return files
}

// kill runs the operation in another process and kills it after a while; it reports whether the
// process had ended by itself.
func kill(t *testing.T, c crash, after time.Duration) bool {
	t.Helper()
	job, err := json.Marshal(c)
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), "HOST_TEST_CRASH="+string(job))
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	if _, err := out.Read(make([]byte, 16)); err != nil {
		cmd.Wait() //nolint:errcheck // stderr says more
		t.Fatalf("%s: %s", c.Op, stderr.String())
	}
	time.Sleep(after)
	cmd.Process.Kill() //nolint:errcheck // it may have ended
	if err := cmd.Wait(); err == nil {
		return true
	}
	if stderr.Len() > 0 {
		t.Fatalf("%s: %s", c.Op, stderr.String())
	}
	return false
}

// litter returns the temporary names below the folders.
func litter(t *testing.T, dirs ...string) []string {
	t.Helper()
	var found []string
	for _, dir := range dirs {
		err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
			if strings.HasPrefix(d.Name(), ".") && d.Name() != ".content" || strings.HasSuffix(d.Name(), ".new") || strings.HasSuffix(d.Name(), ".next") {
				found = append(found, path)
			}
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	return found
}

// TestKill kills operations at many points. Whatever the point, the next command finds the
// instance as it was or complete, and nothing else.
func TestKill(t *testing.T) {
	v := hosttest.Image(t, hosttest.Config(), crashFiles())
	saved := filepath.Join(t.TempDir(), "image")
	data, err := json.Marshal(savedImage{v.Digest, v.Config, v.Source.(hosttest.Source)})
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(saved, data, 0o600); err != nil {
		t.Fatal(err)
	}
	rounds := 4
	if testing.Short() {
		rounds = 2
	}
	for _, op := range []string{"import", "clone", "reset", "keep", "snapshot", "rollback", "destroy"} {
		t.Run(op, func(t *testing.T) {
			killed := 0
			step := 3 * time.Millisecond
			for round := range rounds {
				c := crash{Op: op, State: t.TempDir(), Place: t.TempDir(), Image: saved}
				before(t, c, v)
				if kill(t, c, time.Duration(round)*step) {
					step = max(step/2, 100*time.Microsecond)
				} else {
					killed++
					step *= 2
				}
				after(t, c, v)
			}
			if killed == 0 {
				t.Error("nothing was killed")
			}
		})
	}
}

// before makes what the operation starts from.
func before(t *testing.T, c crash, v *host.Verified) {
	t.Helper()
	if c.Op == "import" {
		return
	}
	h, err := host.Open(t.Context(), c.State)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := h.Import(t.Context(), "dir", v); err != nil {
		t.Fatal(err)
	}
	if c.Op == "clone" {
		return
	}
	if _, _, err := h.Clone(t.Context(), host.CloneRequest{Image: v.Digest, Name: "web01", Platform: "dir", Place: c.Place}); err != nil {
		t.Fatal(err)
	}
	root := filepath.Join(c.Place, "web01", "root")
	if err := os.WriteFile(filepath.Join(root, "var/lib/web/data"), []byte("kept"), 0o600); err != nil {
		t.Fatal(err)
	}
	if c.Op == "rollback" {
		if err := h.Snapshot(t.Context(), "web01", "s"); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(root, "usr/drift"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
}

// after is the next command.
func after(t *testing.T, c crash, v *host.Verified) {
	t.Helper()
	h, err := host.Open(t.Context(), c.State)
	if err != nil {
		t.Fatal(err)
	}
	s, err := h.View()
	if err != nil {
		t.Fatal(err)
	}
	if found := litter(t, c.State, c.Place); len(found) > 0 {
		t.Fatalf("litter: %q, recovered: %q", found, h.Recovered)
	}
	if c.Op == "import" {
		if _, err := h.Import(t.Context(), "dir", v); err != nil {
			t.Fatal(err)
		}
		return
	}
	in := s.Instance("web01")
	place, err := os.ReadDir(c.Place)
	if err != nil {
		t.Fatal(err)
	}
	if in == nil {
		if len(place) > 0 || c.Op != "clone" && c.Op != "destroy" {
			t.Fatalf("no instance, but %v in its place; recovered: %q", place, h.Recovered)
		}
		return
	}
	if in.Pending != nil {
		t.Fatalf("pending: %+v", in.Pending)
	}
	got := hosttest.Findings(t, h, "web01", true)
	drift := len(got) == 1 && got[0] == `added "/usr/drift": file`
	if len(got) > 0 && (!drift || c.Op == "clone") {
		t.Fatalf("findings: %q, recovered: %q", got, h.Recovered)
	}
	defer func() { // ordinary users cannot remove it otherwise
		if err := h.Destroy(t.Context(), "web01"); err != nil {
			t.Error(err)
		}
	}()
	if c.Op == "clone" {
		return
	}
	kept, err := os.ReadFile(filepath.Join(c.Place, "web01/root/var/lib/web/data"))
	if err != nil || string(kept) != "kept" {
		t.Fatalf("volume: %q, %v; recovered: %q", kept, err, h.Recovered)
	}
}

// TestVolumeParent: a kill while a volume is being moved leaves its new parent with the mode that moving
// took. Whoever goes on gives it the one it has in the image, or in the snapshot.
func TestVolumeParent(t *testing.T) {
	if os.Geteuid() <= 0 {
		t.Skip("root needs no permission to move a volume")
	}
	v := hosttest.Image(t, hosttest.Config(), crashFiles())
	for _, tt := range []struct {
		op    string
		moved bool
		want  fs.FileMode
	}{{"reset", false, 0o755}, {"reset", true, 0o755}, {"rollback", false, 0o750}, {"rollback", true, 0o750}} {
		t.Run(fmt.Sprint(tt.op, " ", tt.moved), func(t *testing.T) {
			c := crash{Op: "clone", State: t.TempDir(), Place: t.TempDir()}
			before(t, c, v)
			h, err := host.Open(t.Context(), c.State)
			must := func(err error) {
				t.Helper()
				if err != nil {
					t.Fatal(err)
				}
			}
			must(err)
			_, _, err = h.Clone(t.Context(), host.CloneRequest{Image: v.Digest, Name: "web01", Platform: "dir", Place: c.Place})
			must(err)
			root, fresh := filepath.Join(c.Place, "web01", "root"), filepath.Join(c.Place, "web01", ".new-root")
			must(os.WriteFile(filepath.Join(root, "var/lib/web/data"), []byte("kept"), 0o600))
			must(os.Chmod(filepath.Join(root, "var/lib"), tt.want))
			must(h.Snapshot(t.Context(), "web01", "s"))

			if out, err := exec.Command("cp", "-a", root, fresh).CombinedOutput(); err != nil {
				t.Fatalf("%v: %s", err, out)
			}
			must(os.Chmod(filepath.Join(fresh, "var/lib"), 0o700))
			must(os.RemoveAll(filepath.Join(fresh, "var/lib/web")))
			if tt.moved {
				must(os.Rename(filepath.Join(root, "var/lib/web"), filepath.Join(fresh, "var/lib/web")))
			}
			var state map[string]any
			name := filepath.Join(c.State, "state.json")
			data, err := os.ReadFile(name)
			must(err)
			must(json.Unmarshal(data, &state))
			pending := map[string]any{"op": tt.op, "phase": "swap"}
			if tt.op == "rollback" {
				pending["arg"] = "s"
			}
			state["instances"].([]any)[0].(map[string]any)["pending"] = pending
			data, err = json.Marshal(state)
			must(err)
			must(os.WriteFile(name, data, 0o600))

			h, err = host.Open(t.Context(), c.State)
			must(err)
			if len(h.Recovered) != 1 {
				t.Fatalf("recovered: %q", h.Recovered)
			}
			st, err := os.Stat(filepath.Join(root, "var/lib"))
			must(err)
			if st.Mode().Perm() != tt.want {
				t.Errorf("the parent has the mode %04o, not %04o", st.Mode().Perm(), tt.want)
			}
			if data, err := os.ReadFile(filepath.Join(root, "var/lib/web/data")); err != nil || string(data) != "kept" {
				t.Errorf("%q, %v", data, err)
			}
			must(h.Destroy(t.Context(), "web01"))
		})
	}
}
