package host

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"strconv"
	"sync"
	"time"

	"github.com/goldenisc/packer-plugin-isc/image"
)

// removeTree removes a name in an open directory and all below it, without following anything. It
// needs few open directories however deep the tree is: what is too deep is moved up first. That it
// is not there is no error.
func removeTree(ctx context.Context, top *folder, name string) error {
	r := &remover{ctx: ctx, top: top, helpers: make(chan struct{}, removeHelpers)}
	if err := r.remove(top, name, 0); err != nil {
		return err
	}
	for len(r.moved) > 0 {
		name := r.moved[0]
		r.moved = r.moved[1:]
		if err := r.remove(top, name, 0); err != nil {
			return err
		}
	}
	return nil
}

type remover struct {
	ctx     context.Context
	top     *folder
	helpers chan struct{} // a place for each that is at work

	mu    sync.Mutex
	moved []string
	n     int
}

const removeDepth = 100 // levels: more than any honest tree has below one name

// removeHelpers remove names at once. It is not work but waiting for the journal of the file
// system that takes the time, in which the waits of several become one.
const removeHelpers = 8

func (r *remover) remove(d *folder, name string, depth int) error {
	if err := r.ctx.Err(); err != nil {
		return err
	}
	// Not by trying: unlink(2) of a directory is possible for root on UFS, and breaks it.
	o, err := d.lstat(name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	if !o.mode.IsDir() {
		return d.unlink(name, false)
	}
	if depth == removeDepth {
		r.mu.Lock()
		defer r.mu.Unlock()
		r.n++
		up := ".iscadm-deep-" + strconv.Itoa(r.n)
		if err := d.rename(name, r.top, up); err != nil {
			return err
		}
		r.moved = append(r.moved, up)
		return nil
	}
	if !privileged() { // a directory of ours that we may not enter
		if err := d.chmod(name, 0o700); err != nil {
			return err
		}
	}
	sub, err := d.sub(name)
	if err != nil {
		return err
	}
	names, err := sub.names()
	if err == nil {
		err = r.all(sub, names, depth+1)
	}
	if err = errors.Join(err, sub.Close()); err != nil {
		return err
	}
	return d.unlink(name, true)
}

// all removes names of a directory, with whatever helpers are free, and returns the first error.
func (r *remover) all(d *folder, names []string, depth int) error {
	var wg sync.WaitGroup
	defer wg.Wait() // before the directory is closed
	failed := make(chan error, removeHelpers)
	for _, n := range names {
		select {
		case err := <-failed:
			return err
		case r.helpers <- struct{}{}:
			wg.Go(func() {
				defer func() { <-r.helpers }()
				if err := r.remove(d, n, depth); err != nil {
					select {
					case failed <- err:
					default:
					}
				}
			})
		default:
			if err := r.remove(d, n, depth); err != nil {
				return err
			}
		}
	}
	wg.Wait()
	select {
	case err := <-failed:
		return err
	default:
		return nil
	}
}

// A copier copies a tree that others may be writing to, by open directories.
type copier struct {
	skip     map[string]bool
	top      *folder           // of the copy, which is ours
	first    map[uint64]string // names of objects of several, by inode
	dev      uint64
	buf      []byte
	uid, gid int
	done     int64
	report   image.Progress
}

// copyTree copies what is in src to dst, an empty folder; names in skip, relative to src, become
// empty directories. Sockets and other file systems are left out.
func copyTree(ctx context.Context, dst, src *folder, skip map[string]bool, p image.Progress) error {
	c := &copier{skip: skip, top: dst, first: map[uint64]string{}, buf: make([]byte, copyBuffer), report: p}
	c.uid, c.gid = ids()
	o, err := src.stat()
	if err != nil {
		return err
	}
	c.dev = o.dev
	if err := c.dir(ctx, src, ".", 0); err != nil {
		return err
	}
	if err := c.meta(src, ".", ".", &o); err != nil {
		return err
	}
	return dst.syncAll()
}

func (c *copier) dir(ctx context.Context, src *folder, name string, depth int) error {
	if depth > maxDepth {
		return fmt.Errorf("%q is more than %d levels deep", name, maxDepth)
	}
	names, err := src.names()
	if err != nil {
		return err
	}
	for _, elem := range names {
		if err := ctx.Err(); err != nil {
			return err
		}
		to := elem
		if name != "." {
			to = name + "/" + elem
		}
		if err := c.object(ctx, src, elem, to, depth); err != nil {
			return err
		}
	}
	return nil
}

func (c *copier) object(ctx context.Context, src *folder, elem, to string, depth int) error {
	o, err := src.lstat(elem)
	if errors.Is(err, fs.ErrNotExist) {
		return nil // gone meanwhile
	}
	if err != nil {
		return err
	}
	c.done++
	c.report.Report("copy", c.done, 0)
	if !o.mode.IsDir() && o.nlink > 1 {
		if first, ok := c.first[o.ino]; ok {
			return c.top.link(first, to)
		}
		c.first[o.ino] = to
	}
	switch o.mode.Type() {
	case fs.ModeDir:
		if err := c.top.mkdir(to); err != nil {
			return err
		}
		if !c.skip[to] && o.dev == c.dev {
			sub, err := src.sub(elem)
			if err != nil {
				return err
			}
			err = c.dir(ctx, sub, to, depth+1)
			if err := errors.Join(err, sub.Close()); err != nil {
				return err
			}
		}
	case 0:
		if err := c.file(src, elem, to); err != nil {
			return err
		}
	case fs.ModeSymlink:
		target, err := src.readlink(elem)
		if err == nil {
			err = c.top.symlink(target, to)
		}
		if err != nil {
			return err
		}
	case fs.ModeSocket:
		return nil
	default:
		if err := c.top.mknod(to, o.mode, o.rdev); err != nil {
			return err
		}
	}
	return c.meta(src, elem, to, &o)
}

func (c *copier) file(src *folder, elem, to string) error {
	f, o, err := src.open(elem)
	if err != nil {
		return err
	}
	defer f.Close()
	g, err := c.top.create(to)
	if err != nil {
		return err
	}
	if !reflink(g, f) {
		err = copyContent(g, f, o, c.buf)
	}
	return errors.Join(err, g.Close())
}

// meta gives the copy what the original has.
func (c *copier) meta(src *folder, elem, to string, o *object) error {
	attrs, err := src.xattrs(elem)
	if err != nil {
		return err
	}
	e := image.Entry{Name: to, Mode: o.mode, UID: o.uid, GID: o.gid, ModTime: time.Unix(0, o.mtime), Xattrs: attrs}
	_, err = setMeta(c.top, to, &e, c.uid, c.gid)
	return err
}
