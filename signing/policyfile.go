package signing

import (
	"errors"
	"fmt"
	"math/big"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclsyntax"
	"github.com/zclconf/go-cty/cty"

	"github.com/goldenisc/packer-plugin-isc/internal/hcltext"
)

// Limits of a policy file.
const (
	maxRules = 1000
	maxKeys  = 64 // of a rule: every signature may be tried with each
)

// LoadPolicy reads a policy file, and the key files that it names beside it. All that is wrong with
// the policy is in the diagnostics; their text is returned, so that they can be shown in it.
func LoadPolicy(name string) (*Policy, []byte, hcl.Diagnostics, error) {
	src, err := readFile(name, hcltext.Max)
	if err != nil {
		return nil, nil, nil, fmt.Errorf("policy: %w", err)
	}
	p, diags := ParsePolicy(name, src, func(key string) ([]byte, error) {
		if !filepath.IsAbs(key) {
			key = filepath.Join(filepath.Dir(name), key)
		}
		return readFile(key, maxKeyFile)
	})
	return p, src, diags, nil
}

// ParsePolicy reads a policy. read opens the key files that it names, as they are written there.
// All problems are reported together; with an error among them there is no policy.
//
//	key "release" {
//	  file       = "release.pub" # or pem = <<EOT … EOT
//	  not_before = "2026-01-01"  # or with a time, as RFC 3339 has it
//	  not_after  = "2028-01-01"
//	}
//
//	key "old" {
//	  file    = "old.pub"
//	  revoked = "on a stolen laptop"
//	}
//
//	rule "registry.example/isc" {  # the first that fits decides
//	  keys           = ["release", "backup"]
//	  threshold      = 2           # of the keys; 1 unless said
//	  names          = ["web"]     # the last component of the repository unless said; "*" for any
//	  channels       = ["stable"]  # this unless said; in order of preference
//	  max_age        = "90d"       # since the release was issued: s, m, h, d, w
//	  downgrade      = "refuse"    # or "allow"
//	  max_epoch_jump = 100000
//	  accept         = "release"   # or "signature": a signature alone is enough
//	  identities     = ["registry.example/isc/web"] # of classic signatures, for mirrors
//	}
func ParsePolicy(filename string, src []byte, read func(name string) ([]byte, error)) (*Policy, hcl.Diagnostics) {
	p := &policyParser{read: read, keys: map[string]*TrustedKey{}}
	start := hcl.Range{Filename: filename, Start: hcl.InitialPos, End: hcl.InitialPos}
	if diags := hcltext.Bounded(filename, src); diags.HasErrors() {
		return nil, diags
	}
	file, diags := hclsyntax.ParseConfig(src, filename, hcl.InitialPos)
	if diags.HasErrors() {
		return nil, diags
	}
	p.body(file.Body.(*hclsyntax.Body))
	if len(p.policy.Rules) == 0 && !p.diags.HasErrors() {
		p.errorf(start, "No rule", "A policy without a rule refuses everything.")
	}
	slices.SortStableFunc(p.diags, func(a, b *hcl.Diagnostic) int { return a.Subject.Start.Byte - b.Subject.Start.Byte })
	if p.diags.HasErrors() {
		return nil, p.diags
	}
	return &p.policy, p.diags
}

type policyParser struct {
	policy Policy
	keys   map[string]*TrustedKey // nil values are of keys that are wrong themselves
	used   map[string]bool
	read   func(string) ([]byte, error)
	diags  hcl.Diagnostics
}

func (p *policyParser) errorf(at hcl.Range, summary, format string, args ...any) {
	p.diags = append(p.diags, &hcl.Diagnostic{
		Severity: hcl.DiagError, Summary: summary, Detail: fmt.Sprintf(format, args...), Subject: &at,
	})
}

func (p *policyParser) body(b *hclsyntax.Body) {
	for _, a := range b.Attributes {
		p.errorf(a.NameRange, "Unsupported argument", "A policy has only the blocks key and rule.")
	}
	// Keys first, wherever they stand.
	for _, block := range b.Blocks {
		if block.Type == "key" && p.label(block) {
			p.key(block)
		}
	}
	p.used = map[string]bool{}
	for _, block := range b.Blocks {
		switch {
		case block.Type == "rule":
			if p.label(block) {
				p.rule(block)
			}
		case block.Type != "key":
			p.errorf(block.TypeRange, "Unsupported block", "A block named %q is not expected here.%s",
				block.Type, hcltext.Suggest(block.Type, []string{"key", "rule"}))
		}
	}
	for _, block := range b.Blocks {
		if block.Type == "key" && len(block.Labels) == 1 && !p.used[block.Labels[0]] && !p.diags.HasErrors() {
			at := block.DefRange()
			p.diags = append(p.diags, &hcl.Diagnostic{
				Severity: hcl.DiagWarning, Summary: "Unused key",
				Detail: fmt.Sprintf("No rule names the key %q.", block.Labels[0]), Subject: &at,
			})
		}
	}
}

