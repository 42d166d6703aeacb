package builder_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/goldenisc/packer-plugin-isc/internal/basetest"
	"github.com/goldenisc/packer-plugin-isc/internal/disk"
	"github.com/goldenisc/packer-plugin-isc/ovf"
	"github.com/goldenisc/packer-plugin-isc/registry"
)

// TestRealSecondDisk has the programs of others look at an appliance of two disks.
func TestRealSecondDisk(t *testing.T) {
	needReal(t, "qemu-img", "xmllint", "tar", "virt-v2v", "sgdisk")
	dir, text := guestSpec(t)
	text += "ova {\n  memory = \"2GiB\"\n  hardware = [\"ahci\"]\n  second_disk = true\n}\nqcow2 {\n  hardware = [\"ahci\"]\n  second_disk = true\n}\n"
	m, _, err := buildSpec(t, dir, text)
	if err != nil {
		t.Fatal(err)
	}
	unpack(t, m, dir, map[string]string{"ova": "web.ova", "qcow2": "web.qcow2", "qcow2/second": "second.qcow2"})
	runIn(t, dir, `
		tar -xf web.ova
		qemu-img compare -f vmdk -F qcow2 web-1.4.0-disk1.vmdk web.qcow2
		qemu-img compare -f vmdk -F qcow2 web-1.4.0-disk2.vmdk second.qcow2
		qemu-img convert -O raw web.qcow2 web.raw && sgdisk -v web.raw
		qemu-img convert -O raw second.qcow2 second.raw && sgdisk -v second.raw`)
	for _, v := range []string{"1.1.0", "1.1.1"} {
		xsd, err := filepath.Abs("../ovf/testdata/xsd/" + v + "/dsp8023_" + v + ".xsd")
		if err != nil {
			t.Fatal(err)
		}
		// vbox:Machine, the last section, is VirtualBox's own and not in the schema.
		runIn(t, dir, `sed '/<vbox:Machine/,/<\/vbox:Machine>/d' web-1.4.0.ovf >bare.ovf && xmllint --nonet --noout --schema '`+xsd+`' bare.ovf`)
	}
	t.Setenv("LIBGUESTFS_BACKEND", "direct")
	out := runIn(t, dir, "virt-v2v --print-source -i ova web.ova")
	for _, want := range []string{"0 [sata]", "1 [sata]"} {
		if !strings.Contains(out, want) {
			t.Errorf("virt-v2v does not read %q:\n%s", want, out)
		}
	}
}

// started is what the guest says first.
const started = "guest: it has started"

// smallInit is all that runs in a machine of these tests: it tells what it finds, and switches the machine off.
const smallInit = `#!/bin/sh
echo "guest: it has started"
grep -E '^/dev/dm-[0-9]+ (/|/scratch) ' /proc/mounts
grep dm- /proc/swaps
touch /scratch/x && echo "guest: scratch is written"
for d in /sys/block/vd?; do
	echo "guest: $(basename $d) ro=$(cat $d/ro)"
done
echo o >/proc/sysrq-trigger
sleep 60
`

// TestRealSecureBoot starts a guest that is signed, under Secure Boot, on a system disk that the machine
// cannot write, with the rest on a second one. One that is not signed is refused.
func TestRealSecureBoot(t *testing.T) {
	needReal(t, "qemu-system-x86_64", "qemu-img", "sbverify", "openssl")
	base, err := basetest.Debian(t.Context(), basetest.GuestDebian)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	// The key that Debian's firmware for tests trusts.
	runIn(t, dir, `openssl pkcs8 -topk8 -nocrypt -passin pass:snakeoil -in /usr/share/ovmf/PkKek-1-snakeoil.key -out db.key
		openssl x509 -in /usr/share/ovmf/PkKek-1-snakeoil.pem -out db.pem
		openssl req -x509 -newkey rsa:2048 -nodes -subj /CN=other -keyout other.key -out other.pem 2>/dev/null`)
	const block = "qcow2 {\n  id = %q\n  serial = true\n  second_disk = true\n%s}\n"
	text := linuxImage + fmt.Sprintf("base {\n  source = %q\n}\n", "tar:"+base) + `profile {
  name = "none"
}
remove {
  paths = ["/usr/share/**", "/usr/sbin/init", "/var/lib/dpkg/**"]
}
scratch {
  size = "64MiB"
}
swap {
  size = "16MiB"
}
file {
  path    = "/usr/sbin/init"
  mode    = "0755"
  content = <<-EOT
` + smallInit + `
  EOT
}
` + fmt.Sprintf(block, "signed", "  uki_key = \"db.key\"\n  uki_cert = \"db.pem\"\n") + fmt.Sprintf(block, "plain", "")
	m, _, err := buildSpec(t, dir, text)
	if err != nil {
		t.Fatal(err)
	}
	unpack(t, m, dir, map[string]string{"signed": "signed.qcow2", "signed/second": "second.qcow2"})
	saveBoot(t, m, dir, "signed")
	if out := runIn(t, dir, "sbverify --cert db.pem signed.efi && ! sbverify --cert other.pem signed.efi 2>&1"); !strings.Contains(out, "Signature verification OK") {
		t.Error(out)
	}
	console := secureBoot(t, dir, "signed", "reboot: Power down")
	for _, want := range []string{
		started, " / erofs ro", " /scratch ext4 rw", "/dev/dm-", "guest: scratch is written", "guest: vda ro=1", "guest: vdb ro=0",
	} {
		if !strings.Contains(console, want) {
			t.Errorf("no %q on the console", want)
		}
	}
	if !strings.Contains(console, "Secure boot enabled") && !strings.Contains(console, "Kernel is locked down from EFI Secure Boot") {
		t.Error("the kernel says nothing of Secure Boot")
	}
	unpack(t, m, dir, map[string]string{"plain": "plain.qcow2"})
	saveBoot(t, m, dir, "plain")
	if out := runIn(t, dir, "! sbverify --cert db.pem plain.efi 2>&1"); !strings.Contains(out, "No signature table present") {
		t.Error(out)
	}
	if console := secureBoot(t, dir, "plain", "Access Denied"); strings.Contains(console, started) {
		t.Error("a guest that is not signed starts")
	}
}

