package signing

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"
)

// clockSkew is how far the clock of a signer may be ahead of the host's.
const clockSkew = 10 * time.Minute

// maxCandidates bounds what is tried with keys: twice what one list of referrers and one .sig tag
// may hold.
const maxCandidates = 2 * maxClassicLayers

// Verify decides whether the policy takes a digest as a release (or, if it says so, as merely
// signed). The decision explains itself also if the answer is no, which is an [Error].
//
// Only three predicates decide: [PredicateRelease], [PredicateRevocation] and, where the policy
// takes signatures alone, [PredicateSignature] and classic signatures. Keys come from the policy
// alone. A revocation always counts. Of the releases of a channel that enough keys have signed the
// newest one counts, by epoch and then by time of issue, and it has to hold in everything: name,
// channel, expiry, age, epochs. Channels are tried in the order of the policy.
func Verify(in Input) (*Decision, error) {
	d := &Decision{Digest: in.Digest}
	if err := checkDigest(in.Digest); err != nil {
		return d, fmt.Errorf("verify: %w", err)
	}
	if in.Policy == nil || in.Now.IsZero() {
		return d, errors.New("verify: no policy, or no time")
	}
	rule := in.Policy.Rule(in.Reference)
	if rule == nil {
		return d, refuse(ReasonPolicy, "no rule of the policy fits %q", in.Reference)
	}
	d.Rule = rule.Prefix
	if len(rule.Keys) == 0 || rule.Threshold < 1 {
		return d, fmt.Errorf("verify: the rule for %q demands no key", rule.Prefix)
	}
	if in.Now.Before(in.NotBefore) {
		return d, undetermined(ReasonClock, nil, "the clock says %s, but %s has passed",
			in.Now.UTC().Format(time.RFC3339), in.NotBefore.UTC().Format(time.RFC3339))
	}
	if len(in.Candidates) > maxCandidates {
		return d, undetermined(ReasonHidden, nil, "%d signatures and attestations are more than %d", len(in.Candidates), maxCandidates)
	}
	v := &verifier{Input: &in, rule: rule, d: d, signers: map[string]bool{}}
	for _, c := range in.Candidates {
		v.examine(c)
	}
	err := v.decide()
	v.settle()
	return d, err
}

// Releases returns the releases of a digest that are signed with one of the keys, the newest first,
// whether they still hold or not: what a next one follows. Whatever else the candidates are is left
// out.
func Releases(digest string, candidates []Candidate, keys ...*PublicKey) []*Release {
	var list []*Release
	seen := map[string]bool{}
	for _, c := range candidates {
		b, err := ParseBundle(c.Bundle)
		if err != nil || seen[string(b.Payload)] || !slices.ContainsFunc(keys, func(k *PublicKey) bool { return b.Verify(k) == nil }) {
			continue
		}
		seen[string(b.Payload)] = true
		s, err := ParseStatement(b.Payload)
		if err != nil || !s.About(digest) {
			continue
		}
		if r, err := s.Release(); err == nil {
			list = append(list, r)
		}
	}
	slices.SortStableFunc(list, func(a, b *Release) int {
		return cmp.Or(cmp.Compare(b.Epoch, a.Epoch), b.Issued.Compare(a.Issued), cmp.Compare(b.MinimumEpoch, a.MinimumEpoch), cmp.Compare(a.Channel, b.Channel))
	})
	return list
}

// Attested returns the first bundle among the candidates that a key which counts now has signed, and
// that is about the digest. What it says is not judged. The error says what is wrong with the last.
func Attested(in Input) ([]byte, error) {
	rule := in.Policy.Rule(in.Reference)
	if rule == nil {
		return nil, refuse(ReasonPolicy, "no rule of the policy fits %q", in.Reference)
	}
	v := &verifier{Input: &in, rule: rule, d: new(Decision), signers: map[string]bool{}}
	last := refuse(ReasonUnsigned, "there is none")
	for _, c := range in.Candidates {
		refused := v.attested(c.Bundle)
		if refused == nil {
			return c.Bundle, nil
		}
		last = refused
	}
	return nil, last
}

func (v *verifier) attested(bundle []byte) *Error {
	b, err := ParseBundle(bundle)
	if err != nil {
		return malformed(err)
	}
	k, refused := v.signer(b.Hint, b.Verify)
	if refused == nil {
		refused = v.inWindow(k)
	}
	if refused != nil {
		return refused
	}
	s, err := ParseStatement(b.Payload)
	switch {
	case err != nil:
		return malformed(err)
	case !s.About(v.Digest):
		return refuse(ReasonSubject, "it is about another digest")
	}
	return nil
}

