//go:build linux

package realtest

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/goldenisc/packer-plugin-isc/image"
)

// An object is what lstat(2) and reading tell of one name. It is gathered with system calls only,
// apart from the code under test.
type object struct {
	stat   unix.Stat_t
	target string
	sum    [sha256.Size]byte
	xattrs map[string]string
}

// readTree walks a folder. Names are relative to it; it is "." itself.
func readTree(t *testing.T, dir string) map[string]*object {
	t.Helper()
	tree := map[string]*object{}
	err := filepath.WalkDir(dir, func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(dir, p)
		if err != nil {
			return err
		}
		o := &object{}
		if err := unix.Lstat(p, &o.stat); err != nil {
			return err
		}
		switch o.stat.Mode & unix.S_IFMT {
		case unix.S_IFLNK:
			if o.target, err = os.Readlink(p); err != nil {
				return err
			}
		case unix.S_IFREG:
			f, err := os.Open(p)
			if err != nil {
				return err
			}
			defer f.Close()
			h := sha256.New()
			if _, err := io.Copy(h, f); err != nil {
				return err
			}
			o.sum = [sha256.Size]byte(h.Sum(nil))
		}
		if o.xattrs, err = xattrs(p); err != nil {
			return fmt.Errorf("attributes of %q: %w", p, err)
		}
		tree[rel] = o
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return tree
}

func xattrs(name string) (map[string]string, error) {
	buf := make([]byte, 64<<10)
	n, err := unix.Llistxattr(name, buf)
	if errors.Is(err, unix.ENOTSUP) || n == 0 {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	all := map[string]string{}
	for key := range bytes.SplitSeq(bytes.TrimSuffix(buf[:n], []byte{0}), []byte{0}) {
		value := make([]byte, 64<<10)
		n, err := unix.Lgetxattr(name, string(key), value)
		if err != nil {
			return nil, err
		}
		all[string(key)] = string(value[:n])
	}
	return all, nil
}

// compare fails the test for every difference between the folder and the content manifest. What
// the other program does not make at all is named in except.
func compare(t *testing.T, dir string, content *image.Content, except ...string) {
	t.Helper()
	tree := readTree(t, dir)
	var diffs []string
	differ := func(e *image.Entry, what string, got, want any) {
		diffs = append(diffs, fmt.Sprintf("%q: %s is %v, want %v", e.Name, what, got, want))
	}
	for e := range content.All() {
		o := tree[e.Name]
		delete(tree, e.Name)
		if o == nil {
			if !slices.Contains(except, e.Name) {
				diffs = append(diffs, fmt.Sprintf("%q is missing", e.Name))
			}
			continue
		}
		s := &o.stat
		if got, want := s.Mode, statMode(e); got != want && e.Type() != fs.ModeSymlink || got&unix.S_IFMT != want&unix.S_IFMT {
			differ(e, "mode", fmt.Sprintf("%o", got), fmt.Sprintf("%o", want))
		}
		if int(s.Uid) != e.UID || int(s.Gid) != e.GID {
			differ(e, "owner", fmt.Sprint(s.Uid, ":", s.Gid), fmt.Sprint(e.UID, ":", e.GID))
		}
		if s.Mtim.Nano() != e.ModTime.UnixNano() {
			differ(e, "time", s.Mtim.Nano(), e.ModTime.UnixNano())
		}
		if e.IsRegular() && (s.Size != e.Size || o.sum != e.Digest) {
			differ(e, "content", fmt.Sprintf("%d bytes %x", s.Size, o.sum), fmt.Sprintf("%d bytes %x", e.Size, e.Digest))
		}
		if o.target != e.Target {
			differ(e, "target", o.target, e.Target)
		}
		if e.Mode&fs.ModeDevice != 0 && (unix.Major(s.Rdev) != e.Rdev.Major || unix.Minor(s.Rdev) != e.Rdev.Minor) {
			differ(e, "device", s.Rdev, e.Rdev)
		}
		if !e.IsDir() && int(s.Nlink) != content.Nlink(e) {
			differ(e, "links", s.Nlink, content.Nlink(e))
		}
		if e.HardLink != "" {
			var first unix.Stat_t
			if err := unix.Lstat(filepath.Join(dir, e.HardLink), &first); err != nil || first.Ino != s.Ino {
				differ(e, "object", s.Ino, fmt.Sprintf("that of %q", e.HardLink))
			}
		}
		want := map[string]string{}
		for key, value := range e.Xattrs {
			want[key] = string(value)
		}
		if !maps.Equal(o.xattrs, want) {
			differ(e, "xattrs", fmt.Sprintf("%q", o.xattrs), fmt.Sprintf("%q", want))
		}
	}
	for name := range tree {
		diffs = append(diffs, fmt.Sprintf("%q is not in the manifest", name))
	}
	if len(diffs) == 0 {
		return
	}
	slices.Sort(diffs)
	t.Errorf("%d differences", len(diffs))
	t.Error(strings.Join(diffs[:min(len(diffs), 20)], "\n"))
}

// statMode returns the st_mode of an entry.
func statMode(e *image.Entry) uint32 {
	kinds := map[fs.FileMode]uint32{
		0: unix.S_IFREG, fs.ModeDir: unix.S_IFDIR, fs.ModeSymlink: unix.S_IFLNK, fs.ModeNamedPipe: unix.S_IFIFO,
		fs.ModeSocket: unix.S_IFSOCK, fs.ModeDevice: unix.S_IFBLK, fs.ModeDevice | fs.ModeCharDevice: unix.S_IFCHR,
	}
	return kinds[e.Type()] | e.Perm()
}
