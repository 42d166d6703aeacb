package registry

import (
	"context"
	"fmt"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/goldenisc/packer-plugin-isc/signing"
)

// TestAttach attaches and reads back, twice with the same result, in both kinds of place.
func TestAttach(t *testing.T) {
	t.Parallel()
	h := Handler(t.TempDir())
	s := httptest.NewServer(h)
	t.Cleanup(func() {
		s.Close()
		h.Close()
	})
	for _, name := range []string{"oci:" + filepath.Join(t.TempDir(), "out") + ":web", strings.TrimPrefix(s.URL, "http://") + "/isc/web:1"} {
		ctx := context.Background()
		ref, err := Parse(name)
		if err != nil {
			t.Fatal(err)
		}
		to, err := OpenTarget(ctx, ref, Options{})
		if err != nil {
			t.Fatal(err)
		}
		root, err := to.PutManifest(ctx, []byte(`{"schemaVersion":2,"mediaType":"application/vnd.oci.image.index.v1+json","manifests":[]}`), ref.Tag)
		if err != nil {
			t.Fatal(err)
		}
		if list, err := Statements(ctx, to, root.Digest); err != nil || len(list) != 0 {
			t.Errorf("%s: before: %d statements, %v", ref.Place, len(list), err)
		}
		private, public, err := signing.Generate(func(bool) ([]byte, error) { return nil, nil })
		if err != nil {
			t.Fatal(err)
		}
		key, err := signing.ParseKey(private, func(bool) ([]byte, error) { return nil, nil })
		if err != nil {
			t.Fatal(err)
		}
		now := time.Date(2026, 11, 25, 0, 0, 0, 0, time.UTC)
		var manifests []*signing.Manifest
		for epoch := range int64(3) {
			st, err := signing.Release{Name: "web", Version: fmt.Sprint(epoch), Channel: "stable", Epoch: epoch + 1, Issued: now, Expires: now.Add(time.Hour)}.Statement(root.Digest)
			if err != nil {
				t.Fatal(err)
			}
			b, err := signing.SignBundle(ctx, key, st)
			if err != nil {
				t.Fatal(err)
			}
			m, err := signing.Referrer(b, signing.Descriptor{MediaType: root.MediaType, Digest: root.Digest, Size: root.Size}, now)
			if err != nil {
				t.Fatal(err)
			}
			manifests = append(manifests, m)
		}
		classic, err := signing.SignClassic(ctx, key, signing.ClassicPayload{Reference: "registry.example/isc/web", Digest: root.Digest})
		if err != nil {
			t.Fatal(err)
		}
		for range 2 {
			if err := Attach(ctx, to, root.Digest, manifests, classic); err != nil {
				t.Fatalf("%s: %v", ref.Place, err)
			}
			list, err := Statements(ctx, to, root.Digest)
			if err != nil || len(list) != 4 {
				t.Errorf("%s: %d statements, want 4: %v", ref.Place, len(list), err)
			}
			pub, err := signing.ParsePublicKey(public)
			if err != nil {
				t.Fatal(err)
			}
			if r := signing.Releases(root.Digest, list, pub); len(r) != 3 || r[0].Epoch != 3 {
				t.Errorf("%s: releases %+v", ref.Place, r)
			}
		}
		// What was attached is found without the tag of the image.
		if _, err := to.PutManifest(ctx, []byte(`{"schemaVersion":2,"mediaType":"application/vnd.oci.image.index.v1+json","manifests":[],"annotations":{"a":"b"}}`), ref.Tag); err != nil {
			t.Fatal(err)
		}
		subjects, err := Subjects(ctx, to)
		if err != nil || !strings.Contains(strings.Join(subjects, " "), root.Digest) {
			t.Errorf("%s: subjects %q, %v", ref.Place, subjects, err)
		}
		if err := to.Close(); err != nil {
			t.Error(err)
		}
	}
}
