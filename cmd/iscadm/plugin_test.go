package main

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/goldenisc/packer-plugin-isc/signing"
)

// plugin is a key management service with the one key slot/1, the fixed key "kms", for sigstore's
// protocol (sigstore/sigstore, pkg/signature/kms/cliplugin): the arguments are the version of the
// protocol and a question in JSON, the message is on stdin and the answer goes to stdout. Of the key
// slot/liar the signatures are wrong, and for slot/mute there is no answer.
func plugin() {
	var q struct {
		Init struct {
			Key string `json:"keyResourceID"`
		} `json:"initOptions"`
		Method string `json:"methodName"`
	}
	if len(os.Args) != 3 || json.Unmarshal([]byte(os.Args[2]), &q) != nil {
		os.Exit(2)
	}
	answer := map[string]any{}
	if err := ask(q.Init.Key, q.Method, answer); err != nil {
		answer = map[string]any{"errorMessage": err.Error()}
	}
	if json.NewEncoder(os.Stdout).Encode(answer) != nil {
		os.Exit(2)
	}
	if answer["errorMessage"] != nil {
		os.Exit(1)
	}
	os.Exit(0)
}

func ask(key, method string, answer map[string]any) error {
	switch key {
	case "slot/1", "slot/liar":
	case "slot/mute":
		return nil
	default:
		return fmt.Errorf("no key %q", key)
	}
	private, public, err := fixedKey("kms")
	if err != nil {
		return err
	}
	switch method {
	case "publicKey":
		answer["publicKey"] = map[string]any{"publicKeyPEM": public}
	case "signMessage":
		message, err := io.ReadAll(os.Stdin)
		if err != nil {
			return err
		}
		k, err := signing.ParseKey(private, nil)
		if err != nil {
			return err
		}
		sig, err := k.Sign(context.Background(), message)
		if err != nil {
			return err
		}
		if key == "slot/liar" {
			sig[len(sig)-1] ^= 1
		}
		answer["signMessage"] = map[string]any{"signature": sig}
	default:
		return fmt.Errorf("no method %q", method)
	}
	return nil
}

// writeKeys makes keys for scripts, good and bad.
func writeKeys(dir string) error {
	private, public, err := fixedKey("plain")
	if err != nil {
		return err
	}
	p521, err := ecdsa.GenerateKey(elliptic.P521(), rand.Reader)
	if err != nil {
		return err
	}
	odd, err := x509.MarshalPKCS8PrivateKey(p521)
	if err != nil {
		return err
	}
	short, err := rsa.GenerateKey(rand.Reader, 1024)
	if err != nil {
		return err
	}
	weak, err := x509.MarshalPKCS8PrivateKey(short)
	if err != nil {
		return err
	}
	pkcs8 := func(der []byte) []byte { return pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}) }
	for name, data := range map[string][]byte{
		"plain.key": private, "plain.pub": public,
		"cut.key": private[:len(private)/2], "cutpub.pub": public[:len(public)/2],
		"two.key":  append(slices.Clone(private), private...),
		"p521.key": pkcs8(odd), "weak.key": pkcs8(weak),
	} {
		if err := os.WriteFile(filepath.Join(dir, name), data, 0o600); err != nil {
			return err
		}
	}
	return nil
}

// fileenv puts the content of a file into the environment: fileenv NAME FILE.
func fileenv(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: fileenv name file")
	}
	ts.Setenv(args[0], ts.ReadFile(args[1]))
}
