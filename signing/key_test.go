package signing

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha512"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/secure-systems-lab/go-securesystemslib/dsse"
)

func pae(payload string) []byte { return dsse.PAE(TypePayload, []byte(payload)) }

func pass(s string) PasswordFunc { return func(bool) ([]byte, error) { return []byte(s), nil } }

func noPassword(t *testing.T) PasswordFunc {
	return func(bool) ([]byte, error) {
		t.Error("asked for a password")
		return nil, nil
	}
}

func pkcs8(t testing.TB, s crypto.Signer) []byte {
	t.Helper()
	der, err := x509.MarshalPKCS8PrivateKey(s)
	if err != nil {
		t.Fatal(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})
}

func TestGenerate(t *testing.T) {
	for _, password := range []string{"secret", ""} {
		private, public, err := Generate(func(confirm bool) ([]byte, error) {
			if !confirm {
				t.Error("a new password is not confirmed")
			}
			if password == "" {
				return nil, nil
			}
			return []byte(password), nil
		})
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.HasPrefix(private, []byte("-----BEGIN ENCRYPTED SIGSTORE PRIVATE KEY-----\n")) {
			t.Errorf("not encrypted: %.60s", private)
		}
		k, err := ParseKey(private, pass(password))
		if err != nil {
			t.Fatal(err)
		}
		p, err := ParsePublicKey(public)
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(p.PEM(), public) || p.ID() != k.Public().ID() || p.Algorithm() != "ECDSA P-256" {
			t.Errorf("%s %s is not the other half of %s", p.Algorithm(), p.ID(), k.Public().ID())
		}
		_, err = ParseKey(private, pass(password+"x"))
		wantError(t, err, "wrong password")
		_, err = ParseKey(private, nil)
		wantError(t, err, "there is no password")
		_, err = ParseKey(private, func(bool) ([]byte, error) { return nil, errors.New("no terminal") })
		wantError(t, err, "no terminal")
		_, err = ParseKey(private[:len(private)/2], pass(password))
		wantError(t, err, "cut off")
	}
	_, _, err := Generate(func(bool) ([]byte, error) { return nil, errors.New("no terminal") })
	wantError(t, err, "no terminal")
}

func TestAlgorithms(t *testing.T) {
	for _, algorithm := range []string{"P-256", "P-384", "Ed25519", "RSA"} {
		t.Run(algorithm, func(t *testing.T) {
			s := signer(t, algorithm, "one")
			k, err := ParseKey(pkcs8(t, s), noPassword(t))
			if err != nil {
				t.Fatal(err)
			}
			p, err := ParsePublicKey(k.Public().PEM())
			if err != nil {
				t.Fatal(err)
			}
			message := []byte("a message")
			one, err := k.Sign(context.Background(), message)
			if err != nil {
				t.Fatal(err)
			}
			two, err := k.Sign(context.Background(), message)
			if err != nil || !bytes.Equal(one, two) {
				t.Errorf("signed twice, the signatures differ (%v)", err)
			}
			if err := p.Verify(message, one); err != nil {
				t.Error(err)
			}
			if p.Verify([]byte("another"), one) == nil || p.Verify(message, one[:len(one)-1]) == nil || p.Verify(message, nil) == nil {
				t.Error("verifies what it should not")
			}
			if key(t, "other").Public().Verify(message, one) == nil {
				t.Error("another key verifies it")
			}
		})
	}
}

