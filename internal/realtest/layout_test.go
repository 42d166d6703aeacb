//go:build linux

package realtest

import (
	"bufio"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// A manifest is what these tests want of a manifest or an index.
type manifest struct {
	MediaType string
	Config    descriptor
	Layers    []descriptor
	Manifests []descriptor
}

type descriptor struct {
	MediaType string
	Digest    string
	Size      int64
	Platform  *struct{ OS, Architecture string }
}

func parse(t *testing.T, data []byte) manifest {
	t.Helper()
	var m manifest
	if err := json.Unmarshal(data, &m); err != nil {
		t.Fatalf("%v: %s", err, data)
	}
	return m
}

// runnable returns the one manifest of the index that carries a platform, and how many others
// there are.
func runnable(t *testing.T, index manifest, os string) (descriptor, int) {
	t.Helper()
	var found []descriptor
	for _, d := range index.Manifests {
		switch {
		case d.Platform == nil:
			t.Errorf("%s has no platform: a client may take it for its own", d.Digest)
		case d.Platform.OS == os && d.Platform.Architecture == "amd64":
			found = append(found, d)
		case d.Platform.OS != "unknown" || d.Platform.Architecture != "unknown":
			t.Errorf("%s is for %s/%s", d.Digest, d.Platform.OS, d.Platform.Architecture)
		}
	}
	if len(found) != 1 {
		t.Fatalf("%d manifests for %s/amd64", len(found), os)
	}
	return found[0], len(index.Manifests) - 1
}

// TestRealSkopeo reads a layout with skopeo: the index, every manifest and blob, the runnable one.
func TestRealSkopeo(t *testing.T) {
	r := recipe{"alpine", "gzip", "pax"}
	layout := r.layout(t)
	ref := "oci:" + layout + ":1.0.0"
	index := run(t, "", "skopeo", "inspect", "--raw", ref)
	want, others := runnable(t, parse(t, index), "linux")
	if others == 0 {
		t.Error("no other artifact in the index")
	}

	all := filepath.Join(t.TempDir(), "all")
	run(t, "", "skopeo", "copy", "--insecure-policy", "--all", ref, "dir:"+all)
	// The skopeo of Debian 12 knows no artifactType and writes the index anew without; all that the
	// index leads to it must keep.
	for _, d := range parse(t, index).Manifests {
		hex := strings.TrimPrefix(d.Digest, "sha256:")
		if got := fileDigest(t, filepath.Join(all, hex+".manifest.json")); got != d.Digest {
			t.Errorf("skopeo copies manifest %s as %s", d.Digest, got)
		}
	}

	one := filepath.Join(t.TempDir(), "one")
	run(t, "", "skopeo", "copy", "--insecure-policy", "--override-os=linux", "--override-arch=amd64", ref, "dir:"+one)
	if got := fileDigest(t, filepath.Join(one, "manifest.json")); got != want.Digest {
		t.Errorf("skopeo takes %s as its platform's, not %s", got, want.Digest)
	}
	var config struct {
		Architecture, Os string
		Layers           []string
	}
	if err := json.Unmarshal(run(t, "", "skopeo", "inspect", "--override-os=linux", "--override-arch=amd64", ref), &config); err != nil {
		t.Fatal(err)
	}
	if config.Os != "linux" || config.Architecture != "amd64" || len(config.Layers) == 0 {
		t.Errorf("skopeo inspects %+v", config)
	}
}

// serve starts a registry that ends with the test and returns its address.
func serve(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := l.Addr().String()
	l.Close()
	cmd := exec.CommandContext(t.Context(), "crane", "registry", "serve", "--address", address, "--disk", t.TempDir())
	stderr, err := cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cmd.Process.Kill()
		cmd.Wait()
	})
	go func() {
		for s := bufio.NewScanner(stderr); s.Scan(); { // a full pipe would stop it
		}
	}()
	for range 100 {
		if c, err := net.Dial("tcp", address); err == nil {
			c.Close()
			return address
		}
		time.Sleep(100 * time.Millisecond)
	}
	t.Fatalf("no registry at %s", address)
	return ""
}

// TestRealCrane reads a layout with crane, pushes it to a registry and validates it there.
func TestRealCrane(t *testing.T) {
	r := recipe{"alpine", "gzip", "pax"}
	layout := r.layout(t)
	ref := serve(t) + "/isc/real:1.0.0"
	run(t, "", "crane", "push", "--index", layout, ref)

	outer := parse(t, run(t, "", "crane", "manifest", ref))
	if len(outer.Manifests) != 1 {
		t.Fatalf("the layout's index.json names %d images", len(outer.Manifests))
	}
	byDigest := strings.TrimSuffix(ref, ":1.0.0") + "@" + outer.Manifests[0].Digest
	index := run(t, "", "crane", "manifest", byDigest)
	want, _ := runnable(t, parse(t, index), "linux")
	run(t, "", "crane", "validate", "--remote", strings.TrimSuffix(ref, ":1.0.0")+"@"+want.Digest)
	if got := strings.TrimSpace(string(run(t, "", "crane", "digest", "--platform=linux/amd64", byDigest))); got != want.Digest {
		t.Errorf("crane takes %s as linux/amd64, not %s", got, want.Digest)
	}
	for _, d := range parse(t, index).Manifests {
		raw := run(t, "", "crane", "manifest", strings.TrimSuffix(ref, ":1.0.0")+"@"+d.Digest)
		for _, blob := range parse(t, raw).Layers {
			data := run(t, "", "crane", "blob", strings.TrimSuffix(ref, ":1.0.0")+"@"+blob.Digest)
			if int64(len(data)) != blob.Size || digest(data) != blob.Digest {
				t.Errorf("blob %s comes back as %d bytes, %s", blob.Digest, len(data), digest(data))
			}
		}
	}
}

