package host

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"slices"
	"strconv"
	"time"
)

// Operations, as the journal names them.
const (
	opClone    = "clone"
	opReset    = "reset"
	opRollback = "rollback"
	opSnapshot = "snapshot"
	opForget   = "forget"
	opDestroy  = "destroy"
	opUpgrade  = "upgrade"
)

// A CloneRequest says what instance to make of an image that was imported for the platform.
type CloneRequest struct {
	Image    string // digest
	Name     string
	Platform string
	Place    string // as the platform understands it
	Site     Site
}

// Clone makes an instance. The notes say what could not be made as the image has it.
func (h *Host) Clone(ctx context.Context, r CloneRequest) (in *Instance, notes []string, err error) {
	if err := CheckName(r.Name); err != nil {
		return nil, nil, err
	}
	fail := func(err error) (*Instance, []string, error) {
		return nil, nil, fmt.Errorf("clone %q: %w", r.Name, err)
	}
	_, key, _, err := copyAt(r.Platform + ":" + r.Place)
	if err != nil {
		return fail(err)
	}
	if r.Platform == "dir" {
		if r.Place, err = filepath.Abs(r.Place); err != nil {
			return fail(err)
		}
	}
	unlock, err := h.lockInstance(ctx, r.Name)
	if err != nil {
		return nil, nil, err
	}
	defer unlock()
	g, err := h.golden(r.Image)
	if errors.Is(err, fs.ErrNotExist) {
		return fail(fmt.Errorf("image %s is not imported", r.Image))
	}
	if err != nil {
		return fail(err)
	}
	files, err := r.Site.files(g, r.Name)
	if err != nil {
		return fail(err)
	}
	made := Instance{
		Name: r.Name, Image: r.Image, Platform: r.Platform, Place: r.Place, Site: r.Site,
		Created: now(), Files: record(files), Pending: &Pending{Op: opClone},
	}
	err = h.Update(ctx, func(s *State) error {
		if m := s.Image(r.Image); m == nil || !slices.Contains(m.Platforms, key) {
			return fmt.Errorf("image %s is not imported for platform %q", r.Image, key)
		}
		if s.Instance(r.Name) != nil {
			return fmt.Errorf("an instance of this name exists: %w", fs.ErrExist)
		}
		s.Instances = append(s.Instances, made)
		return nil
	})
	if err != nil {
		return fail(err)
	}
	j, p, err := h.job(ctx, &made)
	if err != nil {
		return fail(err)
	}
	if notes, err = p.Clone(ctx, j); err != nil {
		return fail(h.undo(ctx, j, p, err))
	}
	return j.Instance, notes, h.settle(ctx, j, true)
}

func now() time.Time { return time.Now().UTC().Truncate(time.Second) }

// undo brings an operation that failed to an end, so that nothing is left of it.
func (h *Host) undo(ctx context.Context, j *Job, p Platform, err error) error {
	ctx = context.WithoutCancel(ctx)
	exists, again := p.Recover(ctx, j)
	if again == nil {
		again = h.settle(ctx, j, exists)
	}
	if again != nil {
		again = fmt.Errorf("the next command will clean up: %w", again)
	}
	return errors.Join(err, again)
}

