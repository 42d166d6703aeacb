package signing

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/hcl/v2"

	"github.com/goldenisc/packer-plugin-isc/internal/hcltext"
)

// readTestKey stands for the files beside a policy: NAME.pub is the key of that name.
func readTestKey(t testing.TB) func(string) ([]byte, error) {
	return func(file string) ([]byte, error) {
		name, ok := strings.CutSuffix(file, ".pub")
		if !ok {
			return nil, errors.New("no such file")
		}
		return key(t, name).Public().PEM(), nil
	}
}

func describeDiags(diags hcl.Diagnostics) string {
	var b strings.Builder
	for _, d := range diags {
		fmt.Fprintf(&b, "%d:%d %s: %s\n", d.Subject.Start.Line, d.Subject.Start.Column, d.Summary, d.Detail)
	}
	return b.String()
}

func policy(t testing.TB, src string) *Policy {
	t.Helper()
	p, diags := ParsePolicy("policy.hcl", []byte(src), readTestKey(t))
	if diags.HasErrors() {
		t.Fatal(describeDiags(diags))
	}
	return p
}

const fullPolicy = `
key "release" {
  file       = "release.pub"
  not_before = "2026-01-01"
  not_after  = "2028-01-01T12:00:00+02:00"
}

key "backup" {
  file = "backup.pub"
}

key "old" {
  file    = "old.pub"
  revoked = "on a stolen laptop"
}

rule "registry.example/isc/web" {
  keys           = ["release", "backup", "old"]
  threshold      = 2
  names          = ["web"]
  channels       = ["stable", "candidate"]
  max_age        = "90d"
  downgrade      = "allow"
  max_epoch_jump = 12
  accept         = "signature"
  identities     = ["origin.example/isc/web"]
}

rule "*" {
  keys = ["backup"]
}
`

func TestPolicy(t *testing.T) {
	p := policy(t, fullPolicy)
	if len(p.Rules) != 2 {
		t.Fatalf("%d rules", len(p.Rules))
	}
	r := p.Rules[0]
	if r.Threshold != 2 || !slices.Equal(r.Names, []string{"web"}) || !slices.Equal(r.Channels, []string{"stable", "candidate"}) ||
		r.MaxAge != 90*day || !r.Downgrade || r.EpochJump != 12 || !r.Unreleased || len(r.Keys) != 3 {
		t.Errorf("first rule %+v", r)
	}
	k := r.Keys[0]
	if k.Name != "release" || !k.NotBefore.Equal(time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)) ||
		!k.NotAfter.Equal(time.Date(2028, 1, 1, 10, 0, 0, 0, time.UTC)) || r.Keys[2].Revoked != "on a stolen laptop" {
		t.Errorf("keys %+v", r.Keys)
	}
	r = p.Rules[1]
	if r.Threshold != 1 || r.Names != nil || !slices.Equal(r.Channels, []string{"stable"}) || r.MaxAge != 0 ||
		r.Downgrade || r.Unreleased || r.EpochJump != DefaultEpochJump {
		t.Errorf("defaults %+v", r)
	}
	pem := string(key(t, "backup").Public().PEM())
	p = policy(t, "key \"k\" {\n  pem = <<EOT\n"+pem+"EOT\n}\nrule \"*\" {\n  keys = [\"k\"]\n}\n")
	if p.Rules[0].Keys[0].Key.ID() != key(t, "backup").Public().ID() {
		t.Error("the key in the text is another")
	}
}

