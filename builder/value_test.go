package builder_test

import (
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"github.com/zclconf/go-cty/cty"
	ctyjson "github.com/zclconf/go-cty/cty/json"

	"github.com/goldenisc/packer-plugin-isc/builder"
)

func valueOf(t *testing.T, text string) cty.Value {
	t.Helper()
	typ, err := ctyjson.ImpliedType([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	v, err := ctyjson.Unmarshal([]byte(text), typ)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

func TestParseValue(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "webd"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	want, diags := builder.ParseSpec(filepath.Join(dir, "web.isc.hcl"), []byte(`
image {
  name    = "web"
  version = "1.4.0"
  os      = "illumos"
  arch    = "amd64"
}
base { source = "skeleton:illumos" }
profile {
  set = { banner = "Hello." }
  waive {
    control = "A05"
    reason  = "console by key"
    until   = "2030-01-01"
  }
}
file {
  path   = "/opt/web/bin/webd"
  source = "webd"
  mode   = "0555"
}
file {
  path    = "/etc/motd"
  content = "Hi."
}
user {
  name = "webd"
  uid  = 801
}
service {
  name   = "web"
  exec   = "/opt/web/bin/webd"
  user   = "webd"
  listen = ["8080/tcp"]
}
limits { processes = 500 }
zone { compression = "gzip" }
zone {
  id      = "old"
  dialect = "ustar-strict"
}
`), builder.Options{})
	if diags.HasErrors() {
		t.Fatal(diags)
	}
	got, diags := builder.ParseValue(valueOf(t, `{
  "image": {"name": "web", "version": "1.4.0", "os": "illumos", "arch": "amd64", "description": null},
  "base": {"source": "skeleton:illumos"},
  "profile": [{"set": {"banner": "Hello."}, "waive": [{"control": "A05", "reason": "console by key", "until": "2030-01-01"}]}],
  "file": [{"path": "/opt/web/bin/webd", "source": "webd", "mode": "0555"}, {"path": "/etc/motd", "content": "Hi."}],
  "user": {"name": "webd", "uid": 801},
  "service": [{"name": "web", "exec": "/opt/web/bin/webd", "user": "webd", "listen": ["8080/tcp"]}],
  "limits": {"processes": "500"},
  "scratch": null,
  "zone": [{"compression": "gzip"}, {"id": "old", "dialect": "ustar-strict"}]
}`), dir)
	if diags.HasErrors() {
		t.Fatal(diags)
	}
	if got.Inputs.Spec == nil || got.Inputs.Spec.Digest["sha256"] == want.Inputs.Spec.Digest["sha256"] {
		t.Errorf("the provenance names %v", got.Inputs.Spec)
	}
	got.Inputs, want.Inputs = builder.Inputs{}, builder.Inputs{}
	got.Texts, want.Texts = nil, nil
	builder.Unplace(want)
	if !reflect.DeepEqual(got, want) {
		t.Errorf("from the value\n%+v\nfrom the file\n%+v", got, want)
	}
}

func TestParseValueErrors(t *testing.T) {
	base := `"base": {"source": "skeleton:illumos"}`
	image := `"image": {"name": "web", "version": "1", "os": "illumos", "arch": "amd64"}`
	for _, c := range []struct{ name, text, place, want string }{
		{"no image", `{` + base + `}`, "", "needs one image block"},
		{"unknown block", `{` + image + `,` + base + `,"scrach":{"path":"/x"}}`, "scrach[0]", `Did you mean "scratch"?`},
		{"unknown attribute", `{"image":{"nmae":"web","version":"1","os":"illumos","arch":"amd64"},` + base + `}`, "image.nmae", `Did you mean "name"?`},
		{"missing attribute", `{"image":{"name":"web","os":"illumos","arch":"amd64"},` + base + `}`, "image", `"version" is required`},
		{"value", `{` + image + `,` + base + `,"file":[{"path":"/a","content":""},{"path":"/b","content":"","mode":"9"}]}`, "file[1].mode", `"9"`},
		{"type", `{` + image + `,` + base + `,"service":{"name":"web","exec":"/x","listen":{"a":1}}}`, "service[0].listen", "list of string"},
		{"kind", `{` + image + `,` + base + `,"zone":{"compression":"rar"}}`, "zone[0].compression", "rar"},
		{"no block", `{` + image + `,` + base + `,"limits":"none"}`, "limits", "is a block"},
		{"two", `{"image":[{"name":"web","version":"1","os":"illumos","arch":"amd64"},{"name":"web","version":"1","os":"illumos","arch":"amd64"}],` + base + `}`, "image", "Only one image block"},
		{"no object", `["image"]`, "", "object of blocks"},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, diags := builder.ParseValue(valueOf(t, c.text), t.TempDir())
			if !diags.HasErrors() {
				t.Fatal("no error")
			}
			for _, d := range diags {
				if d.Subject.Filename == c.place && strings.Contains(d.Detail, c.want) {
					return
				}
				t.Logf("%q: %s: %s", d.Subject.Filename, d.Summary, d.Detail)
			}
			t.Errorf("nothing at %q says %q", c.place, c.want)
		})
	}
}

// TestParseValueUnknown checks what is known.
func TestParseValueUnknown(t *testing.T) {
	image := map[string]cty.Value{
		"name": cty.StringVal("web"), "version": cty.UnknownVal(cty.String), "os": cty.UnknownVal(cty.String), "arch": cty.StringVal("amd64"),
	}
	spec := map[string]cty.Value{
		"image": cty.ObjectVal(image),
		"base":  cty.ObjectVal(map[string]cty.Value{"source": cty.UnknownVal(cty.String)}),
		"file":  cty.TupleVal([]cty.Value{cty.ObjectVal(map[string]cty.Value{"path": cty.StringVal("/a"), "content": cty.UnknownVal(cty.String)})}),
		"zone":  cty.DynamicVal,
	}
	if _, diags := builder.ParseValue(cty.ObjectVal(spec), "."); diags.HasErrors() {
		t.Error(diags)
	}
	image["name"] = cty.StringVal("Web")
	spec["image"] = cty.ObjectVal(image)
	if _, diags := builder.ParseValue(cty.ObjectVal(spec), "."); len(diags) != 1 || diags[0].Subject.Filename != "image.name" {
		t.Error(diags)
	}
}