// TestForeignVariants takes what cosign writes with keys whose default is another hash.
func TestForeignVariants(t *testing.T) {
	message := []byte("a message")
	k384 := signer(t, "P-384", "one").(*ecdsa.PrivateKey)
	h384 := sha512.Sum384(message)
	sig384, err := ecdsa.SignASN1(rand.Reader, k384, h384[:])
	if err != nil {
		t.Fatal(err)
	}
	ed := signer(t, "Ed25519", "one").(ed25519.PrivateKey)
	h512 := sha512.Sum512(message)
	sigPH, err := ed.Sign(nil, h512[:], crypto.SHA512)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		s   crypto.Signer
		sig []byte
	}{{k384, sig384}, {ed, sigPH}} {
		p, err := newPublicKey(c.s.Public())
		if err != nil {
			t.Fatal(err)
		}
		if err := p.Verify(message, c.sig); err != nil {
			t.Errorf("%s: %v", p.Algorithm(), err)
		}
		if p.Verify([]byte("another"), c.sig) == nil {
			t.Errorf("%s verifies another message", p.Algorithm())
		}
	}
}

func TestParseKeyRefuses(t *testing.T) {
	good := pkcs8(t, signer(t, "P-256", "one"))
	der := func(typ string, b []byte) []byte { return pem.EncodeToMemory(&pem.Block{Type: typ, Bytes: b}) }
	weak, err := rsa.GenerateKey(rand.Reader, 1024)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name string
		data []byte
		want string
	}{
		{"nothing", nil, "no PEM block"},
		{"text", []byte("hello\n"), "no PEM block"},
		{"public", key(t, "one").Public().PEM(), "it is a PUBLIC KEY, not a private key"},
		{"certificate", der("CERTIFICATE", []byte{1}), "it is a CERTIFICATE"},
		{"two", append(bytes.Clone(good), good...), "want one key"},
		{"cut", append(bytes.Clone(good), good[:40]...), "cut off"},
		{"openssh", der("OPENSSH PRIVATE KEY", []byte{1}), `PEM type "OPENSSH PRIVATE KEY"`},
		{"pkcs8 encrypted", der("ENCRYPTED PRIVATE KEY", []byte{1}), "cosign import-key-pair"},
		{"openssl encrypted", pem.EncodeToMemory(&pem.Block{
			Type: "RSA PRIVATE KEY", Bytes: []byte{1},
			Headers: map[string]string{"Proc-Type": "4,ENCRYPTED", "DEK-Info": "AES-128-CBC,00"},
		}), "before PKCS #8"},
		{"damaged", der("PRIVATE KEY", []byte{0x30, 0x80}), "asn1"},
		{"damaged cosign", der("ENCRYPTED SIGSTORE PRIVATE KEY", []byte("{}")), "damaged"},
		{"P-521", pkcs8(t, signer(t, "P-521", "one")), "P-521: want P-256 or P-384"},
		{"weak RSA", pkcs8(t, weak), "RSA with 1024 bits"},
		{"huge", make([]byte, maxKeyFile+1), "65537 bytes are more than"},
	} {
		t.Run(c.name, func(t *testing.T) {
			k, err := ParseKey(c.data, pass(""))
			if k != nil || err == nil {
				t.Fatalf("got %v, %v", k, err)
			}
			wantError(t, err, c.want)
		})
	}
}

// Public keys that openssl made.
const (
	weakRSA = `-----BEGIN PUBLIC KEY-----
MIGfMA0GCSqGSIb3DQEBAQUAA4GNADCBiQKBgQDAJ6pOkhuDLniwP6Qj9qkvW7xY
iCADLqBuYQpV9zV0tNRX6a921+htXCagRlMDE1hQQkJ08BWNSIdOi9F8QqNsqCYJ
TBIItWGea2Pw5KPXc5JEWnLlQwPsf5mBeqrJoe9dsuOkENTLCB0WjqnMoB5t6qlr
Pexk+YeYZrBb9XMaCwIDAQAB
-----END PUBLIC KEY-----
`
	p224 = `-----BEGIN PUBLIC KEY-----
ME4wEAYHKoZIzj0CAQYFK4EEACEDOgAERoyQ6YDnxsNJ/9hjTF1AoHcuSB2zars9
UoqxHMl3Nbwd0/Oslnof7krmAuTEyPSDQI9ow0BJKFs=
-----END PUBLIC KEY-----
`
)