// TestRealNoPlatform gives the whole image to clients that name no platform. Whatever they take must be
// the runnable root; for an image of another system they may also refuse.
func TestRealNoPlatform(t *testing.T) {
	for _, r := range []recipe{{"alpine", "gzip", "pax"}, {"omnios", "gzip", "pax"}} {
		t.Run(r.os(), func(t *testing.T) {
			layout := r.layout(t)
			src := "oci:" + layout + ":1.0.0"
			want, _ := runnable(t, parse(t, run(t, "", "skopeo", "inspect", "--raw", src)), r.os())
			refusing := r.os() != "linux"

			t.Run("skopeo", func(t *testing.T) {
				dir := filepath.Join(t.TempDir(), "out")
				_, err := try(t, "", "skopeo", "copy", "--insecure-policy", src, "dir:"+dir)
				if err != nil {
					if !refusing {
						t.Fatal(err)
					}
					return
				}
				if got := fileDigest(t, filepath.Join(dir, "manifest.json")); got != want.Digest {
					t.Errorf("takes %s, not %s", got, want.Digest)
				}
			})
			t.Run("crane", func(t *testing.T) {
				ref := serve(t) + "/isc/real:1.0.0"
				run(t, "", "crane", "push", "--index", layout, ref)
				outer := parse(t, run(t, "", "crane", "manifest", ref))
				ref = strings.TrimSuffix(ref, ":1.0.0") + "@" + outer.Manifests[0].Digest
				out := filepath.Join(t.TempDir(), "out.tar")
				if _, err := try(t, "", "crane", "export", ref, out); err != nil {
					if !refusing {
						t.Fatal(err)
					}
				} else if refusing {
					t.Error("exports an image of another system")
				}
				platform := r.os() + "/amd64"
				if got := strings.TrimSpace(string(run(t, "", "crane", "digest", "--platform="+platform, ref))); got != want.Digest {
					t.Errorf("takes %s as %s, not %s", got, platform, want.Digest)
				}
			})
			t.Run("umoci", func(t *testing.T) {
				bundle := filepath.Join(t.TempDir(), "bundle")
				if _, err := try(t, "", "umoci", "unpack", "--image", layout+":1.0.0", bundle); err != nil {
					return // it knows no platforms, and refuses an index of several manifests
				}
				compare(t, filepath.Join(bundle, "rootfs"), r.content(t))
			})
		})
	}
}

// TestRealRunnable unpacks the runnable root with umoci, where it knows the system, and with crane, and
// compares it with the content manifest.
func TestRealRunnable(t *testing.T) {
	for _, r := range []recipe{{"odd", "gzip", "pax"}, {"alpine", "gzip", "pax"}, {"omnios", "gzip", "pax"}} {
		t.Run(r.base, func(t *testing.T) {
			layout, content := r.layout(t), r.content(t)
			umoci := func(t *testing.T) {
				one := filepath.Join(t.TempDir(), "one")
				run(t, "", "skopeo", "copy", "--insecure-policy", "--override-os="+r.os(), "--override-arch=amd64",
					"oci:"+layout+":1.0.0", "oci:"+one+":run")
				bundle := filepath.Join(t.TempDir(), "bundle")
				run(t, "", "umoci", "unpack", "--image", one+":run", bundle)
				compare(t, filepath.Join(bundle, "rootfs"), content)
			}
			if r.os() == "linux" { // it writes a runtime configuration too, and knows none of illumos
				t.Run("umoci", umoci)
			}
			t.Run("crane", func(t *testing.T) {
				ref := serve(t) + "/isc/real:1.0.0"
				run(t, "", "crane", "push", "--index", layout, ref)
				outer := parse(t, run(t, "", "crane", "manifest", ref))
				ref = strings.TrimSuffix(ref, ":1.0.0") + "@" + outer.Manifests[0].Digest
				out := filepath.Join(t.TempDir(), "out.tar")
				run(t, "", "crane", "export", "--platform="+r.os()+"/amd64", ref, out)
				dir := filepath.Join(t.TempDir(), "root")
				if err := os.Mkdir(dir, 0o755); err != nil {
					t.Fatal(err)
				}
				run(t, dir, "tar", "--numeric-owner", "--xattrs", "--xattrs-include=*", "-xpf", out)
				// It leaves out symbolic links that lead above the root.
				compare(t, dir, content, "links/up")
			})
		})
	}
}

func digest(data []byte) string { return fmt.Sprintf("sha256:%x", sha256.Sum256(data)) }

func fileDigest(t *testing.T, name string) string {
	t.Helper()
	data, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	return digest(data)
}
