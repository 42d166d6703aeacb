package registry

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
)

// maxTagged bounds the signatures or attestations under one of cosign's tags.
const maxTagged = 256

// mergeTagged makes the manifest for one of cosign's tags that has the layers of the manifest that has
// the tag now, nil if none has, and ours. It is one of the two, byte for byte, if that has everything;
// otherwise its config is stored in the place.
func mergeTagged(ctx context.Context, to Sink, present, ours []byte) ([]byte, error) {
	if present == nil || bytes.Equal(present, ours) {
		return ours, nil
	}
	a, err := taggedLayers(present)
	if err != nil {
		return nil, fmt.Errorf("what is there: %w", err)
	}
	b, err := taggedLayers(ours)
	if err != nil {
		return nil, err
	}
	all := union(a, b)
	switch {
	case len(all) == len(a):
		return present, nil
	case len(union(b, a)) == len(b):
		return ours, nil
	case len(all) > maxTagged:
		return nil, fmt.Errorf("more than %d signatures", maxTagged)
	}
	config, err := taggedConfig(all)
	if err != nil {
		return nil, err
	}
	d := Descriptor{MediaType: typeConfig, Digest: Digest(config), Size: int64(len(config))}
	if has, err := to.Has(ctx, d); err != nil {
		return nil, err
	} else if !has {
		err := to.CopyBlob(ctx, d, func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(config)), nil })
		if err != nil {
			return nil, err
		}
	}
	return json.Marshal(manifest{SchemaVersion: 2, MediaType: typeManifest, Config: &d, Layers: all})
}

// taggedLayers returns the layers of a manifest of which nothing else matters.
func taggedLayers(data []byte) ([]Descriptor, error) {
	m, err := parseManifest(data)
	if err != nil {
		return nil, err
	}
	if !isManifest(m.MediaType) || m.Subject != nil {
		return nil, errors.New("is not one of cosign's, so that nothing can be added to it")
	}
	return m.Layers, nil
}

// union returns a, and what of b is not in it. The same payload with another signature is another
// layer.
func union(a, b []Descriptor) []Descriptor {
	all := slices.Clone(a)
	for _, d := range b {
		if !slices.ContainsFunc(all, func(have Descriptor) bool {
			return have.Digest == d.Digest && maps.Equal(have.Annotations, d.Annotations)
		}) {
			all = append(all, d)
		}
	}
	return all
}

// taggedConfig is the config that cosign writes, as clients that take its manifests for images want it.
func taggedConfig(layers []Descriptor) ([]byte, error) {
	type history struct {
		Created string `json:"created"`
	}
	const never = "0001-01-01T00:00:00Z"
	var c struct {
		Architecture string    `json:"architecture"`
		Created      string    `json:"created"`
		History      []history `json:"history"`
		OS           string    `json:"os"`
		RootFS       struct {
			Type    string   `json:"type"`
			DiffIDs []string `json:"diff_ids"`
		} `json:"rootfs"`
		Config struct{} `json:"config"`
	}
	c.Created, c.RootFS.Type = never, "layers"
	for _, d := range layers {
		c.History = append(c.History, history{never})
		c.RootFS.DiffIDs = append(c.RootFS.DiffIDs, d.Digest)
	}
	return json.Marshal(c)
}
