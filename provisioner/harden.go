package provisioner

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/rogpeppe/go-internal/diff"

	"github.com/goldenisc/packer-plugin-isc/image"
	"github.com/goldenisc/packer-plugin-isc/internal/remote"
	"github.com/goldenisc/packer-plugin-isc/profiles"
)

// Options say how a machine is worked on.
type Options struct {
	Root  string    // a folder on the machine that is the root; default /
	Dir   string    // for temporary files here
	Today time.Time // what waivers are held against, and the time of what changes
	// Save is given what is about to be replaced, and the changes, before anything is written; an error
	// ends it there. Nil saves nothing beyond this call.
	Save func(*profiles.Backup, []profiles.Change) error
	// Reconnect makes a new connection to a machine that one is made to, and is nil elsewhere. A profile
	// that keeps its caller from logging in again is put back, and so is what a lost connection left half
	// way. The function ends the connection.
	Reconnect func(context.Context) (remote.Runner, func() error, error)
}

// ErrUndone is the kind of error of a profile that was applied and then put back.
var ErrUndone = errors.New("everything was put back")

// Audit reports on a machine without changing it.
func Audit(ctx context.Context, r remote.Runner, s *profiles.Selection, o Options) (*profiles.Report, error) {
	s = s.Live()
	m, err := Open(ctx, r, o.Root, s.Globs(), o.Dir)
	if err != nil {
		return nil, err
	}
	defer m.Close()
	return profiles.Audit(m, s, o.Today)
}

// Plan returns what applying a profile would change on a machine.
func Plan(ctx context.Context, r remote.Runner, s *profiles.Selection, o Options) ([]profiles.Change, error) {
	m, changes, err := plan(ctx, r, s.Live(), o)
	if err != nil {
		return nil, err
	}
	return changes, m.Close()
}

// plan opens the machine and applies the profile to an overlay of it.
func plan(ctx context.Context, r remote.Runner, s *profiles.Selection, o Options) (*Machine, []profiles.Change, error) {
	m, err := Open(ctx, r, o.Root, s.Globs(), o.Dir)
	if err != nil {
		return nil, nil, err
	}
	overlay := profiles.NewOverlay(m)
	err = profiles.Apply(overlay, s, o.Today)
	var changes []profiles.Change
	if err == nil {
		changes, err = overlay.Changes()
	}
	if err != nil {
		m.Close()
		return nil, nil, err
	}
	return m, changes, nil
}

// Harden applies a profile to a machine and audits it. What could not be made whole is put back: then
// the error is ErrUndone. It returns what was changed, and the report of the machine as it is then, with
// controls that fail because no edit can make them hold.
func Harden(ctx context.Context, r remote.Runner, os string, s *profiles.Selection, o Options) ([]profiles.Change, *profiles.Report, error) {
	s = s.Live()
	m, changes, err := plan(ctx, r, s, o)
	if err != nil {
		return nil, nil, err
	}
	defer m.Close()
	if len(changes) > 0 {
		backup, err := profiles.Save(m, changes)
		if err != nil {
			return nil, nil, err
		}
		if o.live() {
			if backup.Running, err = running(ctx, r, os, changes); err != nil {
				return nil, nil, err
			}
		}
		if o.Save != nil {
			if err := o.Save(backup, changes); err != nil {
				return nil, nil, err
			}
		}
		if err := apply(ctx, r, os, s, o, m, changes); err != nil {
			// Also if it was cancelled: a machine is not left half way.
			if e := putBack(context.WithoutCancel(ctx), r, os, backup, o); e != nil {
				return nil, nil, fmt.Errorf("%w; putting it back failed, too: %w", err, e)
			}
			return nil, nil, fmt.Errorf("%w; %w", err, ErrUndone)
		}
	}
	report, err := Audit(ctx, r, s, o)
	return changes, report, err
}

// live reports whether the root is that of what runs.
func (o *Options) live() bool { return o.Root == "" || o.Root == "/" }

