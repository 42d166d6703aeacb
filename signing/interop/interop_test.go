package interop

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
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/sigstore/sigstore-go/pkg/bundle"
	"github.com/sigstore/sigstore-go/pkg/root"
	"github.com/sigstore/sigstore-go/pkg/verify"
	"github.com/sigstore/sigstore/pkg/cryptoutils"
	"github.com/sigstore/sigstore/pkg/signature"

	"github.com/goldenisc/packer-plugin-isc/registry"
	"github.com/goldenisc/packer-plugin-isc/signing"
)

// keys makes one key of each algorithm, in PKCS #8.
func keys(t *testing.T) map[string][]byte {
	t.Helper()
	p256, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	p384, err := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	_, ed, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	rsaKey, err := rsa.GenerateKey(rand.Reader, 3072)
	if err != nil {
		t.Fatal(err)
	}
	list := map[string][]byte{}
	for name, k := range map[string]crypto.PrivateKey{"P-256": p256, "P-384": p384, "Ed25519": ed, "RSA-3072": rsaKey} {
		der, err := x509.MarshalPKCS8PrivateKey(k)
		if err != nil {
			t.Fatal(err)
		}
		list[name] = pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})
	}
	return list
}

func parse(t *testing.T, data []byte) *signing.Key {
	t.Helper()
	k, err := signing.ParseKey(data, nil)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// An image is an index in a registry of this process.
type image struct {
	subject signing.Descriptor
	host    string // of the registry
	repo    string // HOST/REPO
	ref     registry.Ref
	target  registry.Target
}

// publish makes a registry, with the referrers API or without, and an image in it.
func publish(t *testing.T, referrersAPI bool, content string) *image {
	t.Helper()
	server := registry.Handler("")
	t.Cleanup(func() { server.Close() })
	web := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !referrersAPI && strings.Contains(r.URL.Path, "/referrers/") {
			http.NotFound(w, r)
			return
		}
		server.ServeHTTP(w, r)
	}))
	t.Cleanup(web.Close)

	i := &image{host: strings.TrimPrefix(web.URL, "http://")}
	i.repo = i.host + "/isc/web"
	var err error
	if i.ref, err = registry.Parse(i.repo + ":1.4.0"); err != nil {
		t.Fatal(err)
	}
	ctx := context.Background()
	if i.target, err = registry.OpenTarget(ctx, i.ref, registry.Options{}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { i.target.Close() })

	config, layer := []byte("{}"), []byte(content)
	i.blob(t, config)
	i.blob(t, layer)
	manifest := fmt.Sprintf(`{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json","artifactType":"application/vnd.example","config":%s,"layers":[%s]}`,
		descriptor("application/vnd.oci.empty.v1+json", config), descriptor("application/octet-stream", layer))
	if _, err := i.target.PutManifest(ctx, []byte(manifest), ""); err != nil {
		t.Fatal(err)
	}
	index := fmt.Sprintf(`{"schemaVersion":2,"mediaType":"application/vnd.oci.image.index.v1+json","manifests":[%s]}`,
		descriptor("application/vnd.oci.image.manifest.v1+json", []byte(manifest)))
	d, err := i.target.PutManifest(ctx, []byte(index), "1.4.0")
	if err != nil {
		t.Fatal(err)
	}
	i.subject = signing.Descriptor{MediaType: d.MediaType, Digest: d.Digest, Size: d.Size}
	return i
}

func digest(data []byte) string {
	sum := sha256.Sum256(data)
	return "sha256:" + hex.EncodeToString(sum[:])
}

func descriptor(mediaType string, data []byte) string {
	return fmt.Sprintf(`{"mediaType":%q,"digest":%q,"size":%d}`, mediaType, digest(data), len(data))
}

func (i *image) blob(t *testing.T, data []byte) {
	t.Helper()
	d := registry.Descriptor{Digest: digest(data), Size: int64(len(data))}
	err := i.target.CopyBlob(context.Background(), d, func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(data)), nil })
	if err != nil {
		t.Fatal(err)
	}
}

func (i *image) put(t *testing.T, m *signing.Manifest) {
	t.Helper()
	for _, b := range m.Blobs {
		i.blob(t, b.Data)
	}
	if _, err := i.target.PutManifest(context.Background(), m.Data, m.Tag); err != nil {
		t.Fatal(err)
	}
	if m.Tag != "" {
		return
	}
	d := registry.Descriptor{
		MediaType: m.Descriptor.MediaType, ArtifactType: m.Descriptor.ArtifactType,
		Digest: m.Descriptor.Digest, Size: m.Descriptor.Size, Annotations: m.Descriptor.Annotations,
	}
	if err := i.target.AddReferrers(context.Background(), i.subject.Digest, []registry.Descriptor{d}); err != nil {
		t.Fatal(err)
	}
}

