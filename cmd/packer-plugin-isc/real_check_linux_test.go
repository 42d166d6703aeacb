package main_test

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/goldenisc/packer-plugin-isc/internal/basetest"
)

// TestRealPluginCheck has Packer's own tool look at the plugin.
func TestRealPluginCheck(t *testing.T) {
	p := newPacker(t)
	name, err := binary()
	if err != nil {
		t.Fatal(err)
	}
	tool := filepath.Join(t.TempDir(), "packer-sdc")
	if out, err := exec.Command("go", "build", "-o", tool, "github.com/hashicorp/packer-plugin-sdk/cmd/packer-sdc").CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	c := exec.Command(tool, "plugin-check", filepath.Base(name))
	c.Dir, c.Env = filepath.Dir(name), p.env
	if out, err := c.CombinedOutput(); err != nil {
		t.Errorf("%v\n%s", err, out)
	}
}

// TestRealAbort keeps the tree of a build that failed, and says where it is.
func TestRealAbort(t *testing.T) {
	p := newPacker(t)
	archive, err := basetest.Debian(context.Background(), basetest.SmallDebian)
	if err != nil {
		t.Fatal(err)
	}
	p.template(t, "web.pkr.hcl", fmt.Sprintf(`
source "isc-image" "web" {
  output           = "oci:images"
  temporary_folder = %q
  image {
    name    = "web"
    version = "1"
    os      = "linux"
    arch    = "amd64"
  }
  base {
    source = "tar:%s"
  }
}

build {
  sources = ["source.isc-image.web"]
  provisioner "shell" {
    inline = ["echo here >/etc/made", "exit 3"]
  }
}
`, t.TempDir(), archive))
	out := p.run(t, 1, "build", "-on-error=abort", "web.pkr.hcl")
	m := regexp.MustCompile(`The tree is left in (\S+)`).FindStringSubmatch(out)
	if m == nil {
		t.Fatal(out)
	}
	t.Cleanup(func() { os.RemoveAll(m[1]) })
	if data, err := os.ReadFile(filepath.Join(m[1], "etc/made")); err != nil || string(data) != "here\n" {
		t.Errorf("%q, %v", data, err)
	}
	if mounts, err := os.ReadFile("/proc/self/mountinfo"); err != nil || strings.Contains(string(mounts), m[1]) {
		t.Errorf("something is mounted in it: %v", err)
	}
}

// TestRealProvenance has core's post-processor attest our files, and core verify that.
func TestRealProvenance(t *testing.T) {
	p := newPacker(t)
	for _, args := range [][]string{
		{"ecparam", "-name", "prime256v1", "-genkey", "-noout", "-out", "ec.pem"},
		{"pkcs8", "-topk8", "-nocrypt", "-in", "ec.pem", "-out", "key.pem"},
		{"ec", "-in", "ec.pem", "-pubout", "-out", "key.pub"},
	} {
		c := exec.Command("openssl", args...)
		c.Dir = p.dir
		if out, err := c.CombinedOutput(); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
	}
	p.template(t, "web.pkr.hcl", `
source "isc-image" "web" {
  output = "oci-archive:web.tar"
`+blocks+`}

build {
  sources = ["source.isc-image.web"]
  post-processor "provenance" {
    signing_mode = "key"
    key          = "key.pem"
  }
}
`)
	p.run(t, 0, "validate", "web.pkr.hcl")
	p.run(t, 0, "build", "web.pkr.hcl")
	found, err := filepath.Glob(filepath.Join(p.dir, "*provenance.json"))
	if err != nil || len(found) != 1 {
		t.Fatalf("%q, %v", found, err)
	}
	verify := []string{"verify-attestation", "-signing-mode", "key", "-verifier", "key.pub", "-artifact", "web.tar", filepath.Base(found[0])}
	if out := p.run(t, 0, verify...); !strings.Contains(out, "Attestation verified") {
		t.Error(out)
	}
	f, err := os.OpenFile(filepath.Join(p.dir, "web.tar"), os.O_WRONLY|os.O_APPEND, 0)
	if err != nil {
		t.Fatal(err)
	}
	f.Write(make([]byte, 512))
	f.Close()
	if out := p.run(t, 1, verify...); !strings.Contains(out, "does not match") {
		t.Error(out)
	}
}

// TestRealOverhead says what the way through Packer costs.
func TestRealOverhead(t *testing.T) {
	p := newPacker(t)
	p.write(t, "web.isc.hcl", blocks)
	p.template(t, "web.pkr.hcl", `
source "isc-image" "web" {
  output = "oci:images"
  spec   = "web.isc.hcl"
}

build {
  sources = ["source.isc-image.web"]
}
`)
	best := func(run func(n int)) time.Duration {
		least := time.Hour
		for n := range 3 {
			start := time.Now()
			run(n)
			least = min(least, time.Since(start))
		}
		return least
	}
	packer := best(func(int) { p.run(t, 0, "build", "-force", "web.pkr.hcl") })
	alone := best(func(n int) { iscadm(t, p.dir, "build", "web.isc.hcl", "-o", fmt.Sprintf("oci:other%d", n)) })
	t.Logf("packer build %.2f s, iscadm build %.2f s: overhead %.2f s", packer.Seconds(), alone.Seconds(), (packer - alone).Seconds())
}

