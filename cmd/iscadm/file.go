package main

import (
	"errors"
	"io"
	"io/fs"
	"os"
)

// writeFile puts what write writes in the place of a file: all of it or, if there is an error, none.
// A temporary file that a killed command left, or a link that somebody put there, is removed first
// and never written through.
func writeFile(name string, perm fs.FileMode, write func(io.Writer) error) error {
	tmp := name + ".iscadm-tmp"
	if err := os.Remove(tmp); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	f, err := os.OpenFile(tmp, os.O_WRONLY|os.O_CREATE|os.O_EXCL, perm)
	if err != nil {
		return err
	}
	err = write(f)
	err = errors.Join(err, f.Sync(), f.Close())
	if err == nil {
		err = os.Rename(tmp, name)
	}
	if err != nil {
		return errors.Join(err, os.Remove(tmp))
	}
	return nil
}

// bytesTo returns what writes data, for writeFile.
func bytesTo(data []byte) func(io.Writer) error {
	return func(w io.Writer) error {
		_, err := w.Write(data)
		return err
	}
}
