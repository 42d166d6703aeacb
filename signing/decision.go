package signing

import (
	"errors"
	"fmt"
	"time"
)

// ErrNotVerified is the error of a refusal: the answer is no. ErrUndetermined is that of a question
// that could not be answered, which is never a yes. Every error of [Verify] about the digest is an
// [Error] and one of the two.
var (
	ErrNotVerified  = errors.New("not verified")
	ErrUndetermined = errors.New("could not be determined")
)

// A Reason tells programs why a candidate or an image was refused.
type Reason string

// The reasons.
const (
	ReasonUnsigned  Reason = "unsigned"   // nothing by a key of the policy
	ReasonNoRelease Reason = "no-release" // signed, but nothing of it is a release
	ReasonMalformed Reason = "malformed"
	ReasonKey       Reason = "key"        // by no key of the policy
	ReasonKeyWindow Reason = "key-window" // outside the time in which the key counts
	ReasonKeyGone   Reason = "key-revoked"
	ReasonThreshold Reason = "threshold" // fewer keys than the policy demands
	ReasonSubject   Reason = "subject"   // about another digest
	ReasonName      Reason = "name"
	ReasonChannel   Reason = "channel"
	ReasonIdentity  Reason = "identity" // of a classic signature
	ReasonFuture    Reason = "future"   // issued later than now
	ReasonExpired   Reason = "expired"
	ReasonAge       Reason = "age" // issued longer ago than the policy takes
	ReasonRevoked   Reason = "revoked"
	ReasonEpoch     Reason = "epoch"       // of an epoch that the host has with another digest
	ReasonDowngrade Reason = "downgrade"   // below what the host has, or below the minimum epoch
	ReasonJump      Reason = "epoch-jump"  // suspiciously far above what the host has
	ReasonPolicy    Reason = "policy"      // no rule fits
	ReasonClock     Reason = "clock"       // the host's clock is behind a time that has passed
	ReasonHidden    Reason = "unavailable" // not everything that is said of the digest could be read
)

// An Error is why the policy does not take a digest.
type Error struct {
	Reason Reason
	Text   string // for people
	err    error  // ErrNotVerified or ErrUndetermined
	cause  error
}

func (e *Error) Error() string { return e.err.Error() + ": " + e.Text }

// Unwrap makes errors.Is work for [ErrNotVerified], [ErrUndetermined] and the cause.
func (e *Error) Unwrap() []error {
	if e.cause != nil {
		return []error{e.err, e.cause}
	}
	return []error{e.err}
}

func refuse(reason Reason, format string, args ...any) *Error {
	return &Error{Reason: reason, Text: fmt.Sprintf(format, args...), err: ErrNotVerified}
}

func undetermined(reason Reason, cause error, format string, args ...any) *Error {
	return &Error{Reason: reason, Text: fmt.Sprintf(format, args...), err: ErrUndetermined, cause: cause}
}

// A Candidate is something found beside an image that may be a signature of it.
type Candidate struct {
	Source  string   // where it was found, such as the digest of its manifest, for the explanation
	Bundle  []byte   // a bundle, or
	Classic *Classic // a classic signature
}

// Acquired is the highest release of a name and channel that a host has taken.
type Acquired struct {
	Name         string
	Channel      string
	Epoch        int64
	Digest       string // of the index
	MinimumEpoch int64  // the highest one demanded by what it has taken, 0 for none
}

// Input is what [Verify] decides on.
type Input struct {
	// Digest ("sha256:…") is that of the index, which the reference was resolved to once: whatever
	// is read later is read by digests that follow from it.
	Digest    string
	Reference string // as the user gave it, for the policy
	Name      string // of the image by its config; empty if it is not known yet

	Candidates []Candidate
	// Incomplete is why the list may lack some, nil if it is complete. "Could not be asked" is not
	// "has none": a revocation may be what is missing.
	Incomplete error

	Policy *Policy
	Now    time.Time
	// NotBefore is a time that certainly has passed: the last one that the host has seen, or when
	// the program was built.
	NotBefore time.Time

	// Acquired is what the host has taken so far. It is left out if nothing is about to be acquired:
	// going back to an image that the host holds is its own affair.
	Acquired       []Acquired
	AllowDowngrade bool // for this digest, by explicit wish
}

// A Verdict is what became of a candidate.
type Verdict string

// The verdicts.
const (
	Accepted    Verdict = "accepted"    // it carries the decision
	Superseded  Verdict = "superseded"  // by a newer release, or not asked for by the policy
	Information Verdict = "information" // by a key of the policy, but nothing that decides
	Rejected    Verdict = "rejected"
)

// A Finding explains one candidate.
type Finding struct {
	Source  string
	Type    string // of the predicate, "classic", or empty if it could not be read
	Key     string // name in the policy of the key that signed it
	Verdict Verdict
	Reason  Reason // if rejected
	Text    string // for people

	Statement *Statement // if it is in a bundle, about the digest and by a key of the policy
}

// A Decision is the answer of [Verify] with its explanation.
type Decision struct {
	Digest     string
	Rule       string      // prefix of the rule that decided
	Release    *Release    // that counts; nil if a signature alone was enough, or nothing was accepted
	Keys       []string    // names of the keys behind it, sorted
	Downgrade  bool        // it is older than what the host has, which was allowed
	Revocation *Revocation // if the image is withdrawn
	Findings   []Finding   // one for each candidate, in their order
}
