package main_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/goldenisc/packer-plugin-isc/internal/basetest"
	"github.com/goldenisc/packer-plugin-isc/internal/sshtest"
	"github.com/goldenisc/packer-plugin-isc/registry"
)

// TestRealBuild goes from init to an image that iscadm builds of the same spec, byte for byte.
func TestRealBuild(t *testing.T) {
	p := newPacker(t)
	p.template(t, "web.pkr.hcl", `
source "isc-image" "web" {
  output = "oci:images"
`+blocks+`}

build {
  sources = ["source.isc-image.web"]
  post-processor "checksum" {
    checksum_types = ["sha256"]
    output         = "sums"
  }
  post-processor "manifest" {
    output = "manifest.json"
  }
}
`)
	p.run(t, 0, "init", "web.pkr.hcl")
	p.run(t, 0, "fmt", "-check", "-diff", "web.pkr.hcl")
	p.run(t, 0, "validate", "web.pkr.hcl")
	out := p.run(t, 0, "build", "-machine-readable", "web.pkr.hcl")
	digests := records(out, "isc-digest")
	if len(digests) != 1 || len(digests[0]) != 2 {
		t.Fatalf("digests: %v\n%s", digests, out)
	}
	digest := strings.Join(digests[0], ":")

	// The same in a spec file; Packer has no $${ in it.
	p.write(t, "web.isc.hcl", blocks)
	if got := iscadm(t, p.dir, "build", "web.isc.hcl", "-o", "oci:other"); !sameArtifacts(t, p.dir, digest, got) {
		t.Errorf("packer built %s, iscadm %s, and their artifacts differ", digest, got)
	}

	// Every file of the artifact is there for those who come after it.
	sums, err := os.ReadFile(filepath.Join(p.dir, "sums"))
	if err != nil {
		t.Fatal(err)
	}
	for _, a := range records(out, "isc-artifact") {
		if hex := strings.TrimPrefix(a[1], "sha256:"); !bytes.Contains(sums, []byte(hex+"\t")) {
			t.Errorf("%s is not among the checksums:\n%s", a[0], sums)
		}
	}
	var manifest struct {
		Builds []struct {
			ArtifactID string `json:"artifact_id"`
			Files      []any  `json:"files"`
		} `json:"builds"`
	}
	data, err := os.ReadFile(filepath.Join(p.dir, "manifest.json"))
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(data, &manifest); err != nil || len(manifest.Builds) != 1 || manifest.Builds[0].ArtifactID != digest {
		t.Errorf("%v: %s", err, data)
	}

	// Nothing is overwritten, but by force.
	if out := p.run(t, 1, "build", "web.pkr.hcl"); !strings.Contains(out, "use -force to replace it") {
		t.Error(out)
	}
	if again := records(p.run(t, 0, "build", "-force", "-machine-readable", "web.pkr.hcl"), "isc-digest"); strings.Join(again[0], ":") != digest {
		t.Errorf("first %s, then %v", digest, again)
	}
}

// sameArtifacts compares two images but for the provenance, which names the spec, and the SBOMs, which
// name the version of the program.
func sameArtifacts(t *testing.T, dir, a, b string) bool {
	t.Helper()
	list := func(ref string) string {
		var doc struct {
			Artifacts []struct{ Name, Digest string } `json:"artifacts"`
		}
		if err := json.Unmarshal([]byte(iscadm(t, dir, "inspect", "--json", ref)), &doc); err != nil {
			t.Fatal(err)
		}
		var s string
		for _, a := range doc.Artifacts {
			if a.Name != "provenance" && !strings.HasPrefix(a.Name, "sbom") {
				s += a.Name + " " + a.Digest + "\n"
			}
		}
		return s
	}
	x, y := list("oci:images@"+a), list("oci:other@"+b)
	if x != y {
		t.Logf("%s\n%s", x, y)
	}
	return x == y && strings.Contains(x, "zone sha256:")
}

