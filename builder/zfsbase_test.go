package builder_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/goldenisc/packer-plugin-isc/builder"
	"github.com/goldenisc/packer-plugin-isc/image"
	"github.com/goldenisc/packer-plugin-isc/registry"
	"github.com/goldenisc/packer-plugin-isc/zfs"
)

// zfsSpec is the text of a spec of these blocks, but for its name and base.
func zfsSpec(system, version, base string, blocks ...string) string {
	return fmt.Sprintf("image {\n  name = \"web\"\n  version = %q\n  os = %q\n  arch = \"amd64\"\n}\nbase {\n  source = %q\n}\nprofile {\n  name = \"none\"\n}\n%s\n",
		version, system, base, strings.Join(blocks, "\n"))
}

type ctx = context.Context

// prepareSpec prepares the build of a spec.
func prepareSpec(t *testing.T, text string, set ...func(*builder.BuildOptions)) (*builder.Built, error) {
	t.Helper()
	s, diags := builder.ParseSpec(filepath.Join(t.TempDir(), "t.isc.hcl"), []byte(text), builder.Options{})
	if diags.HasErrors() {
		return nil, diags
	}
	o := builder.BuildOptions{Dir: t.TempDir(), Log: slog.New(slog.DiscardHandler)}
	for _, f := range set {
		f(&o)
	}
	b, err := builder.Prepare(t.Context(), s, o)
	if err == nil {
		t.Cleanup(func() { b.Close() })
	}
	return b, err
}

// buildInto builds a spec into a layout of its own.
func buildInto(t *testing.T, dir, text string, set ...func(*builder.BuildOptions)) (*registry.Image, error) {
	t.Helper()
	b, err := prepareSpec(t, text, set...)
	if err != nil {
		return nil, err
	}
	l, err := registry.CreateLayout(dir)
	if err != nil {
		t.Fatal(err)
	}
	digest, err := b.Write(t.Context(), l, "latest", nil)
	if err != nil {
		return nil, err
	}
	m, err := registry.ReadImage(t.Context(), l, digest)
	if err != nil {
		t.Fatal(err)
	}
	return m, nil
}

// plain unpacks an artifact.
func plain(t testing.TB, data []byte) []byte {
	t.Helper()
	f := filepath.Join(t.TempDir(), "z")
	if err := os.WriteFile(f, data, 0o600); err != nil {
		t.Fatal(err)
	}
	r, err := os.Open(f)
	if err != nil {
		t.Fatal(err)
	}
	s, err := builder.OpenStream(t.Context(), r, t.TempDir(), 1<<30)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	out := make([]byte, s.Size)
	if _, err := s.ReadAt(out, 0); err != nil {
		t.Fatal(err)
	}
	return out
}

// oddTree is a folder or archive with every kind of object that an ordinary user can make.
func oddTree(t testing.TB) string {
	t.Helper()
	dir := t.TempDir()
	for name, data := range map[string]string{
		"etc/passwd": "root:x:0:0:::\n", "etc/group": "root:x:0:\n", "srv/a": "same", "srv/b": strings.Repeat("x", 300_000), "srv/empty": "",
		"srv/old/c": "will move with all that is in it",
	} {
		put(t, filepath.Join(dir, filepath.FromSlash(name)), data)
	}
	f, err := os.Create(filepath.Join(dir, "srv", "sparse"))
	if err != nil {
		t.Fatal(err)
	}
	_, err = f.WriteAt([]byte("end"), 1<<20)
	if err := errors.Join(err, f.Close(), os.Symlink("../etc", filepath.Join(dir, "srv", "link")), os.Link(filepath.Join(dir, "srv", "a"), filepath.Join(dir, "srv", "zz"))); err != nil {
		t.Fatal(err)
	}
	return dir
}

func put(t testing.TB, name, data string) {
	t.Helper()
	if err := errors.Join(os.MkdirAll(filepath.Dir(name), 0o755), os.WriteFile(name, []byte(data), 0o644)); err != nil {
		t.Fatal(err)
	}
}

