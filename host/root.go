package host

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
)

// A Rooter is a platform whose instances have their root in a folder of this host.
type Rooter interface {
	// Root returns the folder.
	Root(ctx context.Context, j *Job) (string, error)
}

// Root calls f with the folder that holds the root of an instance, and with its image. The instance is locked until f returns, and f must not change anything.
func (h *Host) Root(ctx context.Context, name string, f func(dir string, g *Golden) error) error {
	return h.do(ctx, name, "audit", nil, func(j *Job, p Platform) error {
		r, ok := p.(Rooter)
		if !ok {
			return fmt.Errorf("platform %q keeps no folder to look into: %w", j.Instance.Platform, ErrPlatform)
		}
		dir, err := r.Root(ctx, j)
		if err != nil {
			return err
		}
		return f(dir, j.Golden)
	})
}

// Root returns the folder of the instance's root.
func (p dirPlatform) Root(_ context.Context, j *Job) (string, error) {
	dir, _, _ := p.dirs(j.Instance)
	return filepath.Join(dir, rootName), nil
}

// Root returns where the dataset of the instance's root is mounted: on this host only.
func (c zfsPlatform) Root(ctx context.Context, j *Job) (dir string, err error) {
	err = c.with(ctx, j, func(z *zfsJob) error {
		if z.p.far {
			return errors.New("its root is on another host: audit it from there, or over ssh://")
		}
		ds := z.view[z.sub(zfsRoot)]
		if ds == nil || !ds.mounted {
			return fmt.Errorf("dataset %q is not mounted", z.sub(zfsRoot))
		}
		dir, err = z.at(zfsRoot)
		return err
	})
	return dir, err
}
