package signing

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"
)

// The tests of this file are named after the attacks of the threat model; those on keys stand in
// attack_key_test.go.

func TestAttackUnsigned(t *testing.T) {
	w := newWorld(t)
	w.want(ReasonUnsigned, "no signature")
}

func TestAttackTamper(t *testing.T) {
	w := newWorld(t)
	good := bundle(t, key(t, "release"), statement(t, aRelease(), w.Digest))
	for i := range good {
		bad := slices.Clone(good)
		bad[i] ^= 1
		w.Candidates = []Candidate{{Bundle: bad}, {Bundle: bad[:i]}, {Bundle: append(good[:i:i], append([]byte{good[i]}, good[i:]...)...)}}
		if d, err := Verify(w.Input); err == nil {
			// Only the hint and white space may change: neither is relied on.
			b, err := ParseBundle(bad)
			if err != nil || b.Hint == key(t, "release").Public().ID() {
				t.Fatalf("accepted with byte %d changed: %+v", i, d.Findings)
			}
		}
	}
}

func TestAttackSwap(t *testing.T) {
	w := newWorld(t)
	w.add(bundle(t, key(t, "release"), statement(t, aRelease(), digestOf("web 1.3.0"))))
	w.want(ReasonSubject, "about another digest")
	w.Candidates = nil
	w.classic("release", "registry.example/isc/web", digestOf("web 1.3.0"))
	w.want(ReasonSubject, "about another digest")
}

func TestAttackPredicateConfusion(t *testing.T) {
	for _, predicateType := range []string{
		PredicateSPDX, PredicateCycloneDX, PredicateProvenance, PredicateSignature,
		"https://openvex.dev/ns/v0.2.0", PredicateRelease + "/", "release/v1",
		"https://in-toto.io/attestation/test-result/v0.1",
	} {
		w := newWorld(t)
		w.attest("release", predicateType)
		w.want(ReasonNoRelease, "no release")
		w.verdict(0, Information, "")
	}
	// The content of a release under another type, and the other way round.
	w := newWorld(t)
	s := statement(t, aRelease(), w.Digest)
	s.PredicateType = PredicateSPDX
	w.add(bundle(t, key(t, "release"), s))
	w.want(ReasonNoRelease, "")
	w = newWorld(t)
	w.attest("release", PredicateRelease)
	w.want(ReasonMalformed, "release: ")
	// A statement that is signed as something else: DSSE binds the payload's type.
	w = newWorld(t)
	payload, err := statement(t, aRelease(), w.Digest).Marshal()
	if err != nil {
		t.Fatal(err)
	}
	sig, err := key(t, "release").Sign(context.Background(), payload)
	if err != nil {
		t.Fatal(err)
	}
	b := Bundle{Hint: key(t, "release").Public().ID(), Payload: payload, Signature: sig}
	data, err := b.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	w.add(data)
	w.Candidates = append(w.Candidates, Candidate{Classic: &Classic{Payload: payload, Signature: sig}})
	w.want(ReasonKey, "by no key of the policy")
	w.verdict(1, Rejected, ReasonMalformed)
}

// TestAttackSBOMAlone is what cosign verify accepts.
func TestAttackSBOMAlone(t *testing.T) {
	w := newWorld(t)
	w.policy(`
key "release" {
  file = "release.pub"
}
rule "*" {
  keys   = ["release"]
  accept = "signature"
}
`)
	w.attest("release", PredicateSPDX)
	w.want(ReasonNoRelease, "no release")
}

func TestAttackClassicAlone(t *testing.T) {
	w := newWorld(t)
	w.classic("release", "registry.example/isc/web", w.Digest)
	w.want(ReasonNoRelease, "no release")
	w.attest("release", PredicateSignature)
	w.want(ReasonNoRelease, "no release")
}

// TestAttackExpiredReleaseAsSignature: where signatures alone are enough, a release still has to
// hold.
func TestAttackExpiredReleaseAsSignature(t *testing.T) {
	w := newWorld(t)
	w.policy(strings.Replace(signaturePolicy, "threshold = 2", "threshold = 1", 1))
	w.classic("release", "registry.example/isc/web", w.Digest)
	w.release("release", func(r *Release) { r.Expires = now.Add(-time.Hour) })
	w.want(ReasonExpired, "expired at 2026-11-25T11:00:00Z")
}

