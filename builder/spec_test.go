package builder

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/gohcl"
	"github.com/zclconf/go-cty/cty"

	"github.com/goldenisc/packer-plugin-isc/profiles"
)

// minimal is what every spec of these tests needs.
const minimal = `
image {
  name    = "web"
  version = "1.0.0"
  os      = "linux"
  arch    = "amd64"
}
base {
  source = "skeleton:linux"
}
`

// parse reads a spec that must be right.
func parse(t *testing.T, src string, opts Options) *Spec {
	t.Helper()
	spec, diags := ParseSpec("testdata/files/spec.isc.hcl", []byte(src), opts)
	if len(diags) > 0 {
		t.Fatal(report(spec, diags))
	}
	return spec
}

func report(s *Spec, diags hcl.Diagnostics) string {
	var b bytes.Buffer
	if err := s.Texts.Write(&b, diags); err != nil {
		panic(err)
	}
	return b.String()
}

func TestParseSpec(t *testing.T) {
	spec := parse(t, minimal+`
profile {
  name = "isc-baseline"
  set  = { banner = "Hello", password_length = 30 }
  waive {
    control = "S05"
    reason  = "console access by key only"
    until   = "2027-01-01"
  }
}
file {
  path   = "/opt/webd"
  source = "plain.txt"
  mode   = "4555"
  owner  = "801"
}
file {
  path    = "/etc/empty"
  content = ""
}
tree {
  path   = "/"
  source = "dir:."
}
link {
  path   = "/etc/a"
  target = "../b"
}
remove {
  paths = ["/usr/share/doc/**"]
}
user {
  name = "webd"
  uid  = 801
  gid  = 802
}
limits {
  memory = "1GiB"
  cpus   = 1.5
}
zone {
}
zone {
  id          = "old"
  dialect     = "ustar-strict"
  compression = "gzip"
}
`, Options{})
	for _, c := range []struct{ got, want any }{
		{*spec.Image, Image{Name: "web", Version: "1.0.0", OS: "linux", Arch: "amd64"}},
		{spec.Base.Source, "skeleton:linux"},
		{spec.Profile.Name, "isc-baseline"},
		{spec.Profile.Set, map[string]string{"banner": "Hello", "password_length": "30"}},
		{spec.Profile.Waive, []Waiver{{"S05", "console access by key only", "2027-01-01"}}},
		{spec.Files[0], File{Path: "/opt/webd", Source: "plain.txt", Mode: "4555", Owner: "801", Group: "root"}},
		{*spec.Files[1].Content, ""},
		{spec.Files[1].Mode, "0644"},
		{spec.Trees, []Tree{{Path: "/", Source: "dir:."}}},
		{spec.Links, []Link{{Path: "/etc/a", Target: "../b"}}},
		{spec.Removes, []Remove{{[]string{"/usr/share/doc/**"}}}},
		{*spec.Layout.Users[0].GID, 802},
		{spec.Layout.Limits.CPUs, 1.5},
		{spec.Layout.OS, "linux"},
		{spec.Layout.Name, "web"},
		{spec.Layout.Scratch == nil, true},
		{len(spec.Artifacts), 2},
		{spec.Artifacts[0].ID, "zone"},
		{spec.Artifacts[1].ID, "old"},
		{spec.Artifacts[1].Writer.(*Zone).Dialect, "ustar-strict"},
	} {
		if !reflect.DeepEqual(c.got, c.want) {
			t.Errorf("got %#v, want %#v", c.got, c.want)
		}
	}
	if perm, err := spec.Files[0].Perm(); perm != 0o4555 || err != nil {
		t.Errorf("Perm: %o, %v", perm, err)
	}
	if spec := parse(t, minimal, Options{}); spec.Profile.Name != DefaultProfile || spec.Artifacts != nil {
		t.Errorf("defaults: %+v", spec)
	}
}

