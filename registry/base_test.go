package registry

import (
	"encoding/json"
	"errors"
	"io"
	"io/fs"
	"path/filepath"
	"strings"
	"testing"
)

// putJSON stores a document and returns its descriptor.
func putJSON(t testing.TB, l *Layout, mediaType string, v any) Descriptor {
	t.Helper()
	data, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	d := l.mustBlob(data)
	d.MediaType = mediaType
	return d
}

// putBase stores a standard image of these layers.
func putBase(t testing.TB, l *Layout, docker bool, p Platform, layers ...string) Descriptor {
	t.Helper()
	manifestType, configType, layerType := typeManifest, typeConfig, typeLayer+"+gzip"
	if docker {
		manifestType, configType, layerType = typeDockerManifest, typeDockerConfig, "application/vnd.docker.image.rootfs.diff.tar.gzip"
	}
	m := manifest{SchemaVersion: 2, MediaType: manifestType}
	c := map[string]any{
		"architecture": p.Architecture, "os": p.OS, "created": "2026-01-02T03:04:05Z",
		"config": map[string]any{"Labels": map[string]string{"who": p.String()}}, "x-other": 1,
	}
	if p.Variant != "" {
		c["variant"] = p.Variant
	}
	diffIDs := []string{}
	for _, name := range layers {
		data, diffID := tarball(t, name, "of "+name)
		d := l.mustBlob(data)
		d.MediaType = layerType
		m.Layers = append(m.Layers, d)
		diffIDs = append(diffIDs, diffID)
	}
	c["rootfs"] = map[string]any{"type": "layers", "diff_ids": diffIDs}
	config := putJSON(t, l, configType, c)
	m.Config = &config
	d := putJSON(t, l, manifestType, m)
	d.Platform = &p
	return d
}

func putIndex(t testing.TB, l *Layout, mediaType string, children ...Descriptor) Descriptor {
	return putJSON(t, l, mediaType, index{SchemaVersion: 2, MediaType: mediaType, Manifests: children})
}

var (
	linuxAMD64 = Platform{OS: "linux", Architecture: "amd64"}
	linuxARMv7 = Platform{OS: "linux", Architecture: "arm", Variant: "v7"}
	illumos    = Platform{OS: "illumos", Architecture: "amd64"}
)

