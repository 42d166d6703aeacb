// List prints every object below a folder, one a line, for a test to compare with what it wrote.
// It is linked statically, since it also runs in a guest that has no libraries.
package main

import (
	"crypto/sha256"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// window is how much of a large file is hashed at its beginning, around 4 GiB and at its end.
const window = 1 << 20

func main() {
	root := os.Args[1]
	if err := filepath.WalkDir(root, func(path string, _ fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		return list(root, path)
	}); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func list(root, path string) error {
	name, err := filepath.Rel(root, path)
	if err != nil {
		return err
	}
	var st unix.Stat_t
	if err := unix.Lstat(path, &st); err != nil {
		return fmt.Errorf("%q: %w", path, err)
	}
	var target, sum string
	var size int64
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFLNK:
		if target, err = os.Readlink(path); err != nil {
			return err
		}
	case unix.S_IFREG:
		size = st.Size
		if sum, err = digest(path, size); err != nil {
			return err
		}
	}
	x, err := xattrs(path)
	if err != nil {
		return fmt.Errorf("%q: %w", path, err)
	}
	fmt.Printf("%q mode=%o uid=%d gid=%d size=%d sec=%d nsec=%d links=%d ino=%d dev=%d,%d target=%q sum=%s xattrs=%s\n",
		name, st.Mode, st.Uid, st.Gid, size, st.Mtim.Sec, st.Mtim.Nsec, st.Nlink, st.Ino,
		unix.Major(st.Rdev), unix.Minor(st.Rdev), target, sum, x)
	return nil
}

func digest(path string, size int64) (string, error) {
	f, err := os.Open(path)
	if err != nil {
		return "", err
	}
	defer f.Close()
	h := sha256.New()
	if size <= 64<<20 {
		_, err = io.Copy(h, f)
	} else {
		for _, off := range []int64{0, 4<<30 - window/2, size - window} {
			if _, err := io.Copy(h, io.NewSectionReader(f, off, window)); err != nil {
				return "", err
			}
		}
	}
	return fmt.Sprintf("%x", h.Sum(nil)), err
}

func xattrs(path string) (string, error) {
	buf := make([]byte, 1<<17)
	n, err := unix.Llistxattr(path, buf)
	if err == unix.ENOTSUP {
		n, err = 0, nil
	}
	if err != nil {
		return "", fmt.Errorf("list attributes: %w", err)
	}
	names := strings.Split(strings.TrimSuffix(string(buf[:n]), "\x00"), "\x00")
	slices.Sort(names)
	var list []string
	for _, name := range names {
		if name == "" {
			continue
		}
		n, err := unix.Lgetxattr(path, name, buf)
		if err != nil {
			return "", fmt.Errorf("attribute %q: %w", name, err)
		}
		list = append(list, fmt.Sprintf("%s:%x", name, buf[:n]))
	}
	return strings.Join(list, ","), nil
}
