package registry

import (
	"testing"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/validate"
)

// Another client, that of crane, finds the layout and the pushed image sound, takes the standard
// image, and nothing if there is none for its platform.
func TestOtherClient(t *testing.T) {
	l := newLayout(t)
	c := writeTestImage(t, l, "v1")
	if _, err := WriteImage(t.Context(), l, "bare", c, nil); err != nil {
		t.Fatal(err)
	}
	m, err := ReadImage(t.Context(), l, "v1")
	if err != nil {
		t.Fatal(err)
	}
	reg := newRegistry(t, true)
	for _, tag := range []string{"v1", "bare"} {
		if _, err := Copy(t.Context(), layoutRef(l, tag), reg.ref("web:"+tag), Options{}); err != nil {
			t.Fatal(err)
		}
	}
	get := func(tag string, p v1.Platform) (v1.Image, error) {
		ref, err := name.ParseReference(reg.ref("web:" + tag).String())
		if err != nil {
			t.Fatal(err)
		}
		return remote.Image(ref, remote.WithPlatform(p))
	}
	linux := v1.Platform{OS: "linux", Architecture: "amd64"}
	img, err := get("v1", linux)
	if err != nil {
		t.Fatal(err)
	}
	if digest, err := img.Digest(); err != nil || digest.String() != m.Runnable.Digest {
		t.Errorf("got %s, %v; want %s", digest, err, m.Runnable.Digest)
	}
	if err := validate.Image(img); err != nil {
		t.Error(err)
	}
	for tag, p := range map[string]v1.Platform{"bare": linux, "v1": {OS: "linux", Architecture: "arm64"}} {
		if img, err := get(tag, p); err == nil {
			t.Errorf("%s for %s: handed out %v", tag, p, img)
		}
	}

	onDisk, err := layout.ImageIndexFromPath(l.Dir())
	if err != nil {
		t.Fatal(err)
	}
	index, err := onDisk.ImageIndex(hash(t, m.Digest()))
	if err != nil {
		t.Fatal(err)
	}
	img, err = index.Image(hash(t, m.Runnable.Digest))
	if err != nil {
		t.Fatal(err)
	}
	if err := validate.Image(img); err != nil {
		t.Error(err)
	}
}

func hash(t *testing.T, digest string) v1.Hash {
	t.Helper()
	h, err := v1.NewHash(digest)
	if err != nil {
		t.Fatal(err)
	}
	return h
}
