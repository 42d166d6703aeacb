package image

import (
	"context"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
)

// walk enters all that is below the source's folder. Windows knows neither owners nor the
// permission bits of Unix: directories are 0755, files 0644, all owned by root.
func (l *loader) walk(ctx context.Context, s *dirSource) error {
	return filepath.WalkDir(s.dir, func(p string, d fs.DirEntry, err error) error {
		if err == nil {
			err = ctx.Err()
		}
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(s.dir, p)
		if err != nil {
			return err
		}
		rel = filepath.ToSlash(rel)
		info, err := d.Info()
		if err != nil {
			return reading(s.dir, rel, err)
		}
		e := Entry{Mode: info.Mode().Type() | 0o644, ModTime: info.ModTime()}
		switch e.Type() {
		case 0:
			e.Size = info.Size()
			return l.enter(e, rel, changeTime(info))
		case fs.ModeDir:
			e.Mode = fs.ModeDir | 0o755
		case fs.ModeSymlink:
			e.Mode = fs.ModeSymlink | 0o777
			if e.Target, err = os.Readlink(p); err != nil {
				return reading(s.dir, rel, err)
			}
			e.Target = filepath.ToSlash(e.Target)
		default:
			return reading(s.dir, rel, fmt.Errorf("is a %s", TypeName(e.Mode)))
		}
		return l.enter(e, rel, 0)
	})
}

// An opener opens files below a folder.
type opener struct{ dir string }

func (o *opener) open(dir string) error {
	o.dir = dir
	return nil
}

func (o *opener) close() error { return nil }

func (o *opener) file(name string) (f contentFile, size, change int64, err error) {
	if f.File, err = os.Open(filepath.Join(o.dir, filepath.FromSlash(name))); err != nil {
		return f, 0, 0, err
	}
	if size, change, err = f.stat(); err != nil {
		f.Close()
	}
	return f, size, change, err
}

// A contentFile is an open regular file.
type contentFile struct{ *os.File }

// stat returns the size and change time.
func (f contentFile) stat() (size, change int64, err error) {
	info, err := f.Stat()
	if err != nil {
		return 0, 0, err
	}
	return info.Size(), changeTime(info), nil
}

// changeTime stands in for a change time, which the standard library does not give here.
func changeTime(info fs.FileInfo) int64 { return info.ModTime().UnixNano() }