// TestRealErrors shows all mistakes of a template at once.
func TestRealErrors(t *testing.T) {
	p := newPacker(t)
	p.template(t, "bad.pkr.hcl", `
source "isc-image" "web" {
  output = "registry.example/web:1"
  image {
    name    = "Web"
    version = "1.4.0"
    os      = "linux"
    arch    = "x86_64"
  }
  base {
    source = "tar:nowhere.tar"
  }
  file {
    path = "/a"
  }
  file {
    path    = "/b"
    content = ""
    mode    = "999"
  }
  zone {
    compression = "rar"
  }
}

build {
  sources = ["source.isc-image.web"]
}
`)
	out := p.run(t, 1, "validate", "bad.pkr.hcl")
	for _, want := range []string{
		"image.name:", "image.arch:", "base.source:", "file[0]", "file[1].mode:", "zone[0].compression:", "output:", "isc-publish",
	} {
		if !strings.Contains(out, want) {
			t.Errorf("nothing about %q in\n%s", want, out)
		}
	}
	p.template(t, "unknown.pkr.hcl", "source \"isc-image\" \"web\" {\n  output = \"oci:x\"\n  imgae {\n  }\n}\n\nbuild {\n  sources = [\"source.isc-image.web\"]\n}\n")
	if out := p.run(t, 1, "validate", "unknown.pkr.hcl"); !strings.Contains(out, "image") {
		t.Error(out)
	}
	for text, want := range map[string]string{
		`output = "oci:x"`:                           "a spec is missing",
		"output = \"oci:x\"\nspec = \"nowhere.hcl\"": "nowhere.hcl",
		"spec = \"x.hcl\"\n" + blocks:                "either or",
	} {
		p.template(t, "case.pkr.hcl", "source \"isc-image\" \"web\" {\n"+text+"\n}\nbuild {\n  sources = [\"source.isc-image.web\"]\n}\n")
		if out := p.run(t, 1, "validate", "case.pkr.hcl"); !strings.Contains(out, want) {
			t.Errorf("%q: %s", text, out)
		}
	}
}

// TestRealProvisioners lets Packer's own provisioners work on a Debian tree.
func TestRealProvisioners(t *testing.T) {
	p := newPacker(t)
	archive, err := basetest.Debian(context.Background(), basetest.SmallDebian)
	if err != nil {
		t.Fatal(err)
	}
	p.write(t, "site/index.html", "hello\n")
	p.write(t, "site/css/main.css", "body {}\n")
	template := `
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
      "rm -r /usr/share/doc",
      "test -c /dev/null && test -d /proc/1",
      "cat /srv/site/css/main.css",
    ]
  }
  provisioner "file" {
    source      = "/var/lib/webd/file"
    destination = "fetched"
    direction   = "download"
  }
  provisioner "file" {
    content     = "last"
    destination = "/var/lib/webd/last"
  }
}
`
	p.template(t, "web.pkr.hcl", fmt.Sprintf(template, archive))
	out := p.run(t, 0, "build", "-machine-readable", "web.pkr.hcl")
	if !strings.Contains(out, "body {}") {
		t.Errorf("the output of the shell is missing:\n%s", out)
	}
	digest := strings.Join(records(out, "isc-digest")[0], ":")
	if data, err := os.ReadFile(filepath.Join(p.dir, "fetched")); err != nil || string(data) != "made here\n" {
		t.Errorf("%q, %v", data, err)
	}
	content := iscadm(t, p.dir, "export", "oci:images@"+digest, "content")
	for _, want := range []string{
		`\./srv/site/index\.html .*type=file.*uid=0 .*size=6`,
		`\./var/lib/webd .*type=dir.*mode=0750.*uid=[1-9][0-9]* gid=[1-9]`,
		`\./var/lib/webd/file .*uid=[1-9]`,
		`\./var/lib/webd/last .*uid=0 .*size=4`,
		`\./etc/shadow .*gid=42`,
	} {
		if !matches(content, want) {
			t.Errorf("no line %s", want)
		}
	}
	if strings.Contains(content, "usr/share/doc/") || strings.Contains(content, "./tmp/script") {
		t.Error("what was removed is there")
	}
	for line := range strings.Lines(content) {
		if strings.HasPrefix(line, "./srv/site") && !strings.Contains(line, "time=1700000000") {
			t.Errorf("the time was not set to the build date: %s", line)
		}
	}
	if provenance := iscadm(t, p.dir, "export", "oci:images@"+digest, "provenance"); !strings.Contains(provenance, `"provisioned":true`) {
		t.Error(provenance)
	}

	// A provisioner that fails leaves nothing, and one that destroys the tree is found out.
	before := leftovers(t)
	p.template(t, "fail.pkr.hcl", fmt.Sprintf(`
source "isc-image" "web" {
  output = "oci:failed"
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
    inline = ["rm -rf /etc"]
  }
}
`, archive))
	p.run(t, 1, "build", "fail.pkr.hcl")
	if _, err := os.Stat(filepath.Join(p.dir, "failed")); err == nil {
		t.Error("a failed build left a layout")
	}
	if after := leftovers(t); after != before {
		t.Errorf("left behind: %d folders more", after-before)
	}
}