// do runs one operation on an instance under its lock. With a pending one it is journalled.
func (h *Host) do(ctx context.Context, name, op string, pending *Pending, f func(*Job, Platform) error) error {
	if err := CheckName(name); err != nil {
		return err
	}
	unlock, err := h.lockInstance(ctx, name)
	if err != nil {
		return err
	}
	defer unlock()
	if err := h.recover(ctx, name); err != nil {
		return err
	}
	fail := func(err error) error { return fmt.Errorf("%s %q: %w", op, name, err) }
	s, err := h.View()
	if err != nil {
		return err
	}
	in := s.Instance(name)
	if in == nil {
		return fail(fmt.Errorf("no such instance: %w", fs.ErrNotExist))
	}
	j, p, err := h.job(ctx, in)
	if err != nil {
		return fail(err)
	}
	if pending != nil {
		if in.Process.alive() {
			return fail(fmt.Errorf("it is running as process %d: stop it first", in.Process.PID))
		}
		j.Instance.Process = nil
		j.Instance.Pending = pending
		if err := j.save(); err != nil {
			return fail(err)
		}
	}
	if err := f(j, p); err != nil {
		if pending != nil {
			err = h.undo(ctx, j, p, err)
		}
		return fail(err)
	}
	if pending == nil {
		return nil
	}
	if err := h.settle(ctx, j, op != opDestroy); err != nil {
		return fail(err)
	}
	if c, ok := p.(Cleaner); ok && c.Litter(j.Instance) {
		if err := c.Clean(ctx, j.Instance); err != nil {
			return fmt.Errorf("%s %q is done, but what it replaced is still there: %w", op, name, err)
		}
	}
	return nil
}

// Check compares an instance with the content manifest of its image. An expired or withdrawn
// release is a finding, too.
func (h *Host) Check(ctx context.Context, name string, mode CheckMode) (*Report, error) {
	var r *Report
	err := h.do(ctx, name, "check", nil, func(j *Job, p Platform) error {
		var err error
		if r, err = p.Check(ctx, j, mode); err != nil {
			return err
		}
		s, err := h.View()
		if err != nil {
			return err
		}
		m := s.Image(j.Instance.Image)
		if m.Revoked != "" {
			r.Findings = append(r.Findings, Finding{"/", Revoked, m.Revoked})
		}
		if !m.Expires.IsZero() && time.Now().After(m.Expires) {
			r.Findings = append(r.Findings, Finding{"/", Expired, m.Expires.Format(time.RFC3339)})
		}
		r.sort()
		return nil
	})
	return r, err
}

// Reset gives an instance the golden content again; its volumes stay, its site values are applied
// again. With keep, what it was is kept beside it, and the name of that is returned.
func (h *Host) Reset(ctx context.Context, name string, keep bool) (evidence string, err error) {
	pending := &Pending{Op: opReset}
	err = h.do(ctx, name, opReset, pending, func(j *Job, p Platform) error {
		if keep {
			j.Instance.Evidence++
			evidence = "evidence-" + strconv.Itoa(j.Instance.Evidence)
			j.Instance.Pending = &Pending{Op: opReset, Arg: evidence}
		}
		if err := j.Journal(phaseCopy, 0); err != nil {
			return err
		}
		if err := p.Reset(ctx, j, evidence); err != nil {
			return err
		}
		j.Instance.Reset = now()
		return nil
	})
	return evidence, err
}

// Snapshot keeps the state of an instance under a name. Volumes are not part of it.
func (h *Host) Snapshot(ctx context.Context, name, snapshot string) error {
	return h.snapshot(ctx, name, opSnapshot, snapshot, func(j *Job, p Snapshotter) error {
		if j.Instance.has(snapshot) {
			return fmt.Errorf("snapshot %q: %w", snapshot, fs.ErrExist)
		}
		if err := p.Snapshot(ctx, j, snapshot); err != nil {
			return err
		}
		j.Instance.keep(snapshot)
		return nil
	})
}

// Rollback gives an instance the state of a snapshot again, which stays. Volumes stay as they are.
func (h *Host) Rollback(ctx context.Context, name, snapshot string) error {
	return h.snapshot(ctx, name, opRollback, snapshot, func(j *Job, p Snapshotter) error {
		if !j.Instance.has(snapshot) {
			return fmt.Errorf("snapshot %q: %w", snapshot, fs.ErrNotExist)
		}
		return p.Rollback(ctx, j, snapshot)
	})
}

