package zfs

import (
	"bytes"
	"context"
	"fmt"
	"io/fs"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/goldenisc/packer-plugin-isc/internal/zfstest"
)

// chain is six versions of a tree, with edits of every kind between them.
func chain() []tree {
	v := []tree{allKinds().withXattrs()}
	next := func() tree {
		v = append(v, v[len(v)-1].clone())
		return v[len(v)-1]
	}
	rename := func(t tree, from, to string) {
		for path, o := range t.clone() {
			if path != from && !strings.HasPrefix(path, from+"/") {
				continue
			}
			delete(t, path)
			o.Path = to + path[len(from):]
			t[o.Path] = o
		}
	}

	t := next() // changed, grown past one block, and by one
	t.file("sizes/512", noise(1, 512))
	t.file("sizes/100000", noise(2, 400000))
	t.file("sizes/131072", noise(3, 131073))
	t.file("sizes/262144", noise(4, 5000000))
	t.sparse("sparse/hole", 1<<20, map[int64][]byte{5000: []byte("no hole")})

	t = next() // shrunk, within a block, to one block, to nothing
	t.file("sizes/100000", noise(5, 99))
	t.file("sizes/5242880", noise(5242880, 1000000))
	t.file("sizes/131072", nil)
	t.file("sizes/131071", nil)
	t.sparse("sparse/ends", 1<<20+5, map[int64][]byte{1 << 20: []byte("end..")})

	t = next() // replaced by directories, and the reverse
	for i := range 20 {
		path := fmt.Sprintf("micro/file%d", i)
		t.remove(path)
		t.file(path+"/inside", []byte("in what was a file"))
	}
	t.remove("deep")
	t.file("deep", []byte("was a directory"))
	t.remove("links/140")
	t.dir("links/140")
	t.remove("dev/fifo")
	t.put(Object{Path: "dev/fifo", Mode: fs.ModeSymlink | 0o777, Target: "null"})

	t = next() // renamed, linked, unlinked, 3000 names more
	rename(t, "sizes/5242880", "fat/moved")
	rename(t, "xattr", "modes/xattr")
	rename(t, "micro", "renamed")
	t.put(Object{Path: "empty/linked", Link: "fat/moved"})
	t.remove("hard2/third")
	t.put(Object{Path: "hard2/other", Link: "hard/first"})
	for i := range 3000 {
		t.file(fmt.Sprintf("renamed/more%d", i), []byte(strings.Repeat("x", i%50)))
	}

	t = next() // and fewer
	for i := range 3000 {
		t.remove(fmt.Sprintf("renamed/more%d", i))
	}
	t.remove("empty/linked")
	t.remove("hard/first")
	t["modes/xattr/many"].Xattrs = nil
	t["modes/xattr/aces"].Xattrs = map[string][]byte{"user.long": noise(6, 5000)}
	t["sizes/1"].Mode = fs.ModeSetuid | 0o711
	t.file("sizes/131072", noise(7, 131072))
	return v
}

// writeChain writes a full stream of the first tree, as NAME.0, and an increment to each next one.
func writeChain(t *testing.T, dir, name string, trees []tree, o Options) (files []string, last *Stream) {
	t.Helper()
	var snap *Snapshot
	var from *Map
	for i, f := range trees {
		o.Name = fmt.Sprintf("image@v%d", i)
		o.Base = from
		s := f.stream(t, o)
		var out writer
		var err error
		if i == 0 {
			err = s.Write(context.Background(), &out)
			snap = open(t, out)
		} else {
			err = s.WriteIncrement(context.Background(), &out, from, false)
			apply(t, snap, out)
		}
		if err != nil {
			t.Fatal(err)
		}
		same(t, f.normal(), collect(t, snap, o.Platform))
		files = append(files, file(t, dir, fmt.Sprintf("%s.%d", name, i), out))
		from, last = mapOf(t, s), s
	}
	return files, last
}

// useTree is a shell function that changes whatever is mounted, destroys its snapshots one by one
// and looks for damage.
const useTree = `
usetree() { # DATASET DIR
	cd $2
	find . -xdev -type d | head -n 50 | while read -r d; do
		for i in 1 2 3 4 5 6 7 8 9; do echo $i > "$d/new file $i"; done
		mkdir "$d/made"; ln "$d/new file 1" "$d/made/linked"; ln -s x "$d/made/sym"; mv "$d/new file 2" "$d/made/moved"; rm "$d/new file 3"
	done
	find . -xdev -type f -size -200k | head -n 100 | while read -r f; do echo more >> "$f"; chmod 640 "$f"; done
	find . -xdev -type f | tail -n 20 | while read -r f; do rm "$f"; done
	cd /
	for s in $(zfs list -H -o name -t snapshot -r $1); do zfs destroy $s; done
	sync
}
scrub() {
	zpool scrub isc
	while zpool status isc | grep -q 'in progress'; do sleep 1; done
	zpool status -v isc > /tmp/status; grep -q 'errors: No known data errors' /tmp/status || { cat /tmp/status; return 1; }
}
clean() {
	zpool export isc
	zdb -e -p /tmp -bcc isc > /out/zdb 2>&1 || { tail -30 /out/zdb; exit 1; }
	grep -q 'No leaks' /out/zdb
}
`