func TestRuleOfReference(t *testing.T) {
	for _, c := range []struct {
		prefix, reference string
		want              bool
	}{
		{"*", "anything", true},
		{"registry.example/isc", "registry.example/isc", true},
		{"registry.example/isc", "registry.example/isc/web:1.0", true},
		{"registry.example/isc", "registry.example/isc:1.0", true},
		{"registry.example/isc", "registry.example/isc@sha256:00", true},
		{"registry.example/isc", "docker://Registry.EXAMPLE/isc/web", true},
		{"registry.example/isc/", "registry.example/isc/web", true},
		{"registry.example/isc", "registry.example/iscariot", false},
		{"registry.example/isc", "registry.example/is", false},
		{"registry.example", "registry.example.evil/isc", false},
		{"registry.example", "registry.example:5000/isc", true},
		{"oci:", "oci:/var/images:web", true},
		{"oci:/var", "oci:/var/images", true},
		{"oci:/var", "oci:/various", false},
		{"oci:", "oci-archive:web.tar", false},
		{"isc", "registry.example/isc", false},
	} {
		p := Policy{Rules: []Rule{{Prefix: c.prefix}}}
		if got := p.Rule(c.reference) != nil; got != c.want {
			t.Errorf("%q fits %q: %v", c.prefix, c.reference, got)
		}
	}
	p := Policy{Rules: []Rule{{Prefix: "a.example/x/y"}, {Prefix: "a.example/x"}, {Prefix: Any}}}
	for reference, want := range map[string]int{"a.example/x/y:1": 0, "a.example/x/z": 1, "b.example/x": 2} {
		if p.Rule(reference) != &p.Rules[want] {
			t.Errorf("%s: not rule %d", reference, want)
		}
	}
}

func TestRepository(t *testing.T) {
	for reference, want := range map[string]string{
		"registry.example/isc/web":                   "registry.example/isc/web",
		"registry.example/isc/web:1.0":               "registry.example/isc/web",
		"docker://localhost:5000/web:1.0@sha256:abc": "localhost:5000/web",
		"localhost:5000/web":                         "localhost:5000/web",
		"oci:dir/web:1":                              "",
		"oci-archive:web.tar":                        "",
		"web":                                        "",
	} {
		got, ok := repository(reference)
		if ok != (want != "") || ok && got != want {
			t.Errorf("%s: got %q, %v", reference, got, ok)
		}
	}
}

