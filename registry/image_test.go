package registry

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"encoding/json"
	"errors"
	"io"
	"io/fs"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/goldenisc/packer-plugin-isc/image"
)

// tarball is a root of one file, as gzip, and the digest of the tar in it.
func tarball(t testing.TB, name, content string) (data []byte, diffID string) {
	t.Helper()
	var plain, packed bytes.Buffer
	w := tar.NewWriter(&plain)
	if err := w.WriteHeader(&tar.Header{Name: name, Mode: 0o644, Size: int64(len(content)), Format: tar.FormatPAX}); err != nil {
		t.Fatal(err)
	}
	io.WriteString(w, content)
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	z := gzip.NewWriter(&packed)
	z.Write(plain.Bytes())
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	return packed.Bytes(), Digest(plain.Bytes())
}

func testConfig() *image.Config {
	return &image.Config{
		Schema: 1, Name: "web", Version: "1.4.0", OS: "linux", Arch: "amd64",
		Created: time.Date(2026, 11, 24, 0, 0, 0, 0, time.UTC),
		Base:    image.Base{Source: "skeleton:linux"}, Profile: "none",
	}
}

// writeTestImage writes an image of three artifacts.
func writeTestImage(t testing.TB, l *Layout, tag string) *image.Config {
	t.Helper()
	c := testConfig()
	data, diffID := tarball(t, "etc/motd", "golden\n")
	add := func(name, mediaType string, data []byte, diffID string) {
		digest, err := l.PutBlob(data)
		if err != nil {
			t.Fatal(err)
		}
		c.Artifacts = append(c.Artifacts, image.Artifact{
			Name: name, Kind: name, MediaType: mediaType, Digest: digest, Size: int64(len(data)), UncompressedDigest: diffID,
		})
	}
	add("zone", image.TypeZone+"+gzip", data, diffID)
	add("content", image.TypeContent, []byte("#mtree\n"), "")
	add("dock/zonecfg", image.TypeZonecfg, []byte("create -b\n"), "")
	if _, err := WriteImage(t.Context(), l, tag, c, &Runnable{
		Artifact: "zone", Entrypoint: []string{"/bin/webd"}, Env: []string{"A=b"}, ExposedPorts: []string{"80/tcp", "443/tcp"},
	}); err != nil {
		t.Fatal(err)
	}
	return c
}

func TestImage(t *testing.T) {
	l := newLayout(t)
	c := writeTestImage(t, l, "v1")
	m, err := ReadImage(t.Context(), l, "v1")
	if err != nil {
		t.Fatal(err)
	}
	if m.Config.Name != "web" || len(m.Config.Artifacts) != 3 || m.Runnable == nil {
		t.Errorf("read %+v", m)
	}
	if again, err := ReadImage(t.Context(), l, m.Digest()); err != nil || again.Digest() != m.Digest() {
		t.Errorf("by digest: %v", err)
	}
	r, err := m.Open(t.Context(), "content")
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	if data, err := io.ReadAll(r); err != nil || string(data) != "#mtree\n" {
		t.Errorf("content is %q, %v", data, err)
	}
	if _, err := m.Open(t.Context(), "ova"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("Open of no artifact: %v", err)
	}

	// Another layout and time give the same digest; another config does not.
	other := newLayout(t)
	writeTestImage(t, other, "x")
	if d, err := other.Resolve(t.Context(), "x"); err != nil || d.Digest != m.Digest() {
		t.Errorf("the same image elsewhere is %+v, %v", d, err)
	}
	c.Version = "1.4.1"
	digest, err := WriteImage(t.Context(), l, "v1", c, nil)
	if err != nil || digest == m.Digest() {
		t.Errorf("another version: %s, %v", digest, err)
	}
	if m, err := ReadImage(t.Context(), l, "v1"); err != nil || m.Runnable != nil || m.Config.Version != "1.4.1" {
		t.Errorf("another version: %+v, %v", m, err)
	}
}

func TestWriteImageErrors(t *testing.T) {
	l := newLayout(t)
	good := writeTestImage(t, l, "v1")
	before, err := l.Resolve(t.Context(), "v1")
	if err != nil {
		t.Fatal(err)
	}
	change := func(f func(a *image.Artifact)) *image.Config {
		c := *good
		c.Artifacts = append([]image.Artifact(nil), good.Artifacts...)
		f(&c.Artifacts[0])
		return &c
	}
	for name, test := range map[string]struct {
		c    *image.Config
		r    *Runnable
		tag  string
		want string
	}{
		"no blob":      {c: change(func(a *image.Artifact) { a.Digest = hexDigest }), want: "no blob"},
		"size":         {c: change(func(a *image.Artifact) { a.Size++ }), want: "no blob"},
		"digest":       {c: change(func(a *image.Artifact) { a.Digest = "sha256:../../x" }), want: "want sha256:"},
		"media type":   {c: change(func(a *image.Artifact) { a.MediaType = "" }), want: "no media type"},
		"twice":        {c: change(func(a *image.Artifact) { a.Name = "content" }), want: "taken"},
		"no artifacts": {c: testConfig(), want: "0 artifacts"},
		"runnable":     {c: good, r: &Runnable{Artifact: "content"}, want: "no archive"},
		"no runnable":  {c: good, r: &Runnable{Artifact: "x"}, want: "no such artifact"},
		"tag":          {c: good, tag: "a/b", want: `tag "a/b"`},
	} {
		if test.tag == "" {
			test.tag = "v1"
		}
		if _, err := WriteImage(t.Context(), l, test.tag, test.c, test.r); err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s: %v; want %q in it", name, err, test.want)
		}
	}
	if after, err := l.Resolve(t.Context(), "v1"); err != nil || after.Digest != before.Digest {
		t.Errorf("the tag moved to %s, %v", after.Digest, err)
	}
}

