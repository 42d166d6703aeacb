package profiles

import (
	_ "embed"
	"strconv"

	"github.com/goldenisc/packer-plugin-isc/image"
)

// The SMF services, below svc:/site/, of the swap space and of the identity of an instance.
const (
	swapService     = "isc-enc-swap"
	identityService = "isc-identity"
)

// Their methods.
var (
	//go:embed method/isc-enc-swap.sh
	swapMethod []byte
	//go:embed method/isc-identity.sh
	identityMethod []byte
)

// swap bakes encrypted swap space in.
//
// On illumos an SMF service makes an encrypted volume at every boot, with a key that is nowhere but
// in the kernel, and destroys it at shutdown. In a zone, which has no swap of its own, it does
// nothing. Solaris encrypts swap space by itself. On Linux, crypttab(5) opens the partition labelled isc-swap
// with a random key, if the root is that of a virtual machine and has the program for it.
//
// What the base swaps to besides is not encrypted, and left out.
func (b *baker) swap() error {
	size, err := ParseSize(b.layout.Swap.Size)
	if err != nil {
		return err
	}
	switch b.layout.OS {
	case Linux:
		return b.linuxSwap()
	case Solaris:
		return nil
	}
	if err := b.file("lib/svc/method/"+swapService, 0o555, illumosBin, swapMethod); err != nil {
		return err
	}
	// svc:/system/filesystem/usr would add plain swap before ours.
	err = rewrite(b.root, image.Entry{Name: "etc/vfstab", Mode: 0o644, GID: illumosSys, ModTime: b.epoch}, func(text string) (string, error) {
		return noPlainSwap(text, 3, "swap"), nil // as the device, that of tmpfs
	})
	if err != nil {
		return err
	}
	return b.file(manifestDir+"/"+swapService+".xml", 0o444, illumosSys, swapManifest(size))
}

// noPlainSwap makes comments of the swap devices of vfstab(5) or fstab(5), by the number of the field that
// has the type, but of one.
func noPlainSwap(text string, typ int, keep string) string {
	l := lines(text)
	for i, line := range l {
		if f := fields(line); len(f) > typ && f[typ] == "swap" && f[0] != keep {
			l[i] = "#" + line
		}
	}
	return keepIfSame(text, l)
}

func swapManifest(size int64) []byte {
	method := "/lib/svc/method/" + swapService + " %m"
	context := func() element {
		return methodContext(Illumos).with(el("method_credential", "user", "root", "group", "root",
			"privileges", upTo("sys_config", "sys_mount", "file_dac_read", "file_dac_write", "file_dac_search", "sys_devices"))) // no zone has all
	}
	exec := func(name string) element {
		return el("exec_method", "type", "method", "name", name, "exec", method, "timeout_seconds", "120").with(context())
	}
	prop := func(name, value string) element {
		return el("propval", "name", name, "type", "astring", "value", value)
	}
	return document("Made by iscadm. Changes are drift.",
		el("service_bundle", "type", "manifest", "name", swapService).with(
			el("service", "name", "site/"+swapService, "type", "service", "version", "1").with(
				el("create_default_instance", "enabled", "true"),
				el("single_instance"),
				require("minimal", "svc:/system/filesystem/minimal:default"),
				require("devices", "svc:/system/device/local:default"),
				el("dependent", "name", swapService+"_single", "grouping", "optional_all", "restart_on", "none").
					with(el("service_fmri", "value", "svc:/milestone/single-user:default")),
				exec("start"),
				exec("stop"),
				el("property_group", "name", "startd", "type", "framework").with(prop("duration", "transient")),
				el("property_group", "name", "config", "type", "application").with(
					prop("volume", ""), // empty means swap-isc in the pool of the root
					prop("size", strconv.FormatInt(size, 10)),
					prop("encryption", "aes-256-gcm"),
					prop("fallback", "lofi"), // or none
				),
				el("stability", "value", "Evolving"),
				el("template").with(el("common_name").with(
					element{name: "loctext", attrs: []string{"xml:lang", "C"}, text: "swap space with an ephemeral key"})),
			)))
}