func TestSet(t *testing.T) {
	src := minimal + `
profile {
  set = { banner = "a", password_length = 9 }
}
file {
  path    = "/a"
  content = "a"
}
file {
  path    = "/b"
  content = "b"
}
service {
  name = "web"
  exec = "/bin/true"
}
variable "v" {
  default = 9
}
zone {
}
`
	for _, c := range []struct {
		set []string
		got func(*Spec) any
		at  any
	}{
		{[]string{"image.version=1.10"}, func(s *Spec) any { return s.Image.Version }, "1.10"},
		{[]string{"image.description=[x]${y}"}, func(s *Spec) any { return s.Image.Description }, "[x]${y}"},
		{[]string{"image.description="}, func(s *Spec) any { return s.Image.Description }, ""},
		{[]string{"image.version=2", "image.version=3"}, func(s *Spec) any { return s.Image.Version }, "3"},
		{[]string{"limits.memory=4GiB", "limits.processes=7", "limits.cpus=0.5"}, func(s *Spec) any {
			return fmt.Sprint(s.Layout.Limits.Memory, s.Layout.Limits.Processes, s.Layout.Limits.CPUs)
		}, "4GiB7 0.5"},
		{[]string{"file[1].mode=0600"}, func(s *Spec) any { return s.Files[0].Mode + s.Files[1].Mode }, "06440600"},
		{[]string{"link.path=/x"}, nil, "no link block"},
		{
			[]string{`profile.set.banner=c`, `profile.set["umask"]=022`},
			func(s *Spec) any { return s.Profile.Set },
			map[string]string{"banner": "c", "password_length": "9", "umask": "022"},
		},
		{[]string{`profile.set={ banner = "y" }`}, func(s *Spec) any { return s.Profile.Set }, map[string]string{"banner": "y"}},
		{[]string{`service.listen=["${var.v}/tcp"]`}, func(s *Spec) any { return s.Layout.Services[0].Listen }, []string{"9/tcp"}},
		{[]string{"service[0].environment.HOME=/x"}, func(s *Spec) any { return s.Layout.Services[0].Environment }, map[string]string{"HOME": "/x"}},
		{[]string{"zone.compression=none"}, func(s *Spec) any { return s.Artifacts[0].Writer.(*Zone).Compression }, "none"},
		{[]string{"profile.waive[0].until=2027-01-01"}, nil, "no waive block"},
		{[]string{"file[18446744073709551617].mode=1"}, nil, "2 file blocks"},
		{[]string{"var.v=1"}, nil, `no block "var"`},
	} {
		spec, diags := ParseSpec("testdata/files/spec.isc.hcl", []byte(src), Options{Set: c.set})
		if c.got == nil {
			if text := report(spec, diags); !strings.Contains(text, c.at.(string)) {
				t.Errorf("%q: %s", c.set, text)
			}
			continue
		}
		if len(diags) > 0 {
			t.Errorf("%q: %s", c.set, report(spec, diags))
			continue
		}
		if got := c.got(spec); !reflect.DeepEqual(got, c.at) {
			t.Errorf("%q: got %v, want %v", c.set, got, c.at)
		}
	}
}

func TestVariables(t *testing.T) {
	dir := t.TempDir()
	write := func(name, text string) string {
		name = filepath.Join(dir, name)
		if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return name
	}
	one := write("one.hcl", "v = \"file\"\nlist = [\"f\"]\n")
	two := write("two.json", `{"v": "json"}`)
	declared := `
variable "v" {
  type    = string
  default = "default"
}
variable "list" {
  type    = list(string)
  default = ["d"]
}
variable "flag" {
  type        = bool
  default     = true
  description = "x"
  sensitive   = true
}
variable "home" {
  default = env("HOME")
}
variable "any" {
  default = null
}
locals {
  all  = "${var.v} ${join(",", var.list)} ${local.flag} ${var.home}"
  flag = var.flag ? "on" : "off"
}
`
	for _, c := range []struct {
		opts Options
		want string
	}{
		{Options{}, "default d on "},
		{Options{Env: []string{"ISC_VAR_v=env", "ISC_VAR_nobody=1", "HOME=/root", "ISC_VAR_list=[\"e\"]", "ISC_VAR_flag=false"}}, "env e off /root"},
		{Options{Env: []string{"ISC_VAR_v=env"}, VarFiles: []string{one}}, "file f on "},
		{Options{VarFiles: []string{one, two}}, "json f on "},
		{Options{VarFiles: []string{two, one}}, "file f on "},
		{Options{VarFiles: []string{one}, Vars: map[string]string{"v": "flag = \"x\"", "list": `["a", "b"]`, "any": "x"}}, `flag = "x" a,b on `},
	} {
		src := strings.Replace(minimal, "}", "  description = local.all\n}", 1)
		spec := parse(t, declared+src, c.opts)
		if got := spec.Image.Description; got != c.want {
			t.Errorf("%+v: got %q, want %q", c.opts, got, c.want)
		}
	}

	// A null value is as good as none.
	spec := parse(t, declared+minimal+"user {\n  name = \"u\"\n  uid = 8\n  shell = var.any\n}\n", Options{})
	if spec.Layout.Users[0].Shell != "" {
		t.Errorf("shell = null gives %q", spec.Layout.Users[0].Shell)
	}

	// What is sensitive is not shown.
	spec, diags := ParseSpec("x", []byte(declared+minimal), Options{Vars: map[string]string{"flag": "secret"}})
	if text := report(spec, diags); !diags.HasErrors() || strings.Contains(text, "secret") {
		t.Errorf("sensitive: %s", text)
	}
}