// TestRealChain has OpenZFS receive a chain of five increments, into a plain and into an encrypted
// file system, list each version, and use the last one. Every stream must be whole for zstream, and
// damaged for it and for us when a bit is another.
func TestRealChain(t *testing.T) {
	dir := zfstest.Scratch(t)
	trees := chain()
	profiles := map[string]Options{"plain": {}}
	if os.Getenv("ISC_NIGHTLY") == "1" {
		profiles["lz4"] = Options{LZ4: true}
	}
	args := []string{"vm", "-o", filepath.Join(dir, "out"), filepath.Join(dir, "script"), zfstest.Lister(t, dir)}
	script := guestPool + useTree + `
head -c 32 /dev/urandom > /tmp/key
zfs create -o encryption=on -o keyformat=raw -o keylocation=file:///tmp/key isc/secret
`
	for _, name := range slices.Sorted(maps.Keys(profiles)) {
		files, last := writeChain(t, dir, name, trees, profiles[name])
		last.writeFile(t, filepath.Join(dir, name+".whole"))
		args = append(args, files...)
		for i, path := range files {
			if out, ok := zfstest.Run(t, "check", path); !ok {
				t.Errorf("%s.%d: zstream refuses it: %s", name, i, out)
			}
			stream, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			stream[len(stream)/3] ^= 4
			if _, ok := zfstest.Run(t, "check", file(t, dir, "broken", stream)); ok {
				t.Errorf("%s.%d: a byte flipped: zstream accepts it", name, i)
			}
			z := NewReader(bytes.NewReader(stream))
			for err == nil {
				_, err = z.Next()
			}
			if !strings.Contains(err.Error(), "checksum") && !strings.Contains(err.Error(), "record at byte") {
				t.Errorf("%s.%d: a byte flipped: we say %v", name, i, err)
			}
		}
		script += fmt.Sprintf(`
for i in 0 1 2 3 4 5; do
	for fs in isc/%[1]s isc/secret/%[1]s; do zfs receive -u $fs < /in/%[1]s.$i; done
	zfs clone isc/%[1]s@v$i isc/look; /in/list /mnt/look > /out/%[1]s.$i; zfs destroy isc/look
done
test "$(zfs get -Hpo value guid isc/%[1]s@v5)" = %[2]d
zfs send isc/%[1]s@v5 > /out/%[1]s.again
for fs in %[1]s secret/%[1]s; do
	zfs mount isc/$fs
	/in/list /mnt/$fs > /out/%[1]s.$(dirname $fs)
	usetree isc/$fs /mnt/$fs
done
`, name, last.GUID())
	}
	script += "scrub\nzfs destroy -r isc/secret\nclean\n"
	file(t, dir, "script", []byte(script))
	out, ok := zfstest.Run(t, args...)
	if !ok {
		t.Fatalf("the script failed:\n%s", zfstest.Tail(out))
	}
	for name := range profiles {
		for i, f := range trees {
			sameAs(t, dir, fmt.Sprintf("%s.%d", name, i), f)
		}
		sameAs(t, dir, name+"..", trees[5])
		sameAs(t, dir, name+".secret", trees[5])
	}
	// What came by increments is what a full stream has.
	sameRecords(t, filepath.Join(dir, "plain.whole"), filepath.Join(dir, "out", "plain.again"))
}

// sameAs compares a listing of the guest with a tree.
func sameAs(t *testing.T, dir, name string, want tree) {
	t.Helper()
	f, err := os.Open(filepath.Join(dir, "out", name))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	zfstest.Same(t, name, want.normal().listing(t, true, identity[Device]), zfstest.Parse(t, f))
}

// TestRealHistories has OpenZFS receive random trees with random edits; in a nightly run, many.
func TestRealHistories(t *testing.T) {
	guests := 1
	if os.Getenv("ISC_NIGHTLY") == "1" {
		guests = 40
	}
	rnd := rand.New(rand.NewPCG(5, 6))
	for range guests {
		realHistories(t, rnd, 3)
	}
}

// realHistories is one guest of it.
func realHistories(t *testing.T, rnd *rand.Rand, rounds int) {
	dir := zfstest.Scratch(t)
	args := []string{"vm", "-o", filepath.Join(dir, "out"), filepath.Join(dir, "script"), zfstest.Lister(t, dir)}
	script := guestPool + useTree
	all := make([][]tree, rounds)
	for round := range rounds {
		f := newTree()
		for range 4 {
			for range 40 {
				randomEdit(rnd, f)
			}
			all[round] = append(all[round], f.clone())
		}
		name := fmt.Sprintf("h%d", round)
		files, _ := writeChain(t, dir, name, all[round], []Options{{}, {LZ4: true}, {Profile: ZPL4}}[round%3])
		args = append(args, files...)
		script += fmt.Sprintf(`
for i in 0 1 2 3; do
	zfs receive -u isc/%[1]s < /in/%[1]s.$i
	zfs clone isc/%[1]s@v$i isc/look; /in/list /mnt/look > /out/%[1]s.$i; zfs destroy isc/look
done
zfs mount isc/%[1]s
usetree isc/%[1]s /mnt/%[1]s
`, name)
	}
	script += "scrub\nclean\n"
	file(t, dir, "script", []byte(script))
	out, ok := zfstest.Run(t, args...)
	if !ok {
		t.Fatalf("the script failed:\n%s", zfstest.Tail(out))
	}
	for round, trees := range all {
		for i, f := range trees {
			sameAs(t, dir, fmt.Sprintf("h%d.%d", round, i), f)
		}
	}
}
