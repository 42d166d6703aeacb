package provisioner_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/goldenisc/packer-plugin-isc/image"
	"github.com/goldenisc/packer-plugin-isc/internal/remote"
	"github.com/goldenisc/packer-plugin-isc/profiles"
	"github.com/goldenisc/packer-plugin-isc/provisioner"
)

var today = time.Date(2026, 3, 4, 5, 6, 7, 0, time.UTC)

// folder is a small root of Linux. Its objects belong to root, which takes root to make and to edit.
func folder(t *testing.T) string {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("takes root")
	}
	dir := t.TempDir()
	for name, content := range map[string]string{
		"etc/passwd":             "root:x:0:0:root:/root:/bin/sh\nbin:x:1:1::/:/usr/sbin/nologin\n",
		"etc/shadow":             "root:*:19000:0:99999:7:::\nbin:*:19000:0:99999:7:::\n",
		"etc/group":              "root:x:0:\nbin:x:1:\nshadow:x:42:\n",
		"etc/ssh/sshd_config":    "# A comment.\nPermitRootLogin yes\n#X11Forwarding yes\n",
		"etc/login.defs":         "PASS_MAX_DAYS\t99999\n",
		"etc/issue":              "old\n",
		"odd/name with ' and \"": "x",
	} {
		name = filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(name, []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Chmod(filepath.Join(dir, "etc/shadow"), 0o640); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("etc", filepath.Join(dir, "link")); err != nil {
		t.Fatal(err)
	}
	return dir
}

func state(t *testing.T, dir string) string {
	t.Helper()
	tr, err := image.ReadDir(t.Context(), dir, image.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer tr.Close()
	var b strings.Builder
	for e := range tr.All() {
		b.WriteString(strings.Join([]string{e.Name, e.Mode.String(), e.Target, string(e.Digest[:])}, " ") + "\n")
	}
	return b.String()
}

func baseline(t *testing.T) *profiles.Selection {
	t.Helper()
	p, err := profiles.Load("isc-baseline")
	if err != nil {
		t.Fatal(err)
	}
	s, err := p.Select(profiles.Linux, nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// TestMachine edits one object of each type through the machine, and finds them in the folder.
func TestMachine(t *testing.T) {
	dir := folder(t)
	m, err := provisioner.Open(t.Context(), remote.Local{}, dir, []string{"etc/*"}, t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	if data, err := m.ReadFile("link/ssh/sshd_config"); err != nil || !strings.HasPrefix(string(data), "# A") {
		t.Errorf("through a link, not fetched before: %q, %v", data, err)
	}
	if data, err := m.ReadFile("odd/name with ' and \""); err != nil || string(data) != "x" {
		t.Errorf("%q, %v", data, err)
	}
	at := time.Date(2020, 1, 2, 3, 4, 5, 0, time.UTC)
	for _, e := range []image.Entry{
		{Name: "etc/new/it's \"$(here)\".conf", Mode: 0o600, UID: 3, GID: 4, ModTime: at},
		{Name: "etc/issue", Mode: 0o444, ModTime: at},
		{Name: "etc/dir", Mode: fs.ModeDir | fs.ModeSticky | 0o777, ModTime: at},
		{Name: "etc/masked", Mode: fs.ModeSymlink | 0o777, Target: "/dev/null", ModTime: at},
		{Name: "link", Mode: fs.ModeSymlink | 0o777, Target: "odd", ModTime: at},
	} {
		data := []byte("content of " + e.Name)
		if !e.IsRegular() {
			data = nil
		}
		if err := m.Put(e, data); err != nil {
			t.Fatal(err)
		}
		info, err := os.Lstat(filepath.Join(dir, e.Name))
		if err != nil {
			t.Fatal(err)
		}
		if info.Mode() != e.Mode {
			t.Errorf("%s is %v, want %v", e.Name, info.Mode(), e.Mode)
		}
		if e.IsRegular() {
			if got, err := os.ReadFile(filepath.Join(dir, e.Name)); err != nil || !bytes.Equal(got, data) || !info.ModTime().Equal(at) {
				t.Errorf("%s: %q, %v, %v", e.Name, got, info.ModTime(), err)
			}
		}
	}
	if target, err := os.Readlink(filepath.Join(dir, "link")); err != nil || target != "odd" {
		t.Errorf("link leads to %q, %v", target, err)
	}
	if err := m.SetMeta("etc/passwd", 0o600, 1, 2, at, nil); err != nil {
		t.Fatal(err)
	}
	if info, err := os.Stat(filepath.Join(dir, "etc/passwd")); err != nil || info.Mode() != 0o600 {
		t.Errorf("%v, %v", info, err)
	}
	if err := m.Remove("etc/new"); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(dir, "etc/new")); !errors.Is(err, fs.ErrNotExist) {
		t.Error(err)
	}
	if err := m.Remove("."); err == nil {
		t.Error("the root was removed")
	}
	if err := m.Put(image.Entry{Name: "etc/two\nlines", Mode: 0o644}, nil); err == nil {
		t.Error("a name with a line feed was written")
	}
	left, err := filepath.Glob(filepath.Join(dir, "etc/*.isc-new"))
	if err != nil || len(left) > 0 {
		t.Errorf("left: %v, %v", left, err)
	}
}

// TestMachineLinks writes through links of a folder that lead out of it, and stays in it.
func TestMachineLinks(t *testing.T) {
	dir := folder(t)
	outside := t.TempDir()
	for name, target := range map[string]string{
		"absolute": outside, "up": "../../../../../../" + outside, "inside": "/etc", "loop": "loop",
	} {
		if err := os.Symlink(target, filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	m, err := provisioner.Open(t.Context(), remote.Local{}, dir, nil, t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	for _, name := range []string{"absolute/x", "up/x", "inside/x", "inside/ssh/x"} {
		if err := m.Put(image.Entry{Name: name, Mode: 0o600, ModTime: today}, []byte(name)); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	if left, err := os.ReadDir(outside); err != nil || len(left) > 0 {
		t.Errorf("outside: %v, %v", left, err)
	}
	for name, want := range map[string]string{"etc/x": "inside/x", "etc/ssh/x": "inside/ssh/x", outside[1:] + "/x": "up/x"} {
		if data, err := os.ReadFile(filepath.Join(dir, name)); err != nil || string(data) != want && string(data) != "absolute/x" {
			t.Errorf("%s: %q, %v", name, data, err)
		}
	}
	// The object itself is never followed.
	if err := m.Put(image.Entry{Name: "absolute", Mode: 0o600, ModTime: today}, []byte("a file")); err != nil {
		t.Error(err)
	}
	if left, err := os.ReadDir(outside); err != nil || len(left) > 0 {
		t.Errorf("outside: %v, %v", left, err)
	}
	if err := m.SetMeta("up", 0o777, 0, 0, today, nil); err == nil {
		t.Error("the mode of a link was changed")
	}
	if err := m.Put(image.Entry{Name: "etc", Mode: 0o600, ModTime: today}, nil); err == nil {
		t.Error("a file took the place of a directory")
	}
	if err := m.Put(image.Entry{Name: "loop/x", Mode: 0o600}, nil); err == nil {
		t.Error("a loop of links was followed")
	}
}

// TestHarden plans, applies, applies again, audits and undoes.
func TestHarden(t *testing.T) {
	dir := folder(t)
	before := state(t, dir)
	s := baseline(t)
	var saved []byte
	o := provisioner.Options{Root: dir, Dir: t.TempDir(), Today: today, Save: func(b *profiles.Backup, _ []profiles.Change) (err error) {
		saved, err = b.Marshal()
		return err
	}}
	plan, err := provisioner.Plan(t.Context(), remote.Local{}, s, o)
	if err != nil || len(plan) == 0 {
		t.Fatalf("%d changes, %v", len(plan), err)
	}
	if state(t, dir) != before {
		t.Error("planning changed the machine")
	}
	var text bytes.Buffer
	if err := provisioner.Diff(&text, plan); err != nil || !strings.Contains(text.String(), "\n-PermitRootLogin yes\n") || !strings.Contains(text.String(), "\n+PermitRootLogin no\n") {
		t.Errorf("%v\n%s", err, &text)
	}
	changes, report, err := provisioner.Harden(t.Context(), remote.Local{}, profiles.Linux, s, o)
	if err != nil {
		t.Fatal(err)
	}
	if len(changes) != len(plan) {
		t.Errorf("%d changes were planned, %d made", len(plan), len(changes))
	}
	for _, c := range report.Controls {
		if c.Status == profiles.Fail {
			t.Errorf("%s: %v", c.ID, c.Findings)
		}
		if profiles.ControlByID(c.ID).Scope == profiles.ImageOnly {
			t.Errorf("%s is for images only", c.ID)
		}
	}
	hardened := state(t, dir)
	if again, _, err := provisioner.Harden(t.Context(), remote.Local{}, profiles.Linux, s, o); err != nil || len(again) != 0 || state(t, dir) != hardened {
		t.Errorf("again: %d changes, %v", len(again), err)
	}
	backup, err := profiles.ParseBackup(saved)
	if err != nil {
		t.Fatal(err)
	}
	if err := provisioner.Undo(t.Context(), remote.Local{}, profiles.Linux, backup, o); err != nil {
		t.Fatal(err)
	}
	if after := state(t, dir); after != before {
		t.Errorf("before\n%s\nafter\n%s", before, after)
	}
}

// A broken runner fails from its nth write on.
type broken struct {
	remote.Local
	left int
}

func (b *broken) Run(ctx context.Context, c remote.Command) error {
	if c.Args[0] == "sh" {
		if b.left--; b.left == 0 {
			return &remote.ExitError{Args: c.Args, Status: 1, Stderr: "no space left on device"}
		}
	}
	return b.Local.Run(ctx, c)
}

// TestHardenFails breaks off at every write, and finds the machine as it was.
func TestHardenFails(t *testing.T) {
	s := baseline(t)
	for n := 1; n < 200; n += 7 {
		dir := folder(t)
		before := state(t, dir)
		_, _, err := provisioner.Harden(t.Context(), &broken{left: n}, profiles.Linux, s, provisioner.Options{Root: dir, Dir: t.TempDir(), Today: today})
		if err == nil {
			if n < 14 {
				t.Errorf("write %d did not fail", n)
			}
			return
		}
		if !errors.Is(err, provisioner.ErrUndone) || !strings.Contains(err.Error(), "no space left") {
			t.Errorf("write %d: %v", n, err)
		}
		if after := state(t, dir); after != before {
			t.Fatalf("write %d: before\n%s\nafter\n%s", n, before, after)
		}
	}
}

// A lost runner loses its connection in its nth write: half of the content arrives, and nothing runs
// from then on.
type lost struct {
	remote.Local
	left int
}

var errLost = errors.New("connection reset")

func (l *lost) Run(ctx context.Context, c remote.Command) error {
	if l.left <= 0 {
		return errLost
	}
	if c.Args[0] == "sh" {
		l.left--
	}
	if l.left > 0 {
		return l.Local.Run(ctx, c)
	}
	if c.Stdin != nil {
		data, err := io.ReadAll(c.Stdin)
		if err != nil {
			return err
		}
		c.Stdin = bytes.NewReader(data[:len(data)/2])
	}
	l.Local.Run(ctx, c) //nolint:errcheck // nobody hears how it ended
	return errLost
}

// TestHardenLost loses the connection at a write, and finds the machine as it was once there is another.
func TestHardenLost(t *testing.T) {
	s := baseline(t)
	for n := 1; n < 200; n += 5 {
		dir := folder(t)
		before := state(t, dir)
		again := 0
		o := provisioner.Options{Root: dir, Dir: t.TempDir(), Today: today, Reconnect: func(context.Context) (remote.Runner, func() error, error) {
			again++
			return remote.Local{}, func() error { return nil }, nil
		}}
		_, _, err := provisioner.Harden(t.Context(), &lost{left: n}, profiles.Linux, s, o)
		if err == nil {
			if n < 11 {
				t.Errorf("write %d was not lost", n)
			}
			return
		}
		if !errors.Is(err, provisioner.ErrUndone) || !errors.Is(err, errLost) || again != 1 {
			t.Errorf("write %d: %v; %d new connections", n, err, again)
		}
		if after := state(t, dir); after != before {
			t.Fatalf("write %d: before\n%s\nafter\n%s", n, before, after)
		}
		o.Reconnect = func(context.Context) (remote.Runner, func() error, error) { return nil, nil, errLost }
		if _, _, err := provisioner.Harden(t.Context(), &lost{left: n}, profiles.Linux, s, o); err == nil || errors.Is(err, provisioner.ErrUndone) {
			t.Errorf("write %d, and no other connection: %v", n, err)
		}
	}
}

// TestCutShort has the content of a file end early, as it does where a connection is lost.
func TestCutShort(t *testing.T) {
	dir := folder(t)
	l := &lost{left: 1}
	m, err := provisioner.Open(t.Context(), l, dir, nil, t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	l.left = 1
	before := state(t, dir)
	if err := m.Put(image.Entry{Name: "etc/passwd", Mode: 0o644, ModTime: today}, []byte("root:x:0:0:root:/root:/bin/sh\n")); !errors.Is(err, errLost) {
		t.Error(err)
	}
	if state(t, dir) != before {
		t.Error("half a file was put in place")
	}
}
