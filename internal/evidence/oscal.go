package evidence

import (
	"crypto/sha1" //nolint:gosec // what RFC 9562 makes UUIDs of version 5 with: names, no secrets
	"crypto/sha256"
	"fmt"
	"io"
	"strings"

	"github.com/goldenisc/packer-plugin-isc/profiles"
)

// oscalVersion is that of the model that is written.
const oscalVersion = "1.1.2"

// The objects of the assessment results model of OSCAL 1.1.2 that a report needs
// (https://pages.nist.gov/OSCAL-Reference/models/v1.1.2/assessment-results/json-definitions/).
type (
	oscalDocument struct {
		Results oscalAssessment `json:"assessment-results"`
	}
	oscalAssessment struct {
		UUID     string          `json:"uuid"`
		Metadata oscalMetadata   `json:"metadata"`
		Plan     oscalLink       `json:"import-ap"`
		Results  []oscalResult   `json:"results"`
		Back     oscalBackMatter `json:"back-matter"`
	}
	oscalMetadata struct {
		Title    string      `json:"title"`
		Modified string      `json:"last-modified"`
		Version  string      `json:"version"`
		OSCAL    string      `json:"oscal-version"`
		Props    []oscalProp `json:"props,omitempty"`
	}
	oscalProp struct {
		Name  string `json:"name"`
		NS    string `json:"ns"`
		Value string `json:"value"`
	}
	oscalLink struct {
		Href string `json:"href"`
	}
	oscalBackMatter struct {
		Resources []oscalResource `json:"resources"`
	}
	oscalResource struct {
		UUID        string `json:"uuid"`
		Title       string `json:"title"`
		Description string `json:"description"`
	}
	oscalResult struct {
		UUID         string             `json:"uuid"`
		Title        string             `json:"title"`
		Description  string             `json:"description"`
		Start        string             `json:"start"`
		End          string             `json:"end"`
		Local        oscalLocal         `json:"local-definitions"`
		Reviewed     oscalReviewed      `json:"reviewed-controls"`
		Observations []oscalObservation `json:"observations,omitempty"`
		Risks        []oscalRisk        `json:"risks,omitempty"`
		Findings     []oscalFinding     `json:"findings,omitempty"`
	}
	oscalLocal struct {
		Components []oscalComponent `json:"components"`
	}
	oscalComponent struct {
		UUID        string     `json:"uuid"`
		Type        string     `json:"type"`
		Title       string     `json:"title"`
		Description string     `json:"description"`
		Status      oscalState `json:"status"`
	}
	oscalState struct {
		State   string `json:"state"`
		Reason  string `json:"reason,omitempty"`
		Remarks string `json:"remarks,omitempty"`
	}
	oscalReviewed struct {
		Selections []oscalSelection `json:"control-selections"`
	}
	oscalSelection struct {
		Description string         `json:"description,omitempty"`
		Include     []oscalControl `json:"include-controls,omitempty"`
	}
	oscalControl struct {
		ID string `json:"control-id"`
	}
	oscalObservation struct {
		UUID        string          `json:"uuid"`
		Title       string          `json:"title"`
		Description string          `json:"description"`
		Props       []oscalProp     `json:"props"`
		Methods     []string        `json:"methods"`
		Types       []string        `json:"types"`
		Subjects    []oscalSubject  `json:"subjects"`
		Evidence    []oscalEvidence `json:"relevant-evidence,omitempty"`
		Collected   string          `json:"collected"`
		Remarks     string          `json:"remarks,omitempty"`
	}
	oscalSubject struct {
		UUID string `json:"subject-uuid"`
		Type string `json:"type"`
	}
	oscalEvidence struct {
		Description string `json:"description"`
	}
	oscalRisk struct {
		UUID        string `json:"uuid"`
		Title       string `json:"title"`
		Description string `json:"description"`
		Statement   string `json:"statement"`
		Status      string `json:"status"`
		Deadline    string `json:"deadline,omitempty"`
	}
	oscalFinding struct {
		UUID         string             `json:"uuid"`
		Title        string             `json:"title"`
		Description  string             `json:"description"`
		Target       oscalTarget        `json:"target"`
		Observations []oscalObservedRef `json:"related-observations"`
		Risks        []oscalRiskRef     `json:"related-risks,omitempty"`
	}
	oscalTarget struct {
		Type   string     `json:"type"`
		ID     string     `json:"target-id"`
		Status oscalState `json:"status"`
	}
	oscalObservedRef struct {
		UUID string `json:"observation-uuid"`
	}
	oscalRiskRef struct {
		UUID string `json:"risk-uuid"`
	}
)

