package isczone

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"strings"
	"time"

	"github.com/goldenisc/packer-plugin-isc/internal/remote"
)

// A zone is one on a host of illumos or Solaris, worked on by zonecfg(8), zoneadm(8) and zlogin(1).
type zone struct {
	runner  remote.Runner
	name    string
	path    string // zonepath
	token   string // in the attribute isc-build of the zone, by which it is known to be ours
	made    bool   // it was configured
	archive string // that was sent to the host
}

// maxAnswer bounds what is read of a command's answer, in bytes.
const maxAnswer = 1 << 20

func (z *zone) run(ctx context.Context, args ...string) error {
	return z.runner.Run(ctx, remote.Command{Args: args})
}

// state is the third field of "zoneadm list -p", empty if there is no such zone (zoneadm(8)).
func (z *zone) state(ctx context.Context) (string, error) {
	out, err := remote.Output(ctx, z.runner, maxAnswer, remote.Command{Args: []string{"zoneadm", "list", "-cp"}})
	if err != nil {
		return "", fmt.Errorf("list zones: %w", err)
	}
	for line := range strings.Lines(string(out)) {
		// Only paths, which come later, may have an escaped colon.
		f := strings.SplitN(strings.TrimSpace(line), ":", 4)
		if len(f) >= 3 && f[1] == z.name {
			return f[2], nil
		}
	}
	return "", nil
}

// absent makes sure that the zone is ours to make.
func (z *zone) absent(ctx context.Context) error {
	state, err := z.state(ctx)
	if err == nil && state != "" {
		err = fmt.Errorf("zone %q exists on the host (%s), and is left alone: choose another zone_name", z.name, state)
	}
	return err
}

// configure makes the zone's configuration. The lines have been checked not to hold several commands.
func (z *zone) configure(ctx context.Context, brand string, lines []string) error {
	commands := []string{
		"create -b", "set brand=" + brand, "set zonepath=" + z.path, "set autoboot=false",
		"add attr", "set name=isc-build", "set type=string", "set value=" + z.token, "end",
	}
	commands = append(append(commands, lines...), "verify", "commit")
	if err := z.run(ctx, "zonecfg", "-z", z.name, strings.Join(commands, "; ")); err != nil {
		return fmt.Errorf("configure zone %q: %w", z.name, err)
	}
	z.made = true
	return nil
}

// install installs it, from an archive that is sent if there is one.
func (z *zone) install(ctx context.Context, archive string, args []string) error {
	args = append([]string{"zoneadm", "-z", z.name, "install"}, args...)
	if archive != "" {
		// Not cut short: the answer says what there is to remove.
		out, err := remote.Output(context.WithoutCancel(ctx), z.runner, maxAnswer, remote.Command{Args: []string{"mktemp", "/var/tmp/isc-zone.XXXXXX"}})
		if err != nil {
			return fmt.Errorf("send %q: %w", archive, err)
		}
		z.archive = strings.TrimSpace(string(out))
		f, err := os.Open(archive)
		if err != nil {
			return err
		}
		defer f.Close()
		if err := z.runner.Run(ctx, remote.Command{Args: []string{"sh", "-c", `exec cat >"$1"`, "sh", z.archive}, Stdin: f}); err != nil {
			return fmt.Errorf("send %q: %w", archive, err)
		}
		args = append(args, "-s", z.archive)
	}
	if err := z.run(ctx, args...); err != nil {
		return fmt.Errorf("install zone %q: %w", z.name, err)
	}
	return nil
}

// interval is how often a zone that boots is asked.
var interval = 2 * time.Second

// boot boots the zone and waits for the milestone.
func (z *zone) boot(ctx context.Context, milestone string, timeout time.Duration) error {
	if err := z.run(ctx, "zoneadm", "-z", z.name, "boot"); err != nil {
		return fmt.Errorf("boot zone %q: %w", z.name, err)
	}
	ctx, cancel := context.WithTimeoutCause(ctx, timeout, fmt.Errorf("zone %q: %s is not online after %v", z.name, milestone, timeout))
	defer cancel()
	for {
		// Before zlogin works it fails, which says nothing.
		out, err := remote.Output(ctx, z.runner, maxAnswer, z.login("svcs", "-H", "-o", "state", milestone))
		state := strings.TrimSpace(string(out))
		switch {
		case err == nil && state == "online":
			return nil
		case err == nil && state == "maintenance":
			return fmt.Errorf("zone %q: %s is in maintenance", z.name, milestone)
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-time.After(interval):
		}
	}
}

