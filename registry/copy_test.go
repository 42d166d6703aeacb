package registry

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
)

// everything lists an image in a place with what belongs to it.
func everything(t testing.TB, ref Ref) string {
	t.Helper()
	s, err := Open(t.Context(), ref, Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	root, err := s.Resolve(t.Context(), ref.version())
	if err != nil {
		t.Fatal(err)
	}
	p, err := planCopy(t.Context(), s, root)
	if err != nil {
		t.Fatal(err)
	}
	var lines []string
	for _, m := range p.manifests {
		lines = append(lines, fmt.Sprintf("manifest %s %d", m.Digest, m.Size))
	}
	for _, b := range p.blobs {
		r, err := s.Blob(t.Context(), b)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := io.Copy(io.Discard, r); err != nil {
			t.Error(err)
		}
		r.Close()
		lines = append(lines, fmt.Sprintf("blob %s %d", b.Digest, b.Size))
	}
	for _, s := range p.referrers {
		for _, r := range s.referrers {
			lines = append(lines, fmt.Sprintf("referrer of %s: %s %s %q", s.digest, r.Digest, r.ArtifactType, r.Annotations))
		}
	}
	for _, tag := range p.tags {
		lines = append(lines, fmt.Sprintf("tag %s %s", tag.tag, tag.digest))
	}
	slices.Sort(lines)
	return strings.Join(lines, "\n")
}

func TestCopy(t *testing.T) {
	t.Parallel()
	l := newLayout(t)
	writeTestImage(t, l, "v1")
	root, err := l.Resolve(t.Context(), "v1")
	if err != nil {
		t.Fatal(err)
	}
	first := attachReferrer(t, l, root, "release")
	attachReferrer(t, l, root, "provenance")
	attachReferrer(t, l, first, "about the release")
	sig := mustPut(t, l, "signature")
	if err := l.Tag(fallbackTag(root.Digest)+".sig", sig); err != nil {
		t.Fatal(err)
	}
	want := everything(t, layoutRef(l, "v1"))
	for _, part := range []string{"tag sha256-" + root.Digest[7:] + ".sig " + sig.Digest, `"about the release"`, "referrer of " + root.Digest} {
		if !strings.Contains(want, part) {
			t.Fatalf("%q is not in\n%s", part, want)
		}
	}

	api, plain := newRegistry(t, true), newRegistry(t, false)
	dir := t.TempDir()
	chain := []Ref{
		layoutRef(l, "v1"), api.ref("isc/web:v2"), plain.ref("web:v2"),
		{Place: InArchive, Path: filepath.Join(dir, "web.tar"), Tag: "v3"},
		{Place: InLayout, Path: filepath.Join(dir, "again"), Tag: "v4"},
	}
	for i, dst := range chain[1:] {
		var mu sync.Mutex
		var last, total int64
		digest, err := Copy(t.Context(), chain[i], dst, Options{Progress: func(_ string, d, n int64) {
			mu.Lock()
			defer mu.Unlock()
			last, total = max(last, d), n
		}})
		if err != nil || digest != root.Digest {
			t.Fatalf("%s to %s: %s, %v", chain[i], dst, digest, err)
		}
		if last != total || total == 0 {
			t.Errorf("%s: progress ended at %d of %d", dst, last, total)
		}
		if got := everything(t, dst); got != want {
			t.Errorf("%s has\n%s\nwant\n%s", dst, got, want)
		}
		s, err := Open(t.Context(), dst, Options{})
		if err != nil {
			t.Fatal(err)
		}
		m, err := ReadImage(t.Context(), s, dst.Tag)
		if err != nil {
			t.Fatalf("%s: %v", dst, err)
		}
		r, err := m.Open(t.Context(), "dock/zonecfg")
		if err != nil {
			t.Fatal(err)
		}
		if data, err := io.ReadAll(r); err != nil || string(data) != "create -b\n" {
			t.Errorf("%s: %q, %v", dst, data, err)
		}
		if tags, err := s.Tags(t.Context()); err != nil || !slices.Contains(tags, dst.Tag) {
			t.Errorf("%s: tags %q, %v", dst, tags, err)
		}
		s.Close()
	}

	// What is there is not sent again.
	before := plain.uploads.Load()
	if _, err := Copy(t.Context(), chain[0], chain[2], Options{}); err != nil || plain.uploads.Load() != before {
		t.Errorf("copied again: %v, %d uploads", err, plain.uploads.Load()-before)
	}
	// An archive has the same bytes whenever it is written, and replaces what was there.
	one, err := os.ReadFile(chain[3].Path)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, ".web.tar"+tempPrefix+"dead"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := Copy(t.Context(), chain[2], chain[3], Options{}); err != nil {
		t.Fatal(err)
	}
	two, err := os.ReadFile(chain[3].Path)
	if err != nil || len(one) != len(two) {
		t.Errorf("the archive has %d bytes, then %d, %v", len(one), len(two), err)
	}
	if entries, err := os.ReadDir(dir); err != nil || len(entries) != 2 {
		t.Errorf("%v, %v: want the archive and the layout", entries, err)
	}
}

func TestCopyErrors(t *testing.T) {
	l := newLayout(t)
	writeTestImage(t, l, "v1")
	reg := newRegistry(t, true)
	dir := t.TempDir()
	if _, err := Copy(t.Context(), layoutRef(l, "v9"), reg.ref("x"), Options{}); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("no such tag: %v", err)
	}
	other := reg.ref("x:v1")
	other.Digest = hexDigest
	if _, err := Copy(t.Context(), layoutRef(l, "v1"), other, Options{}); err == nil || !strings.Contains(err.Error(), "has the digest") {
		t.Errorf("another digest: %v", err)
	}
	if _, err := Copy(t.Context(), layoutRef(l, "v1"), Ref{Place: InLayout, Path: dir, Digest: hexDigest}, Options{}); err == nil {
		t.Error("no tag for a layout: copied")
	}
	// A failed copy leaves neither tag nor file nor litter, and what stood there before.
	old := filepath.Join(dir, "old.tar")
	if err := os.WriteFile(old, []byte("before"), 0o644); err != nil {
		t.Fatal(err)
	}
	path, _ := l.blobPath(Digest([]byte("#mtree\n")))
	if err := os.WriteFile(path, []byte("#MTREE\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	for _, dst := range []Ref{reg.ref("bad:v1"), {Place: InArchive, Path: old, Tag: "v1"}, {Place: InLayout, Path: filepath.Join(dir, "l"), Tag: "v1"}} {
		if _, err := Copy(t.Context(), layoutRef(l, "v1"), dst, Options{}); err == nil {
			t.Errorf("%s: a damaged image was copied", dst)
		}
	}
	if data, err := os.ReadFile(old); err != nil || string(data) != "before" {
		t.Errorf("the old archive is %q, %v", data, err)
	}
	half, err := OpenLayout(filepath.Join(dir, "l"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := half.Resolve(t.Context(), "v1"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the tag of a failed copy: %v", err)
	}
	if got := names(t, half); !slices.Equal(got, cleanLayout) {
		t.Errorf("litter %q", got)
	}
	if entries, err := os.ReadDir(dir); err != nil || len(entries) != 2 {
		t.Errorf("litter %v, %v", entries, err)
	}
	s, err := Open(t.Context(), reg.ref("bad"), Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if _, err := s.Resolve(t.Context(), "v1"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the tag of a failed push: %v", err)
	}
}