// TestRealRelease signs and publishes, twice, and has the result verified by iscadm, cosign and the data
// source, from which another image is built.
func TestRealRelease(t *testing.T) {
	p := newPacker(t)
	server := registry.Handler(t.TempDir())
	defer server.Close()
	web := httptest.NewServer(server)
	defer web.Close()
	host := strings.TrimPrefix(web.URL, "http://")
	const secret = "pa55-word-of-the-key"
	p.env = append(p.env, "COSIGN_PASSWORD="+secret, "ISC_PLACE="+host)
	t.Setenv("COSIGN_PASSWORD", secret)
	iscadm(t, p.dir, "keygen", "-o", "release")
	p.template(t, "web.pkr.hcl", `
variable "place" {
  type    = string
  default = env("ISC_PLACE")
}

source "isc-image" "web" {
  output = "oci:images:web"
`+blocks+`}

build {
  sources = ["source.isc-image.web"]
  post-processors {
    post-processor "isc-sign" {
      key     = "release.key"
      channel = "candidate"
    }
    post-processor "isc-publish" {
      destination = "${var.place}/isc/web:1.4.0"
    }
    post-processor "checksum" {
      checksum_types = ["sha256"]
      output         = "sums"
    }
  }
}
`)
	p.env = append(p.env, "PACKER_LOG=1", "PACKER_LOG_PATH=log")
	out := p.run(t, 0, "build", "-machine-readable", "web.pkr.hcl")
	log, err := os.ReadFile(filepath.Join(p.dir, "log"))
	if err != nil || !bytes.Contains(log, []byte("isc-digest")) {
		t.Fatalf("the log: %v", err)
	}
	if strings.Contains(out+string(log), secret) {
		t.Error("the password is in the log")
	}
	key, err := os.ReadFile(filepath.Join(p.dir, "release.key"))
	if err != nil {
		t.Fatal(err)
	}
	if line := strings.Split(string(key), "\n")[1]; strings.Contains(out+string(log), line) {
		t.Error("the key is in the log")
	}
	digest := strings.Join(records(out, "isc-digest")[0], ":")
	ref := host + "/isc/web:1.4.0"
	if got := records(out, "isc-published"); len(got) != 1 || got[0][0] != ref+"@"+digest {
		t.Errorf("published %v", got)
	}
	if r := records(out, "isc-release"); len(r) != 1 || r[0][0] != "candidate" || r[0][1] != "1" {
		t.Errorf("release %v", r)
	}
	if got := iscadm(t, p.dir, "verify", ref, "--key", "release.pub"); !strings.Contains(got, "candidate") || !strings.Contains(got, digest) {
		t.Error(got)
	}
	cosign := exec.Command("cosign", "verify", "--key", "release.pub", "--insecure-ignore-tlog", "--allow-http-registry", ref)
	cosign.Dir = p.dir
	if out, err := cosign.CombinedOutput(); err != nil {
		t.Errorf("cosign: %v\n%s", err, out)
	}
	again := p.run(t, 0, "build", "-force", "-machine-readable", "web.pkr.hcl")
	if got := strings.Join(records(again, "isc-digest")[0], ":"); got != digest {
		t.Errorf("built %s, then %s", digest, got)
	}
	if r := records(again, "isc-release"); len(r) != 1 || r[0][1] != "1" {
		t.Errorf("released again as %v", r)
	}

	// What is verified becomes a base.
	next := `
data "isc-image" "base" {
  reference = "` + ref + `"
  keys      = ["%s"]
  channel   = "%s"
}

source "isc-image" "next" {
  output = "oci:next"
  image {
    name    = "next"
    version = data.isc-image.base.version
    os      = data.isc-image.base.os
    arch    = data.isc-image.base.arch
  }
  base {
    source = data.isc-image.base.reference
  }
}

build {
  sources = ["source.isc-image.next"]
}
`
	p.template(t, "next.pkr.hcl", fmt.Sprintf(next, "release.pub", "candidate"))
	p.run(t, 0, "validate", "next.pkr.hcl")
	p.run(t, 0, "build", "next.pkr.hcl")
	if got := iscadm(t, p.dir, "inspect", "oci:next"); !strings.Contains(got, digest) {
		t.Errorf("the base is not named:\n%s", got)
	}
	p.template(t, "next.pkr.hcl", fmt.Sprintf(next, "release.pub", "stable"))
	if out := p.run(t, 1, "build", "-force", "next.pkr.hcl"); !strings.Contains(out, `channel "candidate"`) {
		t.Error(out)
	}
	iscadm(t, p.dir, "keygen", "-o", "other")
	p.template(t, "next.pkr.hcl", fmt.Sprintf(next, "other.pub", "candidate"))
	if out := p.run(t, 1, "build", "-force", "next.pkr.hcl"); !strings.Contains(out, "not verified") {
		t.Error(out)
	}

	// A registry that is gone fails the build, and what was built is there.
	web.Close()
	if out := p.run(t, 1, "build", "-force", "web.pkr.hcl"); !strings.Contains(out, "run the same again") {
		t.Error(out)
	}
	iscadm(t, p.dir, "inspect", "oci:images:web")
}

