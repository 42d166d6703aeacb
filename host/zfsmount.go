package host

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"path"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/goldenisc/packer-plugin-isc/image"
	"github.com/goldenisc/packer-plugin-isc/internal/remote"
)

// mount mounts a dataset that is not mounted, as far as the view knows.
func (z *zfsJob) mount(ctx context.Context, name string) error {
	d := z.view[name]
	if d == nil {
		return fmt.Errorf("dataset %q is gone", name)
	}
	if d.mounted {
		return nil
	}
	if err := z.p.zfs(ctx, "mount", name); err != nil {
		// A command of a process that was killed may have done it since.
		now, unknown := z.p.get(ctx, name, "mounted")
		if unknown != nil || now["mounted"] != "yes" {
			return err
		}
	}
	d.mounted = true
	return nil
}

// outer mounts the root and the volumes in it, and returns where the root is.
func (z *zfsJob) outer(ctx context.Context) (root string, err error) {
	for _, name := range []string{z.name, z.sub(zfsRoot)} {
		if err := z.mount(ctx, name); err != nil {
			return "", err
		}
	}
	if root, err = z.at(zfsRoot); err != nil {
		return "", err
	}
	names, err := volumes(z.Golden.Config)
	if err != nil {
		return "", err
	}
	for _, name := range names {
		if err := z.mountVolume(ctx, root, name); err != nil {
			return "", fmt.Errorf("volume %q: %w", "/"+name, err)
		}
	}
	return root, nil
}

// inner mounts the root, the volumes and a fresh scratch. All below the instance may be unmounted.
func (z *zfsJob) inner(ctx context.Context) (notes []string, err error) {
	root, err := z.outer(ctx)
	if err != nil || z.Golden.Config.Scratch == "" {
		return nil, err
	}
	if notes, err = z.scratch(ctx, root); err != nil {
		return nil, fmt.Errorf("scratch %q: %w", z.Golden.Config.Scratch, err)
	}
	return notes, nil
}

// component makes a name of a dataset from a path, whose bytes need not be allowed in one.
func component(p string) string {
	sum := sha256.Sum256([]byte(p))
	base := strings.Map(func(r rune) rune {
		if r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' {
			return r
		}
		return '-'
	}, path.Base(p))
	return base[:min(len(base), 16)] + "-" + hex.EncodeToString(sum[:4])
}

// mountPoints makes volumes that do not exist, with what the image has in their place, and empties
// the directories of a new root that volumes and scratch are mounted on: not every system mounts
// over something.
func (z *zfsJob) mountPoints(ctx context.Context, root string) error {
	names, err := volumes(z.Golden.Config)
	if err != nil {
		return err
	}
	for i, name := range names {
		if err := z.p.safeDir(ctx, root, name); err != nil {
			return err
		}
		if err := z.newVolume(ctx, path.Join(root, name), name, z.Golden.Config.Volumes[i].Size); err != nil {
			return fmt.Errorf("volume %q: %w", "/"+name, err)
		}
	}
	if z.Golden.Config.Scratch != "" {
		name, err := image.Clean(z.Golden.Config.Scratch)
		if err != nil {
			return err
		}
		if err := z.p.safeDir(ctx, root, name); err != nil {
			return err
		}
		names = append(names, name)
	}
	for _, name := range names {
		if err := z.p.shell(ctx, nil, `cd "$1" && rm -rf ./* ./.[!.]* ./..?*`, path.Join(root, name)); err != nil {
			return err
		}
	}
	return nil
}

// volumeOf is the dataset of a volume.
func (z *zfsJob) volumeOf(name string) string { return z.sub(zfsData) + "/" + component(name) }

// newVolume makes a volume, unless it exists, with what is in the folder from.
func (z *zfsJob) newVolume(ctx context.Context, from, name string, size int64) error {
	set, ds := z.sub(zfsData), z.volumeOf(name)
	if z.view[ds] != nil {
		return nil
	}
	if z.view[set] == nil {
		if err := z.p.zfs(ctx, "create", "-o", "canmount=off", set); err != nil {
			return err
		}
		z.view[set] = &dataset{name: set}
	}
	made := ds + halfMade
	if d := z.view[made]; d != nil {
		if d.mounted {
			if err := z.p.patiently(ctx, "unmount", made); err != nil {
				return err
			}
		}
		if err := z.p.patiently(ctx, "destroy", made); err != nil {
			return err
		}
	}
	args := []string{"create", "-o", "setuid=off", "-o", "devices=off"}
	if size > 0 {
		args = append(args, "-o", "quota="+strconv.FormatInt(size, 10))
	}
	if err := z.p.zfs(ctx, append(args, made)...); err != nil {
		return err
	}
	to, err := z.at(zfsData + "/" + component(name) + halfMade)
	if err != nil {
		return err
	}
	if err := z.p.shell(ctx, nil, `cd "$1" && tar cf - . | (cd "$2" && tar xpf -) && sync`, from, to); err != nil {
		return err
	}
	if err := z.p.patiently(ctx, "unmount", made); err != nil {
		return err
	}
	// Never by zfs mount -a: an instance could have made a link of a directory on the way.
	if err := z.p.zfs(ctx, "set", "canmount=noauto", made); err != nil {
		return err
	}
	if err := z.p.patiently(ctx, "rename", made, ds); err != nil {
		return err
	}
	z.view[ds] = &dataset{name: ds}
	return nil
}

