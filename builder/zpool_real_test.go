package builder_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/goldenisc/packer-plugin-isc/internal/zfstest"
)

// TestRealZPool has OpenZFS import what a build makes of a root, as a pool in a file and as the disk of
// an illumos machine, compares them with the streams of the same build, receives the increment of
// the next, and writes. Before, others look at the disk: GRUB reads its file systems.
func TestRealZPool(t *testing.T) {
	needReal(t, "sgdisk", "fsck.vfat", "grub-fstest")
	dir := zfstest.Scratch(t)
	root := illumosRoot(t)
	images := t.TempDir()
	build := func(version, blocks string, files map[string]string) map[string]string {
		t.Helper()
		m, err := buildInto(t, filepath.Join(images, version), zfsSpec("illumos", version, "dir:"+filepath.ToSlash(root), blocks))
		if err != nil {
			t.Fatal(err)
		}
		unpack(t, m, dir, files)
		for _, a := range m.Config.Artifacts {
			if a.Name == "zfs" {
				return a.Attributes
			}
		}
		return nil
	}
	first := build("1", "zfs {\n  compression = \"none\"\n}\nzpool {\n  compression = \"none\"\n  size = \"256MiB\"\n}\nraw_disk {\n  compression = \"none\"\n  size = \"400MiB\"\n}",
		map[string]string{"zfs": "full1", "zpool": "rpool", "raw_disk": "disk.img"})
	kernel, err := os.ReadFile(filepath.Join(root, "platform", "i86pc", "kernel", "amd64", "unix"))
	if err != nil {
		t.Fatal(err)
	}
	put(t, filepath.Join(root, "srv", "new"), strings.Repeat("new", 100_000))
	if err := os.Rename(filepath.Join(root, "srv", "b"), filepath.Join(root, "srv", "renamed")); err != nil {
		t.Fatal(err)
	}
	build("2", fmt.Sprintf("zfs {\n  compression = \"none\"\n  from = [%q]\n}", "oci:"+filepath.ToSlash(filepath.Join(images, "1"))),
		map[string]string{"zfs": "full2", "zfs/from-1": "increment"})

	out := runIn(t, dir, `
		sgdisk -v disk.img
		sgdisk -p disk.img
		start=$(sgdisk -i 1 disk.img | awk '/First sector/ {print $3}') size=$(sgdisk -i 1 disk.img | awk '/Partition size/ {print $3}')
		dd if=disk.img of=esp bs=512 skip=$start count=$size status=none
		fsck.vfat -n esp
		grub-fstest "$PWD/disk.img" cat '(loop0,gpt1)/EFI/BOOT/BOOTX64.EFI' >efi
		for f in boot/defaults/loader.conf boot/loader.rc boot/loader.conf platform/i86pc/amd64/boot_archive; do
			grub-fstest "$PWD/disk.img" cat "(loop0,gpt2)/ROOT/web/@/$f" | cmp - '`+root+`'/$f
			grub-fstest "$PWD/disk.img" cat "(loop0,gpt2)/ROOT/web/@golden/$f" | cmp - '`+root+`'/$f
			grub-fstest "$PWD/rpool" cat "(loop0)/ROOT/web/@/$f" | cmp - '`+root+`'/$f
		done
		grub-fstest "$PWD/disk.img" cat '(loop0,gpt2)/ROOT/web/@/platform/i86pc/kernel/amd64/unix' >unix`)
	if !strings.Contains(out, "No problems found") {
		t.Errorf("sgdisk: %s", out)
	}
	if got, err := os.ReadFile(filepath.Join(dir, "unix")); err != nil || string(got) != string(kernel) {
		t.Errorf("GRUB reads another kernel: %v", err)
	}
	efi, err := os.ReadFile(filepath.Join(dir, "efi"))
	if want := loaderStage(400_000); err != nil || len(efi) != len(want) || string(efi[96:]) != want[96:] {
		t.Errorf("GRUB reads another loader: %v", err)
	}

	script := filepath.Join(dir, "script")
	text := fmt.Sprintf(`
set -ex
look() { zfs clone -o mountpoint=/mnt/look -o canmount=on $1 rpool/look; /in/list /mnt/look > /out/$2.listing; zfs destroy rpool/look; }
life() { # WHERE NAME
  zpool import -N -d $1 rpool
  zpool status -v rpool
  test "$(zpool get -Ho value bootfs rpool)" = rpool/ROOT/web
  test "$(zpool get -Hpo value health rpool)" = ONLINE
  test "$(zfs get -Hpo value guid rpool/ROOT/web@golden)" = %s
  test "$(zfs get -Hpo value mountpoint,canmount,org.opensolaris.libbe:policy rpool/ROOT/web | tr '\n' ' ')" = "/ noauto static "
  zfs get -Ho value org.opensolaris.libbe:uuid rpool/ROOT/web | grep -E '^[0-9a-f]{8}-[0-9a-f]{4}-8[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$'
  test "$(zfs get -Hpo value mountpoint,canmount rpool rpool/ROOT | tr '\n' ' ')" = "/rpool on legacy off "
  look rpool/ROOT/web@golden $2-1
  zfs receive -u rpool/ROOT/web@v2 < /in/increment
  look rpool/ROOT/web@v2 $2-2
  zfs receive -u rpool/full1 < /in/full1; look rpool/full1@golden stream-1
  zfs receive -u rpool/full2 < /in/full2; look rpool/full2@golden stream-2
  zfs set mountpoint=/mnt/web rpool/ROOT/web
  zfs mount rpool/ROOT/web
  cp -r /mnt/web/srv /mnt/web/copy; rm -r /mnt/web/srv/old; echo x >>/mnt/web/etc/passwd; chmod 0700 /mnt/web/boot; mv /mnt/web/platform /mnt/web/moved
  zfs umount rpool/ROOT/web
  zfs destroy rpool/ROOT/web@golden
  zpool scrub -w rpool
  zpool status rpool | grep -q 'errors: No known data errors'
  zpool export rpool
  zdb -e -p $1 -bcc rpool > /out/zdb 2>&1 || { tail -30 /out/zdb; exit 1; }
  grep -q 'No leaks' /out/zdb
}
life /in file
rm /in/rpool
life /dev disk
`, first["guid"])
	if err := os.WriteFile(script, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	args := []string{"vm", "-o", filepath.Join(dir, "out"), "-d", filepath.Join(dir, "disk.img"), script, zfstest.Lister(t, dir)}
	for _, f := range []string{"rpool", "full1", "full2", "increment"} {
		args = append(args, filepath.Join(dir, f))
	}
	if log, ok := zfstest.Run(t, args...); !ok {
		t.Fatalf("the script failed:\n%s", zfstest.Tail(log))
	}
	listing := func(name string) map[string]string {
		t.Helper()
		f, err := os.Open(filepath.Join(dir, "out", name+".listing"))
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		return zfstest.Parse(t, f)
	}
	for _, version := range []string{"-1", "-2"} {
		want := listing("stream" + version)
		if len(want) < 20 {
			t.Errorf("%d entries", len(want))
		}
		zfstest.Same(t, "pool in a file, version "+version[1:], want, listing("file"+version))
		zfstest.Same(t, "pool of a disk, version "+version[1:], want, listing("disk"+version))
	}
}

// TestRealIllumosFirmware boots the disk of an illumos root whose loader is GRUB: the firmware must find
// what is said to be loader64.efi on the disk, and that must find the pool and read the root in it.
func TestRealIllumosFirmware(t *testing.T) {
	needReal(t, "qemu-system-x86_64", "grub-mkimage")
	dir, root := t.TempDir(), illumosRoot(t)
	put(t, filepath.Join(dir, "early.cfg"), `serial --unit=0
terminal_output serial
zfsinfo (hd0,gpt2)
cat (hd0,gpt2)/ROOT/web/@/boot/loader.conf
cat (hd0,gpt2)/ROOT/web/@golden/boot/loader.conf
`)
	runIn(t, dir, "grub-mkimage -O x86_64-efi -p / -c early.cfg -o '"+root+"/boot/loader64.efi' part_gpt zfs zfsinfo serial terminal cat")
	m, _, err := buildSpec(t, dir, zfsSpec("illumos", "1", "dir:"+filepath.ToSlash(root), "vmdk {}"))
	if err != nil {
		t.Fatal(err)
	}
	unpack(t, m, dir, map[string]string{"vmdk": "web.vmdk"})
	boot(t, dir, "web.vmdk", "illumos-boot.log", "rpool", "autoboot_delay", "autoboot_delay")
}