// retag replaces the index of the image at v1 by what edit makes of it.
func retag(t *testing.T, l *Layout, edit func(x *index) []byte) error {
	t.Helper()
	d, err := l.Resolve(t.Context(), "v1")
	if err != nil {
		t.Fatal(err)
	}
	data, err := l.Manifest(t.Context(), d)
	if err != nil {
		t.Fatal(err)
	}
	var x index
	if err := json.Unmarshal(data, &x); err != nil {
		t.Fatal(err)
	}
	out := edit(&x)
	if out == nil {
		if out, err = json.Marshal(x); err != nil {
			t.Fatal(err)
		}
	}
	digest, err := l.PutBlob(out)
	if err != nil {
		t.Fatal(err)
	}
	if err := l.Tag("bad", Descriptor{MediaType: typeIndex, Digest: digest, Size: int64(len(out))}); err != nil {
		t.Fatal(err)
	}
	_, err = ReadImage(t.Context(), l, "bad")
	return err
}

func TestReadImageHostile(t *testing.T) {
	for name, test := range map[string]struct {
		edit func(l *Layout, x *index) []byte
		want string
	}{
		"type":        {func(_ *Layout, x *index) []byte { x.ArtifactType = "application/x"; return nil }, "not an image of this program"},
		"annotations": {func(_ *Layout, x *index) []byte { x.Annotations[annotationVersion] = "9"; return nil }, "does not follow"},
		"order": {func(_ *Layout, x *index) []byte {
			x.Manifests[0], x.Manifests[1] = x.Manifests[1], x.Manifests[0]
			return nil
		}, `artifact "zone"`},
		"missing":     {func(_ *Layout, x *index) []byte { x.Manifests = x.Manifests[:2]; return nil }, "2 manifests for 3 artifacts"},
		"empty":       {func(_ *Layout, x *index) []byte { x.Manifests = nil; return nil }, "no manifests"},
		"twice":       {func(_ *Layout, x *index) []byte { x.Manifests[1] = x.Manifests[0]; return nil }, `artifact "content"`},
		"platform":    {func(_ *Layout, x *index) []byte { x.Manifests[0].Platform = x.Manifests[3].Platform; return nil }, `artifact "zone"`},
		"runnable":    {func(_ *Layout, x *index) []byte { x.Manifests[3].Platform.OS = "illumos"; return nil }, "platform"},
		"no runnable": {func(_ *Layout, x *index) []byte { x.Manifests[3].Digest = hexDigest; return nil }, "runnable manifest"},
		"path":        {func(_ *Layout, x *index) []byte { x.Manifests[0].Digest = "sha256:../../index.json"; return nil }, "want sha256:"},
		"size":        {func(_ *Layout, x *index) []byte { x.Manifests[0].Size--; return nil }, "longer than"},
		"huge":        {func(_ *Layout, x *index) []byte { x.Manifests[0].Size = 1 << 40; return nil }, "more than"},
		"negative":    {func(_ *Layout, x *index) []byte { x.Manifests[0].Size = -1; return nil }, "negative"},
		"unknown": {func(_ *Layout, x *index) []byte {
			return []byte(`{"schemaVersion":2,"mediaType":"` + typeIndex + `","artifactType":"` + image.TypeImage + `","manifests":[],"x":1}`)
		}, "unknown field"},
		"both":         {func(_ *Layout, x *index) []byte { return []byte(`{"schemaVersion":2,"manifests":[],"layers":[]}`) }, "both"},
		"twice member": {func(_ *Layout, x *index) []byte { return []byte(`{"schemaVersion":2,"manifests":[],"Manifests":[]}`) }, "twice"},
		"deep":         {func(_ *Layout, x *index) []byte { return bytes.Repeat([]byte("["), 1<<20) }, "depth"},
		"manifests":    {func(_ *Layout, x *index) []byte { x.Manifests = make([]Descriptor, maxManifests+1); return nil }, "at most"},
		"second runnable": {func(_ *Layout, x *index) []byte {
			x.Manifests = append(x.Manifests, x.Manifests[3])
			return nil
		}, "5 manifests"},
		"other layer": {func(l *Layout, x *index) []byte {
			d := runnableOf(l, l.mustBlob([]byte("evil")))
			d.Platform = x.Manifests[3].Platform
			x.Manifests[3] = d
			return nil
		}, "none of the archives"},
	} {
		t.Run(name, func(t *testing.T) {
			l := newLayout(t)
			writeTestImage(t, l, "v1")
			err := retag(t, l, func(x *index) []byte { return test.edit(l, x) })
			if err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("%v; want %q in it", err, test.want)
			}
		})
	}
}