// TestRealParallel builds two images into one layout at once, and one of them alone.
func TestRealParallel(t *testing.T) {
	p := newPacker(t)
	text := ""
	for _, name := range []string{"one", "two", "three"} {
		text += "source \"isc-image\" \"" + name + "\" {\n  output = \"oci:images:" + name + "\"\n  spec = \"web.isc.hcl\"\n  set = {\n    \"image.name\" = \"" + name + "\"\n  }\n}\n\n"
	}
	p.write(t, "web.isc.hcl", blocks)
	p.template(t, "all.pkr.hcl", text+"build {\n  sources = [\"source.isc-image.one\", \"source.isc-image.two\", \"source.isc-image.three\"]\n}\n")
	p.run(t, 0, "build", "-only=isc-image.two", "all.pkr.hcl")
	if out := p.run(t, 1, "build", "all.pkr.hcl"); strings.Count(out, "use -force to replace it") == 0 {
		t.Error(out)
	}
	p.run(t, 0, "build", "-force", "all.pkr.hcl")
	for _, name := range []string{"one", "two", "three"} {
		if got := iscadm(t, p.dir, "inspect", "oci:images:"+name); !strings.Contains(got, name+" 1.4.0") {
			t.Errorf("%s: %s", name, got)
		}
	}
}

// TestRealPackage makes an appliance of a disk that another builder left.
func TestRealPackage(t *testing.T) {
	p := newPacker(t)
	raw := make([]byte, 8<<20)
	copy(raw[1<<20:], "what the guest wrote")
	p.write(t, "disk.raw", string(raw))
	convert := exec.Command("qemu-img", "convert", "-f", "raw", "-O", "qcow2", "disk.raw", "packer-web.qcow2")
	convert.Dir = p.dir
	if out, err := convert.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	template := `
source "null" "vm" {
  communicator = "none"
}

build {
  sources = ["source.null.vm"]
  post-processors {
    post-processor "artifice" {
      files = [%s]
    }
    post-processor "isc-package" {
      output = "oci:appliances"
      image {
        name    = "web"
        version = "1"
        os      = "linux"
        arch    = "amd64"
      }
      ova {
        memory = "1GiB"
        cpus   = 2
      }
      raw_disk {
        compression = "none"
      }
    }
  }
}
`
	p.template(t, "package.pkr.hcl", fmt.Sprintf(template, `"packer-web.qcow2"`))
	p.run(t, 0, "validate", "package.pkr.hcl")
	out := p.run(t, 0, "build", "-machine-readable", "package.pkr.hcl")
	digest := strings.Join(records(out, "isc-digest")[0], ":")
	iscadm(t, p.dir, "export", "oci:appliances@"+digest, "raw_disk", "-o", "back.raw")
	if back, err := os.ReadFile(filepath.Join(p.dir, "back.raw")); err != nil || !bytes.Equal(back, raw) {
		t.Errorf("the disk is another one: %v", err)
	}
	iscadm(t, p.dir, "export", "oci:appliances@"+digest, "ova", "-o", "web.ova")
	iscadm(t, p.dir, "ovf", "check", "web.ova")

	p.template(t, "package.pkr.hcl", fmt.Sprintf(template, `"packer-web.qcow2", "disk.raw"`))
	if out := p.run(t, 1, "build", "-force", "package.pkr.hcl"); !strings.Contains(out, "disk_file") {
		t.Error(out)
	}
}

