package zfs

import (
	"bytes"
	"context"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/goldenisc/packer-plugin-isc/internal/zfstest"
)

// Tests named TestReal run the ZFS implementations of .ci/zfs.sh, when ISC_REAL is 1.

func TestRealZstream(t *testing.T) {
	dir := zfstest.Scratch(t)
	for name, o := range map[string]Options{
		"zpl5":       {},
		"lz4":        {LZ4: true},
		"zpl4":       {Profile: ZPL4},
		"smartos":    {Platform: Illumos, Layout: ZonePath},
		"empty zpl5": {},
	} {
		f := newTree()
		if name != "empty zpl5" {
			f = allKinds().withXattrs()
		}
		stream := f.write(t, o)
		path := file(t, dir, name, stream)
		if out, ok := zfstest.Run(t, "check", path); !ok {
			t.Errorf("%s: zstream refuses it: %s", name, out)
		}
		for _, at := range []int{1000, len(stream) / 2, len(stream) - 100} {
			broken := bytes.Clone(stream)
			broken[at] ^= 1
			if _, ok := zfstest.Run(t, "check", file(t, dir, "broken", broken)); ok {
				t.Errorf("%s: byte %d flipped: zstream accepts it", name, at)
			}
		}
	}
}

// useIt is a shell function that changes a mounted file system in every way, destroys its
// snapshots and looks for damage. The worst mistakes of a stream show only then.
const useIt = `
use() { # DATASET DIR POOL
	cd $2
	echo new > new; mkdir made made/deeper; echo x > made/deeper/x; ln new linked; ln -s new sym
	for i in $(seq 200); do echo $i > fat/new$i; echo $i > micro/new$i; done
	for i in $(seq 100 300); do rm fat/f$i; done
	rm micro/file7; mv sizes/512 sizes/moved; mv micro renamed; chmod 4755 sizes/1; chown 7:8 sizes/0
	echo more >> sizes/131072; echo more >> sizes/131071; : > sizes/262144; echo first > sparse/hole
	rm links/800 hard/first; rm -r long deep; echo x > "$(printf 'y%.0s' $(seq 49))"; rm dev/null; touch times/0
	cd /
	zfs snapshot $1@used; zfs destroy -r $1@used; zfs destroy $1@golden
	sync; zpool scrub $3
	while zpool status $3 | grep -q 'in progress'; do sleep 1; done
	zpool status -v $3 | tee /tmp/status.$3 | grep -q 'errors: No known data errors' || { cat /tmp/status.$3; return 1; }
}
`

// useAny is the same for any of the edited trees.
const useAny = `
useany() { # DATASET DIR POOL
	cd $2
	for i in $(seq 300); do echo $i > sizes/new$i; mkdir times/made$i; ln sizes/new$i times/linked$i; done
	find . -xdev -type f -size -200k | head -n 300 | while read -r f; do echo more >> "$f"; done
	find . -xdev -type f | tail -n 100 | while read -r f; do chmod 600 "$f"; done
	mv sizes moved; mkdir sizes; mv moved/new1 sizes; rm -r modes links; rmdir times/made1
	cd /
	for s in $(zfs list -H -o name -t snapshot -r $1); do zfs destroy $s; done
	sync; zpool scrub $3
	while zpool status $3 | grep -q 'in progress'; do sleep 1; done
	zpool status -v $3 | tee /tmp/status.$3 | grep -q 'errors: No known data errors' || { cat /tmp/status.$3; return 1; }
}
`