func TestFetchBase(t *testing.T) {
	l := newLayout(t)
	attestation := putBase(t, l, false, unknown, "attestation")
	nested := putIndex(t, l, typeIndex, putBase(t, l, false, illumos, "etc/release"))
	docker := putIndex(t, l, typeDockerList, putBase(t, l, true, linuxARMv7, "a", "b", "c"))
	docker.Platform = &Platform{OS: "linux", Architecture: "arm"}
	root := putIndex(t, l, typeIndex, attestation, nested, docker, putBase(t, l, false, linuxAMD64, "x", "y"))
	for tag, d := range map[string]Descriptor{"multi": root, "single": putBase(t, l, true, linuxAMD64, "x")} {
		if err := l.Tag(tag, d); err != nil {
			t.Fatal(err)
		}
	}
	reg := newRegistry(t, true)
	if _, err := Copy(t.Context(), layoutRef(l, "multi"), reg.ref("base:multi"), Options{}); err != nil {
		t.Fatal(err)
	}
	file := Ref{Place: InArchive, Path: filepath.Join(t.TempDir(), "base.tar"), Tag: "multi"}
	if _, err := Copy(t.Context(), reg.ref("base:multi"), file, Options{}); err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		ref      Ref
		platform string
		layers   string
		label    string
	}{
		{layoutRef(l, "multi"), "linux/amd64", "x y", "linux/amd64"},
		{layoutRef(l, "multi"), "illumos/amd64", "etc/release", "illumos/amd64"},
		{layoutRef(l, "multi"), "linux/arm", "a b c", "linux/arm/v7"},
		{layoutRef(l, "multi"), "linux/arm/v7", "a b c", "linux/arm/v7"},
		{layoutRef(l, "single"), "linux/amd64", "x", "linux/amd64"},
		{reg.ref("base:multi"), "illumos/amd64", "etc/release", "illumos/amd64"},
		{file, "linux/arm", "a b c", "linux/arm/v7"},
		{Ref{Place: InLayout, Path: l.Dir(), Digest: root.Digest}, "linux/amd64", "x y", "linux/amd64"},
	} {
		b, err := FetchBase(t.Context(), test.ref, test.platform, Options{})
		if err != nil {
			t.Errorf("%s, %s: %v", test.ref, test.platform, err)
			continue
		}
		var got []string
		for _, layer := range b.Layers {
			r, err := layer.Open(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			data, err := io.ReadAll(r)
			r.Close()
			if err != nil || Digest(data) != layer.Digest {
				t.Errorf("%s: %d bytes, %v", layer.Digest, len(data), err)
			}
			for _, name := range []string{"attestation", "etc/release", "a", "b", "c", "x", "y"} {
				if want, diffID := tarball(t, name, "of "+name); string(want) == string(data) && diffID == layer.DiffID {
					got = append(got, name)
				}
			}
		}
		if strings.Join(got, " ") != test.layers || b.Labels["who"] != test.label || b.Created.Year() != 2026 {
			t.Errorf("%s, %s: layers %q, base %+v", test.ref, test.platform, got, b)
		}
		if test.ref.Tag == "multi" && b.Digest != root.Digest {
			t.Errorf("pinned as %s, want %s", b.Digest, root.Digest)
		}
		if err := b.Close(); err != nil {
			t.Error(err)
		}
	}
	_, err := FetchBase(t.Context(), layoutRef(l, "multi"), "solaris/sparc64", Options{})
	if want := `no image for solaris/sparc64 in it, but for ["illumos/amd64" "linux/amd64" "linux/arm" "unknown/unknown"]`; err == nil || !strings.Contains(err.Error(), want) {
		t.Errorf("no such platform: %v", err)
	}
	if _, err := FetchBase(t.Context(), layoutRef(l, "none"), "linux/amd64", Options{}); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("no such tag: %v", err)
	}
}

