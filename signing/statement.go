package signing

import (
	"encoding/json"
	"errors"
	"fmt"
	"regexp"
)

// Types of an in-toto statement. cosign attest still writes the older one, whose members are the
// same; what decides over a release has the newer one.
const (
	TypeStatement    = "https://in-toto.io/Statement/v1"
	typeStatementV01 = "https://in-toto.io/Statement/v0.1"
)

// Types of predicates. The unversioned SPDX type is the one that cosign's --type spdxjson means.
const (
	PredicateRelease    = "https://github.com/goldenisc/packer-plugin-isc/release/v1"
	PredicateRevocation = "https://github.com/goldenisc/packer-plugin-isc/revocation/v1"
	PredicateSignature  = "https://sigstore.dev/cosign/sign/v1"
	PredicateProvenance = "https://slsa.dev/provenance/v1"
	PredicateSPDX       = "https://spdx.dev/Document"
	PredicateCycloneDX  = "https://cyclonedx.org/bom"
)

// limitOf returns the largest bundle of a predicate type, in bytes.
func limitOf(predicateType string) int {
	switch predicateType {
	case PredicateRelease, PredicateRevocation, PredicateSignature:
		return MaxBundle
	}
	return MaxAttestation
}

// A Statement is an in-toto statement (in-toto/attestation, spec/v1/statement.md): what is said of
// a subject that a digest names.
type Statement struct {
	Type          string          `json:"_type"`
	Subject       []Subject       `json:"subject"`
	PredicateType string          `json:"predicateType"`
	Predicate     json.RawMessage `json:"predicate"` // never absent: some readers want at least {}
}

// A Subject is what a statement is about (resource_descriptor.md). Only the digest counts.
type Subject struct {
	Name   string            `json:"name,omitempty"`
	Digest map[string]string `json:"digest"` // hexadecimal, by algorithm: "sha256"

	URI              string          `json:"uri,omitempty"`
	MediaType        string          `json:"mediaType,omitempty"`
	DownloadLocation string          `json:"downloadLocation,omitempty"`
	Content          string          `json:"content,omitempty"`
	Annotations      json.RawMessage `json:"annotations,omitempty"`
}

var statementSchema = newSchema(`_type subject predicateType predicate*
	name digest uri mediaType downloadLocation content annotations*`)

var digestForm = regexp.MustCompile(`^sha256:[0-9a-f]{64}$`)

func checkDigest(digest string) error {
	if !digestForm.MatchString(digest) {
		return fmt.Errorf("digest %q: want sha256: and 64 hexadecimal digits", digest)
	}
	return nil
}

// NewStatement says something of the manifest or index with this digest ("sha256:…"). The
// predicate is taken as it is, without what JSON calls insignificant.
func NewStatement(digest, predicateType string, predicate json.RawMessage) (*Statement, error) {
	if err := checkDigest(digest); err != nil {
		return nil, fmt.Errorf("statement: %w", err)
	}
	if predicateType == "" {
		return nil, errors.New("statement: no predicate type")
	}
	if !json.Valid(predicate) {
		return nil, fmt.Errorf("statement: the predicate %s is not a JSON document", predicateType)
	}
	return &Statement{
		Type:          TypeStatement,
		Subject:       []Subject{{Digest: map[string]string{"sha256": digest[len("sha256:"):]}}},
		PredicateType: predicateType,
		Predicate:     predicate,
	}, nil
}

// NewSignature says that the digest is signed, and nothing else: what cosign sign says in a bundle.
func NewSignature(digest string) (*Statement, error) {
	return NewStatement(digest, PredicateSignature, json.RawMessage("{}"))
}

// Marshal encodes the statement. The bytes depend on its values only.
func (s *Statement) Marshal() ([]byte, error) {
	data, err := json.Marshal(s)
	if err != nil {
		return nil, fmt.Errorf("statement: %w", err)
	}
	return data, nil
}

// ParseStatement decodes a statement strictly. The predicate is left to its own parser.
func ParseStatement(data []byte) (*Statement, error) {
	s := new(Statement)
	if err := parseStatement(data, s); err != nil {
		return nil, fmt.Errorf("statement: %w", err)
	}
	return s, nil
}

func parseStatement(data []byte, s *Statement) error {
	if len(data) > MaxAttestation {
		return fmt.Errorf("%d bytes are more than %d", len(data), MaxAttestation)
	}
	if err := statementSchema.decode(data, s); err != nil {
		return err
	}
	switch {
	case s.Type != TypeStatement && s.Type != typeStatementV01:
		return fmt.Errorf("type %q: want %q", s.Type, TypeStatement)
	case len(s.Subject) == 0:
		return errors.New("no subject")
	case s.PredicateType == "":
		return errors.New("no predicate type")
	case s.Predicate == nil:
		return errors.New("no predicate")
	}
	for i, sub := range s.Subject {
		if len(sub.Digest) == 0 {
			return fmt.Errorf("subject %d has no digest", i)
		}
	}
	return nil
}

// About says whether the digest ("sha256:…") is a subject of the statement.
func (s *Statement) About(digest string) bool {
	for _, sub := range s.Subject {
		if hex, ok := sub.Digest["sha256"]; ok && "sha256:"+hex == digest {
			return true
		}
	}
	return false
}