// versions writes three versions of a tree: full streams one, two and three, increments 12, 23 and
// 13, and 12 as one that makes a clone. It returns the trees and the options of each.
func versions(t *testing.T, dir string, o Options) [3]tree {
	t.Helper()
	trees := [3]tree{allKinds().withXattrs()}
	trees[1] = edited(trees[0])
	trees[2] = trees[1].clone()
	trees[2].remove("micro/file3")
	for i := range 3000 {
		trees[2].remove(fmt.Sprintf("micro/more%d", i))
	}
	trees[2].file("fat/f5", []byte("again"))
	trees[2].file("sizes/1", noise(4, 500000))
	trees[2].file("sizes/262144", noise(5, 100))
	var streams [3]*Stream
	var maps [3]*Map
	for i, f := range trees {
		o.Name = fmt.Sprintf("image@v%d", i+1)
		streams[i] = f.stream(t, o)
		maps[i] = mapOf(t, streams[i])
		o.Base = maps[i]
		streams[i].writeFile(t, filepath.Join(dir, []string{"one", "two", "three"}[i]))
	}
	for name, c := range map[string]struct {
		from, to int
		clone    bool
	}{"12": {0, 1, false}, "23": {1, 2, false}, "13": {0, 2, false}, "12clone": {0, 1, true}} {
		var out writer
		if err := streams[c.to].WriteIncrement(context.Background(), &out, maps[c.from], c.clone); err != nil {
			t.Fatal(err)
		}
		file(t, dir, name, out)
	}
	return trees
}

// receiveVersions is a script that receives what versions writes, in the folder it is in, and
// leaves listings in $OUT, made as an instance would be: of a clone.
const receiveVersions = `
gone() { for i in 1 2 3 4 5 6 7 8 9; do zfs destroy -r $1 && return; sleep 1; done; return 1; } # zfs-fuse is busy for a while
look() { zfs clone $1 isc/look; $LIST $MNT/look > $OUT/$2.listing; gone isc/look; }
keep() { zfs set readonly=on $1; } # or a mere look at it counts as a change
zfs receive isc/steps < one; keep isc/steps
zfs receive isc/steps < 12; look isc/steps@v2 two
zfs receive isc/steps < 23; look isc/steps@v3 three
zfs receive isc/jump < one; keep isc/jump
zfs receive isc/jump < 13; look isc/jump@v3 jump
zfs receive isc/cloned < 12clone; look isc/cloned@v2 cloned
zfs receive isc/whole < three
test "$(zfs get -Hpo value guid isc/jump@v3)" = "$(zfs get -Hpo value guid isc/whole@v3)"
test "$(zfs get -Hpo value guid isc/steps@v3)" = "$(zfs get -Hpo value guid isc/whole@v3)"
if zfs receive isc/whole < 12; then echo an increment without its base was received; exit 1; fi
zfs send isc/steps@v3 > $OUT/steps.again
zfs send isc/whole@v3 > $OUT/whole.again
zfs set readonly=off isc/steps; zfs set readonly=off isc/jump
zfs destroy isc/cloned@v2
useany isc/cloned $MNT/cloned isc
gone isc/cloned
useany isc/jump $MNT/jump isc
useany isc/whole $MNT/whole isc
useany isc/steps $MNT/steps isc
`

func sameVersions(t *testing.T, out string, trees [3]tree, nanoseconds bool, device func(Device) Device) {
	t.Helper()
	for name, f := range map[string]tree{"two": trees[1], "three": trees[2], "jump": trees[2], "cloned": trees[1]} {
		l, err := os.Open(filepath.Join(out, name+".listing"))
		if err != nil {
			t.Error(err)
			continue
		}
		zfstest.Same(t, name, f.normal().listing(t, nanoseconds, device), zfstest.Parse(t, l))
		l.Close()
	}
}

func TestRealZFSFuseIncrements(t *testing.T) {
	dir := zfstest.Scratch(t)
	trees := versions(t, dir, Options{Profile: ZPL4})
	zfstest.Lister(t, dir)
	script := file(t, dir, "script", []byte(`
set -e
cd "$1"
`+useAny+`
LIST=./list OUT=. MNT="$1/mnt"
truncate -s 300M disk
zpool create -o ashift=9 -O atime=off -m "$1/mnt" isc "$1/disk"
trap 'cd /; zpool destroy -f isc 2>/dev/null || true' EXIT
`+strings.ReplaceAll(receiveVersions, "useany isc", `cd "$1"; useany isc`)))
	if _, ok := zfstest.Run(t, "fuse", script, dir); !ok {
		t.Error("the script failed")
	}
	sameVersions(t, dir, trees, false, glibc)
}

