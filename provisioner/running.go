package provisioner

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"path"
	"slices"
	"strings"

	"github.com/goldenisc/packer-plugin-isc/image"
	"github.com/goldenisc/packer-plugin-isc/internal/remote"
	"github.com/goldenisc/packer-plugin-isc/profiles"
)

// Lines of sh about the state of what runs. Arguments are names; a template is none that could be
// started or stopped (systemd.unit(5)): its instances are.
const (
	instances = `systemctl list-units --plain --no-legend --full --state=active "${u%%@.*}@*.${u##*@.}"`

	stop    = systemd + `u=$1; case "$u" in *@.*) ` + instances + ` | while read -r i _; do systemctl stop "$i" || exit 1; done ;; *) exec systemctl stop "$u" ;; esac`
	start   = systemd + `systemctl is-enabled --quiet "$1" || exit 0; exec systemctl start "$1"`
	restart = systemd + `exec systemctl start "$1"`
	// Some units refuse to be stopped by hand: Lasting has said so.
	stopBack = systemd + `case "$1" in *@.*) exit 0 ;; esac; systemctl stop "$1" || [ "$(systemctl show -p RefuseManualStop "$1")" = RefuseManualStop=yes ]`
	active   = systemd + `for u in "$@"; do case "$u" in *@.*) ` + instances + ` | while read -r i _; do echo "$i"; done ;; ` +
		`*) if systemctl is-active --quiet "$u"; then echo "$u"; fi ;; esac; done`

	kernel     = systemd + `command -v sysctl >/dev/null 2>&1 || exit 0; for k in "$@"; do if v=$(sysctl -n "$k" 2>/dev/null); then printf '%s=%s\n' "$k" "$v"; fi; done`
	kernelBack = systemd + `[ "$(sysctl -n "$1")" = "$2" ] || exec sysctl -w "$1=$2"`

	enabled     = smf + `for i in "$@"; do if v=$(svcprop -p general/enabled "$i" 2>/dev/null); then printf '%s=%s\n' "$i" "$v"; fi; done`
	enabledBack = smf + `[ "$(svcprop -p general/enabled "$2")" = "$3" ] || exec svcadm "$1" "$2"`
)

// shell runs a line of sh with arguments.
func shell(ctx context.Context, r remote.Runner, line string, args ...string) error {
	return r.Run(ctx, remote.Command{Args: append([]string{"sh", "-c", line, "sh"}, args...)})
}

// answers runs a line of sh with arguments, if there are any, and returns the lines that it prints.
func answers(ctx context.Context, r remote.Runner, line string, args []string) ([]string, error) {
	if len(args) == 0 {
		return nil, nil
	}
	out, err := remote.Output(ctx, r, image.MaxRead, remote.Command{Args: append([]string{"sh", "-c", line, "sh"}, args...)})
	return strings.FieldsFunc(string(out), func(c rune) bool { return c == '\n' }), err
}

// pairs reads lines of NAME=VALUE.
func pairs(lines []string) map[string]string {
	m := map[string]string{}
	for _, l := range lines {
		if k, v, ok := strings.Cut(l, "="); ok {
			m[k] = v
		}
	}
	return m
}

const unitDir = "etc/systemd/system/"

// unitsOf returns the units that changes mask, and those that they have a target want.
func unitsOf(changes []profiles.Change) (masked, wanted []string) {
	for _, c := range changes {
		unit, ok := strings.CutPrefix(c.Name, unitDir)
		if !ok || c.After == nil || c.After.Mode&fs.ModeSymlink == 0 {
			continue
		}
		switch dir, name := path.Split(unit); {
		case dir == "" && c.After.Target == "/dev/null":
			masked = append(masked, unit)
		case strings.HasSuffix(dir, ".wants/"):
			wanted = append(wanted, name)
		}
	}
	return masked, wanted
}

// kernelOf returns the values that changes have sysctl(8) set.
func kernelOf(changes []profiles.Change) map[string]string {
	set := map[string]string{}
	for _, c := range changes {
		if c.Name != "etc/sysctl.conf" && path.Dir(c.Name) != "etc/sysctl.d" {
			continue
		}
		for line := range strings.Lines(string(c.New)) {
			k, v, ok := strings.Cut(line, "=")
			if k = strings.TrimPrefix(strings.TrimSpace(k), "-"); ok && k != "" && k[0] != '#' && k[0] != ';' && !strings.ContainsAny(k, " \t*") {
				set[k] = strings.TrimSpace(v)
			}
		}
	}
	return set
}

