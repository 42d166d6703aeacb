package signing

import (
	"slices"
	"strings"
	"time"
)

// A Policy says whose releases a host takes, by ordered rules. The first rule that fits the
// reference decides; what no rule fits is refused. [ParsePolicy] reads one from HCL, [ForKeys]
// makes one of keys alone.
type Policy struct {
	Rules []Rule
}

// Any in Names, Channels or a Prefix stands for all.
const Any = "*"

// A Rule is what is demanded of the images below a prefix of references.
type Rule struct {
	Prefix     string       // of references, in whole components; Any fits all
	Names      []string     // of images; none: the last component of the repository
	Channels   []string     // in order of preference
	Keys       []TrustedKey // at least one
	Threshold  int          // of Keys, how many must sign the same statement
	MaxAge     time.Duration
	EpochJump  int64 // how far an epoch may lie above the highest one acquired
	Downgrade  bool  // older releases are taken, but never below their minimum epoch
	Unreleased bool  // signatures alone are enough, classic or in a bundle
	Identities []string
}

// DefaultEpochJump lets whoever counts by days (20261125) miss ten years, and stops a thief of the
// key from using up all epochs at once.
const DefaultEpochJump = 100_000

// A TrustedKey is a key of the policy, and when it counts. A statement counts that is issued, and
// looked at, inside the window: who steals an old key can put any time into a statement.
type TrustedKey struct {
	Name      string
	Key       *PublicKey
	NotBefore time.Time // zero: always
	NotAfter  time.Time // zero: for ever
	Revoked   string    // why nothing of it counts any more
}

// covers says whether t lies in the window of the key.
func (k *TrustedKey) covers(t time.Time) bool {
	return !t.Before(k.NotBefore) && (k.NotAfter.IsZero() || !t.After(k.NotAfter))
}

// ForKeys makes the policy of keys that a user names: a release of any name and channel, by one of
// them.
func ForKeys(keys ...*PublicKey) *Policy {
	r := Rule{
		Prefix: Any, Names: []string{Any}, Channels: []string{Any},
		Threshold: 1, EpochJump: DefaultEpochJump,
	}
	for _, k := range keys {
		if !slices.ContainsFunc(r.Keys, func(t TrustedKey) bool { return t.Key.id == k.id }) {
			r.Keys = append(r.Keys, TrustedKey{Name: k.id, Key: k})
		}
	}
	return &Policy{Rules: []Rule{r}}
}

// Rule returns the rule for a reference, or nil: [docker://]HOST[:PORT]/REPO, oci:DIR,
// oci-archive:FILE, a tag or digest behind it or not. References are compared as they are written,
// but for the case of a host.
func (p *Policy) Rule(reference string) *Rule {
	if _, ok := repository(reference); ok {
		host, rest, _ := strings.Cut(strings.TrimPrefix(reference, "docker://"), "/")
		reference = strings.ToLower(host) + "/" + rest
	}
	for i := range p.Rules {
		if within(reference, p.Rules[i].Prefix) {
			return &p.Rules[i]
		}
	}
	return nil
}

// within says whether s lies below prefix: components are whole, so that "host/isc" does not take
// in "host/iscariot", nor "host" "host.example".
func within(s, prefix string) bool {
	if prefix == Any {
		return true
	}
	rest, ok := strings.CutPrefix(s, prefix)
	if !ok || prefix == "" {
		return false
	}
	return rest == "" || strings.ContainsRune("/:", rune(prefix[len(prefix)-1])) || strings.ContainsRune("/:@", rune(rest[0]))
}

// repository cuts the tag and the digest from a reference of a registry. Layouts and archives have
// none: ok is false.
func repository(reference string) (repo string, ok bool) {
	if strings.HasPrefix(reference, "oci:") || strings.HasPrefix(reference, "oci-archive:") {
		return "", false
	}
	repo = strings.TrimPrefix(reference, "docker://")
	repo, _, _ = strings.Cut(repo, "@")
	slash := strings.LastIndexByte(repo, '/')
	if colon := strings.LastIndexByte(repo, ':'); colon > slash && slash >= 0 {
		repo = repo[:colon]
	}
	return repo, slash >= 0
}

// takesName says whether the rule takes images of this name at the reference.
func (r *Rule) takesName(name, reference string) bool {
	if len(r.Names) > 0 {
		return slices.Contains(r.Names, Any) || slices.Contains(r.Names, name)
	}
	repo, ok := repository(reference)
	return !ok || repo[strings.LastIndexByte(repo, '/')+1:] == name
}

func (r *Rule) takesChannel(channel string) bool {
	return slices.Contains(r.Channels, Any) || slices.Contains(r.Channels, channel)
}

// takesIdentity says whether the identity of a classic signature fits the reference: the same
// repository, or one that the rule names.
func (r *Rule) takesIdentity(identity, reference string) bool {
	id, ok := repository(identity)
	if !ok {
		return false
	}
	if len(r.Identities) > 0 {
		return slices.ContainsFunc(r.Identities, func(want string) bool { return want == Any || want == id })
	}
	repo, ok := repository(reference)
	return !ok || repo == id
}
