package sbom

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	cyclonedx "github.com/CycloneDX/cyclonedx-go"
	spdxjson "github.com/spdx/tools-golang/json"
	"github.com/spdx/tools-golang/spdxlib"

	"github.com/goldenisc/packer-plugin-isc/image"
)

var update = flag.Bool("update", false, "write the golden files")

const dpkgStatus = `Package: libc6
Status: install ok installed
Priority: optional
Section: libs
Maintainer: GNU Libc Maintainers <debian-glibc@lists.debian.org>
Architecture: amd64
Multi-Arch: same
Source: glibc
Version: 2.36-9+deb12u10
Description: GNU C Library
 Contains the standard libraries.
 .
 More: of it.

Package: gone
Status: deinstall ok config-files
Architecture: all
Version: 1

Package: never
Status: purge ok not-installed

Package: libgcc-s1
Status: install ok triggers-pending
Architecture: amd64
Source: gcc-12 (12.2.0-14)
Version: 1:12.2.0-14
`

const apkInstalled = `C:Q1qKcZ+j23xssAXmgQhkOO8dHnbWw=
P:alpine-baselayout
V:3.4.3-r1
A:x86_64
L:GPL-2.0-only
o:alpine-baselayout
F:dev
F:etc
R:motd
Z:Q1SLkS9hBidUbPwwrw+XR0Whv3ww8=

P:libcrypto3
V:3.1.4-r5
A:x86_64
L:Apache-2.0 AND (MIT OR custom thing)
o:openssl
`

const ipsInstalled = `{"_SIGNATURE":{"sha-1":"5c3ad0"},"omnios":{"SUNWcs":[{"signature-sha-1":"00","version":"0.5.11-151054.0:20250502T080503Z"}],"system/library/math":[{"version":"0.5.11-151054.0:20250502T080504Z"}]}}`

