package registry

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/goldenisc/packer-plugin-isc/image"
)

// A testRegistry is the embedded registry, and what stands between it and the client.
type testRegistry struct {
	host    string
	wrap    func(w http.ResponseWriter, r *http.Request, next http.Handler)
	uploads atomic.Int32
}

// newRegistry starts a registry; without listing it does not know the referrers API, as
// distribution does not.
func newRegistry(t testing.TB, listing bool) *testRegistry {
	t.Helper()
	s := Handler("")
	reg := new(testRegistry)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch {
		case !listing && strings.Contains(r.URL.Path, "/referrers/"):
			http.NotFound(w, r)
			return
		case r.Method == http.MethodPost:
			reg.uploads.Add(1)
		}
		if reg.wrap != nil {
			reg.wrap(w, r, s)
			return
		}
		s.ServeHTTP(w, r)
	}))
	t.Cleanup(func() {
		server.Close()
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	reg.host = strings.TrimPrefix(server.URL, "http://")
	return reg
}

func (reg *testRegistry) ref(s string) Ref {
	r, err := Parse(reg.host + "/" + s)
	if err != nil {
		panic(err)
	}
	return r
}

func layoutRef(l *Layout, tag string) Ref { return Ref{Place: InLayout, Path: l.Dir(), Tag: tag} }

// attachReferrer stores a manifest with a subject and lists it.
func attachReferrer(t testing.TB, to Target, subject Descriptor, text string) Descriptor {
	t.Helper()
	put := func(data []byte) Descriptor {
		d := Descriptor{MediaType: "text/plain", Digest: Digest(data), Size: int64(len(data))}
		err := to.CopyBlob(t.Context(), d, func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(data)), nil })
		if err != nil {
			t.Fatal(err)
		}
		return d
	}
	config := put([]byte("{}"))
	config.MediaType = "application/vnd.oci.empty.v1+json"
	data, err := json.Marshal(manifest{
		SchemaVersion: 2, MediaType: typeManifest, ArtifactType: "application/vnd.test.statement",
		Config: &config, Layers: []Descriptor{put([]byte(text))}, Subject: &subject, Annotations: map[string]string{"text": text},
	})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := to.PutManifest(t.Context(), data, ""); err != nil {
		t.Fatal(err)
	}
	d, err := referrer(data)
	if err != nil {
		t.Fatal(err)
	}
	if err := to.AddReferrers(t.Context(), subject.Digest, []Descriptor{d}); err != nil {
		t.Fatal(err)
	}
	return d
}

