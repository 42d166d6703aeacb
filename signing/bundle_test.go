package signing

import (
	"bytes"
	"context"
	"encoding/json"
	"strings"
	"testing"
)

// indent shows a document for people.
func indent(t *testing.T, data []byte) string {
	t.Helper()
	var b bytes.Buffer
	if err := json.Indent(&b, data, "", "  "); err != nil {
		t.Fatal(err)
	}
	return b.String() + "\n"
}

// TestGolden holds every byte that is signed and stored, so that no change goes unnoticed. The keys
// are always the same and signatures of local keys have no randomness.
func TestGolden(t *testing.T) {
	k := key(t, "golden")
	digest := digestOf("web")
	subject := Descriptor{MediaType: "application/vnd.oci.image.index.v1+json", Digest: digest, Size: 1234}
	signature, err := NewSignature(digest)
	if err != nil {
		t.Fatal(err)
	}
	revocation, err := Revocation{Name: "web", Reason: "CVE-2026-1 <in webd>", Issued: now}.Statement(digest)
	if err != nil {
		t.Fatal(err)
	}
	provenance, err := NewStatement(digest, PredicateProvenance, json.RawMessage(`{"buildDefinition": {}}`))
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name string
		s    *Statement
	}{
		{"signature", signature},
		{"release", statement(t, aRelease(), digest)},
		{"revocation", revocation},
		{"provenance", provenance},
	} {
		b := bundle(t, k, c.s)
		m, err := Referrer(b, subject, now)
		if err != nil {
			t.Fatal(err)
		}
		parsed, err := ParseBundle(b)
		if err != nil {
			t.Fatal(err)
		}
		golden(t, c.name+".golden", []byte("statement "+indent(t, parsed.Payload)+"bundle "+indent(t, b)+"manifest "+indent(t, m.Data)))
	}

	c, err := SignClassic(context.Background(), k, ClassicPayload{Reference: "registry.example/isc/web", Digest: digest})
	if err != nil {
		t.Fatal(err)
	}
	m, err := AddClassic(nil, digest, c)
	if err != nil {
		t.Fatal(err)
	}
	golden(t, "classic.golden", []byte("payload "+indent(t, c.Payload)+"tag "+m.Tag+"\nmanifest "+indent(t, m.Data)+"config "+indent(t, m.Blobs[0].Data)))
}

func TestBundleRoundTrip(t *testing.T) {
	for _, algorithm := range []string{"P-256", "P-384", "Ed25519", "RSA"} {
		k, err := newKey(signer(t, algorithm, "one"))
		if err != nil {
			t.Fatal(err)
		}
		s := statement(t, aRelease(), digestOf("web"))
		one, two := bundle(t, k, s), bundle(t, k, s)
		if !bytes.Equal(one, two) {
			t.Errorf("%s: signed twice, the bundles differ", algorithm)
		}
		b, err := ParseBundle(one)
		if err != nil {
			t.Fatal(err)
		}
		if b.Hint != k.Public().ID() {
			t.Errorf("%s: hint %q, want %q", algorithm, b.Hint, k.Public().ID())
		}
		if err := b.Verify(k.Public()); err != nil {
			t.Errorf("%s: %v", algorithm, err)
		}
		b.Payload[0] ^= 1
		if b.Verify(k.Public()) == nil {
			t.Errorf("%s: a changed payload verifies", algorithm)
		}
	}
}

// A hostile document, and what has to be said of it; "" if it is harmless.
type hostile struct{ name, data, want string }

