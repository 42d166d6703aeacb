package main

import (
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"
)

// TestLying runs the scripts of what a registry can do to the program. $LYING is the address of the
// registry through a proxy that does it, and is honest until a command lies says what.
func TestLying(t *testing.T) {
	scripts(t, "testdata/lying/*.txtar", func(e *testscript.Env) error {
		to, err := url.Parse("http://" + e.Getenv("REGISTRY"))
		if err != nil {
			return err
		}
		proxy := httputil.NewSingleHostReverseProxy(to)
		proxy.ErrorLog = log.New(io.Discard, "", 0) // of clients that go away
		l := &liar{inner: proxy}
		s := httptest.NewServer(l)
		e.Defer(s.Close)
		e.Setenv("LYING", strings.TrimPrefix(s.URL, "http://"))
		e.Values["liar"] = l
		return keysAndPolicies(e)
	})
}

// A liar is a registry with a lie of [lieTable] before it.
type liar struct {
	inner http.Handler
	mu    sync.Mutex
	lie   lie
	asked map[string]int // requests by method and path
}

func (l *liar) tell(lie lie) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.lie, l.asked = lie, map[string]int{}
}

func (l *liar) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	l.mu.Lock()
	lie := l.lie
	n := 0
	if l.asked != nil {
		n = l.asked[r.Method+r.URL.Path]
		l.asked[r.Method+r.URL.Path]++
	}
	l.mu.Unlock()
	if lie == nil {
		l.inner.ServeHTTP(w, r)
		return
	}
	a := &reply{Request: r, before: n}
	a.honest = sync.OnceFunc(func() {
		rec := httptest.NewRecorder()
		l.inner.ServeHTTP(rec, r)
		a.status, a.header, a.body = rec.Code, rec.Header(), rec.Body.Bytes()
	})
	lie(a)
	a.honest()
	for k, v := range a.header {
		if k != "Content-Length" || r.Method == http.MethodHead {
			w.Header()[k] = v
		}
	}
	w.WriteHeader(a.status)
	w.Write(a.body)
}

// A reply is what a registry answers to a request, after honest has been called.
type reply struct {
	*http.Request
	before int // the same request was made that many times before
	honest func()

	status int
	header http.Header
	body   []byte
}

// say answers in the place of the registry, which does not get the request.
func (a *reply) say(status int, body string) {
	a.status, a.header, a.body = status, http.Header{}, []byte(body)
	a.honest = func() {}
}

func (a *reply) has(parts ...string) bool {
	return slices.ContainsFunc(parts, func(p string) bool { return strings.Contains(a.URL.Path, p) })
}

// A lie changes a reply, or makes it.
type lie func(*reply)

// replying makes a lie of what is told of a kind of thing: an artifact, a bundle, a manifest or a tag.
func replying(kind string, tell lie) lie {
	return func(a *reply) {
		if a.Method != http.MethodGet || !a.has("/blobs/", "/manifests/") {
			return
		}
		a.honest()
		is := ""
		switch {
		case a.status != http.StatusOK:
		case a.has("/blobs/") && bytes.Contains(a.body, []byte(`"dsseEnvelope"`)):
			is = "bundle"
		case a.has("/blobs/") && !bytes.HasPrefix(a.body, []byte("{")):
			is = "artifact"
		case a.has("/manifests/sha256:"):
			is = "manifest"
		case a.has("/manifests/") && !a.has("/manifests/sha256-"):
			is = "tag"
		}
		if is == kind {
			tell(a)
		}
	}
}

func flipped(a *reply) {
	a.body = bytes.Clone(a.body)
	a.body[len(a.body)/2] ^= 1
}

// referrersSay answers for the list of referrers alone.
func referrersSay(status int, body string) lie {
	return func(a *reply) {
		if a.has("/referrers/") {
			a.say(status, body)
		}
	}
}

// fails answers 500 to a kind of request.
func fails(method string, parts ...string) lie {
	return func(a *reply) {
		if a.Method == method && a.has(parts...) {
			a.say(http.StatusInternalServerError, "")
		}
	}
}

