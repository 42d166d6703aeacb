package signing

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"
)

func TestAttackThresholdShortByOne(t *testing.T) {
	w := newWorld(t)
	w.policy(`
key "a" {
  file = "a.pub"
}
key "b" {
  file = "b.pub"
}
key "c" {
  file = "c.pub"
}
rule "*" {
  keys      = ["a", "b", "c"]
  threshold = 2
}
`)
	w.release("a", nil)
	w.want(ReasonThreshold, "signed by 1 of the 2 keys")
	w.release("a", nil) // the same key twice is one key
	w.want(ReasonThreshold, "signed by 1 of the 2 keys")
	w.release("b", func(r *Release) { r.Epoch = 8 }) // another statement is not the same statement
	w.want(ReasonThreshold, "signed by 1 of the 2 keys")
	w.release("stranger", nil)
	w.classic("c", "registry.example/isc/web", w.Digest)
	w.want(ReasonThreshold, "signed by 1 of the 2 keys")
	w.verdict(0, Rejected, ReasonThreshold)
	w.release("c", nil)
	if d := w.want("", ""); !slices.Equal(d.Keys, []string{"a", "c"}) || d.Release.Epoch != 7 {
		t.Errorf("keys %q, epoch %d", d.Keys, d.Release.Epoch)
	}
	w.release("b", nil)
	if d := w.want("", ""); !slices.Equal(d.Keys, []string{"a", "b", "c"}) {
		t.Errorf("keys %q", d.Keys)
	}
	w.revoke("b", now) // one key is enough for that
	w.want(ReasonRevoked, "")
}

func TestAttackWrongKey(t *testing.T) {
	w := newWorld(t)
	w.release("stranger", nil)
	w.want(ReasonKey, fmt.Sprintf("by no key of the policy; it names the key %q", key(t, "stranger").Public().ID()))
}

// TestAttackKeyInBundle: the identity in a bundle is a hint, and never leads to a key that the
// policy has not (GHSA-fx35-mq7g-6g98).
func TestAttackKeyInBundle(t *testing.T) {
	w := newWorld(t)
	b, err := ParseBundle(bundle(t, key(t, "stranger"), statement(t, aRelease(), w.Digest)))
	if err != nil {
		t.Fatal(err)
	}
	b.Hint = key(t, "release").Public().ID()
	data, err := b.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	w.add(data)
	w.want(ReasonKey, "by no key of the policy")

	// The other way round it does no harm: cosign writes other hints for some keys.
	w = newWorld(t)
	if b, err = ParseBundle(bundle(t, key(t, "release"), statement(t, aRelease(), w.Digest))); err != nil {
		t.Fatal(err)
	}
	b.Hint = ""
	if data, err = b.Marshal(); err != nil {
		t.Fatal(err)
	}
	w.add(data)
	w.want("", "")
}

// TestAttackMismatchedParts: certificates and log entries of other content never help a bundle
// (GHSA-8gw7-4j42-w388, GHSA-whqx-f9j3-ch6m, GHSA-ccxc-vr6p-4858).
func TestAttackMismatchedParts(t *testing.T) {
	good := string(bundle(t, key(t, "stranger"), statement(t, aRelease(), digestOf("web"))))
	for _, part := range []string{
		`"certificate":{"rawBytes":"MIIB"},`,
		`"tlogEntries":[{"logIndex":"1","canonicalizedBody":"e30="}],`,
		`"timestampVerificationData":{"rfc3161Timestamps":[{"signedTimestamp":"AA=="}]},`,
	} {
		w := newWorld(t)
		w.add([]byte(strings.Replace(good, `"publicKey":`, part+`"publicKey":`, 1)))
		if _, err := Verify(w.Input); !errors.Is(err, ErrNotVerified) {
			t.Errorf("%s: %v", part, err)
		}
	}
	// Payload of one, signature of another.
	w := newWorld(t)
	one, err := ParseBundle(bundle(t, key(t, "release"), statement(t, aRelease(), w.Digest)))
	if err != nil {
		t.Fatal(err)
	}
	two, err := ParseBundle(bundle(t, key(t, "release"), statement(t, aRelease(), digestOf("web 1.3.0"))))
	if err != nil {
		t.Fatal(err)
	}
	one.Signature = two.Signature
	data, err := one.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	w.add(data)
	w.want(ReasonKey, "")
}

