package builder_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"maps"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/goldenisc/packer-plugin-isc/builder"
	"github.com/goldenisc/packer-plugin-isc/zfs"
)

// loaderStage stands for a stage of illumos's loader: bytes with a multiboot header.
func loaderStage(size int) string {
	b := bytes.Repeat([]byte("loader! "), size/8)
	le := binary.LittleEndian
	const magic, flags = 0x1badb002, 1 << 16
	le.PutUint32(b[64:], magic)
	le.PutUint32(b[68:], flags)
	le.PutUint32(b[72:], 1<<32-magic-flags)
	return string(b)
}

// illumosRoot is a folder with what starts an illumos machine, as far as it can be looked at.
func illumosRoot(t testing.TB) string {
	t.Helper()
	dir := oddTree(t)
	for name, data := range map[string]string{
		"boot/loader64.efi": loaderStage(400_000), "boot/pmbr": strings.Repeat("p", 512), "boot/gptzfsboot": loaderStage(90_000),
		"boot/defaults/loader.conf": "boot_archive_load=\"YES\"\n", "boot/loader.rc": "include /boot/loader.4th\n", "boot/loader.conf": "autoboot_delay=\"3\"\n",
		"platform/i86pc/kernel/amd64/unix": strings.Repeat("unix", 100_000), "platform/i86pc/amd64/boot_archive": strings.Repeat("archive", 300_000),
	} {
		put(t, filepath.Join(dir, filepath.FromSlash(name)), data)
	}
	return dir
}

// The disk of an illumos root has the pool, whose snapshot is that of the stream.
func TestIllumosDisk(t *testing.T) {
	root := "dir:" + filepath.ToSlash(illumosRoot(t))
	m, _, err := buildSpec(t, t.TempDir(), zfsSpec("illumos", "1", root, "zfs {}\nraw_disk {\n  size = \"200MiB\"\n}\nova {\n  firmware = \"bios\"\n}\nvmdk {}\n"))
	if err != nil {
		t.Fatal(err)
	}
	attributes := map[string]map[string]string{}
	for _, a := range m.Config.Artifacts {
		attributes[a.Name] = a.Attributes
	}
	a := attributes["raw_disk"]
	if a["boot"] != "efi,bios" || a["bootfs"] != "rpool/ROOT/web" || a["guid"] != attributes["zfs"]["guid"] || a["capacity"] != strconv.Itoa(200<<20) {
		t.Errorf("attributes %v", a)
	}
	if attributes["ova"]["disk"] != attributes["vmdk"]["disk"] {
		t.Error("the disk in the appliance is another than that by itself")
	}
	disk := plain(t, artifact(t, m, "raw_disk"))
	at, err := strconv.Atoi(a["poolOffset"])
	if err != nil || len(disk) != 200<<20 {
		t.Fatal(err, len(disk))
	}
	pool := poolReader(disk[at:])
	guid, err := pool.golden()
	if err != nil || strconv.FormatUint(guid, 10) != a["guid"] {
		t.Errorf("guid %d of the snapshot: %v", guid, err)
	}
	stream, err := pool.stream(guid)
	if err != nil {
		t.Fatal(err)
	}
	got, err := describeZFS(stream, zfs.Illumos, "")
	if err != nil {
		t.Fatal(err)
	}
	want, err := describeZFS(plain(t, artifact(t, m, "zfs")), zfs.Illumos, "")
	if err != nil {
		t.Fatal(err)
	}
	if !maps.Equal(got, want) {
		t.Errorf("the pool has\n%v\nthe stream\n%v", got, want)
	}
}

func TestIllumosDiskRefused(t *testing.T) {
	for _, c := range []struct{ remove, block, want string }{
		{"boot/loader64.efi", "raw_disk {}", `no boot loader: the root has no "/boot/loader64.efi"`},
		{"platform/i86pc/kernel/amd64/unix", "raw_disk {}", "no kernel"},
		{"platform/i86pc/amd64/boot_archive", "qcow2 {}", "no boot archive"},
		{"boot/loader.rc", "vhd {}", "nothing to go by"},
		{"boot/pmbr", "ova {\n  firmware = \"bios\"\n}", "a machine without EFI"},
		{"", "raw_disk {\n  size = \"70MiB\"\n}", "a disk needs"},
		{"", "raw_disk {\n  size = \"100MiB\"\n}", "not from 67108864"},
		{"", "raw_disk {\n  serial = true\n}", `raw_disk[0].serial; is of Linux roots: an illumos root has it in a file: console="ttya,text"`},
		{"", "ova {\n  var = \"tmpfs\"\n}", "is of Linux roots"},
	} {
		root := illumosRoot(t)
		if c.remove != "" {
			if err := os.Remove(filepath.Join(root, filepath.FromSlash(c.remove))); err != nil {
				t.Fatal(err)
			}
		}
		_, _, err := buildSpec(t, t.TempDir(), zfsSpec("illumos", "1", "dir:"+filepath.ToSlash(root), c.block))
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s without %q: error %v, want %s", c.block, c.remove, err, c.want)
		}
	}
	// All at once.
	_, _, err := buildSpec(t, t.TempDir(), zfsSpec("illumos", "1", "skeleton:illumos", "raw_disk {}"))
	if err == nil || strings.Count(err.Error(), "\n") != 3 || !errors.Is(err, builder.ErrInput) {
		t.Errorf("a root of a zone: %v", err)
	}
}
