package interop

import (
	"bytes"
	"context"
	"errors"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/goldenisc/packer-plugin-isc/registry"
	"github.com/goldenisc/packer-plugin-isc/signing"
)

// cosign runs cosign in dir with nothing of the user's.
func cosign(t *testing.T, dir string, args ...string) (string, error) {
	t.Helper()
	program, err := exec.LookPath("cosign")
	if err != nil {
		if os.Getenv("ISC_REAL") != "" {
			t.Fatal(err)
		}
		t.Skip("SKIP: cosign is not on PATH")
	}
	cmd := exec.Command(program, args...)
	cmd.Dir = dir
	cmd.Env = []string{"HOME=" + dir, "COSIGN_PASSWORD=secret", "PATH=" + os.Getenv("PATH"), "TMPDIR=" + dir}
	out, err := cmd.CombinedOutput()
	return string(out), err
}

func mustCosign(t *testing.T, dir string, args ...string) {
	t.Helper()
	if out, err := cosign(t, dir, args...); err != nil {
		t.Errorf("cosign %s: %v\n%s", strings.Join(args, " "), err, out)
	}
}

func mustNotCosign(t *testing.T, dir string, args ...string) {
	t.Helper()
	if out, err := cosign(t, dir, args...); err == nil {
		t.Errorf("cosign %s succeeds:\n%s", strings.Join(args, " "), out)
	}
}

func write(t *testing.T, dir, name string, data []byte) string {
	t.Helper()
	name = filepath.Join(dir, name)
	if err := os.WriteFile(name, data, 0o600); err != nil {
		t.Fatal(err)
	}
	return name
}

// TestCosignVerifies lets cosign verify what we sign, from both kinds of registry.
func TestCosignVerifies(t *testing.T) {
	for name, private := range keys(t) {
		for _, api := range []bool{true, false} {
			place := "referrers API"
			if !api {
				place = "referrers tag"
			}
			t.Run(name+" "+place, func(t *testing.T) {
				dir := t.TempDir()
				k := parse(t, private)
				i := publish(t, api, "content")
				i.signAll(t, k)
				public := write(t, dir, "key.pub", k.Public().PEM())
				ref := i.repo + ":1.4.0"
				verify := []string{"verify", "--key", public, "--insecure-ignore-tlog"}
				mustCosign(t, dir, append(verify, ref)...)
				mustCosign(t, dir, append(verify, "--new-bundle-format=false", ref)...)
				attestation := []string{"verify-attestation", "--key", public, "--insecure-ignore-tlog", "--type"}
				for _, typ := range []string{"slsaprovenance1", "spdxjson", "cyclonedx", signing.PredicateRelease, signing.PredicateSignature} {
					mustCosign(t, dir, append(attestation, typ, ref)...)
				}
				mustNotCosign(t, dir, append(attestation, signing.PredicateRevocation, ref)...)

				other := parse(t, keys(t)["P-256"])
				write(t, dir, "key.pub", other.Public().PEM())
				mustNotCosign(t, dir, append(verify, ref)...)
				mustNotCosign(t, dir, append(verify, "--new-bundle-format=false", ref)...)
				mustNotCosign(t, dir, append(attestation, "slsaprovenance1", ref)...)
				mustNotCosign(t, dir, append(verify, publish(t, api, "other content").repo+":1.4.0")...)
			})
		}
	}
}

// TestCosignTakesOurKeys: a key that keygen wrote is one of cosign's.
func TestCosignTakesOurKeys(t *testing.T) {
	dir := t.TempDir()
	private, public, err := signing.Generate(func(bool) ([]byte, error) { return []byte("secret"), nil })
	if err != nil {
		t.Fatal(err)
	}
	key := write(t, dir, "our.key", private)
	out, err := cosign(t, dir, "public-key", "--key", key)
	if err != nil || !strings.Contains(out, string(public)) {
		t.Errorf("%v\n%s", err, out)
	}
}