// tree makes a tree of files by name.
func tree(t testing.TB, files map[string]string) *image.Tree {
	t.Helper()
	tr, err := image.NewTree(t.TempDir(), image.Limits{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { tr.Close() })
	for name, data := range files {
		if err := tr.Put(image.Entry{Name: name, Mode: 0o644}, []byte(data)); err != nil {
			t.Fatal(err)
		}
	}
	return tr
}

const debianRelease = "ID=debian\nVERSION_ID=\"12\"\n"

func lines(packages []Package) []string {
	var out []string
	for _, p := range packages {
		out = append(out, fmt.Sprintf("%s %s %s %s [%s] %s %s", p.Type, p.Name, p.Version, p.Arch, p.Licence, p.PURL, p.From))
	}
	return out
}

func TestPackages(t *testing.T) {
	for name, c := range map[string]struct {
		files map[string]string
		want  []string
	}{
		"empty": {},
		"dpkg": {
			map[string]string{"var/lib/dpkg/status": dpkgStatus, "etc/os-release": debianRelease},
			[]string{
				"deb libc6 2.36-9+deb12u10 amd64 [] pkg:deb/debian/libc6@2.36-9%2Bdeb12u10?arch=amd64&distro=debian-12&upstream=glibc var/lib/dpkg/status",
				"deb libgcc-s1 1:12.2.0-14 amd64 [] pkg:deb/debian/libgcc-s1@1:12.2.0-14?arch=amd64&distro=debian-12&upstream=gcc-12%4012.2.0-14 var/lib/dpkg/status",
			},
		},
		"distroless": {
			map[string]string{
				"var/lib/dpkg/status.d/base":            "Package: base-files\nVersion: 12.4\nArchitecture: amd64\n",
				"var/lib/dpkg/status.d/base.md5sums":    "d41d8cd98f00b204e9800998ecf8427e  etc/debian_version\n",
				"var/lib/dpkg/status.d/tzdata":          "Package: tzdata\r\nVersion: 2024a-0\r\nArchitecture: all\r\n",
				"var/lib/dpkg/status.d/below/unrelated": "no stanza",
			},
			[]string{
				"deb base-files 12.4 amd64 [] pkg:deb/debian/base-files@12.4?arch=amd64 var/lib/dpkg/status.d/base",
				"deb tzdata 2024a-0 all [] pkg:deb/debian/tzdata@2024a-0?arch=all var/lib/dpkg/status.d/tzdata",
			},
		},
		"apk": {
			map[string]string{"lib/apk/db/installed": apkInstalled, "usr/lib/os-release": "ID=alpine\nVERSION_ID=3.19.1\n"},
			[]string{
				"apk alpine-baselayout 3.4.3-r1 x86_64 [GPL-2.0-only] pkg:apk/alpine/alpine-baselayout@3.4.3-r1?arch=x86_64&distro=alpine-3.19.1 lib/apk/db/installed",
				"apk libcrypto3 3.1.4-r5 x86_64 [Apache-2.0 AND (MIT OR custom thing)] pkg:apk/alpine/libcrypto3@3.1.4-r5?arch=x86_64&distro=alpine-3.19.1&upstream=openssl lib/apk/db/installed",
			},
		},
		"ips": {
			map[string]string{"var/pkg/state/installed/catalog.base.C": ipsInstalled},
			[]string{
				"ips SUNWcs 0.5.11-151054.0:20250502T080503Z  [] pkg:generic/omnios/SUNWcs@0.5.11-151054.0:20250502T080503Z var/pkg/state/installed/catalog.base.C",
				"ips system/library/math 0.5.11-151054.0:20250502T080504Z  [] pkg:generic/omnios/system/library/math@0.5.11-151054.0:20250502T080504Z var/pkg/state/installed/catalog.base.C",
			},
		},
		"what is no program": {files: map[string]string{
			"bin/elf":   "\x7fELF\x02\x01" + strings.Repeat("\xff", minProgram),
			"bin/magic": strings.Repeat("\xff Go buildinf:", minProgram/14+1),
		}},
	} {
		got, err := Packages(t.Context(), tree(t, c.files))
		if err != nil || !reflect.DeepEqual(lines(got), c.want) {
			t.Errorf("%s: %v\n got %s\nwant %s", name, err, strings.Join(lines(got), "\n     "), strings.Join(c.want, "\n     "))
		}
	}
}

// TestMergedUsr shows that a database that has two names is read as one.
func TestMergedUsr(t *testing.T) {
	tr := tree(t, map[string]string{"usr/lib/apk/db/installed": apkInstalled})
	if err := tr.Put(image.Entry{Name: "lib", Mode: os.ModeSymlink | 0o777, Target: "usr/lib"}, nil); err != nil {
		t.Fatal(err)
	}
	got, err := Packages(t.Context(), tr)
	if err != nil || len(got) != 2 || got[0].From != "usr/lib/apk/db/installed" {
		t.Errorf("%v %v", lines(got), err)
	}
}

func TestMalformed(t *testing.T) {
	long := strings.Repeat("x", maxText+1)
	for _, c := range []struct{ name, data, want string }{
		{"var/lib/dpkg/status", "Package: a\nno colon\n", `package database "var/lib/dpkg/status", line 2: no field: a name and a colon are missing`},
		{"var/lib/dpkg/status", " lost\n", `line 1: continues nothing`},
		{"var/lib/dpkg/status", "Package: a\nVersion: 1\nVersion: 2\n", `line 3: field "version" twice`},
		{"var/lib/dpkg/status", "\n\nPackage: a\nStatus: installed\nVersion: 1\n", `line 3: status "installed" is not want, flag and state`},
		{"var/lib/dpkg/status", "Package: a\nStatus: install ok there\nVersion: 1\n", `line 1: state "there" is none of dpkg's`},
		{"var/lib/dpkg/status", "Package: a\nStatus: install ok installed\n", `line 1: an installed package without name or version`},
		{"var/lib/dpkg/status", "Package: a/../b\nVersion: 1\n", `line 1: package "a/../b": a space or slash`},
		{"var/lib/dpkg/status", "Package: a\x1b[2J\nVersion: 1\n", `line 1: field package "a\x1b[2J" holds a character that cannot be printed`},
		{"var/lib/dpkg/status", "Package: \xff\nVersion: 1\n", `line 1: field package "\xff" is not UTF-8`},
		{"var/lib/dpkg/status", "Package: " + long + "\n", `line 1: field package of 1025 bytes: longer than 1024`},
		{"var/lib/dpkg/status", "Package: a\nX: " + strings.Repeat("x", maxLine), `line 2: more than 1048576 bytes`},
		{"lib/apk/db/installed", "P:a\nV:1\nhello\n", `line 3: no letter and colon`},
		{"lib/apk/db/installed", "P:a\nP:b\nV:1\n", `line 2: field "P" twice`},
		{"lib/apk/db/installed", "P:a\n\n", `line 1: a package without name or version`},
		{"var/pkg/state/installed/catalog.base.C", "{\n}\nx", `line 3: not the JSON of a catalogue: invalid character 'x' after top-level value`},
		{"var/pkg/state/installed/catalog.base.C", `{"p":{"n":[{}]}}`, `publisher "p": a package without name or version`},
		{"var/pkg/state/installed/catalog.base.C", `{"p":[]}`, `publisher "p": cannot unmarshal array`},
	} {
		_, err := Packages(t.Context(), tree(t, map[string]string{c.name: c.data}))
		if syntax := (*SyntaxError)(nil); !errors.As(err, &syntax) || syntax.Name != c.name || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%.60q:\n got %v\nwant %s", c.data, err, c.want)
		}
	}
	tr := tree(t, nil)
	if err := tr.Put(image.Entry{Name: "var/lib/dpkg/status", Mode: os.ModeSymlink | 0o777, Target: "/proc/1/mem"}, nil); err != nil {
		t.Fatal(err)
	}
	if _, err := Packages(t.Context(), tr); err == nil || !strings.Contains(err.Error(), "is a symbolic link, not a file") {
		t.Errorf("a link: %v", err)
	}
}

