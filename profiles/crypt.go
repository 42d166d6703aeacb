package profiles

import (
	"bytes"
	"crypto/md5"
	"crypto/sha256"
	"crypto/sha512"
	"crypto/subtle"
	"fmt"
	"hash"
	"strconv"
	"strings"
)

// The schemes of crypt(3) that systems hash passwords with and that are cheap enough to be tried: MD5
// ($1$), and SHA-256 and SHA-512 as https://www.akkadia.org/drepper/SHA-crypt.txt describes them. Those
// of [untried] are made to be dear, or have no library in Go that could be relied on: an audit says that
// they were not tested.

// untried are the names of schemes that are not tried, by what stands between the first dollar signs.
var untried = map[string]string{
	"y": "yescrypt", "gy": "gost-yescrypt", "7": "scrypt", "2a": "bcrypt", "2b": "bcrypt", "2x": "bcrypt", "2y": "bcrypt", "md5": "Sun's MD5",
}

const (
	defaultRounds = 5000
	minRounds     = 1000

	// maxRounds and maxTried bound what a shadow file can cost: accounts times guesses times rounds.
	maxRounds = 10000
	maxTried  = 32
	maxName   = 64 // bytes of an account's name
)

// errCostly is the error of a hash with more rounds than are tried.
type errCostly int

func (e errCostly) Error() string {
	return fmt.Sprintf("has a hash of %d rounds, more than the %d that passwords are tried with", int(e), maxRounds)
}

// A cryptHash is a parsed hash of a password.
type cryptHash struct {
	scheme, salt string
	rounds       int
	digest       string // as it is written
}

// parseCrypt reads a hash; ok is false for schemes that are not tried, and for what is no hash.
func parseCrypt(s string) (h cryptHash, ok bool, err error) {
	f := strings.Split(s, "$")
	if len(f) < 4 || f[0] != "" {
		return h, false, nil
	}
	h = cryptHash{scheme: f[1], rounds: defaultRounds}
	f = f[2:]
	switch h.scheme {
	case "1":
		h.rounds = 1000
	case "5", "6":
		if n, found := strings.CutPrefix(f[0], "rounds="); found {
			rounds, err := strconv.ParseUint(n, 10, 31)
			if err != nil {
				return h, false, nil
			}
			h.rounds, f = max(int(rounds), minRounds), f[1:]
		}
	default:
		return h, false, nil
	}
	if len(f) != 2 {
		return h, false, nil
	}
	h.salt, h.digest = f[0], f[1]
	if h.rounds > maxRounds {
		return h, false, errCostly(h.rounds)
	}
	return h, true, nil
}

// matches reports whether the hash is of the password.
func (h *cryptHash) matches(password string) bool {
	var got string
	switch h.scheme {
	case "1":
		got = md5Crypt(password, h.salt[:min(len(h.salt), 8)])
	case "5":
		got = encode256(shaCrypt(sha256.New, password, h.salt[:min(len(h.salt), 16)], h.rounds))
	case "6":
		got = encode512(shaCrypt(sha512.New, password, h.salt[:min(len(h.salt), 16)], h.rounds))
	}
	return subtle.ConstantTimeCompare([]byte(got), []byte(h.digest)) == 1
}

// stretch repeats data to n bytes.
func stretch(data []byte, n int) []byte {
	return bytes.Repeat(data, n/len(data)+1)[:n]
}

func shaCrypt(newHash func() hash.Hash, password, salt string, rounds int) []byte {
	key, seed := []byte(password), []byte(salt)
	h := newHash()
	sum := func(parts ...[]byte) []byte {
		h.Reset()
		for _, p := range parts {
			h.Write(p)
		}
		return h.Sum(nil)
	}
	b := sum(key, seed, key)
	parts := [][]byte{key, seed, stretch(b, len(key))}
	for n := len(key); n > 0; n >>= 1 {
		if n&1 != 0 {
			parts = append(parts, b)
		} else {
			parts = append(parts, key)
		}
	}
	a := sum(parts...)
	p := stretch(sum(bytes.Repeat(key, len(key))), len(key))
	s := stretch(sum(bytes.Repeat(seed, 16+int(a[0]))), len(seed))
	for i := range rounds {
		h.Reset()
		first, last := a, p
		if i&1 != 0 {
			first, last = p, a
		}
		h.Write(first)
		if i%3 != 0 {
			h.Write(s)
		}
		if i%7 != 0 {
			h.Write(p)
		}
		h.Write(last)
		a = h.Sum(a[:0:0])
	}
	return a
}