// A stream of a tree, as a base, gives the same tree.
func TestZFSBase(t *testing.T) {
	dir := t.TempDir()
	root := "dir:" + filepath.ToSlash(oddTree(t))
	for _, c := range []struct{ name, system, block string }{
		{"top", "linux", "zfs {\n  compression = \"none\"\n}"},
		{"zstd", "linux", "zfs {}"},
		{"gzip of zpl4", "linux", "zfs {\n  compression = \"gzip\"\n  profile = \"zpl4\"\n}"},
		{"zonepath", "linux", "zfs {\n  layout = \"root\"\n}"},
	} {
		t.Run(c.name, func(t *testing.T) {
			first, _, err := buildSpec(t, dir, zfsSpec(c.system, "1", root, c.block))
			if err != nil {
				t.Fatal(err)
			}
			file := filepath.Join(t.TempDir(), "s")
			if err := os.WriteFile(file, artifact(t, first, "zfs"), 0o600); err != nil {
				t.Fatal(err)
			}
			again, _, err := buildSpec(t, dir, zfsSpec(c.system, "1", "zfs:"+filepath.ToSlash(file), c.block))
			if err != nil {
				t.Fatal(err)
			}
			for _, name := range []string{"content", "objects", "zfs", "zfs/map"} {
				if !bytes.Equal(artifact(t, first, name), artifact(t, again, name)) {
					t.Errorf("artifact %q differs:\n%s\n%s", name, tail(artifact(t, first, name)), tail(artifact(t, again, name)))
				}
			}
		})
	}
}

func tail(b []byte) string { return string(b[:min(len(b), 2000)]) }

func TestZFSBaseRefused(t *testing.T) {
	dir := t.TempDir()
	m, _, err := buildSpec(t, dir, zfsSpec("linux", "1", "skeleton:linux", "zfs {\n  compression = \"none\"\n}"))
	if err != nil {
		t.Fatal(err)
	}
	stream := artifact(t, m, "zfs")
	raw := bytes.Clone(stream)
	raw[16+3] |= 1 << 2 // DMU_BACKUP_FEATURE_RAW, 1<<24, in the flags that begin at bit 2 of drr_versioninfo
	for _, c := range []struct {
		name, more, want string
		data             []byte
	}{
		{"cut short", "", "unexpected EOF", stream[:len(stream)-400]},
		{"a flipped byte", "", "checksum", append(append(bytes.Clone(stream[:2000]), stream[2000]^1), stream[2001:]...)},
		{"an archive", "", "not a send stream", make([]byte, 10240)},
		{"empty", "", "", nil},
		{"raw", "", "raw", raw},
		{"too large", "  max_size = \"1KiB\"\n", "1024 bytes", stream},
		{"another snapshot", "  snapshot = \"@other\"\n", "@other", stream},
	} {
		t.Run(c.name, func(t *testing.T) {
			file := filepath.Join(t.TempDir(), "s")
			if err := os.WriteFile(file, c.data, 0o600); err != nil {
				t.Fatal(err)
			}
			spec := strings.Replace(zfsSpec("linux", "1", "zfs:"+filepath.ToSlash(file)), "base {\n", "base {\n"+c.more, 1)
			_, _, err := buildSpec(t, dir, spec)
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Fatalf("error %v, want %q", err, c.want)
			}
			if !errors.Is(err, builder.ErrInput) {
				t.Errorf("%v: not one of the input", err)
			}
		})
	}
}