// everything lists an image in a place with what belongs to it.
func everything(t testing.TB, ref Ref) string {
	t.Helper()
	s, err := Open(t.Context(), ref, Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	root, err := s.Resolve(t.Context(), ref.version())
	if err != nil {
		t.Fatal(err)
	}
	p, err := planCopy(t.Context(), s, root)
	if err != nil {
		t.Fatal(err)
	}
	var lines []string
	for _, m := range p.manifests {
		lines = append(lines, fmt.Sprintf("manifest %s %d", m.Digest, m.Size))
	}
	for _, b := range p.blobs {
		r, err := s.Blob(t.Context(), b)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := io.Copy(io.Discard, r); err != nil {
			t.Error(err)
		}
		r.Close()
		lines = append(lines, fmt.Sprintf("blob %s %d", b.Digest, b.Size))
	}
	for _, s := range p.referrers {
		for _, r := range s.referrers {
			lines = append(lines, fmt.Sprintf("referrer of %s: %s %s %q", s.digest, r.Digest, r.ArtifactType, r.Annotations))
		}
	}
	for _, tag := range p.tags {
		lines = append(lines, fmt.Sprintf("tag %s %s", tag.tag, tag.digest))
	}
	slices.Sort(lines)
	return strings.Join(lines, "\n")
}

func TestCopy(t *testing.T) {
	l := newLayout(t)
	writeTestImage(t, l, "v1")
	root, err := l.Resolve(t.Context(), "v1")
	if err != nil {
		t.Fatal(err)
	}
	first := attachReferrer(t, l, root, "release")
	attachReferrer(t, l, root, "provenance")
	attachReferrer(t, l, first, "about the release")
	sig := mustPut(t, l, "signature")
	if err := l.Tag(fallbackTag(root.Digest)+".sig", sig); err != nil {
		t.Fatal(err)
	}
	want := everything(t, layoutRef(l, "v1"))
	for _, part := range []string{"tag sha256-" + root.Digest[7:] + ".sig " + sig.Digest, `"about the release"`, "referrer of " + root.Digest} {
		if !strings.Contains(want, part) {
			t.Fatalf("%q is not in\n%s", part, want)
		}
	}

	api, plain := newRegistry(t, true), newRegistry(t, false)
	dir := t.TempDir()
	chain := []Ref{
		layoutRef(l, "v1"), api.ref("isc/web:v2"), plain.ref("web:v2"),
		{Place: InArchive, Path: filepath.Join(dir, "web.tar"), Tag: "v3"},
		{Place: InLayout, Path: filepath.Join(dir, "again"), Tag: "v4"},
	}
	for i, dst := range chain[1:] {
		var last, total int64
		digest, err := Copy(t.Context(), chain[i], dst, Options{Progress: func(_ string, d, n int64) { last, total = max(last, d), n }})
		if err != nil || digest != root.Digest {
			t.Fatalf("%s to %s: %s, %v", chain[i], dst, digest, err)
		}
		if last != total || total == 0 {
			t.Errorf("%s: progress ended at %d of %d", dst, last, total)
		}
		if got := everything(t, dst); got != want {
			t.Errorf("%s has\n%s\nwant\n%s", dst, got, want)
		}
		s, err := Open(t.Context(), dst, Options{})
		if err != nil {
			t.Fatal(err)
		}
		m, err := ReadImage(t.Context(), s, dst.Tag)
		if err != nil {
			t.Fatalf("%s: %v", dst, err)
		}
		r, err := m.Open(t.Context(), "dock/zonecfg")
		if err != nil {
			t.Fatal(err)
		}
		if data, err := io.ReadAll(r); err != nil || string(data) != "create -b\n" {
			t.Errorf("%s: %q, %v", dst, data, err)
		}
		if tags, err := s.Tags(t.Context()); err != nil || !slices.Contains(tags, dst.Tag) {
			t.Errorf("%s: tags %q, %v", dst, tags, err)
		}
		s.Close()
	}

	// What is there is not sent again.
	before := plain.uploads.Load()
	if _, err := Copy(t.Context(), chain[0], chain[2], Options{}); err != nil || plain.uploads.Load() != before {
		t.Errorf("copied again: %v, %d uploads", err, plain.uploads.Load()-before)
	}
	// An archive has the same bytes whenever it is written, and replaces what was there.
	one, err := os.ReadFile(chain[3].Path)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, ".web.tar"+tempPrefix+"dead"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := Copy(t.Context(), chain[2], chain[3], Options{}); err != nil {
		t.Fatal(err)
	}
	two, err := os.ReadFile(chain[3].Path)
	if err != nil || len(one) != len(two) {
		t.Errorf("the archive has %d bytes, then %d, %v", len(one), len(two), err)
	}
	if entries, err := os.ReadDir(dir); err != nil || len(entries) != 2 {
		t.Errorf("%v, %v: want the archive and the layout", entries, err)
	}
}

func TestCopyErrors(t *testing.T) {
	l := newLayout(t)
	writeTestImage(t, l, "v1")
	reg := newRegistry(t, true)
	dir := t.TempDir()
	if _, err := Copy(t.Context(), layoutRef(l, "v9"), reg.ref("x"), Options{}); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("no such tag: %v", err)
	}
	other := reg.ref("x:v1")
	other.Digest = hexDigest
	if _, err := Copy(t.Context(), layoutRef(l, "v1"), other, Options{}); err == nil || !strings.Contains(err.Error(), "has the digest") {
		t.Errorf("another digest: %v", err)
	}
	if _, err := Copy(t.Context(), layoutRef(l, "v1"), Ref{Place: InLayout, Path: dir, Digest: hexDigest}, Options{}); err == nil {
		t.Error("no tag for a layout: copied")
	}
	// A failed copy leaves neither tag nor file nor litter, and what stood there before.
	old := filepath.Join(dir, "old.tar")
	if err := os.WriteFile(old, []byte("before"), 0o644); err != nil {
		t.Fatal(err)
	}
	path, _ := l.blobPath(Digest([]byte("#mtree\n")))
	if err := os.WriteFile(path, []byte("#MTREE\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	for _, dst := range []Ref{reg.ref("bad:v1"), {Place: InArchive, Path: old, Tag: "v1"}, {Place: InLayout, Path: filepath.Join(dir, "l"), Tag: "v1"}} {
		if _, err := Copy(t.Context(), layoutRef(l, "v1"), dst, Options{}); err == nil {
			t.Errorf("%s: a damaged image was copied", dst)
		}
	}
	if data, err := os.ReadFile(old); err != nil || string(data) != "before" {
		t.Errorf("the old archive is %q, %v", data, err)
	}
	half, err := OpenLayout(filepath.Join(dir, "l"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := half.Resolve(t.Context(), "v1"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the tag of a failed copy: %v", err)
	}
	if got := names(t, half); !slices.Equal(got, cleanLayout) {
		t.Errorf("litter %q", got)
	}
	if entries, err := os.ReadDir(dir); err != nil || len(entries) != 2 {
		t.Errorf("litter %v, %v", entries, err)
	}
	s, err := Open(t.Context(), reg.ref("bad"), Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if _, err := s.Resolve(t.Context(), "v1"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the tag of a failed push: %v", err)
	}
}

// Parallel writers of referrers lose none.
func TestAddReferrers(t *testing.T) {
	l := newLayout(t)
	root := mustPut(t, l, "image")
	done := make(chan Descriptor)
	const n = 8
	for i := range n {
		go func() { done <- attachReferrer(t, l, root, fmt.Sprint(i)) }()
	}
	want := map[string]bool{}
	for range n {
		want[(<-done).Digest] = true
	}
	list, err := l.Referrers(t.Context(), root.Digest)
	if err != nil || len(list) != n {
		t.Fatalf("%d referrers, %v; want %d", len(list), err, n)
	}
	for _, d := range list {
		delete(want, d.Digest)
	}
	if len(want) > 0 {
		t.Errorf("%d are not listed", len(want))
	}
}

// Some tools put manifests with a subject into index.json without a tag.
func TestReferrersWithoutTag(t *testing.T) {
	l := newLayout(t)
	root := mustPut(t, l, "image")
	d := attachReferrer(t, l, root, "x")
	if err := l.Untag(fallbackTag(root.Digest)); err != nil {
		t.Fatal(err)
	}
	err := l.change(func(x *indexJSON) error {
		x.manifests = append(x.manifests, indexEntry{Descriptor: d}, indexEntry{Descriptor: root},
			indexEntry{Descriptor: Descriptor{MediaType: typeManifest, Digest: hexDigest, Size: 5}})
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if list, err := l.Referrers(t.Context(), root.Digest); err != nil || len(list) != 1 || list[0].Digest != d.Digest {
		t.Errorf("referrers %+v, %v", list, err)
	}
}

// A question that gets no answer is not a no.
func TestUndetermined(t *testing.T) {
	reg := newRegistry(t, true)
	l := newLayout(t)
	writeTestImage(t, l, "v1")
	if _, err := Copy(t.Context(), layoutRef(l, "v1"), reg.ref("web:v1"), Options{}); err != nil {
		t.Fatal(err)
	}
	s, err := Open(t.Context(), reg.ref("web"), Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	root, err := s.Resolve(t.Context(), "v1")
	if err != nil {
		t.Fatal(err)
	}
	s.(*repository).delay = time.Millisecond
	ask := map[string]func() error{
		"tag":       func() error { _, err := s.Resolve(t.Context(), "v1"); return err },
		"manifest":  func() error { _, err := s.Manifest(t.Context(), root); return err },
		"referrers": func() error { _, err := s.Referrers(t.Context(), root.Digest); return err },
		"tags":      func() error { _, err := s.Tags(t.Context()); return err },
	}
	if err := ask["manifest"](); err != nil { // it came with the tag
		t.Fatal(err)
	}
	for name, f := range ask {
		for _, status := range []int{http.StatusServiceUnavailable, http.StatusTooManyRequests, http.StatusForbidden} {
			reg.wrap = func(w http.ResponseWriter, _ *http.Request, _ http.Handler) { w.WriteHeader(status) }
			if err := f(); !errors.Is(err, ErrUndetermined) || errors.Is(err, fs.ErrNotExist) {
				t.Errorf("%s, status %d: %v", name, status, err)
			}
		}
		reg.wrap = func(w http.ResponseWriter, r *http.Request, _ http.Handler) { http.NotFound(w, r) }
		if err := f(); name != "referrers" && !errors.Is(err, fs.ErrNotExist) || errors.Is(err, ErrUndetermined) {
			t.Errorf("%s, not found: %v", name, err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if _, err := s.Resolve(ctx, "v1"); !errors.Is(err, context.Canceled) || errors.Is(err, ErrUndetermined) {
			t.Errorf("cancelled: %v", err)
		}
	}
	// One hiccup is no failure.
	var n atomic.Int32
	reg.wrap = func(w http.ResponseWriter, r *http.Request, next http.Handler) {
		if n.Add(1) == 1 {
			w.WriteHeader(http.StatusBadGateway)
			return
		}
		next.ServeHTTP(w, r)
	}
	if _, err := s.Resolve(t.Context(), "v1"); err != nil {
		t.Errorf("after a hiccup: %v", err)
	}
	if _, err := Open(t.Context(), Ref{Place: InRegistry, Host: "127.0.0.1:1", Repo: "x", Tag: "y"}, Options{}); !errors.Is(err, ErrUndetermined) {
		t.Errorf("no registry: %v", err)
	}
}

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

func TestReferrersPages(t *testing.T) {
	all := make([]Descriptor, 5)
	for i := range all {
		all[i] = Descriptor{MediaType: typeManifest, Digest: Digest([]byte{byte(i)}), Size: 1}
	}
	endless, elsewhere := false, false
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !strings.Contains(r.URL.Path, "/referrers/") {
			return
		}
		var at int
		fmt.Sscan(r.URL.Query().Get("at"), &at)
		w.Header().Set("Content-Type", typeIndex)
		if at < len(all)-1 || endless {
			next := fmt.Sprintf("%s?at=%d", r.URL.Path, (at+1)%len(all))
			if elsewhere {
				next = "http://192.0.2.1" + next
			}
			w.Header().Set("Link", "<"+next+`>; rel="next"`)
		}
		json.NewEncoder(w).Encode(index{SchemaVersion: 2, MediaType: typeIndex, Manifests: all[at : at+1]})
	}))
	defer server.Close()
	ref, err := Parse(strings.TrimPrefix(server.URL, "http://") + "/x")
	if err != nil {
		t.Fatal(err)
	}
	s, err := Open(t.Context(), ref, Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if list, err := s.Referrers(t.Context(), hexDigest); err != nil || len(list) != len(all) {
		t.Errorf("%d referrers, %v", len(list), err)
	}
	endless = true
	if _, err := s.Referrers(t.Context(), hexDigest); !errors.Is(err, ErrUndetermined) {
		t.Errorf("endless: %v", err)
	}
	elsewhere = true
	if _, err := s.Referrers(t.Context(), hexDigest); !errors.Is(err, ErrUndetermined) || !strings.Contains(err.Error(), "192.0.2.1") {
		t.Errorf("elsewhere: %v", err)
	}
}

func TestPlainHTTP(t *testing.T) {
	for _, host := range []string{"192.168.77.1:5000", "10.0.0.1", "registry.local:80", "192.0.2.1"} {
		req, err := http.NewRequest(http.MethodGet, "http://"+host+"/v2/", nil)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := (guard{false, nil}).RoundTrip(req); err == nil || !strings.Contains(err.Error(), "plain HTTP") {
			t.Errorf("%s: %v", host, err)
		}
	}
	for host, want := range map[string]bool{"localhost": true, "127.9.9.9": true, "::1": true, "::ffff:127.0.0.1": true, "128.0.0.1": false, "localhost.example": false} {
		if isLoopback(host) != want {
			t.Errorf("isLoopback(%q) = %v", host, !want)
		}
	}
}

func TestCheckRedirect(t *testing.T) {
	for _, test := range []struct {
		from, to string
		ok       bool
	}{
		{"https://r.example/a", "https://cdn.example/b", true},
		{"https://r.example/a", "http://cdn.example/b", false},
		{"https://r.example/a", "http://r.example/a", false},
		{"https://r.example/a", "https://169.254.169.254/latest", false},
		{"https://r.example/a", "https://10.1.2.3/x", false},
		{"https://r.example/a", "https://[::1]/x", false},
		{"https://r.example/a", "https://[::ffff:127.0.0.1]/x", false},
		{"https://r.example/a", "https://localhost/x", false},
		{"https://r.example/a", "file:///etc/passwd", false},
		{"https://10.1.2.3/a", "https://10.1.2.3:8443/b", true},
		{"http://127.0.0.1:5000/a", "http://127.0.0.1:5001/b", true},
		{"http://127.0.0.1:5000/a", "http://169.254.169.254/b", false},
		{"http://127.0.0.1:5000/a", "https://cdn.example/b", true},
	} {
		request := func(s string) *http.Request {
			u, err := url.Parse(s)
			if err != nil {
				t.Fatal(err)
			}
			return &http.Request{URL: u}
		}
		err := checkRedirect(request(test.to), []*http.Request{request(test.from)})
		if (err == nil) != test.ok {
			t.Errorf("%s to %s: %v", test.from, test.to, err)
		}
	}
}

// A body that stalls ends; a slow consumer does not matter.
func TestIdle(t *testing.T) {
	stop := make(chan struct{})
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/silent" {
			<-stop
			return
		}
		w.Write([]byte("begin"))
		w.(http.Flusher).Flush()
		if r.URL.Path == "/stall" {
			<-stop
		}
	}))
	defer server.Close()
	defer close(stop)
	client := &http.Client{Transport: patience{http.DefaultTransport, 50 * time.Millisecond}}
	for _, path := range []string{"/silent", "/stall"} {
		resp, err := client.Get(server.URL + path)
		if err == nil {
			_, err = io.ReadAll(resp.Body)
			resp.Body.Close()
		}
		if !errors.Is(err, errIdle) {
			t.Errorf("%s: %v", path, err)
		}
	}
	resp, err := client.Get(server.URL + "/whole")
	if err != nil {
		t.Fatal(err)
	}
	time.Sleep(120 * time.Millisecond)
	if data, err := io.ReadAll(resp.Body); err != nil || string(data) != "begin" {
		t.Errorf("%q, %v", data, err)
	}
	resp.Body.Close()
}

// Credentials come from Docker's file, and go to no other host.
func TestCredentials(t *testing.T) {
	inner := Handler("")
	defer inner.Close()
	var leaked atomic.Bool
	cdn := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		leaked.Store(leaked.Load() || r.Header.Get("Authorization") != "")
		inner.ServeHTTP(w, r)
	}))
	defer cdn.Close()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if user, password, ok := r.BasicAuth(); !ok || user != "me" || password != "secret" {
			w.Header().Set("WWW-Authenticate", `Basic realm="test"`)
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		if r.Method == http.MethodGet && strings.Contains(r.URL.Path, "/blobs/sha256:") {
			http.Redirect(w, r, cdn.URL+r.URL.Path, http.StatusTemporaryRedirect)
			return
		}
		inner.ServeHTTP(w, r)
	}))
	defer server.Close()
	host := strings.TrimPrefix(server.URL, "http://")
	dir := t.TempDir()
	t.Setenv("DOCKER_CONFIG", dir)
	t.Setenv("REGISTRY_AUTH_FILE", "")
	t.Setenv("XDG_RUNTIME_DIR", "")
	l := newLayout(t)
	writeTestImage(t, l, "v1")
	ref, err := Parse(host + "/web:v1")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Copy(t.Context(), layoutRef(l, "v1"), ref, Options{}); err == nil {
		t.Error("pushed without credentials")
	}
	config := `{"auths":{"` + host + `":{"auth":"bWU6c2VjcmV0"}}}` // me:secret
	if err := os.WriteFile(filepath.Join(dir, "config.json"), []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Copy(t.Context(), layoutRef(l, "v1"), ref, Options{}); err != nil {
		t.Fatal(err)
	}
	if _, err := Copy(t.Context(), ref, layoutRef(newLayout(t), "v1"), Options{}); err != nil {
		t.Fatal(err)
	}
	if leaked.Load() {
		t.Error("the credentials went to another host")
	}
}

// A server keeps its repositories in a folder.
func TestHandlerDir(t *testing.T) {
	dir := t.TempDir()
	l := newLayout(t)
	writeTestImage(t, l, "v1")
	for range 2 {
		s := Handler(dir)
		server := httptest.NewServer(s)
		ref, err := Parse(strings.TrimPrefix(server.URL, "http://") + "/isc/web:v1")
		if err != nil {
			t.Fatal(err)
		}
		store, err := Open(t.Context(), ref, Options{})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := ReadImage(t.Context(), store, "v1"); errors.Is(err, fs.ErrNotExist) {
			if _, err := Copy(t.Context(), layoutRef(l, "v1"), ref, Options{}); err != nil {
				t.Fatal(err)
			}
		} else if err != nil {
			t.Fatal(err)
		}
		store.Close()
		server.Close()
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	}
	// Each is a layout that the other verbs read.
	repo, err := OpenLayout(filepath.Join(dir, "isc", "web"))
	if err != nil {
		t.Fatal(err)
	}
	if m, err := ReadImage(t.Context(), repo, "v1"); err != nil || m.Config.Artifact("zone").MediaType != image.TypeZone+"+gzip" {
		t.Errorf("%+v, %v", m, err)
	}
}