type verifier struct {
	*Input
	rule *Rule
	d    *Decision

	releases []*release
	signers  map[string]bool // keys that signed the digest alone
	chosen   *release
	signed   bool // accepted by signature alone
}

// A release is one statement, byte for byte, and who signed it.
type release struct {
	*Release
	payload  []byte
	keys     map[string]bool
	findings []int
	refused  *Error
}

// examine judges one candidate for itself.
func (v *verifier) examine(c Candidate) {
	f := Finding{Source: c.Source, Verdict: Rejected}
	var err *Error
	if c.Classic != nil {
		f.Type = "classic"
		err = v.classic(c.Classic, &f)
	} else {
		err = v.bundle(c.Bundle, &f)
	}
	if err != nil {
		f.Verdict, f.Reason, f.Text = Rejected, err.Reason, err.Text
	}
	v.d.Findings = append(v.d.Findings, f)
}

// signer finds the key of the policy that verifies. The hint only says which one to try first.
func (v *verifier) signer(hint string, verify func(*PublicKey) error) (*TrustedKey, *Error) {
	keys := slices.Clone(v.rule.Keys)
	slices.SortStableFunc(keys, func(a, b TrustedKey) int {
		return cmp.Compare(btoi(a.Key.id != hint), btoi(b.Key.id != hint))
	})
	for i := range keys {
		if verify(keys[i].Key) != nil {
			continue
		}
		if keys[i].Revoked != "" {
			return &keys[i], refuse(ReasonKeyGone, "the key %q is revoked: %q", keys[i].Name, keys[i].Revoked)
		}
		return &keys[i], nil
	}
	if hint != "" {
		return nil, refuse(ReasonKey, "by no key of the policy; it names the key %q", hint)
	}
	return nil, refuse(ReasonKey, "by no key of the policy")
}

func btoi(b bool) int {
	if b {
		return 1
	}
	return 0
}

// inWindow checks that a key counts now and, if the statement has a time, counted then.
func (v *verifier) inWindow(k *TrustedKey, issued ...time.Time) *Error {
	for _, t := range append(issued, v.Now) {
		if !k.covers(t) {
			return refuse(ReasonKeyWindow, "the key %q does not count at %s", k.Name, t.UTC().Format(time.RFC3339))
		}
	}
	return nil
}

func malformed(err error) *Error { return refuse(ReasonMalformed, "%v", err) }

func (v *verifier) bundle(data []byte, f *Finding) *Error {
	b, err := ParseBundle(data)
	if err != nil {
		return malformed(err)
	}
	k, refused := v.signer(b.Hint, b.Verify)
	if k != nil {
		f.Key = k.Name
	}
	if refused != nil {
		return refused
	}
	s, err := ParseStatement(b.Payload)
	if err != nil {
		return malformed(err)
	}
	f.Type = s.PredicateType
	switch {
	case len(data) > limitOf(s.PredicateType):
		return refuse(ReasonMalformed, "bundle of %d bytes, more than %d", len(data), limitOf(s.PredicateType))
	case !s.About(v.Digest):
		return refuse(ReasonSubject, "it is about another digest")
	}
	f.Statement = s
	switch s.PredicateType {
	case PredicateRevocation:
		return v.revocation(s, k)
	case PredicateRelease:
		return v.release(s, b.Payload, k)
	case PredicateSignature:
		if refused := v.inWindow(k); refused != nil {
			return refused
		}
		v.signers[k.Name] = true
		f.Verdict, f.Text = Information, "a signature, not a release"
	default:
		f.Verdict, f.Text = Information, "an attestation, not a release"
	}
	return nil
}

// revocation takes a withdrawal even if its key's window has ended meanwhile or its time is odd:
// what was withdrawn shall not come back by the passing of time.
func (v *verifier) revocation(s *Statement, k *TrustedKey) *Error {
	r, err := s.Revocation()
	if err != nil {
		return malformed(err)
	}
	if !k.covers(r.Issued) {
		return refuse(ReasonKeyWindow, "the key %q does not count at %s", k.Name, r.Issued.Format(time.RFC3339))
	}
	if v.d.Revocation == nil || r.Issued.Before(v.d.Revocation.Issued) {
		v.d.Revocation = r
	}
	return nil
}