// Increments lead from each version to the next, and from all of them to the last.
func TestZFSIncrements(t *testing.T) {
	dir := t.TempDir()
	root := oddTree(t)
	build := func(version string, from ...string) *registry.Image {
		t.Helper()
		var refs []string
		for _, v := range from {
			refs = append(refs, "oci:"+filepath.ToSlash(filepath.Join(dir, v)))
		}
		list, _ := json.Marshal(refs)
		spec := zfsSpec("linux", version, "dir:"+filepath.ToSlash(root), "zfs {\n  from = "+string(list)+"\n}")
		m, err := buildInto(t, filepath.Join(dir, version), spec)
		if err != nil {
			t.Fatal(err)
		}
		return m
	}
	one := build("1")
	put(t, filepath.Join(root, "srv", "a2"), "new")
	if err := os.Rename(filepath.Join(root, "srv", "b"), filepath.Join(root, "srv", "renamed")); err != nil {
		t.Fatal(err)
	}
	two := build("2", "1")
	put(t, filepath.Join(root, "srv", "empty"), "no longer")
	if err := os.RemoveAll(filepath.Join(root, "srv", "old")); err != nil {
		t.Fatal(err)
	}
	three := build("3", "1", "2")

	open := func(m *registry.Image, name string) []byte { return plain(t, artifact(t, m, name)) }
	want, err := describeZFS(open(three, "zfs"), zfs.Linux, "")
	if err != nil {
		t.Fatal(err)
	}
	for _, chain := range [][][]byte{
		{open(one, "zfs"), open(two, "zfs/from-1"), open(three, "zfs/from-2")},
		{open(one, "zfs"), open(three, "zfs/from-1")},
	} {
		s, err := zfs.Open(bytes.NewReader(chain[0]), int64(len(chain[0])), "")
		if err != nil {
			t.Fatal(err)
		}
		for _, inc := range chain[1:] {
			if err := s.Apply(bytes.NewReader(inc), int64(len(inc))); err != nil {
				t.Fatal(err)
			}
		}
		got, err := describeSnapshot(s, zfs.Linux, "")
		if err != nil {
			t.Fatal(err)
		}
		for name, w := range want {
			if got[name] != w {
				t.Errorf("%q: %s, want %s", name, got[name], w)
			}
		}
		if len(got) != len(want) {
			t.Errorf("%d objects, want %d", len(got), len(want))
		}
	}
	if n := len(open(two, "zfs/from-1")); n > 64<<10 {
		t.Errorf("an increment of %d bytes: the renamed file is sent again", n)
	}
	full, inc := three.Config.Artifact("zfs"), three.Config.Artifact("zfs/from-2")
	if inc.Kind != image.KindIncrement || inc.From != two.Digest() || inc.Attributes[image.AttrGUID] != full.Attributes[image.AttrGUID] ||
		inc.Attributes[image.AttrFromGUID] != two.Config.Artifact("zfs").Attributes[image.AttrGUID] {
		t.Errorf("increment %+v", inc)
	}
	if _, err := image.ParseConfig(mustMarshal(t, three.Config)); err != nil {
		t.Error(err)
	}
}

