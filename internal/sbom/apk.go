package sbom

import (
	"io"
	"strconv"
	"strings"
)

// parseAPK reads apk's installed database (apk-package(5), "installed"): records of lines with a
// letter, a colon and a value, parted by an empty line.
func (d distro) parseAPK(name string, r io.Reader, add func(Package) error) error {
	lines := newLineReader(name, r)
	p := Package{Type: APK}
	origin := ""
	start := 0 // the record's first line, 0 between records
	end := func() error {
		if start == 0 {
			return nil
		}
		if p.Name == "" || p.Version == "" {
			return &SyntaxError{Name: name, Line: start, Problem: "a package without name or version"}
		}
		if strings.ContainsAny(p.Name+p.Version+p.Arch, " /") {
			return &SyntaxError{Name: name, Line: start, Problem: "package " + quote(p.Name) + ": a space or slash in name, version or architecture"}
		}
		id, release := d.id, ""
		if id == "" {
			id = "alpine"
		}
		if d.version != "" {
			release = id + "-" + d.version
		}
		if origin == p.Name {
			origin = ""
		}
		p.PURL = purl("apk", id+"/"+p.Name, p.Version, "arch", p.Arch, "distro", release, "upstream", origin)
		p.From = name
		err := add(p)
		p, origin, start = Package{Type: APK}, "", 0
		return err
	}
	for lines.next() {
		line := lines.s.Text()
		if line == "" {
			if err := end(); err != nil {
				return err
			}
			continue
		}
		if len(line) < 2 || line[1] != ':' {
			return lines.errorf("no letter and colon")
		}
		if start == 0 {
			start = lines.n
		}
		var field *string
		switch line[0] {
		case 'P':
			field = &p.Name
		case 'V':
			field = &p.Version
		case 'A':
			field = &p.Arch
		case 'L':
			field = &p.Licence
		case 'o':
			field = &origin
		default:
			continue // files, dependencies, checksums
		}
		if *field != "" {
			return lines.errorf("field %q twice", line[:1])
		}
		*field = line[2:]
		if problem := checkText("field "+line[:1], *field); problem != "" {
			return lines.errorf("%s", problem)
		}
	}
	if err := lines.err(); err != nil {
		return err
	}
	return end()
}

func quote(s string) string { return strconv.Quote(s) }
