package signing

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/secure-systems-lab/go-securesystemslib/dsse"
)

// Media types of a bundle and of what is signed in it.
const (
	TypeBundle  = "application/vnd.dev.sigstore.bundle.v0.3+json"
	TypePayload = "application/vnd.in-toto+json"
)

// Sizes of bundles, in bytes. What decides over a release ([PredicateRelease],
// [PredicateRevocation], [PredicateSignature]) is never larger than MaxBundle; an attestation, such
// as an SBOM, never larger than MaxAttestation. Who only verifies need not fetch larger ones.
const (
	MaxBundle      = 1 << 20
	MaxAttestation = 16 << 20
)

// A Bundle is a Sigstore bundle v0.3 with a statement in a DSSE envelope, signed with a key.
// Certificates are not taken; entries of transparency logs and timestamps are neither checked nor
// relied on.
type Bundle struct {
	Hint      string // identity that the signer claims for the key, unsigned
	Payload   []byte // of type TypePayload
	Signature []byte
}

// The JSON mapping of dev.sigstore.bundle.v1.Bundle and io.intoto.Envelope. Both writers and
// readers of protobuf's JSON agree on these names.
type bundleJSON struct {
	MediaType            string       `json:"mediaType"`
	VerificationMaterial materialJSON `json:"verificationMaterial"`
	DSSEEnvelope         *envelope    `json:"dsseEnvelope,omitempty"`

	MessageSignature json.RawMessage `json:"messageSignature,omitempty"`
}

type materialJSON struct {
	PublicKey *publicKeyJSON `json:"publicKey,omitempty"`

	Certificate               json.RawMessage `json:"certificate,omitempty"`
	X509CertificateChain      json.RawMessage `json:"x509CertificateChain,omitempty"`
	TlogEntries               json.RawMessage `json:"tlogEntries,omitempty"`
	TimestampVerificationData json.RawMessage `json:"timestampVerificationData,omitempty"`
}

type publicKeyJSON struct {
	Hint string `json:"hint,omitempty"`
}

type envelope struct {
	Payload     string          `json:"payload"`
	PayloadType string          `json:"payloadType"`
	Signatures  []signatureJSON `json:"signatures"`
}

type signatureJSON struct {
	Sig   string `json:"sig"`
	KeyID string `json:"keyid,omitempty"`
}

var bundleSchema = newSchema(`mediaType verificationMaterial publicKey hint
	certificate* x509CertificateChain* tlogEntries* timestampVerificationData* messageSignature*
	dsseEnvelope payload payloadType signatures sig keyid`)

// SignBundle signs a statement. The bytes depend on statement and key only, unless the key is a
// plugin's.
func SignBundle(ctx context.Context, k *Key, s *Statement) ([]byte, error) {
	payload, err := s.Marshal()
	if err != nil {
		return nil, err
	}
	sig, err := k.Sign(ctx, dsse.PAE(TypePayload, payload))
	if err != nil {
		return nil, err
	}
	b := Bundle{Hint: k.public.id, Payload: payload, Signature: sig}
	data, err := b.Marshal()
	if err != nil {
		return nil, err
	}
	if limit := limitOf(s.PredicateType); len(data) > limit {
		return nil, fmt.Errorf("bundle of %s: %d bytes are more than %d", s.PredicateType, len(data), limit)
	}
	return data, nil
}

// Marshal encodes the bundle.
func (b *Bundle) Marshal() ([]byte, error) {
	return json.Marshal(bundleJSON{
		MediaType:            TypeBundle,
		VerificationMaterial: materialJSON{PublicKey: &publicKeyJSON{Hint: b.Hint}},
		DSSEEnvelope:         b.envelope(),
	})
}

// Envelope encodes the DSSE envelope alone, for readers that know no bundles.
func (b *Bundle) Envelope() ([]byte, error) {
	return json.Marshal(b.envelope())
}

func (b *Bundle) envelope() *envelope {
	return &envelope{
		Payload:     base64.StdEncoding.EncodeToString(b.Payload),
		PayloadType: TypePayload,
		Signatures:  []signatureJSON{{Sig: base64.StdEncoding.EncodeToString(b.Signature)}},
	}
}

// ParseBundle decodes a bundle strictly: one version, one signature, known members once each,
// canonical base64, nothing behind it. Nothing in it is verified by that, and nothing is ever
// decompressed.
func ParseBundle(data []byte) (*Bundle, error) {
	b, err := parseBundle(data)
	if err != nil {
		return nil, fmt.Errorf("bundle: %w", err)
	}
	return b, nil
}

func parseBundle(data []byte) (*Bundle, error) {
	if len(data) > MaxAttestation {
		return nil, fmt.Errorf("%d bytes are more than %d", len(data), MaxAttestation)
	}
	var doc bundleJSON
	if err := bundleSchema.decode(data, &doc); err != nil {
		return nil, err
	}
	material, e := doc.VerificationMaterial, doc.DSSEEnvelope
	switch {
	case doc.MediaType != TypeBundle:
		return nil, fmt.Errorf("media type %q: want %q", doc.MediaType, TypeBundle)
	case material.Certificate != nil || material.X509CertificateChain != nil:
		return nil, errors.New("signed with a certificate, not with a key")
	case material.PublicKey == nil:
		return nil, errors.New("no public key named in it")
	case doc.MessageSignature != nil:
		return nil, errors.New("signs a message, not a statement")
	case e == nil:
		return nil, errors.New("no DSSE envelope in it")
	case e.PayloadType != TypePayload:
		return nil, fmt.Errorf("payload of type %q: want %q", e.PayloadType, TypePayload)
	case len(e.Signatures) != 1:
		return nil, fmt.Errorf("%d signatures: want one", len(e.Signatures))
	}
	b := &Bundle{Hint: material.PublicKey.Hint}
	var err error
	if b.Payload, err = decodeBase64(e.Payload); err != nil {
		return nil, fmt.Errorf("payload: %w", err)
	}
	if b.Signature, err = decodeBase64(e.Signatures[0].Sig); err != nil {
		return nil, fmt.Errorf("signature: %w", err)
	}
	return b, nil
}

// decodeBase64 takes the one encoding of some bytes that base64 calls canonical (RFC 4648,
// section 3.5), and no line breaks.
func decodeBase64(s string) ([]byte, error) {
	b, err := base64.StdEncoding.Strict().DecodeString(s)
	if err != nil {
		return nil, err
	}
	if len(b) == 0 || base64.StdEncoding.EncodedLen(len(b)) != len(s) {
		return nil, errors.New("not canonical base64, or empty")
	}
	return b, nil
}

// Verify checks the signature of the bundle against a key. The hint is not looked at.
func (b *Bundle) Verify(k *PublicKey) error {
	return k.Verify(dsse.PAE(TypePayload, b.Payload), b.Signature)
}