func (l *Layout) mustBlob(data []byte) Descriptor {
	digest, err := l.PutBlob(data)
	if err != nil {
		panic(err)
	}
	return Descriptor{Digest: digest, Size: int64(len(data))}
}

// runnableOf is a manifest over some layer.
func runnableOf(l *Layout, layer Descriptor) Descriptor {
	layer.MediaType = typeLayer
	config := l.mustBlob([]byte(`{"architecture":"amd64","os":"linux","config":{},"rootfs":{"type":"layers","diff_ids":["` + layer.Digest + `"]}}`))
	config.MediaType = typeConfig
	data, err := json.Marshal(manifest{SchemaVersion: 2, MediaType: typeManifest, Config: &config, Layers: []Descriptor{layer}})
	if err != nil {
		panic(err)
	}
	d := l.mustBlob(data)
	d.MediaType = typeManifest
	return d
}

// What is wrong with the blobs of a layout is found when they are read.
func TestHostileBlobs(t *testing.T) {
	for name, test := range map[string]struct {
		damage func(path string) error
		want   string
	}{
		"missing":   {os.Remove, "not exist"},
		"truncated": {func(p string) error { return os.Truncate(p, 3) }, "after 3 of 7 bytes"},
		"longer":    {func(p string) error { return os.WriteFile(p, []byte("#mtree\n!"), 0o644) }, "longer than the 7 bytes"},
		"changed":   {func(p string) error { return os.WriteFile(p, []byte("#MTREE\n"), 0o644) }, "have the digest"},
		"folder":    {func(p string) error { return errors.Join(os.Remove(p), os.Mkdir(p, 0o755)) }, "not a regular file"},
	} {
		t.Run(name, func(t *testing.T) {
			l := newLayout(t)
			c := writeTestImage(t, l, "v1")
			path, err := l.blobPath(c.Artifact("content").Digest)
			if err != nil {
				t.Fatal(err)
			}
			if err := test.damage(path); err != nil {
				t.Fatal(err)
			}
			m, err := ReadImage(t.Context(), l, "v1")
			if err != nil {
				t.Fatal(err)
			}
			r, err := m.Open(t.Context(), "content")
			if err == nil {
				var data []byte
				if data, err = io.ReadAll(r); len(data) > 7 {
					t.Errorf("%d bytes were handed out", len(data))
				}
				r.Close()
			}
			if err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("%v; want %q in it", err, test.want)
			}
		})
	}
}

func FuzzParseManifest(f *testing.F) {
	l := newLayout(f)
	writeTestImage(f, l, "v1")
	blobs, err := os.ReadDir(l.path("blobs", "sha256"))
	if err != nil {
		f.Fatal(err)
	}
	for _, b := range blobs {
		data, err := os.ReadFile(l.path("blobs", "sha256", b.Name()))
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data)
	}
	f.Add([]byte(`{"schemaVersion":2,"manifests":[],"layers":null}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		if c, err := image.ParseConfig(data); err == nil {
			again, err := c.Marshal()
			if err != nil {
				t.Fatal(err)
			}
			if _, err := image.ParseConfig(again); err != nil {
				t.Fatalf("config %s was written as %s: %v", data, again, err)
			}
		}
		m, err := parseManifest(data)
		if err != nil {
			return
		}
		if isIndex(m.MediaType) == isManifest(m.MediaType) || len(m.Layers) > 0 && len(m.Manifests) > 0 {
			t.Fatalf("%s is %+v", data, m)
		}
		for _, d := range append(m.blobs(), m.Manifests...) {
			if _, err := l.blobPath(d.Digest); err != nil {
				t.Fatal(err)
			}
		}
	})
}

func FuzzIndexJSON(f *testing.F) {
	f.Add([]byte(`{"schemaVersion":2,"manifests":[]}`))
	f.Add([]byte(`{"schemaVersion":2,"manifests":[{"mediaType":"` + typeIndex + `","digest":"` + hexDigest + `","size":2,"x":[1e9],"annotations":{"` + annotationRefName + `":"a"}}],"x":null}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		x, err := parseIndexJSON(data)
		if err != nil {
			return
		}
		once, err := x.marshal()
		if err != nil {
			t.Fatal(err)
		}
		again, err := parseIndexJSON(once)
		if err != nil {
			t.Fatalf("%s was written as %s: %v", data, once, err)
		}
		if twice, err := again.marshal(); err != nil || !bytes.Equal(once, twice) {
			t.Fatalf("%s was written as %s, then %s, %v", data, once, twice, err)
		}
	})
}
