package evidence

import (
	"encoding/xml"
	"fmt"
	"io"
	"strings"

	"github.com/goldenisc/packer-plugin-isc/profiles"
)

// The elements of JUnit XML that CI systems agree on
// (https://github.com/testmoapp/junitxml; the schema of Jenkins's xunit plugin).
type (
	junitSuites struct {
		XMLName  xml.Name     `xml:"testsuites"`
		Name     string       `xml:"name,attr"`
		Tests    int          `xml:"tests,attr"`
		Failures int          `xml:"failures,attr"`
		Errors   int          `xml:"errors,attr"`
		Suites   []junitSuite `xml:"testsuite"`
	}
	junitSuite struct {
		Name       string          `xml:"name,attr"`
		Tests      int             `xml:"tests,attr"`
		Failures   int             `xml:"failures,attr"`
		Errors     int             `xml:"errors,attr"`
		Skipped    int             `xml:"skipped,attr"`
		Time       string          `xml:"time,attr"`
		Timestamp  string          `xml:"timestamp,attr"`
		Properties []junitProperty `xml:"properties>property"`
		Cases      []junitCase     `xml:"testcase"`
	}
	junitProperty struct {
		Name  string `xml:"name,attr"`
		Value string `xml:"value,attr"`
	}
	junitCase struct {
		Name    string        `xml:"name,attr"`
		Class   string        `xml:"classname,attr"`
		Time    string        `xml:"time,attr"`
		Skipped *junitMessage `xml:"skipped"`
		Failure *junitMessage `xml:"failure"`
		Out     string        `xml:"system-out,omitempty"`
	}
	junitMessage struct {
		Message string `xml:"message,attr"`
		Type    string `xml:"type,attr,omitempty"`
		Text    string `xml:",chardata"`
	}
)

// writeJUnit makes a control that fails a failure, one that holds a success, and everything else
// skipped, with the reason.
func writeJUnit(w io.Writer, r *profiles.Report, s *Subject) error {
	doc := junitSuites{Name: "iscadm audit " + s.Root}
	for _, a := range areas(r) {
		suite := junitSuite{
			Name: a.Title, Time: "0", Timestamp: s.Date.UTC().Format("2006-01-02T15:04:05"),
			Properties: []junitProperty{{"root", s.Root}, {"profile", r.Profile}, {"os", r.OS}},
		}
		for _, c := range a.Controls {
			t := junitCase{Name: c.ID + " " + c.Title, Class: r.Profile + "." + strings.ReplaceAll(a.Title, ".", " "), Time: "0", Out: joined(c.Notes)}
			suite.Tests++
			switch c.Status {
			case profiles.Pass:
			case profiles.Fail:
				suite.Failures++
				reason, refs := why(c.ID)
				var more []string
				for _, l := range []string{joined(c.Findings), reason, strings.Join(refs, ", ")} {
					if l != "" {
						more = append(more, l)
					}
				}
				t.Failure = &junitMessage{Message: count(len(c.Findings), "finding"), Type: "control", Text: strings.Join(more, "\n\n")}
			default:
				suite.Skipped++
				t.Skipped = &junitMessage{Message: reasonOf(c)}
			}
			suite.Cases = append(suite.Cases, t)
		}
		doc.Tests += suite.Tests
		doc.Failures += suite.Failures
		doc.Suites = append(doc.Suites, suite)
	}
	if _, err := io.WriteString(w, xml.Header); err != nil {
		return err
	}
	e := xml.NewEncoder(w)
	e.Indent("", "  ")
	if err := e.Encode(&doc); err != nil {
		return err
	}
	_, err := io.WriteString(w, "\n")
	return err
}

func joined(findings []profiles.Finding) string {
	var lines []string
	for _, f := range findings {
		lines = append(lines, f.String())
	}
	return strings.Join(lines, "\n")
}

func count(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}

// reasonOf says why a control neither holds nor fails.
func reasonOf(c *profiles.Result) string {
	switch c.Status {
	case profiles.Waived:
		return fmt.Sprintf("waived until %s: %s", c.Until, c.Reason)
	case profiles.OnDock:
		return "up to the dock: " + c.Reason
	case profiles.NotApplicable:
		return "not applicable: " + c.Reason
	}
	return string(c.Status)
}
