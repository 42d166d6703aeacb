package signing

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/sha512"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"errors"
	"fmt"

	"github.com/sigstore/sigstore/pkg/cryptoutils"
)

// Limits of keys. RSA keys below 2048 bits are weak; above 8192 bits one signature costs a host
// more than its policy is worth.
const (
	maxKeyFile = 64 << 10 // bytes of PEM
	minRSA     = 2048     // bits
	maxRSA     = 8192     // bits
)

// A PasswordFunc returns the password of a private key; confirm says that a new one is chosen, so
// that a terminal asks twice. A nil result is the empty password.
type PasswordFunc func(confirm bool) ([]byte, error)

// Generate makes a key pair for ECDSA with P-256 and SHA-256. Both halves are PEM as cosign writes
// and reads it: private is an ENCRYPTED SIGSTORE PRIVATE KEY (PKCS #8 under scrypt and NaCl's
// secretbox), encrypted even if the password is empty; public is a PUBLIC KEY.
func Generate(password PasswordFunc) (private, public []byte, err error) {
	pass, err := password(true)
	if err != nil {
		return nil, nil, fmt.Errorf("password of the new key: %w", err)
	}
	if pass == nil {
		pass = []byte{} // with nil the key would not be encrypted at all
	}
	private, public, err = cryptoutils.GeneratePEMEncodedECDSAKeyPair(elliptic.P256(),
		func(bool) ([]byte, error) { return pass, nil })
	if err != nil {
		return nil, nil, fmt.Errorf("generate key: %w", err)
	}
	return private, public, nil
}

// A Key signs. [ParseKey] reads one from PEM, [OpenKey] finds one by reference.
type Key struct {
	public *PublicKey
	sign   func(ctx context.Context, message []byte) ([]byte, error)
}

// ParseKey reads a private key from PEM: cosign's encrypted keys, and unencrypted PKCS #8, SEC 1
// and PKCS #1 ones of the algorithms of [PublicKey]. The password is asked for only if there is
// something to decrypt.
func ParseKey(data []byte, password PasswordFunc) (*Key, error) {
	k, err := parseKey(data, password)
	if err != nil {
		return nil, fmt.Errorf("private key: %w", err)
	}
	return k, nil
}

func parseKey(data []byte, password PasswordFunc) (*Key, error) {
	block, err := onlyBlock(data)
	if err != nil {
		return nil, err
	}
	var pass cryptoutils.PassFunc
	switch block.Type {
	case "ENCRYPTED SIGSTORE PRIVATE KEY", "ENCRYPTED COSIGN PRIVATE KEY":
		if password == nil {
			return nil, errors.New("it is encrypted, and there is no password")
		}
		p, err := password(false)
		if err != nil {
			return nil, fmt.Errorf("password: %w", err)
		}
		if p == nil {
			p = []byte{} // with nil the library would not decrypt
		}
		pass = func(bool) ([]byte, error) { return p, nil }
	case "PRIVATE KEY", "EC PRIVATE KEY", "RSA PRIVATE KEY":
		if len(block.Headers) > 0 {
			return nil, errors.New("it is encrypted as OpenSSL did before PKCS #8, which protects it badly: decrypt it and import it with cosign import-key-pair")
		}
	case "ENCRYPTED PRIVATE KEY":
		return nil, errors.New("it is encrypted as PKCS #8: import it with cosign import-key-pair")
	case "PUBLIC KEY", "RSA PUBLIC KEY", "CERTIFICATE":
		return nil, fmt.Errorf("it is a %s, not a private key", block.Type)
	default:
		return nil, fmt.Errorf("PEM type %q: want a private key as cosign's, or PKCS #8", block.Type)
	}
	private, err := cryptoutils.UnmarshalPEMToPrivateKey(pem.EncodeToMemory(block), pass)
	switch {
	case err != nil && pass != nil:
		return nil, fmt.Errorf("wrong password, or the file is damaged: %w", err)
	case err != nil:
		return nil, err
	}
	signer, ok := private.(crypto.Signer)
	if !ok {
		return nil, fmt.Errorf("a key of type %T does not sign", private)
	}
	return newKey(signer)
}

func newKey(signer crypto.Signer) (*Key, error) {
	public, err := newPublicKey(signer.Public())
	if err != nil {
		return nil, err
	}
	return &Key{public: public, sign: func(_ context.Context, message []byte) ([]byte, error) {
		return signLocally(signer, message)
	}}, nil
}

// signLocally signs without randomness: equal statements get equal bytes, so that publishing again
// adds nothing. ECDSA draws its nonce from key and message (RFC 6979), as crypto/ecdsa does when
// it is given no source of randomness; PKCS #1 v1.5 and Ed25519 need none. The hash is SHA-256 for
// every curve, which is what cosign verify and the containers policy assume.
func signLocally(signer crypto.Signer, message []byte) ([]byte, error) {
	if _, ok := signer.(ed25519.PrivateKey); ok {
		return signer.Sign(nil, message, crypto.Hash(0))
	}
	digest := sha256.Sum256(message)
	return signer.Sign(nil, digest[:], crypto.SHA256)
}

// Public returns the key that verifies what k signs.
func (k *Key) Public() *PublicKey { return k.public }

