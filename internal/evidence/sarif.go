package evidence

import (
	"crypto/sha256"
	"encoding/hex"
	"io"
	"net/url"
	"strings"

	"github.com/goldenisc/packer-plugin-isc/profiles"
)

// The objects of SARIF 2.1.0 that a report needs; numbers are those of sections of the standard.
type (
	sarifLog struct { // 3.13
		Schema  string     `json:"$schema"`
		Version string     `json:"version"`
		Runs    []sarifRun `json:"runs"`
	}
	sarifRun struct { // 3.14
		Tool        sarifTool                        `json:"tool"`
		Invocations []sarifInvocation                `json:"invocations"`
		Automation  sarifAutomation                  `json:"automationDetails"`
		Bases       map[string]sarifArtifactLocation `json:"originalUriBaseIds"`
		ColumnKind  string                           `json:"columnKind"`
		Results     []sarifResult                    `json:"results"`
		Properties  map[string]any                   `json:"properties"`
	}
	sarifTool struct { // 3.18
		Driver sarifDriver `json:"driver"`
	}
	sarifDriver struct { // 3.19
		Name    string      `json:"name"`
		Version string      `json:"version,omitempty"`
		URI     string      `json:"informationUri"`
		Rules   []sarifRule `json:"rules"`
	}
	sarifRule struct { // 3.49
		ID         string         `json:"id"`
		Short      sarifText      `json:"shortDescription"`
		Full       *sarifText     `json:"fullDescription,omitempty"`
		Help       *sarifText     `json:"help,omitempty"`
		Default    map[string]any `json:"defaultConfiguration"`
		Properties map[string]any `json:"properties"`
	}
	sarifText struct { // 3.11, 3.12
		Text string `json:"text"`
	}
	sarifInvocation struct { // 3.20
		Successful bool   `json:"executionSuccessful"`
		End        string `json:"endTimeUtc"`
	}
	sarifAutomation struct { // 3.17
		ID string `json:"id"`
	}
	sarifResult struct { // 3.27
		Rule         string             `json:"ruleId"`
		Index        int                `json:"ruleIndex"`
		Kind         string             `json:"kind"`
		Level        string             `json:"level"`
		Message      sarifText          `json:"message"`
		Locations    []sarifLocation    `json:"locations,omitempty"`
		Fingerprints map[string]string  `json:"partialFingerprints"`
		Suppressions []sarifSuppression `json:"suppressions,omitempty"`
	}
	sarifLocation struct { // 3.28
		Physical *sarifPhysical `json:"physicalLocation,omitempty"`
	}
	sarifPhysical struct { // 3.29
		Artifact sarifArtifactLocation `json:"artifactLocation"`
	}
	sarifArtifactLocation struct { // 3.4
		URI         string     `json:"uri,omitempty"`
		Base        string     `json:"uriBaseId,omitempty"`
		Description *sarifText `json:"description,omitempty"`
	}
	sarifSuppression struct { // 3.35
		Kind          string `json:"kind"`
		Status        string `json:"status"`
		Justification string `json:"justification"`
	}
)

// sarifRoot is the base that locations are relative to.
const sarifRoot = "ROOT"

// writeSARIF makes every finding a result, and every waiver one that is suppressed. Controls that
// hold are counted and no results: readers that do not know of kinds would show them as alerts.
func writeSARIF(w io.Writer, r *profiles.Report, s *Subject) error {
	run := sarifRun{
		Tool:        sarifTool{sarifDriver{Name: "iscadm", Version: s.Version, URI: home, Rules: []sarifRule{}}},
		Invocations: []sarifInvocation{{Successful: true, End: s.at()}},
		Automation:  sarifAutomation{"iscadm/audit/" + r.Profile + "/"},
		Bases:       map[string]sarifArtifactLocation{sarifRoot: {Description: &sarifText{"the root of " + s.Root}}},
		ColumnKind:  "utf16CodeUnits",
		Results:     []sarifResult{},
		Properties:  map[string]any{"profile": r.Profile, "os": r.OS, "counts": counts(r)},
	}
	for i := range r.Controls {
		c := &r.Controls[i]
		reason, refs := why(c.ID)
		rule := sarifRule{
			ID: c.ID, Short: sarifText{c.Title}, Default: map[string]any{"level": "error"},
			Properties: map[string]any{"tags": append([]string{"security", profiles.Area(c.ID)}, refs...)},
		}
		if reason != "" {
			rule.Full, rule.Help = &sarifText{reason}, &sarifText{strings.Join(append([]string{reason}, refs...), "\n")}
		}
		run.Tool.Driver.Rules = append(run.Tool.Driver.Rules, rule)
		switch c.Status {
		case profiles.Fail:
			for _, f := range c.Findings {
				res := sarifResult{Rule: c.ID, Index: i, Kind: "fail", Level: "error", Message: sarifText{c.Title + ": " + f.Problem}, Fingerprints: fingerprint(c.ID, f.String())}
				if f.Path != "" {
					res.Locations = []sarifLocation{{&sarifPhysical{sarifArtifactLocation{URI: relative(f.Path), Base: sarifRoot}}}}
				}
				run.Results = append(run.Results, res)
			}
		case profiles.Waived: // it was not looked at
			run.Results = append(run.Results, sarifResult{
				Rule: c.ID, Index: i, Kind: "review", Level: "none", Message: sarifText{c.Title + ": waived"}, Fingerprints: fingerprint(c.ID, "waived"),
				Suppressions: []sarifSuppression{{"external", "accepted", c.Reason + " (until " + c.Until + ")"}},
			})
		}
	}
	return writeJSON(w, sarifLog{
		Schema: "https://docs.oasis-open.org/sarif/sarif/v2.1.0/errata01/os/schemas/sarif-schema-2.1.0.json", Version: "2.1.0", Runs: []sarifRun{run},
	})
}

// relative is a path of the root as a URI reference. A first segment with a colon would be a scheme.
func relative(path string) string {
	return (&url.URL{Path: path}).String()
}

func fingerprint(parts ...string) map[string]string {
	sum := sha256.Sum256([]byte(strings.Join(parts, "\x00")))
	return map[string]string{"finding/v1": hex.EncodeToString(sum[:])}
}

// statuses are all outcomes, the worst first.
var statuses = []profiles.Status{profiles.Fail, profiles.Waived, profiles.OnDock, profiles.Pass, profiles.NotApplicable}

func counts(r *profiles.Report) map[profiles.Status]int {
	m := map[profiles.Status]int{}
	for _, s := range statuses {
		m[s] = r.Count(s)
	}
	return m
}
