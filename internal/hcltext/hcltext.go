// Package hcltext has what all readers of HCL files that people write share: bounds on the text,
// which the parser does not set itself, and suggestions for slips.
package hcltext

import (
	"bytes"
	"fmt"
	"strings"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclsyntax"
)

// Max bounds a file, in bytes: what people write is a thousandth of it.
const Max = 1 << 20

// The parser recurses, and numbers are exact: without limits brackets alone would exhaust the
// stack, and "1e999999999" take a gigabyte to print.
const (
	maxTokens = 100_000
	maxDepth  = 100 // of brackets and templates
	maxNumber = 40  // characters
)

// Bounded refuses a file that is too large or too deeply nested to be parsed.
func Bounded(filename string, src []byte) hcl.Diagnostics {
	refuse := func(at hcl.Range, format string, args ...any) hcl.Diagnostics {
		return hcl.Diagnostics{{
			Severity: hcl.DiagError, Summary: "Too large", Detail: fmt.Sprintf(format, args...), Subject: &at,
		}}
	}
	if len(src) > Max {
		return refuse(hcl.Range{Filename: filename, Start: hcl.InitialPos, End: hcl.InitialPos}, "The file has %d bytes, more than %d.", len(src), Max)
	}
	tokens, _ := hclsyntax.LexConfig(src, filename, hcl.InitialPos) // the parser reports what is wrong
	depth, signs := 0, 0                                            // signs in a row nest as well
	for i, t := range tokens {
		if t.Type == hclsyntax.TokenBang || t.Type == hclsyntax.TokenMinus {
			signs++
		} else {
			signs = 0
		}
		switch t.Type {
		case hclsyntax.TokenOBrace, hclsyntax.TokenOBrack, hclsyntax.TokenOParen, hclsyntax.TokenOQuote,
			hclsyntax.TokenOHeredoc, hclsyntax.TokenTemplateInterp, hclsyntax.TokenTemplateControl:
			depth++
		case hclsyntax.TokenCBrace, hclsyntax.TokenCBrack, hclsyntax.TokenCParen, hclsyntax.TokenCQuote,
			hclsyntax.TokenCHeredoc, hclsyntax.TokenTemplateSeqEnd:
			depth--
		case hclsyntax.TokenNumberLit:
			if _, exp, ok := bytes.Cut(bytes.ToLower(t.Bytes), []byte("e")); len(t.Bytes) > maxNumber || ok && len(exp) > 4 {
				return refuse(t.Range, "No number here is this large or this precise.")
			}
		}
		if depth+signs > maxDepth {
			return refuse(t.Range, "Brackets and templates are nested more than %d deep.", maxDepth)
		}
		if i > maxTokens {
			return refuse(t.Range, "The file has more than %d words.", maxTokens)
		}
	}
	return nil
}

// Suggest returns " Did you mean …?" if one of the names is close to the given one.
func Suggest(given string, names []string) string {
	if s := Closest(given, names); s != "" {
		return fmt.Sprintf(" Did you mean %q?", s)
	}
	return ""
}

// Closest returns the name that the given one is most likely a slip of, or "".
func Closest(given string, names []string) string {
	best, name := (len(given)+1)/3+1, ""
	for _, n := range names {
		if d := distance(strings.ToLower(given), strings.ToLower(n)); d < best {
			best, name = d, n
		}
	}
	return name
}

// distance is the optimal string alignment distance: Levenshtein's with neighbours swapped as
// one slip. It is at least 64, an outsize number, for long strings.
func distance(a, b string) int {
	if len(a) > 64 || len(b) > 64 {
		return 64
	}
	var before []int
	last := make([]int, len(b)+1)
	for j := range last {
		last[j] = j
	}
	for i := range len(a) {
		row := make([]int, len(b)+1)
		row[0] = i + 1
		for j := range len(b) {
			cost := 1
			if a[i] == b[j] {
				cost = 0
			}
			row[j+1] = min(last[j+1]+1, row[j]+1, last[j]+cost)
			if i > 0 && j > 0 && a[i] == b[j-1] && a[i-1] == b[j] {
				row[j+1] = min(row[j+1], before[j-1]+1)
			}
		}
		before, last = last, row
	}
	return last[len(b)]
}
