package builder_test

import (
	"bytes"
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/goldenisc/packer-plugin-isc/internal/basetest"
	"github.com/goldenisc/packer-plugin-isc/registry"
)

// The tests here run the programs of others, which .ci/peers.sh installs, and one boots a machine in
// QEMU without KVM, which takes a minute.

// needReal skips a test unless real programs are to be run; then a missing one is a failure.
func needReal(t *testing.T, programs ...string) {
	t.Helper()
	if os.Getenv("ISC_REAL") == "" {
		t.Skip("ISC_REAL is not set")
	}
	for _, p := range programs {
		if _, err := exec.LookPath(p); err != nil {
			t.Fatal(err)
		}
	}
}

// runIn runs a shell command, which must succeed, in a folder.
func runIn(t *testing.T, dir, script string) string {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "bash", "-euo", "pipefail", "-c", script)
	cmd.Dir = dir
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Errorf("%s: %v\n%s", script, err, out)
	}
	return string(out)
}

// unpack writes artifacts to files of a folder.
func unpack(t *testing.T, m *registry.Image, dir string, files map[string]string) {
	t.Helper()
	for name, file := range files {
		if err := os.WriteFile(filepath.Join(dir, file), artifact(t, m, name), 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

// TestRealDisks compares what each kind makes of a captured disk with the disk.
func TestRealDisks(t *testing.T) {
	needReal(t, "qemu-img", "vmdkinfo", "xmllint", "zstd", "tar", "virt-v2v")
	disk := make([]byte, 40<<20+512)
	r := rand.New(rand.NewPCG(8, 9))
	for off := 0; off < 20<<20; off += 300_000 {
		for i := range 50_000 {
			disk[off+i] = byte(r.Uint32() & 0x3f)
		}
	}
	copy(disk[len(disk)-512:], "the last sector")
	dir := saveDisk(t, disk)
	runIn(t, dir, "qemu-img convert -c -f raw -O qcow2 disk.raw disk.qcow2")
	m, _, err := buildSpec(t, dir, linuxImage+`disk {
  source = "disk.qcow2"
}
ova {
  memory = "2GiB"
  cpus   = 2
}
vmdk {}
qcow2 {}
raw_disk {}
vhd {}
gcp {}
`)
	if err != nil {
		t.Fatal(err)
	}
	unpack(t, m, dir, map[string]string{
		"ova": "web.ova", "vmdk": "web.vmdk", "qcow2": "web.qcow2", "raw_disk": "web.raw.zst", "vhd": "web.vhd.zst", "gcp": "web.tar.gz",
	})
	runIn(t, dir, `
		zstd -q -d web.raw.zst && cmp web.raw disk.raw
		zstd -q -d web.vhd.zst && qemu-img compare -f vpc -F raw web.vhd disk.raw
		mkdir gcp ova && tar -xzf web.tar.gz -C gcp && qemu-img compare -f raw -F raw gcp/disk.raw disk.raw
		tar -xf web.ova -C ova && cmp ova/web-1.4.0-disk1.vmdk web.vmdk
		qemu-img compare -f vmdk -F raw web.vmdk disk.raw
		qemu-img compare -f qcow2 -F raw web.qcow2 disk.raw`)
	for _, f := range []string{"vmdk", "qcow2"} {
		if out := runIn(t, dir, "qemu-img check -f "+f+" web."+f); !strings.Contains(out, "No errors were found") {
			t.Error(out)
		}
	}
	if out := runIn(t, dir, "vmdkinfo web.vmdk"); !strings.Contains(out, "Stream optimized") {
		t.Error(out)
	}
	for _, v := range []string{"1.1.0", "1.1.1"} {
		xsd, err := filepath.Abs("../ovf/testdata/xsd/" + v + "/dsp8023_" + v + ".xsd")
		if err != nil {
			t.Fatal(err)
		}
		// vbox:Machine, the last section, is VirtualBox's own and not in the schema.
		runIn(t, dir, `sed '/<vbox:Machine/,/<\/vbox:Machine>/d' ova/web-1.4.0.ovf >bare.ovf && xmllint --nonet --noout --schema '`+xsd+`' bare.ovf`)
	}
	t.Setenv("LIBGUESTFS_BACKEND", "direct")
	out := runIn(t, dir, "virt-v2v --print-source -i ova web.ova")
	for _, want := range []string{"source name: web-1.4.0\n", "memory: 2147483648 (bytes)", "nr vCPUs: 2\n", "firmware: uefi", "0 [sata]", "[e1000]"} {
		if !strings.Contains(out, want) {
			t.Errorf("virt-v2v does not read %q:\n%s", want, out)
		}
	}
}

// marker is what the guest writes to its console.
const marker = "the golden image has started"

// TestRealBoot boots the disk in the OVA of a hardened Debian, on the devices that the OVA declares.
func TestRealBoot(t *testing.T) {
	needReal(t, "qemu-system-x86_64", "qemu-img")
	base, err := basetest.Debian(t.Context(), basetest.GuestDebian)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	m, _, err := buildSpec(t, dir, fmt.Sprintf(`%sbase {
  source = %q
}
remove { # its ACL is a finding, and the journal goes to /run without it
  paths = ["/var/log/journal"]
}
service {
  name = "marker"
  exec = "/usr/bin/marker"
}
file {
  path    = "/usr/bin/marker"
  mode    = "0555"
  content = <<-EOT
	#!/bin/sh
	echo "%s"
	grep -E ' (/|/var|/scratch) ' /proc/mounts
	grep dm- /proc/swaps
	touch /usr/x 2>&1
	exec sleep 1000000
  EOT
}
scratch {
  size = "64MiB"
}
swap {
  size = "16MiB"
}
ova {
  serial  = true
  cmdline = "systemd.journald.forward_to_console=1"
}
qcow2 {
  hardware = ["ahci", "e1000"]
  serial   = true
  cmdline  = "systemd.journald.forward_to_console=1"
}
`, linuxImage, "tar:"+base, marker))
	if err != nil {
		t.Fatal(err)
	}
	unpack(t, m, dir, map[string]string{"ova": "web.ova", "qcow2": "web.qcow2"})
	runIn(t, dir, "tar -xf web.ova && qemu-img compare -f vmdk -F qcow2 web-1.4.0-disk1.vmdk web.qcow2")
	console := boot(t, dir, "web-1.4.0-disk1.vmdk", "ova-boot.log", marker, "Read-only file system")
	for _, want := range []string{marker, " / erofs ro", " /scratch ext4", "partition", "Read-only file system"} {
		if !strings.Contains(console, want) {
			t.Errorf("no %q on the console", want)
		}
	}
}

// boot starts a machine with a disk on AHCI until its console says these texts, one after the other. It
// returns the console, which is kept as a log in the cache folder of the tests.
func boot(t *testing.T, dir, disk, log string, until ...string) string {
	t.Helper()
	cache, err := basetest.CacheDir()
	if err != nil {
		t.Fatal(err)
	}
	log = filepath.Join(cache, log)
	os.Remove(log)
	vars, err := os.ReadFile("/usr/share/OVMF/OVMF_VARS_4M.fd")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "vars.fd"), vars, 0o600); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 6*time.Minute) // an emulated processor on a busy host
	defer cancel()
	cmd := exec.CommandContext(ctx, "qemu-system-x86_64", "-M", "q35,smm=on", "-accel", "tcg", "-cpu", "max", "-smp", "2", "-m", "1024",
		"-display", "none", "-monitor", "none", "-no-reboot", "-nodefaults", "-serial", "file:"+log,
		"-drive", "if=pflash,format=raw,readonly=on,file=/usr/share/OVMF/OVMF_CODE_4M.fd", "-drive", "if=pflash,format=raw,file=vars.fd",
		"-device", "ahci,id=sata", "-drive", "if=none,id=d,format=vmdk,snapshot=on,file="+disk, "-device", "ide-hd,drive=d,bus=sata.0",
		"-netdev", "user,id=n,restrict=on", "-device", "e1000,netdev=n")
	cmd.Dir = dir
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	defer func() {
		cmd.Process.Kill()
		<-ended
	}()
	for {
		console, _ := os.ReadFile(log)
		rest, ok := string(console), true
		for _, text := range until {
			if ok {
				_, rest, ok = strings.Cut(rest, text)
			}
		}
		if ok {
			return string(console)
		}
		select {
		case err := <-ended:
			ended <- err
			t.Errorf("the machine ends: %v\n%s", err, out.String())
			return string(console)
		case <-time.After(time.Second):
		}
		if ctx.Err() != nil {
			t.Errorf("no %q within minutes: see %s", until, log)
			return string(console)
		}
	}
}