// glibc returns how zfs-fuse shows a device number in the form of the Linux kernel.
func glibc(d Device) Device {
	v := uint64(d.Major)<<20 | uint64(d.Minor)
	return Device{uint32(v >> 8 & 0xfff), uint32(v&0xff | v>>12&^0xff)}
}

func TestRealZFSFuse(t *testing.T) {
	dir := zfstest.Scratch(t)
	in := allKinds().withXattrs()
	in.stream(t, Options{Profile: ZPL4}).writeFile(t, filepath.Join(dir, "full"))
	script := file(t, dir, "script", []byte(`
set -e
cd "$1"
`+useIt+`
truncate -s 300M disk
zpool create -o ashift=9 -m "$1/mnt" isc "$1/disk"
trap 'cd /; zpool destroy -f isc 2>/dev/null || true' EXIT
zfs receive isc/full < full
test "$(zfs get -Hpo value guid isc/full@golden)" = "$2"
./list mnt/full > listing
zfs send isc/full@golden > again
use isc/full "$1/mnt/full" isc
`))
	zfstest.Lister(t, dir)
	guid := in.stream(t, Options{Profile: ZPL4}).GUID()
	if _, ok := zfstest.Run(t, "fuse", script, dir, strconv.FormatUint(guid, 10)); !ok {
		t.Error("the script failed")
	}
	out, err := os.Open(filepath.Join(dir, "listing"))
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	// Its stat cuts nanoseconds off, and it takes a device number to be glibc's.
	zfstest.Same(t, "zfs-fuse", in.normal().listing(t, false, glibc), zfstest.Parse(t, out))
	again := openFile(t, filepath.Join(dir, "again"), "")
	if again.Version() != 4 {
		t.Errorf("ZPL version %d of what it sends", again.Version())
	}
	same(t, in.normal(), collect(t, again, Linux))
}

// TestRealZFSFuseSends reads streams that zfs-fuse makes of files that it wrote.
func TestRealZFSFuseSends(t *testing.T) {
	dir := zfstest.Scratch(t)
	script := file(t, dir, "script", []byte(`
set -e
cd "$1"
truncate -s 300M disk
zpool create -o ashift=9 -m "$1/mnt" isc "$1/disk"
trap 'cd /; zpool destroy -f isc 2>/dev/null || true' EXIT
zfs create isc/fs
cd mnt/fs
mkdir -p a/b/c fat; echo hello > a/file; ln a/file a/link; ln -s file a/sym; ln -s "$(printf 't%.0s' $(seq 200))" a/long
for i in $(seq 2500); do : > fat/a-name-that-is-longer-than-usual-$i; done
head -c 1000000 /dev/urandom > a/b/random; truncate -s 3000000 a/b/sparse; echo end >> a/b/sparse
mkfifo fifo; chmod 1777 a/b; chown 5:6 a/file
cd ../..
./list mnt/fs > listing1; zfs snapshot isc/fs@1
cd mnt/fs
rm -r fat/*1; echo changed > a/file; mv a/b/c moved; truncate -s 500000 a/b/random; echo x | dd of=a/b/sparse bs=1 seek=700000 conv=notrunc
rm a/sym; mkdir a/sym; for i in $(seq 3000); do : > a/sym/$i; done
cd ../..
./list mnt/fs > listing2; zfs snapshot isc/fs@2
zfs send isc/fs@1 > full; zfs send -i @1 isc/fs@2 > increment; zfs send -R isc/fs@2 > package
`))
	zfstest.Lister(t, dir)
	if _, ok := zfstest.Run(t, "fuse", script, dir); !ok {
		t.Fatal("the script failed")
	}
	compareSent(t, dir, false)
}

