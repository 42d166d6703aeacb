package signing

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"
)

const reference = "registry.example/isc/web:1.4.0"

// A world is what a host meets: things that were published, by somebody.
type world struct {
	t testing.TB
	Input
}

// newWorld has an image "web" without any signature, and a policy that takes releases by the key
// "release".
func newWorld(t testing.TB) *world {
	w := &world{t: t}
	w.Digest, w.Reference, w.Now = digestOf("web"), reference, now
	w.policy(`
key "release" {
  file = "release.pub"
}
rule "registry.example/isc" {
  keys = ["release"]
}
`)
	return w
}

func (w *world) policy(src string) { w.Policy = policy(w.t, src) }

// add publishes a bundle beside the image.
func (w *world) add(b []byte) {
	w.Candidates = append(w.Candidates, Candidate{Source: fmt.Sprint("referrer ", len(w.Candidates)), Bundle: b})
}

// release publishes a release by a key, after change has changed what is right.
func (w *world) release(by string, change func(*Release)) {
	r := aRelease()
	if change != nil {
		change(&r)
	}
	w.add(bundle(w.t, key(w.t, by), statement(w.t, r, w.Digest)))
}

func (w *world) revoke(by string, issued time.Time) {
	s, err := Revocation{Name: "web", Reason: "CVE-2026-1", Issued: issued}.Statement(w.Digest)
	if err != nil {
		w.t.Fatal(err)
	}
	w.add(bundle(w.t, key(w.t, by), s))
}

func (w *world) attest(by, predicateType string) {
	s, err := NewStatement(w.Digest, predicateType, json.RawMessage(`{"name":"web"}`))
	if err != nil {
		w.t.Fatal(err)
	}
	w.add(bundle(w.t, key(w.t, by), s))
}

func (w *world) classic(by, identity, digest string) {
	c, err := SignClassic(context.Background(), key(w.t, by), ClassicPayload{Reference: identity, Digest: digest})
	if err != nil {
		w.t.Fatal(err)
	}
	w.Candidates = append(w.Candidates, Candidate{Source: "tag", Classic: c})
}

// want checks the answer: a reason for a refusal, or "" for a yes.
func (w *world) want(reason Reason, text string) *Decision {
	w.t.Helper()
	d, err := Verify(w.Input)
	if len(d.Findings) != len(w.Candidates) && err == nil {
		w.t.Errorf("%d findings about %d candidates", len(d.Findings), len(w.Candidates))
	}
	for _, f := range d.Findings {
		if f.Verdict == "" || (f.Verdict == Rejected) != (f.Reason != "") || f.Text == "" {
			w.t.Errorf("finding %+v", f)
		}
		if strings.ContainsAny(f.Text, "\x1b\n\x00") {
			w.t.Errorf("control characters in %q", f.Text)
		}
	}
	if reason == "" {
		if err != nil {
			w.t.Errorf("refused: %v", err)
		} else if len(d.Keys) == 0 {
			w.t.Error("accepted by nobody's key")
		}
		return d
	}
	var e *Error
	if !errors.As(err, &e) {
		w.t.Errorf("got %v, want reason %q", err, reason)
		return d
	}
	if e.Reason != reason || !strings.Contains(e.Text, text) {
		w.t.Errorf("got reason %q (%s), want %q (%s)", e.Reason, e.Text, reason, text)
	}
	unknown := reason == ReasonHidden || reason == ReasonClock
	if errors.Is(err, ErrUndetermined) != unknown || errors.Is(err, ErrNotVerified) == unknown {
		w.t.Errorf("%v: neither no nor unknown, or the wrong one", err)
	}
	if d.Release != nil || len(d.Keys) != 0 {
		w.t.Errorf("refused, but the decision has %+v by %q", d.Release, d.Keys)
	}
	return d
}

func (w *world) verdict(i int, want Verdict, reason Reason) {
	w.t.Helper()
	d, _ := Verify(w.Input)
	if f := d.Findings[i]; f.Verdict != want || f.Reason != reason {
		w.t.Errorf("candidate %d: %q (%q), want %q (%q): %s", i, f.Verdict, f.Reason, want, reason, f.Text)
	}
}

