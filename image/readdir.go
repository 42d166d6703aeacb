package image

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
)

// ReadDir reads a folder without following links and without needing root. What cannot be read is
// an error that names it, never a hole, and so is another file system mounted below it. Content
// stays where it is and is hashed; it must stay unchanged until the tree is closed, which Open
// checks by size and change time, and Close again. Extended attributes are read on Linux.
func ReadDir(ctx context.Context, dir string, o Options) (*Tree, error) {
	t, err := NewTree(o.Dir, o.Limits)
	if err != nil {
		return nil, err
	}
	if err := t.AddDir(ctx, dir, ".", o.Progress); err != nil {
		t.Close()
		return nil, err
	}
	return t, nil
}

// AddDir lays a folder over the directory at, as AddTar does an archive.
func (t *Tree) AddDir(ctx context.Context, dir, at string, p Progress) error {
	l := &loader{tree: t, how: replaceFiles, progress: p}
	if t.Len() == 1 {
		l.how = refuse
	}
	var err error
	if l.at, err = t.resolve(at); err != nil {
		return err
	}
	s := &dirSource{dir: dir, names: map[*node]string{}}
	if err := s.below.open(dir); err != nil {
		return err
	}
	l.src = uint32(len(t.sources))
	t.sources = append(t.sources, s)
	if err := l.walk(ctx, s); err != nil {
		return err
	}
	if l.at == "." {
		s.names = nil
	}
	return t.digest(ctx, l.pending, p)
}

// A dirSource is a folder in which content was left.
type dirSource struct {
	dir   string
	names map[*node]string // below dir, where they are not those of the tree
	below opener
}

func (s *dirSource) Close() error { return s.below.close() }

func (s *dirSource) open(n *node) (io.ReaderAt, io.Closer, error) {
	name := n.Name
	if s.names != nil {
		name = s.names[n]
	}
	f, size, change, err := s.below.file(name)
	if err != nil {
		return nil, nil, reading(s.dir, name, err)
	}
	changed := fmt.Errorf("%s/%s changed while it was read", s.dir, name)
	if size != n.Size || change != n.at {
		f.Close()
		return nil, nil, changed
	}
	return f, closerFunc(func() error {
		size, change, err := f.stat()
		if err == nil && (size != n.Size || change != n.at) {
			err = changed
		}
		return errors.Join(err, f.Close())
	}), nil
}

type closerFunc func() error

func (f closerFunc) Close() error { return f() }

// enter puts one object of the folder into the tree; change is the change time of a regular file,
// which tells later whether it is still the same.
func (l *loader) enter(e Entry, rel string, change int64) error {
	var err error
	size := e.Size
	if e.Name, err = l.name(rel); err != nil {
		return fmt.Errorf("entry %w", err)
	}
	if e.HardLink != "" {
		if e.HardLink, err = l.name(e.HardLink); err != nil {
			return fmt.Errorf("entry %w", err)
		}
	}
	if err := e.inRange(); err != nil {
		return err
	}
	n, err := l.tree.place(e, l.how)
	if err != nil {
		return err
	}
	if n.IsRegular() && n.HardLink == "" {
		if size > l.tree.limits.Bytes-l.tree.bytes {
			return l.tree.tooLarge(e.Name)
		}
		n.Size, n.at, n.src = size, change, l.src
		l.tree.bytes += size
		l.pending = append(l.pending, n)
		if s := l.tree.sources[l.src].(*dirSource); l.at != "." {
			s.names[n] = rel
		}
	}
	l.progress.Report("walk", int64(l.tree.Len()), 0)
	return nil
}

// inRange refuses what no format can say.
func (e *Entry) inRange() error {
	if e.UID < 0 || e.GID < 0 || int64(e.UID) > maxID || int64(e.GID) > maxID {
		return fmt.Errorf("entry %q: owner %d:%d is out of range", e.Name, e.UID, e.GID)
	}
	return nil
}

// reading says of which object an error is.
func reading(dir, rel string, err error) error {
	if pe, ok := err.(*os.PathError); ok {
		err = pe.Err
	}
	return fmt.Errorf("%s/%s: %w", dir, rel, err)
}