// TestRealUser provisions a Debian tree as somebody else than root, with subordinate ids.
func TestRealUser(t *testing.T) {
	p := newPacker(t)
	archive, err := basetest.Debian(context.Background(), basetest.SmallDebian)
	if err != nil {
		t.Fatal(err)
	}
	if os.Geteuid() == 0 {
		for _, name := range []string{"/etc/subuid", "/etc/subgid"} {
			data, err := os.ReadFile(name)
			if err != nil && !os.IsNotExist(err) {
				t.Fatal(err)
			}
			if !matches(string(data), "nobody:") {
				// As .ci/user.sh does it.
				if err := os.WriteFile(name, append(data, "nobody:1879048192:65536\n"...), 0o644); err != nil {
					t.Fatal(err)
				}
			}
		}
		p.nobody(t)
		data, err := os.ReadFile(archive)
		if err != nil {
			t.Fatal(err)
		}
		archive = filepath.Join(p.dir, "debian.tar")
		if err := os.WriteFile(archive, data, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	p.write(t, "site/index.html", "hello\n")
	p.template(t, "web.pkr.hcl", fmt.Sprintf(`
source "isc-image" "web" {
  output = "oci:images"
  image {
    name    = "web"
    version = "1"
    os      = "linux"
    arch    = "amd64"
  }
  base {
    source = "tar:%s"
  }
  profile {
    name = "none"
  }
}

build {
  sources = ["source.isc-image.web"]
  provisioner "file" {
    source      = "site"
    destination = "/srv"
  }
  provisioner "shell" {
    inline = [
      "set -e",
      "test \"$(id -u)\" = 0",
      "adduser --system --group webd >/dev/null",
      "install -d -o webd -g webd -m 0750 /var/lib/webd",
      "echo made here >/var/lib/webd/file",
      "chown webd:webd /var/lib/webd/file",
    ]
  }
  provisioner "file" {
    source      = "/var/lib/webd/file"
    destination = "fetched"
    direction   = "download"
  }
}
`, archive))
	out := p.run(t, 0, "build", "-machine-readable", "web.pkr.hcl")
	digest := strings.Join(records(out, "isc-digest")[0], ":")
	content := iscadm(t, p.dir, "export", "oci:images@"+digest, "content")
	for _, want := range []string{
		`\./srv/site/index\.html .*uid=0 .*size=6`,
		`\./var/lib/webd .*mode=0750.*uid=[1-9][0-9]* gid=[1-9]`,
		`\./var/lib/webd/file .*uid=[1-9][0-9]{0,3} `,
		`\./etc/shadow .*gid=42`,
	} {
		if !matches(content, want) {
			t.Errorf("no line %s", want)
		}
	}
	if info, err := os.Stat(filepath.Join(p.dir, "images")); err != nil || info.Sys().(*syscall.Stat_t).Uid == 0 && p.user != 0 {
		t.Errorf("the layout is root's: %v", err)
	}
}

// nobody has packer run as an ordinary user, with folders of its own.
func (p *packer) nobody(t *testing.T) {
	t.Helper()
	p.user = 65534
	// Folders of tests are below one that is root's alone.
	top, err := os.MkdirTemp("/var/tmp", "isc-nobody-*")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(top) })
	p.dir = filepath.Join(top, "work")
	home := filepath.Join(top, "home")
	for _, dir := range []string{p.dir, home, filepath.Join(top, "tmp")} {
		if err := os.Mkdir(dir, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	bin := filepath.Join(top, "bin")
	if err := os.Mkdir(bin, 0o755); err != nil {
		t.Fatal(err)
	}
	plugin, err := binary()
	if err != nil {
		t.Fatal(err)
	}
	program, err := exec.LookPath(p.program)
	if err != nil {
		t.Fatal(err)
	}
	// The originals are in root's home.
	for _, name := range []string{plugin, program} {
		data, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(bin, filepath.Base(name)), data, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for _, dir := range []string{top, p.dir, home, filepath.Join(top, "tmp")} {
		if err := os.Chown(dir, int(p.user), int(p.user)); err != nil {
			t.Fatal(err)
		}
	}
	p.program = filepath.Join(bin, filepath.Base(program))
	p.env = []string{
		"CHECKPOINT_DISABLE=1", "PACKER_NO_COLOR=1", "HOME=" + home, "TMPDIR=" + filepath.Join(top, "tmp"), "SOURCE_DATE_EPOCH=1700000000",
		"PACKER_PLUGIN_PATH=" + filepath.Join(home, "plugins"), "PACKER_CONFIG_DIR=" + filepath.Join(home, "config"),
		"PACKER_CACHE_DIR=" + filepath.Join(home, "cache"), "PATH=/usr/sbin:/usr/bin:/sbin:/bin",
	}
	p.run(t, 0, "plugins", "install", "--path", filepath.Join(bin, "packer-plugin-isc"), "github.com/goldenisc/isc")
}
