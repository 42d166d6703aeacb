package registry

import (
	"encoding/json"
	"errors"
	"fmt"
)

// A manifest is an image manifest or an image index (manifest.md, image-index.md), OCI's or Docker's.
type manifest struct {
	SchemaVersion int               `json:"schemaVersion"`
	MediaType     string            `json:"mediaType"`
	ArtifactType  string            `json:"artifactType,omitempty"`
	Config        *Descriptor       `json:"config,omitempty"`
	Layers        []Descriptor      `json:"layers,omitempty"`
	Manifests     []Descriptor      `json:"manifests,omitempty"`
	Subject       *Descriptor       `json:"subject,omitempty"`
	Annotations   map[string]string `json:"annotations,omitempty"`
}

// An index is an image index as it is written.
type index struct {
	SchemaVersion int               `json:"schemaVersion"`
	MediaType     string            `json:"mediaType"`
	ArtifactType  string            `json:"artifactType,omitempty"`
	Manifests     []Descriptor      `json:"manifests"` // required, if empty
	Annotations   map[string]string `json:"annotations,omitempty"`
}

// parseManifest decodes a manifest or index and fills in its media type if it has none itself.
// Members that it does not know are ignored, as the specification demands.
func parseManifest(data []byte) (*manifest, error) {
	if len(data) > maxManifest {
		return nil, fmt.Errorf("%d bytes are more than the %d of a manifest", len(data), maxManifest)
	}
	if err := unambiguous(data); err != nil {
		return nil, err
	}
	var present struct{ Manifests, Layers, Config json.RawMessage }
	m := new(manifest)
	if err := json.Unmarshal(data, &present); err != nil {
		return nil, err
	}
	if err := json.Unmarshal(data, m); err != nil {
		return nil, err
	}
	index := present.Manifests != nil
	switch {
	case m.SchemaVersion != 2:
		return nil, fmt.Errorf("schema version %d: this program knows 2", m.SchemaVersion)
	case index && (present.Layers != nil || present.Config != nil):
		return nil, errors.New("both an index and a manifest (CVE-2021-41190)")
	case m.MediaType == "" && index:
		m.MediaType = typeIndex
	case m.MediaType == "" && m.Config != nil:
		m.MediaType = typeManifest
	case index != isIndex(m.MediaType), !index && !isManifest(m.MediaType), !index && m.Config == nil:
		return nil, fmt.Errorf("media type %q does not fit its members", m.MediaType)
	}
	if len(m.Manifests) > maxManifests || len(m.Layers) > maxLayers {
		return nil, fmt.Errorf("%d manifests, %d layers: at most %d are read", len(m.Manifests), len(m.Layers), maxManifests)
	}
	for _, d := range append(m.blobs(), m.Manifests...) {
		if err := d.check(); err != nil {
			return nil, err
		}
	}
	if m.Subject != nil {
		if err := m.Subject.check(); err != nil {
			return nil, fmt.Errorf("subject: %w", err)
		}
	}
	return m, nil
}

// blobs returns the config and the layers.
func (m *manifest) blobs() []Descriptor {
	var all []Descriptor
	if m.Config != nil {
		all = append(all, *m.Config)
	}
	return append(all, m.Layers...)
}

// describe returns the descriptor of a manifest or index.
func describe(data []byte) (Descriptor, error) {
	m, err := parseManifest(data)
	if err != nil {
		return Descriptor{}, fmt.Errorf("manifest %s: %w", Digest(data), err)
	}
	return Descriptor{MediaType: m.MediaType, ArtifactType: m.ArtifactType, Digest: Digest(data), Size: int64(len(data))}, nil
}
