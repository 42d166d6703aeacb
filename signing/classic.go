package signing

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
)

// Media type and size of the payload of a classic signature.
const (
	TypeSimpleSigning = "application/vnd.dev.cosign.simplesigning.v1+json"
	MaxClassic        = 64 << 10 // bytes
)

// classicType is the only type of payload that cosign writes.
const classicType = "cosign container image signature"

// A Classic is a signature in the format of containers-signature(5) as cosign stores it under the
// tag sha256-….sig. It binds a digest and the name of a repository, nothing else.
type Classic struct {
	Payload   []byte
	Signature []byte
}

// A ClassicPayload is what a classic signature says.
type ClassicPayload struct {
	Reference string // identity that the signer claims: HOST/REPO, perhaps with a tag
	Digest    string // sha256:… of the manifest or index
}

type simpleSigning struct {
	Critical struct {
		Identity struct {
			Reference string `json:"docker-reference"`
		} `json:"identity"`
		Image struct {
			Digest string `json:"docker-manifest-digest"`
		} `json:"image"`
		Type string `json:"type"`
	} `json:"critical"`
	Optional json.RawMessage `json:"optional"` // what the signer adds; nothing relies on it
}

var classicSchema = newSchema(`critical identity docker-reference image docker-manifest-digest type optional*`)

// SignClassic signs a digest for a repository ("HOST/REPO"). The bytes depend on the arguments
// only, unless the key is a plugin's.
func SignClassic(ctx context.Context, k *Key, p ClassicPayload) (*Classic, error) {
	if err := checkDigest(p.Digest); err != nil {
		return nil, fmt.Errorf("classic signature: %w", err)
	}
	var doc simpleSigning
	doc.Critical.Identity.Reference = p.Reference
	doc.Critical.Image.Digest = p.Digest
	doc.Critical.Type = classicType
	payload, err := json.Marshal(doc)
	if err != nil {
		return nil, err
	}
	if len(payload) > MaxClassic {
		return nil, fmt.Errorf("classic signature: a payload of %d bytes is more than %d", len(payload), MaxClassic)
	}
	sig, err := k.Sign(ctx, payload)
	if err != nil {
		return nil, err
	}
	return &Classic{Payload: payload, Signature: sig}, nil
}

// ParseClassic pairs a payload with the signature of its layer's annotation, in base64. Of the
// payload only the size is looked at: see [Classic.Parse].
func ParseClassic(payload []byte, signature string) (*Classic, error) {
	if len(payload) > MaxClassic || len(signature) > MaxClassic {
		return nil, fmt.Errorf("classic signature: more than %d bytes", MaxClassic)
	}
	sig, err := decodeBase64(signature)
	if err != nil {
		return nil, fmt.Errorf("classic signature: %w", err)
	}
	return &Classic{Payload: payload, Signature: sig}, nil
}

// Verify checks the signature against a key.
func (c *Classic) Verify(k *PublicKey) error { return k.Verify(c.Payload, c.Signature) }

// Parse decodes the payload strictly. It may be believed only after [Classic.Verify].
func (c *Classic) Parse() (ClassicPayload, error) {
	p, err := parseClassic(c.Payload)
	if err != nil {
		return ClassicPayload{}, fmt.Errorf("simple signing payload: %w", err)
	}
	return p, nil
}

func parseClassic(data []byte) (ClassicPayload, error) {
	if len(data) > MaxClassic {
		return ClassicPayload{}, fmt.Errorf("%d bytes are more than %d", len(data), MaxClassic)
	}
	var doc simpleSigning
	if err := classicSchema.decode(data, &doc); err != nil {
		return ClassicPayload{}, err
	}
	p := ClassicPayload{Reference: doc.Critical.Identity.Reference, Digest: doc.Critical.Image.Digest}
	if doc.Critical.Type != classicType {
		return ClassicPayload{}, fmt.Errorf("type %q: want %q", doc.Critical.Type, classicType)
	}
	if p.Reference == "" {
		return ClassicPayload{}, errors.New("no identity in it")
	}
	return p, checkDigest(p.Digest)
}

// encoded returns the signature as the annotation has it.
func (c *Classic) encoded() string { return base64.StdEncoding.EncodeToString(c.Signature) }
