package main

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"io"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
	"github.com/secure-systems-lab/go-securesystemslib/dsse"

	"github.com/goldenisc/packer-plugin-isc/registry"
	"github.com/goldenisc/packer-plugin-isc/signing"
)

// TestAttacks runs one script for each attack on releases. Each finds the keys one and two, each in
// NAME.key and NAME.pub, a spec, and policies that take releases of stable by the first and by both;
// $HIDING is the address of the same registry through somebody who keeps signatures back, $EMPTY
// through somebody who denies that there are any.
func TestAttacks(t *testing.T) {
	scripts(t, "testdata/attack/*.txtar", func(e *testscript.Env) error {
		e.Setenv("HIDING", between(e, http.StatusServiceUnavailable))
		e.Setenv("EMPTY", between(e, http.StatusNotFound))
		return keysAndPolicies(e)
	})
}

// keysAndPolicies writes the keys one and two, a spec, and policies that take releases by them.
func keysAndPolicies(e *testscript.Env) error {
	for _, name := range []string{"one", "two"} {
		private, public, err := fixedKey(name)
		if err != nil {
			return err
		}
		if err := os.WriteFile(filepath.Join(e.WorkDir, name+".key"), private, 0o600); err != nil {
			return err
		}
		if err := os.WriteFile(filepath.Join(e.WorkDir, name+".pub"), public, 0o644); err != nil {
			return err
		}
	}
	for name, text := range map[string]string{
		"web.isc.hcl": "image {\n  name    = \"web\"\n  version = \"1\"\n  os      = \"linux\"\n  arch    = \"amd64\"\n}\n\nbase {\n  source = \"skeleton:linux\"\n}\n",
		"one.hcl":     "key \"one\" {\n  file = \"one.pub\"\n}\n\nrule \"*\" {\n  keys = [\"one\"]\n}\n",
		"both.hcl":    "key \"one\" {\n  file = \"one.pub\"\n}\n\nkey \"two\" {\n  file = \"two.pub\"\n}\n\nrule \"*\" {\n  keys      = [\"one\", \"two\"]\n  threshold = 2\n}\n",
	} {
		if err := os.WriteFile(filepath.Join(e.WorkDir, name), []byte(text), 0o644); err != nil {
			return err
		}
	}
	return nil
}

// fixedKey makes the same unencrypted key at every run.
func fixedKey(name string) (private, public []byte, err error) {
	seed := sha256.Sum256([]byte(name))
	k, err := ecdsa.ParseRawPrivateKey(elliptic.P256(), seed[:])
	if err != nil {
		return nil, nil, err
	}
	der, err := x509.MarshalPKCS8PrivateKey(k)
	if err != nil {
		return nil, nil, err
	}
	private = pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})
	key, err := signing.ParseKey(private, nil)
	if err != nil {
		return nil, nil, err
	}
	return private, key.Public().PEM(), nil
}

// aboutOthers is what a registry has only of what is said about images.
var aboutOthers = regexp.MustCompile(`/referrers/sha256:|/manifests/sha256-[0-9a-f]{64}`)

// between answers in the place of the registry, with a status, whoever asks for signatures.
func between(e *testscript.Env, status int) string {
	to, _ := url.Parse("http://" + e.Getenv("REGISTRY"))
	forward := httputil.NewSingleHostReverseProxy(to)
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if aboutOthers.MatchString(r.URL.Path) {
			w.WriteHeader(status)
			return
		}
		forward.ServeHTTP(w, r)
	}))
	e.Defer(s.Close)
	return strings.TrimPrefix(s.URL, "http://")
}

// A place is where an attacker with write access puts statements beside an image.
type place struct {
	ts      *testscript.TestScript
	target  registry.Target
	subject registry.Descriptor
}

func openPlace(ts *testscript.TestScript, name string) *place {
	if dir, ok := strings.CutPrefix(name, "oci:"); ok {
		name = "oci:" + ts.MkAbs(dir)
	}
	ref, err := registry.Parse(name)
	ts.Check(err)
	p := &place{ts: ts}
	p.target, err = registry.OpenTarget(context.Background(), ref, registry.Options{})
	ts.Check(err)
	p.subject, err = p.target.Resolve(context.Background(), ref.Tag)
	ts.Check(err)
	return p
}

// put attaches a bundle to the image, whatever it is about.
func (p *place) put(bundle []byte, annotations map[string]string) {
	ctx := context.Background()
	blob := func(data []byte) map[string]any {
		sum := sha256.Sum256(data)
		d := registry.Descriptor{Digest: "sha256:" + hex.EncodeToString(sum[:]), Size: int64(len(data))}
		p.ts.Check(p.target.CopyBlob(ctx, d, func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(data)), nil }))
		return map[string]any{"digest": d.Digest, "size": d.Size}
	}
	config, layer := blob([]byte("{}")), blob(bundle)
	config["mediaType"], layer["mediaType"] = "application/vnd.oci.empty.v1+json", signing.TypeBundle
	data, err := json.Marshal(map[string]any{
		"schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json", "artifactType": signing.TypeBundle,
		"config": config, "layers": []any{layer}, "annotations": annotations,
		"subject": map[string]any{"mediaType": p.subject.MediaType, "digest": p.subject.Digest, "size": p.subject.Size},
	})
	p.ts.Check(err)
	d, err := p.target.PutManifest(ctx, data, "")
	p.ts.Check(err)
	d.ArtifactType, d.Annotations = signing.TypeBundle, annotations
	p.ts.Check(p.target.AddReferrers(ctx, p.subject.Digest, []registry.Descriptor{d}))
}

// graft attaches all that is said about one image to another one: graft FROM TO.
func graft(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: graft from to")
	}
	ctx := context.Background()
	from, to := openPlace(ts, args[0]), openPlace(ts, args[1])
	defer from.target.Close()
	defer to.target.Close()
	list, err := registry.Statements(ctx, from.target, from.subject.Digest)
	ts.Check(err)
	if len(list) == 0 {
		ts.Fatalf("nothing is said about %s", args[0])
	}
	for _, c := range list {
		if c.Classic == nil {
			to.put(c.Bundle, nil)
			continue
		}
		ts.Check(registry.Attach(ctx, to.target, to.subject.Digest, nil, c.Classic))
	}
}

// attest signs any predicate about an image: attest REF KEY TYPE FILE. In the file $NOW is
// the time, $LATER a day after it.
func attest(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 4 {
		ts.Fatalf("usage: attest ref key type file")
	}
	p := openPlace(ts, args[0])
	defer p.target.Close()
	k, err := signing.ParseKey([]byte(ts.ReadFile(args[1])), nil)
	ts.Check(err)
	now := time.Now().UTC().Truncate(time.Second)
	text := strings.NewReplacer("$NOW", now.Format(time.RFC3339), "$LATER", now.Add(24*time.Hour).Format(time.RFC3339)).Replace(strings.TrimSpace(ts.ReadFile(args[3])))
	// Not through NewStatement alone: what is wrong has to get through.
	payload := `{"_type":"https://in-toto.io/Statement/v1","subject":[{"digest":{"sha256":"` + strings.TrimPrefix(p.subject.Digest, "sha256:") +
		`"}}],"predicateType":"` + args[2] + `","predicate":` + text + `}`
	sig, err := k.Sign(context.Background(), dsse.PAE(signing.TypePayload, []byte(payload)))
	ts.Check(err)
	b := signing.Bundle{Hint: k.Public().ID(), Payload: []byte(payload), Signature: sig}
	data, err := b.Marshal()
	ts.Check(err)
	p.put(data, nil)
}