func TestFetchBaseOwn(t *testing.T) {
	l := newLayout(t)
	c := writeTestImage(t, l, "v1")
	b, err := FetchBase(t.Context(), layoutRef(l, "v1"), "linux/amd64", Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	zone := c.Artifact("zone")
	if b.Image == nil || len(b.Layers) != 1 || b.Layers[0].Digest != zone.Digest || b.Layers[0].DiffID != zone.UncompressedDigest {
		t.Errorf("%+v", b)
	}
	if _, err := FetchBase(t.Context(), layoutRef(l, "v1"), "illumos/amd64", Options{}); err == nil || !strings.Contains(err.Error(), `but for "linux/amd64"`) {
		t.Errorf("another platform: %v", err)
	}
}

func TestFetchBaseHostile(t *testing.T) {
	for name, test := range map[string]struct {
		build func(t *testing.T, l *Layout) Descriptor
		want  string
	}{
		"deep": {func(t *testing.T, l *Layout) Descriptor {
			d := putBase(t, l, false, linuxAMD64, "x")
			for range maxDepth + 1 {
				d = putIndex(t, l, typeIndex, d)
			}
			return d
		}, "in one another"},
		"the same over and over": {func(t *testing.T, l *Layout) Descriptor {
			d := putIndex(t, l, typeIndex)
			for range maxDepth { // 4000^4 ways, one manifest each
				children := make([]Descriptor, 4000)
				for i := range children {
					children[i] = d
				}
				d = putIndex(t, l, typeIndex, children...)
			}
			return d
		}, "no image for linux/amd64"},
		"index called manifest": {func(t *testing.T, l *Layout) Descriptor {
			d := putIndex(t, l, typeIndex, putBase(t, l, false, linuxAMD64, "x"))
			d.MediaType, d.Platform = typeManifest, &linuxAMD64
			return putIndex(t, l, typeIndex, d)
		}, "its descriptor says"},
		"platform lies": {func(t *testing.T, l *Layout) Descriptor {
			d := putBase(t, l, false, illumos, "x")
			d.Platform = &linuxAMD64
			return putIndex(t, l, typeIndex, d)
		}, `it is for "illumos/amd64"`},
		"missing manifest": {func(t *testing.T, l *Layout) Descriptor {
			return putIndex(t, l, typeIndex, Descriptor{MediaType: typeManifest, Digest: hexDigest, Size: 5, Platform: &linuxAMD64})
		}, "not exist"},
		"no container": {func(t *testing.T, l *Layout) Descriptor { return mustPut(t, l, "x") }, "not a container image"},
		"no layers":    {func(t *testing.T, l *Layout) Descriptor { return putBase(t, l, false, linuxAMD64) }, "no layers"},
		"other layers": {func(t *testing.T, l *Layout) Descriptor {
			config := putJSON(t, l, typeConfig, map[string]any{"os": "linux", "architecture": "amd64", "rootfs": map[string]any{"diff_ids": []string{hexDigest, hexDigest}}})
			return putJSON(t, l, typeManifest, manifest{SchemaVersion: 2, MediaType: typeManifest, Config: &config, Layers: []Descriptor{{MediaType: typeLayer, Digest: hexDigest}}})
		}, "1 layers, but its config knows 2"},
		"layer of another kind": {func(t *testing.T, l *Layout) Descriptor {
			config := putJSON(t, l, typeConfig, map[string]any{"os": "linux", "architecture": "amd64", "rootfs": map[string]any{"diff_ids": []string{hexDigest}}})
			return putJSON(t, l, typeManifest, manifest{SchemaVersion: 2, MediaType: typeManifest, Config: &config, Layers: []Descriptor{{MediaType: "application/x-erofs", Digest: hexDigest}}})
		}, "not a tar archive"},
	} {
		t.Run(name, func(t *testing.T) {
			l := newLayout(t)
			if err := l.Tag("v1", test.build(t, l)); err == nil {
				_, err = FetchBase(t.Context(), layoutRef(l, "v1"), "linux/amd64", Options{})
				if err == nil || !strings.Contains(err.Error(), test.want) {
					t.Errorf("%v; want %q in it", err, test.want)
				}
			} else {
				t.Fatal(err)
			}
		})
	}
	for _, platform := range []string{"", "linux", "linux/", "a/b/c/d"} {
		if _, err := FetchBase(t.Context(), Ref{Place: InLayout, Path: "x"}, platform, Options{}); err == nil || !strings.Contains(err.Error(), "want OS/ARCH") {
			t.Errorf("platform %q: %v", platform, err)
		}
	}
}

// The standard image in ours is a base like any other for those who know nothing of us.
func TestRunnableAsBase(t *testing.T) {
	l := newLayout(t)
	writeTestImage(t, l, "v1")
	m, err := ReadImage(t.Context(), l, "v1")
	if err != nil {
		t.Fatal(err)
	}
	if err := l.Tag("plain", *m.Runnable); err != nil {
		t.Fatal(err)
	}
	b, err := FetchBase(t.Context(), layoutRef(l, "plain"), "linux/amd64", Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	if len(b.Layers) != 1 || b.Layers[0].MediaType != typeLayer+"+gzip" || b.Image != nil {
		t.Errorf("%+v", b)
	}
}

func FuzzImageConfig(f *testing.F) {
	l := newLayout(f)
	f.Add([]byte(`{"os":"linux","architecture":"amd64","created":null,"rootfs":{"diff_ids":["` + hexDigest + `"]}}`))
	f.Add([]byte(`{"os":"linux","architecture":"amd64","created":"2026-01-01T00:00:00Z","config":{"Labels":{"a":"b"},"Env":null},"rootfs":{"type":"layers","diff_ids":[]}}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		config := l.mustBlob(data)
		config.MediaType = typeConfig
		b := &BaseImage{store: l}
		err := b.readConfig(t.Context(), &manifest{Config: &config, Layers: []Descriptor{{MediaType: typeLayer, Digest: hexDigest}}}, linuxAMD64)
		if err == nil && (len(b.Layers) != 1 || b.Platform.OS != "linux") {
			t.Fatalf("%s gave %+v", data, b)
		}
	})
}