func (p *policyParser) label(b *hclsyntax.Block) bool {
	if len(b.Labels) != 1 || b.Labels[0] == "" {
		what := map[string]string{"key": "its name", "rule": "the prefix of references"}[b.Type]
		p.errorf(b.DefRange(), "Wrong label", "A %s block has one label, %s.", b.Type, what)
		return false
	}
	return true
}

// A setter decodes the value of an argument.
type setter func(hclsyntax.Expression) error

// arguments decodes the body of a block.
func (p *policyParser) arguments(b *hclsyntax.Block, setters map[string]setter, required ...string) {
	names := make([]string, 0, len(setters))
	for name := range setters {
		names = append(names, name)
	}
	slices.Sort(names)
	for name, a := range b.Body.Attributes {
		set, ok := setters[name]
		if !ok {
			p.errorf(a.NameRange, "Unsupported argument", "An argument named %q is not expected here.%s", name, hcltext.Suggest(name, names))
			continue
		}
		if err := set(a.Expr); err != nil {
			p.errorf(a.Expr.Range(), "Wrong value", "%s: %v.", name, err)
		}
	}
	for _, inner := range b.Body.Blocks {
		p.errorf(inner.TypeRange, "Unsupported block", "A block named %q is not expected here.", inner.Type)
	}
	for _, name := range required {
		if b.Body.Attributes[name] == nil {
			p.errorf(b.DefRange(), "Missing argument", "The argument %q is required.", name)
		}
	}
}

func (p *policyParser) key(b *hclsyntax.Block) {
	name := b.Labels[0]
	if _, ok := p.keys[name]; ok {
		p.errorf(b.DefRange(), "Duplicate key", "There is a key %q already.", name)
		return
	}
	p.keys[name] = nil
	before := len(p.diags)
	k := TrustedKey{Name: name}
	pem := func(data []byte, err error) error {
		if err != nil {
			return err
		}
		k.Key, err = ParsePublicKey(data)
		return err
	}
	p.arguments(b, map[string]setter{
		"file": func(e hclsyntax.Expression) error {
			s, err := text(e)
			if err != nil {
				return err
			}
			return pem(p.read(s))
		},
		"pem": func(e hclsyntax.Expression) error {
			s, err := text(e)
			return pem([]byte(s), err)
		},
		"not_before": instant(&k.NotBefore),
		"not_after":  instant(&k.NotAfter),
		"revoked": func(e hclsyntax.Expression) (err error) {
			if k.Revoked, err = text(e); err == nil && strings.TrimSpace(k.Revoked) == "" {
				err = errors.New("want a reason")
			}
			return err
		},
	})
	attrs := b.Body.Attributes
	if (attrs["file"] == nil) == (attrs["pem"] == nil) {
		p.errorf(b.DefRange(), "Wrong key", "The key %q needs either file or pem.", name)
	}
	if !k.NotAfter.IsZero() && !k.NotAfter.After(k.NotBefore) {
		p.errorf(b.DefRange(), "Wrong key", "The window of the key %q ends before it begins.", name)
	}
	if len(p.diags) > before {
		return
	}
	for other, o := range p.keys {
		if o != nil && o.Key.id == k.Key.id {
			p.errorf(b.DefRange(), "Duplicate key", "The keys %q and %q are the same key, and would count twice.", other, name)
			return
		}
	}
	p.keys[name] = &k
}

