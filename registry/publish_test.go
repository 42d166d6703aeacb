package registry

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

const publishers = 6

// A publication is an image, the same for everybody, with what one publisher says of it.
type publication struct {
	layout    *Layout
	root      Descriptor
	statement Descriptor // a referrer
	signature string     // digest of the layer under the classic tag
}

func newPublication(dir string, text, who string) (p publication, err error) {
	if p.layout, err = CreateLayout(dir); err != nil {
		return p, err
	}
	if p.root, err = putManifest(p.layout, []byte(text)); err != nil {
		return p, err
	}
	base, err := putManifest(p.layout, []byte("signed by "+who))
	if err != nil {
		return p, err
	}
	data, err := p.layout.ReadAll(base.Digest, maxManifest)
	if err != nil {
		return p, err
	}
	var m manifest
	if err := json.Unmarshal(data, &m); err != nil {
		return p, err
	}
	p.signature = m.Layers[0].Digest
	m.Subject = &p.root
	if data, err = json.Marshal(m); err != nil {
		return p, err
	}
	if _, err := p.layout.PutBlob(data); err != nil {
		return p, err
	}
	if p.statement, err = referrer(data); err != nil {
		return p, err
	}
	ctx := context.Background()
	return p, errors.Join(
		p.layout.AddReferrers(ctx, p.root.Digest, []Descriptor{p.statement}),
		p.layout.Tag(fallbackTag(p.root.Digest)+".sig", base),
		p.layout.Tag("v1", p.root),
	)
}

// publish is one publisher, in a process of its own if TestMain runs it.
func publish(dst, dir, who string) error {
	p, err := newPublication(dir, "image", who)
	if err != nil {
		return err
	}
	ref, err := Parse(dst)
	if err != nil {
		return err
	}
	_, err = Copy(context.Background(), layoutRef(p.layout, "v1"), ref, Options{})
	return err
}

// checkPublished wants everybody's statement and signature in the place.
func checkPublished(t *testing.T, dst Ref) {
	t.Helper()
	s, err := Open(t.Context(), dst, Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	root, err := s.Resolve(t.Context(), dst.Tag)
	if err != nil {
		t.Fatal(err)
	}
	list, err := s.Referrers(t.Context(), root.Digest)
	if err != nil {
		t.Fatal(err)
	}
	sig, err := s.Resolve(t.Context(), fallbackTag(root.Digest)+".sig")
	if err != nil {
		t.Fatal(err)
	}
	data, err := s.Manifest(t.Context(), sig)
	if err != nil {
		t.Fatal(err)
	}
	layers, err := taggedLayers(data)
	if err != nil {
		t.Fatal(err)
	}
	for i := range publishers {
		p, err := newPublication(filepath.Join(t.TempDir(), "want"), "image", strconv.Itoa(i))
		if err != nil {
			t.Fatal(err)
		}
		if len(missing(list, []Descriptor{p.statement})) > 0 {
			t.Errorf("the statement of publisher %d is lost", i)
		}
		if !strings.Contains(string(data), p.signature) {
			t.Errorf("the signature of publisher %d is lost", i)
		}
	}
	if len(list) != publishers || len(layers) != publishers {
		t.Errorf("%d statements, %d signatures", len(list), len(layers))
	}
}

// destinations are places of every kind that can be published to, where requests take their time, so
// that publishers overtake each other.
func destinations(t *testing.T) map[string]string {
	slow := func(w http.ResponseWriter, r *http.Request, next http.Handler) {
		time.Sleep(rand.N(5 * time.Millisecond))
		next.ServeHTTP(w, r)
	}
	api, plain := newRegistry(t, true), newRegistry(t, false)
	api.wrap, plain.wrap = slow, slow
	return map[string]string{
		"referrers API": api.host + "/web:v1",
		"referrers tag": plain.host + "/web:v1",
		"layout":        "oci:" + filepath.Join(t.TempDir(), "published") + ":v1",
	}
}

// Row 25: several publishers at once, in one process and in several, lose nothing.
func TestPublishersAtOnce(t *testing.T) {
	t.Parallel()
	for name, dst := range destinations(t) {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var wg sync.WaitGroup
			for i := range publishers {
				dir := filepath.Join(t.TempDir(), "layout")
				wg.Go(func() {
					if err := publish(dst, dir, strconv.Itoa(i)); err != nil {
						t.Error(err)
					}
				})
			}
			wg.Wait()
			ref, err := Parse(dst)
			if err != nil {
				t.Fatal(err)
			}
			checkPublished(t, ref)
		})
	}
}

func TestPublisherProcessesAtOnce(t *testing.T) {
	t.Parallel()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	for name, dst := range destinations(t) {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var wg sync.WaitGroup
			for i := range publishers {
				cmd := exec.CommandContext(t.Context(), self)
				cmd.Env = append(os.Environ(), "REGISTRY_TEST_PUBLISHER="+strings.Join([]string{dst, filepath.Join(t.TempDir(), "layout"), strconv.Itoa(i)}, "\n"))
				wg.Go(func() {
					if out, err := cmd.CombinedOutput(); err != nil {
						t.Errorf("%v: %s", err, out)
					}
				})
			}
			wg.Wait()
			ref, err := Parse(dst)
			if err != nil {
				t.Fatal(err)
			}
			checkPublished(t, ref)
		})
	}
}