func md5Crypt(password, salt string) string {
	key, seed := []byte(password), []byte(salt)
	h := md5.New()
	sum := func(parts ...[]byte) []byte {
		h.Reset()
		for _, p := range parts {
			h.Write(p)
		}
		return h.Sum(nil)
	}
	parts := [][]byte{key, []byte("$1$"), seed, stretch(sum(key, seed, key), len(key))}
	for n := len(key); n > 0; n >>= 1 {
		if n&1 != 0 {
			parts = append(parts, []byte{0})
		} else {
			parts = append(parts, key[:1])
		}
	}
	a := sum(parts...)
	for i := range 1000 {
		first, last := a, key
		if i&1 != 0 {
			first, last = key, a
		}
		parts = append(parts[:0], first)
		if i%3 != 0 {
			parts = append(parts, seed)
		}
		if i%7 != 0 {
			parts = append(parts, key)
		}
		a = sum(append(parts, last)...)
	}
	var t strings.Builder
	for i := range 4 {
		encode24(&t, a[i], a[i+6], a[i+12], 4)
	}
	encode24(&t, a[4], a[10], a[5], 4)
	encode24(&t, 0, 0, a[11], 2)
	return t.String()
}

const cryptDigits = "./0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"

// encode24 writes n digits of three bytes, the lowest first.
func encode24(t *strings.Builder, a, b, c byte, n int) {
	w := uint(a)<<16 | uint(b)<<8 | uint(c)
	for range n {
		t.WriteByte(cryptDigits[w&0x3f])
		w >>= 6
	}
}

// The order of the bytes goes round: each triple is the one before, turned and counted up.

func encode256(d []byte) string {
	var t strings.Builder
	for i, a, b, c := 0, 0, 10, 20; i < 10; i, a, b, c = i+1, c+1, a+1, b+1 {
		encode24(&t, d[a], d[b], d[c], 4)
	}
	encode24(&t, 0, d[31], d[30], 3)
	return t.String()
}

func encode512(d []byte) string {
	var t strings.Builder
	for i, a, b, c := 0, 0, 21, 42; i < 21; i, a, b, c = i+1, b+1, c+1, a+1 {
		encode24(&t, d[a], d[b], d[c], 4)
	}
	encode24(&t, 0, 0, d[63], 2)
	return t.String()
}

// guesses are the passwords that everybody tries first, besides the name of the account. The last is
// that of the Immutable Service Containers of 2009.
var guesses = []string{"", "root", "password", "changeme", "admin", "123456", "iscroot"}

// checkGuessable finds accounts whose password is none, the account's name or known to everybody.
func checkGuessable(root Root, _ *Params) (Inspection, error) {
	var in Inspection
	text, err := readText(root, "etc/shadow")
	if err != nil {
		return in, err
	}
	tried := 0
	for _, f := range records(text) {
		if len(f) < 2 || locked(f[1]) {
			continue
		}
		if f[1] == "" {
			in.Findings = append(in.Findings, Finding{"etc/shadow", fmt.Sprintf("account %q has an empty password", f[0])})
			continue
		}
		h, ok, err := parseCrypt(f[1])
		untested := ""
		switch {
		case err != nil:
			untested = err.Error()
		case !ok:
			scheme, _, _ := strings.Cut(strings.TrimPrefix(f[1], "$"), "$")
			scheme, _, _ = strings.Cut(scheme, ",") // Sun's has its rounds there
			untested = "has a hash of " + orElse(untried[scheme], "a scheme that is not known") + ", which no password is tried with"
		case tried == maxTried:
			untested = fmt.Sprintf("is not among the first %d, which passwords are tried with", maxTried)
		}
		if untested != "" {
			in.Untested = append(in.Untested, Finding{"etc/shadow", fmt.Sprintf("account %q %s", f[0], untested)})
			continue
		}
		tried++
		for _, g := range append([]string{f[0]}, guesses...) {
			// What a digest is made of grows with the square of the password.
			if len(g) <= maxName && h.matches(g) {
				in.Findings = append(in.Findings, Finding{"etc/shadow", fmt.Sprintf("account %q has a password that is guessed at once", f[0])})
				break
			}
		}
	}
	return in, nil
}
