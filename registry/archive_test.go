package registry

import (
	"archive/tar"
	"bytes"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

const emptyIndex = `{"schemaVersion":2,"manifests":[]}`

// tarOf is a tar archive of these headers, the content being in Linkname for plain files.
func tarOf(t testing.TB, headers ...tar.Header) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, h := range headers {
		content := ""
		if h.Typeflag == tar.TypeReg {
			content, h.Linkname = h.Linkname, ""
			h.Size = int64(len(content))
		}
		if err := w.WriteHeader(&h); err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(w, content); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func plain(name, content string) tar.Header {
	return tar.Header{Typeflag: tar.TypeReg, Name: name, Linkname: content, Mode: 0o644}
}

func TestArchiveHostile(t *testing.T) {
	layout, index := plain("./"+layoutFile, layoutBody), plain("./"+indexFile, emptyIndex)
	whole := tarOf(t, layout, index, plain("./blobs/sha256/"+hexDigest[7:], "not this"))
	for name, test := range map[string]struct {
		data []byte
		want string
	}{
		"empty":     {nil, "not an OCI image layout"},
		"no index":  {tarOf(t, layout), "missing"},
		"no layout": {tarOf(t, index), "not an OCI image layout"},
		"link":      {tarOf(t, layout, tar.Header{Typeflag: tar.TypeSymlink, Name: indexFile, Linkname: "/etc/passwd"}), "missing"},
		"twice":     {tarOf(t, layout, index, plain("blobs/../index.json", emptyIndex)), "twice"},
		"truncated": {whole[:len(whole)-3*512], "unexpected EOF"},
		"gzip":      {[]byte("\x1f\x8b\x08" + strings.Repeat("x", 1000)), "invalid tar header"},
		"bad index": {tarOf(t, layout, plain(indexFile, "{}")), "not an OCI image index"},
	} {
		file := filepath.Join(t.TempDir(), "a.tar")
		if err := os.WriteFile(file, test.data, 0o644); err != nil {
			t.Fatal(err)
		}
		if _, err := Open(t.Context(), Ref{Place: InArchive, Path: file}, Options{}); err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s: %v; want %q in it", name, err, test.want)
		}
	}

	a, err := readArchive(bytes.NewReader(whole), int64(len(whole)))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := a.Manifest(t.Context(), Descriptor{Digest: hexDigest, Size: 8}); err == nil || !strings.Contains(err.Error(), "have the digest") {
		t.Errorf("another blob: %v", err)
	}
	for _, digest := range []string{"sha256:../../" + indexFile, Digest(nil)} {
		if _, err := a.Blob(t.Context(), Descriptor{Digest: digest}); err == nil {
			t.Errorf("%s was opened", digest)
		}
	}
	if _, err := a.Resolve(t.Context(), "v1"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("no such tag: %v", err)
	}
}

func FuzzArchive(f *testing.F) {
	f.Add(tarOf(f, plain(layoutFile, layoutBody), plain(indexFile, emptyIndex)))
	f.Add(tarOf(f, plain(layoutFile, layoutBody), plain(indexFile, emptyIndex), plain("blobs/sha256/"+hexDigest[7:], "x")))
	f.Fuzz(func(t *testing.T, data []byte) {
		a, err := readArchive(bytes.NewReader(data), int64(len(data)))
		if err != nil {
			return
		}
		for name, e := range a.files {
			if got, err := io.ReadAll(a.section(e)); err != nil || int64(len(got)) != e.size {
				t.Fatalf("%q: %d of %d bytes, %v", name, len(got), e.size, err)
			}
		}
	})
}
