package evidence

import (
	"bytes"
	"encoding/json"
	"encoding/xml"
	"errors"
	"flag"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"
	"unicode"

	"github.com/goldenisc/packer-plugin-isc/image"
	"github.com/goldenisc/packer-plugin-isc/profiles"
)

var update = flag.Bool("update", false, "write the golden files in testdata")

var subject = Subject{Root: "oci:out:web", Version: "1.2.3", Date: time.Date(2026, 3, 4, 5, 6, 7, 8, time.UTC)}

// evil is what a name in a root may be.
const evil = "etc/<script>alert(1)</script>\"'&]]>--><!--\x1b\x00\xff{{.}}$(x)%41\n\u202e"

// report has an outcome of every kind.
func report(s string) *profiles.Report {
	return &profiles.Report{
		Schema: 1, Profile: "isc-baseline", OS: profiles.Linux, Parameters: map[string]string{"banner": "Authorised use only." + s, "umask": "077"},
		Controls: []profiles.Result{
			{ID: "A01", Title: "Stacks are not executable" + s, Status: profiles.Pass},
			{ID: "B01", Title: "The audit trail is written" + s, Status: profiles.NotApplicable, Reason: "there is no etc/audit" + s},
			{ID: "P04", Title: "Set-id programs are few and known", Status: profiles.Pass, Notes: []profiles.Finding{{Path: "usr/bin/su" + s, Problem: "mode 4755"}}},
			{ID: "S05", Title: "root cannot log in over ssh" + s, Status: profiles.Fail, Findings: []profiles.Finding{
				{Path: "etc/ssh/sshd_config" + s, Problem: `content: has "PermitRootLogin yes", should have "PermitRootLogin no"` + s}, {Problem: "no path" + s},
			}},
			{ID: "S01", Title: "ssh forwards no X11", Status: profiles.Waived, Reason: "a reason" + s, Until: "2026-12-31"},
			{ID: "W01", Title: "There is a banner", Status: profiles.Pass, Notes: []profiles.Finding{{Path: "etc/issue" + s, Problem: "is empty" + s}}},
			{ID: "Z01", Title: "The zone has a memory cap", Status: profiles.OnDock, Reason: "capped-memory" + s},
			{ID: "Y99", Title: "Of a later version" + s, Status: profiles.Pass},
		},
		Rules:    []profiles.Ruled{{ID: "SOL-11.1-040040" + s, Status: profiles.Fail, Controls: []string{"S05"}}},
		Waivers:  []image.Waiver{{Control: "S01", Reason: "a reason" + s, Until: "2026-12-31"}},
		Services: []profiles.BootService{{ID: "ssh.service" + s, Ports: []string{"22/tcp" + s}}, {ID: "cron.service"}, {ID: "web.service", Exposure: "1.9" + s}},
		SetID:    []profiles.Finding{{Path: "usr/bin/su" + s, Problem: "mode 4755, owner 0:0"}},
	}
}

