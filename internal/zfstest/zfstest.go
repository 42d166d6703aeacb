// Package zfstest is the harness of tests against real implementations of ZFS: zfs-fuse, and OpenZFS in
// a guest, as .ci/zfs.sh runs them, and the comparison of what they mount with what was written.
//
// It knows nothing of the packages that are tested, package zfs included, so that all of them can
// use it.
package zfstest

import (
	"bufio"
	"bytes"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// root returns the folder of the module.
func root(t testing.TB) string {
	t.Helper()
	_, file, _, ok := runtime.Caller(0)
	if !ok || !filepath.IsAbs(file) {
		t.Fatal("the source of the tests is not where they were built")
	}
	return filepath.Join(filepath.Dir(file), "..", "..")
}

// Run runs .ci/zfs.sh and returns its standard output and whether it succeeded. A tool that is
// missing ends the test.
func Run(t testing.TB, args ...string) (string, bool) {
	t.Helper()
	cmd := exec.Command(filepath.Join(root(t), ".ci", "zfs.sh"), args...)
	var out, problems bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &problems
	err := cmd.Run()
	if _, ok := err.(*exec.ExitError); err != nil && (!ok || cmd.ProcessState.ExitCode() == 125) {
		t.Fatalf("%v: %v\n%s%s", cmd, err, out.String(), problems.String())
	}
	if err != nil {
		t.Logf("%v: %v\n%s%s", args, err, Tail(out.String()), Tail(problems.String()))
	}
	return out.String(), err == nil
}

// Tail returns the last lines of a log.
func Tail(s string) string {
	if len(s) > 4000 {
		return "…" + s[len(s)-4000:]
	}
	return s
}

// Scratch returns a folder for a test that ISC_REAL asks for.
func Scratch(t *testing.T) string {
	t.Helper()
	if os.Getenv("ISC_REAL") != "1" {
		t.Skip("ISC_REAL is not 1")
	}
	return t.TempDir()
}

// Lister builds the program that lists a mounted tree in dir and returns its path.
func Lister(t testing.TB, dir string) string {
	t.Helper()
	path := filepath.Join(dir, "list")
	cmd := exec.Command("go", "build", "-o", path, "./internal/zfstest/testdata/list")
	cmd.Dir = root(t)
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOOS=linux")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v: %v\n%s", cmd, err, out)
	}
	return path
}

// Window is how much of a file larger than 64 MiB the lister hashes: at its beginning, around 4 GiB
// and at its end.
const Window = 1 << 20

// Parse reads what the lister printed: lines by name, without what differs from mount to mount. For
// inode numbers stands the first name of the object.
func Parse(t testing.TB, r io.Reader) map[string]string {
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
	slices.SortFunc(entries, func(a, b entry) int { return slices.Compare(strings.Split(a.path, "/"), strings.Split(b.path, "/")) })
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

// Same compares two listings.
func Same(t testing.TB, what string, want, got map[string]string) {
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
