package zfsfake

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"iter"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/goldenisc/packer-plugin-isc/zfs"
)

// move renames a folder, which its owner may not be allowed to write to.
func move(from, to string) error {
	info, err := os.Stat(from)
	if err != nil {
		return err
	}
	if err := os.Chmod(from, 0o700); err != nil {
		return err
	}
	if err := os.Remove(to); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err := os.Rename(from, to); err != nil {
		return err
	}
	return os.Chmod(to, info.Mode())
}

// remove removes a folder with directories that may not be written to.
func remove(dir string) error {
	err := filepath.WalkDir(dir, func(p string, d fs.DirEntry, err error) error {
		if err == nil && d.IsDir() {
			return os.Chmod(p, 0o700)
		}
		return err
	})
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return os.RemoveAll(dir)
}

// copy copies a folder: what is hidden by mounts, not what is mounted.
func (s *session) copy(from, to string) error {
	hidden := map[string]string{}
	for _, d := range s.state.Datasets {
		if d.Mounted != "" && strings.HasPrefix(d.Mounted, from+"/") {
			hidden[d.Mounted] = s.under(d)
		}
	}
	type dir struct {
		path string
		info fs.FileInfo
	}
	var dirs []dir
	first := map[any]string{}
	var walk func(src, dst string) error
	walk = func(src, dst string) error {
		if h, ok := hidden[src]; ok {
			src = h
		}
		info, err := os.Lstat(src)
		if err != nil {
			return err
		}
		switch {
		case info.IsDir():
			if err := os.Mkdir(dst, 0o700); err != nil {
				return err
			}
			dirs = append(dirs, dir{dst, info})
			if err := os.Chmod(src, 0o700|info.Mode()); err != nil {
				return err
			}
			list, err := os.ReadDir(src)
			if err := errors.Join(err, os.Chmod(src, info.Mode())); err != nil {
				return err
			}
			for _, e := range list {
				if err := walk(filepath.Join(src, e.Name()), filepath.Join(dst, e.Name())); err != nil {
					return err
				}
			}
			return nil
		case info.Mode()&fs.ModeSymlink != 0:
			target, err := os.Readlink(src)
			if err != nil {
				return err
			}
			uid, gid := owner(info)
			return errors.Join(os.Symlink(target, dst), chown(dst, uid, gid))
		}
		key := inode(info)
		if other, ok := first[key]; ok && key != nil {
			return os.Link(other, dst)
		}
		first[key] = dst
		data, err := os.ReadFile(src)
		if err != nil {
			return err
		}
		return put(dst, data, info.Mode(), info)
	}
	if err := walk(from, to); err != nil {
		return err
	}
	for _, d := range slices.Backward(dirs) {
		uid, gid := owner(d.info)
		if err := errors.Join(chown(d.path, uid, gid), os.Chtimes(d.path, d.info.ModTime(), d.info.ModTime()), os.Chmod(d.path, d.info.Mode())); err != nil {
			return err
		}
	}
	return nil
}

func put(path string, data []byte, mode fs.FileMode, info fs.FileInfo) error {
	if err := os.WriteFile(path, data, 0o600); err != nil {
		return err
	}
	uid, gid := owner(info)
	return errors.Join(chown(path, uid, gid), os.Chmod(path, mode), os.Chtimes(path, info.ModTime(), info.ModTime()))
}

// receive makes a snapshot of the stream on standard input.
func (s *session) receive(name string) error {
	fsName, snapName, ok := strings.Cut(name, "@")
	if !ok {
		return usageError("missing '@'")
	}
	stream, err := io.ReadAll(s.in)
	if err != nil {
		return err
	}
	h, err := zfs.ReadHeader(bytes.NewReader(stream))
	if err != nil {
		return fmt.Errorf("cannot receive: invalid stream: %w", err)
	}
	d := s.state.Datasets[fsName]
	n := s.next()
	file := s.path(n) + ".stream"
	x := &snapshot{Name: snapName, Dir: n, GUID: h.GUID, Streams: []string{file}}
	if h.FromGUID == 0 {
		if d != nil {
			return fmt.Errorf("cannot receive new filesystem stream: destination '%s' exists", fsName)
		}
	} else {
		if d == nil || len(d.Snapshots) == 0 || d.Snapshots[len(d.Snapshots)-1].GUID != h.FromGUID {
			return errors.New("cannot receive incremental stream: most recent snapshot does not match incremental source")
		}
		last := d.Snapshots[len(d.Snapshots)-1]
		same, err := equal(s.path(last.Dir), s.folder(d))
		if err != nil || !same {
			return errors.Join(err, errors.New("cannot receive incremental stream: destination has been modified"))
		}
		if _, _, err := s.snap(name); err == nil {
			return fmt.Errorf("cannot receive: '%s' exists", name)
		}
		x.Streams = append(slices.Clone(last.Streams), file)
	}
	if err := os.WriteFile(file, stream, 0o600); err != nil {
		return err
	}
	snap, err := open(x.Streams)
	if err != nil {
		return fmt.Errorf("cannot receive: invalid stream: %w", err)
	}
	if err := extract(snap, s.path(n)); err != nil {
		return err
	}
	if d == nil {
		if d, err = s.fresh(fsName, map[string]string{}); err != nil {
			return err
		}
	} else if err := remove(s.path(d.Dir)); err != nil {
		return err
	}
	d.Snapshots = append(d.Snapshots, x)
	return s.copy(s.path(n), s.path(d.Dir))
}

