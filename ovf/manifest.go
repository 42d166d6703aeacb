package ovf

import (
	"crypto"
	"crypto/md5"
	"crypto/sha1"
	"crypto/sha256"
	"crypto/sha512"
	"encoding/hex"
	"fmt"
	"hash"
	"strings"
)

// A Digest is the algorithm of a manifest.
type Digest string

// The algorithms. SHA-1 is for importers of before 2016 only; SHA-512 is not verified by virt-v2v.
const (
	SHA256 Digest = "sha256"
	SHA1   Digest = "sha1"
	SHA512 Digest = "sha512"
	None   Digest = "none" // no manifest
)

// digests are the names in manifests and certificates, strongest first.
var digests = []struct {
	digest Digest
	name   string
	hash   crypto.Hash
	new    func() hash.Hash
}{
	{SHA512, "SHA512", crypto.SHA512, sha512.New},
	{SHA256, "SHA256", crypto.SHA256, sha256.New},
	{SHA1, "SHA1", crypto.SHA1, sha1.New},
	{"", "MD5", crypto.MD5, md5.New}, // read only: old appliances have it
}

// A Sum is one line of a manifest, or the first of a certificate.
type Sum struct {
	Algorithm string // as written: "SHA256"
	Name      string
	Value     []byte // digest, or signature in a certificate
}

func (s Sum) String() string { return fmt.Sprintf("%s(%s)= %x", s.Algorithm, s.Name, s.Value) }

// Limits of manifests and certificates, far above any real one.
const (
	maxManifest = 1 << 20
	maxSums     = 10_000
	maxValue    = 2048 // bytes of a signature by RSA of 16384 bits
)

// ParseManifest reads a manifest tolerantly: spaces may stand around the parentheses and the
// equals sign, lines may end with CR LF. That it is not written as some importers insist on is
// told by [Check].
func ParseManifest(data []byte) ([]Sum, error) {
	if len(data) > maxManifest {
		return nil, fmt.Errorf("manifest of %d bytes: more than %d", len(data), maxManifest)
	}
	var sums []Sum
	line := 0
	for text := range strings.Lines(strings.TrimPrefix(string(data), "\ufeff")) {
		line++
		if text = strings.TrimSpace(text); text == "" {
			continue
		}
		s, err := parseSum(text)
		if err != nil {
			return nil, fmt.Errorf("manifest: line %d: %w", line, err)
		}
		if len(sums) == maxSums {
			return nil, fmt.Errorf("manifest: more than %d lines", maxSums)
		}
		sums = append(sums, s)
	}
	return sums, nil
}

func parseSum(text string) (Sum, error) {
	// The last of each, so that a name may hold parentheses.
	left, value, ok := cutLast(text, "=")
	open := strings.IndexByte(left, '(')
	end := strings.LastIndexByte(left, ')')
	if !ok || open < 0 || end < open || strings.TrimSpace(left[end+1:]) != "" {
		return Sum{}, fmt.Errorf("%.100q is not ALGORITHM(name)= digits", text)
	}
	s := Sum{Algorithm: strings.TrimSpace(left[:open]), Name: left[open+1 : end]}
	value = strings.TrimSpace(value)
	if len(value) > 2*maxValue {
		return Sum{}, fmt.Errorf("%q: value of %d digits", s.Name, len(value))
	}
	var err error
	if s.Value, err = hex.DecodeString(value); err != nil {
		return Sum{}, fmt.Errorf("%q: %w", s.Name, err)
	}
	return s, nil
}

func cutLast(s, sep string) (before, after string, found bool) {
	i := strings.LastIndex(s, sep)
	if i < 0 {
		return s, "", false
	}
	return s[:i], s[i+len(sep):], true
}

// algorithm returns the hash of a name in a manifest, in any case.
func algorithm(name string) (crypto.Hash, func() hash.Hash, bool) {
	for _, d := range digests {
		if strings.EqualFold(name, d.name) || strings.EqualFold(strings.Replace(name, "-", "", 1), d.name) {
			return d.hash, d.new, true
		}
	}
	return 0, nil, false
}
