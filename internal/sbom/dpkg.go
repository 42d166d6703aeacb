package sbom

import (
	"io"
	"strings"
)

// parseDpkg reads dpkg's status file, or one stanza without Status in status.d. The format is
// that of deb822(5), without comments. Packages whose files are there are added: all states but
// those in which dpkg knows of a package only (dpkg(1), PACKAGE STATES).
func (d distro) parseDpkg(name string, r io.Reader, add func(Package) error) error {
	lines := newLineReader(name, r)
	var stanza map[string]string // the fields that are used, by name in lower case
	start := 0                   // its first line
	end := func() error {
		if stanza == nil {
			return nil
		}
		p, ok, problem := d.debian(stanza)
		stanza = nil
		if problem != "" {
			return &SyntaxError{Name: name, Line: start, Problem: problem}
		}
		if !ok {
			return nil
		}
		p.From = name
		return add(p)
	}
	for lines.next() {
		line := lines.s.Bytes()
		switch {
		case len(strings.TrimRight(string(line), " \t\r")) == 0:
			if err := end(); err != nil {
				return err
			}
			continue
		case line[0] == ' ' || line[0] == '\t':
			if stanza == nil {
				return lines.errorf("continues nothing")
			}
			continue
		}
		field, value, ok := strings.Cut(string(line), ":")
		if !ok || field == "" || strings.ContainsAny(field, " \t") {
			return lines.errorf("no field: a name and a colon are missing")
		}
		if stanza == nil {
			stanza, start = map[string]string{}, lines.n
		}
		switch field = strings.ToLower(field); field {
		case "package", "status", "version", "architecture", "source":
			if _, ok := stanza[field]; ok {
				return lines.errorf("field %q twice", field)
			}
			value = strings.TrimSpace(value)
			if problem := checkText("field "+field, value); problem != "" {
				return lines.errorf("%s", problem)
			}
			stanza[field] = value
		}
	}
	if err := lines.err(); err != nil {
		return err
	}
	return end()
}

// debian makes a package of a stanza, if it is installed.
func (d distro) debian(f map[string]string) (p Package, installed bool, problem string) {
	if status, ok := f["status"]; ok {
		words := strings.Fields(status)
		if len(words) != 3 {
			return p, false, "status " + quote(status) + " is not want, flag and state"
		}
		switch words[2] {
		case "not-installed", "config-files":
			return p, false, ""
		case "half-installed", "unpacked", "half-configured", "triggers-awaited", "triggers-pending", "installed":
		default:
			return p, false, "state " + quote(words[2]) + " is none of dpkg's"
		}
	}
	p = Package{Type: Deb, Name: f["package"], Version: f["version"], Arch: f["architecture"]}
	if p.Name == "" || p.Version == "" {
		return p, false, "an installed package without name or version"
	}
	if strings.ContainsAny(p.Name+p.Version+p.Arch, " /") {
		return p, false, "package " + quote(p.Name) + ": a space or slash in name, version or architecture"
	}
	id, release := d.id, ""
	if id == "" {
		id = "debian"
	}
	if d.version != "" {
		release = id + "-" + d.version
	}
	// Advisories name source packages: "glibc", or "gcc-12 (12.2.0-14)" where the version differs.
	source, version, _ := strings.Cut(f["source"], " ")
	if version = strings.Trim(version, "() "); version != "" {
		source += "@" + version
	}
	p.PURL = purl("deb", id+"/"+p.Name, p.Version, "arch", p.Arch, "distro", release, "upstream", source)
	return p, true, ""
}
