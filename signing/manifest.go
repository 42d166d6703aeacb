package signing

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"
)

// Media types and annotations of the manifests that carry signatures.
const (
	typeManifest = "application/vnd.oci.image.manifest.v1+json"
	typeConfig   = "application/vnd.oci.image.config.v1+json"
	typeEmpty    = "application/vnd.oci.empty.v1+json"

	annotationContent   = "dev.sigstore.bundle.content"
	annotationPredicate = "dev.sigstore.bundle.predicateType"
	annotationCreated   = "org.opencontainers.image.created"
	annotationSignature = "dev.cosignproject.cosign/signature"
)

// maxClassicLayers bounds the signatures under one .sig tag: anybody who may push may add some.
const maxClassicLayers = 256

// A Descriptor names a blob or manifest (OCI descriptor.md).
type Descriptor struct {
	MediaType    string            `json:"mediaType"`
	ArtifactType string            `json:"artifactType,omitempty"`
	Digest       string            `json:"digest"` // sha256:…
	Size         int64             `json:"size"`   // bytes
	Annotations  map[string]string `json:"annotations,omitempty"`
}

func describe(mediaType string, data []byte) Descriptor {
	sum := sha256.Sum256(data)
	return Descriptor{MediaType: mediaType, Digest: "sha256:" + hex.EncodeToString(sum[:]), Size: int64(len(data))}
}

// A Manifest is ready to be stored: first the blobs, by their digest, then the manifest.
type Manifest struct {
	Data []byte
	// Descriptor is that of Data. Its artifact type and annotations are those of the manifest: in
	// the list of referrers they help others to find it.
	Descriptor Descriptor
	Blobs      []Blob
	Tag        string // to store the manifest under; if empty, by digest only, as a referrer
}

// A Blob is a config or layer.
type Blob struct {
	Descriptor Descriptor
	Data       []byte
}

type manifestJSON struct {
	SchemaVersion int               `json:"schemaVersion"`
	MediaType     string            `json:"mediaType"`
	ArtifactType  string            `json:"artifactType,omitempty"`
	Config        Descriptor        `json:"config"`
	Layers        []Descriptor      `json:"layers"`
	Subject       *Descriptor       `json:"subject,omitempty"`
	Annotations   map[string]string `json:"annotations,omitempty"`
}

// Referrer makes the manifest that attaches a bundle of [SignBundle] to its subject, as cosign
// writes it. created is the time in its annotation; with the same time the same bundle is the same
// manifest.
func Referrer(bundle []byte, subject Descriptor, created time.Time) (*Manifest, error) {
	b, err := ParseBundle(bundle)
	if err != nil {
		return nil, err
	}
	s, err := ParseStatement(b.Payload)
	if err != nil {
		return nil, err
	}
	if !s.About(subject.Digest) {
		return nil, fmt.Errorf("referrer: the bundle is not about %q", subject.Digest)
	}
	empty := Blob{Descriptor: describe(typeEmpty, []byte("{}")), Data: []byte("{}")}
	layer := Blob{Descriptor: describe(TypeBundle, bundle), Data: bundle}
	m := manifestJSON{
		SchemaVersion: 2, MediaType: typeManifest, ArtifactType: TypeBundle,
		Config: empty.Descriptor,
		Layers: []Descriptor{layer.Descriptor},
		Subject: &Descriptor{
			MediaType: subject.MediaType, Digest: subject.Digest, Size: subject.Size,
		},
		Annotations: map[string]string{
			annotationContent:   "dsse-envelope",
			annotationPredicate: s.PredicateType,
			annotationCreated:   seconds(created).Format(time.RFC3339),
		},
	}
	return m.marshal("", empty, layer)
}

func (m manifestJSON) marshal(tag string, blobs ...Blob) (*Manifest, error) {
	data, err := json.Marshal(m)
	if err != nil {
		return nil, err
	}
	d := describe(m.MediaType, data)
	d.ArtifactType, d.Annotations = m.ArtifactType, m.Annotations
	return &Manifest{Data: data, Descriptor: d, Blobs: blobs, Tag: tag}, nil
}

// ClassicTag returns the tag of the classic signatures of a digest ("sha256:…").
func ClassicTag(digest string) string { return strings.Replace(digest, ":", "-", 1) + ".sig" }

