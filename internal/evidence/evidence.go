// Package evidence writes the report of an audit in the formats that others read:
//
//   - HTML: one page for people, without scripts and outside resources, that can be printed.
//   - JUnit XML, as CI systems read it: a suite per area of the catalogue, a case per control.
//   - SARIF 2.1.0 (https://docs.oasis-open.org/sarif/sarif/v2.1.0/): a result per finding.
//   - OSCAL 1.1.2 assessment results in JSON (https://pages.nist.gov/OSCAL/).
//
// The report itself, as JSON, is what all of them are made of:
//
//	err := evidence.Write(w, "html", report, evidence.Subject{Root: "oci:out:web", Version: "1.2.0", Date: now})
//
// The bytes depend on the report and the subject only. What a report says comes from the files of
// whoever is audited: everything is escaped as the format wants it.
package evidence

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/goldenisc/packer-plugin-isc/profiles"
)

// A Subject says what a report is about.
type Subject struct {
	Root    string    // as the caller names it: dir:PATH, a reference, ssh://HOST
	Version string    // of this program
	Date    time.Time // of the audit
}

// at is the date in UTC, to the second, as RFC 3339 has it.
func (s *Subject) at() string { return s.Date.UTC().Format(time.RFC3339) }

// home is where the program is described.
const home = "https://github.com/goldenisc/packer-plugin-isc"

var writers = map[string]func(io.Writer, *profiles.Report, *Subject) error{
	"html": writeHTML, "junit": writeJUnit, "sarif": writeSARIF, "oscal": writeOSCAL,
}

// Formats returns the names of the formats, sorted.
func Formats() []string {
	var names []string
	for name := range writers {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}

// Write writes the report in a format. Nothing is written if it cannot be made.
func Write(w io.Writer, format string, r *profiles.Report, s Subject) error {
	write := writers[format]
	if write == nil {
		return fmt.Errorf("there is no format %q, only %s", format, strings.Join(Formats(), ", "))
	}
	var b bytes.Buffer
	if err := write(&b, r, &s); err != nil {
		return fmt.Errorf("report as %s: %w", format, err)
	}
	_, err := w.Write(b.Bytes())
	return err
}

func writeJSON(w io.Writer, v any) error {
	e := json.NewEncoder(w)
	e.SetIndent("", "  ")
	return e.Encode(v)
}

// why is the reason of a control and refs what it refers to. A report of a later program may hold
// controls that this one does not know.
func why(id string) (why string, refs []string) {
	if c := profiles.ControlByID(id); c != nil {
		return c.Why, c.Refs
	}
	return "", nil
}

// An area is the controls of a report that stand under one heading, in their order.
type area struct {
	Title    string
	Controls []*profiles.Result
}

func areas(r *profiles.Report) []area {
	var all []area
	for i := range r.Controls {
		c := &r.Controls[i]
		title := profiles.Area(c.ID)
		if title == "" {
			title = "Others"
		}
		at := slices.IndexFunc(all, func(a area) bool { return a.Title == title })
		if at < 0 {
			at = len(all)
			all = append(all, area{Title: title})
		}
		all[at].Controls = append(all[at].Controls, c)
	}
	return all
}
