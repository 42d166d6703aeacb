package zfs

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/goldenisc/packer-plugin-isc/internal/zfstest"
)

// onDisk writes a pool into a partition of a disk image, at 1 MiB.
func (p *Pool) onDisk(t *testing.T, path string) {
	t.Helper()
	const start = 1 << 20
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := f.Truncate(start + p.Size() + 1<<20); err != nil {
		t.Fatal(err)
	}
	// A partition table of the old kind, with one partition.
	mbr := make([]byte, 512)
	mbr[446+4] = 0xBF
	le := func(off int, v uint32) {
		for i := range 4 {
			mbr[off+i] = byte(v >> (8 * i))
		}
	}
	le(446+8, start/512)
	le(446+12, uint32(p.Size()/512))
	mbr[510], mbr[511] = 0x55, 0xAA
	if _, err := f.WriteAt(mbr, 0); err != nil {
		t.Fatal(err)
	}
	if err := p.Write(t.Context(), offsetWriter{f, start}); err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
}

type offsetWriter struct {
	f   *os.File
	off int64
}

func (w offsetWriter) WriteAt(b []byte, off int64) (int, error) { return w.f.WriteAt(b, w.off+off) }

// TestRealPool has OpenZFS check pools, import them, list what is in them, receive increments into
// them, change everything, destroy all snapshots and check again.
func TestRealPool(t *testing.T) {
	dir := zfstest.Scratch(t)
	var trees [3]tree
	names := []string{"disk"}
	if os.Getenv("ISC_NIGHTLY") == "1" {
		names = append(names, "lz4")
	}
	for _, name := range names {
		o := Options{LZ4: name == "lz4"}
		streams := filepath.Join(dir, name+".streams")
		if err := os.Mkdir(streams, 0o755); err != nil {
			t.Fatal(err)
		}
		trees = versions(t, streams, o)
		o.Name = "image@v1"
		po := PoolOptions{Name: "rpool", Size: 300 << 20, Boot: "ROOT/golden", Path: "/dev/vda1"}
		if name == "lz4" {
			po.Ashift, po.File, po.Path = 9, true, "/in/rpool"
		}
		data := large()
		p := trees[0].pool(t, o, po, Dataset{Name: "data", Content: data.stream(t, Options{Name: "data@v1"}), Properties: map[string]string{"mountpoint": "/mnt/data"}})
		sub := filepath.Join(dir, name)
		if err := os.Mkdir(sub, 0o755); err != nil {
			t.Fatal(err)
		}
		p.writeFile(t, filepath.Join(sub, "rpool"))
		zdbClean(t, sub)
		grub(t, filepath.Join(sub, "rpool"), "(loop0)", trees[0])
		image := filepath.Join(sub, "rpool")
		args := []string{"vm", "-o", filepath.Join(sub, "out")}
		where := "/in"
		if name == "disk" {
			image = filepath.Join(dir, "disk.img")
			p.onDisk(t, image)
			grub(t, image, "(loop0,msdos1)", trees[0])
			args = append(args, "-d", image)
			where = "/dev"
		}
		args = append(args, file(t, sub, "script", fmt.Appendf(nil, `
set -ex
%s
zpool import -N -d %s rpool
zpool status -v rpool
test "$(zpool get -Ho value bootfs rpool)" = rpool/ROOT/golden
test "$(zpool get -Hpo value health rpool)" = ONLINE
test "$(zfs get -Hpo value guid rpool/ROOT/golden@v1)" = %d
test "$(zfs get -Hpo value mountpoint,canmount,atime,compression,org.example:built-by rpool/ROOT/golden | tr '\n' ' ')" = "/ noauto off lzjb tests "
test "$(zfs get -Hpo value mountpoint,canmount,compression rpool | tr '\n' ' ')" = "none off on "
zfs list -o space -t all
zfs list -o space -t all > /out/space
look() { zfs clone -o mountpoint=/mnt/look -o canmount=on $1 rpool/look; /in/list /mnt/look > /out/$2.listing; zfs destroy rpool/look; }
look rpool/ROOT/golden@v1 one
zfs mount rpool/data
/in/list /mnt/data > /out/data.listing
rm /mnt/data/f3
zfs receive -u rpool/ROOT/golden < /in/12; look rpool/ROOT/golden@v2 two
zfs receive -u rpool/ROOT/golden < /in/23; look rpool/ROOT/golden@v3 three
zfs send rpool/ROOT/golden@v3 > /out/again
if [ %[4]s = disk ]; then
zfs set mountpoint=/mnt/golden rpool/ROOT/golden
zfs mount rpool/ROOT/golden
zfs create -o mountpoint=/mnt/other rpool/other
cp -r /mnt/golden/sizes /mnt/other
useany rpool/ROOT/golden /mnt/golden rpool
zfs list -o space -t all
else
zpool scrub -w rpool
zpool status rpool | grep -q 'errors: No known data errors'
fi
zpool export rpool
zdb -e -p %[2]s -bcc rpool > /out/zdb 2>&1 || { tail -30 /out/zdb; exit 1; }
grep -q 'No leaks' /out/zdb
zpool import -N -d %[2]s rpool
zfs destroy -r rpool/ROOT
zfs destroy -r rpool/data
zpool sync rpool
zfs list -o space -t all
zpool upgrade rpool
zpool export rpool
zdb -e -p %[2]s -bcc rpool > /out/zdb 2>&1 || { tail -30 /out/zdb; exit 1; }
grep -q 'No leaks' /out/zdb
`, useAny, where, trees[0].stream(t, o).GUID(), name)), zfstest.Lister(t, dir))
		for _, s := range []string{"12", "23"} {
			args = append(args, filepath.Join(streams, s))
		}
		if name == "lz4" {
			args = append(args, image)
		}
		out, ok := zfstest.Run(t, args...)
		if !ok {
			t.Errorf("%s: the script failed:\n%s", name, zfstest.Tail(out))
			continue
		}
		for i, n := range []string{"one", "two", "three"} {
			l, err := os.Open(filepath.Join(sub, "out", n+".listing"))
			if err != nil {
				t.Fatal(err)
			}
			zfstest.Same(t, name+" "+n, trees[i].normal().listing(t, true, identity[Device]), zfstest.Parse(t, l))
			l.Close()
		}
		sameAs(t, sub, "data.listing", data)
		if name == "disk" { // a plain send is not compressed
			sameRecords(t, filepath.Join(streams, "three"), filepath.Join(sub, "out", "again"))
		}
	}
}

