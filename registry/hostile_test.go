package registry

import (
	"bytes"
	"compress/gzip"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"net/http/httptest"
	"os"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/goldenisc/packer-plugin-isc/signing"
)

// refused pulls from a lying registry: it must fail, and leave neither tag, blob nor litter that is not
// whole.
func refused(t *testing.T, from Ref) error {
	t.Helper()
	got := newLayout(t)
	_, err := Copy(t.Context(), from, layoutRef(got, "v1"), Options{})
	if err == nil {
		t.Fatal("copied")
	}
	if tags, err := got.Tags(t.Context()); err != nil || len(tags) > 0 {
		t.Errorf("tags %q, %v", tags, err)
	}
	if list := names(t, got); !slices.Equal(list, cleanLayout) {
		t.Errorf("litter %q", list)
	}
	return err
}

// impatient makes the client ask again at once.
func impatient(t *testing.T) {
	before := retryDelay
	retryDelay = time.Millisecond
	t.Cleanup(func() { retryDelay = before })
}

// published is a registry that has an image under web:v1.
func published(t *testing.T, listing bool) (*testRegistry, Ref, string) {
	t.Helper()
	l := newLayout(t)
	c := writeTestImage(t, l, "v1")
	reg := newRegistry(t, listing)
	if _, err := Copy(t.Context(), layoutRef(l, "v1"), reg.ref("web:v1"), Options{}); err != nil {
		t.Fatal(err)
	}
	return reg, reg.ref("web:v1"), c.Artifact("zone").Digest
}

// Row 2: lists without end, and those that are longer than anything real.
func TestRow2Endless(t *testing.T) {
	impatient(t)
	reg, ref, _ := published(t, true)
	var pages atomic.Int32
	reg.wrap = func(w http.ResponseWriter, r *http.Request, next http.Handler) {
		switch {
		case strings.Contains(r.URL.Path, "/referrers/"):
			list := make([]Descriptor, 10_000)
			for i := range list {
				list[i] = Descriptor{MediaType: typeManifest, Digest: Digest([]byte(fmt.Sprint(i))), Size: 1}
			}
			w.Header().Set("Content-Type", typeIndex)
			json.NewEncoder(w).Encode(index{SchemaVersion: 2, MediaType: typeIndex, Manifests: list})
		case strings.HasSuffix(r.URL.Path, "/tags/list"):
			w.Header().Set("Link", fmt.Sprintf(`<%s?last=%d>; rel="next"`, r.URL.Path, pages.Add(1)))
			fmt.Fprint(w, `{"name":"web","tags":["v1"]}`)
		default:
			next.ServeHTTP(w, r)
		}
	}
	if err := refused(t, ref); !errors.Is(err, ErrUndetermined) {
		t.Errorf("10,000 referrers: %v", err)
	}
	s, err := Open(t.Context(), ref, Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if _, err := s.Tags(t.Context()); !errors.Is(err, ErrUndetermined) || pages.Load() > maxPages {
		t.Errorf("%d pages of tags, %v", pages.Load(), err)
	}
	reg.wrap = func(w http.ResponseWriter, _ *http.Request, _ http.Handler) {
		w.Header().Set("X-Endless", strings.Repeat("x", 1<<20))
	}
	if _, err := s.Resolve(t.Context(), "v1"); !errors.Is(err, ErrUndetermined) {
		t.Errorf("headers without end: %v", err)
	}
}

// Row 4: a signature is read as it is stored, whatever the registry and its descriptor say of compression:
// it is no bundle then. One that is larger than a bundle is not fetched.
func TestRow4Bomb(t *testing.T) {
	const unpacked = 64 << 20
	var packed bytes.Buffer
	z := gzip.NewWriter(&packed)
	z.Write(make([]byte, unpacked))
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	reg := newRegistry(t, true)
	to, err := OpenTarget(t.Context(), reg.ref("web:v1"), Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer to.Close()
	put := func(mediaType string, data []byte) Descriptor {
		d := Descriptor{MediaType: mediaType, Digest: Digest(data), Size: int64(len(data))}
		if err := to.CopyBlob(t.Context(), d, func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(data)), nil }); err != nil {
			t.Fatal(err)
		}
		return d
	}
	config := put("application/vnd.oci.empty.v1+json", []byte("{}"))
	root, err := putManifest(newLayout(t), []byte("image"))
	if err != nil {
		t.Fatal(err)
	}
	bomb := put(signing.TypeBundle, packed.Bytes())
	typed := bomb
	typed.MediaType += "+gzip"
	large := put(signing.TypeBundle, make([]byte, signing.MaxBundle+1))
	for _, layer := range []Descriptor{bomb, typed, large} {
		data, err := json.Marshal(manifest{
			SchemaVersion: 2, MediaType: typeManifest, ArtifactType: signing.TypeBundle,
			Config: &config, Layers: []Descriptor{layer}, Subject: &root,
		})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := to.PutManifest(t.Context(), data, ""); err != nil {
			t.Fatal(err)
		}
	}
	var fetched sync.Map
	reg.wrap = func(w http.ResponseWriter, r *http.Request, next http.Handler) {
		if _, digest, ok := strings.Cut(r.URL.Path, "/blobs/"); ok {
			fetched.Store(digest, true)
			w.Header().Set("Content-Encoding", "gzip")
		}
		next.ServeHTTP(w, r)
	}
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	found, err := Statements(t.Context(), to, root.Digest)
	runtime.ReadMemStats(&after)
	if err != nil {
		t.Fatal(err)
	}
	if len(found) != 1 || !bytes.Equal(found[0].Bundle, packed.Bytes()) {
		t.Fatalf("%d candidates; want the bytes as they are stored", len(found))
	}
	if b, err := signing.ParseBundle(found[0].Bundle); err == nil {
		t.Errorf("a bundle: %+v", b)
	}
	if _, ok := fetched.Load(bomb.Digest); !ok {
		t.Error("the bundle was not fetched")
	}
	if _, ok := fetched.Load(large.Digest); ok {
		t.Error("what is too large for a bundle was fetched")
	}
	if n := after.TotalAlloc - before.TotalAlloc; n > unpacked/4 {
		t.Errorf("%d bytes of memory", n)
	}
}

