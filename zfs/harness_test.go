package zfs

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/goldenisc/packer-plugin-isc/internal/zfstest"
)

// file writes a file of a test and returns its path.
func file(t *testing.T, dir, name string, data []byte) string {
	t.Helper()
	path := filepath.Join(dir, name)
	if err := os.WriteFile(path, data, 0o644); err != nil {
		t.Fatal(err)
	}
	return path
}

// listing returns the lines that the lister of zfstest prints of a tree, by name, without what differs from
// mount to mount: for inode numbers stands the first name of the object.
func (t tree) listing(tb testing.TB, nanoseconds bool, device func(Device) Device) map[string]string {
	tb.Helper()
	links := map[string]int{}
	for path, o := range t {
		first := path
		if o.Link != "" {
			first = o.Link
		}
		links[first]++
		if dir := filepath.Dir(path); o.Mode.IsDir() && o.Link == "" {
			links[path]++ // its own "."
			if path != "." {
				links[dir]++
			}
		}
	}
	lines := map[string]string{}
	for path, o := range t {
		first := path
		if o.Link != "" {
			first, o = o.Link, t[o.Link]
		}
		mode, err := statMode(o.Mode)
		if err != nil {
			tb.Fatal(err)
		}
		nsec := o.ModTime.Nanosecond()
		if !nanoseconds {
			nsec = 0
		}
		sum := ""
		if o.Mode.IsRegular() {
			sum = digestOf(tb, o)
		}
		var x []string
		for _, name := range slices.Sorted(maps.Keys(o.Xattrs)) {
			x = append(x, fmt.Sprintf("%s:%x", name, o.Xattrs[name]))
		}
		var d Device
		if o.Mode&fs.ModeDevice != 0 {
			d = device(o.Rdev)
		}
		lines[path] = fmt.Sprintf("mode=%o uid=%d gid=%d size=%d sec=%d nsec=%d links=%d ino=%s dev=%d,%d target=%q sum=%s xattrs=%s",
			mode, o.UID, o.GID, o.Size, o.ModTime.Unix(), nsec, links[first], first, d.Major, d.Minor, o.Target, sum, strings.Join(x, ","))
	}
	return lines
}

func digestOf(tb testing.TB, o *Object) string {
	tb.Helper()
	h := sha256.New()
	if o.Size > 0 {
		c, err := o.Open()
		if err != nil {
			tb.Fatal(err)
		}
		defer c.Close()
		if o.Size <= 64<<20 {
			_, err = io.Copy(h, io.NewSectionReader(c, 0, o.Size))
		} else {
			for _, off := range []int64{0, 4<<30 - zfstest.Window/2, o.Size - zfstest.Window} {
				if err == nil {
					_, err = io.Copy(h, io.NewSectionReader(c, off, zfstest.Window))
				}
			}
		}
		if err != nil {
			tb.Fatal(err)
		}
	}
	return hex.EncodeToString(h.Sum(nil))
}

// writeFile writes a stream to a file.
func (s *Stream) writeFile(t *testing.T, path string) {
	t.Helper()
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Write(context.Background(), f); err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
}

// openFile opens a stream in a file.
func openFile(t *testing.T, path, name string) *Snapshot {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	st, err := f.Stat()
	if err != nil {
		t.Fatal(err)
	}
	s, err := Open(f, st.Size(), name)
	if err != nil {
		t.Fatalf("%s: %v", filepath.Base(path), err)
	}
	return s
}