func TestAttackIdentity(t *testing.T) {
	src := `
key "release" {
  file = "release.pub"
}
rule "*" {
  keys   = ["release"]
  accept = "signature"
  %s
}
`
	for _, c := range []struct{ reference, identity, attribute string }{
		{reference, "registry.example/isc/web", ""},
		{"oci:/var/web:1.4.0", "registry.example/isc/web", ""},
		{"mirror.example/web:1.4.0", "registry.example/isc/web:1.4.0", `identities = ["registry.example/isc/web"]`},
	} {
		w := newWorld(t)
		w.Reference = c.reference
		w.policy(fmt.Sprintf(src, c.attribute))
		w.classic("release", c.identity, w.Digest)
		w.want("", "")
		w.Candidates = nil
		w.classic("release", "registry.example/isc/db", w.Digest)
		if c.reference == reference || c.attribute != "" {
			w.want(ReasonIdentity, `it is for "registry.example/isc/db"`)
		}
	}
}

func TestAttackWrongName(t *testing.T) {
	w := newWorld(t)
	w.release("release", func(r *Release) { r.Name = "db" })
	w.want(ReasonName, `it releases "db", which the rule for "registry.example/isc" does not take at "registry.example/isc/web:1.4.0"`)
	w.policy(`
key "release" {
  file = "release.pub"
}
rule "registry.example/isc" {
  keys  = ["release"]
  names = ["db"]
}
`)
	w.want("", "")
	w.Name = "web" // by its config
	w.want(ReasonName, `it releases "db", but the image is "web"`)
}

func TestAttackWrongChannel(t *testing.T) {
	w := newWorld(t)
	w.release("release", func(r *Release) { r.Channel = "candidate" })
	w.want(ReasonChannel, `it is of the channel "candidate"; the policy takes ["stable"]`)
}

// TestAttackTagMovedBack: an older image is properly signed and unexpired, and the tag leads to it.
func TestAttackTagMovedBack(t *testing.T) {
	w := newWorld(t)
	w.release("release", nil)
	w.Acquired = []Acquired{{Name: "web", Channel: "stable", Epoch: 8, Digest: digestOf("web 1.5.0"), MinimumEpoch: 3}}
	w.want(ReasonDowngrade, "release 7 of web in stable is older than epoch 8, which this host has")
	w.AllowDowngrade = true
	if d := w.want("", ""); !d.Downgrade {
		t.Error("the decision does not tell that it is a downgrade")
	}
	w.Acquired[0].MinimumEpoch = 8
	w.want(ReasonDowngrade, "below the minimum epoch 8")
	w.Acquired, w.AllowDowngrade = nil, false // nothing is acquired: a local act
	w.want("", "")
}

func TestAttackEqualEpoch(t *testing.T) {
	w := newWorld(t)
	w.release("release", nil)
	w.Acquired = []Acquired{{Name: "web", Channel: "stable", Epoch: 7, Digest: w.Digest}}
	w.want("", "")
	w.Acquired[0].Digest = digestOf("another web")
	w.want(ReasonEpoch, "is not what this host has as epoch 7")
	w.AllowDowngrade = true // it is none
	w.want(ReasonEpoch, "is not what this host has as epoch 7")
}

func TestAttackFastForward(t *testing.T) {
	w := newWorld(t)
	w.release("release", func(r *Release) { r.Epoch = MaxEpoch })
	w.want("", "") // nothing to compare with
	w.Acquired = []Acquired{{Name: "web", Channel: "stable", Epoch: 6, Digest: digestOf("web 1.3.0")}}
	w.want(ReasonJump, "is more than 100000 above epoch 6")
	w.Policy.Rules[0].EpochJump = MaxEpoch
	w.want("", "")
}

func TestAttackFreeze(t *testing.T) {
	w := newWorld(t)
	w.release("release", nil)
	w.Now = aRelease().Expires.Add(-time.Second)
	w.want("", "")
	w.Now = aRelease().Expires
	w.want(ReasonExpired, "release 7 of web in stable expired at 2027-02-22T12:00:00Z")
	w.Now = now
	w.Policy.Rules[0].MaxAge = day
	w.want("", "")
	w.Now = now.Add(time.Second)
	w.want(ReasonAge, "longer ago than the policy takes")
}