// writeOSCAL makes every control an observation. Those that the root can say something of are
// findings, too: satisfied or not; a waived one is not satisfied, with a risk whose deviation is
// approved until the waiver ends. What is up to the dock, or not applicable, is observed only.
func writeOSCAL(w io.Writer, r *profiles.Report, s *Subject) error {
	data, err := r.Marshal()
	if err != nil {
		return err
	}
	content := sha256.Sum256(data)
	id := func(parts ...string) string {
		return uuid(strings.Join(append([]string{s.Root, s.at(), s.Version, string(content[:])}, parts...), "\x00"))
	}
	prop := func(name, value string) oscalProp { return oscalProp{name, home, value} }
	root, plan := id("root"), id("plan")
	title := "Audit of " + oneLine(s.Root)
	res := oscalResult{
		UUID: id("result"), Title: title, Start: s.at(), End: s.at(),
		Description: fmt.Sprintf("The controls of the profile %s for %s, checked by reading files.", r.Profile, r.OS),
		Local: oscalLocal{[]oscalComponent{{
			UUID: root, Type: "software", Title: oneLine(s.Root), Description: "The root file system that was looked at.", Status: oscalState{State: "operational"},
		}}},
		Reviewed: oscalReviewed{[]oscalSelection{{Description: "The controls of the profile " + r.Profile + "."}}},
	}
	for i := range r.Controls {
		c := &r.Controls[i]
		seen := oscalObservation{
			UUID: id("observation", c.ID), Title: c.ID + " " + c.Title, Description: c.Title,
			Props: []oscalProp{prop("status", string(c.Status))}, Methods: []string{"EXAMINE"}, Types: []string{"control-objective"},
			Subjects: []oscalSubject{{root, "component"}}, Collected: s.at(),
		}
		for _, f := range append(c.Findings[:len(c.Findings):len(c.Findings)], c.Notes...) {
			seen.Evidence = append(seen.Evidence, oscalEvidence{f.String()})
		}
		if c.Status != profiles.Pass && c.Status != profiles.Fail {
			seen.Remarks = reasonOf(c)
		}
		res.Observations = append(res.Observations, seen)
		res.Reviewed.Selections[0].Include = append(res.Reviewed.Selections[0].Include, oscalControl{c.ID})
		f := oscalFinding{
			UUID: id("finding", c.ID), Title: seen.Title, Description: c.Title,
			Target: oscalTarget{Type: "objective-id", ID: c.ID}, Observations: []oscalObservedRef{{seen.UUID}},
		}
		if reason, _ := why(c.ID); reason != "" {
			f.Description = reason
		}
		switch c.Status {
		case profiles.Pass:
			f.Target.Status = oscalState{State: "satisfied", Reason: "pass"}
		case profiles.Fail:
			f.Target.Status = oscalState{State: "not-satisfied", Reason: "fail"}
		case profiles.Waived:
			f.Target.Status = oscalState{State: "not-satisfied", Reason: "other", Remarks: reasonOf(c)}
			risk := oscalRisk{
				UUID: id("risk", c.ID), Title: "Waiver of " + c.ID, Description: f.Description, Statement: c.Reason, Status: "deviation-approved",
				Deadline: c.Until + "T23:59:59Z",
			}
			res.Risks = append(res.Risks, risk)
			f.Risks = []oscalRiskRef{{risk.UUID}}
		default:
			continue
		}
		res.Findings = append(res.Findings, f)
	}
	return writeJSON(w, oscalDocument{oscalAssessment{
		UUID:     id("document"),
		Metadata: oscalMetadata{Title: title, Modified: s.at(), Version: s.at(), OSCAL: oscalVersion, Props: []oscalProp{prop("profile", r.Profile)}},
		Plan:     oscalLink{"#" + plan},
		Results:  []oscalResult{res},
		Back: oscalBackMatter{[]oscalResource{{
			UUID: plan, Title: "Profile " + r.Profile, Description: "There is no assessment plan: the profile says which controls are checked, and the catalogue of the program how.",
		}}},
	}})
}

// oneLine is text as titles have it.
func oneLine(s string) string { return strings.Join(strings.Fields(s), " ") }

// namespace is that of the UUIDs of this package.
var namespace = [16]byte{0x6f, 0x2b, 0x0e, 0x5c, 0x6d, 0x3a, 0x4b, 0x41, 0x9a, 0x57, 0x1c, 0x8e, 0x02, 0xd4, 0x77, 0xb9}

// uuid returns the UUID of a name, version 5 (RFC 9562, 5.5).
func uuid(name string) string {
	sum := sha1.Sum(append(namespace[:], name...)) //nolint:gosec // as above
	u := sum[:16]
	u[6] = u[6]&0x0f | 0x50
	u[8] = u[8]&0x3f | 0x80
	return fmt.Sprintf("%x-%x-%x-%x-%x", u[:4], u[4:6], u[6:8], u[8:10], u[10:])
}
