package host

import (
	"archive/tar"
	"bytes"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"slices"
	"strconv"
	"strings"

	"github.com/goldenisc/packer-plugin-isc/image"
	"github.com/goldenisc/packer-plugin-isc/internal/remote"
	"github.com/goldenisc/packer-plugin-isc/zfs"
)

// A zfsJob is one operation on one instance, with the connection it needs.
type zfsJob struct {
	*Job
	p    *pool
	name string // dataset of the instance
	view poolView
}

// with connects to the instance's place for one operation.
func (zfsPlatform) with(ctx context.Context, j *Job, f func(*zfsJob) error) error {
	p, err := openPool(ctx, j.Instance.Place)
	if err != nil {
		return err
	}
	z := &zfsJob{Job: j, p: p, name: p.dataset + "/" + j.Instance.Name}
	if z.view, err = p.view(ctx); err == nil {
		err = f(z)
	}
	return errors.Join(err, p.close())
}

func (z *zfsJob) again(ctx context.Context) (err error) {
	z.view, err = z.p.view(ctx)
	return err
}

func (z *zfsJob) sub(name string) string { return z.name + "/" + name }

// at returns where a dataset of the instance is mounted.
func (z *zfsJob) at(name string) (string, error) {
	d := z.view[z.p.dataset]
	if !strings.HasPrefix(d.mountpoint, "/") {
		return "", fmt.Errorf("%q: %w", d.name, errNoMountpoint)
	}
	return path.Join(d.mountpoint, z.Instance.Name, name), nil
}

func (c zfsPlatform) Clone(ctx context.Context, j *Job) (notes []string, err error) {
	err = c.with(ctx, j, func(z *zfsJob) error {
		notes, err = z.clone(ctx)
		return err
	})
	return notes, err
}

func (z *zfsJob) clone(ctx context.Context) (notes []string, err error) {
	if z.view[z.name] != nil {
		return nil, fmt.Errorf("dataset %q exists", z.name)
	}
	if _, err := z.at(""); err != nil {
		return nil, err
	}
	// What is found under the name later is ours if it has this number.
	var token [8]byte
	rand.Read(token[:]) //nolint:errcheck // never fails
	n := binary.LittleEndian.Uint64(token[:]) | 1
	if err := z.Journal(phaseCopy, n); err != nil {
		return nil, err
	}
	args := []string{"create", "-o", "atime=off", "-o", "devices=off", "-o", tokenProp + "=" + strconv.FormatUint(n, 10), z.name}
	if err := z.p.zfs(ctx, args...); err != nil {
		return nil, err
	}
	dir, err := z.at("")
	if err != nil {
		return nil, err
	}
	if err := z.p.run.Run(ctx, remote.Command{Args: []string{"chmod", "0700", dir}}); err != nil {
		return nil, err
	}
	if err := z.make(ctx, zfsRoot, baselineFile); err != nil {
		return nil, err
	}
	if err := z.again(ctx); err != nil {
		return nil, err
	}
	return z.inner(ctx)
}

// make makes a root of the golden copy, with the site values, and its baseline in the state.
func (z *zfsJob) make(ctx context.Context, name, marks string) error {
	d := goldenOf(z.p, z.view, z.Golden.Digest)
	if d == nil {
		return fmt.Errorf("image %s is not in %q: pull it again", z.Golden.Digest, z.p.dataset)
	}
	if err := z.cloneTo(ctx, d.name+"@"+goldenName(z.Golden.Digest), name); err != nil {
		return err
	}
	files, err := z.Instance.Site.files(z.Golden, z.Instance.Name)
	if err != nil {
		return err
	}
	dir, err := z.at(name)
	if err != nil {
		return err
	}
	base := &baseline{marks: make([]mark, z.Golden.Content.Len())}
	if len(files) > 0 {
		archive, err := z.archive(files, base)
		if err != nil {
			return err
		}
		// The clone is as the image has it and nobody has been in it, so no link leads out.
		if err := z.p.shell(ctx, archive, `cd "$1" && tar xpf -`, dir); err != nil {
			return err
		}
	}
	if err := z.mountPoints(ctx, dir); err != nil {
		return err
	}
	if err := z.p.zfs(ctx, "snapshot", z.sub(name)+"@"+baseSnap); err != nil {
		return err
	}
	return base.write(z.path(marks), z.Golden.Digest)
}

// archive packs site files, and notes in the baseline which of the image's they replace.
func (z *zfsJob) archive(files map[string][]byte, base *baseline) ([]byte, error) {
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, s := range record(files) {
		e := siteEntry(z.Golden.Content.Lookup(s.Path), s.Path)
		err := w.WriteHeader(&tar.Header{
			Format: tar.FormatUSTAR, Typeflag: tar.TypeReg, Name: s.Path, Size: s.Size, Mode: int64(e.Perm()),
			Uid: e.UID, Gid: e.GID, ModTime: z.Golden.Config.Created,
		})
		if err != nil {
			return nil, err
		}
		if _, err := w.Write(files[s.Path]); err != nil {
			return nil, err
		}
	}
	i := 0
	for e := range z.Golden.Content.All() {
		if _, ok := files[e.Name]; ok {
			base.marks[i].flags |= isSite
		}
		i++
	}
	err := w.Close()
	return b.Bytes(), err
}

