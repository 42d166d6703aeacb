// Package sbom lists the packages of a root file system and writes the list as a software bill
// of materials, in SPDX 2.3 (https://spdx.github.io/spdx-spec/v2.3/) and CycloneDX 1.6
// (https://cyclonedx.org/docs/1.6/json/).
//
// The list is what the tree says of itself, no more: the databases of dpkg, apk and IPS, and the
// build information that Go programs carry. A tree that has lost its database, or that was never
// made of packages, has an empty list. Nothing is asked of a network.
//
//	packages, err := sbom.Packages(ctx, tree)
//	subject := sbom.Subject{Name: "web", Version: "1.4.0", Created: date, Digest: digest}
//	data, err := subject.SPDX(packages)
//
// A database that cannot be read whole is an error: half a list would look like a whole one. The
// error is a [*SyntaxError] and names the file and the line. What only looks like a Go program is
// passed over, as it is no database.
//
// The documents depend on their values only. Their identifiers are made of a digest of those.
package sbom

import (
	"bufio"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/url"
	"path"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/goldenisc/packer-plugin-isc/image"
)

// Types of packages.
const (
	Deb = "deb" // dpkg
	APK = "apk"
	IPS = "ips" // pkg(7) of illumos and Solaris
	Go  = "go"  // a module, or the standard library, in a program
)

// A Package is one that is installed, or linked into an installed program.
type Package struct {
	Type    string `json:"type"` // Deb, APK, IPS or Go
	Name    string `json:"name"`
	Version string `json:"version,omitempty"` // not of the main module of a program built from a work tree
	Arch    string `json:"arch,omitempty"`    // as the package system names it; not of IPS and Go
	Licence string `json:"licence,omitempty"` // as the database has it; APK only
	PURL    string `json:"purl"`              // https://github.com/package-url/purl-spec
	From    string `json:"from,omitempty"`    // the file of the tree that says so, the first of several
}

// Limits, each far above what is known of real systems.
const (
	maxPackages = 1 << 17   // a Debian archive has 60,000
	maxLine     = 1 << 20   // a long list of dependencies has some 10,000 bytes
	maxText     = 1 << 10   // a name, version or licence
	maxDatabase = 128 << 20 // dpkg's has some 1,000 bytes a package
)

// A SyntaxError says what is wrong with a package database.
type SyntaxError struct {
	Name    string // of the file in the tree
	Line    int    // from 1; 0 for the file as a whole
	Problem string
}

func (e *SyntaxError) Error() string {
	if e.Line == 0 {
		return fmt.Sprintf("package database %q: %s", e.Name, e.Problem)
	}
	return fmt.Sprintf("package database %q, line %d: %s", e.Name, e.Line, e.Problem)
}

// Packages returns what is installed in the tree, sorted by type, name, version and architecture.
// The tree must not be edited meanwhile.
func Packages(ctx context.Context, t *image.Tree) ([]Package, error) {
	distro, err := readDistro(t)
	if err != nil {
		return nil, err
	}
	c := &collector{tree: t, seen: map[key]int{}}
	for _, db := range []struct {
		name  string
		parse func(name string, r io.Reader, add func(Package) error) error
	}{
		{"var/lib/dpkg/status", distro.parseDpkg},
		{"lib/apk/db/installed", distro.parseAPK},
		{"usr/lib/apk/db/installed", distro.parseAPK}, // since apk-tools 3; where /lib is a link, the same file
		{"var/pkg/state/installed/catalog.base.C", parseIPS},
	} {
		if err := c.database(db.name, db.parse); err != nil {
			return nil, err
		}
	}
	for e := range t.All() {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		if !e.IsRegular() || e.HardLink != "" {
			continue
		}
		if path.Dir(e.Name) == "var/lib/dpkg/status.d" && path.Ext(e.Name) != ".md5sums" {
			// One stanza a file: images that are made of packages, but without dpkg.
			err = c.database(e.Name, distro.parseDpkg)
		} else if e.Size >= minProgram && e.Size <= maxProgram {
			err = c.program(e.Name)
		}
		if err != nil {
			return nil, err
		}
	}
	slices.SortFunc(c.packages, compare)
	return c.packages, nil
}

func compare(a, b Package) int {
	return cmp.Or(cmp.Compare(a.Type, b.Type), cmp.Compare(a.Name, b.Name), cmp.Compare(a.Version, b.Version), cmp.Compare(a.Arch, b.Arch))
}

// A key tells packages apart.
type key struct{ typ, name, version, arch string }

// A collector gathers packages and drops those that it has.
type collector struct {
	tree     *image.Tree
	packages []Package
	seen     map[key]int
}