// TestCosignSigned: we verify what cosign signed, as a signature, and not as a release.
func TestCosignSigned(t *testing.T) {
	dir := t.TempDir()
	mustCosign(t, dir, "generate-key-pair", "--output-key-prefix", "cosign")
	for name, private := range keys(t) {
		write(t, dir, name+".pem", private)
		mustCosign(t, dir, "import-key-pair", "--key", name+".pem", "--output-key-prefix", name)
	}
	for _, name := range []string{"cosign", "P-256", "P-384", "Ed25519", "RSA-3072"} {
		for _, format := range []string{"bundle", "classic"} {
			t.Run(name+" "+format, func(t *testing.T) {
				i := publish(t, format == "bundle", "content")
				args := []string{"sign", "--yes", "--key", name + ".key", "--use-signing-config=false", "--tlog-upload=false"}
				if format == "classic" {
					args = append(args, "--new-bundle-format=false")
				}
				mustCosign(t, dir, append(args, i.repo+"@"+i.subject.Digest)...)
				data, err := os.ReadFile(filepath.Join(dir, name+".key"))
				if err != nil {
					t.Fatal(err)
				}
				if _, err := signing.ParseKey(data, func(bool) ([]byte, error) { return []byte("secret"), nil }); err != nil {
					t.Error(err)
				}
				if data, err = os.ReadFile(filepath.Join(dir, name+".pub")); err != nil {
					t.Fatal(err)
				}
				public, err := signing.ParsePublicKey(data)
				if err != nil {
					t.Fatal(err)
				}
				in := signing.Input{
					Digest: i.subject.Digest, Reference: i.ref.String(), Policy: signing.ForKeys(public), Now: time.Now(),
					Candidates: i.candidates(t),
				}
				var refused *signing.Error
				if _, err := signing.Verify(in); !errors.As(err, &refused) || refused.Reason != signing.ReasonNoRelease {
					t.Errorf("as a release: %v", err)
				}
				in.Policy.Rules[0].Unreleased = true
				if d, err := signing.Verify(in); err != nil || d.Release != nil || len(d.Keys) != 1 {
					t.Errorf("as a signature: %v, %+v", err, d)
				}
				in.Policy = signing.ForKeys(parse(t, keys(t)["P-256"]).Public())
				in.Policy.Rules[0].Unreleased = true
				if _, err := signing.Verify(in); !errors.Is(err, signing.ErrNotVerified) {
					t.Errorf("by another key: %v", err)
				}
			})
		}
	}
}

// candidates reads what stands beside the image.
func (i *image) candidates(t *testing.T) []signing.Candidate {
	t.Helper()
	ctx := context.Background()
	read := func(d signing.Descriptor) []byte {
		r, err := i.target.Blob(ctx, registry.Descriptor{MediaType: d.MediaType, Digest: d.Digest, Size: d.Size})
		if err != nil {
			t.Fatal(err)
		}
		defer r.Close()
		var b bytes.Buffer
		if _, err := io.Copy(&b, r); err != nil {
			t.Fatal(err)
		}
		return b.Bytes()
	}
	var list []signing.Candidate
	referrers, err := i.target.Referrers(ctx, i.subject.Digest)
	if err != nil {
		t.Fatal(err)
	}
	for _, d := range referrers {
		manifest, err := i.target.Manifest(ctx, d)
		if err != nil {
			t.Fatal(err)
		}
		if layer, ok := signing.BundleLayer(manifest); ok {
			list = append(list, signing.Candidate{Source: d.Digest, Bundle: read(layer)})
		}
	}
	tag := signing.ClassicTag(i.subject.Digest)
	d, err := i.target.Resolve(ctx, tag)
	if errors.Is(err, fs.ErrNotExist) {
		return list
	} else if err != nil {
		t.Fatal(err)
	}
	manifest, err := i.target.Manifest(ctx, d)
	if err != nil {
		t.Fatal(err)
	}
	layers, err := signing.ClassicLayers(manifest)
	if err != nil {
		t.Fatal(err)
	}
	for _, l := range layers {
		c, err := signing.ParseClassic(read(l), signing.SignatureOf(l))
		if err != nil {
			t.Fatal(err)
		}
		list = append(list, signing.Candidate{Source: tag, Classic: c})
	}
	return list
}
