package build

import (
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/goldenisc/packer-plugin-isc/image"
)

// WriteFolder writes the files and folders below top, a directory of the tree, to the folder dst. Links
// and the like stay behind.
func WriteFolder(t *image.Tree, top, dst string) error {
	for e := range t.All() {
		rest, below := strings.CutPrefix(e.Name, top+"/")
		switch {
		case top == ".":
			rest = e.Name
		case e.Name == top:
			rest = "."
		case !below:
			continue
		}
		to := filepath.Join(dst, filepath.FromSlash(rest))
		switch {
		case e.IsDir():
			if err := os.MkdirAll(to, 0o755); err != nil {
				return err
			}
		case e.IsRegular():
			f, err := t.Open(e.Name)
			if err != nil {
				return err
			}
			w, err := os.OpenFile(to, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, e.Mode.Perm())
			if err == nil {
				_, err = io.Copy(w, io.NewSectionReader(f, 0, f.Size()))
				err = errors.Join(err, w.Close())
			}
			if err := errors.Join(err, f.Close()); err != nil {
				return err
			}
		}
	}
	return nil
}
