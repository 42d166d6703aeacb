package evidence

import (
	"bytes"
	_ "embed"
	"html/template"
	"io"
	"maps"
	"slices"
	"strings"
	"time"
	"unicode"

	"github.com/goldenisc/packer-plugin-isc/profiles"
)

//go:embed report.html
var pageText string

// The template escapes what it is given for where that stands.
var page = template.Must(template.New("report").Funcs(template.FuncMap{
	"why":  func(id string) string { w, _ := why(id); return w },
	"refs": func(id string) []string { _, refs := why(id); return refs },
	"join": strings.Join, "reason": reasonOf, "count": count,
}).Parse(pageText))

// A pageReport is what the template shows.
type pageReport struct {
	*profiles.Report
	Subject *Subject
	At      string
	Tiles   []tile
	Failed  []*profiles.Result
	Waivers []pageWaiver
	Noted   []*profiles.Result // controls with notes, but for the list of set-id files
	Areas   []area
	Ports   int
	Scored  bool // there is a service with an exposure
	Params  []parameter
}

// A tile is how many controls have a status.
type tile struct {
	Status profiles.Status
	Label  string
	Count  int
}

var labels = map[profiles.Status]string{
	profiles.Pass: "hold", profiles.Fail: "fail", profiles.Waived: "waived", profiles.OnDock: "up to the dock", profiles.NotApplicable: "not applicable",
}

// A pageWaiver is a waiver and how long it holds.
type pageWaiver struct {
	Control, Title, Reason, Until, Left string
	Ended                               bool
}

type parameter struct{ Name, Value string }

// setIDControl is the control whose notes are the set-id files.
const setIDControl = "P04"

func writeHTML(w io.Writer, r *profiles.Report, s *Subject) error {
	p := pageReport{Report: r, Subject: s, At: s.Date.UTC().Format("2 January 2006, 15:04 MST"), Areas: areas(r)}
	for _, status := range statuses {
		if n := r.Count(status); n > 0 || status == profiles.Fail || status == profiles.Pass {
			p.Tiles = append(p.Tiles, tile{status, labels[status], n})
		}
	}
	titles := map[string]string{}
	for i := range r.Controls {
		c := &r.Controls[i]
		titles[c.ID] = c.Title
		if c.Status == profiles.Fail {
			p.Failed = append(p.Failed, c)
		}
		if len(c.Notes) > 0 && c.ID != setIDControl {
			p.Noted = append(p.Noted, c)
		}
	}
	for _, wv := range r.Waivers {
		pw := pageWaiver{Control: wv.Control, Title: titles[wv.Control], Reason: wv.Reason, Until: wv.Until}
		if end, err := time.Parse(time.DateOnly, wv.Until); err == nil {
			day := s.Date.Format(time.DateOnly)
			today, err := time.Parse(time.DateOnly, day)
			if err != nil {
				return err
			}
			switch days := int(end.Sub(today).Hours() / 24); {
			case days < 0:
				pw.Ended, pw.Left = true, "has ended"
			case days == 0:
				pw.Left = "last day"
			default:
				pw.Left = count(days, "day") + " left"
			}
		}
		p.Waivers = append(p.Waivers, pw)
	}
	for _, svc := range r.Services {
		p.Ports += len(svc.Ports)
		p.Scored = p.Scored || svc.Exposure != ""
	}
	for _, name := range slices.Sorted(maps.Keys(r.Parameters)) {
		p.Params = append(p.Params, parameter{name, r.Parameters[name]})
	}
	var b bytes.Buffer
	if err := page.Execute(&b, &p); err != nil {
		return err
	}
	_, err := io.WriteString(w, printable(b.String()))
	return err
}

// printable takes out control characters, which names of files may hold and HTML may not.
func printable(s string) string {
	return strings.Map(func(r rune) rune {
		if unicode.IsControl(r) && r != '\n' && r != '\t' {
			return unicode.ReplacementChar // as XML's encoder does
		}
		return r
	}, s)
}
