package builder

import (
	"bytes"
	"cmp"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"unicode"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclsyntax"
)

// Texts are the texts that diagnostics point into, by name: the spec, files with values of
// variables, and the values of flags.
type Texts map[string][]byte

// Write writes diagnostics for people: place, severity and text on one line, and below it the
// line of source with the place marked.
//
//	web.isc.hcl:3:3: error: Unsupported argument: An argument named "nmae" is not expected here. Did you mean "name"?
//	    3 |   nmae = "web"
//	      |   ^^^^
func (s Texts) Write(w io.Writer, diags hcl.Diagnostics) error {
	var b strings.Builder
	for _, d := range diags {
		severity := "error"
		if d.Severity == hcl.DiagWarning {
			severity = "warning"
		}
		if d.Subject != nil {
			fmt.Fprintf(&b, "%s:%d:%d: ", printable(d.Subject.Filename), d.Subject.Start.Line, d.Subject.Start.Column)
		}
		fmt.Fprintf(&b, "%s: %s", severity, printable(d.Summary))
		if d.Detail != "" {
			fmt.Fprintf(&b, ": %s", printable(d.Detail))
		}
		b.WriteByte('\n')
		if d.Subject != nil {
			s.snippet(&b, *d.Subject)
		}
	}
	_, err := io.WriteString(w, b.String())
	return err
}

// maxSnippet bounds the line of source that is shown, in bytes: more than that tells a reader
// nothing.
const maxSnippet = 160

func (s Texts) snippet(b *strings.Builder, at hcl.Range) {
	src, ok := s[at.Filename]
	if !ok || at.Start.Byte > len(src) {
		return
	}
	start := bytes.LastIndexByte(src[:at.Start.Byte], '\n') + 1
	line, _, _ := bytes.Cut(src[start:], []byte("\n"))
	line = bytes.TrimRight(line, "\r")
	from := min(at.Start.Byte-start, len(line))
	to := min(at.End.Byte-start, len(line))
	if from > maxSnippet || at.End.Byte == 0 {
		return
	}
	tail := ""
	if len(line) > maxSnippet {
		line, to, tail = line[:maxSnippet], min(to, maxSnippet), "…"
	}
	head, marked := blank(line[:from]), blank(line[from:max(from, to)])
	fmt.Fprintf(b, "%5d | %s%s\n", at.Start.Line, blankTabs(printable(string(line))), tail)
	fmt.Fprintf(b, "      | %s%s\n", strings.Repeat(" ", head), strings.Repeat("^", max(1, marked)))
}

// blank returns how many columns a piece of source takes as printable shows it.
func blank(text []byte) int { return len([]rune(blankTabs(printable(string(text))))) }

func blankTabs(s string) string { return strings.ReplaceAll(s, "\t", "    ") }

// printable replaces what would steer a terminal.
func printable(s string) string {
	return strings.Map(func(r rune) rune {
		if r == '\n' {
			return ' '
		}
		if r != '\t' && !unicode.IsPrint(r) {
			return unicode.ReplacementChar
		}
		return r
	}, s)
}

// sortDiagnostics puts diagnostics in the order of the source, those of other files behind it.
func sortDiagnostics(filename string, diags hcl.Diagnostics) {
	other := func(r hcl.Range) int {
		if r.Filename == filename {
			return 0
		}
		return 1
	}
	at := func(d *hcl.Diagnostic) hcl.Range {
		if d.Subject == nil {
			return hcl.Range{}
		}
		return *d.Subject
	}
	slices.SortStableFunc(diags, func(a, b *hcl.Diagnostic) int {
		ra, rb := at(a), at(b)
		return cmp.Or(
			cmp.Compare(other(ra), other(rb)),
			cmp.Compare(ra.Filename, rb.Filename),
			cmp.Compare(ra.Start.Byte, rb.Start.Byte),
			cmp.Compare(a.Summary, b.Summary),
			cmp.Compare(a.Detail, b.Detail),
		)
	})
}

func (p *parser) errorf(at hcl.Range, summary, format string, args ...any) {
	p.diags = append(p.diags, &hcl.Diagnostic{
		Severity: hcl.DiagError, Summary: summary, Detail: fmt.Sprintf(format, args...), Subject: &at,
	})
}

// Limits of a spec, of a file with variables and of what the functions read. The parser and the
// evaluation of expressions recurse: without limits, brackets alone would exhaust the stack.
const (
	maxSpec   = 1 << 20 // bytes
	maxTokens = 100_000
	maxDepth  = 100 // of brackets and templates
	maxNumber = 40  // characters: "1e999999999" is short and takes a gigabyte to print
)

// parseBody parses HCL, within the limits.
func parseBody(filename string, src []byte) (*hclsyntax.Body, hcl.Diagnostics) {
	if diags := bounded(filename, src); diags.HasErrors() {
		return nil, diags
	}
	file, diags := hclsyntax.ParseConfig(src, filename, hcl.InitialPos)
	if diags.HasErrors() {
		return nil, diags
	}
	return file.Body.(*hclsyntax.Body), diags
}

func bounded(filename string, src []byte) hcl.Diagnostics {
	refuse := func(at hcl.Range, format string, args ...any) hcl.Diagnostics {
		return hcl.Diagnostics{{
			Severity: hcl.DiagError, Summary: "Too large", Detail: fmt.Sprintf(format, args...), Subject: &at,
		}}
	}
	if len(src) > maxSpec {
		return refuse(hcl.Range{Filename: filename, Start: hcl.InitialPos, End: hcl.InitialPos}, "The file has %d bytes, more than %d.", len(src), maxSpec)
	}
	tokens, _ := hclsyntax.LexConfig(src, filename, hcl.InitialPos) // the parser reports what is wrong
	depth := 0
	for i, t := range tokens {
		switch t.Type {
		case hclsyntax.TokenOBrace, hclsyntax.TokenOBrack, hclsyntax.TokenOParen, hclsyntax.TokenOQuote,
			hclsyntax.TokenOHeredoc, hclsyntax.TokenTemplateInterp, hclsyntax.TokenTemplateControl:
			depth++
		case hclsyntax.TokenCBrace, hclsyntax.TokenCBrack, hclsyntax.TokenCParen, hclsyntax.TokenCQuote,
			hclsyntax.TokenCHeredoc, hclsyntax.TokenTemplateSeqEnd:
			depth--
		case hclsyntax.TokenNumberLit:
			if _, exp, ok := bytes.Cut(bytes.ToLower(t.Bytes), []byte("e")); len(t.Bytes) > maxNumber || ok && len(exp) > 4 {
				return refuse(t.Range, "No number of a spec is this large or this precise.")
			}
		}
		if depth > maxDepth {
			return refuse(t.Range, "Brackets and templates are nested more than %d deep.", maxDepth)
		}
		if i > maxTokens {
			return refuse(t.Range, "The file has more than %d words.", maxTokens)
		}
	}
	return nil
}

// suggest returns " Did you mean …?" if one of the names is close to the given one.
func suggest(given string, names []string) string {
	if s := closest(given, names); s != "" {
		return " Did you mean " + quote(s) + "?"
	}
	return ""
}

// closest returns the name that the given one is most likely a slip of, or "".
func closest(given string, names []string) string {
	best, name := (len(given)+1)/3+1, ""
	for _, n := range names {
		if d := distance(strings.ToLower(given), n); d < best {
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

func quote(s string) string { return strconv.Quote(s) }

// list writes names for a sentence.
func list(names []string) string { return strings.Join(names, ", ") }
