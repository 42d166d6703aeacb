package main

import (
	"bytes"
	"crypto/sha1"
	"encoding/hex"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/goldenisc/packer-plugin-isc/builder"
)

// An IMGAPI source answers as imgadm's client asks (node-sdc-clients, lib/imgapi.js): ping, all images
// page by page, one image, its file.
func TestIMGAPI(t *testing.T) {
	dir := t.TempDir()
	for _, version := range []string{"1", "2", "3"} {
		spec := filepath.Join(t.TempDir(), "s.isc.hcl")
		text := strings.ReplaceAll("image {\n  name = \"web\"\n  version = \"VERSION\"\n  os = \"illumos\"\n  arch = \"amd64\"\n}\nbase {\n  source = \"skeleton:illumos\"\n}\nprofile {\n  name = \"none\"\n}\n"+
			"file {\n  path = \"/etc/version\"\n  content = \"VERSION\"\n}\nzfs {\n  layout = \"root\"\n}\n", "VERSION", version)
		if err := os.WriteFile(spec, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		var diag bytes.Buffer
		if status := run(t.Context(), []string{"build", spec, "-o", "oci:" + filepath.Join(dir, "isc", "web") + ":" + version}, nil, io.Discard, &diag); status != 0 {
			t.Fatalf("status %d: %s", status, diag.String())
		}
	}
	s := httptest.NewServer(imgapi{dir})
	defer s.Close()
	get := func(path string, status int, v any) []byte {
		t.Helper()
		r, err := http.Get(s.URL + path)
		if err != nil {
			t.Fatal(err)
		}
		defer r.Body.Close()
		data, err := io.ReadAll(r.Body)
		if err != nil {
			t.Fatal(err)
		}
		if r.StatusCode != status {
			t.Fatalf("%s: status %d: %s", path, r.StatusCode, data)
		}
		if v != nil {
			if r.Header.Get("Content-Type") != "application/json" {
				t.Errorf("%s: type %q", path, r.Header.Get("Content-Type"))
			}
			if err := json.Unmarshal(data, v); err != nil {
				t.Fatalf("%s: %v: %s", path, err, data)
			}
		}
		return data
	}
	var pong struct {
		Ping   string
		Imgapi bool
	}
	if get("/ping", 200, &pong); pong.Ping != "pong" || !pong.Imgapi {
		t.Errorf("%+v", pong)
	}
	var all []builder.Imgmanifest
	if get("/images", 200, &all); len(all) != 3 {
		t.Fatalf("%d images", len(all))
	}
	for _, m := range all {
		var one builder.Imgmanifest
		if get("/images/"+m.UUID, 200, &one); one.UUID != m.UUID || one.State != "active" {
			t.Errorf("%+v", one)
		}
		data := get("/images/"+m.UUID+"/file", 200, nil)
		if sum := sha1.Sum(data); hex.EncodeToString(sum[:]) != m.Files[0].SHA1 || int64(len(data)) != m.Files[0].Size {
			t.Errorf("%s: another file", m.UUID)
		}
	}
	var page []builder.Imgmanifest
	if get("/images?limit=2&marker="+all[1].UUID, 200, &page); len(page) != 2 || page[0].UUID != all[1].UUID {
		t.Errorf("from the second on: %d", len(page))
	}
	if get("/images?version=2&name=~we&os=smartos", 200, &page); len(page) != 1 || page[0].Version != "2" {
		t.Errorf("version 2: %+v", page)
	}
	var problem struct{ Code string }
	for path, status := range map[string]int{"/images/00000000-0000-0000-0000-000000000000": 404, "/images/" + all[0].UUID + "/icon": 404, "/images?limit=x": 422} {
		if get(path, status, &problem); problem.Code == "" {
			t.Errorf("%s: no code", path)
		}
	}
	if r, err := http.Post(s.URL+"/images", "application/json", strings.NewReader("{}")); err != nil || r.StatusCode != 405 {
		t.Errorf("%v, %v", r, err)
	}
}
