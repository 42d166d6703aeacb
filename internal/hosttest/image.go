// Package hosttest has what tests of hosts need: small verified images without a registry, and a
// conformance suite that every platform must pass.
package hosttest

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"io/fs"
	"os"
	"testing"
	"time"

	"github.com/goldenisc/packer-plugin-isc/host"
	"github.com/goldenisc/packer-plugin-isc/image"
)

// A File is an entry with its content.
type File struct {
	image.Entry
	Data string
}

// Time is that of all files that have none.
var Time = time.Date(2024, 5, 6, 7, 8, 9, 0, time.UTC)

// Source holds artifacts in memory, by name. It is a [host.Source].
type Source map[string][]byte

// Open hands out one artifact.
func (s Source) Open(_ context.Context, artifact string) (io.ReadCloser, error) {
	data, ok := s[artifact]
	if !ok {
		return nil, fmt.Errorf("artifact %q: %w", artifact, fs.ErrNotExist)
	}
	return io.NopCloser(bytes.NewReader(data)), nil
}

// Dir is a directory, owned by who runs the test.
func Dir(name string) File {
	return File{Entry: image.Entry{Name: name, Mode: fs.ModeDir | 0o755}}
}

// Regular is a file of mode 0644.
func Regular(name, data string) File {
	return File{Entry: image.Entry{Name: name, Mode: 0o644}, Data: data}
}

// Small returns the files of a small image: one of everything that needs no privilege.
func Small() []File {
	link := func(name, to string) File {
		return File{Entry: image.Entry{Name: name, Mode: fs.ModeSymlink | 0o777, Target: to}}
	}
	hard := Regular("usr/bin/b", "")
	hard.HardLink = "usr/bin/a"
	a := Regular("usr/bin/a", "#!/bin/sh\n")
	a.Mode = 0o555
	secret := Regular("etc/shadow", "root:*LK*:::::::\n")
	secret.Mode = 0o400
	ro := Dir("usr/ro")
	ro.Mode = fs.ModeDir | 0o555
	setid := Regular("usr/bin/su", "su\n")
	setid.Mode = 0o755 | fs.ModeSetuid
	return []File{
		Dir("etc"), Regular("etc/hostname", "golden\n"), Regular("etc/passwd", "root:x:0:0::/:/bin/sh\n"), secret,
		link("etc/mtab", "../proc/self/mounts"), Dir("usr"), Dir("usr/bin"), a, hard, setid, ro, Regular("usr/ro/file", "x"),
		Regular("usr/empty", ""), Regular("usr/big", string(bytes.Repeat([]byte("0123456789abcdef"), 40_000))),
		Regular("usr/sparse", "head"+string(make([]byte, 1<<20))+"tail"),
		Regular("usr/new\nline", "x"), Dir("var"), Dir("var/log"), Regular("var/log/messages", "first\n"),
		Dir("var/lib"), Dir("var/lib/web"), Regular("var/lib/web/seed", "seed\n"), Dir("var/reset"), Regular("var/reset/conf", "golden\n"),
		Dir("scratch"),
	}
}

// Config is that of an image of Small.
func Config() *image.Config {
	return &image.Config{
		Schema: 1, Name: "web", Version: "1.0.0", OS: "linux", Arch: "amd64", Created: Time,
		Scratch: "/scratch",
		Volumes: []image.Volume{{Path: "/var/lib/web"}},
		Mutable: []image.Mutable{
			{Paths: []string{"/var/log/*"}, Rule: "append"},
			{Paths: []string{"/var/cache/**"}, Rule: "any"},
			{Paths: []string{"/var/reset/**"}, Rule: "reset"},
		},
	}
}

// Image makes a verified image of these files. They belong to who runs the test, unless they say
// otherwise.
func Image(t testing.TB, c *image.Config, files []File) *host.Verified {
	t.Helper()
	tree := Tree(t, files)
	defer tree.Close()
	return FromTree(t, c, tree)
}

// FromTree makes a verified image of a frozen tree.
func FromTree(t testing.TB, c *image.Config, tree *image.Tree) *host.Verified {
	t.Helper()
	var zone, mtree, objects bytes.Buffer
	if err := image.WriteTar(t.Context(), &zone, tree, image.Pax, nil); err != nil {
		t.Fatal(err)
	}
	content := image.NewContent(tree)
	if err := content.WriteMtree(&mtree); err != nil {
		t.Fatal(err)
	}
	if err := content.WriteObjects(&objects); err != nil {
		t.Fatal(err)
	}
	src := Source{}
	for _, a := range []struct {
		name, mediaType string
		data            []byte
	}{
		{"zone", image.TypeZone, zone.Bytes()},
		{"content", image.TypeContent, mtree.Bytes()},
		{"objects", image.TypeObjects, objects.Bytes()},
	} {
		src[a.name] = a.data
		c.Artifacts = append(c.Artifacts, image.Artifact{
			Name: a.name, Kind: a.name, MediaType: a.mediaType, Digest: digest(a.data), Size: int64(len(a.data)),
		})
	}
	data, err := c.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	return &host.Verified{Digest: digest(data), Config: c, Source: src, Unsigned: true}
}

const dirMode = fs.ModeDir | 0o755

func owner() (uid, gid int) { return max(os.Getuid(), 0), max(os.Getgid(), 0) }

func digest(data []byte) string {
	sum := sha256.Sum256(data)
	return "sha256:" + hex.EncodeToString(sum[:])
}