func (b *baker) linuxSwap() error {
	ok, err := b.encrypts()
	if err != nil {
		return err
	}
	const device = "/dev/mapper/isc-swap"
	if ok { // else a zone, or a guest whose host swaps: the dock has the requirement
		err = rewrite(b.root, image.Entry{Name: "etc/crypttab", Mode: 0o600, ModTime: b.epoch}, func(text string) (string, error) {
			return setFstab(text, 0, "isc-swap", "PARTLABEL=isc-swap", "/dev/urandom", "swap,cipher=aes-xts-plain64,size=512"), nil
		})
		if err != nil {
			return err
		}
	}
	return rewrite(b.root, image.Entry{Name: "etc/fstab", Mode: 0o644, ModTime: b.epoch}, func(text string) (string, error) {
		if ok {
			text = setFstab(text, 0, device, "none", "swap", "sw", "0", "0")
		}
		return noPlainSwap(text, 2, device), nil
	})
}

// identity bakes in the service that gives an instance its own identity at its first start.
func (b *baker) identity() error {
	user := orElse(b.layout.Identity.User, "-")
	if b.layout.OS == Linux {
		if err := b.file("usr/lib/isc/"+identityService, 0o555, 0, identityMethod); err != nil {
			return err
		}
		unit := "# Made by iscadm. Changes are drift.\n[Unit]\nDescription=Identity of this instance\n" +
			"ConditionPathExists=!/etc/isc/identified\nDefaultDependencies=no\nAfter=local-fs.target systemd-remount-fs.service\n" +
			"Before=network-pre.target ssh.service sshd.service\nWants=network-pre.target\n\n" +
			"[Service]\nType=oneshot\nRemainAfterExit=yes\nExecStart=/usr/lib/isc/" + identityService + " " + user + "\n" +
			// What is mounted over a read-only root is for all: no option here may make a mount namespace.
			"NoNewPrivileges=yes\nLockPersonality=yes\nRestrictRealtime=yes\nSystemCallArchitectures=native\n" +
			"\n[Install]\nWantedBy=sysinit.target\n"
		if err := b.file(unitDir+identityService+".service", 0o644, 0, []byte(unit)); err != nil {
			return err
		}
		return b.link(unitDir+"sysinit.target.wants/"+identityService+".service", "../"+identityService+".service")
	}
	if err := b.file("lib/svc/method/"+identityService, 0o555, illumosBin, identityMethod); err != nil {
		return err
	}
	doc := document("Made by iscadm. Changes are drift.",
		el("service_bundle", "type", "manifest", "name", identityService).with(
			el("service", "name", "site/"+identityService, "type", "service", "version", "1").with(
				el("create_default_instance", "enabled", "true"),
				el("single_instance"),
				require("filesystem", "svc:/system/filesystem/minimal:default"),
				dependent(identityService+"_node", "svc:/system/identity:node"),
				dependent(identityService+"_ssh", "svc:/network/ssh:default"),
				el("exec_method", "type", "method", "name", "start", "exec", "/lib/svc/method/"+identityService+" "+user, "timeout_seconds", "120").with(
					methodContext(b.layout.OS).with(el("method_credential", "user", "root", "group", "root"))),
				el("exec_method", "type", "method", "name", "stop", "exec", ":true", "timeout_seconds", "0"),
				el("property_group", "name", "startd", "type", "framework").with(
					el("propval", "name", "duration", "type", "astring", "value", "transient")),
				el("stability", "value", "Evolving"),
				el("template").with(el("common_name").with(
					element{name: "loctext", attrs: []string{"xml:lang", "C"}, text: "identity of this instance"})),
			)))
	return b.file(manifestDir+"/"+identityService+".xml", 0o444, illumosSys, doc)
}

// dependent has a service of others wait for ours, if it runs at all.
func dependent(name, fmri string) element {
	return el("dependent", "name", name, "grouping", "optional_all", "restart_on", "none").with(el("service_fmri", "value", fmri))
}
