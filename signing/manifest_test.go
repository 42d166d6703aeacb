package signing

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"testing"
)

func TestReferrer(t *testing.T) {
	digest := digestOf("web")
	b := bundle(t, key(t, "one"), statement(t, aRelease(), digest))
	subject := Descriptor{
		MediaType: "application/vnd.oci.image.index.v1+json", Digest: digest, Size: 1234,
		Annotations: map[string]string{"of": "the subject"},
	}
	m, err := Referrer(b, subject, now)
	if err != nil {
		t.Fatal(err)
	}
	again, err := Referrer(b, subject, now)
	if err != nil || !bytes.Equal(m.Data, again.Data) {
		t.Errorf("made twice, the manifests differ (%v)", err)
	}
	if bytes.Contains(m.Data, []byte("of the subject")) {
		t.Error("the subject's annotations are in it")
	}
	if m.Tag != "" || m.Descriptor.ArtifactType != TypeBundle || m.Descriptor.Annotations[annotationPredicate] != PredicateRelease {
		t.Errorf("descriptor %+v", m.Descriptor)
	}
	if want := describe(typeManifest, m.Data); m.Descriptor.Digest != want.Digest || m.Descriptor.Size != want.Size {
		t.Errorf("descriptor %+v, want %+v", m.Descriptor, want)
	}
	layer, ok := BundleLayer(m.Data)
	if !ok || layer.Digest != describe(TypeBundle, b).Digest || layer.Size != int64(len(b)) {
		t.Errorf("layer %+v, %v", layer, ok)
	}
	for _, blob := range m.Blobs {
		if want := describe(blob.Descriptor.MediaType, blob.Data); blob.Descriptor.Digest != want.Digest || blob.Descriptor.Size != want.Size {
			t.Errorf("blob %+v, want %+v", blob.Descriptor, want)
		}
	}

	if !Decides(m.Descriptor.Annotations) || !Decides(nil) || Decides(map[string]string{annotationPredicate: PredicateSPDX}) {
		t.Error("a release does not decide, or an SBOM does")
	}

	_, err = Referrer(b, Descriptor{Digest: digestOf("db")}, now)
	wantError(t, err, "the bundle is not about")
	_, err = Referrer([]byte("{}"), subject, now)
	wantError(t, err, "media type")
	for _, other := range []string{"", "null", "[]", `{"layers":[]}`, `{"layers":[{"mediaType":"text/plain"}]}`} {
		if _, ok := BundleLayer([]byte(other)); ok {
			t.Errorf("%s has a bundle", other)
		}
	}
}

func TestAddClassic(t *testing.T) {
	digest := digestOf("web")
	sign := func(name string) *Classic {
		c, err := SignClassic(context.Background(), key(t, name), ClassicPayload{Reference: "registry.example/isc/web", Digest: digest})
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	var present []byte
	for i := range 3 {
		m, err := AddClassic(present, digest, sign(fmt.Sprint(i)))
		if err != nil {
			t.Fatal(err)
		}
		layers, err := ClassicLayers(m.Data)
		if err != nil {
			t.Fatal(err)
		}
		if len(layers) != i+1 || SignatureOf(layers[i]) != sign(fmt.Sprint(i)).encoded() {
			t.Errorf("layers %+v", layers)
		}
		if m.Tag != "sha256-"+digest[len("sha256:"):]+".sig" {
			t.Errorf("tag %q", m.Tag)
		}
		var config struct {
			RootFS struct {
				DiffIDs []string `json:"diff_ids"`
			} `json:"rootfs"`
		}
		if err := json.Unmarshal(m.Blobs[0].Data, &config); err != nil || len(config.RootFS.DiffIDs) != i+1 {
			t.Errorf("config %s, %v", m.Blobs[0].Data, err)
		}
		present = m.Data
		same, err := AddClassic(present, digest, sign("0"))
		if err != nil || !bytes.Equal(same.Data, present) || len(same.Blobs) != 0 {
			t.Errorf("what is there was added again (%v)", err)
		}
	}

	for _, bad := range []struct{ manifest, want string }{
		{`[`, "unexpected"},
		{`{"layers":[{"mediaType":"text/plain","size":1}]}`, "layer 0 is of type"},
		{`{"layers":[{"mediaType":"` + TypeSimpleSigning + `","size":65537}]}`, "more than 65536"},
		{`{"layers":[{"mediaType":"` + TypeSimpleSigning + `","size":-1}]}`, "more than 65536"},
		{`{"layers":[{"mediaType":"` + TypeSimpleSigning + `","size":1,"digest":"../x"}]}`, `digest "../x"`},
	} {
		_, err := AddClassic([]byte(bad.manifest), digest, sign("one"))
		wantError(t, err, bad.want)
	}
	var many manifestJSON
	for i := range maxClassicLayers + 1 {
		many.Layers = append(many.Layers, Descriptor{MediaType: TypeSimpleSigning, Digest: digestOf(fmt.Sprint(i)), Size: 1})
	}
	data, err := json.Marshal(many)
	if err != nil {
		t.Fatal(err)
	}
	_, err = ClassicLayers(data)
	wantError(t, err, "more than 256")
	many.Layers = many.Layers[1:]
	if data, err = json.Marshal(many); err != nil {
		t.Fatal(err)
	}
	_, err = AddClassic(data, digest, sign("one"))
	wantError(t, err, "more than 256")
}