func TestAttackKeyWindowOver(t *testing.T) {
	src := `
key "release" {
  file       = "release.pub"
  not_before = "2026-11-24T12:00:00Z"
  not_after  = "2026-11-25T12:00:00Z"
}
rule "*" {
  keys   = ["release"]
  accept = "signature"
}
`
	w := newWorld(t)
	w.policy(src)
	w.release("release", nil) // issued as the window opens, looked at as it closes
	w.want("", "")
	w.Now = now.Add(time.Second)
	w.want(ReasonKeyWindow, `the key "release" does not count at 2026-11-25T12:00:01Z`)
	w.Now = now
	w.Candidates = nil
	w.release("release", func(r *Release) { r.Issued = r.Issued.Add(-time.Second) })
	w.want(ReasonKeyWindow, "does not count at 2026-11-24T11:59:59Z")

	w.Candidates = nil
	w.classic("release", "registry.example/isc/web", w.Digest)
	w.attest("release", PredicateSignature)
	w.want("", "")
	w.Now = now.Add(time.Second)
	w.want(ReasonKeyWindow, "")
	w.verdict(1, Rejected, ReasonKeyWindow)

	// A revocation outlives its key.
	w = newWorld(t)
	w.policy(src + "key \"next\" {\n  file = \"next.pub\"\n}\n")
	w.Policy.Rules[0].Keys = append(w.Policy.Rules[0].Keys, TrustedKey{Name: "next", Key: key(t, "next").Public()})
	w.Now = now.Add(day)
	w.release("next", nil)
	w.want("", "")
	w.revoke("release", now.Add(time.Hour)) // outside the window
	w.want("", "")
	w.revoke("release", now)
	w.want(ReasonRevoked, "")
}

func TestAttackRevokedKey(t *testing.T) {
	w := newWorld(t)
	w.policy(`
key "release" {
  file    = "release.pub"
  revoked = "on a stolen laptop"
}
key "next" {
  file = "next.pub"
}
rule "*" {
  keys   = ["release", "next"]
  accept = "signature"
}
`)
	w.release("release", nil)
	w.classic("release", "registry.example/isc/web", w.Digest)
	w.want(ReasonKeyGone, `the key "release" is revoked: "on a stolen laptop"`)
	w.release("next", nil)
	w.want("", "")
	w.revoke("release", now) // whoever has the laptop cannot withdraw images
	w.want("", "")
}

// TestKeyRotation walks from one key to the next, with a time in which both count.
func TestKeyRotation(t *testing.T) {
	src := `
key "old" {
  file      = "old.pub"
  not_after = "2026-12-31"
}
key "new" {
  file       = "new.pub"
  not_before = "2026-12-01"
}
rule "*" {
  keys = ["old", "new"]
}
`
	date := func(s string) time.Time {
		d, err := time.Parse(time.DateOnly, s)
		if err != nil {
			t.Fatal(err)
		}
		return d
	}
	for _, c := range []struct {
		by, issued, now string
		reason          Reason
	}{
		{"old", "2026-11-01", "2026-11-10", ""},
		{"new", "2026-11-01", "2026-11-10", ReasonKeyWindow},
		{"new", "2026-11-01", "2026-12-10", ReasonKeyWindow},
		{"old", "2026-12-05", "2026-12-10", ""},
		{"new", "2026-12-05", "2026-12-10", ""},
		{"old", "2026-12-05", "2027-01-10", ReasonKeyWindow}, // to be signed again by the new key
		{"new", "2026-12-05", "2027-01-10", ""},
	} {
		w := newWorld(t)
		w.policy(src)
		w.Now = date(c.now)
		w.release(c.by, func(r *Release) { r.Issued, r.Expires = date(c.issued), date("2027-06-01") })
		w.want(c.reason, "")
	}
}