func (v *verifier) release(s *Statement, payload []byte, k *TrustedKey) *Error {
	r, err := s.Release()
	if err != nil {
		return malformed(err)
	}
	switch {
	case v.Name != "" && r.Name != v.Name:
		return refuse(ReasonName, "it releases %q, but the image is %q", r.Name, v.Name)
	case !v.rule.takesName(r.Name, v.Reference):
		return refuse(ReasonName, "it releases %q, which the rule for %q does not take at %q", r.Name, v.rule.Prefix, v.Reference)
	case !v.rule.takesChannel(r.Channel):
		return refuse(ReasonChannel, "it is of the channel %q; the policy takes %q", r.Channel, v.rule.Channels)
	case r.Issued.After(v.Now.Add(clockSkew)):
		return refuse(ReasonFuture, "it is issued at %s, which is yet to come", r.Issued.Format(time.RFC3339))
	}
	if refused := v.inWindow(k, r.Issued); refused != nil {
		return refused
	}
	i := slices.IndexFunc(v.releases, func(o *release) bool { return bytes.Equal(o.payload, payload) })
	if i < 0 {
		i = len(v.releases)
		v.releases = append(v.releases, &release{Release: r, payload: payload, keys: map[string]bool{}})
	}
	v.releases[i].keys[k.Name] = true
	v.releases[i].findings = append(v.releases[i].findings, len(v.d.Findings))
	return nil
}

func (v *verifier) classic(c *Classic, f *Finding) *Error {
	k, refused := v.signer("", c.Verify)
	if k != nil {
		f.Key = k.Name
	}
	if refused != nil {
		return refused
	}
	p, err := c.Parse()
	switch {
	case err != nil:
		return malformed(err)
	case p.Digest != v.Digest:
		return refuse(ReasonSubject, "it is about another digest")
	case !v.rule.takesIdentity(p.Reference, v.Reference):
		return refuse(ReasonIdentity, "it is for %q", p.Reference)
	}
	if refused := v.inWindow(k); refused != nil {
		return refused
	}
	v.signers[k.Name] = true
	f.Verdict, f.Text = Information, "a signature, not a release"
	return nil
}

// decide judges the candidates together.
func (v *verifier) decide() error {
	if r := v.d.Revocation; r != nil {
		return refuse(ReasonRevoked, "the image was withdrawn at %s: %q", r.Issued.Format(time.RFC3339), r.Reason)
	}
	if v.Incomplete != nil {
		return undetermined(ReasonHidden, v.Incomplete, "not all that is said of the image can be read: %v", v.Incomplete)
	}
	vouched := slices.DeleteFunc(slices.Clone(v.releases), func(r *release) bool { return len(r.keys) < v.rule.Threshold })
	var refused []*Error
	for _, channel := range v.channels(vouched) {
		newest := newestOf(vouched, channel)
		if newest == nil {
			continue
		}
		downgrade, err := v.fresh(newest.Release)
		if err != nil {
			newest.refused = err
			refused = append(refused, err)
			continue
		}
		v.chosen = newest
		v.d.Release, v.d.Downgrade = newest.Release, downgrade
		v.d.Keys = slices.Sorted(maps.Keys(newest.keys))
		return nil
	}
	switch {
	case len(refused) == 1:
		return refused[0]
	case len(refused) > 1:
		texts := make([]string, len(refused))
		for i, r := range refused {
			texts[i] = r.Text
		}
		return refuse(refused[0].Reason, "%s", strings.Join(texts, "; "))
	case v.rule.Unreleased && len(v.signers) >= v.rule.Threshold:
		v.signed = true
		v.d.Keys = slices.Sorted(maps.Keys(v.signers))
		return nil
	}
	return v.nothing()
}

// channels returns the channels to try, in order: those of the policy, and where it takes any,
// stable first and then the one with the latest release.
func (v *verifier) channels(vouched []*release) []string {
	var list []string
	for _, c := range v.rule.Channels {
		if c != Any {
			list = append(list, c)
			continue
		}
		sorted := slices.Clone(vouched)
		slices.SortStableFunc(sorted, func(a, b *release) int {
			return cmp.Or(
				cmp.Compare(btoi(a.Channel != "stable"), btoi(b.Channel != "stable")),
				b.Issued.Compare(a.Issued),
				cmp.Compare(a.Channel, b.Channel),
			)
		})
		for _, r := range sorted {
			list = append(list, r.Channel)
		}
	}
	var unique []string
	for _, c := range list {
		if !slices.Contains(unique, c) {
			unique = append(unique, c)
		}
	}
	return unique
}