// login is a command in the zone, as its root. What zlogin(1) is given a shell of the zone reads.
func (z *zone) login(args ...string) remote.Command {
	return remote.Command{Args: []string{"zlogin", z.name, remote.Quote(args...)}}
}

// snapshot is the name of that which the root is fetched from.
const snapshot = "isc-build"

// fetch shuts the zone down and writes its root as an archive. The root of a zone that is down may not
// be mounted; that of one that is ready is, and a snapshot of its file system shows none of those that
// are mounted over it.
func (z *zone) fetch(ctx context.Context, w io.Writer) error {
	if err := z.down(ctx); err != nil {
		return fmt.Errorf("shut zone %q down: %w", z.name, err)
	}
	if err := z.run(ctx, "zoneadm", "-z", z.name, "ready"); err != nil {
		return fmt.Errorf("make zone %q ready: %w", z.name, err)
	}
	root := path.Join(z.path, "root")
	out, err := remote.Output(ctx, z.runner, maxAnswer, remote.Command{Args: []string{"zfs", "list", "-H", "-o", "name,mountpoint", root}})
	if err != nil {
		return fmt.Errorf("zone %q: %q is no ZFS file system: %w", z.name, root, err)
	}
	dataset, _, _ := strings.Cut(strings.TrimSpace(string(out)), "\t")
	if err := z.run(ctx, "zfs", "snapshot", dataset+"@"+snapshot); err != nil {
		return fmt.Errorf("zone %q: %w", z.name, err)
	}
	from := path.Join(root, ".zfs", "snapshot", snapshot)
	// E: extended headers, for what ustar cannot say (tar(1) of illumos).
	err = z.runner.Run(ctx, remote.Command{Args: []string{"tar", "cEf", "-", "-C", from, "."}, Stdout: w})
	// Uninstalling may not destroy a file system that has a snapshot.
	if err := errors.Join(err, z.run(context.WithoutCancel(ctx), "zfs", "destroy", dataset+"@"+snapshot)); err != nil {
		return fmt.Errorf("fetch the root of zone %q: %w", z.name, err)
	}
	return nil
}

// patience bounds a clean shutdown, which waits for every service to stop.
const patience = 5 * time.Minute

// down shuts the zone down cleanly if it can.
func (z *zone) down(ctx context.Context) error {
	clean, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	if err := z.run(clean, "zoneadm", "-z", z.name, "shutdown"); err == nil || ctx.Err() != nil {
		return err
	}
	return z.run(ctx, "zoneadm", "-z", z.name, "halt")
}

// ours says whether the zone is the one that this build configured.
func (z *zone) ours(ctx context.Context) (bool, error) {
	out, err := remote.Output(ctx, z.runner, maxAnswer, remote.Command{Args: []string{"zonecfg", "-z", z.name, "info", "attr", "name=isc-build"}})
	return strings.Contains(string(out), z.token), err
}

// removal bounds the removal of a zone, and tries what it does about one state after the other.
const (
	removal = 15 * time.Minute
	tries   = 30
)

// destroy removes whatever there is of the zone. What was cancelled may go on for a while: a zone that
// was told to boot boots. So it looks again after each step until the zone is gone.
func (z *zone) destroy(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, removal)
	defer cancel()
	var sent error
	if z.archive != "" {
		sent = z.run(ctx, "rm", "-f", z.archive)
	}
	if err := errors.Join(sent, z.remove(ctx)); err != nil {
		return fmt.Errorf("remove zone %q, which may still be on the host: %w", z.name, err)
	}
	return nil
}

func (z *zone) remove(ctx context.Context) error {
	var last error
	for range tries {
		state, err := z.state(ctx)
		if err != nil || state == "" {
			return err
		}
		if ours, err := z.ours(ctx); err != nil || !ours {
			return err // somebody else made one of this name
		}
		switch state {
		case "configured":
			last = z.run(ctx, "zonecfg", "-z", z.name, "delete", "-F")
		case "installed", "incomplete":
			last = z.run(ctx, "zoneadm", "-z", z.name, "uninstall", "-F")
		default:
			last = z.run(ctx, "zoneadm", "-z", z.name, "halt")
		}
		if last != nil {
			select {
			case <-ctx.Done():
				return last
			case <-time.After(interval):
			}
		}
	}
	return last
}
