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
	"os"
	"path/filepath"
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
	s := handler("", listing)
	reg := new(testRegistry)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodPost {
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
	reg.wrap = func(w http.ResponseWriter, _ *http.Request, _ http.Handler) {
		w.WriteHeader(http.StatusForbidden)
		io.WriteString(w, strings.Repeat("\x1b[31mred\n", 1000))
	}
	if _, err := s.Resolve(t.Context(), "v1"); err == nil || strings.ContainsAny(err.Error(), "\x1b\n") || len(err.Error()) > 1000 {
		t.Errorf("text of the registry: %q", err)
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
