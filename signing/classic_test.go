package signing

import (
	"context"
	"encoding/base64"
	"strings"
	"testing"
)

func TestClassic(t *testing.T) {
	ctx, k := context.Background(), key(t, "one")
	p := ClassicPayload{Reference: "registry.example/isc/web", Digest: digestOf("web")}
	c, err := SignClassic(ctx, k, p)
	if err != nil {
		t.Fatal(err)
	}
	again, err := ParseClassic(c.Payload, base64.StdEncoding.EncodeToString(c.Signature))
	if err != nil || again.Verify(k.Public()) != nil {
		t.Fatalf("does not verify (%v)", err)
	}
	if got, err := again.Parse(); err != nil || got != p {
		t.Errorf("got %+v, %v", got, err)
	}
	if again.Verify(key(t, "two").Public()) == nil {
		t.Error("another key verifies it")
	}
	_, err = SignClassic(ctx, k, ClassicPayload{Reference: "x", Digest: "y"})
	wantError(t, err, `digest "y"`)
	_, err = SignClassic(ctx, k, ClassicPayload{Reference: strings.Repeat("x", MaxClassic), Digest: digestOf("web")})
	wantError(t, err, "more than 65536")
	for _, sig := range []string{"", "AB==", "AA", "AA==\n", strings.Repeat("A", MaxClassic+4)} {
		if _, err := ParseClassic(c.Payload, sig); err == nil {
			t.Errorf("%.10q: taken", sig)
		}
	}
	good := string(c.Payload)
	for _, bad := range []struct{ old, new, want string }{
		{classicType, "atomic container signature", "type "},
		{`"registry.example/isc/web"`, `""`, "no identity"},
		{"sha256:", "sha512:", "digest "},
		{`"critical":`, `"critical":{},"critical":`, `member "critical" twice`},
		{`"critical":`, `"Critical":`, `want "critical"`},
		{`"type":`, `"more":1,"type":`, "unknown field"},
		{`"optional":null}`, `"optional":null} {}`, "data behind"},
		{`"optional":null`, `"optional":{"Image":"x","creator":"y"}`, ""},
	} {
		x := Classic{Payload: []byte(strings.Replace(good, bad.old, bad.new, 1))}
		_, err := x.Parse()
		wantError(t, err, bad.want)
	}
}

func FuzzParseClassic(f *testing.F) {
	c, err := SignClassic(context.Background(), key(f, "one"), ClassicPayload{Reference: "registry.example/isc/web", Digest: digestOf("web")})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(c.Payload, c.encoded())
	f.Add([]byte(`{"critical":{"identity":{"docker-reference":"a"},"image":{"docker-manifest-digest":"`+digestOf("a")+`"},"type":"cosign container image signature"},"optional":{"a":[{}]}}`), "AA==")
	f.Fuzz(func(t *testing.T, payload []byte, sig string) {
		c, err := ParseClassic(payload, sig)
		if err != nil {
			return
		}
		if c.encoded() != sig {
			t.Errorf("%q became %q", sig, c.encoded())
		}
		p, err := c.Parse()
		if err == nil && (p.Reference == "" || checkDigest(p.Digest) != nil) {
			t.Errorf("%q is %+v", payload, p)
		}
	})
}