// TestAttackOlderStatementOutlivesNewer: the newest release counts, if it expires first, too.
func TestAttackOlderStatementOutlivesNewer(t *testing.T) {
	w := newWorld(t)
	w.release("release", nil)
	w.release("release", func(r *Release) { r.Issued, r.Expires = now.Add(-time.Hour), now })
	w.want(ReasonExpired, "expired at 2026-11-25T12:00:00Z")
	w.verdict(0, Superseded, "")
	w.verdict(1, Rejected, ReasonExpired)
	w.release("release", func(r *Release) { r.Epoch = 8 }) // an epoch beats a time
	if d := w.want("", ""); d.Release.Epoch != 8 {
		t.Errorf("epoch %d", d.Release.Epoch)
	}
	slices.Reverse(w.Candidates)
	if d := w.want("", ""); d.Release.Epoch != 8 {
		t.Errorf("epoch %d", d.Release.Epoch)
	}
}

func TestRefresh(t *testing.T) {
	w := newWorld(t)
	w.release("release", func(r *Release) { r.Issued, r.Expires = now.Add(-90*day), now.Add(-day) })
	w.want(ReasonExpired, "")
	w.release("release", nil)
	if d := w.want("", ""); !d.Release.Expires.Equal(aRelease().Expires) {
		t.Errorf("expires %s", d.Release.Expires)
	}
}

// TestAttackEquallyNew: of two releases of one moment the one that promises less counts, in
// whatever order a registry lists them.
func TestAttackEquallyNew(t *testing.T) {
	w := newWorld(t)
	w.release("release", nil)
	w.release("release", func(r *Release) { r.Expires = now.Add(day) })
	for range 2 {
		if d := w.want("", ""); !d.Release.Expires.Equal(now.Add(day)) {
			t.Errorf("expires %s", d.Release.Expires)
		}
		slices.Reverse(w.Candidates)
	}
}

// TestAttackMinimumHidden: one of the same moment that withdraws less does not hide the one that withdraws
// more, even if it promises less.
func TestAttackMinimumHidden(t *testing.T) {
	w := newWorld(t)
	w.release("release", func(r *Release) { r.Epoch, r.MinimumEpoch = 5, 4 })
	w.release("release", func(r *Release) { r.Epoch, r.MinimumEpoch, r.Expires = 5, 2, now.Add(day) })
	for range 2 {
		if d := w.want("", ""); d.Release.MinimumEpoch != 4 {
			t.Errorf("minimum epoch %d", d.Release.MinimumEpoch)
		}
		slices.Reverse(w.Candidates)
	}
}

func TestAttackFutureDate(t *testing.T) {
	w := newWorld(t)
	w.release("release", func(r *Release) { r.Issued = now.Add(clockSkew) })
	w.want("", "")
	w.Candidates = nil
	w.release("release", func(r *Release) { r.Issued = now.Add(clockSkew + time.Second) })
	w.want(ReasonFuture, "which is yet to come")
}

func TestAttackClockSetBack(t *testing.T) {
	w := newWorld(t)
	w.release("release", nil)
	w.NotBefore = now.Add(time.Second)
	w.want(ReasonClock, "the clock says 2026-11-25T12:00:00Z, but 2026-11-25T12:00:01Z has passed")
}

func TestAttackRevoked(t *testing.T) {
	for _, issued := range []time.Time{now.Add(-1000 * day), now, now.Add(1000 * day)} {
		w := newWorld(t)
		w.release("release", nil)
		w.revoke("release", issued)
		w.release("release", func(r *Release) { r.Epoch, r.Issued = 100, now }) // later releases do not bring it back
		d := w.want(ReasonRevoked, `"CVE-2026-1"`)
		if d.Revocation == nil || d.Revocation.Reason != "CVE-2026-1" {
			t.Errorf("revocation %+v", d.Revocation)
		}
		w.verdict(1, Accepted, "")
		w.Incomplete = errors.New("one referrer cannot be read") // the answer is known all the same
		w.want(ReasonRevoked, "")
	}
}

// TestAttackRevocationByStranger: who has no key cannot withdraw an image either.
func TestAttackRevocationByStranger(t *testing.T) {
	w := newWorld(t)
	w.release("release", nil)
	w.revoke("stranger", now)
	w.want("", "")
	other := statementOf(t, Revocation{Name: "web", Reason: "r", Issued: now}, digestOf("web 1.3.0"))
	w.add(bundle(t, key(t, "release"), other))
	w.want("", "")
}

