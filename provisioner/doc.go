// Package provisioner holds running machines to the profiles that images are held to, with the same
// definition of every control.
//
// A [Machine] is a root of package profiles behind a [remote.Runner]: its files are listed with find(1)
// and fetched with tar(1) and cat(1). [Audit] reports on one. [Harden] applies a profile: the controls edit an
// overlay here, the difference can be looked at, what it replaces is saved, then the files are written,
// each in one step, and what reads them is told to ([activation]). Then the machine is audited again, and if the
// controls that were applied do not hold, or anything failed on the way, everything is put back.
//
// Nothing is installed on a machine. It takes sh, find, tar, cat, chown, chmod, mv, ln, mkdir and rm
// there, and root's privileges, see [As]. Controls that only images can keep, such as sealing, are left out.
// Those that only a command on the machine can keep, such as FIPS mode, which wants another start, are left
// to people: reports have them with the status [profiles.OnDock] and the command.
package provisioner

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/goldenisc/packer-plugin-isc/internal/remote"
	"github.com/goldenisc/packer-plugin-isc/profiles"
)

// As returns a runner that puts a command, such as sudo -n or pfexec, in front of every other. The
// default is none.
func As(r remote.Runner, command ...string) remote.Runner {
	if len(command) == 0 {
		return r
	}
	return prefixed{r, command}
}

type prefixed struct {
	remote.Runner
	command []string
}

func (p prefixed) Run(ctx context.Context, c remote.Command) error {
	c.Args = append(append([]string(nil), p.command...), c.Args...)
	return p.Runner.Run(ctx, c)
}

// System finds out which operating system of package profiles a machine runs.
func System(ctx context.Context, r remote.Runner) (string, error) {
	out, err := remote.Output(ctx, r, 1024, remote.Command{Args: []string{"uname", "-s"}})
	if err != nil {
		return "", fmt.Errorf("find out the operating system: %w", err)
	}
	switch name := strings.TrimSpace(string(out)); name {
	case "Linux":
		return profiles.Linux, nil
	case "SunOS":
		// Both say so. Solaris 11.4 has its version here, "11.4.0.15.0", illumos that of its distribution.
		out, err := remote.Output(ctx, r, 1024, remote.Command{Args: []string{"uname", "-v"}})
		if err != nil {
			return "", fmt.Errorf("find out the operating system: %w", err)
		}
		if strings.HasPrefix(string(out), "11.") {
			return profiles.Solaris, nil
		}
		return profiles.Illumos, nil
	default:
		return "", fmt.Errorf("the machine runs %q: there are controls for Linux, illumos and Solaris only", name)
	}
}

// errLineFeed is the error of a name that no command line can hold.
var errLineFeed = errors.New("the name has a line feed in it")