func TestVerifyRelease(t *testing.T) {
	w := newWorld(t)
	w.release("release", nil)
	w.attest("release", PredicateSPDX)
	w.classic("release", "registry.example/isc/web", w.Digest)
	w.Name = "web"
	w.NotBefore = now
	w.Acquired = []Acquired{{Name: "web", Channel: "stable", Epoch: 6, Digest: digestOf("web 1.3.0"), MinimumEpoch: 3}, {Name: "db", Channel: "stable", Epoch: 100}}
	d := w.want("", "")
	if d.Release == nil || d.Release.Epoch != 7 || !slices.Equal(d.Keys, []string{"release"}) || d.Rule != "registry.example/isc" || d.Downgrade {
		t.Errorf("decision %+v", d)
	}
	w.verdict(0, Accepted, "")
	w.verdict(1, Information, "")
	w.verdict(2, Information, "")
	if d.Findings[1].Statement == nil || d.Findings[1].Type != PredicateSPDX {
		t.Errorf("finding %+v", d.Findings[1])
	}
}

const signaturePolicy = `
key "release" {
  file = "release.pub"
}
key "backup" {
  file = "backup.pub"
}
rule "*" {
  keys      = ["release", "backup"]
  threshold = 2
  accept    = "signature"
}
`

func TestVerifySignature(t *testing.T) {
	w := newWorld(t)
	w.policy(signaturePolicy)
	w.classic("release", "registry.example/isc/web:1.4.0", w.Digest)
	w.want(ReasonThreshold, "signed by 1 of the 2 keys")
	w.attest("release", PredicateSignature) // the same key again
	w.want(ReasonThreshold, "signed by 1 of the 2 keys")
	w.attest("backup", PredicateSignature)
	if d := w.want("", ""); d.Release != nil || !slices.Equal(d.Keys, []string{"backup", "release"}) {
		t.Errorf("decision %+v", d)
	}
	w.verdict(0, Accepted, "")
	w.revoke("backup", now)
	w.want(ReasonRevoked, "CVE-2026-1")
}

func TestChannelsInOrder(t *testing.T) {
	w := newWorld(t)
	w.policy(`
key "release" {
  file = "release.pub"
}
rule "*" {
  keys     = ["release"]
  channels = ["candidate", "stable"]
}
`)
	w.release("release", nil)
	w.release("release", func(r *Release) { r.Channel, r.Epoch, r.MinimumEpoch = "candidate", 1, 0 })
	if d := w.want("", ""); d.Release.Channel != "candidate" {
		t.Errorf("channel %q", d.Release.Channel)
	}
	w.Acquired = []Acquired{{Name: "web", Channel: "candidate", Epoch: 2, Digest: digestOf("x")}}
	if d := w.want("", ""); d.Release.Channel != "stable" {
		t.Errorf("channel %q", d.Release.Channel)
	}
	w.verdict(1, Rejected, ReasonDowngrade)
}

func TestDowngradeByPolicy(t *testing.T) {
	w := newWorld(t)
	w.policy(`
key "release" {
  file = "release.pub"
}
rule "*" {
  keys      = ["release"]
  downgrade = "allow"
}
`)
	w.release("release", nil)
	w.Acquired = []Acquired{{Name: "web", Channel: "stable", Epoch: 8, Digest: digestOf("web 1.5.0"), MinimumEpoch: 3}}
	if d := w.want("", ""); !d.Downgrade {
		t.Error("the decision does not tell that it is a downgrade")
	}
	w.Acquired[0].MinimumEpoch = 8
	w.want(ReasonDowngrade, "below the minimum epoch 8")
}

