package host_test

import (
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/goldenisc/packer-plugin-isc/host"
	"github.com/goldenisc/packer-plugin-isc/image"
	"github.com/goldenisc/packer-plugin-isc/internal/hosttest"
	"github.com/goldenisc/packer-plugin-isc/internal/zfsfake"
)

// fakeZFS puts a zfs(8) first in PATH that is this test program, and returns where its pool "tank" is
// mounted.
func fakeZFS(t testing.TB) string {
	t.Helper()
	if runtime.GOOS == "windows" {
		t.Skip("no host with ZFS")
	}
	dir := t.TempDir()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"zfs", "zpool"} {
		if err := os.Symlink(self, filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	mount := filepath.Join(dir, "mnt")
	if err := zfsfake.Create(filepath.Join(dir), mount); err != nil {
		t.Fatal(err)
	}
	t.Setenv(zfsfake.Env, dir)
	t.Setenv("PATH", dir+string(os.PathListSeparator)+os.Getenv("PATH"))
	return mount
}

func zfsImage(t testing.TB, c *image.Config, files []hosttest.File) *host.Verified {
	v, _ := hosttest.ZFSImage(t, c, files, nil)
	return v
}

func zfsSuite(mount string) hosttest.Suite {
	return hosttest.Suite{
		Platform: "zfs", Place: "tank", Image: zfsImage, Volumes: true,
		Root: func(in *host.Instance) string { return filepath.Join(mount, in.Name, "root") },
	}
}

func TestZFS(t *testing.T) { zfsSuite(fakeZFS(t)).Run(t) }

func TestZFSPlaces(t *testing.T) {
	p := host.Platforms["zfs"].(host.Placer)
	for _, place := range []string{"tank", "tank/isc", "ssh://root@web.example/tank/isc?jump=gate.example"} {
		if err := p.CheckPlace(place); err != nil {
			t.Errorf("%q: %v", place, err)
		}
	}
	for _, place := range []string{
		"", "/tank", "tank/", "tank//x", "tank/../x", "tank@x", "-r", "tank/a b", "tank/a:b", "ssh://h", "ssh://h/", "ssh://u:p@h/tank", strings.Repeat("x", 101),
	} {
		if err := p.CheckPlace(place); err == nil {
			t.Errorf("%q is accepted", place)
		}
	}
}