func (c *collector) add(p Package) error {
	k := key{p.Type, p.Name, p.Version, p.Arch}
	if _, ok := c.seen[k]; ok {
		return nil
	}
	if len(c.packages) >= maxPackages {
		return &SyntaxError{Name: p.From, Problem: fmt.Sprintf("more than %d packages", maxPackages)}
	}
	c.seen[k] = len(c.packages)
	c.packages = append(c.packages, p)
	return nil
}

// database reads one, if it is there.
func (c *collector) database(name string, parse func(string, io.Reader, func(Package) error) error) error {
	e, err := c.tree.Stat(name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	if !e.IsRegular() {
		return &SyntaxError{Name: name, Problem: "is a " + image.TypeName(e.Mode) + ", not a file"}
	}
	if e.Size > maxDatabase {
		return &SyntaxError{Name: name, Problem: fmt.Sprintf("%d bytes are more than %d", e.Size, maxDatabase)}
	}
	f, err := c.tree.Open(name)
	if err != nil {
		return err
	}
	defer f.Close()
	return parse(e.Name, io.NewSectionReader(f, 0, f.Size()), c.add)
}

// A lineReader reads a text file by lines.
type lineReader struct {
	name string
	n    int // of the line, from 1
	s    *bufio.Scanner
}

func newLineReader(name string, r io.Reader) *lineReader {
	s := bufio.NewScanner(r)
	s.Buffer(make([]byte, 0, 64<<10), maxLine)
	return &lineReader{name: name, s: s}
}

func (l *lineReader) next() bool {
	ok := l.s.Scan()
	if ok {
		l.n++
	}
	return ok
}

func (l *lineReader) errorf(format string, args ...any) error {
	return &SyntaxError{Name: l.name, Line: l.n, Problem: fmt.Sprintf(format, args...)}
}

// err returns why there are no more lines, if it is not the end.
func (l *lineReader) err() error {
	switch err := l.s.Err(); {
	case errors.Is(err, bufio.ErrTooLong):
		l.n++
		return l.errorf("more than %d bytes", maxLine)
	case err != nil:
		return fmt.Errorf("package database %q: %w", l.name, err)
	}
	return nil
}

// checkText returns what is wrong with a name, a version or the like, or "".
func checkText(what, s string) string {
	switch {
	case len(s) > maxText:
		return fmt.Sprintf("%s of %d bytes: longer than %d", what, len(s), maxText)
	case !utf8.ValidString(s):
		return fmt.Sprintf("%s %q is not UTF-8", what, s)
	case strings.IndexFunc(s, func(r rune) bool { return !unicode.IsPrint(r) }) >= 0:
		return fmt.Sprintf("%s %q holds a character that cannot be printed", what, s)
	}
	return ""
}

// A distro is what os-release(5) says.
type distro struct{ id, version string }

// maxRelease bounds os-release, in bytes. What is longer says nothing.
const maxRelease = 64 << 10

// readDistro never fails for what os-release holds: it only makes package URLs more exact.
func readDistro(t *image.Tree) (distro, error) {
	var d distro
	for _, name := range []string{"etc/os-release", "usr/lib/os-release"} {
		e, err := t.Stat(name)
		if err != nil || !e.IsRegular() || e.Size > maxRelease {
			continue // etc/os-release is a link to the other one as a rule
		}
		data, err := t.ReadFile(name)
		if err != nil {
			return d, err
		}
		for line := range strings.Lines(string(data)) {
			k, v, _ := strings.Cut(strings.TrimSpace(line), "=")
			v = strings.Trim(v, `"'`)
			if checkText("", v) != "" {
				continue
			}
			switch k {
			case "ID":
				d.id = v
			case "VERSION_ID":
				d.version = v
			}
		}
		break
	}
	return d, nil
}

// purl returns a package URL: pkg:TYPE/SEGMENT…@VERSION?QUALIFIERS. The segments hold slashes
// only as separators. Qualifiers are pairs of key and value, sorted by key; empty values are left
// out.
func purl(typ, name, version string, qualifiers ...string) string {
	var b strings.Builder
	b.WriteString("pkg:" + typ)
	for segment := range strings.SplitSeq(name, "/") {
		if segment != "" {
			b.WriteString("/" + escape(segment))
		}
	}
	if version != "" {
		b.WriteString("@" + escape(version))
	}
	sep := "?"
	for i := 0; i+1 < len(qualifiers); i += 2 {
		if v := qualifiers[i+1]; v != "" {
			b.WriteString(sep + qualifiers[i] + "=" + escape(v))
			sep = "&"
		}
	}
	return b.String()
}

// escape is percent-encoding as package URLs want it: of all but letters, digits and ".-_~:".
func escape(s string) string {
	return strings.NewReplacer("+", "%20", "%3A", ":").Replace(url.QueryEscape(s))
}