func redirected(to string) lie {
	return replying("artifact", func(a *reply) {
		a.status, a.body = http.StatusTemporaryRedirect, nil
		a.header.Set("Location", to)
	})
}

// lieTable is what a registry can do, by the rows of the list of attacks in docs/threat-model.md.
var lieTable = map[string]lie{
	// 1: bytes
	"artifact-flipped": replying("artifact", flipped),
	"artifact-cut":     replying("artifact", func(a *reply) { a.body = a.body[:len(a.body)-1] }),
	"artifact-longer":  replying("artifact", func(a *reply) { a.body = append(bytes.Clone(a.body), make([]byte, 1<<20)...) }),
	"artifact-gone":    replying("artifact", func(a *reply) { a.say(http.StatusNotFound, "") }),
	"manifest-flipped": replying("manifest", flipped),
	"tag-flipped":      replying("tag", flipped),
	"bundle-flipped":   replying("bundle", flipped),
	"bundle-cut":       replying("bundle", func(a *reply) { a.body = a.body[:9] }),
	"bundle-gone":      replying("bundle", func(a *reply) { a.say(http.StatusNotFound, "") }),
	// 2: without end
	"manifest-endless": replying("tag", func(a *reply) { a.body = bytes.Repeat([]byte(" "), 5<<20) }),
	"headers-endless":  func(a *reply) { a.say(http.StatusOK, "{}"); a.header.Set("X-Endless", strings.Repeat("x", 1<<20)) },
	"referrers-10000": func(a *reply) {
		if !a.has("/referrers/") {
			return
		}
		a.honest()
		list := make([]map[string]any, 10_000)
		for i := range list {
			sum := sha256.Sum256([]byte(strconv.Itoa(i)))
			list[i] = map[string]any{"mediaType": "application/vnd.oci.image.manifest.v1+json", "digest": "sha256:" + hex.EncodeToString(sum[:]), "size": 1}
		}
		a.body, _ = json.Marshal(map[string]any{"schemaVersion": 2, "mediaType": "application/vnd.oci.image.index.v1+json", "manifests": list})
	},
	"pages-endless": func(a *reply) {
		if a.has("/tags/list", "/referrers/") {
			a.honest()
			a.header.Set("Link", fmt.Sprintf(`<%s?last=%d>; rel="next"`, a.URL.Path, a.before))
		}
	},
	// 4: compression that nobody asked for
	"artifact-bomb": replying("artifact", func(a *reply) {
		var b bytes.Buffer
		z := gzip.NewWriter(&b)
		z.Write(make([]byte, 64<<20))
		z.Close()
		a.header.Set("Content-Encoding", "gzip")
		a.body = b.Bytes()
	}),
	// 7: types that do not agree
	"type-other":   replying("tag", func(a *reply) { a.header.Set("Content-Type", "application/vnd.oci.image.manifest.v1+json") }),
	"digest-other": replying("tag", func(a *reply) { a.header.Set("Docker-Content-Digest", "sha256:"+strings.Repeat("0", 64)) }),
	// 17: no answer
	"referrers-401":  referrersSay(http.StatusUnauthorized, ""),
	"referrers-403":  referrersSay(http.StatusForbidden, ""),
	"referrers-429":  referrersSay(http.StatusTooManyRequests, ""),
	"referrers-500":  referrersSay(http.StatusInternalServerError, ""),
	"referrers-html": referrersSay(http.StatusOK, "<html>log in here"),
	"tag-503":        fails(http.MethodGet, "/manifests/1"),
	"down":           func(a *reply) { a.say(http.StatusBadGateway, "") },
	"cut": func(a *reply) {
		if a.has("/referrers/") {
			panic(http.ErrAbortHandler)
		}
	},
	// 19: another image after the first look
	"tag-moves": func(a *reply) {
		if a.has("/manifests/1") && a.before > 0 {
			a.URL.Path = strings.Replace(a.URL.Path, "/manifests/1", "/manifests/0", 1)
		}
	},
	// 20: redirects
	"redirect-metadata": redirected("http://169.254.169.254/latest/meta-data/"),
	"redirect-private":  redirected("http://10.0.0.1/blob"),
	"redirect-file":     redirected("file:///etc/passwd"),
	"redirect-circle": func(a *reply) {
		if a.has("/manifests/") {
			a.say(http.StatusFound, "")
			a.header.Set("Location", a.URL.Path)
		}
	},
	// 21: a part
	"artifact-part": replying("artifact", func(a *reply) {
		a.status, a.body = http.StatusPartialContent, a.body[:4]
		a.header.Set("Content-Range", "bytes 0-3/4")
	}),
	// 23: text for the terminal
	"terminal": func(a *reply) {
		if a.has("/manifests/") {
			a.say(http.StatusForbidden, `{"errors":[{"code":"DENIED","message":"\u001b[2J\u001b]0;pwned\u0007"}]}`)
		}
	},
	// 24: broken off in the middle of a push
	"upload-begun-500": fails(http.MethodPost, "/blobs/uploads/"),
	"upload-500":       fails(http.MethodPut, "/blobs/uploads/"),
	"upload-nowhere":   func(a *reply) { a.honest(); delete(a.header, "Location") },
	"manifest-500":     fails(http.MethodPut, "/manifests/sha256:"),
	"tag-500":          fails(http.MethodPut, "/manifests/1"),
	"tag-not-moved": func(a *reply) {
		if a.Method == http.MethodPut && a.has("/manifests/1") {
			a.say(http.StatusCreated, "")
		}
	},
	"tag-unconfirmed":   fails(http.MethodGet, "/manifests/1"),
	"referrers-unknown": fails(http.MethodGet, "/referrers/"),
}

