package registry

import (
	"bytes"
	"io"
	"net/http"
	"strings"
	"sync"

	"github.com/olareg/olareg"
	"github.com/olareg/olareg/config"
)

// A Server is an OCI registry that keeps each repository as a layout below a folder, with the
// referrers API, unless that is switched off, and without authentication: for trying things out, air gaps and tests.
type Server struct {
	registry *olareg.Server

	// mu is for the first part of a request, until it begins to answer: olareg 0.1.2 looks without
	// its lock whether a repository is there when it is asked for a blob, while other requests find
	// or make the repository.
	mu sync.RWMutex
}

// Handler opens the registry in the folder dir, or one in memory if dir is empty. Nothing is ever
// collected as garbage; who keeps the folder decides.
func Handler(dir string) *Server { return handler(dir, true) }

// HandlerWithoutReferrers is [Handler] without the referrers API, so that clients keep their lists of
// referrers under tags, as they must in many registries.
func HandlerWithoutReferrers(dir string) *Server { return handler(dir, false) }

func handler(dir string, referrers bool) *Server {
	c := config.Config{
		Storage: config.ConfigStorage{
			StoreType: config.StoreMem,
			GC:        config.ConfigGC{Frequency: -1},
		},
		API: config.ConfigAPI{Referrer: config.ConfigAPIReferrer{Enabled: &referrers}},
	}
	if dir != "" {
		c.Storage.StoreType, c.Storage.RootDir = config.StoreDir, dir
	}
	return &Server{registry: olareg.New(c)}
}

// Close ends what the registry does in the background.
func (s *Server) Close() error { return s.registry.Close() }

// ServeHTTP answers a request of the distribution protocol.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	blobs := strings.Contains(r.URL.Path, "/blobs/")
	switch {
	case blobs && (r.Method == http.MethodGet || r.Method == http.MethodHead):
		s.mu.RLock()
		w = &unlocker{ResponseWriter: w, unlock: sync.OnceFunc(s.mu.RUnlock)}
	case blobs && r.Method != http.MethodPost:
		// The bytes of an upload that has begun: these take their time.
		s.registry.ServeHTTP(w, r)
		return
	default:
		// Nobody may wait for a slow client that holds the lock.
		body, err := readBounded(r.Body)
		if err != nil {
			http.Error(w, err.Error(), http.StatusRequestEntityTooLarge)
			return
		}
		r = r.Clone(r.Context())
		r.Body = io.NopCloser(bytes.NewReader(body))
		s.mu.Lock()
		w = &unlocker{ResponseWriter: w, unlock: sync.OnceFunc(s.mu.Unlock)}
	}
	defer w.(*unlocker).unlock()
	s.registry.ServeHTTP(w, r)
}

// An unlocker gives up the lock when the answer begins.
type unlocker struct {
	http.ResponseWriter
	unlock func()
}

func (u *unlocker) WriteHeader(status int) {
	u.unlock()
	u.ResponseWriter.WriteHeader(status)
}

func (u *unlocker) Write(p []byte) (int, error) {
	u.unlock()
	return u.ResponseWriter.Write(p)
}