func TestFunctions(t *testing.T) {
	for _, c := range []struct{ expr, want string }{
		{`upper("a")`, "A"},
		{`replace("1.2", ".", "-")`, "1-2"},
		{`format("%s-%03d", "a", 7)`, "a-007"},
		{`join(",", split("-", "a-b"))`, "a,b"},
		{`file("plain.txt")`, "plain text\n"},
		{`filebase64("binary.bin")`, "//4="},
		{`filesha256("plain.txt")`, "c30a92f9ef889c07c781a7cf99f5b71415d4d1289e84473d1b9e6f01feffc62d"},
		{`templatefile("greeting.tpl", { name = "Ada", n = 1 })`, "hello Ada, you have MAIL\n"},
		{`templatefile("greeting.tpl", { name = "Ada", n = 2 })`, "hello Ada, you have MAIL (2)\n"},
		{`basename("/a/b.c")`, "b.c"},
		{`dirname("/a/b.c")`, "/a"},
		{`length("añ")`, "2"},
		{`length(["a", "b"])`, "2"},
		{`length({ a = 1 })`, "1"},
		{`contains(["a"], "a")`, "true"},
		{`lookup({ a = 1 }, "b", 2)`, "2"},
		{`merge({ a = 1 }, { a = 2 }).a`, "2"},
		{`coalesce("", "x")`, ""},
		{`jsonencode(jsondecode("{\"b\":1,\"a\":[2]}"))`, `{"a":[2],"b":1}`},
		{`base64decode(base64encode("x"))`, "x"},
		{`sha256("")`, "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"},
		{`tostring(1)`, "1"},
		{`join(",", tolist(toset(["b", "a", "b"])))`, "a,b"},
		{`try(tonumber("x"), 3)`, "3"},
		{`alltrue([])`, "true"},
		{`anytrue([false, true])`, "true"},
		{`alltrue([true, false])`, "false"},
		{`startswith("abc", "ab") && endswith("abc", "bc")`, "true"},
		{`formatdate("YYYY", "2026-01-02T00:00:00Z")`, "2026"},

		{`timestamp()`, "!same image at every build"},
		{`uuidv4()`, "!same image at every build"},
		{`env("HOME")`, "!only in the default of a variable"},
		{`file("binary.bin")`, "!not UTF-8"},
		{`file(".")`, "!not a regular file"},
		{`file("none")`, "!no such file"},
		{`templatefile("recursive.tpl", {})`, "!templatefile"},
		{`templatefile("greeting.tpl", "x")`, "!a map is required"},
		{`templatefile("greeting.tpl", {})`, "!name"},
		{`base64decode("/w==")`, "!not UTF-8"},
		{`format("%99999s", "")`, "!a width over 9999"},
		{`length(true)`, "!a list, a map or a string"},
		{`nosuch(1)`, `!There is no function named "nosuch"`},
	} {
		want, isError := strings.CutPrefix(c.want, "!")
		src := strings.Replace(minimal, "}", "  description = "+c.expr+"\n}", 1)
		spec, diags := ParseSpec("testdata/files/spec.isc.hcl", []byte(src), Options{})
		text := report(spec, diags)
		switch {
		case isError && !strings.Contains(text, want):
			t.Errorf("%s: got %q, want an error with %q", c.expr, text, want)
		case !isError && (len(diags) > 0 || spec.Image.Description != want):
			t.Errorf("%s: got %q, want %q %s", c.expr, spec.Image.Description, want, text)
		}
	}
}

