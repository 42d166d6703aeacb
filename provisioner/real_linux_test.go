package provisioner_test

import (
	"bytes"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/goldenisc/packer-plugin-isc/internal/basetest"
	"github.com/goldenisc/packer-plugin-isc/internal/remote"
	"github.com/goldenisc/packer-plugin-isc/profiles"
	"github.com/goldenisc/packer-plugin-isc/provisioner"
)

// sshd starts an OpenSSH server whose sessions have dir as their root, and returns how to reach it.
func sshd(t *testing.T, dir string) (remote.Target, remote.Options) {
	t.Helper()
	work := t.TempDir()
	run := func(name string, args ...string) {
		t.Helper()
		if out, err := exec.Command(name, args...).CombinedOutput(); err != nil {
			t.Fatalf("%s: %v\n%s", name, err, out)
		}
	}
	for _, name := range []string{"host", "user"} {
		run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", filepath.Join(work, name))
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	port := l.Addr().(*net.TCPAddr).Port
	l.Close()
	config := fmt.Sprintf(`Port %d
ListenAddress 127.0.0.1
HostKey %[2]s/host
PidFile %[2]s/pid
AuthorizedKeysFile %[2]s/user.pub
StrictModes no
PermitRootLogin prohibit-password
PasswordAuthentication no
UsePAM no
ChrootDirectory %[3]s
`, port, work, dir)
	if err := os.WriteFile(filepath.Join(work, "config"), []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll("/run/sshd", 0o755); err != nil {
		t.Fatal(err)
	}
	c := exec.Command("/usr/sbin/sshd", "-D", "-e", "-f", filepath.Join(work, "config"))
	var log bytes.Buffer
	c.Stderr, c.WaitDelay = &log, time.Second
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		c.Process.Kill()
		c.Wait()
		if t.Failed() {
			t.Log(log.String())
		}
	})
	public, err := os.ReadFile(filepath.Join(work, "host.pub"))
	if err != nil {
		t.Fatal(err)
	}
	known := filepath.Join(work, "known_hosts")
	if err := os.WriteFile(known, fmt.Appendf(nil, "[127.0.0.1]:%d %s", port, public), 0o600); err != nil {
		t.Fatal(err)
	}
	for range 100 {
		if conn, err := net.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", port)); err == nil {
			conn.Close()
			break
		}
		time.Sleep(50 * time.Millisecond)
	}
	return remote.Target{User: "root", Host: "127.0.0.1", Port: port},
		remote.Options{KnownHosts: []string{known}, Keys: []string{filepath.Join(work, "user")}}
}

// TestRealMachine hardens a Debian through a real server, audits it, and undoes it.
func TestRealMachine(t *testing.T) {
	if os.Getenv("ISC_REAL") == "" {
		t.Skip("runs with ISC_REAL")
	}
	archive, err := basetest.Debian(t.Context(), basetest.SmallDebian)
	if err != nil {
		t.Fatal(err)
	}
	// sshd wants every folder above the root to be root's alone.
	dir, err := os.MkdirTemp("/var/lib", "isc-machine-*")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command("tar", "-xpf", archive, "-C", dir).CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	t.Setenv("SSH_AUTH_SOCK", "")
	target, o := sshd(t, dir)
	client, err := remote.Dial(t.Context(), target, o)
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	if system, err := provisioner.System(t.Context(), client); err != nil || system != profiles.Linux {
		t.Fatalf("%q, %v", system, err)
	}
	before := state(t, dir)
	s := baseline(t)
	var backup *profiles.Backup
	opts := provisioner.Options{Dir: t.TempDir(), Today: today, Save: func(b *profiles.Backup) error { backup = b; return nil }}
	plan, err := provisioner.Plan(t.Context(), client, s, opts)
	if err != nil || len(plan) == 0 || state(t, dir) != before {
		t.Fatalf("%d changes planned, %v", len(plan), err)
	}
	report, err := provisioner.Audit(t.Context(), client, s, opts)
	if err != nil {
		t.Fatal(err)
	}
	failed := report.Count(profiles.Fail)
	changes, report, err := provisioner.Harden(t.Context(), client, profiles.Linux, s, opts)
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%d objects changed, %d controls failed before, %d after", len(changes), failed, report.Count(profiles.Fail))
	for _, c := range report.Controls {
		if c.Status == profiles.Fail {
			t.Errorf("%s %s: %v", c.ID, c.Title, c.Findings)
		}
	}
	if err := provisioner.Undo(t.Context(), client, profiles.Linux, backup, opts); err != nil {
		t.Fatal(err)
	}
	if after := state(t, dir); after != before {
		for line := range strings.Lines(after) {
			if !strings.Contains(before, line) {
				t.Errorf("after: %q", line)
			}
		}
		for line := range strings.Lines(before) {
			if !strings.Contains(after, line) {
				t.Errorf("before: %q", line)
			}
		}
	}
}