// attach signs a statement and attaches it.
func (i *image) attach(t *testing.T, k *signing.Key, s *signing.Statement, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
	b, err := signing.SignBundle(context.Background(), k, s)
	if err != nil {
		t.Fatal(err)
	}
	m, err := signing.Referrer(b, i.subject, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	i.put(t, m)
}

func (i *image) classic(t *testing.T, k *signing.Key) {
	t.Helper()
	c, err := signing.SignClassic(context.Background(), k, signing.ClassicPayload{Reference: i.repo, Digest: i.subject.Digest})
	if err != nil {
		t.Fatal(err)
	}
	m, err := signing.AddClassic(nil, i.subject.Digest, c)
	if err != nil {
		t.Fatal(err)
	}
	i.put(t, m)
}

// signAll attaches everything that sign attaches.
func (i *image) signAll(t *testing.T, k *signing.Key) {
	t.Helper()
	s, err := signing.NewSignature(i.subject.Digest)
	i.attach(t, k, s, err)
	s, err = i.release().Statement(i.subject.Digest)
	i.attach(t, k, s, err)
	for predicateType, predicate := range map[string]string{
		signing.PredicateProvenance: `{"buildDefinition":{"buildType":"https://example.com/build","externalParameters":{}},"runDetails":{"builder":{"id":"https://example.com/builder"}}}`,
		signing.PredicateSPDX:       `{"spdxVersion":"SPDX-2.3","SPDXID":"SPDXRef-DOCUMENT","name":"web"}`,
		signing.PredicateCycloneDX:  `{"bomFormat":"CycloneDX","specVersion":"1.6"}`,
	} {
		s, err = signing.NewStatement(i.subject.Digest, predicateType, json.RawMessage(predicate))
		i.attach(t, k, s, err)
	}
	i.classic(t, k)
}

func (i *image) release() signing.Release {
	return signing.Release{
		Name: "web", Version: "1.4.0", Channel: "stable", Epoch: 1,
		Issued: time.Now(), Expires: time.Now().Add(24 * time.Hour),
	}
}

// TestSigstoreGo lets sigstore-go verify our bundles, without any network.
func TestSigstoreGo(t *testing.T) {
	for name, private := range keys(t) {
		t.Run(name, func(t *testing.T) {
			k := parse(t, private)
			subject := sha256.Sum256([]byte("web"))
			s, err := signing.NewSignature("sha256:" + hex.EncodeToString(subject[:]))
			if err != nil {
				t.Fatal(err)
			}
			data, err := signing.SignBundle(context.Background(), k, s)
			if err != nil {
				t.Fatal(err)
			}
			if err := sigstoreGo(t, data, k.Public().PEM(), subject[:]); err != nil {
				t.Error(err)
			}
			other := sha256.Sum256([]byte("db"))
			if sigstoreGo(t, data, k.Public().PEM(), other[:]) == nil {
				t.Error("verifies about another digest")
			}
			for another, private := range keys(t) {
				if another == name && sigstoreGo(t, data, parse(t, private).Public().PEM(), subject[:]) == nil {
					t.Error("verifies with another key")
				}
			}
		})
	}
}

func sigstoreGo(t *testing.T, data, public, digest []byte) error {
	t.Helper()
	var b bundle.Bundle
	if err := b.UnmarshalJSON(data); err != nil {
		return err
	}
	key, err := cryptoutils.UnmarshalPEMToPublicKey(public)
	if err != nil {
		t.Fatal(err)
	}
	verifier, err := signature.LoadVerifier(key, crypto.SHA256)
	if err != nil {
		t.Fatal(err)
	}
	material := root.NewTrustedPublicKeyMaterial(func(string) (root.TimeConstrainedVerifier, error) {
		return root.NewExpiringKey(verifier, time.Time{}, time.Time{}), nil
	})
	v, err := verify.NewVerifier(material, verify.WithNoObserverTimestamps())
	if err != nil {
		t.Fatal(err)
	}
	_, err = v.Verify(&b, verify.NewPolicy(verify.WithArtifactDigest("sha256", digest), verify.WithKey()))
	return err
}
