package provisioner_test

import (
	"context"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/goldenisc/packer-plugin-isc/internal/remote"
	"github.com/goldenisc/packer-plugin-isc/profiles"
	"github.com/goldenisc/packer-plugin-isc/provisioner"
)

// A live machine has a folder for its root, and stand-ins for what knows of what runs: what they are
// told stays in files of the folder state.
type live struct {
	remote.Local
	root string
}

func (l live) Run(ctx context.Context, c remote.Command) error {
	c.Args = slices.Clone(c.Args)
	for i, a := range c.Args {
		switch {
		case i > 0 && c.Args[i-1] == "-c":
			for _, condition := range []string{"/run/systemd/system", "/etc/svc/volatile/repository_door", "/etc/svc/profile/site"} {
				a = strings.ReplaceAll(a, condition, l.root+condition)
			}
			c.Args[i] = strings.ReplaceAll(a, "/usr/lib/ssh/sshd", "sshd")
		case strings.HasPrefix(a, "/") && a != "/dev/null":
			c.Args[i] = l.root + a
		}
	}
	return l.Local.Run(ctx, c)
}

// standIns behave as the real programs do as far as it matters: systemctl knows no state of a template.
var standIns = map[string]string{
	"systemctl": `cd "$STATE/units" || exit 1
case "$*" in *"@."*) echo "Unit name $2 is missing the instance name." >&2; exit 1 ;; esac
for last; do :; done
case "$1" in
start) [ ! -h "$ROOT/etc/systemd/system/$last" ] || { echo "Unit $last is masked." >&2; exit 1; }; : >"$last" ;;
stop) [ "$last" != auditd.service ] || { echo "Operation refused" >&2; exit 4; }; rm -f "$last" ;;
is-active) [ -e "$last" ] ;;
show) [ "$last" != auditd.service ] || echo RefuseManualStop=yes ;;
list-units) for u in $last; do [ ! -e "$u" ] || echo "$u loaded active running A line"; done ;;
esac`,
	"sysctl": `cd "$STATE/kernel" || exit 1
case "$1" in
-n) cat "$2" ;;
-w) echo "${2#*=}" >"${2%%=*}" ;;
--system) cat "$ROOT"/etc/sysctl.d/*.conf 2>/dev/null | while IFS=' =' read -r k v; do case "$k" in [a-z]*) [ ! -e "$k" ] || echo "$v" >"$k" ;; esac; done ;;
esac`,
	"svcprop": `cat "$STATE/smf/$(echo "$3" | tr /: __)"`,
	"svcadm":  `case "$1" in enable) v=true ;; disable) v=false ;; *) exit 0 ;; esac; echo "$v" >"$STATE/smf/$(echo "$2" | tr /: __)"`,
	"svccfg":  `cd "$STATE/smf" && for f in *; do echo false >"$f"; done`, // all that the test has are disabled
	"sshd":    "exit 0", "nft": "exit 0", "visudo": "exit 0", "augenrules": "exit 0",
}

