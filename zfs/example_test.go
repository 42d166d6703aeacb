package zfs_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"fmt"
	"io/fs"
	"iter"
	"log"
	"slices"
	"time"

	"github.com/goldenisc/packer-plugin-isc/zfs"
)

// objects yields a root with one file.
func objects(motd string) iter.Seq2[*zfs.Object, error] {
	data := []byte(motd)
	when := time.Unix(1700000000, 0)
	return func(yield func(*zfs.Object, error) bool) {
		for o := range slices.Values([]*zfs.Object{
			{Path: ".", Mode: fs.ModeDir | 0o755, ModTime: when},
			{
				Path: "motd", Mode: 0o644, ModTime: when, Size: int64(len(data)), Digest: sha256.Sum256(data),
				Open: func() (zfs.Content, error) { return zfs.BytesContent(data), nil },
			},
		}) {
			if !yield(o, nil) {
				return
			}
		}
	}
}

// A full stream of a first version, and an increment that makes the second of it.
func Example() {
	ctx := context.Background()
	first, err := zfs.NewStream(objects("golden"), zfs.Options{Name: "web@1"})
	if err != nil {
		log.Fatal(err)
	}
	var full bytes.Buffer
	if err := first.Write(ctx, &full); err != nil {
		log.Fatal(err)
	}
	kept, err := first.Map()
	if err != nil {
		log.Fatal(err)
	}

	second, err := zfs.NewStream(objects("golden again"), zfs.Options{Name: "web@2", Base: kept})
	if err != nil {
		log.Fatal(err)
	}
	var increment bytes.Buffer
	if err := second.WriteIncrement(ctx, &increment, kept, false); err != nil {
		log.Fatal(err)
	}

	// What zfs receive does with them.
	snapshot, err := zfs.Open(bytes.NewReader(full.Bytes()), int64(full.Len()), "")
	if err != nil {
		log.Fatal(err)
	}
	if err := snapshot.Apply(bytes.NewReader(increment.Bytes()), int64(increment.Len())); err != nil {
		log.Fatal(err)
	}
	for o, err := range snapshot.Objects(zfs.Linux) {
		if err != nil {
			log.Fatal(err)
		}
		fmt.Println(o.Mode, o.Size, o.Path)
	}
	fmt.Println(snapshot.Header().Name, snapshot.Header().GUID == second.GUID())
	// Output:
	// drwxr-xr-x 0 .
	// -rw-r--r-- 12 motd
	// web@2 true
}

// A pool is made of the same streams, and read from wherever an image of a disk wants it.
func ExampleNewPool() {
	stream, err := zfs.NewStream(objects("hello\n"), zfs.Options{Name: "image@1"})
	if err != nil {
		log.Fatal(err)
	}
	pool, err := zfs.NewPool(context.Background(), []zfs.Dataset{
		{Properties: map[string]string{"mountpoint": "none"}},
		{Name: "ROOT/golden", Content: stream, Properties: map[string]string{"mountpoint": "/", "canmount": "noauto"}},
	}, zfs.PoolOptions{Name: "rpool", Size: 1 << 30, Boot: "ROOT/golden"})
	if err != nil {
		log.Fatal(err)
	}
	defer pool.Close()
	fmt.Println(pool.Size(), "bytes, of which", pool.Used(), "are not zeros")
	for _, x := range pool.Extents() {
		fmt.Println(x.Len, "at", x.Off)
	}
	// Output:
	// 1073741824 bytes, of which 1662976 are not zeros
	// 524288 at 0
	// 614400 at 4194304
	// 524288 at 1073217536
}