func TestPolicyProblems(t *testing.T) {
	const keys = "key \"release\" {\n  file = \"release.pub\"\n}\n"
	rule := func(body string) string {
		return keys + "rule \"*\" {\n  keys = [\"release\"]\n  " + body + "\n}\n"
	}
	for _, c := range []struct{ name, src, want string }{
		{"empty", "", "1:1 No rule: A policy without a rule refuses everything."},
		{"only keys", keys, "1:1 No rule"},
		{"syntax", "rule {", "Unclosed configuration block"},
		{"argument outside", "threshold = 1\n" + rule(""), "1:1 Unsupported argument: A policy has only the blocks key and rule."},
		{"block", rule("") + "rules \"x\" {\n}\n", `8:1 Unsupported block: A block named "rules" is not expected here. Did you mean "rule"?`},
		{"inner block", rule("key {\n}"), `6:3 Unsupported block: A block named "key" is not expected here.`},
		{"no label", keys + "rule {\n  keys = [\"release\"]\n}\n", "4:1 Wrong label: A rule block has one label, the prefix of references."},
		{"two labels", rule("") + "key \"a\" \"b\" {\n}\n", "8:1 Wrong label: A key block has one label, its name."},
		{"typo", rule("treshold = 2"), `6:3 Unsupported argument: An argument named "treshold" is not expected here. Did you mean "threshold"?`},
		{"no keys", keys + "rule \"*\" {\n}\n", `4:1 Missing argument: The argument "keys" is required.`},
		{"unknown key", keys + "rule \"*\" {\n  keys = [\"realese\"]\n}\n", `5:10 Unknown key: There is no key "realese". Did you mean "release"?`},
		{"no list", keys + "rule \"*\" {\n  keys = \"release\"\n}\n", "5:10 Wrong value: keys: want a list of texts"},
		{"key twice in a rule", keys + "rule \"*\" {\n  keys = [\"release\", \"release\"]\n}\n", `"release" is empty or twice in it`},
		{"empty list", rule("names = []"), "6:11 Wrong value: names: want a list"},
		{"name", rule(`names = ["Web"]`), `names: name "Web"`},
		{"threshold above", rule("threshold = 2"), "5:10 Threshold out of reach: 2 keys must sign, but only 1 of the rule's are not revoked."},
		{"threshold 0", rule("threshold = 0"), "6:15 Wrong value: threshold: want a whole number from 1 to 64"},
		{"threshold half", rule("threshold = 1.5"), "want a whole number"},
		{"threshold huge", rule("threshold = 1e999999"), "this large"},
		{"threshold text", rule(`threshold = "1"`), "want a whole number"},
		{"duration", rule(`max_age = "90 days"`), `6:13 Wrong value: max_age: duration "90 days": want a number and s, m, h, d or w, as in 90d.`},
		{"duration too long", rule(`max_age = "999999999w"`), "too long"},
		{"choice", rule(`downgrade = "alow"`), `6:15 Wrong value: downgrade: want "refuse" or "allow".`},
		{"bool", rule(`downgrade = true`), "want a text in quotes"},
		{"accept", rule(`accept = "all"`), `want "release" or "signature"`},
		{"computed", rule(`accept = "${"release"}"`), "want a text"},
		{"function", rule(`accept = lower("RELEASE")`), "want a text in quotes"},
		{"for", rule(`names = [for x in ["a"] : x]`), "want a list"},
		{"no reach", rule("") + "rule \"a.example\" {\n  keys = [\"release\"]\n}\n", `8:6 Rule never reached: Everything below "a.example" is decided by the rule for "*" before it.`},
		{"key twice", keys + rule(""), `4:1 Duplicate key: There is a key "release" already.`},
		{"same key", rule("") + "key \"again\" {\n  file = \"release.pub\"\n}\n", "are the same key, and would count twice"},
		{"no file", "key \"release\" {\n  file = \"gone\"\n}\n" + rule("")[len(keys):], "2:10 Wrong value: file: no such file."},
		{"neither", "key \"release\" {\n}\n" + rule("")[len(keys):], `1:1 Wrong key: The key "release" needs either file or pem.`},
		{"both", "key \"release\" {\n  file = \"release.pub\"\n  pem = \"x\"\n}\n" + rule("")[len(keys):], "needs either file or pem"},
		{"bad PEM", "key \"release\" {\n  pem = \"x\"\n}\n" + rule("")[len(keys):], "2:9 Wrong value: pem: public key: no PEM block in it."},
		{"window", "key \"release\" {\n  file = \"release.pub\"\n  not_before = \"2027-01-01\"\n  not_after = \"2026-01-01\"\n}\n" + rule("")[len(keys):], `1:1 Wrong key: The window of the key "release" ends before it begins.`},
		{"date", "key \"release\" {\n  file = \"release.pub\"\n  not_after = \"31.12.2026\"\n}\n" + rule("")[len(keys):], `3:15 Wrong value: not_after: "31.12.2026": want a date like 2026-01-31`},
		{"no reason", "key \"release\" {\n  file = \"release.pub\"\n  revoked = \"\"\n}\n" + rule("")[len(keys):], "want a reason"},
		{"all revoked", "key \"release\" {\n  file = \"release.pub\"\n  revoked = \"lost\"\n}\n" + rule("")[len(keys):], "1 keys must sign, but only 0"},
		{"unused", rule("") + "key \"spare\" {\n  file = \"spare.pub\"\n}\n", `8:1 Unused key: No rule names the key "spare".`},
		{"deep", rule("names = " + strings.Repeat("[", 100000)), "nested more than 100 deep"},
		{"deep sign", rule("threshold = " + strings.Repeat("-", 100000) + "1"), "nested more than 100 deep"},
		{"large", strings.Repeat("#\n", hcltext.Max), "more than 1048576"},
	} {
		t.Run(c.name, func(t *testing.T) {
			p, diags := ParsePolicy("policy.hcl", []byte(c.src), readTestKey(t))
			if got := describeDiags(diags); !strings.Contains(got, c.want) {
				t.Errorf("got\n%swant\n%s", got, c.want)
			}
			if (p == nil) != diags.HasErrors() {
				t.Errorf("policy %v beside\n%s", p, describeDiags(diags))
			}
		})
	}
}