func mustMarshal(t *testing.T, c *image.Config) []byte {
	t.Helper()
	data, err := c.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// What does not fit is refused before anything is written.
func TestZFSFromRefused(t *testing.T) {
	dir := t.TempDir()
	base := filepath.Join(dir, "base")
	if _, err := buildInto(t, base, zfsSpec("linux", "1", "skeleton:linux", "zfs {}", "zone {}")); err != nil {
		t.Fatal(err)
	}
	plain := filepath.Join(dir, "plain")
	if _, err := buildInto(t, plain, zfsSpec("linux", "1", "skeleton:linux", "zone {}")); err != nil {
		t.Fatal(err)
	}
	from := func(dir, more string) string {
		return fmt.Sprintf("zfs {\n  from = [%q]\n%s}", "oci:"+filepath.ToSlash(dir), more)
	}
	for _, c := range []struct{ name, block, want string }{
		{"another profile", from(base, "  profile = \"zpl4\"\n"), "profile zpl5, layout top, platform linux, this one of profile zpl4"},
		{"another layout", from(base, "  layout = \"root\"\n"), "layout top"},
		{"another platform", from(base, "  platform = \"freebsd\"\n"), "platform linux, this one of"},
		{"no stream", from(plain, ""), "the image has no ZFS stream"},
		{"nothing there", from(filepath.Join(dir, "none"), ""), "does not exist"},
		{"the same version", from(base, ""), "the base is the same version"},
		{"twice", fmt.Sprintf("zfs {\n  from = [%q, %q]\n}", "oci:"+filepath.ToSlash(base), "oci:"+filepath.ToSlash(base)+":latest"), "same image"},
		{"no image", "zfs {\n  from = [\"skeleton:linux\"]\n}", "is no image"},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := buildInto(t, filepath.Join(t.TempDir(), "out"), zfsSpec("linux", "1", "skeleton:linux", c.block))
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Fatalf("error %v, want %q", err, c.want)
			}
		})
	}
	t.Run("a damaged map", func(t *testing.T) {
		l, err := registry.OpenLayout(base)
		if err != nil {
			t.Fatal(err)
		}
		m, err := registry.ReadImage(t.Context(), l, "latest")
		if err != nil {
			t.Fatal(err)
		}
		blob := filepath.Join(base, "blobs", "sha256", strings.TrimPrefix(m.Config.Artifact("zfs/map").Digest, "sha256:"))
		data, err := os.ReadFile(blob)
		if err != nil {
			t.Fatal(err)
		}
		data[len(data)/2] ^= 1
		if err := errors.Join(os.Chmod(blob, 0o600), os.WriteFile(blob, data, 0o600)); err != nil {
			t.Fatal(err)
		}
		_, err = buildInto(t, filepath.Join(t.TempDir(), "out"), zfsSpec("linux", "2", "skeleton:linux", from(base, "")))
		if !errors.Is(err, registry.ErrMismatch) {
			t.Errorf("a map that is not the one in the image: %v", err)
		}
	})
	t.Run("trust", func(t *testing.T) {
		refused := errors.New("nobody vouches for it")
		asked := 0
		_, err := buildInto(t, filepath.Join(t.TempDir(), "out"), zfsSpec("linux", "2", "skeleton:linux", from(plain, ""), "zfs {\n  id = \"b\"\n"+strings.TrimPrefix(from(plain, ""), "zfs {\n")),
			func(o *builder.BuildOptions) {
				o.Trust = func(_ ctx, _ registry.Ref, _ registry.Store, m *registry.Image) error { asked++; return refused }
			})
		if !errors.Is(err, refused) || asked != 1 {
			t.Errorf("asked %d times: %v", asked, err)
		}
	})
}

// A file that changes under a dir: base is noticed, before its content is read, while it is, and after.
func TestZFSChangingFolder(t *testing.T) {
	for _, how := range []string{"content", "size"} {
		t.Run(how, func(t *testing.T) {
			root := oddTree(t)
			b, err := prepareSpec(t, zfsSpec("linux", "1", "dir:"+filepath.ToSlash(root), "zfs {}"))
			if err != nil {
				t.Fatal(err)
			}
			time.Sleep(20 * time.Millisecond) // change times are as coarse as the kernel's tick
			data := strings.Repeat("y", 300_000)
			if how == "size" {
				data += "more"
			}
			put(t, filepath.Join(root, "srv", "b"), data)
			l, err := registry.CreateLayout(filepath.Join(t.TempDir(), "out"))
			if err != nil {
				t.Fatal(err)
			}
			if _, err := b.Write(t.Context(), l, "t", nil); err == nil || !strings.Contains(err.Error(), "changed while it was read") {
				t.Errorf("error %v", err)
			}
			if err := filepath.WalkDir(l.Dir(), func(p string, e fs.DirEntry, err error) error {
				if err == nil && !e.IsDir() && e.Name() != "index.json" && e.Name() != "oci-layout" {
					t.Errorf("left in the layout: %s", p)
				}
				return err
			}); err != nil {
				t.Error(err)
			}
		})
	}
}
