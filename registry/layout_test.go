package registry

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// The test binary is also the writer that TestKill kills, and a publisher.
func TestMain(m *testing.M) {
	fsync = func(*os.File) error { return nil }
	if args := os.Getenv("REGISTRY_TEST_PUBLISHER"); args != "" {
		dst, rest, _ := strings.Cut(args, "\n")
		dir, who, _ := strings.Cut(rest, "\n")
		if err := publish(dst, dir, who); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	if dir := os.Getenv("REGISTRY_TEST_WRITER"); dir != "" {
		fmt.Fprintln(os.Stderr, writeForever(dir))
		os.Exit(1)
	}
	os.Exit(m.Run())
}

func newLayout(t testing.TB) *Layout {
	t.Helper()
	l, err := CreateLayout(filepath.Join(t.TempDir(), "layout"))
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// putManifest stores a manifest of one layer and returns its descriptor.
func putManifest(l *Layout, layer []byte) (Descriptor, error) {
	config, err := l.PutBlob([]byte("{}"))
	if err != nil {
		return Descriptor{}, err
	}
	digest, err := l.PutBlob(layer)
	if err != nil {
		return Descriptor{}, err
	}
	data, err := json.Marshal(manifest{
		SchemaVersion: 2, MediaType: typeManifest, ArtifactType: "application/vnd.test",
		Config: &Descriptor{MediaType: "application/vnd.oci.empty.v1+json", Digest: config, Size: 2},
		Layers: []Descriptor{{MediaType: "application/octet-stream", Digest: digest, Size: int64(len(layer))}},
	})
	if err != nil {
		return Descriptor{}, err
	}
	if _, err := l.PutBlob(data); err != nil {
		return Descriptor{}, err
	}
	return describe(data)
}

func mustPut(t testing.TB, l *Layout, layer string) Descriptor {
	t.Helper()
	d, err := putManifest(l, []byte(layer))
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// names lists what is in the folder of a layout, blobs left out.
func names(t testing.TB, l *Layout) []string {
	t.Helper()
	entries, err := os.ReadDir(l.Dir())
	if err != nil {
		t.Fatal(err)
	}
	var all []string
	for _, e := range entries {
		all = append(all, e.Name())
	}
	return all
}

var cleanLayout = []string{"blobs", "index.json", "oci-layout"}

func TestBlob(t *testing.T) {
	l := newLayout(t)
	b, err := l.Create()
	if err != nil {
		t.Fatal(err)
	}
	var want bytes.Buffer
	for i := range 3000 {
		p := bytes.Repeat([]byte{byte(i)}, i%700)
		want.Write(p)
		if _, err := b.Write(p); err != nil {
			t.Fatal(err)
		}
	}
	if got := names(t, l); len(got) != 4 {
		t.Errorf("while writing the layout has %q", got)
	}
	digest, size, err := b.Commit()
	if err != nil || digest != Digest(want.Bytes()) || size != int64(want.Len()) {
		t.Fatalf("Commit: %s, %d, %v", digest, size, err)
	}
	if err := b.Close(); err != nil {
		t.Error(err)
	}
	if _, _, err := b.Commit(); !errors.Is(err, fs.ErrClosed) {
		t.Errorf("second Commit: %v", err)
	}
	if again, err := l.PutBlob(want.Bytes()); err != nil || again != digest {
		t.Errorf("the same blob again: %s, %v", again, err)
	}
	if got, err := l.ReadAll(digest, size); err != nil || !bytes.Equal(got, want.Bytes()) {
		t.Errorf("ReadAll: %d bytes, %v", len(got), err)
	}
	if _, err := l.ReadAll(digest, size-1); err == nil {
		t.Error("ReadAll over its limit succeeded")
	}

	gone, err := l.Create()
	if err != nil {
		t.Fatal(err)
	}
	gone.Write([]byte("never"))
	if err := gone.Close(); err != nil {
		t.Error(err)
	}
	if _, err := l.Open(Digest([]byte("never"))); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("aborted blob: %v", err)
	}
	if got := names(t, l); !slices.Equal(got, cleanLayout) {
		t.Errorf("the layout has %q", got)
	}
	for _, bad := range []string{"", "sha256:", "sha256:../../x", "sha512:" + strings.Repeat("a", 128), "sha256:" + strings.Repeat("A", 64)} {
		if _, err := l.Open(bad); err == nil || !strings.Contains(err.Error(), "want sha256:") {
			t.Errorf("Open(%q): %v", bad, err)
		}
	}
}

func TestCreateLayout(t *testing.T) {
	dir := t.TempDir()
	if _, err := OpenLayout(dir); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("OpenLayout of an empty folder: %v", err)
	}
	if err := os.WriteFile(filepath.Join(dir, "letter.txt"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := CreateLayout(dir); err == nil || !strings.Contains(err.Error(), `"letter.txt"`) {
		t.Errorf("CreateLayout in a folder with other files: %v", err)
	}
	if _, err := CreateLayout(filepath.Join(dir, "letter.txt")); err == nil {
		t.Error("CreateLayout on a file succeeded")
	}
	// What a killed CreateLayout may leave.
	for _, left := range []string{"", layoutBody[:10], layoutBody} {
		dir := t.TempDir()
		if err := os.WriteFile(filepath.Join(dir, layoutFile), []byte(left), 0o644); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, tempPrefix+"old"), []byte("{"), 0o644); err != nil {
			t.Fatal(err)
		}
		l, err := CreateLayout(dir)
		if err != nil {
			t.Fatal(err)
		}
		if got := names(t, l); !slices.Equal(got, cleanLayout) {
			t.Errorf("the layout has %q", got)
		}
		if tags, err := l.Tags(t.Context()); err != nil || len(tags) > 0 {
			t.Errorf("tags %q, %v", tags, err)
		}
	}
	if err := os.WriteFile(filepath.Join(dir, layoutFile), []byte(`{"imageLayoutVersion":"2.0.0"}`), 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := CreateLayout(dir); err == nil || !strings.Contains(err.Error(), `"2.0.0"`) {
		t.Errorf("CreateLayout on a layout of the future: %v", err)
	}
}

func TestTag(t *testing.T) {
	l := newLayout(t)
	foreign := `{"annotations":{"a":"B"},"manifests":[
		{"mediaType":"application/vnd.x","digest":"` + hexDigest + `","size":7,"data":"eA==","x-unknown":{"k":[1,2]},"annotations":{"org.opencontainers.image.ref.name":"docker.io/x/y:z"}},
		{"mediaType":"application/vnd.y","digest":"` + hexDigest + `","size":8}],"schemaVersion":2,"x-top":true}`
	if err := os.WriteFile(l.path(indexFile), []byte(foreign), 0o644); err != nil {
		t.Fatal(err)
	}
	one, two := mustPut(t, l, "one"), mustPut(t, l, "two")
	for _, err := range []error{l.Tag("a", one), l.Tag("b", one), l.Tag("a", two)} {
		if err != nil {
			t.Fatal(err)
		}
	}
	tags, err := l.Tags(t.Context())
	if err != nil || !slices.Equal(tags, []string{"docker.io/x/y:z", "b", "a"}) {
		t.Errorf("tags %q, %v", tags, err)
	}
	if d, err := l.Resolve(t.Context(), "a"); err != nil || d.Digest != two.Digest {
		t.Errorf("a is %+v, %v", d, err)
	}
	if d, err := l.Resolve(t.Context(), one.Digest); err != nil || d.Digest != one.Digest || d.MediaType != typeManifest || d.ArtifactType != "application/vnd.test" {
		t.Errorf("%s is %+v, %v", one.Digest, d, err)
	}
	for _, none := range []string{"c", hexDigest} {
		if _, err := l.Resolve(t.Context(), none); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("Resolve(%q): %v", none, err)
		}
	}
	if err := errors.Join(l.Untag("a"), l.Untag("b")); err != nil {
		t.Error(err)
	}
	if err := l.Untag("a"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("Untag of what is none: %v", err)
	}
	var got, want any
	data, err := os.ReadFile(l.path(indexFile))
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(json.Unmarshal(data, &got), json.Unmarshal([]byte(foreign), &want)); err != nil {
		t.Fatal(err)
	}
	want.(map[string]any)["mediaType"] = typeIndex
	if g, w := fmt.Sprint(got), fmt.Sprint(want); g != w {
		t.Errorf("index.json is\n%s, want\n%s", g, w)
	}

	if err := l.Tag("bad tag", one); err == nil {
		t.Error("a bad tag was written")
	}
	if err := l.Tag("x", Descriptor{MediaType: typeManifest, Digest: hexDigest}); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("tag of a missing blob: %v", err)
	}
	one.Size++
	if err := l.Tag("x", one); err == nil {
		t.Error("tag of a descriptor with a wrong size was written")
	}
}

