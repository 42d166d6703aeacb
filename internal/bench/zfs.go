//go:build linux

package main

import (
	"context"
	"crypto/sha256"
	"fmt"
	"io"
	"io/fs"
	"iter"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/goldenisc/packer-plugin-isc/zfs"
)

// changed is a file of 4 KiB that the increment brings in another version.
const changed = "etc/bench-changed"

// zfs prints a table of package zfs beside zfs-fuse, which receives our stream of the base and sends
// it again, and beside memcpy. Ours is CPU time; what zfs-fuse takes is the fastest of three runs by
// the clock, as its daemon does the work.
func (b *bench) zfs(ctx context.Context) error {
	file := filepath.Join(b.path("root"), changed)
	if err := os.WriteFile(file, pattern(4096, 'a'), 0o644); err != nil {
		return err
	}
	one, err := zfs.NewStream(b.objects(), zfs.Options{Profile: zfs.ZPL4})
	if err != nil {
		return err
	}
	from, err := one.Map()
	if err != nil {
		return err
	}
	full, err := b.create("full", func(w io.Writer) error { return one.Write(ctx, w) })
	if err != nil {
		return err
	}
	write, err := b.median(func() error { return one.Write(ctx, io.Discard) })
	if err != nil {
		return err
	}
	read, err := b.median(func() error { return readStream(b.path("full"), full) })
	if err != nil {
		return err
	}
	pool, err := b.median(func() error { return b.pool(ctx, one) })
	if err != nil {
		return err
	}
	memory := pattern(256<<20, 'a')
	move, err := b.median(func() error { copy(memory[:len(memory)/2], memory[len(memory)/2:]); return nil })
	if err != nil {
		return err
	}
	if err := os.WriteFile(file, pattern(4096, 'b'), 0o644); err != nil {
		return err
	}
	two, err := zfs.NewStream(b.objects(), zfs.Options{Profile: zfs.ZPL4, Base: from, Name: "image@next"})
	if err != nil {
		return err
	}
	increment, err := b.create("increment", func(w io.Writer) error { return two.WriteIncrement(ctx, w, from, false) })
	if err != nil {
		return err
	}
	send, theirs, err := b.zfsfuse(ctx)
	if err != nil {
		return err
	}
	speed := func(size int64, d time.Duration) float64 { return float64(size) / 1e9 / d.Seconds() }
	fmt.Printf("\nA stream of %s (zpl4), CPU time, memcpy at %.1f GB/s:\n\n", megabytes(full), speed(int64(len(memory)/2), move))
	fmt.Println("| what | ours | peer | target |")
	fmt.Println("|---|---|---|---|")
	fmt.Printf("| full stream from files in the page cache to nowhere | %.2f GB/s | zfs send %.2f GB/s | |\n", speed(full, write), speed(full, send))
	fmt.Printf("| stream read, verified, all contents read | %.2f GB/s | | ≥ 1 GB/s |\n", speed(full, read))
	fmt.Printf("| pool made and read whole | %.2f GB/s | | |\n", speed(full, pool))
	fmt.Printf("| increment for a changed file of 4 KiB | %d bytes | zfs send -i %d bytes | ≤ 64 KiB, ≤ 1.1 × |\n", increment, theirs)
	return b.reset(ctx)
}

// median returns that of the CPU times f takes, after one run that warms the caches.
func (b *bench) median(f func() error) (time.Duration, error) {
	var all []time.Duration
	for run := range b.repeats + 1 {
		before := spent()
		if err := f(); err != nil {
			return 0, err
		}
		if run > 0 {
			all = append(all, spent()-before)
		}
	}
	slices.Sort(all)
	return all[len(all)/2], nil
}

// spent returns the CPU time that the process took so far.
func spent() time.Duration {
	var u syscall.Rusage
	syscall.Getrusage(syscall.RUSAGE_SELF, &u) // cannot fail with these arguments
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// create writes a file in the working folder and returns its size.
func (b *bench) create(name string, write func(w io.Writer) error) (int64, error) {
	f, err := os.Create(b.path(name))
	if err != nil {
		return 0, err
	}
	defer f.Close()
	if err := write(f); err != nil {
		return 0, err
	}
	st, err := f.Stat()
	if err != nil {
		return 0, err
	}
	return st.Size(), f.Close()
}

// readStream reads all contents in a stream.
func readStream(path string, size int64) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	s, err := zfs.Open(f, size, "")
	if err != nil {
		return err
	}
	buf := make([]byte, 128<<10)
	for o, err := range s.Objects(zfs.Linux) {
		if err != nil {
			return err
		}
		if o.Open == nil {
			continue
		}
		c, err := o.Open()
		if err != nil {
			return err
		}
		for off := int64(0); off < o.Size; off += int64(len(buf)) {
			if _, err := c.ReadAt(buf, off); err != nil && err != io.EOF {
				return err
			}
		}
		if err := c.Close(); err != nil {
			return err
		}
	}
	return nil
}

