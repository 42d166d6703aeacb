package isczone

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	sdk "github.com/hashicorp/packer-plugin-sdk/packer"

	"github.com/goldenisc/packer-plugin-isc/cmd/packer-plugin-isc/internal/zonetest"
	"github.com/goldenisc/packer-plugin-isc/image"
	"github.com/goldenisc/packer-plugin-isc/internal/remote"
)

func init() { interval = 50 * time.Millisecond }

// A hook is what provisioners do in the zone.
type hook func(sdk.Communicator) error

func (h hook) Run(_ context.Context, name string, _ sdk.Ui, c sdk.Communicator, _ any) error {
	if name != sdk.HookProvision || h == nil {
		return nil
	}
	return h(c)
}

// A bench is a builder with a host, which is this machine.
type bench struct {
	*zonetest.Host
	b     Builder
	z     *zone
	spool *os.File
	said  bytes.Buffer
}

func newBench(t *testing.T) *bench {
	t.Helper()
	if runtime.GOOS != "linux" {
		t.Skip("the commands of the host are programs of Linux")
	}
	bin := t.TempDir()
	h := zonetest.Install(t, bin)
	t.Setenv("PATH", bin+string(os.PathListSeparator)+os.Getenv("PATH"))
	for name, content := range map[string]string{"etc/motd": "welcome\n", "lib/svc/seed": "seed\n"} {
		name = filepath.Join(h.Template(), name)
		if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(name, []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	spool, err := os.Create(filepath.Join(t.TempDir(), "spool"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { spool.Close() })
	s := &bench{Host: h, spool: spool, z: &zone{runner: remote.Local{}, name: "isc-web", path: filepath.Join(t.TempDir(), "isc-web"), token: "TOKEN"}}
	s.b.config = Config{Brand: "illumos", Zonecfg: []string{"set ip-type=shared"}, Milestone: "svc:/milestone/multi-user-server:default"}
	s.b.timeout = time.Minute
	return s
}

func (s *bench) fill(ctx context.Context, h hook) error {
	return s.b.fill(ctx, &sdk.BasicUi{Reader: strings.NewReader(""), Writer: &s.said, ErrorWriter: &s.said}, h, s.z, nil, s.spool)
}

// tree is what was fetched.
func (s *bench) tree(t *testing.T) map[string]string {
	t.Helper()
	if _, err := s.spool.Seek(0, io.SeekStart); err != nil {
		t.Fatal(err)
	}
	tr, err := image.ReadTar(t.Context(), s.spool, image.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer tr.Close()
	content := map[string]string{}
	for e := range tr.All() {
		if !e.IsRegular() {
			continue
		}
		f, err := tr.Open(e.Name)
		if err != nil {
			t.Fatal(err)
		}
		data, err := io.ReadAll(io.NewSectionReader(f, 0, f.Size()))
		f.Close()
		if err != nil {
			t.Fatal(err)
		}
		content[e.Name] = string(data)
	}
	return content
}

// gone checks that nothing is left of the zone.
func (s *bench) gone(t *testing.T) {
	t.Helper()
	if zones := s.Zones(t); zones != "" {
		t.Errorf("left behind: %s\n%s", zones, s.Log(t))
	}
	if _, err := os.Lstat(s.z.path); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("its path: %v", err)
	}
	if s.z.archive != "" {
		if _, err := os.Lstat(s.z.archive); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("its archive: %v", err)
		}
	}
}

// long is a name that ustar has no room for.
var long = "opt/" + strings.Repeat("long-", 40)

// TestZone goes from nothing to the content of a zone's root, and back to nothing.
func TestZone(t *testing.T) {
	s := newBench(t)
	src := t.TempDir()
	if err := os.MkdirAll(filepath.Join(src, "site", "css"), 0o755); err != nil {
		t.Fatal(err)
	}
	for name, content := range map[string]string{"site/index.html": "hello", "site/css/a.css": "body"} {
		if err := os.WriteFile(filepath.Join(src, name), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	dst := t.TempDir()
	err := s.fill(t.Context(), func(c sdk.Communicator) error {
		run := func(want int, script string) string {
			var out bytes.Buffer
			cmd := &sdk.RemoteCmd{Command: script, Stdout: &out, Stderr: &out}
			if err := c.Start(t.Context(), cmd); err != nil {
				t.Fatal(err)
			}
			if got := cmd.Wait(); got != want {
				t.Errorf("%s: status %d, want %d: %s", script, got, want, &out)
			}
			return out.String()
		}
		if got := run(0, `echo "it's $ZONE"; printf '%s\n' 'a  b' "\$x" 'y;z'`); got != "it's isc-web\na  b\n$x\ny;z\n" {
			t.Errorf("said %q", got)
		}
		run(7, "exit 7")
		run(0, "mkdir -p opt; echo made >opt/made; echo x >"+long)
		// Names are relative, as this machine's root is none of the zone's.
		var odd os.FileInfo
		return errors.Join(
			c.Upload("etc/motd", strings.NewReader("new\n"), nil),
			c.Upload("opt/a 'b'; c", strings.NewReader("odd"), &odd),
			c.UploadDir("srv", filepath.Join(src, "site"), nil),
			c.UploadDir("srv/flat", filepath.Join(src, "site")+"/", nil),
			c.DownloadDir("srv/site", dst, nil),
			c.Download("opt/made", &s.said),
		)
	})
	if err != nil {
		t.Fatalf("%v\n%s", err, s.Log(t))
	}
	got := s.tree(t)
	for name, want := range map[string]string{
		"etc/motd": "new\n", "lib/svc/seed": "seed\n", "opt/made": "made\n", long: "x\n", "opt/a 'b'; c": "odd",
		"srv/site/index.html": "hello", "srv/site/css/a.css": "body", "srv/flat/css/a.css": "body",
	} {
		if got[name] != want {
			t.Errorf("%s: %q, want %q", name, got[name], want)
		}
	}
	if len(got) != 9 { // and srv/flat/index.html
		t.Errorf("%d files: %q", len(got), got)
	}
	if data, err := os.ReadFile(filepath.Join(dst, "site", "css", "a.css")); err != nil || string(data) != "body" {
		t.Errorf("downloaded %q, %v", data, err)
	}
	if !strings.Contains(s.said.String(), "made\n") {
		t.Error("nothing downloaded")
	}
	s.gone(t)
}

// TestArchive sends an archive and installs it.
func TestArchive(t *testing.T) {
	s := newBench(t)
	archive := filepath.Join(t.TempDir(), "web.tar")
	if out, err := exec.Command("/bin/tar", "-cf", archive, "-C", s.Template(), "etc").CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	s.b.config.Archive = archive
	if err := s.fill(t.Context(), nil); err != nil {
		t.Fatal(err)
	}
	if got := s.tree(t); len(got) != 1 || got["etc/motd"] != "welcome\n" {
		t.Errorf("content %q", got)
	}
	if s.z.archive == "" {
		t.Error("nothing was sent")
	}
	s.gone(t)
}

// TestCancel cancels a build in each step.
func TestCancel(t *testing.T) {
	for _, step := range []string{"configure", "install", "boot", "svcs", "provision", "shutdown", "ready", "snapshot", "tar"} {
		t.Run(step, func(t *testing.T) {
			s := newBench(t)
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			if step == "provision" {
				err := s.fill(ctx, func(c sdk.Communicator) error {
					cmd := &sdk.RemoteCmd{Command: "exec sleep 4243"}
					// Provisioners run in other processes, which the build's context does not reach.
					if err := c.Start(context.Background(), cmd); err != nil {
						return err
					}
					time.AfterFunc(200*time.Millisecond, cancel)
					cmd.Wait()
					return nil
				})
				if !errors.Is(err, context.Canceled) {
					t.Errorf("error %v", err)
				}
				s.gone(t)
				return
			}
			reached := s.Hold(t, step)
			go func() {
				if reached() {
					s.Unmark(t, "hold-"+step)
				} else {
					t.Error("the step was not reached")
				}
				cancel()
			}()
			if err := s.fill(ctx, nil); !errors.Is(err, context.Canceled) {
				t.Errorf("error %v", err)
			}
			s.gone(t)
		})
	}
}

// TestFailures are steps that fail.
func TestFailures(t *testing.T) {
	for name, c := range map[string]struct {
		change func(*bench)
		want   string
		left   string // zones afterwards
	}{
		"unknown brand":   {func(s *bench) { s.b.config.Brand = "joyent" }, "Unknown brand", ""},
		"bad zonecfg":     {func(s *bench) { s.b.config.Zonecfg = []string{"add net"} }, "not allowed in the scope", ""},
		"bad argument":    {func(s *bench) { s.b.config.InstallArguments = []string{"-q"} }, "-q: invalid option", ""},
		"bad archive":     {func(s *bench) { s.b.config.Archive = os.Args[0] }, "install zone", ""},
		"no milestone":    {func(s *bench) { s.b.config.Milestone, s.b.timeout = "svc:/x:default", time.Second }, "is not online after 1s", ""},
		"maintenance":     {func(s *bench) { s.Mark(t, "maintenance") }, "is in maintenance", ""},
		"provisioner":     {nil, "it failed", ""},
		"kept":            {func(s *bench) { s.b.config.PackerOnError = "abort" }, "it failed", "isc-web"},
		"ask without end": {func(s *bench) { s.b.config.PackerOnError = "ask" }, "it failed", ""},
		"not even made": {func(s *bench) {
			s.b.config.PackerOnError, s.b.config.Brand = "abort", "joyent"
		}, "Unknown brand", ""},
	} {
		t.Run(name, func(t *testing.T) {
			s := newBench(t)
			if c.change != nil {
				c.change(s)
			}
			err := s.fill(t.Context(), func(sdk.Communicator) error { return errors.New("it failed") })
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("error %v, want %q", err, c.want)
			}
			if c.left == "" {
				s.gone(t)
			} else if got := s.Zones(t); got != c.left || !strings.Contains(s.said.String(), "is left on") {
				t.Errorf("left %q, want %q: %s", got, c.left, &s.said)
			}
		})
	}
}

// TestForeign leaves zones of others alone: one that was there, and one that came in between.
func TestForeign(t *testing.T) {
	s := newBench(t)
	other := *s.z
	other.token = "OTHER"
	if err := other.configure(t.Context(), "lipkg", nil); err != nil {
		t.Fatal(err)
	}
	if err := s.fill(t.Context(), nil); err == nil || !strings.Contains(err.Error(), "exists on the host (configured), and is left alone") {
		t.Errorf("error %v", err)
	}
	if err := s.z.configure(t.Context(), "illumos", nil); err == nil {
		t.Error("it is configured again")
	}
	if err := s.z.destroy(t.Context()); err != nil || s.Zones(t) != "isc-web" {
		t.Errorf("zones %q, %v", s.Zones(t), err)
	}
	if err := other.destroy(t.Context()); err != nil || s.Zones(t) != "" {
		t.Errorf("zones %q, %v", s.Zones(t), err)
	}
}