// TestSchema shows the schema, and that it is the one that is decoded.
func TestSchema(t *testing.T) {
	var b strings.Builder
	var show func(blocks []Block, indent string)
	show = func(blocks []Block, indent string) {
		for _, block := range blocks {
			if inLayout(block.Name) {
				continue // shown by its own package
			}
			fmt.Fprintf(&b, "%s%s", indent, block.Name)
			if block.Repeatable {
				b.WriteString(" repeatable")
			}
			b.WriteByte('\n')
			for _, a := range block.Attributes {
				fmt.Fprintf(&b, "%s  %s = %s", indent, a.Name, a.Type.FriendlyName())
				if a.Required {
					b.WriteString(" required")
				}
				b.WriteByte('\n')
			}
			show(block.Blocks, indent+"  ")
		}
	}
	show(Schema(), "")
	golden(t, "testdata/schema.txt", b.String())

	for _, v := range []any{File{}, Base{}, Profile{}, Waiver{}, Zone{}, profiles.Layout{}, profiles.Service{}} {
		implied, _ := gohcl.ImpliedBodySchema(v)
		block := structSchema(reflect.TypeOf(v))
		for _, a := range implied.Attributes {
			if got, ok := block.attribute(a.Name); !ok || got.Required != a.Required || got.Type == cty.NilType {
				t.Errorf("%T: attribute %s: %+v", v, a.Name, got)
			}
		}
		if len(implied.Attributes) != len(block.Attributes) || len(implied.Blocks) != len(block.Blocks) {
			t.Errorf("%T: %+v is not %+v", v, block, implied)
		}
	}
}

// TestLimits gives the parser what would exhaust the stack or the memory.
func TestLimits(t *testing.T) {
	for name, src := range map[string]string{
		"brackets":  "a = " + strings.Repeat("[", 1<<18),
		"templates": "a = " + strings.Repeat(`"${`, 1<<18),
		"blocks":    strings.Repeat("a {\n", 1<<17),
		"operators": "a = " + strings.Repeat("!", 1<<18) + "true",
		"ternaries": "a = " + strings.Repeat("true ? 1 :", 1<<16) + "1",
		"sums":      "a = 1" + strings.Repeat("+1", 1<<18),
		"indices":   "a = b" + strings.Repeat("[0]", 1<<17),
		"size":      strings.Repeat("#\n", 1<<20),
		"number":    "image {\n name = \"${1e999999999}\"\n}",
		"digits":    "a = " + strings.Repeat("9", 1000),
	} {
		spec, diags := ParseSpec("x", []byte(src), Options{})
		if len(diags) != 1 || diags[0].Summary != "Too large" {
			t.Errorf("%s: %.300s", name, report(spec, diags))
		}
	}
}

func TestExamples(t *testing.T) {
	for _, name := range []string{"web.isc.hcl", "web-linux.isc.hcl"} {
		name = filepath.Join("..", "example", name)
		src, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		spec, diags := ParseSpec(name, src, Options{})
		if len(diags) > 0 {
			t.Error(report(spec, diags))
		}
		formatted, diags := Format(name, src)
		if diags.HasErrors() || !bytes.Equal(formatted, src) {
			t.Errorf("%s is not as iscadm fmt writes it", name)
		}
	}
}

func TestCheck(t *testing.T) {
	spec := &Spec{
		Image: &Image{Name: "web", Version: "latest", OS: "linux", Arch: "amd64"},
		Base:  &Base{Source: "registry.example/base:1", SHA256: strings.Repeat("a", 64)},
		Files: []File{{Path: "/x"}},
		Artifacts: []KindBlock{
			{Kind: "zone", ID: "a/b"},
		},
	}
	spec.Complete()
	var got []string
	for _, p := range spec.Check() {
		got = append(got, p.Path)
		if p.Error() != p.Path+": "+p.Err.Error() || !errors.Is(p, p.Err) {
			t.Errorf("%v", p)
		}
	}
	want := []string{"image.version", "base.sha256", "file[0]", "zone[0].id"}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}