// AddClassic makes the manifest of the classic signatures of a digest: those of the manifest that
// has the tag now (nil if none has), and c. If c is there already the result is the old manifest,
// byte for byte, without blobs.
func AddClassic(present []byte, digest string, c *Classic) (*Manifest, error) {
	layer := Blob{Descriptor: describe(TypeSimpleSigning, c.Payload), Data: c.Payload}
	layer.Descriptor.Annotations = map[string]string{annotationSignature: c.encoded()}
	var layers []Descriptor
	if present != nil {
		var err error
		if layers, err = ClassicLayers(present); err != nil {
			return nil, err
		}
		if slices.ContainsFunc(layers, func(d Descriptor) bool {
			return d.Digest == layer.Descriptor.Digest && d.Annotations[annotationSignature] == c.encoded()
		}) {
			d := describe(typeManifest, present)
			return &Manifest{Data: present, Descriptor: d, Tag: ClassicTag(digest)}, nil
		}
	}
	if layers = append(layers, layer.Descriptor); len(layers) > maxClassicLayers {
		return nil, fmt.Errorf("classic signatures of %s: more than %d", digest, maxClassicLayers)
	}
	config, err := classicConfig(layers)
	if err != nil {
		return nil, err
	}
	m := manifestJSON{SchemaVersion: 2, MediaType: typeManifest, Config: config.Descriptor, Layers: layers}
	return m.marshal(ClassicTag(digest), config, layer)
}

// classicConfig makes the image config that cosign gives to signatures, without any time.
func classicConfig(layers []Descriptor) (Blob, error) {
	const never = "0001-01-01T00:00:00Z"
	type entry struct {
		Created string `json:"created"`
	}
	var c struct {
		Architecture string  `json:"architecture"`
		Created      string  `json:"created"`
		History      []entry `json:"history"`
		OS           string  `json:"os"`
		RootFS       struct {
			Type    string   `json:"type"`
			DiffIDs []string `json:"diff_ids"`
		} `json:"rootfs"`
		Config struct{} `json:"config"`
	}
	c.Created = never
	c.RootFS.Type = "layers"
	for _, l := range layers {
		c.History = append(c.History, entry{never})
		c.RootFS.DiffIDs = append(c.RootFS.DiffIDs, l.Digest)
	}
	data, err := json.Marshal(c)
	if err != nil {
		return Blob{}, err
	}
	return Blob{Descriptor: describe(typeConfig, data), Data: data}, nil
}

// ClassicLayers returns the layers of a manifest of classic signatures, each a payload whose
// signature is in [SignatureOf]. Layers of other types and too large ones are refused, as are more
// than 256.
func ClassicLayers(manifest []byte) ([]Descriptor, error) {
	var m manifestJSON
	d := json.NewDecoder(bytes.NewReader(manifest))
	if err := d.Decode(&m); err != nil {
		return nil, fmt.Errorf("manifest of classic signatures: %w", err)
	}
	if len(m.Layers) > maxClassicLayers {
		return nil, fmt.Errorf("manifest of classic signatures: more than %d", maxClassicLayers)
	}
	for i, l := range m.Layers {
		switch {
		case l.MediaType != TypeSimpleSigning:
			return nil, fmt.Errorf("manifest of classic signatures: layer %d is of type %q", i, l.MediaType)
		case l.Size < 0 || l.Size > MaxClassic:
			return nil, fmt.Errorf("manifest of classic signatures: layer %d has %d bytes, more than %d", i, l.Size, MaxClassic)
		}
		if err := checkDigest(l.Digest); err != nil {
			return nil, fmt.Errorf("manifest of classic signatures: layer %d: %w", i, err)
		}
	}
	return m.Layers, nil
}

// SignatureOf returns the signature, in base64, that a layer of [ClassicLayers] carries.
func SignatureOf(layer Descriptor) string { return layer.Annotations[annotationSignature] }

// ClaimedType returns the type of the predicate that a referrer has by its annotations, those of its
// manifest or of its entry in the list of referrers; empty if they do not say. They are not signed.
func ClaimedType(annotations map[string]string) string { return annotations[annotationPredicate] }

// Decides says whether a referrer with these annotations, those of its manifest or of its entry in
// the list of referrers, may decide over a release. Who only verifies need not fetch others: the
// annotations are not signed, but whoever can put a wrong one there can as well hide the referrer.
func Decides(annotations map[string]string) bool {
	t, ok := annotations[annotationPredicate]
	return !ok || limitOf(t) == MaxBundle
}

// BundleLayer returns the layer of a referrer's manifest that has its bundle, and false if the
// referrer is something else. What registries say of the manifest's type is not relied on.
func BundleLayer(manifest []byte) (Descriptor, bool) {
	var m manifestJSON
	if json.Unmarshal(manifest, &m) != nil || len(m.Layers) != 1 || m.Layers[0].MediaType != TypeBundle {
		return Descriptor{}, false
	}
	return m.Layers[0], true
}
