package provisioner

import (
	"context"
	"fmt"
	"strings"

	"github.com/goldenisc/packer-plugin-isc/image"
	"github.com/goldenisc/packer-plugin-isc/internal/remote"
	"github.com/goldenisc/packer-plugin-isc/profiles"
)

// An activation is what makes a running system read files that have changed. Its command is a line of
// sh, which does nothing where the system is not the one that runs, as in a folder.
type activation struct {
	os       string // that of illumos is that of Solaris, too
	patterns []string
	check    string // before anything is told to read the files
	command  string
}

// booted is the condition for commands about services: that their manager runs.
const (
	systemd = `[ -d /run/systemd/system ] || exit 0; `
	smf     = `[ -e /etc/svc/volatile/repository_door ] || [ -e /system/volatile/repository_door ] || exit 0; `
)

// has is the condition that a program is there.
func has(program string) string { return "command -v " + program + " >/dev/null 2>&1 || exit 0; " }

// activations are in the order in which they run.
var activations = []activation{
	{
		os: profiles.Linux, patterns: []string{"etc/ssh/sshd_config", "etc/ssh/sshd_config.d/*"}, check: has("sshd") + `mkdir -p /run/sshd; exec sshd -t`,
		command: systemd + `systemctl reload ssh 2>/dev/null || systemctl reload sshd 2>/dev/null || exit 0`,
	},
	{os: profiles.Linux, patterns: []string{"etc/sudoers", "etc/sudoers.d/*"}, check: has("visudo") + `exec visudo -cq`},
	{os: profiles.Linux, patterns: []string{"etc/nftables.conf"}, check: has("nft") + `exec nft -c -f /etc/nftables.conf`},
	{
		os: profiles.Linux, patterns: []string{"etc/sysctl.conf", "etc/sysctl.d/*"},
		command: systemd + has("sysctl") + `sysctl --system >/dev/null 2>&1 || exit 0`,
	},
	{
		os: profiles.Linux, patterns: []string{"etc/systemd/**", "usr/lib/systemd/**", "lib/systemd/**"},
		command: systemd + `exec systemctl daemon-reload`,
	},
	{
		os: profiles.Linux, patterns: []string{"etc/systemd/journald.conf", "etc/systemd/journald.conf.d/*"},
		command: systemd + `exec systemctl restart systemd-journald`,
	},
	{
		os: profiles.Linux, patterns: []string{"etc/audit/rules.d/*"},
		command: systemd + has("augenrules") + `augenrules --load >/dev/null 2>&1 || exit 0`,
	},

	{
		os: profiles.Illumos, patterns: []string{"etc/ssh/sshd_config"}, check: `exec /usr/lib/ssh/sshd -t`,
		command: smf + `svcadm refresh svc:/network/ssh:default 2>/dev/null || exit 0`,
	},
	{
		os: profiles.Illumos, patterns: []string{"lib/svc/manifest/**", "var/svc/manifest/**"},
		command: smf + `exec svcadm restart svc:/system/manifest-import:default`,
	},
	{
		os: profiles.Illumos, patterns: []string{"etc/svc/profile/site/*"},
		command: smf + `ls /etc/svc/profile/site/*.xml >/dev/null 2>&1 || exit 0; exec svccfg apply /etc/svc/profile/site`,
	},
	{
		os: profiles.Illumos, patterns: []string{"etc/security/audit_*"},
		command: smf + `svcadm refresh svc:/system/auditd:default 2>/dev/null || exit 0`,
	},
}

// activate has the system read what has changed. First everything is checked.
func activate(ctx context.Context, r remote.Runner, os string, changes []profiles.Change) error {
	var todo []activation
	for _, a := range activations {
		ok, err := a.concerns(changes)
		if err != nil {
			return err
		}
		if ok && (a.os == os || a.os == profiles.Illumos && os == profiles.Solaris) {
			todo = append(todo, a)
		}
	}
	for _, line := range []func(activation) string{
		func(a activation) string { return a.check }, func(a activation) string { return a.command },
	} {
		for _, a := range todo {
			if line(a) == "" {
				continue
			}
			if err := r.Run(ctx, remote.Command{Args: []string{"sh", "-c", line(a)}}); err != nil {
				return fmt.Errorf("activate %s: %w", strings.Join(a.patterns, " "), err)
			}
		}
	}
	if os != profiles.Linux {
		return nil
	}
	masked, wanted := unitsOf(changes)
	for _, unit := range masked {
		if err := shell(ctx, r, stop, unit); err != nil {
			return fmt.Errorf("stop %q: %w", unit, err)
		}
	}
	for _, unit := range wanted {
		if err := shell(ctx, r, start, unit); err != nil {
			return fmt.Errorf("start %q: %w", unit, err)
		}
	}
	return nil
}

// concerns says whether any change matches.
func (a *activation) concerns(changes []profiles.Change) (bool, error) {
	for _, pattern := range a.patterns {
		m, err := image.NewMatcher(pattern)
		if err != nil {
			return false, err
		}
		for _, c := range changes {
			if m.Match(c.Name) {
				return true, nil
			}
		}
	}
	return false, nil
}
