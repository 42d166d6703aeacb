package profiles

import (
	"fmt"
	"slices"
	"strings"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/gohcl"
)

// A Rule is one of somebody else's guide, such as a STIG, and how it is kept: by controls, by the
// dock, or not at all, because there is nothing in an image that it could be about.
type Rule struct {
	ID       string
	Controls []string // that keep it together; empty if Status says how
	Status   Status   // OnDock or NotApplicable, or empty
	Reason   string   // of the status
}

// A Ruled is the outcome of a rule: the worst of its controls.
type Ruled struct {
	ID       string   `json:"id"`
	Status   Status   `json:"status"`
	Controls []string `json:"controls,omitempty"`
	Reason   string   `json:"reason,omitempty"`
}

// The beginnings of what stands for a rule that no control keeps.
const (
	byDock       = "dock: "
	inapplicable = "not applicable: "
)

// parseRule reads "E03 E04", "dock: …" or "not applicable: …".
func parseRule(id, text string) (Rule, error) {
	r := Rule{ID: id}
	if reason, ok := strings.CutPrefix(text, byDock); ok {
		r.Status, r.Reason = OnDock, reason
		return r, nil
	}
	if reason, ok := strings.CutPrefix(text, inapplicable); ok {
		r.Status, r.Reason = NotApplicable, reason
		return r, nil
	}
	r.Controls = strings.Fields(text)
	if len(r.Controls) == 0 {
		return r, fmt.Errorf("rule %q: neither controls nor %q nor %q", id, byDock, inapplicable)
	}
	for _, c := range r.Controls {
		if ControlByID(c) == nil {
			return r, fmt.Errorf("rule %q: %w", id, unknownControl(c))
		}
	}
	return r, nil
}

// rule returns the rule that this is the outcome of.
func (r Ruled) rule() Rule {
	if len(r.Controls) > 0 {
		return Rule{ID: r.ID, Controls: r.Controls}
	}
	return Rule{ID: r.ID, Status: r.Status, Reason: r.Reason}
}

// rulesOf returns the outcomes of rules for another report.
func rulesOf(outcomes []Ruled, os string, report *Report) []Ruled {
	s := &Selection{os: os}
	for _, o := range outcomes {
		s.rules = append(s.rules, o.rule())
	}
	return s.ruled(report)
}

// ruled returns the outcomes of the rules of a report.
func (s *Selection) ruled(report *Report) []Ruled {
	result := map[string]*Result{}
	for i := range report.Controls {
		result[report.Controls[i].ID] = &report.Controls[i]
	}
	// From bad to good.
	order := []Status{Fail, Waived, OnDock, Pass, NotApplicable}
	var all []Ruled
	for _, r := range s.rules {
		out := Ruled{ID: r.ID, Status: r.Status, Controls: r.Controls, Reason: r.Reason}
		for _, id := range r.Controls {
			c := result[id]
			switch known := ControlByID(id); {
			case c != nil || known == nil:
			case known.Absent[s.os] != "":
				c = &Result{Status: NotApplicable, Reason: known.Absent[s.os]}
			case s.live && known.Scope == ImageOnly:
				c = &Result{Status: NotApplicable, Reason: "control " + id + " is for images: a running machine does not show it"}
			}
			if c == nil {
				out.Status, out.Reason = Fail, "the profile does not hold control "+id
				break
			}
			if out.Status == "" || slices.Index(order, c.Status) < slices.Index(order, out.Status) {
				out.Status, out.Reason = c.Status, c.Reason
			}
		}
		all = append(all, out)
	}
	return all
}

func (p *Profile) decodeRules(expr hcl.Expression) hcl.Diagnostics {
	pairs, diags := optionalMap(expr)
	for _, pair := range pairs {
		var id, text string
		more := gohcl.DecodeExpression(pair.Key, nil, &id)
		more = append(more, gohcl.DecodeExpression(pair.Value, nil, &text)...)
		diags = append(diags, more...)
		if more.HasErrors() {
			continue
		}
		r, err := parseRule(id, text)
		if err == nil && slices.ContainsFunc(p.Rules, func(o Rule) bool { return o.ID == id }) {
			err = fmt.Errorf("rule %q is there twice", id)
		}
		if err != nil {
			diags = append(diags, diagnose(pair.Key.Range(), "Unsuitable rule", err.Error())...)
			continue
		}
		p.Rules = append(p.Rules, r)
	}
	slices.SortFunc(p.Rules, func(a, b Rule) int { return strings.Compare(a.ID, b.ID) })
	return diags
}

// optionalMap returns the pairs of a map, none if it was left out.
func optionalMap(expr hcl.Expression) ([]hcl.KeyValuePair, hcl.Diagnostics) {
	if v, diags := expr.Value(nil); !diags.HasErrors() && v.IsNull() {
		return nil, nil
	}
	return hcl.ExprMap(expr)
}

// decodeWords returns the strings of a list and their places, none if it was left out.
func decodeWords(expr hcl.Expression) (words []string, at []hcl.Range, diags hcl.Diagnostics) {
	if v, diags := expr.Value(nil); !diags.HasErrors() && v.IsNull() {
		return nil, nil, nil
	}
	items, diags := hcl.ExprList(expr)
	for _, item := range items {
		var w string
		more := gohcl.DecodeExpression(item, nil, &w)
		diags = append(diags, more...)
		if !more.HasErrors() {
			words, at = append(words, w), append(at, item.Range())
		}
	}
	return words, at, diags
}

// decodeExcept takes controls out.
func (p *Profile) decodeExcept(expr hcl.Expression) hcl.Diagnostics {
	ids, at, diags := decodeWords(expr)
	for i, id := range ids {
		found := false
		for os, held := range p.Controls {
			n := len(held)
			p.Controls[os] = slices.DeleteFunc(held, func(h string) bool { return h == id })
			found = found || len(p.Controls[os]) < n
		}
		switch {
		case ControlByID(id) == nil:
			diags = append(diags, diagnose(at[i], "Unsuitable control", unknownControl(id).Error())...)
		case !found:
			diags = append(diags, diagnose(at[i], "Unsuitable control", fmt.Sprintf("control %q is not held anyway", id))...)
		}
	}
	return diags
}

// decodeOnly leaves the systems that are named.
func (p *Profile) decodeOnly(expr hcl.Expression) hcl.Diagnostics {
	names, at, diags := decodeWords(expr)
	for i, os := range names {
		if !slices.Contains(Platforms, os) {
			diags = append(diags, diagnose(at[i], "Unknown operating system",
				fmt.Sprintf("%q is none of %s%s.", os, strings.Join(Platforms, ", "), didYouMean(os, Platforms)))...)
		}
	}
	for _, os := range Platforms {
		if len(names) > 0 && !slices.Contains(names, os) {
			delete(p.Controls, os)
		}
	}
	return diags
}