func (p *policyParser) rule(b *hclsyntax.Block) {
	r := Rule{Prefix: b.Labels[0], Channels: []string{"stable"}, Threshold: 1, EpochJump: DefaultEpochJump}
	for _, before := range p.policy.Rules {
		if before.Prefix == Any || within(r.Prefix, before.Prefix) {
			p.errorf(b.LabelRanges[0], "Rule never reached", "Everything below %q is decided by the rule for %q before it.", r.Prefix, before.Prefix)
		}
	}
	if len(p.policy.Rules) >= maxRules {
		p.errorf(b.DefRange(), "Too large", "There are more than %d rules.", maxRules)
		return
	}
	number := func(to *int64, limit int64) setter {
		return func(e hclsyntax.Expression) (err error) {
			*to, err = integer(e, 1, limit)
			return err
		}
	}
	choice := func(to *bool, no, yes string) setter {
		return func(e hclsyntax.Expression) error {
			s, err := text(e)
			if err == nil && s != no && s != yes {
				err = fmt.Errorf("want %q or %q", no, yes)
			}
			*to = s == yes
			return err
		}
	}
	named := func(to *[]string, what string) setter {
		return func(e hclsyntax.Expression) (err error) {
			if *to, err = texts(e); err != nil {
				return err
			}
			for _, s := range *to {
				if s != Any {
					if err := checkName(what, s); err != nil {
						return err
					}
				}
			}
			return nil
		}
	}
	var keys []string
	threshold := int64(1)
	p.arguments(b, map[string]setter{
		"keys": func(e hclsyntax.Expression) (err error) {
			if keys, err = texts(e); err == nil && len(keys) > maxKeys {
				err = fmt.Errorf("more than %d", maxKeys)
			}
			return err
		},
		"threshold":      number(&threshold, maxKeys),
		"names":          named(&r.Names, "name"),
		"channels":       named(&r.Channels, "channel"),
		"max_epoch_jump": number(&r.EpochJump, MaxEpoch),
		"max_age": func(e hclsyntax.Expression) error {
			s, err := text(e)
			if err == nil {
				r.MaxAge, err = ParseDuration(s)
			}
			return err
		},
		"downgrade": choice(&r.Downgrade, "refuse", "allow"),
		"accept":    choice(&r.Unreleased, "release", "signature"),
		"identities": func(e hclsyntax.Expression) (err error) {
			r.Identities, err = texts(e)
			return err
		},
	}, "keys")
	r.Threshold = int(threshold)
	at := b.DefRange()
	if a := b.Body.Attributes["keys"]; a != nil {
		at = a.Expr.Range()
	}
	all := make([]string, 0, len(p.keys))
	for name := range p.keys {
		all = append(all, name)
	}
	slices.Sort(all)
	usable := 0
	for _, name := range keys {
		k, ok := p.keys[name]
		p.used[name] = true
		switch {
		case !ok:
			p.errorf(at, "Unknown key", "There is no key %q.%s", name, hcltext.Suggest(name, all))
		case k != nil:
			r.Keys = append(r.Keys, *k)
			if k.Revoked == "" {
				usable++
			}
		}
	}
	if r.Threshold > usable && !p.diags.HasErrors() {
		p.errorf(at, "Threshold out of reach", "%d keys must sign, but only %d of the rule's are not revoked.", r.Threshold, usable)
	}
	p.policy.Rules = append(p.policy.Rules, r)
}

// Expressions are literals and lists of literals; nothing is computed.

func text(e hclsyntax.Expression) (string, error) {
	t, ok := e.(*hclsyntax.TemplateExpr)
	if !ok {
		return "", errors.New("want a text in quotes")
	}
	var b strings.Builder
	for _, part := range t.Parts {
		l, ok := part.(*hclsyntax.LiteralValueExpr)
		if !ok || l.Val.Type() != cty.String {
			return "", errors.New("want a text without ${…}")
		}
		b.WriteString(l.Val.AsString())
	}
	return b.String(), nil
}

func texts(e hclsyntax.Expression) ([]string, error) {
	t, ok := e.(*hclsyntax.TupleConsExpr)
	if !ok || len(t.Exprs) == 0 {
		return nil, errors.New("want a list of texts, [\"…\"]")
	}
	var list []string
	for _, e := range t.Exprs {
		s, err := text(e)
		switch {
		case err != nil:
			return nil, err
		case s == "" || slices.Contains(list, s):
			return nil, fmt.Errorf("%q is empty or twice in it", s)
		}
		list = append(list, s)
	}
	return list, nil
}

func integer(e hclsyntax.Expression, least, most int64) (int64, error) {
	l, ok := e.(*hclsyntax.LiteralValueExpr)
	if ok && l.Val.Type() == cty.Number {
		n, accuracy := l.Val.AsBigFloat().Int64()
		if accuracy == big.Exact && n >= least && n <= most {
			return n, nil
		}
	}
	return least, fmt.Errorf("want a whole number from %d to %d", least, most)
}

func instant(to *time.Time) setter {
	return func(e hclsyntax.Expression) error {
		s, err := text(e)
		if err != nil {
			return err
		}
		for _, form := range []string{time.DateOnly, time.RFC3339} {
			if t, err := time.Parse(form, s); err == nil {
				*to = t.UTC()
				return nil
			}
		}
		return fmt.Errorf("%q: want a date like 2026-01-31 or a time like 2026-01-31T12:00:00Z", s)
	}
}

var durationForm = regexp.MustCompile(`^([1-9][0-9]{0,8})([smhdw])$`)

// ParseDuration reads a duration of one unit: seconds, minutes, hours, days of 24 hours or weeks,
// as in "90d". It is never zero and at most some 290 years.
func ParseDuration(s string) (time.Duration, error) {
	m := durationForm.FindStringSubmatch(s)
	if m == nil {
		return 0, fmt.Errorf("duration %q: want a number and s, m, h, d or w, as in 90d", s)
	}
	n, _ := strconv.ParseInt(m[1], 10, 64) // nine digits
	unit := map[string]time.Duration{
		"s": time.Second, "m": time.Minute, "h": time.Hour, "d": 24 * time.Hour, "w": 7 * 24 * time.Hour,
	}[m[2]]
	if n > int64(1<<63-1)/int64(unit) {
		return 0, fmt.Errorf("duration %q: too long", s)
	}
	return time.Duration(n) * unit, nil
}