// TestRealPoolVariants has zdb and GRUB read pools of every kind.
func TestRealPoolVariants(t *testing.T) {
	in := allKinds().withXattrs()
	base := mapOf(t, in.stream(t, Options{}))
	dir := zfstest.Scratch(t)
	for name, c := range map[string]struct {
		in tree
		o  Options
		po PoolOptions
	}{
		"zpl4":      {in, Options{Profile: ZPL4}, PoolOptions{Ashift: 9}},
		"illumos":   {in, Options{Platform: Illumos}, PoolOptions{Ashift: 13}},
		"of a base": {edited(in), Options{Base: base}, PoolOptions{Ashift: 12}},
		"slabs":     {large(), Options{}, PoolOptions{Ashift: 10}},
		"1 TB":      {in, Options{LZ4: true}, PoolOptions{Size: 1 << 40}},
	} {
		t.Run(name, func(t *testing.T) {
			c.po.Name, c.po.File, c.o.Name = "rpool", true, "image@v1"
			if c.po.Size == 0 {
				c.po.Size = 200 << 20
			}
			sub := filepath.Join(dir, name)
			if err := os.Mkdir(sub, 0o755); err != nil {
				t.Fatal(err)
			}
			path := filepath.Join(sub, "rpool")
			defer os.Remove(path)
			c.in.pool(t, c.o, c.po).writeFile(t, path)
			zdbClean(t, sub)
			grub(t, path, "(loop0)", c.in)
		})
	}
}

// zdbClean has zdb read all of the pool image "rpool" in a folder.
func zdbClean(t *testing.T, dir string) {
	t.Helper()
	out, ok := zfstest.Run(t, "zdb", "-e", "-p", dir, "-bcc", "rpool")
	if !ok || !strings.Contains(out, "No leaks") {
		t.Errorf("zdb finds leaks or damage:\n%s", zfstest.Tail(out))
	}
	labels, ok := zfstest.Run(t, "zdb", "-l", filepath.Join(dir, "rpool"))
	if !ok || !strings.Contains(labels, "labels = 0 1 2 3") {
		t.Errorf("zdb does not find all labels:\n%s", zfstest.Tail(labels))
	}
}

// grub has GRUB compare some files of a pool image.
func grub(t *testing.T, image, device string, in tree) {
	t.Helper()
	for _, at := range []string{"@", "@v1"} {
		for _, path := range []string{"sizes/1", "sizes/131073", "sizes/5242880", "micro/file299", "sparse/middle", "sparse/hole", "hard2/third", "xattr/spill", "long/" + strings.Repeat("x", 255), "fat/f0"} {
			o := in[path]
			if o == nil {
				continue
			}
			if o.Link != "" {
				o = in[o.Link]
			}
			out, err := exec.Command("grub-fstest", image, "cat", device+"/ROOT/golden/"+at+"/"+path).Output()
			if err != nil {
				t.Errorf("GRUB: %q: %v", path, err)
				continue
			}
			want := make([]byte, o.Size)
			if o.Size > 0 {
				c, err := o.Open()
				if err != nil {
					t.Fatal(err)
				}
				if _, err := c.ReadAt(want, 0); err != nil {
					t.Fatal(err)
				}
				c.Close()
			}
			if string(out) != string(want) {
				t.Errorf("GRUB: %q of %d bytes is another, of %d", path, len(want), len(out))
			}
		}
	}
}
