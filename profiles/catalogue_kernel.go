package profiles

import (
	"regexp"

	"github.com/goldenisc/packer-plugin-isc/image"
)

// bootLoader tells that a root is that of a machine with a kernel of its own, not of a zone.
var bootLoader = []string{"boot/loader.conf", "boot/loader.conf.local", "platform/i86pc/kernel/amd64/unix"}

// The A controls that need a kernel of one's own: they are about virtual machines.
var kernelControls = []Control{
	{
		ID:    "A04",
		Title: "Attempts to run code on a stack are logged",
		Why:   "They are either an attack or a program that has to be mended.",
		Refs:  []string{"CIS 3.2"},
		On: map[string]Method{Illumos: {
			How:   "etc/system.d/isc: set noexec_user_stack=1, set noexec_user_stack_log=1 (system(5)); a zone has its host's",
			Globs: []string{"etc/system.d/isc"},
			Needs: bootLoader,
			Edits: file("etc/system.d/isc", 0o644, "* Made by iscadm.\nset noexec_user_stack=1\nset noexec_user_stack_log=1\n"),
		}},
		Absent: map[string]string{Solaris: "the variables of system(5) are gone since 11.3, and A01 logs nothing"},
	},
	{
		ID:    "A07",
		Title: "The kernel leaves no dumps",
		Why:   "A dump is a copy of all memory, the keys of encrypted file systems included.",
		Refs:  []string{"STIG SOL-11.1-080080", "STIG SOL-11.1-080090", "STIG SOL-11.1-080100", "STIG SOL-11.1-080110"},
		On: map[string]Method{
			Illumos: {
				How:   "etc/dumpadm.conf: DUMPADM_ENABLE=no; var/crash 0700 root:root",
				Globs: []string{"etc/dumpadm.conf", "var/crash"},
				Edits: all(settings(setAssignment, "etc/dumpadm.conf", "DUMPADM_ENABLE", "no"), directory("var/crash", 0o700)),
			},
			Solaris: {
				How:   "etc/dumpadm.conf, where there is one: DUMPADM_ENABLE=no; var/share/crash 0700 root:root; a zone leaves none",
				Globs: []string{"etc/dumpadm.conf", "var/share/crash"},
				Needs: []string{"etc/dumpadm.conf", "var/share"},
				Edits: all(ifThere("etc/dumpadm.conf", settings(setAssignment, "etc/dumpadm.conf", "DUMPADM_ENABLE", "no")),
					ifThere("var/share", directory("var/share/crash", 0o700))),
				Live: "dumpadm -n",
			},
			Linux: masked("kdump.service", "kdump-tools.service"),
		},
	},
	{
		ID:    "A08",
		Title: "The boot menu asks for a password before it takes orders",
		Why:   "Who may edit the kernel's command line is root. The password is the site's: an image that held one would hold a known one.",
		Refs:  []string{"STIG SOL-11.1-080140"},
		On: map[string]Method{
			Illumos: {
				How: "boot/loader.conf.local: no password of the image's own; the host guards the console", Globs: []string{"boot/loader.conf*"},
				Needs: bootLoader, Check: noBootPassword, Dock: "only administrators reach the instance's console and boot menu",
			},
			Solaris: {
				How: "boot/grub/*.cfg: no password of the image's own; the menu is in the pool, outside of the root, and the host guards the console", Globs: []string{"boot/grub*/*.cfg"},
				Needs: []string{"boot/grub*/grub.cfg", "platform/i86pc/kernel/amd64/unix"}, Check: noBootPassword,
				Dock: "only administrators reach the instance's console and boot menu",
			},
			Linux: {
				How: "boot/grub/grub.cfg: no password of the image's own; the host guards the console", Globs: []string{"boot/grub*/*.cfg"},
				Needs: []string{"boot/grub*/grub.cfg"}, Check: noBootPassword, Dock: "only administrators reach the instance's console and boot menu",
			},
		},
	},
}

// bootPassword is how loader(7) and GRUB are told a password.
var bootPassword = regexp.MustCompile(`(?m)^\s*(password\s*=\s*"[^"]+"|bootlock_password\s*=\s*"[^"]+"|password(_pbkdf2)?\s+\S+\s+\S+)`)

func noBootPassword(root Root, _ *Params) (Inspection, error) {
	var in Inspection
	for _, pattern := range []string{"boot/loader.conf*", "boot/grub*/*.cfg"} {
		err := each(root, pattern, func(e *image.Entry) error {
			if !e.IsRegular() || e.Size > maxText {
				return nil
			}
			data, err := root.ReadFile(e.Name)
			if err == nil && bootPassword.Match(data) {
				in.Findings = append(in.Findings, Finding{e.Name, "holds a boot password, the same for all instances"})
			}
			return err
		})
		if err != nil {
			return in, err
		}
	}
	return in, nil
}
