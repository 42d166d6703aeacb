package profiles

import (
	_ "embed"
	"fmt"
	"io/fs"
	"strconv"
	"strings"

	"github.com/goldenisc/packer-plugin-isc/image"
)

// scratchService is the SMF service of the scratch space, below svc:/site/.
const scratchService = "isc-enc-scratch"

// The start and stop method of the scratch service.
//
//go:embed method/isc-enc-scratch.sh
var scratchMethod []byte

// scratch bakes the encrypted scratch space in.
//
// On illumos and Solaris an SMF service makes an encrypted ZFS file system below a delegated dataset at
// every boot, with a key that is nowhere but in the kernel, and destroys it at shutdown; without such a
// dataset it mounts a tmpfs.
//
// On Linux, crypttab(5) opens the partition labelled isc-scratch with a random key and makes a
// new file system on it at every boot, if the root is that of a virtual machine and has the program
// for it. Any other root gets a tmpfs.
func (b *baker) scratch() error {
	s := b.layout.Scratch
	if err := b.mountPoint(image.Entry{Name: s.MountPoint(), Mode: fs.ModeDir | fs.ModeSticky | 0o777, ModTime: b.epoch}); err != nil {
		return err
	}
	size, err := ParseSize(s.Size)
	if err != nil {
		return err
	}
	if b.layout.OS == Linux {
		return b.linuxScratch(s.MountPoint(), size)
	}
	if err := b.file("lib/svc/method/"+scratchService, 0o555, illumosBin, scratchMethod); err != nil {
		return err
	}
	return b.file(manifestDir+"/"+scratchService+".xml", 0o444, illumosSys, scratchManifest(b.layout.OS, s.MountPoint(), size))
}

func scratchManifest(os, mount string, size int64) []byte {
	method := "/lib/svc/method/" + scratchService + " %m"
	context := func() element {
		return methodContext(os).with(el("method_credential", "user", "root", "group", "root",
			"privileges", "basic,sys_mount,file_dac_read,file_dac_write,file_dac_search,file_chown,file_owner"))
	}
	exec := func(name string) element {
		return el("exec_method", "type", "method", "name", name, "exec", method, "timeout_seconds", "120").with(context())
	}
	prop := func(name, value string) element {
		return el("propval", "name", name, "type", "astring", "value", value)
	}
	return document("Made by iscadm. Changes are drift.",
		el("service_bundle", "type", "manifest", "name", scratchService).with(
			el("service", "name", "site/"+scratchService, "type", "service", "version", "1").with(
				el("create_default_instance", "enabled", "true"),
				el("single_instance"),
				require("minimal", "svc:/system/filesystem/minimal:default"),
				el("dependent", "name", scratchService+"_local", "grouping", "optional_all", "restart_on", "none").
					with(el("service_fmri", "value", "svc:/system/filesystem/local:default")),
				exec("start"),
				exec("stop"),
				el("property_group", "name", "startd", "type", "framework").with(prop("duration", "transient")),
				el("property_group", "name", "config", "type", "application").with(
					prop("parent", ""), // a dataset; empty means the delegated one
					prop("mountpoint", mount),
					prop("quota", strconv.FormatInt(size, 10)),
					prop("encryption", "aes-256-gcm"),
					prop("fallback", "tmpfs"), // or none: fail without a delegated dataset
				),
				el("stability", "value", "Evolving"),
				el("template").with(el("common_name").with(
					element{name: "loctext", attrs: []string{"xml:lang", "C"}, text: "scratch space with an ephemeral key"})),
			)))
}

// encrypts reports whether a root of Linux opens encrypted disks at boot: it has systemd's program that
// reads crypttab, and a kernel of its own. Debian has the program in its package systemd, in containers too,
// which have no disks to wait for.
func (b *baker) encrypts() (bool, error) {
	for _, needs := range [][]string{
		{"usr/lib/systemd/systemd-cryptsetup", "lib/systemd/systemd-cryptsetup"},
		{"boot/vmlinuz*", "boot/vmlinux*", "boot/Image*", "usr/lib/modules/*/vmlinuz", "lib/modules/*/vmlinuz"},
	} {
		if ok, err := applicable(b.root, &Method{Needs: needs}); err != nil || !ok {
			return false, err
		}
	}
	return true, nil
}

func (b *baker) linuxScratch(mount string, size int64) error {
	encrypted, err := b.encrypts()
	if err != nil {
		return err
	}
	line := []string{"tmpfs", mount, "tmpfs", fmt.Sprintf("size=%d,mode=1777,nodev,nosuid,noexec", size), "0", "0"}
	if encrypted {
		line = []string{"/dev/mapper/isc-scratch", mount, "ext4", "nodev,nosuid,noexec", "0", "0"}
		err := rewrite(b.root, image.Entry{Name: "etc/crypttab", Mode: 0o600, ModTime: b.epoch}, func(text string) (string, error) {
			// A label names the partition whatever the order of disks: mkfs on a wrong one loses data.
			return setFstab(text, 0, "isc-scratch", "PARTLABEL=isc-scratch", "/dev/urandom",
				"tmp=ext4,cipher=aes-xts-plain64,size=512"), nil
		})
		if err != nil {
			return err
		}
		// The top of a new file system is root's alone. Quoted, and with no specifiers, any path is itself in tmpfiles.d(5).
		line := "d " + strings.ReplaceAll(strconv.Quote(mount), "%", "%%") + " 1777 root root\n"
		if err := b.file("etc/tmpfiles.d/"+scratchService+".conf", 0o644, 0, []byte("# Made by iscadm. Changes are drift.\n"+line)); err != nil {
			return err
		}
	}
	return rewrite(b.root, image.Entry{Name: "etc/fstab", Mode: 0o644, ModTime: b.epoch}, func(text string) (string, error) {
		return setFstab(text, 1, line...), nil
	})
}