// saveBoot writes what firmware starts of a disk to a file.
func saveBoot(t *testing.T, m *registry.Image, dir, name string) {
	t.Helper()
	g, err := disk.ParseGolden(artifact(t, m, name+"/golden"))
	if err != nil {
		t.Fatal(err)
	}
	i, err := ovf.OpenImage(t.Context(), filepath.Join(dir, name+".qcow2"), ovf.FormatQCOW2)
	if err != nil {
		t.Fatal(err)
	}
	defer i.Close()
	esp := make([]byte, g.ESPSize)
	if _, err := i.Content.ReadAt(esp, g.ESP); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, name+".efi"), bootFile(esp), 0o600); err != nil {
		t.Fatal(err)
	}
}

// bootFile returns the one file of an EFI system partition: its clusters are one behind the other, from
// the fifth on, after those of the root and of two folders.
func bootFile(esp []byte) []byte {
	le := binary.LittleEndian
	data := (int(le.Uint16(esp[14:])) + int(esp[16])*int(le.Uint32(esp[36:]))) * 512
	cluster := func(n int) int { return data + (n-2)*int(esp[13])*512 }
	entry := esp[cluster(4)+64:] // behind . and ..
	return esp[cluster(5):][:le.Uint32(entry[28:])]
}

// secureBoot starts a machine under Secure Boot, whose first disk is read-only, and returns its console
// when that says a text. It is kept as a log in the cache folder of the tests.
func secureBoot(t *testing.T, dir, name, until string) string {
	t.Helper()
	cache, err := basetest.CacheDir()
	if err != nil {
		t.Fatal(err)
	}
	log := filepath.Join(cache, "secureboot-"+name+".log")
	os.Remove(log)
	runIn(t, dir, "cp /usr/share/OVMF/OVMF_VARS_4M.snakeoil.fd vars.fd && cp second.qcow2 rest.qcow2")
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Minute) // an emulated processor on a busy host
	defer cancel()
	cmd := exec.CommandContext(ctx, "qemu-system-x86_64", "-M", "q35,smm=on", "-accel", "tcg", "-cpu", "max", "-smp", "2", "-m", "512",
		"-display", "none", "-monitor", "none", "-no-reboot", "-nodefaults", "-serial", "file:"+log,
		"-global", "driver=cfi.pflash01,property=secure,value=on",
		"-drive", "if=pflash,unit=0,format=raw,readonly=on,file=/usr/share/OVMF/OVMF_CODE_4M.secboot.fd", "-drive", "if=pflash,unit=1,format=raw,file=vars.fd",
		"-drive", "if=none,id=d,format=qcow2,readonly=on,file="+name+".qcow2", "-device", "virtio-blk-pci,drive=d",
		"-drive", "if=none,id=e,format=qcow2,file=rest.qcow2", "-device", "virtio-blk-pci,drive=e")
	cmd.Dir = dir
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	for {
		console, _ := os.ReadFile(log)
		if strings.Contains(string(console), until) {
			cmd.Process.Kill()
			<-ended
			return string(console)
		}
		select {
		case <-ended: // switched off
			console, _ := os.ReadFile(log)
			if !strings.Contains(string(console), until) {
				t.Errorf("the machine ends without %q: see %s\n%s", until, log, out.String())
			}
			return string(console)
		case <-time.After(time.Second):
		}
	}
}
