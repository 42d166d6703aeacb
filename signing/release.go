package signing

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"regexp"
	"strings"
	"time"
	"unicode"
)

// Limits of a release. Epochs stay below 2^53, so that every JSON reader gets them right.
const (
	MaxEpoch      = 1<<53 - 1
	maxArtifacts  = 4096
	maxIncrements = 4096
	maxReason     = 1024 // bytes
)

// A Release is the predicate of type [PredicateRelease]: the statement that makes an image, named
// by the digest of its index, a release of a channel. The newest one by epoch, then by the time of
// issue, replaces the others of the same name and channel about the same digest.
type Release struct {
	Name         string    `json:"name"`         // of the image
	Version      string    `json:"version"`      // of the image
	Channel      string    `json:"channel"`      // "stable"
	Epoch        int64     `json:"epoch"`        // from 1; hosts never go back in a channel
	Issued       time.Time `json:"issued"`       // UTC, whole seconds
	Expires      time.Time `json:"expires"`      // UTC, whole seconds; acquired before it, or not at all
	MinimumEpoch int64     `json:"minimumEpoch"` // what is below is withdrawn; at most Epoch, 0 for none

	Artifacts  []Artifact  `json:"artifacts"`
	Increments []Increment `json:"increments"`
}

// An Artifact is one blob of the released image.
type Artifact struct {
	Name               string `json:"name"`
	MediaType          string `json:"mediaType"`
	Digest             string `json:"digest"`                       // sha256:…
	Size               int64  `json:"size"`                         // bytes
	UncompressedDigest string `json:"uncompressedDigest,omitempty"` // of what the blob unpacks to
	UncompressedSize   int64  `json:"uncompressedSize,omitempty"`   // bytes
}

// An Increment says from where an incremental artifact leads to this image.
type Increment struct {
	From     string `json:"from"`            // digest of the base's index
	FromGUID uint64 `json:"fromGuid,string"` // of the base's snapshot, which the stream demands
	Artifact string `json:"artifact"`        // digest of the artifact, one of the release's
}

// A Revocation is the predicate of type [PredicateRevocation]: the image is withdrawn, in every
// channel and for good. One key that may release the image is enough to revoke it.
type Revocation struct {
	Name   string    `json:"name"` // of the image
	Reason string    `json:"reason"`
	Issued time.Time `json:"issued"` // UTC, whole seconds
}

// What names, channels and versions may be: part of a file's name, a tag and a sentence.
var (
	nameForm    = regexp.MustCompile(`^[a-z0-9]+([._-][a-z0-9]+)*$`)
	versionForm = regexp.MustCompile(`^[A-Za-z0-9_][A-Za-z0-9._-]{0,127}$`)
	wordForm    = regexp.MustCompile(`^[!-~]{1,255}$`) // of artifacts: a name, a media type
)

const maxName = 128 // bytes

func checkName(what, s string) error {
	if len(s) > maxName || !nameForm.MatchString(s) {
		return fmt.Errorf("%s %q: want lower-case letters and digits, parted by single . _ or -", what, s)
	}
	return nil
}

func checkTime(what string, t time.Time) error {
	if t.IsZero() || t.Location() != time.UTC || t.Nanosecond() != 0 || t.Year() > 9999 {
		return fmt.Errorf("%s %s: want a time in UTC with whole seconds", what, t.Format(time.RFC3339Nano))
	}
	return nil
}

// problems joins errors to one of one line.
func problems(errs []error) error {
	if len(errs) == 0 {
		return nil
	}
	texts := make([]string, len(errs))
	for i, err := range errs {
		texts[i] = err.Error()
	}
	return errors.New(strings.Join(texts, "; "))
}

// check returns all that is wrong with a release.
func (r *Release) check() error {
	var errs []error
	add := func(err error) {
		if err != nil {
			errs = append(errs, err)
		}
	}
	add(checkName("name", r.Name))
	add(checkName("channel", r.Channel))
	if !versionForm.MatchString(r.Version) {
		add(fmt.Errorf("version %q: want letters, digits and . _ -", r.Version))
	}
	add(checkTime("issued", r.Issued))
	add(checkTime("expires", r.Expires))
	if !r.Expires.After(r.Issued) {
		add(errors.New("expires before it is issued"))
	}
	if r.Epoch < 1 || r.Epoch > MaxEpoch {
		add(fmt.Errorf("epoch %d: want 1 to %d", r.Epoch, int64(MaxEpoch)))
	}
	if r.MinimumEpoch < 0 || r.MinimumEpoch > r.Epoch {
		add(fmt.Errorf("minimum epoch %d: want 0 to the epoch, %d", r.MinimumEpoch, r.Epoch))
	}
	if len(r.Artifacts) > maxArtifacts || len(r.Increments) > maxIncrements {
		add(fmt.Errorf("more than %d artifacts or increments", maxArtifacts))
		return problems(errs)
	}
	names, digests := map[string]bool{}, map[string]bool{}
	for _, a := range r.Artifacts {
		if names[a.Name] {
			add(fmt.Errorf("artifact %q is there twice", a.Name))
		}
		names[a.Name], digests[a.Digest] = true, true
		if err := a.check(); err != nil {
			add(fmt.Errorf("artifact %q: %w", a.Name, err))
		}
	}
	for _, i := range r.Increments {
		if err := checkDigest(i.From); err != nil {
			add(fmt.Errorf("increment: base: %w", err))
		}
		if !digests[i.Artifact] {
			add(fmt.Errorf("increment from %q: artifact %q is none of the release", i.From, i.Artifact))
		}
	}
	return problems(errs)
}

