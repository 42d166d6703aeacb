package host

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strconv"
	"strings"
)

// Reset rolls the root back if nothing stands in the way of that, or sets it aside and makes
// another one.
func (c zfsPlatform) Reset(ctx context.Context, j *Job, keep string) error {
	return c.with(ctx, j, func(z *zfsJob) error {
		if keep != "" && z.view[z.sub(keep)] != nil {
			return fmt.Errorf("dataset %q exists", z.sub(keep))
		}
		root := z.view[z.sub(zfsRoot)]
		if keep == "" && root != nil && root.newest() == baseSnap {
			return z.back(ctx, root.name+"@"+baseSnap)
		}
		if err := z.make(ctx, zfsNewRoot, nextBaseline); err != nil {
			return err
		}
		if err := j.Journal(phaseSwap, 0); err != nil {
			return err
		}
		return z.swap(context.WithoutCancel(ctx))
	})
}

// newest returns the newest snapshot of a dataset, or "".
func (d *dataset) newest() string {
	if n := len(d.snapshots); n > 0 {
		return d.snapshots[n-1].name
	}
	return ""
}

// back rolls the root back to its newest snapshot.
func (z *zfsJob) back(ctx context.Context, snap string) error {
	if err := z.p.unmount(ctx, z.view, z.name); err != nil {
		return err
	}
	if err := z.p.patiently(ctx, "rollback", snap); err != nil {
		return err
	}
	_, err := z.inner(ctx)
	return err
}

// Upgrade puts a root of the image that is the job's golden one in the place of the old one.
func (c zfsPlatform) Upgrade(ctx context.Context, j *Job) error {
	return c.with(ctx, j, func(z *zfsJob) error {
		if err := z.make(ctx, zfsNewRoot, nextBaseline); err != nil {
			return err
		}
		j.Instance.Image = j.Golden.Digest
		if err := j.Journal(phaseSwap, 0); err != nil {
			return err
		}
		return z.swap(context.WithoutCancel(ctx))
	})
}