// apply writes the changes, has them read, and looks whether they are there.
func apply(ctx context.Context, r remote.Runner, os string, s *profiles.Selection, o Options, m *Machine, changes []profiles.Change) error {
	if err := profiles.Commit(m, changes); err != nil {
		return err
	}
	if o.live() {
		if err := activate(ctx, r, os, changes); err != nil {
			return err
		}
		if err := o.login(ctx); err != nil {
			return fmt.Errorf("after this, a new login fails: %w", err)
		}
	}
	again, left, err := plan(ctx, r, s, o)
	if err != nil {
		return err
	}
	if len(left) > 0 {
		var b strings.Builder
		Diff(&b, left[:1])
		err = fmt.Errorf("%q is not as it was written: %s", left[0].Name, strings.TrimSpace(b.String()))
	}
	return errors.Join(err, again.Close())
}

// Servers take a moment to read what they were told to read.
const (
	settle = time.Second
	logins = 5
)

// login tries whether a new connection can still be made.
func (o *Options) login(ctx context.Context) error {
	if o.Reconnect == nil {
		return nil
	}
	var err error
	for range logins {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(settle):
		}
		var r remote.Runner
		var done func() error
		if r, done, err = o.Reconnect(ctx); err != nil {
			continue
		}
		if err = errors.Join(r.Run(ctx, remote.Command{Args: []string{"true"}}), done()); err == nil {
			return nil
		}
	}
	return err
}

// putBack undoes what was written, through a new connection if the old one is lost.
func putBack(ctx context.Context, r remote.Runner, os string, b *profiles.Backup, o Options) error {
	err := Undo(ctx, r, os, b, o)
	if err == nil || o.Reconnect == nil {
		return err
	}
	again, done, e := o.Reconnect(ctx)
	if e != nil {
		return errors.Join(err, e)
	}
	return errors.Join(Undo(ctx, again, os, b, o), done())
}

// Undo puts a backup back.
func Undo(ctx context.Context, r remote.Runner, os string, b *profiles.Backup, o Options) error {
	m, err := Open(ctx, r, o.Root, nil, o.Dir)
	if err != nil {
		return err
	}
	defer m.Close()
	var changes []profiles.Change
	for _, name := range b.Names() {
		changes = append(changes, profiles.Change{Name: name})
	}
	if err := b.Restore(m); err != nil || !o.live() {
		return err
	}
	return errors.Join(activate(ctx, r, os, changes), restore(ctx, r, b.Running))
}

// Diff writes changes for people: what happens to each object, and the lines of its text.
func Diff(w io.Writer, changes []profiles.Change) error {
	var b bytes.Buffer
	for _, c := range changes {
		name := "/" + c.Name
		switch {
		case c.After == nil:
			fmt.Fprintf(&b, "remove %s (%s)\n", name, describe(c.Before))
		case c.Before == nil:
			fmt.Fprintf(&b, "make %s (%s)\n", name, describe(c.After))
		default:
			if from, to := describe(c.Before), describe(c.After); from != to {
				fmt.Fprintf(&b, "change %s: %s to %s\n", name, from, to)
			}
		}
		if c.Old != nil || c.New != nil {
			b.Write(diff.Diff(name, text(c.Old), name+" hardened", text(c.New)))
		}
	}
	_, err := w.Write(b.Bytes())
	return err
}

func describe(e *image.Entry) string {
	s := fmt.Sprintf("%s, mode %04o, owner %d:%d", image.TypeName(e.Mode), e.Perm(), e.UID, e.GID)
	if e.Target != "" {
		s += ", to " + e.Target
	}
	return s
}

// text hides what would steer a terminal.
func text(data []byte) []byte {
	return []byte(strings.Map(func(r rune) rune {
		if r < ' ' && r != '\n' && r != '\t' || r == 0x7f {
			return '?'
		}
		return r
	}, string(data)))
}