// compareSent compares the streams full, increment and package in dir, of file systems whose
// mounts were listed, with the listings.
func compareSent(t *testing.T, dir string, nanoseconds bool) {
	t.Helper()
	check := func(what string, s *Snapshot, listing string) {
		t.Helper()
		f, err := os.Open(filepath.Join(dir, listing))
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		got := collect(t, s, Linux).listing(t, nanoseconds, identity[Device])
		zfstest.Same(t, what, zfstest.Parse(t, f), got)
	}
	s := openFile(t, filepath.Join(dir, "full"), "")
	check("full", s, "listing1")
	f, err := os.Open(filepath.Join(dir, "increment"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Apply(f, st.Size()); err != nil {
		t.Fatal(err)
	}
	check("increment", s, "listing2")
	pack := filepath.Join(dir, "package")
	check("package", openFile(t, pack, ""), "listing2")
	check("snapshot @1 of the package", openFile(t, pack, "@1"), "listing1")
}

// The parts of a script that OpenZFS runs in the guest.
const guestPool = `
set -e
truncate -s 1G /tmp/disk
zpool create -o ashift=12 -O atime=off -O xattr=sa -m /mnt isc /tmp/disk
`

func TestRealOpenZFS(t *testing.T) {
	dir := zfstest.Scratch(t)
	in := allKinds().withXattrs()
	profiles := map[string]Options{
		"zpl5":  {},
		"lz4":   {LZ4: true},
		"zpl4":  {Profile: ZPL4},
		"zpl5d": {Platform: Illumos}, // attributes in directories, which Linux reads as well
	}
	script := guestPool + useIt + `
head -c 32 /dev/urandom > /tmp/key
zfs create -o encryption=on -o keyformat=raw -o keylocation=file:///tmp/key isc/secret
`
	args := []string{"vm", "-o", filepath.Join(dir, "out"), filepath.Join(dir, "script"), zfstest.Lister(t, dir)}
	for _, name := range slices.Sorted(maps.Keys(profiles)) {
		s := in.stream(t, profiles[name])
		s.writeFile(t, filepath.Join(dir, name))
		args = append(args, filepath.Join(dir, name))
		script += fmt.Sprintf(`
echo %[1]s: receive
zfs receive isc/%[1]s < /in/%[1]s
test "$(zfs get -Hpo value guid isc/%[1]s@golden)" = %[2]d
/in/list /mnt/%[1]s > /out/%[1]s.listing
zfs send isc/%[1]s@golden > /out/%[1]s.again
zfs receive isc/secret/%[1]s < /in/%[1]s; /in/list /mnt/secret/%[1]s > /out/%[1]s.secret
zfs send -L -e -c isc/%[1]s@golden > /out/%[1]s.lec
echo %[1]s: use
use isc/%[1]s /mnt/%[1]s isc
`, name, s.GUID())
	}
	script += `
head -c 200000 /in/zpl5 > /tmp/short
if zfs receive isc/short < /tmp/short; then echo a truncated stream was received; exit 1; fi
(head -c 5000 /in/zpl5; printf xx; tail -c +5003 /in/zpl5) > /tmp/flipped
if zfs receive isc/flipped < /tmp/flipped; then echo a damaged stream was received; exit 1; fi
for s in zpl5 lz4 zpl4 zpl5d; do zfs destroy -r isc/secret/$s; done
zpool export isc
zdb -e -p /tmp -bcc isc > /out/zdb 2>&1 || { tail -30 /out/zdb; exit 1; }
grep -q 'No leaks' /out/zdb
`
	file(t, dir, "script", []byte(script))
	out, ok := zfstest.Run(t, args...)
	if !ok {
		t.Errorf("the script failed:\n%s", zfstest.Tail(out))
	}
	for _, name := range slices.Sorted(maps.Keys(profiles)) {
		t.Run(name, func(t *testing.T) {
			f, err := os.Open(filepath.Join(dir, "out", name+".listing"))
			if err != nil {
				t.Fatal(err)
			}
			defer f.Close()
			device := identity[Device]
			if profiles[name].Platform == Illumos { // Linux takes the lower half for its own form
				device = func(d Device) Device { return Linux.decode(uint64(d.Minor)) }
			}
			zfstest.Same(t, name, in.normal().listing(t, true, device), zfstest.Parse(t, f))
			secret, err := os.Open(filepath.Join(dir, "out", name+".secret"))
			if err != nil {
				t.Fatal(err)
			}
			defer secret.Close()
			zfstest.Same(t, "encrypted "+name, in.normal().listing(t, true, device), zfstest.Parse(t, secret))
			for _, sent := range []string{".again", ".lec"} {
				s := openFile(t, filepath.Join(dir, "out", name+sent), "")
				same(t, in.normal(), collect(t, s, profiles[name].Platform))
			}
			if name != "lz4" { // a plain send is not compressed
				sameRecords(t, filepath.Join(dir, name), filepath.Join(dir, "out", name+".again"))
			}
		})
	}
}

func TestRealOpenZFSIncrements(t *testing.T) {
	for name, o := range map[string]Options{"zpl5": {}, "zpl4": {Profile: ZPL4}} {
		t.Run(name, func(t *testing.T) {
			dir := zfstest.Scratch(t)
			trees := versions(t, dir, o)
			args := []string{"vm", "-o", filepath.Join(dir, "out"), file(t, dir, "script", []byte(guestPool+useAny+`
cd /in
LIST=/in/list OUT=/out MNT=/mnt
`+strings.ReplaceAll(receiveVersions, "useany isc", "cd /in; useany isc")+`
zpool export isc
zdb -e -p /tmp -bcc isc > /out/zdb 2>&1 || { tail -30 /out/zdb; exit 1; }
grep -q 'No leaks' /out/zdb
`)), zfstest.Lister(t, dir)}
			for _, s := range []string{"one", "three", "12", "23", "13", "12clone"} {
				args = append(args, filepath.Join(dir, s))
			}
			if out, ok := zfstest.Run(t, args...); !ok {
				t.Errorf("the script failed:\n%s", zfstest.Tail(out))
			}
			sameVersions(t, filepath.Join(dir, "out"), trees, true, identity[Device])
			for _, s := range []string{"steps", "whole"} {
				sameRecords(t, filepath.Join(dir, "three"), filepath.Join(dir, "out", s+".again"))
			}
		})
	}
}

func identity[T any](v T) T { return v }

// sameRecords compares the OBJECT, WRITE and SPILL records of what was received with those that
// the host sends: it must not have changed anything.
func sameRecords(t *testing.T, ours, theirs string) {
	t.Helper()
	dump := func(path string) []string {
		f, err := os.Open(path)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		st, err := f.Stat()
		if err != nil {
			t.Fatal(err)
		}
		var b bytes.Buffer
		if err := Dump(&b, f, st.Size()); err != nil {
			t.Fatal(err)
		}
		return slices.DeleteFunc(strings.Split(b.String(), "\n"), func(l string) bool {
			return !strings.HasPrefix(l, "OBJECT") && !strings.HasPrefix(l, "WRITE") && !strings.HasPrefix(l, "SPILL")
		})
	}
	a, b := dump(ours), dump(theirs)
	if !slices.Equal(a, b) {
		for i := range min(len(a), len(b)) {
			if a[i] != b[i] {
				t.Errorf("%s: record %d is\n\t%s, want\n\t%s", theirs, i, b[i], a[i])
				return
			}
		}
		t.Errorf("%s: %d records, want %d", theirs, len(b), len(a))
	}
}

// TestRealOpenZFSSends reads streams that OpenZFS makes of files that it wrote.
func TestRealOpenZFSSends(t *testing.T) {
	dir := zfstest.Scratch(t)
	script := guestPool + `
zfs create -o recordsize=1M -o compression=zstd isc/zstd
zfs create -o compression=lz4 isc/lz4
zfs create -o compression=gzip-6 isc/gzip
zfs create -o compression=zle isc/zle
zfs create -o compression=lzjb -o version=3 isc/lzjb
zfs create -o compression=off -o xattr=on -o dnodesize=auto isc/off
text() { seq 1 $1; }
for fs in zstd lz4 gzip zle lzjb off; do
	cd /mnt/$fs
	mkdir -p a/b/c fat; text 20 > a/file; ln a/file a/link; ln -s file a/sym; ln -s "$(printf 't%.0s' $(seq 200))" a/long
	for i in $(seq 2200); do : > fat/a-name-that-is-longer-than-usual-$i; done
	text 400000 > a/b/text; head -c 1000000 /dev/urandom > a/b/random; truncate -s 3000000 a/b/sparse; echo end >> a/b/sparse
	mkfifo fifo; mknod null c 1 3; chmod 1777 a/b; chown 5:6 a/file; echo tiny > tiny
	head -c 100000 /dev/zero > zeros; (head -c 50000 /dev/zero; text 10000) > half
	setfattr -n user.a -v value a/file; setfattr -n user.long -v "$(printf 'v%.0s' $(seq 2000))" a
	sync; sleep 1; /in/list . > /out/$fs.1; zfs snapshot isc/$fs@1
	rm -r fat/*1; echo changed > a/file; mv a/b/c moved; truncate -s 500000 a/b/random; echo x | dd of=a/b/sparse bs=1 seek=700000 conv=notrunc 2>/dev/null
	rm a/sym; mkdir a/sym; for i in $(seq 2500); do : > a/sym/$i; done
	text 100000 >> a/b/text; setfattr -x user.long a; : > tiny; text 50 > zeros
	sync; sleep 1; /in/list . > /out/$fs.2; zfs snapshot isc/$fs@2
	cd /
	for o in "" -c -e -L "-L -e -c" -p; do
		n=$(echo $fs$o | tr -d ' ')
		zfs send $o isc/$fs@1 > /out/$n.full
		zfs send $o -i @1 isc/$fs@2 > /out/$n.increment
	done
	zfs send -R -L -e -c isc/$fs@2 > /out/$fs.package
done
head -c 32 /dev/urandom > /tmp/key
zfs create -o encryption=on -o keyformat=raw -o keylocation=file:///tmp/key isc/secret
echo x > /mnt/secret/x; zfs snapshot isc/secret@1; zfs send -w isc/secret@1 > /out/raw
zfs create -V 10M isc/volume; zfs snapshot isc/volume@1; zfs send isc/volume@1 > /out/volume
`
	file(t, dir, "script", []byte(script))
	if out, ok := zfstest.Run(t, "vm", "-o", filepath.Join(dir, "out"), filepath.Join(dir, "script"), zfstest.Lister(t, dir)); !ok {
		t.Fatalf("the script failed:\n%s", zfstest.Tail(out))
	}
	out := func(name string) string { return filepath.Join(dir, "out", name) }
	for _, fs := range []string{"zstd", "lz4", "gzip", "zle", "lzjb", "off"} {
		listing := func(n string) map[string]string {
			f, err := os.Open(out(fs + n))
			if err != nil {
				t.Fatal(err)
			}
			defer f.Close()
			return zfstest.Parse(t, f)
		}
		one, two := listing(".1"), listing(".2")
		got := func(t *testing.T, s *Snapshot) map[string]string {
			t.Helper()
			return collect(t, s, Linux).listing(t, true, identity[Device])
		}
		for _, o := range []string{"", "-c", "-e", "-L", "-L-e-c", "-p"} {
			t.Run(fs+o, func(t *testing.T) {
				s := openFile(t, out(fs+o+".full"), "")
				zfstest.Same(t, "full", one, got(t, s))
				increment, err := os.ReadFile(out(fs + o + ".increment"))
				if err != nil {
					t.Fatal(err)
				}
				apply(t, s, increment)
				zfstest.Same(t, "increment", two, got(t, s))
				if o == "-p" { // a package is not checked
					return
				}
				full, err := os.ReadFile(out(fs + o + ".full"))
				if err != nil {
					t.Fatal(err)
				}
				if err := Check(bytes.NewReader(full), int64(len(full))); err != nil {
					t.Errorf("check: %v", err)
				}
			})
		}
		t.Run(fs+"-R", func(t *testing.T) {
			zfstest.Same(t, "last", two, got(t, openFile(t, out(fs+".package"), "")))
			zfstest.Same(t, "@1", one, got(t, openFile(t, out(fs+".package"), "@1")))
		})
	}
	for name, want := range map[string]string{"raw": "raw (encrypted)", "volume": "of a volume"} {
		data, err := os.ReadFile(out(name))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := Open(bytes.NewReader(data), int64(len(data)), ""); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: error %v", name, err)
		}
	}
}
