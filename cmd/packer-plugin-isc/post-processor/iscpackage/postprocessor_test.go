package iscpackage

import (
	"strings"
	"testing"
)

func TestChoose(t *testing.T) {
	for _, c := range []struct {
		name, files, pattern, want, err string
	}{
		{"virtualbox", "out/web.ovf out/web-disk001.vmdk out/web.mf", "", "out/web.ovf", ""},
		{"an appliance", "out/web.ova", "", "out/web.ova", ""},
		{"qemu", "out/packer-web", "", "out/packer-web", ""},
		{"qemu with EFI variables", "out/packer-web out/efivars.fd", "", "out/packer-web", ""},
		{"vmware", "out/disk.vmdk out/web.nvram out/web.vmsd out/web.vmx out/web.vmxf", "", "out/disk.vmdk", ""},
		{"capitals", "out/DISK.VMDK", "", "out/DISK.VMDK", ""},
		{"two disks", "a.qcow2 b.qcow2", "", "", "several files"},
		{"one of two", "a.qcow2 b.qcow2", "b*", "b.qcow2", ""},
		{"one that is called otherwise", "a.bin a.qcow2", "*.bin", "a.bin", ""},
		{"the pattern fits two", "a.qcow2 b.qcow2", "*", "", "several files"},
		{"the pattern fits nothing", "a.qcow2", "*.vmdk", "", "no file is called"},
		{"no disk", "ami.txt", "", "", "none of the files is a disk"},
		{"no files", "", "", "", "no files"},
	} {
		t.Run(c.name, func(t *testing.T) {
			got, err := choose(strings.Fields(c.files), c.pattern)
			if got != c.want || (err == nil) != (c.err == "") || err != nil && !strings.Contains(err.Error(), c.err) {
				t.Errorf("%q, %v", got, err)
			}
		})
	}
}