func statementOf(t testing.TB, r Revocation, digest string) *Statement {
	t.Helper()
	s, err := r.Statement(digest)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestReleases(t *testing.T) {
	w := newWorld(t)
	w.release("release", nil)
	w.release("release", func(r *Release) { r.Epoch, r.Channel = 9, "candidate" })
	w.release("release", func(r *Release) { r.Issued, r.Expires = now.Add(-9*day), now.Add(-8*day) })
	w.release("stranger", func(r *Release) { r.Epoch = 100 })
	w.attest("release", PredicateSPDX)
	w.classic("release", "registry.example/isc/web", w.Digest)
	w.revoke("release", now)
	w.add(bundle(t, key(t, "release"), statement(t, aRelease(), digestOf("web 1.3.0"))))
	w.Candidates = append(w.Candidates, w.Candidates[0])
	var got []string
	for _, r := range Releases(w.Digest, w.Candidates, key(t, "other").Public(), key(t, "release").Public()) {
		got = append(got, fmt.Sprint(r.Epoch, r.Channel, r.Issued.Day()))
	}
	if want := []string{"9candidate24", "7stable24", "7stable16"}; !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
	if Releases(w.Digest, w.Candidates) != nil {
		t.Error("releases without a key")
	}
}

func TestVerifyRefusesNonsense(t *testing.T) {
	for name, change := range map[string]func(*Input){
		"digest":  func(in *Input) { in.Digest = "latest" },
		"policy":  func(in *Input) { in.Policy = nil },
		"time":    func(in *Input) { in.Now = time.Time{} },
		"no keys": func(in *Input) { in.Policy = ForKeys() },
	} {
		w := newWorld(t)
		w.release("release", nil)
		change(&w.Input)
		d, err := Verify(w.Input)
		if err == nil || errors.Is(err, ErrNotVerified) || errors.Is(err, ErrUndetermined) || d.Release != nil {
			t.Errorf("%s: %v, %+v", name, err, d)
		}
	}
}

// TestExplanation holds how a decision reads.
func TestExplanation(t *testing.T) {
	w := newWorld(t)
	w.release("release", nil)
	w.release("release", func(r *Release) { r.Issued = r.Issued.Add(-day) })
	w.release("stranger", nil)
	w.release("release", func(r *Release) { r.Channel = "candidate" })
	w.attest("release", PredicateSPDX)
	w.classic("release", "registry.example/isc/web", w.Digest)
	w.add([]byte("{}"))
	d, err := Verify(w.Input)
	if err != nil {
		t.Fatal(err)
	}
	var b strings.Builder
	for _, f := range d.Findings {
		fmt.Fprintf(&b, "%s: %s (%s), type %q, key %q\n  %s\n", f.Source, f.Verdict, f.Reason, f.Type, f.Key, f.Text)
	}
	golden(t, "explanation.golden", []byte(b.String()))
}

// BenchmarkVerifyBesideSBOM has an attestation of a megabyte beside the release.
func BenchmarkVerifyBesideSBOM(b *testing.B) {
	w := newWorld(b)
	w.release("release", nil)
	item := `{"SPDXID":"SPDXRef-1","name":"libc6","versionInfo":"2.36-9","licenseConcluded":"NOASSERTION"},`
	s, err := NewStatement(w.Digest, PredicateSPDX, json.RawMessage("["+strings.Repeat(item, 7000)+"1]"))
	if err != nil {
		b.Fatal(err)
	}
	w.add(bundle(b, key(b, "release"), s))
	b.SetBytes(int64(len(w.Candidates[1].Bundle)))
	for b.Loop() {
		if _, err := Verify(w.Input); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkVerify(b *testing.B) {
	w := newWorld(b)
	w.release("release", nil)
	w.attest("release", PredicateSPDX)
	w.attest("release", PredicateSignature)
	w.classic("release", "registry.example/isc/web", w.Digest)
	for b.Loop() {
		if _, err := Verify(w.Input); err != nil {
			b.Fatal(err)
		}
	}
}

func TestAttested(t *testing.T) {
	w := newWorld(t)
	stranger := bundle(t, key(t, "stranger"), statement(t, aRelease(), w.Digest))
	other := bundle(t, key(t, "release"), statement(t, aRelease(), digestOf("web 1.3.0")))
	good := bundle(t, key(t, "release"), statement(t, aRelease(), w.Digest))
	for _, list := range [][][]byte{{}, {stranger}, {other}, {[]byte("{}")}, {stranger, other}} {
		w.Candidates = nil
		for _, b := range list {
			w.add(b)
		}
		if got, err := Attested(w.Input); got != nil || !errors.Is(err, ErrNotVerified) {
			t.Errorf("%d bundles: %v", len(list), err)
		}
	}
	w.add(good)
	if got, err := Attested(w.Input); err != nil || string(got) != string(good) {
		t.Errorf("%v", err)
	}
	w.Policy.Rules[0].Keys[0].NotAfter = w.Now.Add(-1)
	if _, err := Attested(w.Input); !errors.Is(err, ErrNotVerified) {
		t.Errorf("the key's time is over: %v", err)
	}
	w.Policy.Rules = nil
	if _, err := Attested(w.Input); !errors.Is(err, ErrNotVerified) {
		t.Errorf("no rule: %v", err)
	}
}
