package ovf

import (
	"bytes"
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/pem"
	"fmt"
)

// A Certificate is the content of a .cert file: a signature over the manifest and the X.509
// certificates of the signer, its own first (DSP0243 6.2).
type Certificate struct {
	Sum
	Chain []*x509.Certificate
}

// sign returns a certificate file for a manifest. The signature is RSA PKCS #1 v1.5 with SHA-256,
// which is the only kind that VirtualBox and ovftool verify, and deterministic.
func sign(manifest []byte, name string, key crypto.Signer, chain []*x509.Certificate) ([]byte, error) {
	sum := sha256.Sum256(manifest)
	sig, err := key.Sign(rand.Reader, sum[:], crypto.SHA256)
	if err != nil {
		return nil, fmt.Errorf("sign %q: %w", name, err)
	}
	var b bytes.Buffer
	fmt.Fprintf(&b, "%s\n", Sum{"SHA256", name, sig})
	for _, c := range chain {
		if err := pem.Encode(&b, &pem.Block{Type: "CERTIFICATE", Bytes: c.Raw}); err != nil {
			return nil, err
		}
	}
	return b.Bytes(), nil
}

// ParseCertificate reads a .cert file.
func ParseCertificate(data []byte) (*Certificate, error) {
	if len(data) > maxManifest {
		return nil, fmt.Errorf("certificate of %d bytes: more than %d", len(data), maxManifest)
	}
	head, _, ok := bytes.Cut(data, []byte("-----BEGIN"))
	if !ok {
		return nil, fmt.Errorf("certificate: no PEM in it")
	}
	sums, err := ParseManifest(head)
	if err != nil {
		return nil, fmt.Errorf("certificate: %w", err)
	}
	if len(sums) == 0 {
		return nil, fmt.Errorf("certificate: no signature line")
	}
	c := &Certificate{Sum: sums[0]}
	for _, s := range sums[1:] { // a file may be signed with several digests
		if _, _, known := algorithm(c.Algorithm); !known {
			c.Sum = s
		}
	}
	for rest := data[len(head):]; ; {
		var block *pem.Block
		if block, rest = pem.Decode(rest); block == nil {
			break
		}
		if block.Type != "CERTIFICATE" {
			continue
		}
		cert, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, fmt.Errorf("certificate: %w", err)
		}
		c.Chain = append(c.Chain, cert)
	}
	if len(c.Chain) == 0 {
		return nil, fmt.Errorf("certificate: no X.509 certificate in it")
	}
	return c, nil
}

// Verify tells whether the signature is that of the first certificate over these bytes. Whether
// the certificate can be trusted is for its user to say.
func (c *Certificate) Verify(manifest []byte) error {
	kind, fresh, ok := algorithm(c.Algorithm)
	if !ok {
		return fmt.Errorf("signature with %q, which is not known", c.Algorithm)
	}
	pub, ok := c.Chain[0].PublicKey.(*rsa.PublicKey)
	if !ok {
		return fmt.Errorf("signature by a %T: only RSA is known", c.Chain[0].PublicKey)
	}
	h := fresh()
	h.Write(manifest)
	if err := rsa.VerifyPKCS1v15(pub, kind, h.Sum(nil), c.Value); err != nil {
		return fmt.Errorf("signature by %q does not fit the manifest: %w", c.Chain[0].Subject, err)
	}
	return nil
}