// open reads a full stream and the increments after it.
func open(streams []string) (snap *zfs.Snapshot, err error) {
	for i, f := range streams {
		data, err := os.ReadFile(f)
		if err != nil {
			return nil, err
		}
		r := bytes.NewReader(data)
		if i == 0 {
			snap, err = zfs.Open(r, r.Size(), "")
		} else {
			err = snap.Apply(r, r.Size())
		}
		if err != nil {
			return nil, err
		}
	}
	return snap, nil
}

// received yields what a snapshot was received as, times of links included, which a folder of an
// ordinary user does not have.
func received(streams []string) iter.Seq2[*zfs.Object, error] {
	return func(yield func(*zfs.Object, error) bool) {
		snap, err := open(streams)
		if err != nil {
			yield(nil, err)
			return
		}
		for o, err := range snap.Objects(zfs.Linux) {
			if err == nil && o.Open != nil && o.Size > 0 {
				data := make([]byte, o.Size)
				var f zfs.Content
				if f, err = o.Open(); err == nil {
					if _, err = f.ReadAt(data, 0); err == io.EOF {
						err = nil
					}
					err = errors.Join(err, f.Close())
				}
				o.Digest = sha256.Sum256(data)
			}
			if !yield(o, err) {
				return
			}
		}
	}
}

// extract makes a folder of a file system; attributes are left out, and owners unless we are root.
func extract(snap *zfs.Snapshot, dir string) error {
	var all []*zfs.Object
	for o, err := range snap.Objects(zfs.Linux) {
		if err != nil {
			return err
		}
		all = append(all, o)
	}
	slices.SortFunc(all, func(a, b *zfs.Object) int { return strings.Compare(a.Path, b.Path) })
	path := func(name string) string { return filepath.Join(dir, filepath.FromSlash(name)) }
	for _, o := range all {
		if o.Mode.IsDir() && o.Link == "" {
			if err := os.MkdirAll(path(o.Path), 0o700); err != nil {
				return err
			}
		}
	}
	for _, o := range all {
		var err error
		switch {
		case o.Link != "" || o.Mode.IsDir():
			continue
		case o.Mode&fs.ModeSymlink != 0:
			err = errors.Join(os.Symlink(o.Target, path(o.Path)), chown(path(o.Path), o.UID, o.GID))
		case o.Mode.IsRegular():
			data := make([]byte, o.Size)
			if o.Size > 0 {
				f, err := o.Open()
				if err != nil {
					return err
				}
				if _, err := f.ReadAt(data, 0); err != nil && err != io.EOF {
					return err
				}
				f.Close()
			}
			if err = os.WriteFile(path(o.Path), data, 0o600); err == nil {
				err = errors.Join(chown(path(o.Path), o.UID, o.GID), os.Chmod(path(o.Path), o.Mode), os.Chtimes(path(o.Path), o.ModTime, o.ModTime))
			}
		default:
			err = fmt.Errorf("the fake has no %v", o.Mode)
		}
		if err != nil {
			return err
		}
	}
	for _, o := range all {
		if o.Link != "" {
			if err := os.Link(path(o.Link), path(o.Path)); err != nil {
				return err
			}
		}
	}
	for _, o := range slices.Backward(all) {
		if o.Link == "" && o.Mode.IsDir() {
			if err := errors.Join(chown(path(o.Path), o.UID, o.GID), os.Chtimes(path(o.Path), o.ModTime, o.ModTime), os.Chmod(path(o.Path), o.Mode)); err != nil {
				return err
			}
		}
	}
	return nil
}

// send writes a full stream of a snapshot.
func (s *session) send(name string) error {
	_, x, err := s.snap(name)
	if err != nil {
		return err
	}
	list := objects(s.path(x.Dir))
	if x.Streams != nil {
		list = received(x.Streams)
	}
	stream, err := zfs.NewStream(list, zfs.Options{Name: name})
	if err != nil {
		return err
	}
	return stream.Write(context.Background(), s.out)
}

func objects(dir string) iter.Seq2[*zfs.Object, error] {
	return func(yield func(*zfs.Object, error) bool) {
		first := map[any]string{}
		err := filepath.WalkDir(dir, func(p string, d fs.DirEntry, err error) error {
			if err != nil {
				return err
			}
			info, err := d.Info()
			if err != nil {
				return err
			}
			rel, err := filepath.Rel(dir, p)
			if err != nil {
				return err
			}
			o := &zfs.Object{Path: filepath.ToSlash(rel), Mode: info.Mode(), ModTime: info.ModTime()}
			o.UID, o.GID = owner(info)
			switch {
			case info.Mode()&fs.ModeSymlink != 0:
				if o.Target, err = os.Readlink(p); err != nil {
					return err
				}
				o.Mode = fs.ModeSymlink | 0o777
			case info.Mode().IsRegular():
				if key := inode(info); key != nil && first[key] != "" {
					o = &zfs.Object{Path: o.Path, Link: first[key]}
				} else {
					first[key] = o.Path
					data, err := os.ReadFile(p)
					if err != nil {
						return err
					}
					o.Size, o.Digest = int64(len(data)), sha256.Sum256(data)
					o.Open = func() (zfs.Content, error) { return zfs.BytesContent(data), nil }
				}
			}
			if !yield(o, nil) {
				return fs.SkipAll
			}
			return nil
		})
		if err != nil {
			yield(nil, err)
		}
	}
}