// lies runs a program while the registry lies, wants its exit status, and that the state folder and
// all layouts in the folder "out" are then as they were: lies STATUS LIE program [args]. With a status
// of 0 they may change.
func lies(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 3 {
		ts.Fatalf("usage: lies STATUS LIE program [args]")
	}
	lie := lieTable[args[1]]
	if lie == nil {
		ts.Fatalf("no lie is called %q", args[1])
	}
	l := ts.Value("liar").(*liar)
	before := listing(ts)
	l.tell(lie)
	status(ts, false, append([]string{args[0]}, args[2:]...))
	l.tell(nil)
	if args[0] == "0" {
		return
	}
	after := listing(ts)
	for _, line := range before {
		if !slices.Contains(after, line) {
			ts.Fatalf("%s: gone or changed: %s", args[1], line)
		}
	}
	for _, line := range after {
		if !slices.Contains(before, line) {
			ts.Fatalf("%s: left behind: %s", args[1], line)
		}
	}
}

// listing is everything in the state folder and in "out", and the digests of the files. A copy that was
// broken off goes on where it was, so that whole blobs may stay in the staging folder; nothing else may.
func listing(ts *testscript.TestScript) []string {
	var list []string
	state := ts.Getenv("ISCADM_STATE")
	for _, dir := range []string{state, ts.MkAbs("out")} {
		err := filepath.WalkDir(dir, func(p string, e fs.DirEntry, err error) error {
			if err != nil || !e.Type().IsRegular() {
				if !strings.HasPrefix(p, filepath.Join(state, "staging")) {
					list = append(list, p)
				}
				return err
			}
			data, err := os.ReadFile(p)
			sum := sha256.Sum256(data)
			digest := hex.EncodeToString(sum[:])
			staged, is := strings.CutPrefix(p, filepath.Join(state, "staging")+string(filepath.Separator))
			_, inside, _ := strings.Cut(filepath.ToSlash(staged), "/")
			if is && (inside == "blobs/sha256/"+digest || inside == "oci-layout" || inside == "index.json" && !bytes.Contains(data, []byte("ref.name"))) {
				return err
			}
			list = append(list, p+" "+digest)
			return err
		})
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			ts.Check(err)
		}
	}
	return list
}
