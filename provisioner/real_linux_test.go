package provisioner_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"testing"

	"github.com/goldenisc/packer-plugin-isc/internal/basetest"
	"github.com/goldenisc/packer-plugin-isc/internal/remote"
	"github.com/goldenisc/packer-plugin-isc/internal/sshtest"
	"github.com/goldenisc/packer-plugin-isc/profiles"
	"github.com/goldenisc/packer-plugin-isc/provisioner"
)

// TestRealMachine hardens a Debian through a real server, audits it, and undoes it.
func TestRealMachine(t *testing.T) {
	if os.Getenv("ISC_REAL") == "" {
		t.Skip("runs with ISC_REAL")
	}
	archive, err := basetest.Debian(t.Context(), basetest.SmallDebian)
	if err != nil {
		t.Fatal(err)
	}
	server := sshtest.Start(t, archive)
	dir := server.Root
	client, err := remote.Dial(t.Context(), server.Target, server.Known)
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
	opts := provisioner.Options{Dir: t.TempDir(), Today: today, Save: func(b *profiles.Backup, _ []profiles.Change) error { backup = b; return nil }}
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

// TestRealServer hardens a Debian through its own ssh server, which reads what was written: as root, whom
// the profile does not let in again, through a connection that is lost half way, and as an account that
// may sudo.
func TestRealServer(t *testing.T) {
	if os.Getenv("ISC_REAL") == "" {
		t.Skip("runs with ISC_REAL")
	}
	archive, err := basetest.Debian(t.Context(), basetest.ServerDebian)
	if err != nil {
		t.Fatal(err)
	}
	server := sshtest.StartOwn(t, archive)
	dial := func(target remote.Target, as ...string) func(context.Context) (remote.Runner, func() error, error) {
		return func(ctx context.Context) (remote.Runner, func() error, error) {
			c, err := remote.Dial(ctx, target, server.Known)
			if err != nil {
				return nil, nil, err
			}
			return provisioner.As(c, as...), c.Close, nil
		}
	}
	now := func() string {
		var b strings.Builder
		for line := range strings.Lines(state(t, server.Root)) {
			if !strings.HasPrefix(line, "var/log/") { // logging in is logged
				b.WriteString(line)
			}
		}
		return b.String()
	}
	before := now()
	same := func(what string) {
		t.Helper()
		if after := now(); after != before {
			for line := range strings.Lines(after) {
				if !strings.Contains(before, line) {
					t.Errorf("%s: %q", what, line)
				}
			}
			for line := range strings.Lines(before) {
				if !strings.Contains(after, line) {
					t.Errorf("%s: lost %q", what, line)
				}
			}
		}
	}
	var backup *profiles.Backup
	harden := func(first, again func(context.Context) (remote.Runner, func() error, error)) ([]profiles.Change, *profiles.Report, error) {
		r, done, err := first(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		defer done()
		return provisioner.Harden(t.Context(), r, profiles.Linux, baseline(t), provisioner.Options{
			Dir: t.TempDir(), Today: today, Reconnect: again, Save: func(b *profiles.Backup, _ []profiles.Change) error { backup = b; return nil },
		})
	}

	root := dial(server.Target)
	if _, _, err := harden(root, root); !errors.Is(err, provisioner.ErrUndone) || !strings.Contains(err.Error(), "a new login fails") {
		t.Errorf("root locked itself out: %v", err)
	}
	same("undone")
	if r, done, err := root(t.Context()); err != nil {
		t.Errorf("root is locked out for good: %v", err)
	} else if err := errors.Join(r.Run(t.Context(), remote.Command{Args: []string{"true"}}), done()); err != nil {
		t.Error(err)
	}

	admin := dial(server.As("keeper"), "sudo", "-n")
	// What is sent before the first write is a few kilobytes, and all that is written some dozens.
	cut := server.As("keeper")
	cut.Port = cutOff(t, server.Port, 40<<10)
	known, err := os.ReadFile(server.Known.KnownHosts[0])
	if err != nil {
		t.Fatal(err)
	}
	known = append(known, strings.ReplaceAll(string(known), fmt.Sprintf(":%d ", server.Port), fmt.Sprintf(":%d ", cut.Port))...)
	if err := os.WriteFile(server.Known.KnownHosts[0], known, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, _, err := harden(dial(cut, "sudo", "-n"), admin); !errors.Is(err, provisioner.ErrUndone) {
		t.Errorf("the connection was lost: %v", err)
	}
	same("lost")

	changes, report, err := harden(admin, admin)
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%d objects changed", len(changes))
	for _, c := range report.Controls {
		if c.Status == profiles.Fail && c.ID != "E32" { // sudo that asks for no password
			t.Errorf("%s %s: %v", c.ID, c.Title, c.Findings)
		}
	}
	if _, _, err := root(t.Context()); err == nil {
		t.Error("root may still log in")
	}
	r, done, err := admin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer done()
	if err := provisioner.Undo(t.Context(), r, profiles.Linux, backup, provisioner.Options{Dir: t.TempDir(), Today: today}); err != nil {
		t.Fatal(err)
	}
	same("undo")
}

// cutOff forwards a port of this machine until so many bytes were sent to it, and returns the new port.
func cutOff(t *testing.T, to int, bytes int64) int {
	t.Helper()
	l, err := net.ListenTCP("tcp", &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			c, err := l.AcceptTCP()
			if err != nil {
				return
			}
			s, err := net.DialTCP("tcp", nil, &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: to})
			if err != nil {
				c.Close()
				return
			}
			go io.Copy(c, s) //nolint:errcheck // it ends with the connection
			go func() {
				io.CopyN(s, c, bytes) //nolint:errcheck // so does this
				c.Close()
				s.Close()
			}()
		}
	}()
	return l.Addr().(*net.TCPAddr).Port
}
