package builder

import (
	"bytes"
	"cmp"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclsyntax"

	"github.com/goldenisc/packer-plugin-isc/internal/hcltext"
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
			fmt.Fprintf(&b, "%s:%d:%d: ", hcltext.Printable(d.Subject.Filename), d.Subject.Start.Line, d.Subject.Start.Column)
		}
		fmt.Fprintf(&b, "%s: %s", severity, hcltext.Printable(d.Summary))
		if d.Detail != "" {
			fmt.Fprintf(&b, ": %s", hcltext.Printable(d.Detail))
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
	fmt.Fprintf(b, "%5d | %s%s\n", at.Start.Line, blankTabs(hcltext.Printable(string(line))), tail)
	fmt.Fprintf(b, "      | %s%s\n", strings.Repeat(" ", head), strings.Repeat("^", max(1, marked)))
}

// blank returns how many columns a piece of source takes as printable shows it.
func blank(text []byte) int { return len([]rune(blankTabs(hcltext.Printable(string(text))))) }

func blankTabs(s string) string { return strings.ReplaceAll(s, "\t", "    ") }

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

// parseBody parses HCL, within the limits.
func parseBody(filename string, src []byte) (*hclsyntax.Body, hcl.Diagnostics) {
	if diags := hcltext.Bounded(filename, src); diags.HasErrors() {
		return nil, diags
	}
	file, diags := hclsyntax.ParseConfig(src, filename, hcl.InitialPos)
	if diags.HasErrors() {
		return nil, diags
	}
	return file.Body.(*hclsyntax.Body), diags
}

func quote(s string) string { return strconv.Quote(s) }

// list writes names for a sentence.
func list(names []string) string { return strings.Join(names, ", ") }