func TestCancel(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := Packages(ctx, tree(t, map[string]string{"x": "y"})); !errors.Is(err, context.Canceled) {
		t.Errorf("%v", err)
	}
}

// program builds a Go program and returns its path.
func program(t testing.TB) string {
	t.Helper()
	dir := t.TempDir()
	for name, text := range map[string]string{
		"go.mod":      "module example.org/Web\n\ngo 1.26.0\n\nrequire example.org/dep v1.2.3\n\nreplace example.org/dep v1.2.3 => ./dep\n",
		"main.go":     "package main\n\nimport \"example.org/dep\"\n\nfunc main() { dep.Run() }\n",
		"dep/go.mod":  "module example.org/dep\n",
		"dep/main.go": "package dep\n\nfunc Run() {}\n",
	} {
		name = filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(name, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	cmd := exec.Command("go", "build", "-ldflags=-s -w", "-trimpath", "-buildvcs=false", "-o", "web", ".")
	cmd.Dir, cmd.Env = dir, append(os.Environ(), "GOOS=illumos", "GOARCH=amd64", "CGO_ENABLED=0", "GOFLAGS=-mod=mod", "GOWORK=off")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	return filepath.Join(dir, "web")
}

func TestProgram(t *testing.T) {
	data, err := os.ReadFile(program(t))
	if err != nil {
		t.Fatal(err)
	}
	tr := tree(t, map[string]string{"opt/web/bin/web": string(data)})
	if err := tr.Put(image.Entry{Name: "usr/bin/web", HardLink: "opt/web/bin/web"}, nil); err != nil {
		t.Fatal(err)
	}
	got, err := Packages(t.Context(), tr)
	if err != nil || len(got) != 3 {
		t.Fatalf("%v %v", lines(got), err)
	}
	for i, want := range []string{"go example.org/Web   [] pkg:golang/example.org/web opt/web/bin/web", "go example.org/dep   [] pkg:golang/example.org/dep opt/web/bin/web", "go stdlib 1."} {
		if line := lines(got)[i]; !strings.HasPrefix(line, want) {
			t.Errorf("got %q, want %q", line, want)
		}
	}
	// Whatever a byte is changed to, there is an answer; and a reader's own error is one.
	for off := 0; off < 1024; off++ {
		broken := bytes.Clone(data[:min(len(data), 1<<20)])
		broken[off] ^= 0xff
		if _, err := readProgram(bytes.NewReader(broken)); err != nil {
			t.Errorf("byte %d: %v", off, err)
		}
	}
	if _, err := readProgram(&failing{bytes.NewReader(data), 1}); !errors.Is(err, io.ErrClosedPipe) {
		t.Errorf("read error: %v", err)
	}
}

// failing fails after some reads.
type failing struct {
	io.ReaderAt
	left int
}

func (f *failing) ReadAt(p []byte, off int64) (int, error) {
	if f.left--; f.left < 0 {
		return 0, io.ErrClosedPipe
	}
	return f.ReaderAt.ReadAt(p, off)
}

var subject = Subject{
	Name: "web", Version: "1.4.0", OS: "linux", Arch: "amd64", Created: time.Unix(1700000000, 0),
	Digest: "sha256:" + strings.Repeat("ab", 32), Tool: "1.2.3",
}

func TestDocuments(t *testing.T) {
	packages, err := Packages(t.Context(), tree(t, map[string]string{
		"var/lib/dpkg/status": dpkgStatus, "lib/apk/db/installed": apkInstalled,
		"var/pkg/state/installed/catalog.base.C": ipsInstalled, "etc/os-release": debianRelease,
	}))
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		subject  Subject
		packages []Package
	}{"packages": {subject, packages}, "none": {subject, nil}} {
		doc, err := c.subject.SPDX(c.packages)
		if err != nil {
			t.Fatal(err)
		}
		golden(t, name+".spdx.json", doc)
		read, err := spdxjson.Read(bytes.NewReader(doc))
		if err != nil {
			t.Fatal(err)
		}
		if err := spdxlib.ValidateDocument(read); err != nil {
			t.Error(err)
		}
		if len(read.Packages) != len(c.packages)+1 || len(read.Relationships) != len(c.packages)+1 {
			t.Errorf("%s: %d packages, %d relationships", name, len(read.Packages), len(read.Relationships))
		}
		again, err := ParseSPDX(doc)
		if err != nil {
			t.Fatal(err)
		}
		for i, p := range c.packages {
			p.Licence, p.From = "", ""
			if !reflect.DeepEqual(p, again[i]) {
				t.Errorf("%s: read back %+v, want %+v", name, again[i], p)
			}
		}

		if doc, err = c.subject.CycloneDX(c.packages); err != nil {
			t.Fatal(err)
		}
		golden(t, name+".cdx.json", doc)
		var bom cyclonedx.BOM
		if err := cyclonedx.NewBOMDecoder(bytes.NewReader(doc), cyclonedx.BOMFileFormatJSON).Decode(&bom); err != nil {
			t.Fatal(err)
		}
		if bom.SpecVersion != cyclonedx.SpecVersion1_6 || len(*bom.Components) != len(c.packages) {
			t.Errorf("%s: %+v", name, bom)
		}
	}
	other := subject
	other.Digest = "sha256:" + strings.Repeat("cd", 32)
	if uuid(other.id(packages)) == uuid(subject.id(packages)) || uuid(subject.id(nil)) == uuid(subject.id(packages)) {
		t.Error("documents that differ have one identifier")
	}
}

// golden compares JSON with a file, in which it is indented.
func golden(t *testing.T, name string, data []byte) {
	t.Helper()
	var b bytes.Buffer
	if err := json.Indent(&b, data, "", "  "); err != nil {
		t.Fatal(err)
	}
	name = filepath.Join("testdata", name)
	if *update {
		if err := os.WriteFile(name, b.Bytes(), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(want, b.Bytes()) {
		t.Errorf("not as %s, which -update writes: %s", name, b.Bytes())
	}
}

func TestExpression(t *testing.T) {
	for s, want := range map[string]bool{
		"MIT": true, "GPL-2.0-only": true, "GPL-2.0+": true, "MIT AND (BSD-2-Clause OR Zlib)": true,
		"GPL-2.0-or-later WITH Classpath-exception-2.0": true,
		"": false, "MIT BSD": false, "MIT AND": false, "(MIT": false, "MIT)": false, "()": false, "custom": false, "a/b": false, "+": false, "AND": false,
	} {
		if got := isExpression(s); got != want {
			t.Errorf("%q: %v", s, got)
		}
	}
}

func TestParseSPDXErrors(t *testing.T) {
	for _, data := range []string{
		"", "[]", "{}", `{"spdxVersion":"SPDX-2.2"}`,
		`{"spdxVersion":"SPDX-2.3","packages":[{"name":"a\u001b","externalRefs":[{"referenceType":"purl","referenceLocator":"pkg:deb/a"}]}]}`,
		`{"spdxVersion":"SPDX-2.3","packages":[{"name":"a","externalRefs":[{"referenceType":"purl","referenceLocator":"pkg:deb/\n"}]}]}`,
	} {
		if p, err := ParseSPDX([]byte(data)); err == nil {
			t.Errorf("%q: %v", data, p)
		}
	}
	if p, err := ParseSPDX([]byte(`{"spdxVersion":"SPDX-2.3","packages":[null,{"name":"a"}]}`)); err != nil || len(p) != 0 {
		t.Errorf("%v %v", p, err)
	}
}
