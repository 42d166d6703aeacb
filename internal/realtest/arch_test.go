//go:build linux

package realtest

import (
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
)

// TestRealOtherArchitecture has the program for another processor, run by qemu-user, build the same
// specs, and compares the digests of the images.
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
	for name, data := range map[string]string{
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
`,
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(data), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	for _, spec := range []string{"tree.isc.hcl", "disk.isc.hcl"} {
		mine := strings.TrimSpace(string(run(t, dir, native, "build", spec, "-o", "oci:mine")))
		theirs := strings.TrimSpace(string(run(t, dir, emulator, program, "build", spec, "-o", "oci:theirs")))
		if mine != theirs || !strings.HasPrefix(mine, "sha256:") {
			t.Errorf("%s: %s on this processor, %s on %s", spec, mine, theirs, other)
		}
	}
}
