package signing

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/hex"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

var update = flag.Bool("update", false, "write the golden files")

// now is the time of all tests.
var now = time.Date(2026, 11, 25, 12, 0, 0, 0, time.UTC)

const day = 24 * time.Hour

// digestOf is the digest of an image that exists in a test's imagination.
func digestOf(image string) string {
	sum := sha256.Sum256([]byte(image))
	return "sha256:" + hex.EncodeToString(sum[:])
}

func scalar(name string, size int) []byte {
	sum := sha256.Sum256([]byte(name))
	b := make([]byte, size)
	copy(b[size-32:], sum[:])
	return b
}

// signer makes the same key of an algorithm at every run, but for RSA.
func signer(t testing.TB, algorithm, name string) crypto.Signer {
	t.Helper()
	var s crypto.Signer
	var err error
	switch algorithm {
	case "P-256":
		s, err = ecdsa.ParseRawPrivateKey(elliptic.P256(), scalar(name, 32))
	case "P-384":
		s, err = ecdsa.ParseRawPrivateKey(elliptic.P384(), scalar(name, 48))
	case "P-521":
		s, err = ecdsa.ParseRawPrivateKey(elliptic.P521(), scalar(name, 66))
	case "Ed25519":
		s = ed25519.NewKeyFromSeed(scalar(name, 32))
	case "RSA":
		s, err = rsaKey()
	default:
		t.Fatalf("algorithm %q", algorithm)
	}
	if err != nil {
		t.Fatal(err)
	}
	return s
}

var rsaKey = sync.OnceValues(func() (*rsa.PrivateKey, error) { return rsa.GenerateKey(rand.Reader, 2048) })

// key makes a P-256 key, the same for the same name.
func key(t testing.TB, name string) *Key {
	t.Helper()
	k, err := newKey(signer(t, "P-256", name))
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// aRelease is a release that is right in everything.
func aRelease() Release {
	return Release{
		Name: "web", Version: "1.4.0", Channel: "stable", Epoch: 7, MinimumEpoch: 3,
		Issued: now.Add(-day), Expires: now.Add(89 * day),
		Artifacts: []Artifact{
			{
				Name: "zone", MediaType: "application/vnd.goldenisc.zone.v1.tar+zstd", Digest: digestOf("zone"), Size: 1234,
				UncompressedDigest: digestOf("zone.tar"), UncompressedSize: 5678,
			},
			{Name: "zfs-1", MediaType: "application/vnd.goldenisc.zfs.v1", Digest: digestOf("increment"), Size: 99},
		},
		Increments: []Increment{{From: digestOf("web 1.3.0"), FromGUID: 12345678901234567890, Artifact: digestOf("increment")}},
	}
}

func statement(t testing.TB, r Release, digest string) *Statement {
	t.Helper()
	s, err := r.Statement(digest)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func bundle(t testing.TB, k *Key, s *Statement) []byte {
	t.Helper()
	b, err := SignBundle(context.Background(), k, s)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// rawBundle signs whatever the payload is.
func rawBundle(t testing.TB, k *Key, payload string) []byte {
	t.Helper()
	b := Bundle{Hint: k.public.id, Payload: []byte(payload)}
	var err error
	if b.Signature, err = k.Sign(context.Background(), pae(payload)); err != nil {
		t.Fatal(err)
	}
	data, err := b.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// golden compares with a file of testdata.
func golden(t *testing.T, name string, got []byte) {
	t.Helper()
	path := filepath.Join("testdata", name)
	if *update {
		if err := os.MkdirAll("testdata", 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, got, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Errorf("differs from %s:\n%s", path, got)
	}
}

// wantError checks that an error says something; with "" that there is none.
func wantError(t *testing.T, err error, want string) {
	t.Helper()
	switch {
	case want == "" && err != nil:
		t.Errorf("got %v, want no error", err)
	case want != "" && err == nil:
		t.Errorf("got no error, want %q", want)
	case want != "" && !strings.Contains(err.Error(), want):
		t.Errorf("got %q, want %q in it", err, want)
	}
	if err != nil && strings.ContainsAny(err.Error(), "\n\x1b\x00") {
		t.Errorf("control characters in %q", err)
	}
}