// pool makes a pool of a stream and reads all of it.
func (b *bench) pool(ctx context.Context, s *zfs.Stream) error {
	p, err := zfs.NewPool(ctx, []zfs.Dataset{{Name: "ROOT/golden", Content: s}}, zfs.PoolOptions{Name: "rpool", Size: 4 << 30})
	if err != nil {
		return err
	}
	if err := p.Write(ctx, nowhere{}); err != nil {
		return err
	}
	return p.Close()
}

// nowhere takes what is written to it.
type nowhere struct{}

func (nowhere) WriteAt(p []byte, _ int64) (int, error) { return len(p), nil }

// zfsfuse has zfs-fuse receive the stream, and returns how long sending it again takes and how
// large its increment for the changed file is.
func (b *bench) zfsfuse(ctx context.Context) (time.Duration, int64, error) {
	script := b.path("zfsfuse.sh")
	if err := os.WriteFile(script, []byte(`set -e
cd "$1"
truncate -s 2G pool.disk
zpool create -o ashift=12 -O atime=off -m "$1/mnt" isc "$1/pool.disk"
trap 'cd /; zpool destroy -f isc 2>/dev/null || true' EXIT
zfs receive isc/bench <full
zfs send isc/bench@golden >/dev/null
for i in 1 2 3; do
  start=$(date +%s%N)
  zfs send isc/bench@golden >/dev/null
  echo $(($(date +%s%N) - start))
done | sort -n | head -n 1
dd if=root/`+changed+` of=mnt/bench/`+changed+` bs=4096 conv=notrunc 2>/dev/null
zfs snapshot isc/bench@next
zfs send -i @golden isc/bench@next | wc -c
`), 0o644); err != nil {
		return 0, 0, err
	}
	out, err := b.command(ctx, `.ci/zfs.sh fuse "$WORK/zfsfuse.sh" "$WORK"`, 0).Output()
	if err != nil {
		return 0, 0, fmt.Errorf("zfs-fuse: %w", err)
	}
	var numbers []int64
	for _, line := range strings.Fields(string(out)) {
		n, err := strconv.ParseInt(line, 10, 64)
		if err != nil {
			return 0, 0, fmt.Errorf("zfs-fuse: output %q", out)
		}
		numbers = append(numbers, n)
	}
	if len(numbers) != 2 {
		return 0, 0, fmt.Errorf("zfs-fuse: output %q", out)
	}
	return time.Duration(numbers[0]), numbers[1], nil
}

func pattern(n int, c byte) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = c + byte(i%26)
	}
	return b
}

// objects yields the base as package zfs takes it, without extended attributes and further names
// of an object.
func (b *bench) objects() iter.Seq2[*zfs.Object, error] {
	root := b.path("root")
	return func(yield func(*zfs.Object, error) bool) {
		filepath.WalkDir(root, func(path string, d os.DirEntry, err error) error {
			var o *zfs.Object
			if err == nil {
				o, err = object(root, path, d)
			}
			if !yield(o, err) {
				return filepath.SkipAll
			}
			return nil
		})
	}
}

func object(root, path string, d os.DirEntry) (*zfs.Object, error) {
	info, err := d.Info()
	if err != nil {
		return nil, err
	}
	name, err := filepath.Rel(root, path)
	if err != nil {
		return nil, err
	}
	st := info.Sys().(*syscall.Stat_t)
	o := &zfs.Object{Path: name, Mode: info.Mode(), UID: int(st.Uid), GID: int(st.Gid), ModTime: info.ModTime()}
	switch {
	case info.Mode()&fs.ModeSymlink != 0:
		o.Target, err = os.Readlink(path)
	case info.Mode()&fs.ModeDevice != 0:
		o.Rdev = zfs.Device{Major: uint32(st.Rdev >> 8 & 0xfff), Minor: uint32(st.Rdev & 0xff)}
	case info.Mode().IsRegular() && info.Size() > 0:
		data, err := os.ReadFile(path)
		if err != nil {
			return nil, err
		}
		o.Size, o.Digest = int64(len(data)), sha256.Sum256(data)
		o.Open = func() (zfs.Content, error) {
			f, err := os.Open(path)
			return &content{f, o.Size}, err
		}
	}
	return o, err
}

// content is a file without holes.
type content struct {
	*os.File
	size int64
}

func (c *content) Extents() []zfs.Extent { return []zfs.Extent{{Len: c.size}} }
