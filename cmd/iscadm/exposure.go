package main

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/goldenisc/packer-plugin-isc/profiles"
)

// outcomes are the outcomes of controls and rules in the order that they are counted in.
var outcomes = []profiles.Status{profiles.Pass, profiles.Fail, profiles.Waived, profiles.NotApplicable, profiles.OnDock}

// tally writes how many there are of each status.
func tally(count func(profiles.Status) int) string {
	var counts []string
	for _, s := range outcomes {
		if n := count(s); n > 0 {
			counts = append(counts, fmt.Sprintf("%d %s", n, s))
		}
	}
	return strings.Join(counts, ", ")
}

// inspectExposure prints what starts at boot with the ports it opens, and what else the report of an
// image says of it: the outcome of controls and of the rules of a guide, waivers, set-id files.
func (a *app) inspectExposure(r *profiles.Report) {
	for i, s := range r.Services {
		a.printf("%-12s %-40s %s\n", once("at boot", i), s.ID, strings.Join(s.Ports, " "))
	}
	a.printf("%-12s %s: %s\n", "controls", r.Profile, tally(r.Count))
	if len(r.Rules) > 0 {
		a.printf("%-12s %s\n", "rules", tally(func(s profiles.Status) int {
			n := 0
			for _, rule := range r.Rules {
				if rule.Status == s {
					n++
				}
			}
			return n
		}))
	}
	for i, f := range r.SetID {
		a.printf("%-12s %s: %s\n", once("set-id", i), f.Path, f.Problem)
	}
	// The waivers of the image, and those that its profile brings.
	for _, w := range r.Waivers {
		over := ""
		if w.Ended(time.Now()) {
			over = ", which is over"
		}
		a.printf("%-12s %s until %s%s: %s\n", "waived", w.Control, w.Until, over, w.Reason)
	}
}

// diffHeld compares what two images were held to: the profile, its parameters and the waivers.
func diffHeld(old, now *profiles.Report) []difference {
	var diffs []difference
	if old.Profile != now.Profile {
		diffs = append(diffs, difference{"profile", now.Profile, "was " + old.Profile})
	}
	compare := func(kind string, was, is map[string]string) {
		names := maps.Clone(was)
		maps.Copy(names, is)
		for _, name := range slices.Sorted(maps.Keys(names)) {
			before, held := was[name]
			after, holds := is[name]
			switch {
			case !held:
				diffs = append(diffs, difference{kind, name, "added, " + after})
			case !holds:
				diffs = append(diffs, difference{kind, name, "removed, was " + before})
			case before != after:
				diffs = append(diffs, difference{kind, name, before + " → " + after})
			}
		}
	}
	compare("set", old.Parameters, now.Parameters)
	waivers := func(r *profiles.Report) map[string]string {
		m := map[string]string{}
		for _, w := range r.Waivers {
			m[w.Control] = "until " + w.Until + ": " + w.Reason
		}
		return m
	}
	compare("waiver", waivers(old), waivers(now))
	return diffs
}

// once returns a heading for the first of several lines.
func once(heading string, i int) string {
	if i > 0 {
		return ""
	}
	return heading
}

// diffExposure compares what starts at boot, the ports it opens, and set-id files.
func diffExposure(old, now *profiles.Report) []difference {
	var diffs []difference
	for _, c := range profiles.CompareServices(old.Services, now.Services) {
		diffs = append(diffs, difference{"boot", c.ID, c.String()})
	}
	said := func(all []profiles.Finding, path string) string {
		for _, f := range all {
			if f.Path == path {
				return f.Problem
			}
		}
		return ""
	}
	for _, f := range old.SetID {
		switch is := said(now.SetID, f.Path); is {
		case f.Problem:
		case "":
			diffs = append(diffs, difference{"set-id", f.Path, "removed, was " + f.Problem})
		default:
			diffs = append(diffs, difference{"set-id", f.Path, f.Problem + " → " + is})
		}
	}
	for _, f := range now.SetID {
		if said(old.SetID, f.Path) == "" {
			diffs = append(diffs, difference{"set-id", f.Path, "added, " + f.Problem})
		}
	}
	return diffs
}

// diffDocks compares the files that a host sets an instance up with.
func diffDocks(old, now *profiles.Dock) []difference {
	names := slices.Sorted(maps.Keys(old.Files))
	for name := range now.Files {
		if _, ok := old.Files[name]; !ok {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	var diffs []difference
	for _, name := range names {
		was, before := old.Files[name]
		is, after := now.Files[name]
		switch {
		case !before:
			diffs = append(diffs, difference{"dock", name, "added"})
		case !after:
			diffs = append(diffs, difference{"dock", name, "removed"})
		case was != is:
			diffs = append(diffs, difference{"dock", name, "content"})
		}
	}
	return diffs
}