// hostileBundles has one way each in which two readers could understand a bundle differently, or in
// which parts of it could belong to something else.
func hostileBundles(t testing.TB) []hostile {
	good := string(bundle(t, key(t, "one"), statement(t, aRelease(), digestOf("web"))))
	var doc bundleJSON
	if err := json.Unmarshal([]byte(good), &doc); err != nil {
		t.Fatal(err)
	}
	payload, sig := doc.DSSEEnvelope.Payload, doc.DSSEEnvelope.Signatures[0].Sig
	swap := func(old, new string) string {
		if !strings.Contains(good, old) {
			t.Fatalf("%q is not in it", old)
		}
		return strings.Replace(good, old, new, 1)
	}
	return []hostile{
		{"good", good, ""},
		{"spaces", "\n " + strings.ReplaceAll(good, `":`, `" : `), ""},
		{"empty", "", "not the JSON"},
		{"cut off", good[:len(good)-1], "not the JSON"},
		{"null", "null", "media type"},
		{"list", "[]", "cannot unmarshal"},
		{"two documents", good + "{}", "data behind"},
		{"not UTF-8", swap(`"hint":"`, "\"hint\":\"\xff"), "not UTF-8"},
		{"next major version", swap("bundle.v0.3+json", "bundle.v1.0+json"), "media type"},
		{"old version", swap(TypeBundle, "application/vnd.dev.sigstore.bundle+json;version=0.2"), "media type"},
		{"unknown member", swap(`{"mediaType"`, `{"extra":1,"mediaType"`), `unknown field "extra"`},
		{"member twice", swap(`"payloadType":`, `"payload":"e30=","payloadType":`), `member "payload" twice`},
		{"member in another case", swap(`"payloadType":`, `"Payload":"e30=","payloadType":`), `member "Payload": want "payload"`},
		{"member only in another case", swap(`"payload":`, `"PAYLOAD":`), `member "PAYLOAD": want "payload"`},
		{"member with a long s", swap(`"sig":`, `"ſig":`), `want "sig"`},
		{"certificate", swap(`"publicKey":`, `"certificate":{"rawBytes":"AA=="},"publicKey":`), "signed with a certificate"},
		{"certificate alone", swap(`"publicKey":{"hint":"`+doc.VerificationMaterial.PublicKey.Hint+`"}`, `"certificate":{}`), "signed with a certificate"},
		{"certificate chain", swap(`"publicKey":`, `"x509CertificateChain":{},"publicKey":`), "signed with a certificate"},
		{"key in the bundle", swap(`"hint":`, `"rawBytes":"AA==","hint":`), `unknown field "rawBytes"`},
		{"no key", swap(`"publicKey":{"hint":"`+doc.VerificationMaterial.PublicKey.Hint+`"}`, ``), "no public key"},
		{"message signature", swap(`"dsseEnvelope":`, `"messageSignature":{},"dsseEnvelope":`), "signs a message"},
		{"no envelope", `{"mediaType":"` + TypeBundle + `","verificationMaterial":{"publicKey":{}}}`, "no DSSE envelope"},
		{"other payload", swap(TypePayload, "application/json"), `payload of type "application/json"`},
		{"no signature", swap(`[{"sig":"`+sig+`"}]`, `[]`), "0 signatures"},
		{"two signatures", swap(`{"sig":"`+sig+`"}`, `{"sig":"`+sig+`"},{"sig":"`+sig+`"}`), "2 signatures"},
		{"empty signature", swap(sig, ""), "signature: not canonical"},
		{"line break in base64", swap(payload, payload[:8]+`\n`+payload[8:]), "payload: not canonical"},
		{"no padding", swap(sig, strings.TrimRight(sig, "=")), "signature: "},
		{"URL base64", swap(payload, "_-8="), "payload: illegal base64"},
		{"loose last bits", swap(sig, "AB=="), "signature: illegal base64"},
		{"transparency log", swap(`"publicKey":`, `"tlogEntries":[{"a":{"b":[]}}],"timestampVerificationData":{},"publicKey":`), ""},
		{"deep", swap(`"publicKey":`, `"tlogEntries":`+strings.Repeat("[", 1e5)+strings.Repeat("]", 1e5)+`,"publicKey":`), "not the JSON"},
		{"large", good + strings.Repeat(" ", MaxAttestation), "more than 16777216"},
		{"gzip", "\x1f\x8b\x08\x00\x00\x00\x00\x00", "not UTF-8"},
	}
}

func TestParseBundleRefuses(t *testing.T) {
	for _, c := range hostileBundles(t) {
		t.Run(c.name, func(t *testing.T) {
			_, err := ParseBundle([]byte(c.data))
			wantError(t, err, c.want)
		})
	}
}

func TestBundleSizes(t *testing.T) {
	document := func(n int) json.RawMessage { return json.RawMessage(`"` + strings.Repeat("x", n) + `"`) }
	large, err := NewStatement(digestOf("web"), PredicateSPDX, document(2<<20))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := SignBundle(context.Background(), key(t, "one"), large); err != nil {
		t.Error(err)
	}
	large.Predicate = document(MaxAttestation)
	_, err = SignBundle(context.Background(), key(t, "one"), large)
	wantError(t, err, "more than 16777216")
	large.PredicateType, large.Predicate = PredicateSignature, document(MaxBundle)
	_, err = SignBundle(context.Background(), key(t, "one"), large)
	wantError(t, err, "more than 1048576")
}

func FuzzParseBundle(f *testing.F) {
	for _, c := range hostileBundles(f) {
		if len(c.data) < 1<<16 {
			f.Add([]byte(c.data))
		}
	}
	f.Add([]byte(`{"mediaType":"` + TypeBundle + `","verificationMaterial":{"publicKey":{},"tlogEntries":[]},"dsseEnvelope":{"payload":"e30=","payloadType":"` + TypePayload + `","signatures":[{"sig":"AA==","keyid":""}]}}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		b, err := ParseBundle(data)
		if err != nil {
			return
		}
		again, err := b.Marshal()
		if err != nil {
			t.Fatal(err)
		}
		c, err := ParseBundle(again)
		if err != nil {
			t.Fatalf("what was parsed is written as %q: %v", again, err)
		}
		if c.Hint != b.Hint || !bytes.Equal(c.Payload, b.Payload) || !bytes.Equal(c.Signature, b.Signature) {
			t.Errorf("%q became %q", data, again)
		}
	})
}