func TestTagsConcurrently(t *testing.T) {
	t.Parallel()
	dir := newLayout(t).Dir()
	var wg sync.WaitGroup
	const builders, tags = 4, 12
	for i := range builders {
		wg.Go(func() {
			l, err := CreateLayout(dir)
			if err != nil {
				t.Error(err)
				return
			}
			for j := range tags {
				d, err := putManifest(l, fmt.Appendf(nil, "%d %d", i, j))
				if err == nil {
					err = l.Tag(fmt.Sprintf("t%d-%d", i, j), d)
				}
				if err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	l, err := OpenLayout(dir)
	if err != nil {
		t.Fatal(err)
	}
	if all, err := l.Tags(t.Context()); err != nil || len(all) != builders*tags {
		t.Errorf("%d tags, %v; want %d", len(all), err, builders*tags)
	}
}

// writeForever writes blobs and moves the tag "moving" until it is killed.
func writeForever(dir string) error {
	l, err := CreateLayout(dir)
	if err != nil {
		return err
	}
	for i := 0; ; i++ {
		layer := bytes.Repeat([]byte{byte(i), byte(os.Getpid())}, 1<<uint(i%18))
		d, err := putManifest(l, layer)
		if err != nil {
			return err
		}
		if err := l.Tag("moving", d); err != nil {
			return err
		}
		if err := l.Tag(fmt.Sprintf("own-%d", os.Getpid()), d); err != nil {
			return err
		}
	}
}

// Writers that are killed at any moment leave the old tag, whole blobs and no litter.
func TestKill(t *testing.T) {
	t.Parallel()
	l := newLayout(t)
	golden := mustPut(t, l, "golden")
	if err := l.Tag("golden", golden); err != nil {
		t.Fatal(err)
	}
	start := func() *exec.Cmd {
		cmd := exec.Command(os.Args[0])
		cmd.Env = append(os.Environ(), "REGISTRY_TEST_WRITER="+l.Dir())
		cmd.Stderr = os.Stderr
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		return cmd
	}
	rounds := 15
	if testing.Short() {
		rounds = 3
	}
	for range rounds {
		writers := []*exec.Cmd{start(), start()}
		for _, w := range writers {
			time.Sleep(time.Duration(20+rand.IntN(120)) * time.Millisecond)
			w.Process.Kill()
		}
		for _, w := range writers {
			w.Wait()
		}
		for _, tag := range []string{"golden", "moving"} {
			d, err := l.Resolve(t.Context(), tag)
			if errors.Is(err, fs.ErrNotExist) && tag == "moving" {
				continue // killed before the first tag
			}
			if err != nil {
				t.Fatal(err)
			}
			data, err := l.ReadAll(d.Digest, maxManifest)
			if err != nil {
				t.Fatal(err)
			}
			m, err := parseManifest(data)
			if err != nil {
				t.Fatal(err)
			}
			for _, b := range m.blobs() {
				if _, err := l.ReadAll(b.Digest, b.Size); err != nil {
					t.Fatal(err)
				}
			}
		}
		again, err := CreateLayout(l.Dir())
		if err != nil {
			t.Fatal(err)
		}
		if got := names(t, again); !slices.Equal(got, cleanLayout) {
			t.Fatalf("litter: %q", got)
		}
	}
	blobs, err := os.ReadDir(l.path("blobs", "sha256"))
	if err != nil {
		t.Fatal(err)
	}
	for _, b := range blobs {
		if _, err := l.ReadAll("sha256:"+b.Name(), 1<<20); err != nil {
			t.Error(err)
		}
	}
	t.Logf("%d blobs", len(blobs))
}

func BenchmarkBlob(b *testing.B) {
	l := newLayout(b)
	p := make([]byte, 64<<10)
	b.SetBytes(64 << 20)
	for i := range b.N {
		blob, err := l.Create()
		if err != nil {
			b.Fatal(err)
		}
		p[0], p[1], p[2] = byte(i), byte(i>>8), byte(i>>16)
		for range 1024 {
			if _, err := blob.Write(p); err != nil {
				b.Fatal(err)
			}
		}
		digest, _, err := blob.Commit()
		if err != nil {
			b.Fatal(err)
		}
		path, err := l.blobPath(digest)
		if err != nil {
			b.Fatal(err)
		}
		if err := os.Remove(path); err != nil {
			b.Fatal(err)
		}
	}
}
