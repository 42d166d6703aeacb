package hcltext

import (
	"strings"
	"testing"
)

func TestBounded(t *testing.T) {
	for name, c := range map[string]struct{ src, want string }{
		"fine":          {`a = [1, "${b}"]`, ""},
		"large":         {strings.Repeat("#", Max+1), "bytes, more than"},
		"nested":        {"a = " + strings.Repeat("[", 101), "nested more than 100 deep"},
		"signs":         {"a = " + strings.Repeat("-", 101) + "1", "nested more than 100 deep"},
		"many words":    {"a = [" + strings.Repeat("1,", 60_000) + "]", "words"},
		"large number":  {"a = 1e999999999", "this large"},
		"long number":   {"a = " + strings.Repeat("9", 41), "this large"},
		"wide not deep": {"a = [" + strings.Repeat("[],", 200) + "]", ""},
	} {
		t.Run(name, func(t *testing.T) {
			diags := Bounded("f.hcl", []byte(c.src))
			if c.want == "" {
				if diags.HasErrors() {
					t.Error(diags)
				}
			} else if !diags.HasErrors() || !strings.Contains(diags.Error(), c.want) {
				t.Errorf("%v, want %q", diags, c.want)
			}
		})
	}
}

func TestClosest(t *testing.T) {
	names := []string{"source", "sha256", "release", "E03"}
	for given, want := range map[string]string{
		"sourec": "source", "sorce": "source", "SOURCE": "source", "sha265": "sha256", "e03": "E03",
		"nothing-like-it": "", "": "", strings.Repeat("x", 100): "",
	} {
		if got := Closest(given, names); got != want {
			t.Errorf("Closest(%q) = %q, want %q", given, got, want)
		}
	}
	if got := Suggest("relaese", names); got != ` Did you mean "release"?` {
		t.Errorf("Suggest: %q", got)
	}
}