// machine makes a live machine of a folder.
func machine(t *testing.T, files map[string]string) live {
	t.Helper()
	root, bin, state := folder(t), t.TempDir(), t.TempDir()
	for name, text := range files {
		to := filepath.Join(root, name)
		if rest, ok := strings.CutPrefix(name, "state/"); ok {
			to = filepath.Join(state, rest)
		}
		if err := os.MkdirAll(filepath.Dir(to), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(to, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	for name, text := range standIns {
		if err := os.WriteFile(filepath.Join(bin, name), []byte("#!/bin/sh\n"+text+"\n"), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	t.Setenv("PATH", bin+":"+os.Getenv("PATH"))
	t.Setenv("STATE", state)
	t.Setenv("ROOT", root)
	return live{root: root}
}

// now is the state of what runs.
func now(t *testing.T) map[string]string {
	t.Helper()
	all := map[string]string{}
	for _, pattern := range []string{"units/*", "kernel/*", "smf/*"} {
		names, err := filepath.Glob(filepath.Join(os.Getenv("STATE"), pattern))
		if err != nil {
			t.Fatal(err)
		}
		for _, name := range names {
			data, err := os.ReadFile(name)
			if err != nil {
				t.Fatal(err)
			}
			all[filepath.Base(name)] = strings.TrimSpace(string(data))
		}
	}
	return all
}

// TestRunning hardens machines that run and undoes it: what runs follows the files, both ways.
func TestRunning(t *testing.T) {
	for _, tt := range []struct {
		os                    string
		files                 map[string]string
		before, after, undone string // NAME=VALUE of what counts, "" for what is gone
		lasting               string
	}{
		{
			os: profiles.Linux,
			files: map[string]string{
				"run/systemd/system/x": "", "usr/lib/systemd/systemd": "", "usr/sbin/auditd": "", "usr/sbin/nft": "", "etc/sysctl.d/x.conf": "",
				"usr/lib/systemd/system/serial-getty@.service": "[Unit]\n", "usr/lib/systemd/system/nftables.service": "[Unit]\n",
				"usr/lib/systemd/system/auditd.service": "[Unit]\n", "usr/lib/systemd/system/rpcbind.service": "[Unit]\n",
				"state/units/serial-getty@ttyS0.service": "", "state/units/rpcbind.service": "", "state/units/other.service": "",
				"state/kernel/kernel.kptr_restrict": "0\n", "state/kernel/net.ipv4.ip_forward": "1\n", "state/kernel/kernel.kexec_load_disabled": "0\n",
				"state/kernel/kernel.yama.ptrace_scope": "0\n",
			},
			after:   "kernel.yama.ptrace_scope=2 kernel.kexec_load_disabled=1 serial-getty@ttyS0.service rpcbind.service other.service= auditd.service= nftables.service=",
			undone:  "kernel.yama.ptrace_scope=0 kernel.kexec_load_disabled=1 serial-getty@ttyS0.service= rpcbind.service= other.service= auditd.service= nftables.service",
			lasting: "99-isc-lock.rules locks, kernel.kexec_load_disabled=1, auditd.service is started",
		},
		{
			// Nothing of a template runs, and no unit is there that could be.
			os: profiles.Linux,
			files: map[string]string{
				"run/systemd/system/x": "", "usr/lib/systemd/systemd": "", "usr/lib/systemd/system/serial-getty@.service": "[Unit]\n", "state/units/other.service": "", "state/kernel/x": "",
			},
			after: "other.service=", undone: "other.service=", lasting: "kernel.kexec_load_disabled=1",
		},
		{
			os: profiles.Illumos,
			files: map[string]string{
				"etc/svc/volatile/repository_door": "", "lib/svc/manifest/x.xml": "",
				"state/smf/svc__network_rpc_bind_default": "true\n", "state/smf/svc__network_finger_default": "false\n",
			},
			after: "svc__network_rpc_bind_default=false svc__network_finger_default=false", undone: "svc__network_rpc_bind_default=true svc__network_finger_default=false",
			lasting: "services keep the properties",
		},
	} {
		m := machine(t, tt.files)
		p, diags := profiles.Parse("few.hcl", []byte(`name = "few"
			title = "what runs"
			controls = { linux = ["B01", "C01", "C10", "L03", "L07", "L36", "L37"], illumos = ["B02", "C01"] }`))
		if diags.HasErrors() {
			t.Fatal(diags)
		}
		s, err := p.Select(tt.os, nil, nil)
		if err != nil {
			t.Fatal(err)
		}
		holds := func(when, what string) {
			t.Helper()
			is := now(t)
			for _, w := range strings.Fields(what) {
				k, want, there := strings.Cut(w, "=")
				if got, ok := is[k]; ok != there || got != want {
					t.Errorf("%s %s: %s is %q (%v), want %q", tt.os, when, k, got, ok, w)
				}
			}
		}
		var lasting string
		var saved []byte
		o := provisioner.Options{Dir: t.TempDir(), Today: today, Save: func(b *profiles.Backup, changes []profiles.Change) (err error) {
			lasting = strings.Join(provisioner.Lasting(changes), "\n")
			saved, err = b.Marshal()
			return err
		}}
		before := state(t, m.root)
		if _, _, err := provisioner.Harden(t.Context(), m, tt.os, s, o); err != nil {
			t.Fatal(err)
		}
		for _, want := range strings.Split(tt.lasting, ", ") {
			if !strings.Contains(lasting, want) || (lasting == "") != (tt.lasting == "") {
				t.Errorf("%s: lasting is\n%s\nwhich lacks %q", tt.os, lasting, want)
			}
		}
		holds("hardened", tt.after)
		b, err := profiles.ParseBackup(saved)
		if err != nil {
			t.Fatal(err)
		}
		if err := provisioner.Undo(t.Context(), m, tt.os, b, o); err != nil {
			t.Error(err)
		}
		holds("undone", tt.undone)
		if after := state(t, m.root); after != before {
			t.Errorf("%s: before\n%s\nafter\n%s", tt.os, before, after)
		}
	}
}
