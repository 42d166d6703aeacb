package profiles

import (
	"slices"
	"strings"
	"testing"

	"github.com/goldenisc/packer-plugin-isc/image"
)

// TestDefaultMutables: the patterns are sound, cover what systems write, and nothing that starts programs.
func TestDefaultMutables(t *testing.T) {
	for _, os := range Platforms {
		rules := DefaultMutables(os)
		l := &Layout{OS: os, Name: "x", Mutables: rules}
		if errs := l.Check(); len(errs) > 0 {
			t.Errorf("%s: %v", os, errs)
		}
		of := func(name string) string {
			for _, r := range rules {
				for _, p := range r.Paths {
					m, err := image.NewMatcher(p)
					if err != nil {
						t.Fatal(err)
					}
					if m.Match(name) {
						return r.Rule
					}
				}
			}
			return ""
		}
		for name, want := range map[string]map[string]string{
			Illumos: {
				"etc/svc/repository.db": "any", "etc/svc/repository-boot-20261125_010203": "any", "var/svc/log/site-web:default.log": "append",
				"var/adm/messages.0": "append", "var/adm/sulog": "append", "var/adm/utmpx": "any", "etc/svc/volatile/init.state": "any",
				"var/audit/20261125010203.not_terminated.web": "append", "etc/ssh/ssh_host_ed25519_key": "any", "etc/svc/profile/platform.xml": "any",
				"etc/svc/profile/site/isc-hardening.xml": "", "var/spool/cron/crontabs/root": "", "root/.bash_history": "", "etc/svc": "", "var/log": "",
			},
			Linux: {
				"var/log/syslog": "append", "var/log/apt/history.log": "append", "var/log/journal/0123/system.journal": "any", "etc/machine-id": "any",
				"run/utmp": "any", "run": "", "var/log": "", "var/lib/dhcp/dhclient.leases": "any", "etc/cron.d/x": "", "var/spool/cron/crontabs/root": "",
				"tmp/x": "", "etc/hosts": "",
			},
		}[os] {
			if got := of(name); got != want {
				t.Errorf("%s: %s: rule %q, want %q", os, name, got, want)
			}
		}
		for _, started := range []string{"etc/passwd", "etc/shadow", "usr/bin/sh", "etc/init.d/x", "lib/svc/method/x", "lib/svc/manifest/site/x.xml", "etc/systemd/system/x.service", "etc/ld.so.preload", "etc/crontab", "root/.profile", "root/.ssh/authorized_keys"} {
			if got := of(started); got != "" {
				t.Errorf("%s: %s may differ: %s", os, started, got)
			}
		}
		for _, r := range rules {
			if i := slices.IndexFunc(r.Paths, func(p string) bool { return strings.HasSuffix(p, "/**") && !strings.HasSuffix(p, "*/**") }); i >= 0 {
				t.Errorf("%s: %s leaves the directory itself out, too", os, r.Paths[i])
			}
		}
	}
}
