package signing

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/json"
	"errors"
	"math/big"
	"os"
	"strings"
	"testing"
	"time"
)

// TestConformance rebuilds the bundles of sigstore/sigstore-conformance (test/assets/bundle-verify, as
// of August 2026) that a verifier has to refuse, under their names without "_fail", with keys and
// certificates of our own. Those that are wrong in what a log or a time-stamping authority says are
// signed by a certificate, which is refused whatever else is in them; to show that no such part ever
// helps, each is tried as well with a key that the policy does not have.
func TestConformance(t *testing.T) {
	cert := certificate(t)
	good := string(bundle(t, key(t, "release"), statement(t, aRelease(), digestOf("web"))))
	stranger := string(bundle(t, key(t, "stranger"), statement(t, aRelease(), digestOf("web"))))
	other := string(bundle(t, key(t, "release"), statement(t, aRelease(), digestOf("web 1.3.0"))))
	part := func(b, name string) string { // a member of the envelope, with its quotes
		_, rest, ok := strings.Cut(b, `"`+name+`":`)
		if !ok {
			t.Fatalf("no %q in %s", name, b)
		}
		return rest[:strings.IndexByte(rest[1:], '"')+2]
	}
	keyed := good[strings.Index(good, `"publicKey"`):strings.Index(good, `},"dsseEnvelope"`)]
	if !strings.HasSuffix(keyed, "}") {
		t.Fatal(keyed)
	}
	replace := func(from, to string) string {
		if !strings.Contains(good, from) {
			t.Fatalf("no %q in %s", from, good)
		}
		return strings.Replace(good, from, to, 1)
	}
	signature := part(good, "sig")
	message := `"messageSignature":{"messageDigest":{"algorithm":"SHA2_256","digest":"` + b64(32) + `"},"signature":` + signature + `}`
	envelope := good[strings.Index(good, `"dsseEnvelope"`) : len(good)-1]

	for name, b := range map[string]string{
		"bundle-empty-certificate-chain":  replace(keyed, `"x509CertificateChain":{"certificates":[]}`),
		"bundle-from-wrong-instance":      replace(keyed, cert),
		"bundle-invalid-base64-signature": replace(signature, `"%%%`+signature[4:]),
		"bundle-malformed-json":           good[:len(good)-1],
		"bundle-negative-log-index":       replace(keyed, cert+`,"tlogEntries":[{"logIndex":"-1"}]`),
		"bundle-unknown-version":          replace("v0.3+json", "v9.9+json"),
		"bundle-with-root-cert":           replace(keyed, `"x509CertificateChain":{"certificates":[`+cert[strings.IndexByte(cert, '{'):]+`]}`),
		"dsse-invalid-sig":                replace(signature, `"`+b64(70)+`"`),
		"dsse-mismatch-envelope":          replace(part(good, "payload"), part(other, "payload")),
		"dsse-mismatch-sig":               replace(signature, part(other, "sig")),
		"incorrect-public-key":            stranger,
		"managed-key-no-key":              replace(keyed, `"tlogEntries":[]`),
		"managed-key-wrong-key":           stranger,
		"message-digest-mismatch":         replace(envelope, message),
		"signature-mismatch":              replace(envelope, strings.Replace(message, signature, `"`+b64(70)+`"`, 1)),
		"wrong-material":                  replace(keyed, `"publicKey":{"hint":"x"},`+cert),
	} {
		t.Run(name, func(t *testing.T) { refused(t, b) })
	}

	// Wrong in what a log, a certificate authority or a time-stamping authority says.
	for _, name := range []string{
		"checkpoint-bad-keyhint", "checkpoint-wrong-roothash", "inclusion-proof-corrupted-hash", "integrated-time-in-future",
		"intoto-expired-certificate", "intoto-log-entry-mismatch", "intoto-missing-inclusion-proof", "intoto-set-outside-signing-cert-validity",
		"intoto-tsa-timestamp-outside-cert-validity", "invalid-checkpoint-signature", "invalid-ct-key", "invalid-inclusion-proof",
		"rekor2-checkpoint-missing-log-signature", "rekor2-checkpoint-missing-origin", "rekor2-checkpoint-missing-root-hash",
		"rekor2-checkpoint-missing-size", "rekor2-checkpoint-no-matching-signature", "rekor2-dsse-invalid-sig", "rekor2-dsse-mismatch-envelope",
		"rekor2-dsse-mismatch-sig", "rekor2-no-inclusion-proof", "rekor2-no-timestamp", "rekor2-timestamp-outside-trust-root-tsa-validity",
		"rekor2-timestamp-outside-tsa-cert-validity", "rekor2-timestamp-payload-mismatch", "rekor2-timestamp-untrusted-tsa-with-embedded-cert",
		"rekor2-timestamp-untrusted-tsa-without-embedded-cert", "rekor2-timestamp-with-incorrect-time", "set-invalid-signature",
		"trust-root-tlog-missing-validity-start", "wrong-hashedrekord-artifact", "wrong-hashedrekord-cert-and-sig", "wrong-hashedrekord-entry",
	} {
		t.Run(name, func(t *testing.T) {
			evidence := `"tlogEntries":[{"logIndex":"1","logId":{"keyId":"` + b64(32) + `"},"integratedTime":"1735689600","canonicalizedBody":"` + b64(64) +
				`","inclusionProof":{"logIndex":"1","rootHash":"` + b64(32) + `","treeSize":"2","hashes":["` + b64(32) + `"],"checkpoint":{"envelope":"` + name + `"}}}]` +
				`,"timestampVerificationData":{"rfc3161Timestamps":[{"signedTimestamp":"` + b64(64) + `"}]}`
			refused(t, replace(keyed, cert+","+evidence))
			refused(t, strings.Replace(stranger, `"publicKey":`, evidence+`,"publicKey":`, 1))
		})
	}
}