// cloneTo makes a mounted clone.
func (z *zfsJob) cloneTo(ctx context.Context, origin, name string) error {
	if err := z.p.zfs(ctx, "clone", origin, z.sub(name)); err != nil {
		return err
	}
	return z.p.mount(ctx, z.sub(name))
}

// inner mounts the root and makes and mounts the volumes and a fresh scratch in it. All below the
// instance may be unmounted.
func (z *zfsJob) inner(ctx context.Context) (notes []string, err error) {
	for _, name := range []string{z.name, z.sub(zfsRoot)} {
		if err := z.p.mount(ctx, name); err != nil {
			return nil, err
		}
	}
	root, err := z.at(zfsRoot)
	if err != nil {
		return nil, err
	}
	names, err := volumes(z.Golden.Config)
	if err != nil {
		return nil, err
	}
	for _, name := range names {
		if err := z.mountVolume(ctx, root, name); err != nil {
			return nil, fmt.Errorf("volume %q: %w", "/"+name, err)
		}
	}
	if z.Golden.Config.Scratch == "" {
		return nil, nil
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
	ds := z.volumeOf(name)
	if z.view[ds] == nil {
		return fmt.Errorf("dataset %q is gone", ds)
	}
	if z.view[ds].mounted {
		return nil
	}
	if err := z.p.zfs(ctx, "set", "mountpoint="+path.Join(root, name), ds); err != nil {
		return err
	}
	return z.p.mount(ctx, ds)
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
	if err := z.p.mount(ctx, ds); err != nil {
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

func (c zfsPlatform) Check(ctx context.Context, j *Job, mode CheckMode) (r *Report, err error) {
	err = c.with(ctx, j, func(z *zfsJob) error {
		r, err = z.check(ctx, mode)
		return err
	})
	return r, err
}

// check asks how much was written since the base, which is all if that is nothing; then it
// compares: here by walking the root, which believes objects that it knows, on another host by
// reading what zfs sends of a snapshot.
func (z *zfsJob) check(ctx context.Context, mode CheckMode) (*Report, error) {
	ds := z.view[z.sub(zfsRoot)]
	if ds == nil {
		return nil, fmt.Errorf("dataset %q is gone", z.sub(zfsRoot))
	}
	snap := ds.name + "@" + checkSnap
	if slices.ContainsFunc(ds.snapshots, func(s snapshot) bool { return s.name == checkSnap }) {
		if err := z.p.zfs(ctx, "destroy", snap); err != nil {
			return nil, err
		}
	}
	// What is in memory only is not counted, and a snapshot has it all.
	if err := z.p.zfs(ctx, "snapshot", snap); err != nil {
		return nil, err
	}
	r, err := z.compare(ctx, ds, snap, mode)
	return r, errors.Join(err, z.p.patiently(context.WithoutCancel(ctx), "destroy", snap))
}

func (z *zfsJob) compare(ctx context.Context, ds *dataset, snap string, mode CheckMode) (*Report, error) {
	if !mode.Full && ds.has(baseSnap) {
		prop := "written@" + baseSnap
		w, err := z.p.get(ctx, snap, prop)
		if err != nil && !unknown(err) {
			return nil, err
		}
		if err == nil && w[prop] == "0" {
			return &Report{Findings: []Finding{}, Restored: []string{}, Entries: z.Golden.Content.Len()}, nil
		}
	}
	if !z.p.far {
		root, err := z.at(zfsRoot)
		if err != nil {
			return nil, err
		}
		if err := z.p.mount(ctx, ds.name); err != nil {
			return nil, err
		}
		return checkRoot(ctx, z.Job, root, mode)
	}
	rules, err := newRules(z.Golden.Config)
	if err != nil {
		return nil, err
	}
	s, err := newStaged(z.Dir)
	if err != nil {
		return nil, err
	}
	defer s.Close()
	if err := s.fill(ctx, z.p, snap); err != nil {
		return nil, err
	}
	sent, err := zfs.Open(s, s.size, "")
	if err != nil {
		return nil, err
	}
	c := &comparison{content: z.Golden.Content, rules: rules, site: map[string]SiteFile{}}
	for _, f := range z.Instance.Files {
		c.site[f.Path] = f
	}
	full, _, err := zfsPlatform{}.streams(ctx, z.p, z.Golden.Config)
	if err != nil {
		return nil, err
	}
	return c.run(ctx, sent.Objects(platformOf(full)))
}

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
	if fresh := z.view[z.sub(zfsNewRoot)]; fresh != nil {
		if fresh.mounted {
			if err := z.p.patiently(ctx, "unmount", fresh.name); err != nil {
				return true, err
			}
		}
		if err := z.p.patiently(ctx, "destroy", "-r", fresh.name); err != nil {
			return true, err
		}
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