// oneWay are values that the kernel lets nobody take back (Documentation/admin-guide/sysctl/kernel.rst).
var oneWay = map[string]string{
	"kernel.kexec_load_disabled": "1", "kernel.modules_disabled": "1", "kernel.unprivileged_bpf_disabled": "1", "kernel.yama.ptrace_scope": "3",
}

// sites returns what the site profiles of smf(7) among changes say.
func sites(changes []profiles.Change) (all []profiles.SMFService) {
	for _, c := range changes {
		if path.Dir(c.Name) != "etc/svc/profile/site" || len(c.New) == 0 {
			continue
		}
		if b, err := profiles.ParseBundle(c.New); err == nil { // we wrote it
			all = append(all, b.Services...)
		}
	}
	return all
}

// Lasting says what of the running system no undo takes back before the next start.
func Lasting(changes []profiles.Change) []string {
	var all []string
	for _, c := range changes {
		if path.Dir(c.Name) == "etc/audit/rules.d" && slices.Contains(strings.Split(string(c.New), "\n"), "-e 2") {
			all = append(all, fmt.Sprintf("/%s locks the rules of the audit", c.Name))
		}
	}
	set := kernelOf(changes)
	for _, k := range slices.Sorted(maps.Keys(set)) {
		if oneWay[k] != "" && set[k] == oneWay[k] {
			all = append(all, fmt.Sprintf("the kernel keeps %s=%s", k, set[k]))
		}
	}
	if _, wanted := unitsOf(changes); slices.Contains(wanted, "auditd.service") {
		all = append(all, "auditd.service is started, and refuses to be stopped")
	}
	if slices.ContainsFunc(sites(changes), func(s profiles.SMFService) bool {
		return len(s.Properties) > 0 || slices.ContainsFunc(s.Instances, func(i profiles.SMFInstance) bool { return len(i.Properties) > 0 })
	}) {
		all = append(all, "services keep the properties that the site profile sets, but for whether they are enabled")
	}
	return all
}

// running asks for the state of what changes are going to change.
func running(ctx context.Context, r remote.Runner, os string, changes []profiles.Change) (profiles.Running, error) {
	var now profiles.Running
	if os != profiles.Linux {
		var names []string
		for _, s := range sites(changes) {
			for _, i := range s.Instances {
				if i.Enabled != "" {
					names = append(names, "svc:/"+s.Name+":"+i.Name)
				}
			}
		}
		lines, err := answers(ctx, r, enabled, names)
		now.Enabled = pairs(lines)
		return now, err
	}
	set := kernelOf(changes)
	maps.DeleteFunc(set, func(k, v string) bool { return oneWay[k] == v })
	lines, err := answers(ctx, r, kernel, slices.Sorted(maps.Keys(set)))
	if err != nil {
		return now, err
	}
	now.Kernel = pairs(lines)
	masked, wanted := unitsOf(changes)
	now.Units = slices.Concat(masked, wanted)
	now.Active, err = answers(ctx, r, active, now.Units)
	return now, err
}

// restore brings what runs back to a state. All is tried, whatever fails.
func restore(ctx context.Context, r remote.Runner, was profiles.Running) error {
	var errs []error
	try := func(what, line string, args ...string) {
		if err := shell(ctx, r, line, args...); err != nil {
			errs = append(errs, fmt.Errorf("%s %s: %w", what, strings.Join(args, " "), err))
		}
	}
	for _, k := range slices.Sorted(maps.Keys(was.Kernel)) {
		try("set back", kernelBack, k, was.Kernel[k])
	}
	for _, unit := range was.Units {
		if !slices.Contains(was.Active, unit) {
			try("stop", stopBack, unit)
		}
	}
	for _, unit := range was.Active {
		try("start", restart, unit)
	}
	for _, fmri := range slices.Sorted(maps.Keys(was.Enabled)) {
		try("svcadm", enabledBack, map[string]string{"true": "enable", "false": "disable"}[was.Enabled[fmri]], fmri, was.Enabled[fmri])
	}
	return errors.Join(errs...)
}