// swap puts the new root in the place of the root, from wherever that was cut short.
func (z *zfsJob) swap(ctx context.Context) error {
	if err := z.again(ctx); err != nil {
		return err
	}
	root, fresh := z.sub(zfsRoot), z.sub(zfsNewRoot)
	switch {
	case z.view[fresh] != nil:
		if err := z.p.unmount(ctx, z.view, z.name); err != nil {
			return err
		}
		if z.view[root] != nil {
			if err := z.aside(ctx); err != nil {
				return err
			}
		}
		if err := z.p.patiently(ctx, "rename", fresh, root); err != nil {
			return err
		}
	case z.view[root] == nil:
		return fmt.Errorf("dataset %q is gone", root)
	}
	if err := os.Rename(z.path(nextBaseline), z.path(baselineFile)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err := syncDir(z.Dir); err != nil {
		return err
	}
	if err := z.again(ctx); err != nil {
		return err
	}
	if _, err := z.inner(ctx); err != nil {
		return err
	}
	return z.clean(ctx)
}

// aside renames the root, which is not mounted and will not be by itself.
func (z *zfsJob) aside(ctx context.Context) error {
	root := z.sub(zfsRoot)
	if err := z.p.zfs(ctx, "set", "canmount=noauto", root); err != nil {
		return err
	}
	to := ""
	if p := z.Instance.Pending; p.Op == opReset && p.Arg != "" {
		to = z.sub(p.Arg)
		if err := z.p.zfs(ctx, "set", "readonly=on", root); err != nil {
			return err
		}
	}
	for i := 1; to == "" || z.view[to] != nil; i++ {
		to = root + ":" + strconv.Itoa(i)
	}
	return z.p.patiently(ctx, "rename", root, to)
}

// clean destroys older roots that no snapshot of the instance is in and no other root comes from.
func (z *zfsJob) clean(ctx context.Context) error {
	if err := z.again(ctx); err != nil {
		return err
	}
	for again := true; again; {
		again = false
		for _, d := range z.view.below(z.name) {
			kept := func(s snapshot) bool { return !s.deferred && !strings.Contains(s.name, ":") }
			if !strings.HasPrefix(d.name, z.sub(zfsRoot)+":") || slices.ContainsFunc(d.snapshots, kept) || z.view.cloned(d, nil) {
				continue
			}
			if err := z.p.patiently(ctx, "destroy", "-r", d.name); err != nil {
				return err
			}
			delete(z.view, d.name)
			again = true
		}
	}
	return nil
}

func (c zfsPlatform) Snapshot(ctx context.Context, j *Job, name string) error {
	return c.with(ctx, j, func(z *zfsJob) error { return z.p.zfs(ctx, "snapshot", z.sub(zfsRoot)+"@"+name) })
}

// find returns the root that has a snapshot of the instance: the present or an older one.
func (z *zfsJob) find(snap string) *dataset {
	for _, d := range z.view.below(z.name) {
		if d.has(snap) {
			return d
		}
	}
	return nil
}

func (c zfsPlatform) Rollback(ctx context.Context, j *Job, name string) error {
	return c.with(ctx, j, func(z *zfsJob) error {
		d := z.find(name)
		if d == nil {
			return fmt.Errorf("snapshot %q of %q is gone", name, z.name)
		}
		base, err := readBaseline(j.path(baselineFile), j.Golden.Digest, j.Golden.Content)
		if err != nil {
			return err
		}
		base.forget()
		if err := base.write(j.path(nextBaseline), j.Golden.Digest); err != nil {
			return err
		}
		if d.name == z.sub(zfsRoot) && d.newest() == name {
			if err := z.back(ctx, d.name+"@"+name); err != nil {
				return err
			}
			return os.Rename(j.path(nextBaseline), j.path(baselineFile))
		}
		if err := z.cloneTo(ctx, d.name+"@"+name, zfsNewRoot); err != nil {
			return err
		}
		if err := j.Journal(phaseSwap, 0); err != nil {
			return err
		}
		return z.swap(context.WithoutCancel(ctx))
	})
}

func (c zfsPlatform) Forget(ctx context.Context, j *Job, name string) error {
	return c.with(ctx, j, func(z *zfsJob) error {
		if d := z.find(name); d != nil {
			if err := z.p.patiently(ctx, "destroy", "-d", d.name+"@"+name); err != nil {
				return err
			}
		}
		return z.clean(ctx)
	})
}

func (c zfsPlatform) Destroy(ctx context.Context, j *Job) error {
	return c.with(ctx, j, func(z *zfsJob) error { return z.destroy(ctx) })
}

func (z *zfsJob) destroy(ctx context.Context) error {
	if z.view[z.name] == nil {
		return nil
	}
	if err := z.p.unmount(ctx, z.view, z.name); err != nil {
		return err
	}
	return z.p.patiently(ctx, "destroy", "-r", z.name)
}

func (c zfsPlatform) Recover(ctx context.Context, j *Job) (exists bool, err error) {
	err = c.with(ctx, j, func(z *zfsJob) error {
		exists, err = z.recover(ctx)
		return err
	})
	return exists, err
}

func (z *zfsJob) recover(ctx context.Context) (bool, error) {
	pending := z.Instance.Pending
	if pending.Op == opClone {
		if pending.Phase == "" || z.view[z.name] == nil {
			return false, nil
		}
		token, err := z.p.get(ctx, z.name, tokenProp)
		if err != nil || token[tokenProp] != strconv.FormatUint(pending.Inode, 10) {
			return false, err // somebody else's
		}
		return false, z.destroy(ctx)
	}
	if pending.Op == opDestroy {
		return false, z.destroy(ctx)
	}
	if z.view[z.name] == nil {
		return true, nil // somebody removed it; destroy says so
	}
	switch {
	case pending.Op == opForget:
		if d := z.find(pending.Arg); d != nil {
			if err := z.p.patiently(ctx, "destroy", "-d", d.name+"@"+pending.Arg); err != nil {
				return true, err
			}
		}
		z.Instance.forget(pending.Arg)
		return true, z.clean(ctx)
	case pending.Op == opSnapshot:
		if z.find(pending.Arg) != nil {
			z.Instance.keep(pending.Arg)
		}
		return true, nil
	case pending.Phase == phaseSwap:
		if pending.Op == opReset {
			z.Instance.Reset = now()
		}
		return true, z.swap(ctx)
	}
	if err := z.discard(ctx); err != nil {
		return true, err
	}
	if pending.Op == opRollback {
		// Whether the root is the old one or that of the snapshot, nothing of it is known.
		if err := os.Rename(z.path(nextBaseline), z.path(baselineFile)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return true, err
		}
	} else {
		os.Remove(z.path(nextBaseline))
	}
	if err := z.again(ctx); err != nil {
		return true, err
	}
	_, err := z.inner(ctx)
	return true, err
}

// discard destroys a new root that is half-made.
func (z *zfsJob) discard(ctx context.Context) error {
	fresh := z.view[z.sub(zfsNewRoot)]
	if fresh == nil {
		return nil
	}
	if fresh.mounted {
		if err := z.p.patiently(ctx, "unmount", fresh.name); err != nil {
			return err
		}
	}
	if err := z.p.patiently(ctx, "destroy", "-r", fresh.name); err != nil {
		return err
	}
	delete(z.view, fresh.name)
	return nil
}
