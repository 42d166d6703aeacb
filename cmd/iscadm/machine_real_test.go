//go:build linux

package main

import (
	"bytes"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/goldenisc/packer-plugin-isc/image"
	"github.com/goldenisc/packer-plugin-isc/internal/basetest"
	"github.com/goldenisc/packer-plugin-isc/internal/sshtest"
)

// A unit of a service of the Debian root, which is linked with a few libraries.
const pingUnit = `[Unit]
Description=Pings
Requires=network-online.target
[Service]
ExecStart=ping -i 60 $TARGET
User=www-data
EnvironmentFile=-/etc/default/pinger
StateDirectory=pinger
AmbientCapabilities=CAP_NET_RAW
[Install]
WantedBy=multi-user.target
`

// TestRealMachine has the command itself audit, harden, audit and undo a Debian behind a real OpenSSH
// server, and adopt a service of it, there and as a folder.
func TestRealMachine(t *testing.T) {
	if os.Getenv("ISC_REAL") == "" {
		t.Skip("ISC_REAL is not set: make test-real runs this")
	}
	archive, err := basetest.Debian(t.Context(), basetest.SmallDebian)
	if err != nil {
		t.Fatal(err)
	}
	server := sshtest.Start(t, archive)
	work := t.TempDir()
	for name, text := range map[string]string{"pinger.service": pingUnit} {
		if err := os.WriteFile(filepath.Join(server.Root, "etc/systemd/system", name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	// The command knows hosts by the user's file only.
	home := filepath.Join(work, "home")
	if err := os.MkdirAll(filepath.Join(home, ".ssh"), 0o700); err != nil {
		t.Fatal(err)
	}
	known, err := os.ReadFile(server.Known.KnownHosts[0])
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(home, ".ssh/known_hosts"), known, 0o600); err != nil {
		t.Fatal(err)
	}
	t.Setenv("HOME", home)
	t.Setenv("ISCADM_STATE", filepath.Join(work, "state"))
	url := fmt.Sprintf("ssh://root@127.0.0.1:%d?key=%s", server.Port, server.Key)

	iscadm := func(want int, args ...string) string {
		t.Helper()
		var out, diag bytes.Buffer
		if status := run(t.Context(), args, strings.NewReader(""), &out, &diag); status != want {
			t.Fatalf("iscadm %s: status %d, want %d\n%s%s", strings.Join(args, " "), status, want, tailOf(out.String()), diag.String())
		}
		return out.String()
	}
	for _, root := range []string{"dir:" + server.Root, url} {
		file := filepath.Join(work, "adopted.isc.hcl")
		if err := os.Remove(file); err != nil && !os.IsNotExist(err) {
			t.Fatal(err)
		}
		iscadm(0, "adopt", root, "--service", "pinger", "-o", file)
		iscadm(0, "validate", file)
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for _, want := range []string{
			`"/usr/bin/ping -i 60"`, "$TARGET is replaced", "/usr/bin/ping", "package iputils-ping", "libcap.so.2", "package libc6", "ld-linux-x86-64.so.2",
			`user        = "www-data"`, "not carried over: EnvironmentFile=-/etc/default/pinger", `privileges = ["basic", "net_icmpaccess"]`, `"/var/lib/pinger"`, "Packages: ",
		} {
			if !bytes.Contains(text, []byte(want)) {
				t.Errorf("adopt %s: the spec does not hold %q:\n%s", root, want, text)
			}
		}
	}

	before := rootText(t, server.Root)
	if out := iscadm(3, "audit", url, "--format", "junit"); !strings.Contains(out, "<failure ") {
		t.Error("the report has no failure")
	}
	if out := iscadm(0, "harden", url, "--dry-run"); !strings.Contains(out, "\n+") || rootText(t, server.Root) != before {
		t.Error("a dry run shows nothing, or changed the machine")
	}
	backup := filepath.Join(work, "backup.json")
	iscadm(0, "harden", url, "--backup", backup)
	if rootText(t, server.Root) == before {
		t.Error("nothing was changed")
	}
	if out := iscadm(0, "audit", url, "--format", "html"); !strings.Contains(out, "Every control holds") {
		t.Error("the page does not say so")
	}
	if out := iscadm(0, "harden", url, "--dry-run", "--json"); !strings.Contains(out, `"changes": []`) {
		t.Errorf("hardening again would change %s", out)
	}
	iscadm(0, "harden", url, "--undo", backup)
	if after := rootText(t, server.Root); after != before {
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

// tailOf is the end of what a command said.
func tailOf(s string) string { return s[max(0, len(s)-2000):] }

// rootText is a root as text.
func rootText(t *testing.T, dir string) string {
	t.Helper()
	tree, err := image.ReadDir(t.Context(), dir, image.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer tree.Close()
	var b strings.Builder
	for e := range tree.All() {
		fmt.Fprintf(&b, "%s %v %d:%d %s %x\n", e.Name, e.Mode&^fs.ModeIrregular, e.UID, e.GID, e.Target, e.Digest)
	}
	return b.String()
}
