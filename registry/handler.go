package registry

import (
	"net/http"

	"github.com/olareg/olareg"
	"github.com/olareg/olareg/config"
)

// A Server is an OCI registry that keeps each repository as a layout below a folder, with the
// referrers API and without authentication: for trying things out, air gaps and tests.
type Server struct {
	http.Handler
	close func() error
}

// Handler opens the registry in the folder dir, or one in memory if dir is empty. Nothing is ever
// collected as garbage; who keeps the folder decides.
func Handler(dir string) *Server {
	c := config.Config{Storage: config.ConfigStorage{
		StoreType: config.StoreMem,
		GC:        config.ConfigGC{Frequency: -1},
	}}
	if dir != "" {
		c.Storage.StoreType, c.Storage.RootDir = config.StoreDir, dir
	}
	s := olareg.New(c)
	return &Server{Handler: s, close: s.Close}
}

// Close ends what the registry does in the background.
func (s *Server) Close() error { return s.close() }