// newestOf returns the release that counts in a channel, or nil. Of two of the same second the one that
// withdraws more counts, or else the one that promises less.
func newestOf(list []*release, channel string) *release {
	var newest *release
	for _, r := range list {
		if r.Channel != channel {
			continue
		}
		if newest == nil || cmp.Or(
			cmp.Compare(r.Epoch, newest.Epoch),
			r.Issued.Compare(newest.Issued),
			cmp.Compare(r.MinimumEpoch, newest.MinimumEpoch),
			newest.Expires.Compare(r.Expires),
			bytes.Compare(newest.payload, r.payload),
		) > 0 {
			newest = r
		}
	}
	return newest
}

// fresh checks a release against the clock and against what the host has.
func (v *verifier) fresh(r *Release) (downgrade bool, refused *Error) {
	what := fmt.Sprintf("release %d of %s in %s", r.Epoch, r.Name, r.Channel)
	switch age := v.Now.Sub(r.Issued); {
	case !v.Now.Before(r.Expires):
		return false, refuse(ReasonExpired, "%s expired at %s", what, r.Expires.Format(time.RFC3339))
	case v.rule.MaxAge > 0 && age > v.rule.MaxAge:
		return false, refuse(ReasonAge, "%s was issued at %s, longer ago than the policy takes", what, r.Issued.Format(time.RFC3339))
	}
	for _, a := range v.Acquired {
		if a.Name != r.Name || a.Channel != r.Channel {
			continue
		}
		allowed := v.rule.Downgrade || v.AllowDowngrade
		switch {
		case r.Epoch < a.MinimumEpoch:
			return false, refuse(ReasonDowngrade, "%s is below the minimum epoch %d", what, a.MinimumEpoch)
		case r.Epoch == a.Epoch && v.Digest != a.Digest:
			return false, refuse(ReasonEpoch, "%s is not what this host has as epoch %d: %s", what, a.Epoch, a.Digest)
		case r.Epoch < a.Epoch && !allowed:
			return false, refuse(ReasonDowngrade, "%s is older than epoch %d, which this host has", what, a.Epoch)
		case a.Epoch > 0 && r.Epoch-a.Epoch > v.rule.EpochJump:
			return false, refuse(ReasonJump, "%s is more than %d above epoch %d, which this host has", what, v.rule.EpochJump, a.Epoch)
		}
		downgrade = downgrade || r.Epoch < a.Epoch
	}
	return downgrade, nil
}

// nothing tells why there was nothing to choose from, by what came last.
func (v *verifier) nothing() *Error {
	best := 0
	for _, r := range v.releases {
		best = max(best, len(r.keys))
	}
	if v.rule.Unreleased {
		best = max(best, len(v.signers))
	}
	if best > 0 {
		return refuse(ReasonThreshold, "signed by %d of the %d keys that the policy demands", best, v.rule.Threshold)
	}
	for _, f := range v.d.Findings { // a release that was rejected tells most
		if f.Type == PredicateRelease && f.Verdict == Rejected {
			return refuse(f.Reason, "%s", f.Text)
		}
	}
	for _, f := range v.d.Findings {
		if f.Verdict == Information {
			return refuse(ReasonNoRelease, "there are signatures or attestations by keys of the policy, but no release")
		}
	}
	for _, f := range v.d.Findings {
		if f.Verdict == Rejected {
			return refuse(f.Reason, "%s", f.Text)
		}
	}
	return refuse(ReasonUnsigned, "no signature")
}

// settle fills in the verdicts that depend on the decision.
func (v *verifier) settle() {
	for i := range v.d.Findings {
		f := &v.d.Findings[i]
		switch {
		case f.Reason != "":
		case f.Type == PredicateRevocation:
			f.Verdict, f.Text = Accepted, "the image is withdrawn"
		case v.signed && (f.Type == PredicateSignature || f.Type == "classic"):
			f.Verdict, f.Text = Accepted, "a signature, which the policy takes"
		}
	}
	for _, r := range v.releases {
		for _, i := range r.findings {
			f := &v.d.Findings[i]
			f.Text = fmt.Sprintf("release %d of %s %s in %s, until %s", r.Epoch, r.Name, r.Version, r.Channel, r.Expires.Format(time.RFC3339))
			switch {
			case r == v.chosen:
				f.Verdict = Accepted
			case r.refused != nil:
				f.Verdict, f.Reason, f.Text = Rejected, r.refused.Reason, r.refused.Text
			case len(r.keys) < v.rule.Threshold:
				f.Verdict, f.Reason = Rejected, ReasonThreshold
				f.Text += fmt.Sprintf(": signed by %d of %d keys", len(r.keys), v.rule.Threshold)
			default:
				f.Verdict = Superseded
			}
		}
	}
}