func TestParsePublicKeyRefuses(t *testing.T) {
	for _, c := range []struct {
		name, data, want string
	}{
		{"nothing", "", "no PEM block"},
		{"private", string(pkcs8(t, signer(t, "P-256", "one"))), `PEM type "PRIVATE KEY": want PUBLIC KEY`},
		{"certificate", "-----BEGIN CERTIFICATE-----\nAQ==\n-----END CERTIFICATE-----\n", "it is a certificate"},
		{"weak RSA", weakRSA, "RSA with 1024 bits: want 2048 to 8192"},
		{"P-224", p224, "P-224: want P-256 or P-384"},
		{"damaged", "-----BEGIN PUBLIC KEY-----\nMFkw\n-----END PUBLIC KEY-----\n", "asn1"},
	} {
		t.Run(c.name, func(t *testing.T) {
			k, err := ParsePublicKey([]byte(c.data))
			if k != nil {
				t.Fatal("got a key")
			}
			wantError(t, err, c.want)
		})
	}
}

func TestOpenKey(t *testing.T) {
	ctx := context.Background()
	private, public := pkcs8(t, signer(t, "P-256", "one")), key(t, "one").Public().PEM()
	dir := t.TempDir()
	name := filepath.Join(dir, "one.key")
	if err := os.WriteFile(name, private, 0o600); err != nil {
		t.Fatal(err)
	}
	t.Setenv("ISC_TEST_KEY", string(private))
	t.Setenv("ISC_TEST_PUB", string(public))
	for _, ref := range []string{name, "env://ISC_TEST_KEY"} {
		k, err := OpenKey(ctx, ref, nil)
		if err != nil {
			t.Fatal(err)
		}
		if k.Public().ID() != key(t, "one").Public().ID() {
			t.Errorf("%s: another key", ref)
		}
	}
	if _, err := OpenPublicKey(ctx, "env://ISC_TEST_PUB"); err != nil {
		t.Error(err)
	}
	for ref, want := range map[string]string{
		"env://ISC_TEST_NONE":         "the variable is not set",
		filepath.Join(dir, "none"):    "none",
		dir:                           dir,
		"nobody-has-this://key/1":     "sigstore-kms-nobody-has-this",
		"pkcs11:token=t;object=o":     "sigstore-kms-pkcs11",
		"../sigstore-kms-evil://key":  "../sigstore-kms-evil",
		"x/../../bin/sh://anything":   "x/../../bin/sh:",
		"env://ISC_TEST_PUB\x1b[31m;": "not set",
	} {
		k, err := OpenKey(ctx, ref, nil)
		if k != nil || err == nil {
			t.Errorf("%s: opened", ref)
		}
		wantError(t, err, want)
	}
}

// TestMain is a key management plugin if it is called by the name of one.
func TestMain(m *testing.M) {
	if name, ok := strings.CutPrefix(filepath.Base(os.Args[0]), "sigstore-kms-"); ok {
		os.Exit(plugin(strings.TrimSuffix(name, ".exe")))
	}
	os.Exit(m.Run())
}

// plugin speaks the protocol of sigstore's cliplugin: arguments are its version and a question in
// JSON, the message is on the standard input, the answer goes to the standard output.
func plugin(name string) int {
	var question struct {
		InitOptions struct {
			KeyResourceID string `json:"keyResourceID"`
		} `json:"initOptions"`
		MethodName string `json:"methodName"`
	}
	if err := json.Unmarshal([]byte(os.Args[2]), &question); err != nil {
		return 2
	}
	if question.InitOptions.KeyResourceID != "slot/1" {
		fmt.Print(`{"errorMessage": "no such key"}`)
		return 1
	}
	s, err := ecdsa.ParseRawPrivateKey(elliptic.P256(), scalar("one", 32))
	if err != nil {
		return 2
	}
	k, err := newKey(s)
	if err != nil {
		return 2
	}
	var answer map[string]any
	switch question.MethodName {
	case "publicKey":
		answer = map[string]any{"publicKey": map[string]any{"publicKeyPEM": k.Public().PEM()}}
	case "signMessage":
		message, err := io.ReadAll(os.Stdin)
		if err != nil {
			return 2
		}
		sig, err := k.Sign(context.Background(), message)
		if err != nil {
			return 2
		}
		if name == "liar" {
			sig[len(sig)-1] ^= 1
		}
		answer = map[string]any{"signMessage": map[string]any{"signature": sig}}
	}
	if name == "mute" {
		answer = map[string]any{}
	}
	if json.NewEncoder(os.Stdout).Encode(answer) != nil {
		return 2
	}
	return 0
}

