// Package guesttest has a Linux root with all that the disk of a virtual machine is made of, none of
// which works: tests of disks need no kernel.
package guesttest

import (
	"archive/tar"
	"bytes"
	"encoding/binary"
	"io/fs"
	"strings"
	"time"
)

// Release is the kernel's.
const Release = "6.1.0-9-test"

// A File is one object of the root, by its path.
type File struct {
	Path    string
	Mode    fs.FileMode // of a directory, a link to Content, or a file with it
	Content string
}

// Files returns the root for an architecture, amd64 or arm64: directories before what is in them.
func Files(arch string) []File {
	var out []File
	for _, dir := range []string{
		".", "boot", "etc", "sbin", "usr", "usr/lib", "usr/lib/modules", "usr/lib/modules/" + Release, "usr/lib/modules/" + Release + "/kernel",
		"usr/lib/systemd", "usr/lib/systemd/boot", "usr/lib/systemd/boot/efi", "var",
	} {
		out = append(out, File{dir, fs.ModeDir | 0o755, ""})
	}
	file := func(name string, mode fs.FileMode, content string) { out = append(out, File{name, mode, content}) }
	stubs := map[string]string{"amd64": "linuxx64", "arm64": "linuxaa64"}
	file("lib", fs.ModeSymlink|0o777, "usr/lib")
	file("boot/vmlinuz-"+Release, 0o644, string(PE(arch)))
	file("boot/initrd.img-"+Release, 0o644, "another's")
	file("boot/config-"+Release, 0o644, "CONFIG_RD_ZSTD=y\nCONFIG_BLK_DEV_INITRD=y\n")
	file("usr/lib/systemd/boot/efi/"+stubs[arch]+".efi.stub", 0o644, string(PE(arch)))
	file("sbin/init", 0o755, "#!/bin/sh\n")
	file("etc/machine-id", 0o644, "0123456789abcdef0123456789abcdef\n")
	file("usr/lib/os-release", 0o644, "ID=test\n")
	dir := "usr/lib/modules/" + Release + "/"
	file(dir+"modules.dep", 0o644, `kernel/ahci.ko: kernel/libahci.ko kernel/libata.ko kernel/scsi_mod.ko
kernel/libahci.ko: kernel/libata.ko kernel/scsi_mod.ko
kernel/libata.ko: kernel/scsi_mod.ko
kernel/scsi_mod.ko:
kernel/sd_mod.ko: kernel/scsi_mod.ko
kernel/dm-verity.ko: kernel/dm-mod.ko
kernel/dm-crypt.ko: kernel/dm-mod.ko
kernel/dm-mod.ko:
kernel/xts.ko:
kernel/ecb.ko:
kernel/ext4.ko:
kernel/overlay.ko:
kernel/erofs.ko: kernel/libcrc32c.ko
kernel/libcrc32c.ko:
kernel/crc32c_generic.ko:
`)
	for _, m := range strings.Fields("ahci libahci libata scsi_mod sd_mod dm-verity dm-crypt dm-mod xts ecb ext4 overlay erofs libcrc32c crc32c_generic") {
		file(dir+"kernel/"+m+".ko", 0o644, "module "+m)
	}
	file(dir+"modules.softdep", 0o644, "# soft\nsoftdep libcrc32c pre: crc32c\nsoftdep xts pre: ecb\n")
	file(dir+"modules.builtin", 0o644, "kernel/drivers/nvme/host/nvme.ko\nkernel/drivers/net/ethernet/intel/e1000/e1000.ko\n")
	file(dir+"modules.alias", 0o644, "alias crc32c crc32c_generic\nalias pci:v00008086d00002829sv*sd*bc*sc*i* ahci\n")
	return out
}

// Tar returns the root as an archive. Its kernel has drivers of AHCI and NVMe disks, and of no card.
func Tar(arch string) ([]byte, error) {
	var b bytes.Buffer
	t := tar.NewWriter(&b)
	for _, f := range Files(arch) {
		h := &tar.Header{Name: "./" + f.Path, Mode: int64(f.Mode.Perm()), ModTime: time.Unix(1_700_000_000, 0)}
		switch {
		case f.Mode.IsDir():
			h.Typeflag, h.Name = tar.TypeDir, h.Name+"/"
		case f.Mode&fs.ModeSymlink != 0:
			h.Typeflag, h.Linkname = tar.TypeSymlink, f.Content
		default:
			h.Typeflag, h.Size = tar.TypeReg, int64(len(f.Content))
		}
		if err := t.WriteHeader(h); err != nil {
			return nil, err
		}
		if h.Typeflag == tar.TypeReg {
			if _, err := t.Write([]byte(f.Content)); err != nil {
				return nil, err
			}
		}
	}
	err := t.Close()
	return b.Bytes(), err
}

// PE returns a boot stub or kernel that does nothing, but has what one has.
func PE(arch string) []byte {
	machines := map[string]uint16{"amd64": 0x8664, "arm64": 0xaa64}
	le := binary.LittleEndian
	b := make([]byte, 0x800)
	copy(b, "MZ")
	le.PutUint32(b[0x3c:], 0x80)
	h := b[0x80:]
	copy(h, "PE\x00\x00")
	le.PutUint16(h[4:], machines[arch])
	le.PutUint16(h[6:], 1)
	le.PutUint16(h[20:], 240)
	le.PutUint16(h[22:], 0x22e)
	o := h[24:]
	le.PutUint16(o, 0x20b)
	le.PutUint32(o[8:], 0x200)
	le.PutUint32(o[16:], 0x1000)
	le.PutUint32(o[32:], 0x1000)
	le.PutUint32(o[36:], 0x200)
	le.PutUint32(o[56:], 0x2000)
	le.PutUint32(o[60:], 0x400)
	le.PutUint16(o[68:], 10)  // EFI application
	le.PutUint32(o[108:], 16) // directories
	s := o[240:]
	copy(s, ".text")
	le.PutUint32(s[8:], 0x123)
	le.PutUint32(s[12:], 0x1000)
	le.PutUint32(s[16:], 0x200)
	le.PutUint32(s[20:], 0x400)
	le.PutUint32(s[36:], 0x60000020)
	for i := 0x400; i < 0x800; i++ {
		b[i] = byte(i * 7)
	}
	return b
}
