package main

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/goldenisc/packer-plugin-isc/internal/sbom"
)

// inspectPackages prints how many packages there are of each type, and all of them if asked to.
func (a *app) inspectPackages(packages []sbom.Package, all bool) {
	count := map[string]int{}
	for _, p := range packages {
		count[p.Type]++
	}
	var counts []string
	for _, typ := range slices.Sorted(maps.Keys(count)) {
		counts = append(counts, fmt.Sprintf("%d %s", count[typ], typ))
	}
	if len(counts) > 0 {
		a.printf("%-12s %s\n", "packages", strings.Join(counts, ", "))
	}
	if !all {
		return
	}
	for _, p := range packages {
		a.printf("  %-4s %-40s %s\n", p.Type, packageName(p), p.Version)
	}
}

// packageName tells packages of several architectures apart, as dpkg does.
func packageName(p sbom.Package) string {
	if p.Arch == "" || p.Arch == "all" || p.Arch == "noarch" {
		return p.Name
	}
	return p.Name + ":" + p.Arch
}

// diffPackages compares versions. There may be several of one package, such as of a module in two
// programs.
func diffPackages(old, now []sbom.Package) []difference {
	type key struct{ typ, name string }
	versions := func(packages []sbom.Package) map[key][]string {
		m := map[key][]string{}
		for _, p := range packages {
			k := key{p.Type, packageName(p)}
			v := p.Version
			if v == "" {
				v = "(no version)"
			}
			m[k] = append(m[k], v)
		}
		for _, v := range m {
			slices.Sort(v)
		}
		return m
	}
	before, after := versions(old), versions(now)
	var diffs []difference
	for k, v := range before {
		name, was := k.typ+" "+k.name, strings.Join(v, ", ")
		switch w, ok := after[k]; {
		case !ok:
			diffs = append(diffs, difference{"package", name, "removed, was " + was})
		case !slices.Equal(v, w):
			diffs = append(diffs, difference{"package", name, was + " → " + strings.Join(w, ", ")})
		}
	}
	for k, v := range after {
		if _, ok := before[k]; !ok {
			diffs = append(diffs, difference{"package", k.typ + " " + k.name, "added, " + strings.Join(v, ", ")})
		}
	}
	slices.SortFunc(diffs, func(a, b difference) int { return strings.Compare(a.Name, b.Name) })
	return diffs
}