// Row 17: a registry that is down, too busy or broken gives no answer, and that is never "unsigned".
func TestRow17NoAnswer(t *testing.T) {
	impatient(t)
	reg, ref, _ := published(t, true)
	for name, answer := range map[string]func(http.ResponseWriter){
		"429":  func(w http.ResponseWriter) { w.WriteHeader(http.StatusTooManyRequests) },
		"500":  func(w http.ResponseWriter) { w.WriteHeader(http.StatusInternalServerError) },
		"503":  func(w http.ResponseWriter) { w.WriteHeader(http.StatusServiceUnavailable) },
		"403":  func(w http.ResponseWriter) { w.WriteHeader(http.StatusForbidden) },
		"cut":  func(http.ResponseWriter) { panic(http.ErrAbortHandler) },
		"HTML": func(w http.ResponseWriter) { fmt.Fprint(w, "<html>log in here") },
	} {
		t.Run(name, func(t *testing.T) {
			reg.wrap = func(w http.ResponseWriter, r *http.Request, next http.Handler) {
				if strings.Contains(r.URL.Path, "/referrers/") {
					answer(w)
					return
				}
				next.ServeHTTP(w, r)
			}
			if err := refused(t, ref); !errors.Is(err, ErrUndetermined) || errors.Is(err, fs.ErrNotExist) {
				t.Errorf("referrers: %v", err)
			}
		})
	}
}

// Row 20: blobs are not fetched from where a registry on the network has no business.
func TestRow20Redirects(t *testing.T) {
	reg, ref, zone := published(t, true)
	var reached atomic.Bool
	other := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { reached.Store(true) }))
	defer other.Close()
	for _, target := range []string{
		"http://169.254.169.254/latest/meta-data/", "http://[fe80::1]/", "http://10.0.0.1/", "http://0.0.0.0/",
		strings.Replace(other.URL, "127.0.0.1", "localhost", 1), "ftp://127.0.0.1/", "file:///etc/passwd",
	} {
		t.Run(target, func(t *testing.T) {
			reg.wrap = func(w http.ResponseWriter, r *http.Request, next http.Handler) {
				if strings.HasSuffix(r.URL.Path, zone) {
					http.Redirect(w, r, target, http.StatusTemporaryRedirect)
					return
				}
				next.ServeHTTP(w, r)
			}
			if err := refused(t, ref); !strings.Contains(err.Error(), "redirect to") {
				t.Errorf("%v", err)
			}
		})
	}
	if reached.Load() {
		t.Error("another server of this machine was asked")
	}
	reg.wrap = func(w http.ResponseWriter, r *http.Request, _ http.Handler) {
		http.Redirect(w, r, r.URL.Path, http.StatusFound)
	}
	if err := refused(t, ref); !errors.Is(err, ErrUndetermined) {
		t.Errorf("redirects in a circle: %v", err)
	}
}