func (a *Artifact) check() error {
	if !wordForm.MatchString(a.Name) || !wordForm.MatchString(a.MediaType) {
		return fmt.Errorf("name or media type %q: want visible ASCII characters", a.MediaType)
	}
	if err := checkDigest(a.Digest); err != nil {
		return err
	}
	if a.UncompressedDigest != "" {
		if err := checkDigest(a.UncompressedDigest); err != nil {
			return fmt.Errorf("uncompressed: %w", err)
		}
	}
	if a.Size < 0 || a.UncompressedSize < 0 {
		return errors.New("negative size")
	}
	return nil
}

func (r *Revocation) check() error {
	var errs []error
	if err := checkName("name", r.Name); err != nil {
		errs = append(errs, err)
	}
	if err := checkTime("issued", r.Issued); err != nil {
		errs = append(errs, err)
	}
	printable := !strings.ContainsFunc(r.Reason, func(c rune) bool { return !unicode.IsPrint(c) })
	if strings.TrimSpace(r.Reason) == "" || len(r.Reason) > maxReason || !printable {
		errs = append(errs, fmt.Errorf("want a reason of 1 to %d bytes on one line", maxReason))
	}
	return problems(errs)
}

// Statement makes the statement that releases the index with this digest. Everything in it is an
// input, times too: they are brought to UTC and whole seconds, and lists that are nil to empty ones.
func (r Release) Statement(digest string) (*Statement, error) {
	r.Issued, r.Expires = seconds(r.Issued), seconds(r.Expires)
	r.Artifacts = append([]Artifact{}, r.Artifacts...)
	r.Increments = append([]Increment{}, r.Increments...)
	if err := r.check(); err != nil {
		return nil, fmt.Errorf("release: %w", err)
	}
	return stated(digest, PredicateRelease, r)
}

// Statement makes the statement that withdraws the index with this digest.
func (r Revocation) Statement(digest string) (*Statement, error) {
	r.Issued = seconds(r.Issued)
	if err := r.check(); err != nil {
		return nil, fmt.Errorf("revocation: %w", err)
	}
	return stated(digest, PredicateRevocation, r)
}

func seconds(t time.Time) time.Time { return t.UTC().Truncate(time.Second) }

func stated(digest, predicateType string, predicate any) (*Statement, error) {
	data, err := json.Marshal(predicate)
	if err != nil {
		return nil, err
	}
	return NewStatement(digest, predicateType, data)
}

var (
	releaseSchema = newSchema(`name version channel epoch issued expires minimumEpoch
		artifacts mediaType digest size uncompressedDigest uncompressedSize
		increments from fromGuid artifact`)
	revocationSchema = newSchema(`name reason issued`)
)

// Release decodes the predicate of a release. Only one encoding of each release is taken, the one
// that [Release.Statement] writes.
func (s *Statement) Release() (*Release, error) {
	r := new(Release)
	if err := s.decode(PredicateRelease, releaseSchema, r, r.check); err != nil {
		return nil, fmt.Errorf("release: %w", err)
	}
	return r, nil
}

// Revocation decodes the predicate of a revocation, as strictly.
func (s *Statement) Revocation() (*Revocation, error) {
	r := new(Revocation)
	if err := s.decode(PredicateRevocation, revocationSchema, r, r.check); err != nil {
		return nil, fmt.Errorf("revocation: %w", err)
	}
	return r, nil
}

func (s *Statement) decode(predicateType string, names schema, v any, check func() error) error {
	switch {
	case s.PredicateType != predicateType:
		return fmt.Errorf("predicate of type %q: want %q", s.PredicateType, predicateType)
	case s.Type != TypeStatement:
		return fmt.Errorf("statement of type %q: want %q", s.Type, TypeStatement)
	case len(s.Subject) != 1 || len(s.Subject[0].Digest) != 1:
		return errors.New("want one subject with one digest")
	}
	if err := names.decode(s.Predicate, v); err != nil {
		return err
	}
	if err := check(); err != nil {
		return err
	}
	canonical, err := json.Marshal(v)
	if err != nil {
		return err
	}
	if !bytes.Equal(canonical, s.Predicate) {
		return errors.New("not in its canonical encoding")
	}
	return nil
}

// Artifact returns the artifact of this name, or nil.
func (r *Release) Artifact(name string) *Artifact {
	for i := range r.Artifacts {
		if r.Artifacts[i].Name == name {
			return &r.Artifacts[i]
		}
	}
	return nil
}