// refused checks that neither a release nor a signature is made of a bundle.
func refused(t *testing.T, b string) {
	t.Helper()
	w := newWorld(t)
	w.Policy.Rules[0].Unreleased = true
	w.add([]byte(b))
	if d, err := Verify(w.Input); !errors.Is(err, ErrNotVerified) || d.Findings[0].Verdict != Rejected {
		t.Errorf("%v", err)
	}
	if got, err := Attested(w.Input); got != nil || err == nil {
		t.Error("it attests something")
	}
}

func b64(n int) string { return base64.StdEncoding.EncodeToString(make([]byte, n)) }

// certificate makes the material of a bundle that is signed with one.
func certificate(t *testing.T) string {
	t.Helper()
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	c := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "web"}, EmailAddresses: []string{"web@example.com"},
		NotBefore: now, NotAfter: now.Add(10 * time.Minute),
	}
	der, err := x509.CreateCertificate(rand.Reader, c, c, k.Public(), k)
	if err != nil {
		t.Fatal(err)
	}
	return `"certificate":{"rawBytes":"` + base64.StdEncoding.EncodeToString(der) + `"}`
}

// TestTwoSignatures: one valid signature does not make up for another that is not, nor the other way.
func TestTwoSignatures(t *testing.T) {
	var doc map[string]any
	if err := json.Unmarshal(bundle(t, key(t, "release"), statement(t, aRelease(), digestOf("web"))), &doc); err != nil {
		t.Fatal(err)
	}
	e := doc["dsseEnvelope"].(map[string]any)
	one := e["signatures"].([]any)
	for _, list := range [][]any{{}, {one[0], one[0]}, {one[0], map[string]any{"sig": b64(70)}}} {
		e["signatures"] = list
		data, err := json.Marshal(doc)
		if err != nil {
			t.Fatal(err)
		}
		refused(t, string(data))
	}
}

// TestDocumented: the manual of the formats knows every member of our predicates.
func TestDocumented(t *testing.T) {
	doc, err := os.ReadFile("../docs/format.md")
	if err != nil {
		t.Fatal(err)
	}
	_, text, _ := strings.Cut(string(doc), "\n## Statements\n")
	for _, s := range []schema{releaseSchema, revocationSchema} {
		for _, name := range s.exact {
			if !strings.Contains(text, "`"+name+"`") {
				t.Errorf("%q is not in it", name)
			}
		}
	}
	for _, typ := range []string{PredicateRelease, PredicateRevocation, PredicateSignature, PredicateProvenance, PredicateSPDX, PredicateCycloneDX, TypeBundle} {
		if !strings.Contains(text, "`"+typ+"`") {
			t.Errorf("%q is not in it", typ)
		}
	}
}
