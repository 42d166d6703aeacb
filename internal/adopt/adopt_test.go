package adopt

import (
	"os"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/goldenisc/packer-plugin-isc/builder"
	"github.com/goldenisc/packer-plugin-isc/image"
	"github.com/goldenisc/packer-plugin-isc/profiles"
)

func TestUnitFile(t *testing.T) {
	u := unitFile{}
	u.add("# x\n[Service]\nExecStart=/bin/a \\\n  -b\nEnvironment=A=1\n;y\nEnvironment=B=2\nnonsense\n[Unit]\nExecStart=/no\n")
	u.add("[Service]\nExecStart=\nExecStart = /bin/c\r\n")
	want := unitFile{"Service.ExecStart": {"/bin/c"}, "Service.Environment": {"A=1", "B=2"}, "Unit.ExecStart": {"/no"}}
	if !reflect.DeepEqual(u, want) {
		t.Errorf("%q", u)
	}
}

// TestUnquoted: words are those of systemd.syntax(7).
func TestUnquoted(t *testing.T) {
	for in, want := range map[string][]string{
		`a  b`: {"a", "b"}, `"OPTS=-a -b" C=d`: {"OPTS=-a -b", "C=d"}, `OPTS="-a -b"`: {"OPTS=-a -b"}, `'a "b" c' ""`: {`a "b" c`, ""},
		`"a\"b" a\x20b \101 \u00e4 \s\\`: {`a"b`, "a b", "A", "ä", ` \`}, `\q \x2 \`: {`\q`, `\x2`, `\`}, `"open end`: {"open end"},
	} {
		if got := unquoted(in); !reflect.DeepEqual(got, want) {
			t.Errorf("%s: %q, want %q", in, got, want)
		}
	}
	for in, want := range map[string]string{`a`: `a`, ``: `''`, `it's a`: `'it'\''s a'`} {
		if got := quoted(in); got != want {
			t.Errorf("%s: %s, want %s", in, got, want)
		}
	}
}

// TestQuotedValues: what is in quotes stays one value.
func TestQuotedValues(t *testing.T) {
	p, err := profiles.Load("none")
	if err != nil {
		t.Fatal(err)
	}
	s, err := p.Select(profiles.Linux, nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	unit := "[Service]\nExecStart=/bin/web -t \"a  b\" 'c\\x20d'\nUser=web\nEnvironment=\"OPTS=-a -b\" 'COST=$5' BAD=%h\n"
	a, err := Adopt(adoptTree(t, profiles.Linux, unit), builder.Facts{OS: profiles.Linux}, "web", s, time.Unix(0, 0))
	if err != nil {
		t.Fatal(err)
	}
	want := map[string]string{"OPTS": "-a -b", "COST": "$5"}
	if !reflect.DeepEqual(a.Service.Environment, want) || a.Service.Exec != `/bin/web -t 'a  b' 'c d'` {
		t.Errorf("%q, %s", a.Service.Environment, a.Service.Exec)
	}
	spec, diags := builder.ParseSpec("x.hcl", a.Spec("none"), builder.Options{})
	if diags.HasErrors() || !reflect.DeepEqual(spec.Layout.Services[0].Environment, want) {
		t.Errorf("%v\n%s", diags, a.Spec("none"))
	}
}

func TestSpecName(t *testing.T) {
	for in, want := range map[string]string{
		"web": "web", "getty@tty1": "getty-tty", "Web.Server": "web-server", "7": "app", "": "app", strings.Repeat("a", 31) + "-b": strings.Repeat("a", 31), "_x": "x",
	} {
		if got := specName(in); got != want {
			t.Errorf("%q: %q, want %q", in, got, want)
		}
	}
}

func TestMerged(t *testing.T) {
	for in, want := range map[string]string{"/bin/sh": "/usr/bin/sh", "/usr/bin/sh": "/usr/bin/sh", "/lib64/x": "/usr/lib64/x", "/library/x": "/library/x"} {
		if got := merged(in); got != want {
			t.Errorf("%q: %q, want %q", in, got, want)
		}
	}
}

// adoptTree is a root with one service of that definition.
func adoptTree(t testing.TB, system, definition string) *image.Tree {
	t.Helper()
	tree, err := image.NewTree(t.TempDir(), image.Limits{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { tree.Close() })
	name := "etc/systemd/system/web.service"
	if system == profiles.Illumos {
		name = "lib/svc/manifest/site/web.xml"
	}
	for n, text := range map[string]string{
		name: definition, "etc/passwd": "root:x:0:0::/root:/bin/sh\nweb:x:801:801::/:/bin/false\n", "etc/group": "root:x:0:\nweb:x:801:\n",
	} {
		if err := tree.Put(image.Entry{Name: n, Mode: 0o644, ModTime: time.Unix(0, 0)}, []byte(text)); err != nil {
			t.Fatal(err)
		}
	}
	return tree
}

// FuzzAdopt has units and manifests of others make specs, which must be valid.
func FuzzAdopt(f *testing.F) {
	f.Add(true, "[Unit]\nDescription=${x}\"\nRequires=a.service\n[Service]\nExecStart=/bin/x 'a' \"b\"\nUser=web\nGroup=1\nEnvironment=A=b \"C=d\"\nEnvironmentFile=/etc/x\nWorkingDirectory=/a b\nStateDirectory=x\n")
	f.Add(true, "[Service]\nExecStart=x\nDynamicUser=yes\nUser=_x\nEnvironment=1=2\n")
	f.Add(false, "<?xml version=\"1.0\"?>\n<!DOCTYPE service_bundle SYSTEM \"/usr/share/lib/xml/dtd/service_bundle.dtd.1\">\n<service_bundle type=\"manifest\" name=\"w\">"+
		"<service name=\"site/web\" type=\"service\" version=\"1\"><dependency name=\"n\"><service_fmri value=\"svc:/x\"/></dependency>"+
		"<exec_method type=\"method\" name=\"start\" exec=\"/x\" timeout_seconds=\"1\"/></service></service_bundle>")
	f.Fuzz(func(t *testing.T, linux bool, definition string) {
		system := profiles.Illumos
		if linux {
			system = profiles.Linux
		}
		p, err := profiles.Load("none")
		if err != nil {
			t.Fatal(err)
		}
		s, err := p.Select(system, nil, nil)
		if err != nil {
			t.Fatal(err)
		}
		for _, source := range []string{"", "skeleton:" + system} {
			a, err := Adopt(adoptTree(t, system, definition), builder.Facts{OS: system, Source: source}, "web", s, time.Unix(0, 0))
			if err != nil {
				continue
			}
			text := a.Spec("none")
			if _, diags := builder.ParseSpec("x.hcl", text, builder.Options{}); diags.HasErrors() {
				t.Fatalf("%v\n%s", diags, text)
			}
		}
	})
}

// FuzzLinkage reads programs of others.
func FuzzLinkage(f *testing.F) {
	self, err := os.Executable()
	if err != nil {
		f.Fatal(err)
	}
	head, err := os.Open(self)
	if err != nil {
		f.Fatal(err)
	}
	defer head.Close()
	data := make([]byte, 4096)
	if _, err := head.Read(data); err != nil {
		f.Fatal(err)
	}
	f.Add(data)
	f.Add([]byte("\x7fELF\x02\x01\x01"))
	f.Fuzz(func(_ *testing.T, data []byte) {
		if l, err := linkage(data); err == nil && len(l.needed) > len(data) {
			panic("more libraries than bytes")
		}
	})
}

func TestExpand(t *testing.T) {
	u := unitFile{"Service.ExecStart": {"/bin/x %i %I %n %p 100%% %t/%N %H"}}
	u.expand(`web@a-b\x2dc`)
	if got, want := u.last("Service.ExecStart"), `/bin/x a-b\x2dc a/b-c web@a-b\x2dc.service web 100% /run/web@a-b\x2dc %H`; got != want {
		t.Errorf("%q, want %q", got, want)
	}
	for in, want := range map[string]string{"": "", `\x`: `\x`, `\xzz`: `\xzz`, "a-": "a/", `\x2d`: "-"} {
		if got := unescaped(in); got != want {
			t.Errorf("%q: %q, want %q", in, got, want)
		}
	}
}

// TestMethodContext takes what is nearest to the start method.
func TestMethodContext(t *testing.T) {
	c, err := methodContext([]byte(`<service_bundle><service name="a"><method_context working_directory="/no"/></service>
<service name="b"><method_context working_directory="/service"><method_credential group="far"/></method_context>
<exec_method name="stop"><method_context working_directory="/stop"/></exec_method>
<instance><exec_method name="start"><method_context><method_credential group="near"/></method_context></exec_method>
<property_group name="startd"><propval name="duration" value="child"/></property_group></instance></service></service_bundle>`), "b")
	if err != nil || c.Directory != "/service" || c.Credential.Group != "near" || c.duration != "child" {
		t.Errorf("%+v, %v", c, err)
	}
}