func TestPolicyProblemsTogether(t *testing.T) {
	_, diags := ParsePolicy("policy.hcl", []byte(`
key "a" {
  fil = "a.pub"
}

rule "x.example" {
  keys      = ["b"]
  threshold = "two"
  max_ago   = "1d"
}

ruel "y" {}
`), readTestKey(t))
	golden(t, "policy-problems.golden", []byte(describeDiags(diags)))
}

func TestLoadPolicy(t *testing.T) {
	dir := t.TempDir()
	name := filepath.Join(dir, "policy.hcl")
	src := "key \"release\" {\n  file = \"keys/release.pub\"\n}\nrule \"*\" {\n  keys = [\"release\"]\n}\n"
	if err := os.WriteFile(name, []byte(src), 0o644); err != nil {
		t.Fatal(err)
	}
	_, text, diags, err := LoadPolicy(name)
	if err != nil || string(text) != src || !strings.Contains(describeDiags(diags), "2:10 Wrong value: file: ") {
		t.Errorf("got %q, %v\n%s", text, err, describeDiags(diags))
	}
	if err := os.Mkdir(filepath.Join(dir, "keys"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "keys", "release.pub"), key(t, "release").Public().PEM(), 0o644); err != nil {
		t.Fatal(err)
	}
	p, _, diags, err := LoadPolicy(name)
	if err != nil || diags.HasErrors() || p.Rules[0].Keys[0].Key.ID() != key(t, "release").Public().ID() {
		t.Errorf("got %v, %v\n%s", p, err, describeDiags(diags))
	}
	_, _, _, err = LoadPolicy(filepath.Join(dir, "none"))
	wantError(t, err, "policy: ")
}

func TestForKeys(t *testing.T) {
	one, two := key(t, "one").Public(), key(t, "two").Public()
	p := ForKeys(one, two, one)
	if r := p.Rule("anything"); len(r.Keys) != 2 || r.Threshold != 1 || r.Unreleased {
		t.Errorf("rule %+v", r)
	}
}

func TestParseDuration(t *testing.T) {
	for s, want := range map[string]time.Duration{
		"1s": time.Second, "5m": 5 * time.Minute, "12h": 12 * time.Hour, "90d": 90 * day, "2w": 14 * day,
		"": 0, "d": 0, "0d": 0, "-1d": 0, "1y": 0, "1.5d": 0, "90": 0, "1d12h": 0, "999999999w": 0, "9999999999s": 0,
	} {
		got, err := ParseDuration(s)
		if got != want || (err == nil) != (want > 0) {
			t.Errorf("%q: got %v, %v", s, got, err)
		}
	}
}

func FuzzParsePolicy(f *testing.F) {
	f.Add(fullPolicy)
	f.Add("rule \"*\" {\n  keys = [for x in [1] : x]\n}\n")
	f.Add("key \"a\" {\n  pem = <<-EOT\n    x\n  EOT\n}\n")
	f.Fuzz(func(t *testing.T, src string) {
		p, diags := ParsePolicy("policy.hcl", []byte(src), readTestKey(t))
		if (p == nil) != diags.HasErrors() {
			t.Errorf("policy %v beside %v", p, diags)
		}
		if p == nil {
			return
		}
		for _, r := range p.Rules {
			if r.Threshold < 1 || r.Threshold > len(r.Keys) || len(r.Channels) == 0 || r.Prefix == "" {
				t.Errorf("rule %+v", r)
			}
		}
	})
}