// Sign signs a message: ECDSA and RSA (PKCS #1 v1.5) with SHA-256, Ed25519 as it is. The signature
// is verified before it is returned, so that neither a plugin nor a computing fault hands out one
// that nobody accepts or that betrays the key.
func (k *Key) Sign(ctx context.Context, message []byte) ([]byte, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	sig, err := k.sign(ctx, message)
	if err != nil {
		return nil, fmt.Errorf("sign with key %s: %w", k.public.id, err)
	}
	if err := k.public.Verify(message, sig); err != nil {
		return nil, fmt.Errorf("sign with key %s: its own signature does not verify: %w", k.public.id, err)
	}
	return sig, nil
}

// A PublicKey verifies signatures. It is one for ECDSA with P-256 or P-384, Ed25519, or RSA of
// 2048 to 8192 bits.
type PublicKey struct {
	key crypto.PublicKey // *ecdsa.PublicKey, ed25519.PublicKey or *rsa.PublicKey
	der []byte           // SubjectPublicKeyInfo
	id  string
}

func newPublicKey(public crypto.PublicKey) (*PublicKey, error) {
	switch k := public.(type) {
	case *ecdsa.PublicKey:
		if k.Curve != elliptic.P256() && k.Curve != elliptic.P384() {
			return nil, fmt.Errorf("ECDSA with %s: want P-256 or P-384", k.Params().Name)
		}
	case ed25519.PublicKey:
	case *rsa.PublicKey:
		if n := k.N.BitLen(); n < minRSA || n > maxRSA {
			return nil, fmt.Errorf("RSA with %d bits: want %d to %d", n, minRSA, maxRSA)
		}
	default:
		return nil, fmt.Errorf("a key of type %T: want ECDSA, Ed25519 or RSA", public)
	}
	der, err := x509.MarshalPKIXPublicKey(public)
	if err != nil {
		return nil, err
	}
	sum := sha256.Sum256(der)
	return &PublicKey{key: public, der: der, id: base64.StdEncoding.EncodeToString(sum[:])}, nil
}

// ParsePublicKey reads a public key from PEM.
func ParsePublicKey(data []byte) (*PublicKey, error) {
	k, err := parsePublicKey(data)
	if err != nil {
		return nil, fmt.Errorf("public key: %w", err)
	}
	return k, nil
}

func parsePublicKey(data []byte) (*PublicKey, error) {
	block, err := onlyBlock(data)
	if err != nil {
		return nil, err
	}
	switch block.Type {
	case "PUBLIC KEY", "RSA PUBLIC KEY":
	case "CERTIFICATE":
		return nil, errors.New("it is a certificate: want the key alone")
	default:
		return nil, fmt.Errorf("PEM type %q: want PUBLIC KEY", block.Type)
	}
	public, err := cryptoutils.UnmarshalPEMToPublicKey(pem.EncodeToMemory(block))
	if err != nil {
		return nil, err
	}
	return newPublicKey(public)
}

// onlyBlock finds the one PEM block of a key file. Beside it only the curve's name may stand, which
// openssl ecparam writes before a key.
func onlyBlock(data []byte) (*pem.Block, error) {
	if len(data) > maxKeyFile {
		return nil, fmt.Errorf("%d bytes are more than the %d of a key", len(data), maxKeyFile)
	}
	var found *pem.Block
	for {
		block, rest := pem.Decode(data)
		if block == nil {
			break
		}
		data = rest
		switch {
		case block.Type == "EC PARAMETERS":
		case found != nil:
			return nil, fmt.Errorf("a %q and a %q in one file: want one key", found.Type, block.Type)
		default:
			found = block
		}
	}
	switch {
	case bytes.Contains(data, []byte("-----BEGIN ")):
		return nil, errors.New("a PEM block is cut off or damaged")
	case found == nil:
		return nil, errors.New("no PEM block in it")
	}
	return found, nil
}

// ID returns the identity of the key: the SHA-256 of its DER-encoded SubjectPublicKeyInfo in
// base64, which cosign writes into a bundle as the hint.
func (k *PublicKey) ID() string { return k.id }

// PEM returns the key as a PUBLIC KEY block.
func (k *PublicKey) PEM() []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: k.der})
}

// Algorithm returns the algorithm for people: "ECDSA P-256".
func (k *PublicKey) Algorithm() string {
	switch key := k.key.(type) {
	case *ecdsa.PublicKey:
		return "ECDSA " + key.Params().Name
	case *rsa.PublicKey:
		return fmt.Sprintf("RSA %d", key.N.BitLen())
	default:
		return "Ed25519"
	}
}

var errSignature = errors.New("the signature does not fit")

// Verify checks a signature over a message as [Key.Sign] makes it. Two variants that cosign itself
// writes are taken, too: SHA-384 with P-384, and Ed25519ph.
func (k *PublicKey) Verify(message, signature []byte) error {
	ok := false
	switch key := k.key.(type) {
	case *ecdsa.PublicKey:
		digest := sha256.Sum256(message)
		ok = ecdsa.VerifyASN1(key, digest[:], signature)
		if !ok && key.Curve == elliptic.P384() {
			digest := sha512.Sum384(message)
			ok = ecdsa.VerifyASN1(key, digest[:], signature)
		}
	case ed25519.PublicKey:
		ok = ed25519.Verify(key, message, signature)
		if !ok {
			digest := sha512.Sum512(message)
			ok = ed25519.VerifyWithOptions(key, digest[:], signature, &ed25519.Options{Hash: crypto.SHA512}) == nil
		}
	case *rsa.PublicKey:
		digest := sha256.Sum256(message)
		ok = rsa.VerifyPKCS1v15(key, crypto.SHA256, digest[:], signature) == nil
	}
	if !ok {
		return errSignature
	}
	return nil
}
