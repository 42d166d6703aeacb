//go:build linux

package realtest

import (
	"encoding/json"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/goldenisc/packer-plugin-isc/image"
	"github.com/goldenisc/packer-plugin-isc/internal/zfstest"
)

// versions of an image are what the spec adds to its base; each is built upon those before it.
var versions = []string{`
`, `
file {
  path    = "/sizes/one"
  content = "grown"
}
file {
  path    = "/sizes/5MiB"
  content = "shrunk"
}
remove {
  paths = ["/links/b", "/sizes/hole only"]
}
link {
  path   = "/dev/new"
  target = "/etc/os-release"
}
`, `
file {
  path    = "/sizes/one"
  content = "a third time"
}
file {
  path    = "/modes/setuid"
  content = "x"
  mode    = "4755"
  owner   = "7"
}
remove {
  paths = ["/names", "/times/dir"]
}
file {
  path    = "/times/dir"
  content = "no directory any more"
}
`}

// buildStreams builds the versions with the blocks, into layouts 1, 2 and 3 of a folder, and exports
// the streams: full ones as N.ID and increments as M-N.ID.
func buildStreams(t *testing.T, dir string, blocks map[string]string) {
	t.Helper()
	base, err := bases["odd"](t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for i, version := range versions {
		n := i + 1
		from := []string{}
		for m := 1; m < n; m++ {
			from = append(from, "oci:"+filepath.Join(dir, strconv.Itoa(m)))
		}
		list, err := json.Marshal(from)
		if err != nil {
			t.Fatal(err)
		}
		spec := fmt.Sprintf("image {\n  name = \"odd\"\n  version = \"%d\"\n  os = \"linux\"\n  arch = \"amd64\"\n}\nbase {\n  source = %q\n}\nprofile {\n  name = \"none\"\n}\n", n, "tar:"+base) + version
		for _, id := range slices.Sorted(maps.Keys(blocks)) {
			spec += fmt.Sprintf("zfs {\n  id   = %q\n  from = %s\n%s}\n", id, list, blocks[id])
		}
		file := filepath.Join(dir, fmt.Sprintf("%d.isc.hcl", n))
		if err := os.WriteFile(file, []byte(spec), 0o600); err != nil {
			t.Fatal(err)
		}
		layout := "oci:" + filepath.Join(dir, strconv.Itoa(n))
		iscadm(t, "build", "--quiet", file, "-o", layout)
		for id := range blocks {
			iscadm(t, "zfs", "dump", "--check", layout, id)
			iscadm(t, "export", layout, id, "-o", filepath.Join(dir, fmt.Sprintf("%d.%s", n, id)))
			for m := 1; m < n; m++ {
				iscadm(t, "export", layout, fmt.Sprintf("%s/from-%d", id, m), "-o", filepath.Join(dir, fmt.Sprintf("%d-%d.%s", m, n, id)))
			}
		}
	}
}

// guid returns that of a full stream of a version.
func guid(t *testing.T, dir string, n int, id string) string {
	t.Helper()
	var doc struct{ Artifacts []image.Artifact }
	if err := json.Unmarshal(iscadm(t, "inspect", "--json", "oci:"+filepath.Join(dir, strconv.Itoa(n))), &doc); err != nil {
		t.Fatal(err)
	}
	for _, a := range doc.Artifacts {
		if a.Name == id {
			return a.Attributes[image.AttrGUID]
		}
	}
	t.Fatalf("no artifact %q", id)
	return ""
}

// contentOf returns the content manifest of a version.
func contentOf(t *testing.T, dir string, n int) *image.Content {
	t.Helper()
	var files []*os.File
	for _, name := range []string{"content", "objects"} {
		file := filepath.Join(t.TempDir(), name)
		iscadm(t, "export", "oci:"+filepath.Join(dir, strconv.Itoa(n)), name, "-o", file)
		f, err := os.Open(file)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		files = append(files, f)
	}
	c, err := image.ReadContent(files[0], files[1])
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// listing returns what the lister of zfstest prints of the content manifest, where mounted.
func listing(c *image.Content, nanoseconds bool, device func(image.Device) image.Device) map[string]string {
	subdirs := map[string]int{}
	for e := range c.All() {
		if e.IsDir() && e.Name != "." {
			subdirs[path.Dir(e.Name)]++
		}
	}
	types := map[fs.FileMode]uint32{
		0: unix.S_IFREG, fs.ModeDir: unix.S_IFDIR, fs.ModeSymlink: unix.S_IFLNK, fs.ModeNamedPipe: unix.S_IFIFO,
		fs.ModeDevice: unix.S_IFBLK, fs.ModeDevice | fs.ModeCharDevice: unix.S_IFCHR,
	}
	lines := map[string]string{}
	for e := range c.All() {
		name, links := e.Name, c.Nlink(e)
		if e.HardLink != "" {
			e = c.Lookup(e.HardLink)
		}
		var d image.Device
		var sum, nsec string
		var size int64
		switch {
		case e.IsDir():
			links = 2 + subdirs[e.Name]
		case e.IsRegular():
			sum, size = fmt.Sprintf("%x", e.Digest), e.Size
		case e.Mode&fs.ModeDevice != 0:
			d = device(e.Rdev)
		}
		if nsec = "0"; nanoseconds {
			nsec = strconv.Itoa(e.ModTime.Nanosecond())
		}
		var x []string
		for _, k := range slices.Sorted(maps.Keys(e.Xattrs)) {
			x = append(x, fmt.Sprintf("%s:%x", k, e.Xattrs[k]))
		}
		lines[name] = fmt.Sprintf("mode=%o uid=%d gid=%d size=%d sec=%d nsec=%s links=%d ino=%s dev=%d,%d target=%q sum=%s xattrs=%s",
			types[e.Type()]|e.Perm(), e.UID, e.GID, size, e.ModTime.Unix(), nsec, links, e.Name, d.Major, d.Minor, e.Target, sum, strings.Join(x, ","))
	}
	return lines
}

// sameContent compares what was listed of a mounted dataset with the content manifest of a version.
func sameContent(t *testing.T, file string, want map[string]string) {
	t.Helper()
	f, err := os.Open(file)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	zfstest.Same(t, filepath.Base(file), want, zfstest.Parse(t, f))
}

// receiveStreams is a script that receives the versions of a stream: one after the other, the last from
// the first, and the last whole. Clones of them are listed, and they themselves are written to at last.
func receiveStreams(in, out, mount, list, id, guid string) string {
	root := ""
	if id == "zone" {
		root = "/root"
	}
	return fmt.Sprintf(`
ID=%[5]s
gone() { for i in 1 2 3 4 5 6 7 8 9; do zfs destroy -r $1 && return; sleep 1; done; return 1; } # zfs-fuse is busy for a while
look() { zfs clone $1 isc/look; %[4]s %[3]s/look%[6]s > %[2]s/$2.$ID.list; gone isc/look; }
receive() { # FILE DATASET
  zfs receive $2@$1 < %[1]s/$1.$ID
  zfs set readonly=on $2 # or a mere look at it counts as a change
  look $2@$1 $1
}
receive 1 isc/$ID; receive 1-2 isc/$ID; receive 2-3 isc/$ID
receive 1 isc/$ID-direct; receive 1-3 isc/$ID-direct
receive 3 isc/$ID-whole
for s in isc/$ID@2-3 isc/$ID-direct@1-3 isc/$ID-whole@3; do test "$(zfs get -Hpo value guid $s)" = %[7]s; done
for d in $ID $ID-direct $ID-whole; do
  zfs set readonly=off isc/$d
  cd %[3]s/$d%[6]s
  echo more >> sizes/one; echo more >> sizes/513; mkdir made; mv sizes made; rm -r xattrs; ln made/sizes/one links/one
  cd /
  for s in $(zfs list -H -o name -t snapshot -r isc/$d); do zfs destroy $s; done
done
`, in, out, mount, list, id, root, guid)
}

const scrub = `
sync; zpool scrub isc
while zpool status isc | grep -q 'in progress'; do sleep 1; done
zpool status -v isc | grep -q 'errors: No known data errors'
`

// What the program builds is received by zfs-fuse, of pool version 23: full streams and increments.
func TestRealZFSFuseReceives(t *testing.T) {
	real(t)
	dir := zfstest.Scratch(t)
	buildStreams(t, dir, map[string]string{"z": "  profile = \"zpl4\"\n  compression = \"none\"\n"})
	list := zfstest.Lister(t, dir)
	script := filepath.Join(dir, "script")
	text := fmt.Sprintf("set -eo pipefail\ncd %[1]s\ntruncate -s 300M disk\nzpool create -O atime=off -m %[1]s/mnt isc %[1]s/disk\n"+
		"trap 'cd /; zpool destroy -f isc 2>/dev/null || true' EXIT\n", dir) +
		receiveStreams(dir, dir, dir+"/mnt", list, "z", guid(t, dir, 3, "z")) + scrub
	if err := os.WriteFile(script, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	if out, ok := zfstest.Run(t, "fuse", script); !ok {
		t.Fatalf("the script failed:\n%s", zfstest.Tail(out))
	}
	// It takes a device number to be in the form of glibc.
	glibc := func(d image.Device) image.Device {
		v := uint64(d.Major)<<20 | uint64(d.Minor)
		return image.Device{Major: uint32(v >> 8 & 0xfff), Minor: uint32(v&0xff | v>>12&^0xff)}
	}
	for file, n := range map[string]int{"1": 1, "1-2": 2, "2-3": 3, "1-3": 3, "3": 3} {
		sameContent(t, filepath.Join(dir, file+".z.list"), listing(contentOf(t, dir, n), false, glibc))
	}
}

// The same with OpenZFS, for the profile that it is for, compressed blocks, and a zonepath.
func TestRealOpenZFSReceives(t *testing.T) {
	real(t)
	dir := zfstest.Scratch(t)
	blocks := map[string]string{
		"plain": "  compression = \"none\"\n",
		"lz4":   "  compression = \"none\"\n  lz4 = true\n",
		"zone":  "  compression = \"none\"\n  layout = \"root\"\n",
	}
	buildStreams(t, dir, blocks)
	text := "set -eo pipefail\ntruncate -s 1G /tmp/disk\nzpool create -O atime=off -O xattr=sa -m /mnt isc /tmp/disk\n"
	args := []string{"vm", "-o", filepath.Join(dir, "out"), filepath.Join(dir, "script"), zfstest.Lister(t, dir)}
	for _, id := range slices.Sorted(maps.Keys(blocks)) {
		text += receiveStreams("/in", "/out", "/mnt", "/in/list", id, guid(t, dir, 3, id))
		for _, f := range []string{"1", "1-2", "2-3", "1-3", "3"} {
			args = append(args, filepath.Join(dir, f+"."+id))
			if out, ok := zfstest.Run(t, "check", filepath.Join(dir, f+"."+id)); !ok {
				t.Errorf("zstream refuses %s.%s: %s", f, id, out)
			}
		}
	}
	text += scrub + "zpool export isc\nzdb -e -p /tmp -bcc isc > /out/zdb 2>&1\ngrep -q 'No leaks' /out/zdb\n"
	if err := os.WriteFile(filepath.Join(dir, "script"), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	if out, ok := zfstest.Run(t, args...); !ok {
		t.Fatalf("the script failed:\n%s", zfstest.Tail(out))
	}
	for id := range blocks {
		device := func(d image.Device) image.Device { return d }
		if id == "zone" { // Linux takes the lower half of what illumos keeps for its own form
			device = func(d image.Device) image.Device {
				return image.Device{Major: d.Minor >> 20, Minor: d.Minor & (1<<20 - 1)}
			}
		}
		for file, n := range map[string]int{"1": 1, "1-2": 2, "2-3": 3, "1-3": 3, "3": 3} {
			sameContent(t, filepath.Join(dir, "out", file+"."+id+".list"), listing(contentOf(t, dir, n), true, device))
		}
	}
}
