package registry

import (
	"bytes"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

// edited lets the registry answer, and changes what it answers to a GET.
func edited(edit func(r *http.Request, header http.Header, body []byte) []byte) func(http.ResponseWriter, *http.Request, http.Handler) {
	return func(w http.ResponseWriter, r *http.Request, next http.Handler) {
		if r.Method != http.MethodGet {
			next.ServeHTTP(w, r)
			return
		}
		rec := httptest.NewRecorder()
		next.ServeHTTP(rec, r)
		body := edit(r, rec.Header(), rec.Body.Bytes())
		for k, v := range rec.Header() {
			if k != "Content-Length" {
				w.Header()[k] = v
			}
		}
		w.WriteHeader(rec.Code)
		w.Write(body)
	}
}

func flip(b []byte) []byte {
	b = bytes.Clone(b)
	b[len(b)/2] ^= 1
	return b
}

// The attacks of a registry: nothing of them becomes visible in the layout.
func TestLyingRegistry(t *testing.T) {
	l := newLayout(t)
	c := writeTestImage(t, l, "v1")
	zone := c.Artifact("zone").Digest
	isBlob := func(r *http.Request) bool { return strings.HasSuffix(r.URL.Path, zone) }
	isTag := func(r *http.Request) bool { return strings.HasSuffix(r.URL.Path, "/manifests/v1") }
	for name, edit := range map[string]func(r *http.Request, h http.Header, b []byte) []byte{
		"blob flipped": func(r *http.Request, _ http.Header, b []byte) []byte { return when(isBlob(r), flip, b) },
		"blob truncated": func(r *http.Request, _ http.Header, b []byte) []byte {
			return when(isBlob(r), func(b []byte) []byte { return b[:9] }, b)
		},
		"blob endless": func(r *http.Request, _ http.Header, b []byte) []byte {
			return when(isBlob(r), func(b []byte) []byte { return append(bytes.Clone(b), make([]byte, 8<<20)...) }, b)
		},
		"manifest flipped by tag": func(r *http.Request, _ http.Header, b []byte) []byte { return when(isTag(r), flip, b) },
		"manifest flipped by digest": func(r *http.Request, _ http.Header, b []byte) []byte {
			return when(strings.Contains(r.URL.Path, "/manifests/sha256:"), flip, b)
		},
		"manifest endless": func(r *http.Request, _ http.Header, b []byte) []byte {
			return when(isTag(r), func([]byte) []byte { return bytes.Repeat([]byte(" "), maxManifest+1) }, b)
		},
		"digest header": func(r *http.Request, h http.Header, b []byte) []byte {
			if isTag(r) {
				h.Set("Docker-Content-Digest", hexDigest)
			}
			return b
		},
		"type header": func(r *http.Request, h http.Header, b []byte) []byte {
			if isTag(r) {
				h.Set("Content-Type", typeManifest)
			}
			return b
		},
		"referrers not JSON": func(r *http.Request, _ http.Header, b []byte) []byte {
			return when(strings.Contains(r.URL.Path, "/referrers/"), func([]byte) []byte { return []byte("<html>") }, b)
		},
		"too many referrers": func(r *http.Request, _ http.Header, b []byte) []byte {
			return when(strings.Contains(r.URL.Path, "/referrers/"), func([]byte) []byte {
				list := make([]Descriptor, maxReferrers+1)
				for i := range list {
					list[i] = Descriptor{MediaType: typeManifest, Digest: hexDigest}
				}
				data, _ := json.Marshal(index{SchemaVersion: 2, MediaType: typeIndex, Manifests: list})
				return data
			}, b)
		},
	} {
		t.Run(name, func(t *testing.T) {
			reg := newRegistry(t, true)
			if _, err := Copy(t.Context(), layoutRef(l, "v1"), reg.ref("web:v1"), Options{}); err != nil {
				t.Fatal(err)
			}
			reg.wrap = edited(edit)
			got := newLayout(t)
			if _, err := Copy(t.Context(), reg.ref("web:v1"), layoutRef(got, "v1"), Options{}); err == nil {
				t.Fatal("copied")
			}
			if tags, err := got.Tags(t.Context()); err != nil || len(tags) > 0 {
				t.Errorf("tags %q, %v", tags, err)
			}
			if list := names(t, got); !slices.Equal(list, cleanLayout) {
				t.Errorf("litter %q", list)
			}
			blobs, err := os.ReadDir(got.path("blobs", "sha256"))
			if err != nil {
				t.Fatal(err)
			}
			for _, b := range blobs {
				if _, err := got.ReadAll("sha256:"+b.Name(), 1<<20); err != nil {
					t.Error(err)
				}
			}
		})
	}
}

func when(yes bool, f func([]byte) []byte, b []byte) []byte {
	if yes {
		return f(b)
	}
	return b
}

// A list may lie: what does not refer to the image is not taken.
func TestReferrersLie(t *testing.T) {
	l := newLayout(t)
	root, other := mustPut(t, l, "image"), mustPut(t, l, "other")
	if err := l.Tag("v1", root); err != nil {
		t.Fatal(err)
	}
	d := attachReferrer(t, l, other, "about the other")
	gone := Descriptor{MediaType: typeManifest, Digest: hexDigest, Size: 7}
	if err := l.AddReferrers(t.Context(), root.Digest, []Descriptor{d, root, gone}); err != nil {
		t.Fatal(err)
	}
	got := newLayout(t)
	if _, err := Copy(t.Context(), layoutRef(l, "v1"), layoutRef(got, "v1"), Options{}); err != nil {
		t.Fatal(err)
	}
	if list, err := got.Referrers(t.Context(), root.Digest); err != nil || len(list) != 0 {
		t.Errorf("referrers %+v, %v", list, err)
	}
}

// A push that the registry breaks off is made again.
func TestPushAgain(t *testing.T) {
	l := newLayout(t)
	big := l.mustBlob(make([]byte, 4<<20))
	reg := newRegistry(t, true)
	var puts atomic.Int32
	reg.wrap = func(w http.ResponseWriter, r *http.Request, next http.Handler) {
		if r.Method == http.MethodPut && puts.Add(1) <= 2 {
			if puts.Load() == 1 {
				w.WriteHeader(http.StatusServiceUnavailable) // before the end of the body
				return
			}
			panic(http.ErrAbortHandler)
		}
		next.ServeHTTP(w, r)
	}
	to, err := OpenTarget(t.Context(), reg.ref("x"), Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer to.Close()
	to.(*repository).delay = time.Millisecond
	open := func() (io.ReadCloser, error) { return l.Open(big.Digest) }
	if err := to.CopyBlob(t.Context(), big, open); err != nil || puts.Load() != 3 {
		t.Errorf("%d attempts, %v", puts.Load(), err)
	}
	if has, err := to.Has(t.Context(), big); err != nil || !has {
		t.Error(has, err)
	}
	// An error of ours is not; the registry may not even see the request begin.
	puts.Store(2)
	big.Size--
	if err := to.CopyBlob(t.Context(), big, open); err == nil || puts.Load() > 3 || !strings.Contains(err.Error(), "longer than") {
		t.Errorf("%d attempts, %v", puts.Load()-2, err)
	}
}
