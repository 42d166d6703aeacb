package main

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"io"
	"testing"

	"github.com/goldenisc/packer-plugin-isc/image"
	"github.com/goldenisc/packer-plugin-isc/registry"
)

// TestCheckArtifact: the size, the digest and what an artifact unpacks to are checked on the very
// descriptor that is read from then.
func TestCheckArtifact(t *testing.T) {
	digest := func(data []byte) string {
		sum := sha256.Sum256(data)
		return "sha256:" + hex.EncodeToString(sum[:])
	}
	plain := bytes.Repeat([]byte("golden "), 1000)
	var packed bytes.Buffer
	z, err := image.NewCompressor(t.Context(), &packed, image.Zstd)
	if err != nil {
		t.Fatal(err)
	}
	_, err = z.Write(plain)
	if err := errors.Join(err, z.Close()); err != nil {
		t.Fatal(err)
	}
	good := image.Artifact{
		Digest: digest(packed.Bytes()), Size: int64(packed.Len()),
		UncompressedDigest: digest(plain), UncompressedSize: int64(len(plain)),
	}
	for name, change := range map[string]func(*image.Artifact){
		"":                    func(*image.Artifact) {},
		"size":                func(a *image.Artifact) { a.Size-- },
		"larger size":         func(a *image.Artifact) { a.Size++ },
		"digest":              func(a *image.Artifact) { a.Digest = digest(plain) },
		"uncompressed size":   func(a *image.Artifact) { a.UncompressedSize-- }, // a bomb is not unpacked
		"uncompressed digest": func(a *image.Artifact) { a.UncompressedDigest = digest(nil) },
	} {
		a := good
		change(&a)
		f := bytes.NewReader(packed.Bytes())
		err := checkArtifact(f, &a)
		if name != "" {
			if !errors.Is(err, registry.ErrMismatch) {
				t.Errorf("wrong %s: %v", name, err)
			}
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		if data, err := io.ReadAll(f); err != nil || !bytes.Equal(data, packed.Bytes()) {
			t.Errorf("what is read then is something else (%v)", err)
		}
	}
	bad := []byte("no zstd at all")
	if err := checkArtifact(bytes.NewReader(bad), &image.Artifact{Digest: digest(bad), Size: int64(len(bad)), UncompressedDigest: digest(plain), UncompressedSize: 9}); !errors.Is(err, registry.ErrMismatch) {
		t.Errorf("what does not unpack: %v", err)
	}
}
