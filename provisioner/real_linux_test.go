package provisioner_test

import (
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
