package registry

import (
	"strings"
	"testing"
)

var hexDigest = "sha256:" + strings.Repeat("0123456789abcdef", 4)

func TestParse(t *testing.T) {
	tests := []struct {
		in      string
		windows bool
		want    Ref
		s       string // "" = in
	}{
		{in: "oci:dir:v1", want: Ref{Place: InLayout, Path: "dir", Tag: "v1"}},
		{in: "oci:dir", want: Ref{Place: InLayout, Path: "dir", Tag: "latest"}, s: "oci:dir:latest"},
		{in: "oci:/a/b.c/d:1.0-x_y", want: Ref{Place: InLayout, Path: "/a/b.c/d", Tag: "1.0-x_y"}},
		{in: "oci:/a:b/c", want: Ref{Place: InLayout, Path: "/a:b/c", Tag: "latest"}, s: "oci:/a:b/c:latest"},
		{in: "oci:dir@" + hexDigest, want: Ref{Place: InLayout, Path: "dir", Digest: hexDigest}},
		{in: "oci:dir:v1@" + hexDigest, want: Ref{Place: InLayout, Path: "dir", Tag: "v1", Digest: hexDigest}},
		{in: `oci:C:\img\web:1`, want: Ref{Place: InLayout, Path: `C:\img\web`, Tag: "1"}},
		{in: `oci:C:\img\web`, want: Ref{Place: InLayout, Path: `C:\img\web`, Tag: "latest"}, s: `oci:C:\img\web:latest`},
		{in: `oci:C:/img@` + hexDigest, windows: true, want: Ref{Place: InLayout, Path: "C:/img", Digest: hexDigest}},
		{in: "oci:c:web", windows: true, want: Ref{Place: InLayout, Path: "c:web", Tag: "latest"}, s: "oci:c:web:latest"},
		{in: "oci:c:web", want: Ref{Place: InLayout, Path: "c", Tag: "web"}},
		{in: "oci:a@b:c", want: Ref{Place: InLayout, Path: "a@b", Tag: "c"}},
		{in: "oci-archive:x.tar:v1", want: Ref{Place: InArchive, Path: "x.tar", Tag: "v1"}},
		{in: "oci-archive:x.tar", want: Ref{Place: InArchive, Path: "x.tar", Tag: "latest"}, s: "oci-archive:x.tar:latest"},
		{in: "registry.example/isc/web:1.4.0", want: Ref{Place: InRegistry, Host: "registry.example", Repo: "isc/web", Tag: "1.4.0"}},
		{in: "localhost/web", want: Ref{Place: InRegistry, Host: "localhost", Repo: "web", Tag: "latest"}, s: "localhost/web:latest"},
		{in: "127.0.0.1:5000/a/b", want: Ref{Place: InRegistry, Host: "127.0.0.1:5000", Repo: "a/b", Tag: "latest"}, s: "127.0.0.1:5000/a/b:latest"},
		{in: "[::1]:5000/a", want: Ref{Place: InRegistry, Host: "[::1]:5000", Repo: "a", Tag: "latest"}, s: "[::1]:5000/a:latest"},
		{in: "docker://h:1/r:t@" + hexDigest, want: Ref{Place: InRegistry, Host: "h:1", Repo: "r", Tag: "t", Digest: hexDigest}, s: "h:1/r:t@" + hexDigest},
		{in: "h.x/r@" + hexDigest, want: Ref{Place: InRegistry, Host: "h.x", Repo: "r", Digest: hexDigest}},
	}
	for _, test := range tests {
		got, err := parse(test.in, test.windows)
		if err != nil || got != test.want {
			t.Errorf("parse(%q) = %+v, %v; want %+v", test.in, got, err, test.want)
			continue
		}
		if test.s == "" {
			test.s = test.in
		}
		if got.String() != test.s {
			t.Errorf("parse(%q).String() = %q, want %q", test.in, got, test.s)
		}
	}
}

func TestParseErrors(t *testing.T) {
	for in, want := range map[string]string{
		"":                                    "neither oci:DIR",
		"web":                                 "neither oci:DIR",
		"library/web":                         "neither oci:DIR",
		"oci:":                                "no path",
		"oci::v1":                             "no path",
		"oci:dir:":                            `tag ""`,
		"oci:dir:-x":                          `tag "-x"`,
		"oci:dir:a b":                         `tag "a b"`,
		"oci:dir@sha256:12":                   "64 lower-case",
		"h.x/r@sha512:12":                     "want @sha256:",
		"h.x/r@" + strings.ToUpper(hexDigest): "want @sha256:",
		"h.x/Web":                             `repository "Web"`,
		"h.x/a//b":                            `repository "a//b"`,
		"h.x/../b":                            `repository "../b"`,
		"h.x/":                                `repository ""`,
		"h.x:port/a":                          "neither oci:DIR",
		"h.x/a\nb":                            "control character",
		"https://h.x/a":                       "neither oci:DIR",
		"h.x/" + strings.Repeat("a", 256):     "repository",
		"oci:d:" + strings.Repeat("a", 129):   "128 letters",
	} {
		_, err := Parse(in)
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("Parse(%q): %v; want %q in it", in, err, want)
		}
	}
}

func FuzzParse(f *testing.F) {
	for _, s := range []string{"oci:dir:v1", "oci:C:\\x:y", "oci-archive:f@" + hexDigest, "docker://h:1/r:t@" + hexDigest, "localhost/a", "oci:a::b", "oci:A", "oci-archive:@sha256"} {
		f.Add(s, true)
		f.Add(s, false)
	}
	f.Fuzz(func(t *testing.T, s string, windows bool) {
		r, err := parse(s, windows)
		if err != nil {
			return
		}
		again, err := parse(r.String(), windows)
		if err != nil || again != r {
			t.Fatalf("%q is %+v, written as %q is %+v, %v", s, r, r.String(), again, err)
		}
	})
}