func write(t *testing.T, format string, r *profiles.Report) []byte {
	t.Helper()
	var b bytes.Buffer
	if err := Write(&b, format, r, subject); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// TestGolden holds the bytes of every format, which the module in schema holds to the schemas.
func TestGolden(t *testing.T) {
	for _, format := range Formats() {
		for name, r := range map[string]*profiles.Report{
			"report": report(""), "none": {Schema: 1, Profile: "none", OS: profiles.Illumos, Controls: []profiles.Result{}},
		} {
			got := write(t, format, r)
			if again := write(t, format, r); !bytes.Equal(again, got) {
				t.Errorf("%s: two writes differ", format)
			}
			ext := map[string]string{"html": ".html", "junit": ".xml", "sarif": ".sarif", "oscal": ".json"}[format]
			file := filepath.Join("testdata", name+ext)
			if *update {
				if err := os.WriteFile(file, got, 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			if !bytes.Equal(got, want) {
				t.Errorf("%s differs; go test -update writes it", file)
			}
		}
	}
	if err := Write(io.Discard, "pdf", report(""), subject); err == nil || !strings.Contains(err.Error(), "html") {
		t.Error(err)
	}
}

// TestInjection has the names of a root break out of every format.
func TestInjection(t *testing.T) {
	s := subject
	s.Root, s.Version = evil, evil
	for _, format := range Formats() {
		var b bytes.Buffer
		if err := Write(&b, format, report(evil), s); err != nil {
			t.Fatal(err)
		}
		plain := write(t, format, report(""))
		switch format {
		case "html":
			for _, bad := range []string{"<script", "<!--\x1b", "-->", "\x00"} {
				if bytes.Contains(b.Bytes(), []byte(bad)) {
					t.Errorf("html holds %q", bad)
				}
			}
			if i := bytes.IndexFunc(b.Bytes(), func(r rune) bool { return unicode.IsControl(r) && r != '\n' && r != '\t' }); i >= 0 {
				t.Errorf("html holds a control character after %q", b.Bytes()[max(0, i-40):i])
			}
			tags := regexp.MustCompile(`<[a-zA-Z]+`)
			if got, want := tags.FindAll(b.Bytes(), -1), tags.FindAll(plain, -1); len(got) != len(want) {
				t.Errorf("html has %d elements, %d without what is hostile", len(got), len(want))
			}
		case "junit":
			if got, want := elements(t, b.Bytes()), elements(t, plain); got != want {
				t.Errorf("junit has %d elements, want %d", got, want)
			}
		default:
			var v any
			if err := json.Unmarshal(b.Bytes(), &v); err != nil {
				t.Errorf("%s: %v", format, err)
			}
		}
	}
}

func elements(t *testing.T, doc []byte) (n int) {
	t.Helper()
	for d := xml.NewDecoder(bytes.NewReader(doc)); ; {
		tok, err := d.Token()
		if errors.Is(err, io.EOF) {
			return n
		}
		if err != nil {
			t.Fatal(err)
		}
		if _, ok := tok.(xml.StartElement); ok {
			n++
		}
	}
}

// TestHTML finds what people look for, in the order of its weight, and nothing from elsewhere.
func TestHTML(t *testing.T) {
	doc := string(write(t, "html", report("")))
	at := 0
	for _, want := range []string{
		"1 control does not hold.", `id="failed"`, "S05", "root cannot log in over ssh", "etc/ssh/sshd_config", "STIG SOL-11.1-", `id="waivers"`, "a reason", "2026-12-31",
		"302 days left", `id="services"`, "ssh.service", "22/tcp", `id="setid"`, "usr/bin/su", `id="notes"`, "etc/issue", `id="controls"`, "The ssh server", `id="rules"`, "umask",
	} {
		i := strings.Index(doc[at:], want)
		if i < 0 {
			t.Fatalf("%q does not stand behind %.80q", want, doc[at:])
		}
		at += i
	}
	for _, bad := range []string{"http:", "https:", "<script", "<link", "<img", "url(", "@import", "ZgotmplZ"} {
		if strings.Contains(doc, bad) {
			t.Errorf("the page holds %q", bad)
		}
	}
	r := report("")
	r.Waivers[0].Until = "2026-03-03"
	if doc := string(write(t, "html", r)); !strings.Contains(doc, "has ended") {
		t.Error("the waiver has not ended")
	}
}

// TestCounts reads what CI systems count.
func TestCounts(t *testing.T) {
	var j junitSuites
	if err := xml.Unmarshal(write(t, "junit", report("")), &j); err != nil {
		t.Fatal(err)
	}
	skipped := 0
	for _, s := range j.Suites {
		skipped += s.Skipped
	}
	if j.Tests != 8 || j.Failures != 1 || skipped != 3 || len(j.Suites) != 7 {
		t.Errorf("junit: %d tests, %d failures, %d skipped, %d suites", j.Tests, j.Failures, skipped, len(j.Suites))
	}
	var l sarifLog
	if err := json.Unmarshal(write(t, "sarif", report("")), &l); err != nil {
		t.Fatal(err)
	}
	if n := len(l.Runs[0].Results); n != 3 {
		t.Errorf("sarif: %d results", n)
	}
	if u := relative("a b/c%d:e"); u != "a%20b/c%25d:e" {
		t.Error(u)
	}
	if u := relative("a:b"); u != "./a:b" {
		t.Error(u)
	}
	var o oscalDocument
	if err := json.Unmarshal(write(t, "oscal", report("")), &o); err != nil {
		t.Fatal(err)
	}
	res := o.Results.Results[0]
	if len(res.Observations) != 8 || len(res.Findings) != 6 || len(res.Risks) != 1 {
		t.Errorf("oscal: %d observations, %d findings, %d risks", len(res.Observations), len(res.Findings), len(res.Risks))
	}
	// The patterns of the model.
	uuids := regexp.MustCompile(`^[0-9A-Fa-f]{8}-[0-9A-Fa-f]{4}-5[0-9A-Fa-f]{3}-[89ABab][0-9A-Fa-f]{3}-[0-9A-Fa-f]{12}$`)
	seen := map[string]bool{}
	for _, ob := range res.Observations {
		if !uuids.MatchString(ob.UUID) || seen[ob.UUID] {
			t.Errorf("UUID %q", ob.UUID)
		}
		seen[ob.UUID] = true
	}
}

// TestUUID finds the version and the variant where RFC 9562, 5.5, has them.
func TestUUID(t *testing.T) {
	if a, b := uuid("a"), uuid("b"); a == b || a != uuid("a") || a[14] != '5' || !strings.ContainsRune("89ab", rune(a[19])) {
		t.Error(a, b)
	}
}