// Row 21: an answer with a part of a blob is no answer to a question for the whole.
func TestRow21Ranges(t *testing.T) {
	reg, ref, zone := published(t, true)
	reg.wrap = func(w http.ResponseWriter, r *http.Request, next http.Handler) {
		if strings.HasSuffix(r.URL.Path, zone) {
			w.Header().Set("Content-Range", "bytes 0-3/4")
			w.WriteHeader(http.StatusPartialContent)
			fmt.Fprint(w, "part")
			return
		}
		next.ServeHTTP(w, r)
	}
	refused(t, ref)
}

// Blobs that are there are never read again, neither here nor from the registry.
func TestBlobsReadOnce(t *testing.T) {
	reg, ref, _ := published(t, true)
	var reads atomic.Int32
	reg.wrap = func(w http.ResponseWriter, r *http.Request, next http.Handler) {
		if r.Method == http.MethodGet && strings.Contains(r.URL.Path, "/blobs/") {
			reads.Add(1)
		}
		next.ServeHTTP(w, r)
	}
	got := newLayout(t)
	if _, err := Copy(t.Context(), ref, layoutRef(got, "v1"), Options{}); err != nil {
		t.Fatal(err)
	}
	first := reads.Load()
	blobs, err := os.ReadDir(got.path("blobs", "sha256"))
	if err != nil || first == 0 || int(first) > len(blobs) {
		t.Errorf("%d reads for %d blobs and manifests, %v", first, len(blobs), err)
	}
	if _, err := Copy(t.Context(), ref, layoutRef(got, "v2"), Options{}); err != nil || reads.Load() != first {
		t.Errorf("again: %d more reads, %v", reads.Load()-first, err)
	}
}

// Row 3: a body that stalls ends; how long that takes is the transport's idle timeout (TestIdle).
func TestRow3Stalled(t *testing.T) {
	release := make(chan struct{})
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Write([]byte("{"))
		w.(http.Flusher).Flush()
		<-release
	}))
	defer server.Close()
	defer close(release)
	client := &http.Client{Transport: patience{http.DefaultTransport, 50 * time.Millisecond}}
	resp, err := client.Get(server.URL)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if _, err := readBounded(resp.Body); !errors.Is(err, errIdle) {
		t.Errorf("%v", err)
	}
}

func FuzzReferrers(f *testing.F) {
	f.Add([]byte(`{"schemaVersion":2,"mediaType":"` + typeIndex + `","manifests":[]}`))
	f.Add([]byte(`{"schemaVersion":2,"mediaType":"` + typeIndex + `","manifests":[{"mediaType":"` + typeManifest + `","digest":"` + hexDigest + `","size":7,"annotations":{"a":"b"}}]}`))
	f.Add([]byte(`{"schemaVersion":2,"manifests":null}`))
	f.Add([]byte(`<html>`))
	f.Fuzz(func(t *testing.T, data []byte) {
		list, err := parseReferrers(data)
		if err != nil {
			return
		}
		more := []Descriptor{{MediaType: typeManifest, Digest: hexDigest, Size: 7}}
		merged, changed, err := mergeReferrers(list, more)
		if err != nil {
			return
		}
		again, err := parseReferrers(merged)
		if err != nil {
			t.Fatalf("%q: what was merged is refused: %v", merged, err)
		}
		if len(missing(again, list)) > 0 || len(missing(again, more)) > 0 {
			t.Fatalf("%q: lost in %q (changed %t)", data, merged, changed)
		}
	})
}

// FuzzMergeTagged merges what stands under a tag of cosign's with a signature: it is refused, or all
// layers of both are there.
func FuzzMergeTagged(f *testing.F) {
	ours := []byte(`{"schemaVersion":2,"mediaType":"` + typeManifest + `","config":{"mediaType":"` + typeConfig + `","digest":"` + hexDigest + `","size":2},"layers":[{"mediaType":"x","digest":"` + hexDigest + `","size":3,"annotations":{"s":"1"}}]}`)
	f.Add(ours)
	f.Add([]byte(strings.Replace(string(ours), `"1"`, `"2"`, 1)))
	l := newLayout(f)
	f.Fuzz(func(t *testing.T, present []byte) {
		data, err := mergeTagged(t.Context(), l, present, ours)
		if err != nil {
			return
		}
		got, err := taggedLayers(data)
		if err != nil {
			t.Fatalf("%q: %v", data, err)
		}
		for _, part := range [][]byte{present, ours} {
			want, err := taggedLayers(part)
			if err != nil || len(union(got, want)) != len(got) {
				t.Fatalf("%q with %q is %q: %v", present, ours, data, err)
			}
		}
	})
}
