package host

import (
	"archive/tar"
	"bytes"
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"path"
	"slices"
	"strconv"
	"strings"

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
	p, err := openPool(ctx, j.Instance.Place, j.lock)
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
		if err := z.mount(ctx, ds.name); err != nil {
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
