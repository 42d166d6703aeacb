package sbom

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
)

// parseIPS reads the catalogue of installed packages of an IPS image: the base part of a version
// 1 catalogue (pkg5, doc/catalog.txt and modules/catalog.py), which is
//
//	{"PUBLISHER": {"NAME": [{"version": "VERSION", …}, …], …}, …, "_SIGNATURE": {…}}
//
// The manifests below var/pkg/publisher are not read: they are there for known packages too, and
// hold no more of what a list of packages wants.
func parseIPS(name string, r io.Reader, add func(Package) error) error {
	data, err := io.ReadAll(r)
	if err != nil {
		return fmt.Errorf("package database %q: %w", name, err)
	}
	bad := func(format string, args ...any) error {
		return &SyntaxError{Name: name, Problem: fmt.Sprintf(format, args...)}
	}
	badJSON := func(err error) error {
		e := &SyntaxError{Name: name, Problem: "not the JSON of a catalogue: " + strings.TrimPrefix(err.Error(), "json: ")}
		if syntax := (*json.SyntaxError)(nil); errors.As(err, &syntax) {
			e.Line = 1 + bytes.Count(data[:min(int(syntax.Offset), len(data))], []byte("\n"))
		}
		return e
	}
	var publishers map[string]json.RawMessage
	if err := json.Unmarshal(data, &publishers); err != nil {
		return badJSON(err)
	}
	for _, publisher := range slices.Sorted(maps.Keys(publishers)) {
		if strings.HasPrefix(publisher, "_") {
			continue // _SIGNATURE; a publisher's name begins with a letter or digit
		}
		var packages map[string][]struct {
			Version string `json:"version"`
		}
		if err := json.Unmarshal(publishers[publisher], &packages); err != nil {
			return bad("publisher %q: %s", publisher, strings.TrimPrefix(err.Error(), "json: "))
		}
		for _, stem := range slices.Sorted(maps.Keys(packages)) {
			for _, v := range packages[stem] {
				problem := cmp.Or(checkText("publisher", publisher), checkText("package", stem), checkText("version", v.Version))
				if problem != "" {
					return bad("%s", problem)
				}
				if stem == "" || v.Version == "" {
					return bad("publisher %q: a package without name or version", publisher)
				}
				// There is no type for IPS among package URLs.
				p := Package{Type: IPS, Name: stem, Version: v.Version, From: name}
				p.PURL = purl("generic", publisher+"/"+stem, v.Version)
				if err := add(p); err != nil {
					return err
				}
			}
		}
	}
	return nil
}