// Somebody writes the tag over and over: that is said, not taken for done.
func TestPublishNeverQuiet(t *testing.T) {
	t.Parallel()
	reg := newRegistry(t, false)
	p, err := newPublication(filepath.Join(t.TempDir(), "layout"), "image", "me")
	if err != nil {
		t.Fatal(err)
	}
	reg.wrap = func(w http.ResponseWriter, r *http.Request, next http.Handler) {
		if r.Method == http.MethodPut && strings.HasSuffix(r.URL.Path, fallbackTag(p.root.Digest)) {
			w.WriteHeader(http.StatusCreated) // and somebody else's is there at once
			return
		}
		next.ServeHTTP(w, r)
	}
	to, err := OpenTarget(t.Context(), reg.ref("web:v1"), Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer to.Close()
	to.(*repository).delay = time.Millisecond
	if err := to.AddReferrers(t.Context(), p.root.Digest, []Descriptor{p.statement}); !errors.Is(err, ErrUndetermined) {
		t.Errorf("lost, and said %v", err)
	}
}

// A list of the registry's own that has lost an entry gets it again.
func TestReferrersLostByRegistry(t *testing.T) {
	t.Parallel()
	reg := newRegistry(t, true)
	p, err := newPublication(filepath.Join(t.TempDir(), "layout"), "image", "me")
	if err != nil {
		t.Fatal(err)
	}
	var puts atomic.Int32
	reg.wrap = func(w http.ResponseWriter, r *http.Request, next http.Handler) {
		if r.Method == http.MethodPut && strings.HasSuffix(r.URL.Path, p.statement.Digest) {
			puts.Add(1)
		}
		if strings.Contains(r.URL.Path, "/referrers/") && puts.Load() < 2 {
			w.Header().Set("Content-Type", typeIndex)
			fmt.Fprintf(w, `{"schemaVersion":2,"mediaType":%q,"manifests":[]}`, typeIndex)
			return
		}
		next.ServeHTTP(w, r)
	}
	dst := reg.ref("web:v1")
	if _, err := Copy(t.Context(), layoutRef(p.layout, "v1"), dst, Options{}); err != nil || puts.Load() != 2 {
		t.Errorf("stored %d times, %v", puts.Load(), err)
	}
}

// What stands under cosign's tag and is none of its manifests is neither kept quietly nor overwritten.
func TestMergeTaggedRefuses(t *testing.T) {
	l := newLayout(t)
	d := mustPut(t, l, "ours")
	ours, err := l.ReadAll(d.Digest, maxManifest)
	if err != nil {
		t.Fatal(err)
	}
	for _, present := range []string{
		`{}`, `{"schemaVersion":2,"mediaType":"` + typeIndex + `","manifests":[]}`,
	} {
		if data, err := mergeTagged(t.Context(), l, []byte(present), ours); err == nil {
			t.Errorf("%s: merged to %s", present, data)
		}
	}
}

// copyFast copies without waiting for long between attempts.
func copyFast(t *testing.T, p publication, dst Ref) error {
	to, err := OpenTarget(t.Context(), dst, Options{})
	if err != nil {
		return err
	}
	defer to.Close()
	to.(*repository).delay = time.Millisecond
	plan, err := planCopy(t.Context(), p.layout, p.root)
	if err != nil {
		return err
	}
	return plan.run(t.Context(), p.layout, to, dst.Tag, nil)
}

// Whatever request the registry breaks off at, and whether for good or not, readers see the old image
// with everything that belongs to it or the new one with everything, and the next attempt succeeds.
func TestPublishAtomic(t *testing.T) {
	t.Parallel()
	for _, listing := range []bool{true, false} {
		t.Run(fmt.Sprintf("referrers API %t", listing), func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			before, err := newPublication(filepath.Join(dir, "old"), "old", "me")
			if err != nil {
				t.Fatal(err)
			}
			after, err := newPublication(filepath.Join(dir, "new"), "new", "me")
			if err != nil {
				t.Fatal(err)
			}
			wantOld, wantNew := everything(t, layoutRef(before.layout, "v1")), everything(t, layoutRef(after.layout, "v1"))
			failures := []func(http.ResponseWriter){
				func(w http.ResponseWriter) { w.WriteHeader(http.StatusInternalServerError) },
				func(http.ResponseWriter) { panic(http.ErrAbortHandler) },
			}
			sawOld, sawNew := 0, 0
			for n := int32(1); ; n++ {
				reg := newRegistry(t, listing)
				dst := reg.ref("web:v1")
				if err := copyFast(t, before, dst); err != nil {
					t.Fatal(err)
				}
				var requests atomic.Int32
				var over atomic.Bool
				reg.wrap = func(w http.ResponseWriter, r *http.Request, next http.Handler) {
					if !over.Load() && requests.Add(1) >= n {
						failures[int(n)%len(failures)](w)
						return
					}
					next.ServeHTTP(w, r)
				}
				err := copyFast(t, after, dst)
				over.Store(true)
				switch got := everything(t, dst); {
				case got == wantOld:
					sawOld++
				case got == wantNew:
					sawNew++
				default:
					t.Fatalf("broken off at request %d: readers see\n%s", n, got)
				}
				if err == nil {
					break
				}
				if err := copyFast(t, after, dst); err != nil {
					t.Fatalf("broken off at request %d, then: %v", n, err)
				}
				if got := everything(t, dst); got != wantNew {
					t.Fatalf("broken off at request %d, then\n%s", n, got)
				}
			}
			if sawOld < 10 || sawNew < 1 {
				t.Errorf("seen: %d times the old one, %d times the new one", sawOld, sawNew)
			}
		})
	}
}