// TestAttackReferrersHidden: what cannot be read is not what is not there.
func TestAttackReferrersHidden(t *testing.T) {
	cause := errors.New("503 Service Unavailable")
	w := newWorld(t)
	w.Incomplete = cause
	w.want(ReasonHidden, "503")
	w.release("release", nil)
	w.want(ReasonHidden, "503") // a revocation may be what is hidden
	w.policy(strings.Replace(signaturePolicy, "threshold = 2", "threshold = 1", 1))
	w.classic("release", "registry.example/isc/web", w.Digest)
	w.want(ReasonHidden, "503")
	if _, err := Verify(w.Input); !errors.Is(err, cause) {
		t.Errorf("%v hides its cause", err)
	}
}

func TestAttackTooManyReferrers(t *testing.T) {
	w := newWorld(t)
	w.release("release", nil)
	for range maxCandidates {
		w.Candidates = append(w.Candidates, Candidate{Bundle: []byte("{}")})
	}
	w.want(ReasonHidden, "more than 512")
	w.Candidates = w.Candidates[:maxCandidates]
	w.want("", "")
}

// TestAttackBomb: layers are never decompressed, whatever they are.
func TestAttackBomb(t *testing.T) {
	w := newWorld(t)
	w.add([]byte("\x1f\x8b\x08\x00" + strings.Repeat("\x00", 1000)))
	w.add([]byte("\x28\xb5\x2f\xfd" + strings.Repeat("\x00", 1000)))
	w.add([]byte(strings.Repeat("[", 1<<20)))
	w.add(make([]byte, MaxAttestation+1))
	w.want(ReasonMalformed, "")
	w.release("release", nil)
	w.want("", "")
}

func TestAttackOversizedRelease(t *testing.T) {
	w := newWorld(t)
	s := statement(t, aRelease(), w.Digest)
	s.Subject[0].Name = strings.Repeat("x", MaxBundle)
	payload, err := s.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	w.add(rawBundle(t, key(t, "release"), string(payload)))
	w.want(ReasonMalformed, "more than 1048576")
}

// TestAttackAmbiguousStatement: bytes that are signed but that two readers may understand
// differently are not understood at all.
func TestAttackAmbiguousStatement(t *testing.T) {
	good, err := statement(t, aRelease(), digestOf("web")).Marshal()
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct{ old, new string }{
		{`"epoch":7`, `"epoch":7,"epoch":70`},
		{`"epoch":7`, `"Epoch":70,"epoch":7`},
		{`"channel":"stable"`, `"channel":"stable","more":1`},
		{`"predicateType":`, `"predicateType":"x","predicateType":`},
		{`"subject":[`, `"subject":[{"digest":{"sha256":"00"}},`},
		{`{"sha256":`, `{"sha512":"00","sha256":`},
	} {
		w := newWorld(t)
		w.add(rawBundle(t, key(t, "release"), strings.Replace(string(good), c.old, c.new, 1)))
		if _, err := Verify(w.Input); !errors.Is(err, ErrNotVerified) {
			t.Errorf("%s: %v", c.new, err)
		}
	}
}

// TestAttackTerminal: what others wrote never reaches a terminal as it is.
func TestAttackTerminal(t *testing.T) {
	w := newWorld(t)
	w.Reference = "registry.example/isc/web:\x1b[2J"
	w.release("release", nil)
	w.want("", "")
	w.Candidates = nil
	w.add(rawBundle(t, key(t, "release"), "{\"\x1b[2J\n\":1}"))
	w.classic("release", "evil\x1b[2J", w.Digest)
	b := bundle(t, key(t, "stranger"), statement(t, aRelease(), w.Digest))
	w.add([]byte(strings.Replace(string(b), `"hint":"`, `"hint":"\u001b[2J`, 1)))
	w.add([]byte("{\"\\u001b[2J\":1}"))
	w.want(ReasonMalformed, "")
	w.Reference = "registry.example/other:\x1b[2J"
	w.want(ReasonPolicy, `no rule of the policy fits "registry.example/other:\x1b[2J"`)
}

func TestAttackNoRule(t *testing.T) {
	w := newWorld(t)
	w.Reference = "registry.example.evil/isc/web:1.4.0"
	w.release("release", nil)
	w.want(ReasonPolicy, "no rule of the policy fits")
}