func TestPlugin(t *testing.T) {
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	for _, name := range []string{"good", "liar", "mute", "pkcs11"} {
		to := filepath.Join(dir, "sigstore-kms-"+name)
		if runtime.GOOS == "windows" {
			to += ".exe"
		}
		if err := os.Link(self, to); err != nil {
			copyFile(t, self, to)
		}
	}
	t.Setenv("PATH", dir+string(filepath.ListSeparator)+os.Getenv("PATH"))
	ctx := context.Background()

	for _, ref := range []string{"good://slot/1", "pkcs11:slot/1", "pkcs11://slot/1"} {
		k, err := OpenKey(ctx, ref, nil)
		if err != nil {
			t.Fatal(err)
		}
		if k.Public().ID() != key(t, "one").Public().ID() {
			t.Errorf("%s: another key", ref)
		}
		b := bundle(t, k, statement(t, aRelease(), digestOf("web")))
		if got, err := ParseBundle(b); err != nil || got.Verify(key(t, "one").Public()) != nil {
			t.Errorf("%s: does not verify (%v)", ref, err)
		}
	}
	if p, err := OpenPublicKey(ctx, "good://slot/1"); err != nil || p.ID() != key(t, "one").Public().ID() {
		t.Errorf("public key: %v", err)
	}
	_, err = OpenKey(ctx, "good://slot/2", nil)
	wantError(t, err, "no such key")
	_, err = OpenKey(ctx, "mute://slot/1", nil)
	wantError(t, err, "the plugin's answer does not fit")
	k, err := OpenKey(ctx, "liar://slot/1", nil)
	if err != nil {
		t.Fatal(err)
	}
	_, err = k.Sign(ctx, []byte("m"))
	wantError(t, err, "its own signature does not verify")
	stopped, stop := context.WithCancel(ctx)
	stop()
	_, err = k.Sign(stopped, []byte("m"))
	wantError(t, err, "canceled")
}

func copyFile(t *testing.T, from, to string) {
	t.Helper()
	data, err := os.ReadFile(from)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(to, data, 0o755); err != nil {
		t.Fatal(err)
	}
}

func FuzzParseKey(f *testing.F) {
	f.Add(pkcs8(f, signer(f, "P-256", "one")))
	f.Add(pkcs8(f, signer(f, "Ed25519", "one")))
	f.Add(key(f, "one").Public().PEM())
	f.Add([]byte("-----BEGIN ENCRYPTED SIGSTORE PRIVATE KEY-----\ne30=\n-----END ENCRYPTED SIGSTORE PRIVATE KEY-----\n"))
	f.Add([]byte("-----BEGIN EC PARAMETERS-----\nBggqhkjOPQMBBw==\n-----END EC PARAMETERS-----\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		if k, err := ParseKey(data, pass("")); err == nil {
			if k.public == nil || k.public.id == "" {
				t.Error("a key without its public half")
			}
		}
		if k, err := ParsePublicKey(data); err == nil {
			again, err := ParsePublicKey(k.PEM())
			if err != nil || again.ID() != k.ID() {
				t.Errorf("does not survive PEM: %v", err)
			}
			if k.Verify([]byte("m"), data) == nil {
				t.Error("anything verifies")
			}
		}
	})
}
