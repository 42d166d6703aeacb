package registry

import (
	"bytes"
	"encoding/json"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// skopeo runs the real tool, which must be there if ISC_REAL asks for real tools.
func skopeo(t *testing.T, arg ...string) (stdout string, err error) {
	t.Helper()
	if os.Getenv("ISC_REAL") == "" {
		t.Skip("SKIP: ISC_REAL is not set: skopeo does not read our layouts")
	}
	cmd := exec.CommandContext(t.Context(), "skopeo", append([]string{"--insecure-policy"}, arg...)...)
	var out, diag bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &diag
	err = cmd.Run()
	if _, is := err.(*exec.ExitError); err != nil && !is {
		t.Fatal(err)
	}
	t.Logf("skopeo %s: %v %s", strings.Join(arg, " "), err, &diag)
	return out.String(), err
}

// Skopeo reads the layout, gets the standard image of its platform and never another artifact.
func TestRealSkopeo(t *testing.T) {
	l := newLayout(t)
	c := writeTestImage(t, l, "v1")
	c.Services = nil
	dir := t.TempDir()
	amd64 := []string{"--override-os", "linux", "--override-arch", "amd64"}
	oci := "oci:" + l.Dir()

	out, err := skopeo(t, append(amd64, "inspect", oci+":v1")...)
	if err != nil {
		t.Fatal(err)
	}
	var info struct {
		Architecture, Os string
		Layers           []string
		Env              []string
	}
	if err := json.Unmarshal([]byte(out), &info); err != nil {
		t.Fatal(err)
	}
	if info.Os != "linux" || info.Architecture != "amd64" || len(info.Layers) != 1 || info.Layers[0] != c.Artifact("zone").Digest || len(info.Env) != 1 {
		t.Errorf("inspect gives %s", out)
	}
	if raw, err := skopeo(t, "inspect", "--raw", oci+":v1"); err != nil {
		t.Error(err)
	} else if d, err := l.Resolve(t.Context(), "v1"); err != nil || Digest([]byte(raw)) != d.Digest {
		t.Errorf("raw index %s, want %s, %v", Digest([]byte(raw)), d.Digest, err)
	}

	// Another platform, or an image without a standard image in it: nothing is handed out.
	if _, err := WriteImage(t.Context(), l, "bare", c, nil); err != nil {
		t.Fatal(err)
	}
	for _, arg := range [][]string{
		{"--override-os", "linux", "--override-arch", "s390x", "inspect", oci + ":v1"},
		{"--override-os", "illumos", "--override-arch", "amd64", "inspect", oci + ":v1"},
		{"inspect", oci + ":bare"},
		{"copy", oci + ":bare", "dir:" + filepath.Join(dir, "bare")},
	} {
		if out, err := skopeo(t, arg...); err == nil {
			t.Errorf("%q was handed out: %s", arg, out)
		}
	}

	// It copies the image to our registry, in Docker's format too, and we read it back.
	s := Handler("")
	defer s.Close()
	server := httptest.NewServer(s)
	defer server.Close()
	host := strings.TrimPrefix(server.URL, "http://")
	for _, format := range []string{"oci", "v2s2"} {
		ref := host + "/plain:" + format
		if _, err := skopeo(t, append(amd64, "copy", "--format", format, "--dest-tls-verify=false", oci+":v1", "docker://"+ref)...); err != nil {
			t.Fatal(err)
		}
		checkBase(t, ref, c.Artifact("zone").UncompressedDigest)
	}
	file := filepath.Join(dir, "skopeo.tar")
	if _, err := skopeo(t, append(amd64, "copy", oci+":v1", "oci-archive:"+file+":v1")...); err != nil {
		t.Fatal(err)
	}
	checkBase(t, "oci-archive:"+file+":v1", c.Artifact("zone").UncompressedDigest)

	// It reads what we push and archive.
	src := layoutRef(l, "v1")
	for dst, arg := range map[string][]string{
		host + "/ours:v1": {"inspect", "--tls-verify=false", "docker://" + host + "/ours:v1"},
		"oci-archive:" + filepath.Join(dir, "ours.tar:v1"): {"inspect", "oci-archive:" + filepath.Join(dir, "ours.tar:v1")},
	} {
		ref, err := Parse(dst)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := Copy(t.Context(), src, ref, Options{}); err != nil {
			t.Fatal(err)
		}
		if out, err := skopeo(t, append(amd64, arg...)...); err != nil || !strings.Contains(out, c.Artifact("zone").Digest) {
			t.Errorf("%s: %v", out, err)
		}
	}

	// Both write to one layout without losing each other's tags.
	if _, err := skopeo(t, append(amd64, "copy", oci+":v1", oci+":theirs")...); err != nil {
		t.Fatal(err)
	}
	writeTestImage(t, l, "v2")
	for _, tag := range []string{"v1", "bare", "theirs", "v2"} {
		if _, err := l.Resolve(t.Context(), tag); err != nil {
			t.Error(err)
		}
	}
	checkBase(t, oci+":theirs", c.Artifact("zone").UncompressedDigest)
}

func checkBase(t *testing.T, s, diffID string) {
	t.Helper()
	ref, err := Parse(s)
	if err != nil {
		t.Fatal(err)
	}
	b, err := FetchBase(t.Context(), ref, "linux/amd64", Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	if len(b.Layers) != 1 || b.Layers[0].DiffID != diffID {
		t.Errorf("%s: %+v", s, b.Layers)
	}
}

// Crane and oras list, copy and pull what we pushed, from a registry with and without the referrers API.
func TestRealClients(t *testing.T) {
	if os.Getenv("ISC_REAL") == "" {
		t.Skip("SKIP: ISC_REAL is not set: crane and oras do not read what we push")
	}
	run := func(name string, arg ...string) string {
		t.Helper()
		cmd := exec.CommandContext(t.Context(), name, arg...)
		var diag bytes.Buffer
		cmd.Stderr = &diag
		out, err := cmd.Output()
		if err != nil {
			t.Fatalf("%s %s: %v %s", name, strings.Join(arg, " "), err, &diag)
		}
		return string(out)
	}
	for _, listing := range []bool{true, false} {
		reg := newRegistry(t, listing)
		l := newLayout(t)
		c := writeTestImage(t, l, "v1")
		root, err := l.Resolve(t.Context(), "v1")
		if err != nil {
			t.Fatal(err)
		}
		statement := attachReferrer(t, l, root, "release")
		if _, err := Copy(t.Context(), layoutRef(l, "v1"), reg.ref("web:v1"), Options{}); err != nil {
			t.Fatal(err)
		}
		web, zone := reg.host+"/web", c.Artifact("zone").Digest
		if out := run("crane", "ls", web); !strings.Contains(out, "v1\n") {
			t.Errorf("crane ls: %q", out)
		}
		if out := run("crane", "digest", web+":v1"); strings.TrimSpace(out) != root.Digest {
			t.Errorf("crane digest: %q", out)
		}
		if out := run("crane", "blob", web+"@"+zone); Digest([]byte(out)) != zone {
			t.Errorf("crane blob: %s", Digest([]byte(out)))
		}
		run("crane", "copy", web+":v1", reg.host+"/crane:v1")
		if out := run("oras", "repo", "tags", "--plain-http", web); !strings.Contains(out, "v1\n") {
			t.Errorf("oras repo tags: %q", out)
		}
		if out := run("oras", "discover", "--plain-http", "--format", "json", web+":v1"); !strings.Contains(out, statement.Digest) {
			t.Errorf("oras discover, referrers API %t: %s", listing, out)
		}
		run("oras", "copy", "-r", "--from-plain-http", "--to-plain-http", web+":v1", reg.host+"/oras:v1")
		if got, want := everything(t, reg.ref("oras:v1")), everything(t, reg.ref("web:v1")); got != want {
			t.Errorf("oras copied\n%s\nwant\n%s", got, want)
		}
		for _, copied := range []string{"crane:v1", "oras:v1"} {
			s, err := Open(t.Context(), reg.ref(copied), Options{})
			if err != nil {
				t.Fatal(err)
			}
			if d, err := s.Resolve(t.Context(), "v1"); err != nil || d.Digest != root.Digest {
				t.Errorf("%s: %+v, %v", copied, d, err)
			}
			s.Close()
		}
	}
}
