package host_test

import (
	"path/filepath"
	"testing"

	"github.com/goldenisc/packer-plugin-isc/host"
	"github.com/goldenisc/packer-plugin-isc/internal/hosttest"
)

func TestDir(t *testing.T) {
	hosttest.Suite{
		Platform: "dir",
		Place:    t.TempDir(),
		Root:     func(in *host.Instance) string { return filepath.Join(in.Place, in.Name, "root") },
	}.Run(t)
}
