// Package tempfile makes temporary files of which nothing is left, however a process ends.
package tempfile

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strings"
)

const prefix = ".iscadm-spool-"

// unnamed says whether an open file may lose its name.
const unnamed = runtime.GOOS != "windows"

// A File is a temporary file that is gone when it is closed. Where the system allows it, it has no
// name, and is gone when the process ends as well.
type File struct{ *os.File }

// New makes a file below dir, or below [os.TempDir] if dir is empty. It removes the files of other
// processes that were killed while these had their names.
func New(dir string) (*File, error) {
	if dir == "" {
		dir = os.TempDir()
	}
	sweep(dir)
	f, err := os.CreateTemp(dir, prefix+"*")
	if err != nil {
		return nil, err
	}
	if unnamed {
		// Another process may have swept it already.
		if err := os.Remove(f.Name()); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, errors.Join(err, f.Close())
		}
	}
	return &File{f}, nil
}

// Close closes and removes the file.
func (f *File) Close() error {
	err := f.File.Close()
	if !unnamed {
		err = errors.Join(err, os.Remove(f.Name()))
	}
	return err
}

// sweep removes what has the name of such a file. Who has one open either needs its name no more, or
// is on a system that removes no open file. An error is no concern of ours: the file is another user's.
func sweep(dir string) {
	d, err := os.Open(dir)
	if err != nil {
		return
	}
	defer d.Close()
	names, _ := d.Readdirnames(-1)
	for _, name := range names {
		if strings.HasPrefix(name, prefix) {
			os.Remove(filepath.Join(dir, name))
		}
	}
}