// mountVolume mounts a volume in the root.
func (z *zfsJob) mountVolume(ctx context.Context, root, name string) error {
	if err := z.p.safeDir(ctx, root, name); err != nil {
		return err
	}
	ds, at := z.volumeOf(name), path.Join(root, name)
	if d := z.view[ds]; d != nil && !d.mounted && d.mountpoint != at {
		if err := z.p.zfs(ctx, "set", "mountpoint="+at, ds); err != nil {
			return err
		}
	}
	return z.mount(ctx, ds)
}

// scratchKey is the size of a key, in bytes.
const scratchKey = 32

// scratch makes a new scratch, and with it forgets what was in the old one.
func (z *zfsJob) scratch(ctx context.Context, root string) ([]string, error) {
	name, err := image.Clean(z.Golden.Config.Scratch)
	if err != nil {
		return nil, err
	}
	ds := z.sub(zfsScratch)
	if z.view[ds] != nil {
		if z.view[ds].mounted {
			if err := z.p.patiently(ctx, "unmount", ds); err != nil {
				return nil, err
			}
		}
		if err := z.p.patiently(ctx, "destroy", "-r", ds); err != nil {
			return nil, err
		}
		delete(z.view, ds)
	}
	if err := z.p.safeDir(ctx, root, name); err != nil {
		return nil, err
	}
	args := []string{"create", "-o", "canmount=noauto", "-o", "mountpoint=" + path.Join(root, name), "-o", "setuid=off", "-o", "devices=off"}
	encrypts, err := z.p.encrypts(ctx)
	if err != nil {
		return nil, err
	}
	var notes []string
	var key []byte
	if encrypts {
		key = make([]byte, scratchKey)
		rand.Read(key) //nolint:errcheck // never fails
		args = append(args, "-o", "encryption=aes-256-gcm", "-o", "keyformat=raw", "-o", "keylocation=prompt")
	} else {
		notes = []string{"the scratch is not encrypted: the pool has no feature@encryption"}
	}
	err = z.p.run.Run(ctx, remote.Command{Args: append(append(slices.Clone(z.p.program), args...), ds), Stdin: bytes.NewReader(key)})
	clear(key)
	if err != nil {
		return nil, err
	}
	z.view[ds] = &dataset{name: ds}
	if err := z.mount(ctx, ds); err != nil {
		return nil, err
	}
	e := z.Golden.Content.Lookup(name)
	if e == nil || !e.IsDir() {
		return notes, nil
	}
	dir := path.Join(root, name)
	owner := strconv.Itoa(e.UID) + ":" + strconv.Itoa(e.GID)
	if err := z.p.run.Run(ctx, remote.Command{Args: []string{"chown", owner, dir}}); err != nil {
		return nil, err
	}
	return notes, z.p.run.Run(ctx, remote.Command{Args: []string{"chmod", fmt.Sprintf("%04o", e.Perm()), dir}})
}

// Start makes an instance usable after a boot, at which only its root is mounted: it mounts what is
// not, and makes a new scratch unless that is mounted. It starts no process.
func (c zfsPlatform) Start(ctx context.Context, j *Job) (*Process, error) {
	return nil, c.with(ctx, j, func(z *zfsJob) error {
		if d := z.view[z.sub(zfsScratch)]; d != nil && d.mounted {
			_, err := z.outer(ctx)
			return err
		}
		_, err := z.inner(ctx)
		return err
	})
}

// Stop unmounts the root and all that is in it.
func (c zfsPlatform) Stop(ctx context.Context, j *Job, _ time.Duration) error {
	return c.with(ctx, j, func(z *zfsJob) error { return z.p.unmount(ctx, z.view, z.name) })
}
