package provisioner

import (
	"bufio"
	"io/fs"
	"strings"
	"testing"
	"time"

	"github.com/goldenisc/packer-plugin-isc/image"
)

func TestParseGNU(t *testing.T) {
	const in = "f\t4755\t0\t3\t12\t1700000000.5000000000\t\x00usr/bin/su\x00" +
		"l\t777\t0\t0\t4\t1700000000.0\ta\tb\x00etc/with\ttab\x00" +
		"d\t1777\t0\t0\t0\t1700000000\t\x00\x00"
	r := bufio.NewReader(strings.NewReader(in))
	for _, want := range []image.Entry{
		{Name: "usr/bin/su", Mode: fs.ModeSetuid | 0o755, GID: 3, Size: 12, ModTime: time.Unix(1700000000, 500000000).UTC()},
		{Name: "etc/with\ttab", Mode: fs.ModeSymlink | 0o777, Target: "a\tb", ModTime: time.Unix(1700000000, 0).UTC()},
		{Name: ".", Mode: fs.ModeDir | fs.ModeSticky | 0o777, ModTime: time.Unix(1700000000, 0).UTC()},
	} {
		same(t, want, func() (image.Entry, error) { return parseGNU(r) })
	}
}

// TestParseList reads what ls of illumos prints; the lines are of its manual's form.
func TestParseList(t *testing.T) {
	const in = `-r-sr-xr-x   1 0        2          38904 2026-01-02 03:04:05.123456789 +0000 /usr/bin/su
drwxrwxrwt   7 0        3            512 2026-01-02 03:04:05.000000000 +0100 /tmp
lrwxrwxrwx   1 0        0              9 2026-01-02 03:04:05.000000000 +0000 /bin -> ./usr/bin
crw-rw-rw-   1 0        3        13,  2 2026-01-02 03:04:05.000000000 +0000 /dev/null
-rw-r--r--+  1 0        0              1 2026-01-02 03:04:05.000000000 +0000 /with two\012lines and \\ this
Drw-r--r--   1 0        0              0 2026-01-02 03:04:05.000000000 +0000 /var/run/name_service_door
-rw-r-lr--   1 0        0              1 2026-01-02 03:04:05.000000000 +0000 /locked
drwxr-xr-x   7 0        0            512 2026-01-02 03:04:05.000000000 +0000 /
`
	at := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	r := bufio.NewReader(strings.NewReader(in))
	for _, want := range []image.Entry{
		{Name: "usr/bin/su", Mode: fs.ModeSetuid | 0o555, GID: 2, Size: 38904, ModTime: at.Add(123456789)},
		{Name: "tmp", Mode: fs.ModeDir | fs.ModeSticky | 0o777, GID: 3, ModTime: at.Add(-time.Hour)},
		{Name: "bin", Mode: fs.ModeSymlink | 0o777, Target: "./usr/bin", ModTime: at},
		{Name: "dev/null", Mode: fs.ModeDevice | fs.ModeCharDevice | 0o666, GID: 3, ModTime: at},
		{Name: "with two\nlines and \\ this", Mode: 0o644, Size: 1, ModTime: at},
		{Name: "var/run/name_service_door", Mode: fs.ModeSocket | 0o644, ModTime: at},
		{Name: "locked", Mode: fs.ModeSetgid | 0o644, Size: 1, ModTime: at},
		{Name: ".", Mode: fs.ModeDir | 0o755, ModTime: at},
	} {
		same(t, want, func() (image.Entry, error) { return parseList(r, "/") })
	}
}

func same(t *testing.T, want image.Entry, parse func() (image.Entry, error)) {
	t.Helper()
	e, err := parse()
	if err != nil {
		t.Errorf("%s: %v", want.Name, err)
		return
	}
	if e.Name != want.Name || e.Mode != want.Mode || e.UID != want.UID || e.GID != want.GID || e.Size != want.Size || e.Target != want.Target || !e.ModTime.Equal(want.ModTime) {
		t.Errorf("%+v, want %+v", e, want)
	}
}

func FuzzParseGNU(f *testing.F) {
	f.Add("f\t4755\t0\t3\t12\t1700000000.5000000000\t\x00usr/bin/su\x00")
	f.Add("\t1777\t0\t0\t0\t1700000000\t\x00a\x00")
	f.Add("d\t1777\t0\t0\t0\t1700000000\t\x00\x00")
	f.Fuzz(func(t *testing.T, in string) {
		e, err := parseGNU(bufio.NewReader(strings.NewReader(in)))
		if err == nil && (e.Name == "" || e.UID < 0 || e.GID < 0) {
			t.Errorf("%+v", e)
		}
	})
}

func FuzzParseList(f *testing.F) {
	f.Add("-r-sr-xr-x   1 0        2          38904 2026-01-02 03:04:05.123456789 +0000 /usr/bin/su\n")
	f.Add("lrwxrwxrwx   1 0 0 9 2026-01-02 03:04:05.000000000 +0000 /bin -> ./usr\\012bin\n")
	f.Fuzz(func(t *testing.T, in string) {
		e, err := parseList(bufio.NewReader(strings.NewReader(in)), "/")
		if err == nil && (e.Name == "" || e.UID < 0 || e.GID < 0) {
			t.Errorf("%+v", e)
		}
	})
}