// TestRealExamples builds the templates of the folder example, as their comments say.
func TestRealExamples(t *testing.T) {
	p := newPacker(t)
	root, err := filepath.Abs("../..")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(filepath.Join(root, "example"), filepath.Join(p.dir, "example")); err != nil {
		t.Fatal(err)
	}
	server := registry.Handler(t.TempDir())
	defer server.Close()
	web := httptest.NewServer(server)
	defer web.Close()
	repo := strings.TrimPrefix(web.URL, "http://") + "/isc/web"
	p.env = append(p.env, "COSIGN_PASSWORD=")
	t.Setenv("COSIGN_PASSWORD", "")
	iscadm(t, p.dir, "keygen", "-o", "release")
	disk := make([]byte, 2<<20)
	copy(disk[1<<20:], "a guest")
	p.write(t, "web.raw", string(disk))
	done := map[string]bool{}
	for _, c := range []struct {
		name string
		vars []string
	}{
		{"image", nil},
		{"release", []string{"destination=" + repo}},
		{"base", []string{"reference=" + repo + ":1.0.0"}},
		{"capture", []string{"disk=web.raw"}},
	} {
		name := "example/" + c.name + ".pkr.hcl"
		done[name] = true
		t.Run(c.name, func(t *testing.T) {
			var vars []string
			for _, v := range c.vars {
				vars = append(vars, "-var", v)
			}
			p.run(t, 0, "init", name)
			p.run(t, 0, "fmt", "-check", "-diff", name)
			p.run(t, 0, append(append([]string{"validate"}, vars...), name)...)
			out := p.run(t, 0, append(append([]string{"build", "-force", "-machine-readable"}, vars...), name)...)
			if len(records(out, "isc-digest")) != 1 {
				t.Error(out)
			}
		})
	}
	iscadm(t, p.dir, "verify", repo+":1.0.0", "--key", "release.pub")
	p.run(t, 0, "validate", "-var", "host=ssh://builder@omnios.example", "example/zone.pkr.hcl")
	all, err := filepath.Glob(filepath.Join(root, "example", "*.pkr.hcl"))
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range all {
		if rel := "example/" + filepath.Base(name); !done[rel] {
			p.run(t, 0, "fmt", "-check", "-diff", rel) // its builders need a host of their own
		}
	}
}

// TestRealHarden hardens a Debian behind a real OpenSSH server through the ssh communicator of the null
// builder.
func TestRealHarden(t *testing.T) {
	p := newPacker(t)
	archive, err := basetest.Debian(context.Background(), basetest.SmallDebian)
	if err != nil {
		t.Fatal(err)
	}
	server := sshtest.Start(t, archive)
	template := `
source "null" "vm" {
  ssh_host             = "127.0.0.1"
  ssh_port             = %d
  ssh_username         = "root"
  ssh_private_key_file = %q
}

build {
  sources = ["source.null.vm"]
  provisioner "isc-harden" {
    report = "report.json"
    %s
  }
}
`
	p.template(t, "harden.pkr.hcl", fmt.Sprintf(template, server.Port, server.Key, "audit_only = true"))
	p.run(t, 0, "validate", "harden.pkr.hcl")
	out := p.run(t, 1, "build", "-machine-readable", "harden.pkr.hcl")
	if found := records(out, "isc-finding"); len(found) == 0 || !strings.Contains(out, "do not hold") {
		t.Errorf("findings %v\n%s", found, out)
	}
	p.template(t, "harden.pkr.hcl", fmt.Sprintf(template, server.Port, server.Key, ""))
	p.run(t, 0, "build", "harden.pkr.hcl")
	if data, err := os.ReadFile(filepath.Join(p.dir, "report.json")); err != nil || !bytes.Contains(data, []byte(`"profile": "isc-baseline"`)) && !bytes.Contains(data, []byte(`"profile":"isc-baseline"`)) {
		t.Errorf("%v: %.200s", err, data)
	}
	if _, err := os.Stat(filepath.Join(server.Root, "etc/sysctl.d/99-zz-isc.conf")); err != nil {
		t.Error(err)
	}
	p.template(t, "harden.pkr.hcl", fmt.Sprintf(template, server.Port, server.Key, `profile = "isc-nothing"`))
	if out := p.run(t, 1, "validate", "harden.pkr.hcl"); !strings.Contains(out, "isc-nothing") {
		t.Error(out)
	}
}
