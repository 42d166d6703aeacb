package zfs

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// harness runs .ci/zfs.sh and returns its standard output and whether it succeeded. A tool that is
// missing ends the test.
func harness(t *testing.T, args ...string) (string, bool) {
	t.Helper()
	cmd := exec.Command("../.ci/zfs.sh", args...)
	var out, problems bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &problems
	err := cmd.Run()
	if _, ok := err.(*exec.ExitError); err != nil && (!ok || cmd.ProcessState.ExitCode() == 125) {
		t.Fatalf("%v: %v\n%s%s", cmd, err, out.String(), problems.String())
	}
	if err != nil {
		t.Logf("%v: %v\n%s%s", args, err, tail(out.String()), tail(problems.String()))
	}
	return out.String(), err == nil
}

// tail returns the last lines of a log.
func tail(s string) string {
	if len(s) > 4000 {
		return "…" + s[len(s)-4000:]
	}
	return s
}

// scratch returns a folder for a test that ISC_REAL asks for.
func scratch(t *testing.T) string {
	t.Helper()
	if os.Getenv("ISC_REAL") != "1" {
		t.Skip("ISC_REAL is not 1")
	}
	return t.TempDir()
}

// file writes a file of a test and returns its path.
func file(t *testing.T, dir, name string, data []byte) string {
	t.Helper()
	path := filepath.Join(dir, name)
	if err := os.WriteFile(path, data, 0o644); err != nil {
		t.Fatal(err)
	}
	return path
}

// lister builds the program that lists a mounted tree.
func lister(t *testing.T, dir string) string {
	t.Helper()
	path := filepath.Join(dir, "list")
	cmd := exec.Command("go", "build", "-o", path, "./testdata/list")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOOS=linux")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v: %v\n%s", cmd, err, out)
	}
	return path
}

// window is that of testdata/list.
const window = 1 << 20

// listing returns the lines that testdata/list prints of a tree, by name, without what differs from
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
			for _, off := range []int64{0, 4<<30 - window/2, o.Size - window} {
				if err == nil {
					_, err = io.Copy(h, io.NewSectionReader(c, off, window))
				}
			}
		}
		if err != nil {
			tb.Fatal(err)
		}
	}
	return hex.EncodeToString(h.Sum(nil))
}

// parseListing reads what testdata/list printed.
func parseListing(t *testing.T, r io.Reader) map[string]string {
	t.Helper()
	type entry struct{ path, rest string }
	var entries []entry
	s := bufio.NewScanner(r)
	s.Buffer(nil, 16<<20)
	for s.Scan() {
		quoted, err := strconv.QuotedPrefix(s.Text())
		if err != nil {
			t.Fatalf("line %q: %v", s.Text(), err)
		}
		path, err := strconv.Unquote(quoted)
		if err != nil {
			t.Fatal(err)
		}
		entries = append(entries, entry{path, strings.TrimPrefix(s.Text()[len(quoted):], " ")})
	}
	if err := s.Err(); err != nil {
		t.Fatal(err)
	}
	slices.SortFunc(entries, func(a, b entry) int { return comparePaths(a.path, b.path) })
	first := map[string]string{}
	lines := map[string]string{}
	for _, e := range entries {
		_, after, _ := strings.Cut(e.rest, " ino=")
		ino, _, _ := strings.Cut(after, " ")
		if _, ok := first[ino]; !ok {
			first[ino] = e.path
		}
		lines[e.path] = strings.Replace(e.rest, " ino="+ino+" ", " ino="+first[ino]+" ", 1)
	}
	return lines
}

func sameListing(t *testing.T, what string, want, got map[string]string) {
	t.Helper()
	bad := 0
	say := func(format string, args ...any) {
		if bad++; bad < 20 {
			t.Errorf(format, args...)
		}
	}
	cut := func(s string) string { return s[:min(len(s), 400)] }
	for path, w := range want {
		if g, ok := got[path]; !ok {
			say("%s: %q is missing", what, path)
		} else if g != w {
			say("%s: %q is\n\t%s, want\n\t%s", what, path, cut(g), cut(w))
		}
	}
	for path := range got {
		if _, ok := want[path]; !ok {
			say("%s: %q is not ours", what, path)
		}
	}
	if len(got) == 0 {
		t.Errorf("%s: nothing was listed", what)
	}
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
