package main_test

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/goldenisc/packer-plugin-isc/cmd/packer-plugin-isc/internal/zonetest"
	"github.com/goldenisc/packer-plugin-isc/internal/basetest"
	"github.com/goldenisc/packer-plugin-isc/internal/sshtest"
)

// A zoneHost is a host of illumos behind a real OpenSSH server, as far as its commands go. Zones are
// those of OmniOS, with a shell that runs here.
type zoneHost struct {
	*zonetest.Host
	root string // of the host
	url  string
}

func newZoneHost(t *testing.T, p *packer) *zoneHost {
	t.Helper()
	archive, err := basetest.Debian(context.Background(), basetest.SmallDebian)
	if err != nil {
		t.Fatal(err)
	}
	server := sshtest.Start(t, archive)
	h := zonetest.Install(t, filepath.Join(server.Root, "usr/local/bin"))
	h.Chroot(t)
	var omnios bytes.Buffer
	if err := basetest.OmniOS(&omnios); err != nil {
		t.Fatal(err)
	}
	unpack := exec.Command("tar", "-xpf", "-", "-C", h.Template())
	unpack.Stdin = &omnios
	run := func(c *exec.Cmd) {
		t.Helper()
		if out, err := c.CombinedOutput(); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
	}
	run(unpack)
	run(exec.Command("cp", "/usr/bin/busybox", filepath.Join(h.Template(), "usr/bin/busybox")))
	for _, name := range []string{"sh", "cat", "chmod", "chown", "env", "id", "mkdir", "rm", "sleep", "tar", "test"} {
		run(exec.Command("ln", "-sf", "/usr/bin/busybox", filepath.Join(h.Template(), "usr/bin", name)))
	}
	// Of the environment that packer runs in.
	home := ""
	for _, e := range p.env {
		if v, ok := strings.CutPrefix(e, "HOME="); ok {
			home = v
		}
	}
	known, err := os.ReadFile(server.Known.KnownHosts[0])
	if err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll(filepath.Join(home, ".ssh"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(home, ".ssh", "known_hosts"), known, 0o600); err != nil {
		t.Fatal(err)
	}
	return &zoneHost{Host: h, root: server.Root, url: fmt.Sprintf("ssh://root@127.0.0.1:%d?key=%s", server.Port, server.Key)}
}

// zoneTemplate has the output, more of the source and the provisioners to be filled in.
const zoneTemplate = `
source "isc-zone" "web" {
  host   = %q
  brand  = "illumos"
  output = "oci:%s"
  %s
  image {
    name    = "web"
    version = "1.4.0"
    os      = "illumos"
    arch    = "amd64"
  }
  profile {
    name = "none"
  }
  file {
    path    = "/etc/motd"
    content = "of the spec\n"
  }
}

build {
  sources = ["source.isc-zone.web"]
  %s
}
`

// TestRealZone makes an image by way of a zone.
func TestRealZone(t *testing.T) {
	p := newPacker(t)
	h := newZoneHost(t, p)
	// gone checks that the host is as it was.
	gone := func(t *testing.T) {
		t.Helper()
		if zones := h.Zones(t); zones != "" {
			t.Errorf("left behind: %s\n%s", zones, h.Log(t))
		}
		if names, _ := filepath.Glob(filepath.Join(h.root, "zones/*")); len(names) > 0 {
			t.Errorf("left behind: %q", names)
		}
		if names, _ := filepath.Glob(filepath.Join(h.root, "var/tmp/isc-*")); len(names) > 0 {
			t.Errorf("left behind: %q", names)
		}
	}

	t.Run("build", func(t *testing.T) {
		p.write(t, "site/index.html", "hello\n")
		p.template(t, "zone.pkr.hcl", fmt.Sprintf(zoneTemplate, h.url, "images", "", `
  provisioner "file" {
    source      = "site"
    destination = "/srv"
  }
  provisioner "shell" {
    inline = [
      "set -e",
      "test \"$(id -u)\" = 0",
      "mkdir -p /opt/web",
      "echo \"made in ${build.ISCZone}\" >/opt/web/made",
      "chown 801:801 /opt/web/made",
      "chmod 0640 /opt/web/made",
      "cat /srv/site/index.html",
    ]
  }
  provisioner "file" {
    source      = "/opt/web/made"
    destination = "fetched"
    direction   = "download"
  }`))
		p.run(t, 0, "validate", "zone.pkr.hcl")
		out := p.run(t, 0, "build", "-machine-readable", "zone.pkr.hcl")
		if !strings.Contains(out, "hello") {
			t.Errorf("the output of the shell is missing:\n%s", out)
		}
		digest := strings.Join(records(out, "isc-digest")[0], ":")
		if data, err := os.ReadFile(filepath.Join(p.dir, "fetched")); err != nil || string(data) != "made in isc-web\n" {
			t.Errorf("%q, %v", data, err)
		}
		content := iscadm(t, p.dir, "export", "oci:images@"+digest, "content")
		for _, want := range []string{
			`\./srv/site/index\.html .*type=file.*uid=0 .*size=6`,
			`\./opt/web/made .*mode=0640.*uid=801 gid=801.*size=16`,
			`\./etc/motd .*size=12`,
			`\./lib/svc/seed/nonglobal\.db `,
			`\./etc/shadow .*gid=3`,
		} {
			if !matches(content, want) {
				t.Errorf("no line %s", want)
			}
		}
		if strings.Contains(content, "./.zfs") || strings.Contains(content, "./tmp/script") {
			t.Error("there is more than what was made")
		}
		if provenance := iscadm(t, p.dir, "export", "oci:images@"+digest, "provenance"); !strings.Contains(provenance, `"provisioned":true`) {
			t.Error(provenance)
		}
		gone(t)
	})

	const failing = `provisioner "shell" {
    inline = ["exit 3"]
  }`
	t.Run("failure", func(t *testing.T) {
		p.template(t, "fail.pkr.hcl", fmt.Sprintf(zoneTemplate, h.url, "failed", "", failing))
		p.run(t, 1, "build", "fail.pkr.hcl")
		gone(t)
		out := p.run(t, 1, "build", "-on-error=abort", "fail.pkr.hcl")
		if h.Zones(t) != "isc-web" || !strings.Contains(out, "Zone isc-web is left on 127.0.0.1") {
			t.Errorf("left %q\n%s", h.Zones(t), out)
		}
		// It is in the way now, and stays.
		out = p.run(t, 1, "build", "fail.pkr.hcl")
		if h.Zones(t) != "isc-web" || !strings.Contains(out, "exists on the host (running), and is left alone") {
			t.Errorf("left %q\n%s", h.Zones(t), out)
		}
		for _, command := range []string{"zoneadm -z isc-web halt", "zoneadm -z isc-web uninstall -F", "zonecfg -z isc-web delete -F"} {
			c := exec.Command("chroot", append([]string{h.root}, strings.Fields(command)...)...)
			c.Env = []string{"PATH=/usr/sbin:/usr/local/bin:/usr/bin:/bin"}
			if out, err := c.CombinedOutput(); err != nil {
				t.Fatalf("%s: %v: %s", command, err, out)
			}
		}
		if _, err := os.Stat(filepath.Join(p.dir, "failed")); err == nil {
			t.Error("a failed build left a layout")
		}
	})

	for _, step := range []string{"install", "boot", "provision", "tar"} {
		t.Run("SIGTERM/"+step, func(t *testing.T) {
			provisioner := ""
			if step == "provision" {
				provisioner = "provisioner \"shell\" {\n    inline = [\"echo started\", \"exec sleep 4244\"]\n  }"
			}
			p.template(t, "cancel.pkr.hcl", fmt.Sprintf(zoneTemplate, h.url, "cancelled", "", provisioner))
			c, _ := p.command("build", "cancel.pkr.hcl")
			out := &waiter{want: "started", found: make(chan struct{})}
			c.Stdout, c.Stderr = out, out
			var reached func() bool
			if step != "provision" {
				reached = h.Hold(t, step)
			}
			if err := c.Start(); err != nil {
				t.Fatal(err)
			}
			done := make(chan error, 1)
			go func() { done <- c.Wait() }()
			if reached != nil {
				if !reached() {
					t.Error("the step was not reached")
				}
				h.Unmark(t, "hold-"+step)
			} else {
				select {
				case <-out.found:
				case err := <-done:
					t.Fatalf("%v\n%s", err, out)
				}
			}
			if err := c.Process.Signal(syscall.SIGTERM); err != nil {
				t.Fatal(err)
			}
			select {
			case <-done:
			case <-time.After(time.Minute):
				syscall.Kill(-c.Process.Pid, syscall.SIGKILL)
				t.Fatalf("it did not end\n%s", out)
			}
			if c.ProcessState.ExitCode() != 1 {
				t.Errorf("status %d\n%s", c.ProcessState.ExitCode(), out)
			}
			if _, err := os.Stat(filepath.Join(p.dir, "cancelled")); err == nil {
				t.Error("it left a layout")
			}
			gone(t)
		})
	}

	t.Run("errors", func(t *testing.T) {
		p.template(t, "bad.pkr.hcl", fmt.Sprintf(zoneTemplate, "ssh://u:p@h", "x", `zone_name = "../x"
  zonecfg   = ["set a=b; delete -F"]`, ""))
		out := p.run(t, 1, "validate", "bad.pkr.hcl")
		for _, want := range []string{"host:", "zone_name:", "zonecfg[0]:"} {
			if !strings.Contains(out, want) {
				t.Errorf("nothing of %q in\n%s", want, out)
			}
		}
	})
}