// Forget removes a snapshot.
func (h *Host) Forget(ctx context.Context, name, snapshot string) error {
	return h.snapshot(ctx, name, opForget, snapshot, func(j *Job, p Snapshotter) error {
		if !j.Instance.has(snapshot) {
			return fmt.Errorf("snapshot %q: %w", snapshot, fs.ErrNotExist)
		}
		if err := p.Forget(ctx, j, snapshot); err != nil {
			return err
		}
		j.Instance.forget(snapshot)
		return nil
	})
}

func (h *Host) snapshot(ctx context.Context, name, op, snapshot string, f func(*Job, Snapshotter) error) error {
	if err := CheckName(snapshot); err != nil {
		return fmt.Errorf("%s %q: %w", op, name, err)
	}
	return h.do(ctx, name, op, &Pending{Op: op, Phase: phaseCopy, Arg: snapshot}, func(j *Job, p Platform) error {
		s, ok := p.(Snapshotter)
		if !ok {
			return fmt.Errorf("platform %q: %w", j.Instance.Platform, errors.ErrUnsupported)
		}
		return f(j, s)
	})
}

// Upgrade puts another image under an instance, which may be an older one: site values are applied
// again, volumes stay. Snapshots are of the image before, so there must be none.
func (h *Host) Upgrade(ctx context.Context, name, digest string) error {
	return h.do(ctx, name, opUpgrade, &Pending{Op: opUpgrade, Phase: phaseCopy}, func(j *Job, p Platform) error {
		u, ok := p.(Upgrader)
		if !ok {
			return fmt.Errorf("platform %q: %w", j.Instance.Platform, errors.ErrUnsupported)
		}
		if n := len(j.Instance.Snapshots); n > 0 {
			return fmt.Errorf("it has %d snapshots of the image it is of now: destroy them first", n)
		}
		_, key, _, err := copyAt(j.Instance.Platform + ":" + j.Instance.Place)
		if err != nil {
			return err
		}
		s, err := h.View()
		if err != nil {
			return err
		}
		if m := s.Image(digest); m == nil || !slices.Contains(m.Platforms, key) {
			return fmt.Errorf("image %s is not imported for platform %q", digest, key)
		}
		g, err := h.golden(digest)
		if err != nil {
			return err
		}
		files, err := j.Instance.Site.files(g, name)
		if err != nil {
			return err
		}
		was, had := j.Golden, j.Instance.Files
		j.Golden, j.Instance.Files = g, record(files)
		if err = u.Upgrade(ctx, j); err != nil && j.Instance.Image != digest {
			j.Golden, j.Instance.Files = was, had // to be undone
		}
		return err
	})
}

// Destroy removes an instance with its volumes, snapshots and evidence.
func (h *Host) Destroy(ctx context.Context, name string) error {
	return h.do(ctx, name, opDestroy, &Pending{Op: opDestroy}, func(j *Job, p Platform) error {
		return p.Destroy(ctx, j)
	})
}

// has reports whether the instance has this snapshot.
func (in *Instance) has(snapshot string) bool {
	return slices.ContainsFunc(in.Snapshots, func(s Snapshot) bool { return s.Name == snapshot })
}

// keep notes a snapshot.
func (in *Instance) keep(snapshot string) {
	if !in.has(snapshot) {
		in.Snapshots = append(in.Snapshots, Snapshot{snapshot, now()})
	}
}

// forget drops a snapshot.
func (in *Instance) forget(snapshot string) {
	in.Snapshots = slices.DeleteFunc(in.Snapshots, func(s Snapshot) bool { return s.Name == snapshot })
}

// Status says in one word what the instance is: "running", "stopped", or what was begun and is
// not finished.
func (in *Instance) Status() string {
	switch {
	case in.Pending != nil:
		return in.Pending.Op
	case in.Process.alive():
		return "running"
	}
	return "stopped"
}

// remove drops an instance from the state.
func (s *State) remove(name string) {
	s.Instances = slices.DeleteFunc(s.Instances, func(in Instance) bool { return in.Name == name })
}
