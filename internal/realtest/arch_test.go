//go:build linux

package realtest

import (
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/goldenisc/packer-plugin-isc/internal/guesttest"
)

// TestRealOtherArchitecture has the program for another processor, run by qemu-user, build the same
// specs, and compares the digests of the images; so it does with other numbers of processors.
func TestRealOtherArchitecture(t *testing.T) {
	real(t)
	other, emulator := "arm64", "qemu-aarch64-static"
	if runtime.GOARCH == other {
		other, emulator = "amd64", "qemu-x86_64-static"
	}
	program := filepath.Join(t.TempDir(), "iscadm")
	build := []string{"CGO_ENABLED=0", "GOARCH=" + other, "GOFLAGS=-buildvcs=false"}
	run(t, "../..", "env", append(build, "go", "build", "-trimpath", "-ldflags", "-X main.version=test", "-o", program, "./cmd/iscadm")...)
	native := filepath.Join(t.TempDir(), "iscadm")
	run(t, "../..", "env", "CGO_ENABLED=0", "GOFLAGS=-buildvcs=false", "go", "build", "-trimpath", "-ldflags", "-X main.version=test", "-o", native, "./cmd/iscadm")

	dir := t.TempDir()
	disk := make([]byte, 3<<20)
	for i := range disk[1<<20 : 2<<20] {
		disk[1<<20+i] = byte(i * i >> 7)
	}
	files := map[string]string{
		"disk.raw": string(disk),
		"tree.isc.hcl": `
image {
  name    = "web"
  version = "1"
  os      = "linux"
  arch    = "amd64"
}
base { source = "skeleton:linux" }
file {
  path   = "/opt/data"
  source = "disk.raw"
}
zone { compression = "zstd" }
zone {
  id          = "gz"
  compression = "gzip"
}
zfs { compression = "zstd" }
`,
		"disk.isc.hcl": `
image {
  name    = "vm"
  version = "1"
  os      = "linux"
  arch    = "amd64"
}
disk { source = "disk.raw" }
ova {}
qcow2 {}
raw_disk {}
vhd {}
`,
	}
	specs := []string{"tree.isc.hcl", "disk.isc.hcl"}
	for _, arch := range []string{"amd64", "arm64"} {
		root, err := guesttest.Tar(arch)
		if err != nil {
			t.Fatal(err)
		}
		files["root-"+arch+".tar"] = string(root)
		files["guest-"+arch+".isc.hcl"] = fmt.Sprintf(`
image {
  name    = "guest"
  version = "1"
  os      = "linux"
  arch    = %[1]q
}
base { source = "tar:root-%[1]s.tar" }
profile { name = "none" }
scratch { size = "64MiB" }
swap { size = "16MiB" }
ova { level = "small" }
vmdk { hardware = ["ahci"] }
raw_disk {
  compression = "none"
  hardware    = ["ahci"]
}
`, arch)
		specs = append(specs, "guest-"+arch+".isc.hcl")
	}
	for name, data := range files {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(data), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	for _, spec := range specs {
		mine := strings.TrimSpace(string(run(t, dir, native, "build", spec, "-o", "oci:mine")))
		if !strings.HasPrefix(mine, "sha256:") {
			t.Fatalf("%s: %q", spec, mine)
		}
		for _, n := range []string{"1", "2", "7"} {
			again := strings.TrimSpace(string(run(t, dir, "env", "GOMAXPROCS="+n, native, "build", spec, "-o", "oci:again"+n)))
			if again != mine {
				t.Errorf("%s: %s, with %s processors %s", spec, mine, n, again)
			}
		}
		theirs := strings.TrimSpace(string(run(t, dir, emulator, program, "build", spec, "-o", "oci:theirs")))
		if theirs != mine {
			t.Errorf("%s: %s on this processor, %s on %s", spec, mine, theirs, other)
		}
	}
}