// TestLayoutPlaces shows that what the layout's own check finds is reported at its place. The
// words are that package's.
func TestLayoutPlaces(t *testing.T) {
	const name = "testdata/layout.isc.hcl"
	src, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	_, diags := ParseSpec(name, src, Options{})
	var got []string
	for _, d := range diags {
		got = append(got, fmt.Sprintf("%d:%d %s", d.Subject.Start.Line, d.Subject.Start.Column, d.Summary))
	}
	want := []string{
		"18:1 Invalid user[1]",
		"20:10 Invalid user[1].uid",
		"25:10 Undeclared variable",
		"30:16 Invalid service[0].exec",
		"31:16 Invalid service[0].listen",
		"32:16 Invalid service[0].privileges",
		"33:16 Invalid service[0].health",
		"37:12 Invalid limits.memory",
		"38:12 Invalid limits.cpus",
		"41:1 Invalid scratch",
		"43:10 Invalid scratch.size",
		"47:10 Invalid volume[0].path",
		"55:1 Invalid mutable[1]",
		"57:11 Invalid mutable[1].rule",
		"60:7 Missing required argument",
	}
	if !slices.Equal(got, want) {
		t.Errorf("got %q", got)
	}
}

func TestParseSource(t *testing.T) {
	abs, err := filepath.Abs("testdata")
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct{ source, scheme, path, err string }{
		{"dir:root", "dir", filepath.Join("d", "root"), ""},
		{"tar:" + abs, "tar", abs, ""},
		{"zfs:a.zst", "zfs", filepath.Join("d", "a.zst"), ""},
		{"skeleton:linux", "skeleton", "linux", ""},
		{"oci:out:1.0", "oci", filepath.Join("d", "out"), ""},
		{"oci-archive:out.tar", "oci-archive", filepath.Join("d", "out.tar"), ""},
		{"registry.example/web:1", "docker", "", ""},
		{"docker://localhost:5000/web", "docker", "", ""},
		{"", "", "", "is empty"},
		{"dir:", "", "", "ends behind its scheme"},
		{"dri:x", "", "", `Did you mean "dir"?`},
		{"testdata", "", "", "nor a reference"},
		{"skeleton:lunix", "", "", `Did you mean "linux"?`},
		{"tar:a\x00b", "", "", "NUL"},
	} {
		loc, err := ParseSource(c.source, "d")
		switch {
		case c.err != "":
			if err == nil || !strings.Contains(err.Error(), c.err) {
				t.Errorf("%q: error %v, want %q", c.source, err, c.err)
			}
		case err != nil || loc.Scheme != c.scheme || loc.Path != c.path:
			t.Errorf("%q: %+v, %v", c.source, loc, err)
		}
	}
}

func FuzzParseSpec(f *testing.F) {
	for _, pattern := range []string{"testdata/bad/*.hcl", "../example/*.hcl"} {
		names, err := filepath.Glob(pattern)
		if err != nil {
			f.Fatal(err)
		}
		for _, name := range names {
			src, err := os.ReadFile(name)
			if err != nil {
				f.Fatal(err)
			}
			f.Add(src, "image.version=1", "v", "1")
		}
	}
	f.Add([]byte(minimal), `profile.set["a"]=b`, "v", "[1]")
	f.Add([]byte("variable \"v\" {\n type = list(number)\n}\nlocals {\n a = [for x in var.v : x * 2]\n}"+minimal), "service[0].listen=[1", "v", "[1]")
	f.Fuzz(func(t *testing.T, src []byte, set, name, value string) {
		spec, diags := ParseSpec("x", src, Options{Set: []string{set}, Vars: map[string]string{name: value}})
		var b bytes.Buffer
		if err := spec.Texts.Write(&b, diags); err != nil {
			t.Fatal(err)
		}
		if !diags.HasErrors() && (spec.Image == nil || spec.Base == nil || spec.Profile == nil) {
			t.Fatal("no error, and no image")
		}
		if formatted, diags := Format("x", src); !diags.HasErrors() {
			again, diags := Format("x", formatted)
			if diags.HasErrors() || !bytes.Equal(again, formatted) {
				t.Fatalf("formatted again, %q is %q", formatted, again)
			}
		}
	})
}
