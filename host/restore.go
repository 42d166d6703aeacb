package host

import (
	"context"
	"crypto/rand"
	"errors"

	"github.com/goldenisc/packer-plugin-isc/image"
)

// restore puts entry i and those up to next, which are below it, back as they are in the image. It
// reports false for what it does not make in a tree that others write to: links and devices.
func (c *checker) restore(ctx context.Context, d *folder, elem string, i, next int) (bool, error) {
	e := c.entries[i]
	for k := i; k < next; k++ {
		if e := c.entries[k]; !e.IsDir() && !e.IsRegular() || c.golden.Content.Nlink(e) > 1 || len(e.Xattrs) > 0 {
			return false, nil
		}
	}
	if _, site := c.site[e.Name]; site || e.Name == "." {
		return false, nil
	}
	o, err := d.lstat(elem)
	there := err == nil
	if there && (!e.IsDir() || !o.mode.IsDir()) && o.mode.IsDir() != e.IsDir() {
		if err := removeTree(ctx, d, elem); err != nil {
			return false, nil
		}
		there = false
	}
	if !e.IsDir() {
		err = c.restoreFile(d, elem, e)
	} else {
		if !there {
			err = d.mkdir(elem)
		}
		if err == nil {
			err = c.restoreDir(ctx, d, elem, e, i, next)
		}
	}
	if err != nil {
		return false, err
	}
	c.restored(e.Name)
	return true, nil
}

func (c *checker) restoreDir(ctx context.Context, d *folder, elem string, e *image.Entry, i, next int) error {
	sub, err := d.sub(elem)
	if err != nil {
		return err
	}
	defer sub.Close()
	for k := i + 1; k < next; {
		if err := ctx.Err(); err != nil {
			return err
		}
		end := k + 1
		if c.entries[k].IsDir() {
			end = c.end(k, next)
		}
		if _, err := c.restore(ctx, sub, c.entries[k].Name[len(e.Name)+1:], k, end); err != nil {
			return err
		}
		k = end
	}
	if privileged() {
		if err := sub.chown(".", e.UID, e.GID); err != nil && !lacksRight(err) {
			return err
		}
	}
	return errors.Join(sub.chmodSelf(e.Perm()), sub.utime(".", e.ModTime.UnixNano()))
}

// restoreFile makes the file beside its name, whole, and renames it.
func (c *checker) restoreFile(d *folder, elem string, e *image.Entry) error {
	src, o, err := c.golden.store.open(e.Digest)
	if err != nil {
		return err
	}
	defer src.Close()
	temp := ".iscadm-" + rand.Text()
	f, err := d.create(temp)
	if err != nil {
		return err
	}
	err = copyContent(f, src, o, make([]byte, copyBuffer))
	if err == nil && privileged() {
		if err = f.Chown(e.UID, e.GID); err != nil && lacksRight(err) {
			err = nil
		}
	}
	if err == nil {
		err = f.Chmod(e.Mode)
	}
	if err = errors.Join(err, f.Close()); err == nil {
		err = d.utime(temp, e.ModTime.UnixNano())
	}
	if err == nil {
		err = d.rename(temp, d, elem)
	}
	if err != nil {
		err = errors.Join(err, d.unlink(temp, false))
	}
	return err
}
