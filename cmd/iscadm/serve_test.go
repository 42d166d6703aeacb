package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// serving starts iscadm serve and returns its address.
func serving(t *testing.T, arg ...string) string {
	t.Helper()
	ctx, stop := context.WithCancel(t.Context())
	r, w := io.Pipe()
	done := make(chan int, 1)
	var diag bytes.Buffer
	go func() {
		done <- run(ctx, append([]string{"serve", "--listen", "127.0.0.1:0"}, arg...), strings.NewReader(""), w, &diag)
		w.Close()
	}()
	t.Cleanup(func() {
		stop()
		if status := <-done; status != 0 {
			t.Errorf("serve: status %d: %s", status, &diag)
		}
	})
	line, err := bufio.NewReader(r).ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(line)
}

// A registry serves with and without its own list of referrers; signatures are found either way, and
// either serves what the other has stored.
func TestServeReferrers(t *testing.T) {
	dir := t.TempDir()
	private, public, err := fixedKey("one")
	if err != nil {
		t.Fatal(err)
	}
	file := func(name, text string) string {
		p := filepath.Join(dir, name)
		if err := os.WriteFile(p, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return p
	}
	key, pub := file("one.key", string(private)), file("one.pub", string(public))
	spec := file("web.isc.hcl", "image {\n  name    = \"web\"\n  version = \"1\"\n  os      = \"linux\"\n  arch    = \"amd64\"\n}\n\nbase {\n  source = \"skeleton:linux\"\n}\n")
	t.Setenv("ISCADM_STATE", filepath.Join(dir, "state"))
	must := func(arg ...string) string {
		t.Helper()
		var out, diag bytes.Buffer
		if status := run(t.Context(), arg, strings.NewReader(""), &out, &diag); status != 0 {
			t.Fatalf("%q: status %d: %s", arg, status, &diag)
		}
		return out.String()
	}
	stored := filepath.Join(dir, "registry")
	for _, arg := range [][]string{{"--dir", stored, "--no-referrers-api"}, {"--dir", stored}} {
		t.Run(strings.Join(arg[2:], ""), func(t *testing.T) {
			web := serving(t, arg...) + "/isc/web"
			if len(arg) == 3 {
				must("build", spec, "-o", web+":1", "--key", key, "-q")
			}
			digest := struct{ Digest string }{}
			if err := json.Unmarshal([]byte(must("inspect", web+":1", "--json")), &digest); err != nil {
				t.Fatal(err)
			}
			host, _, _ := strings.Cut(web, "/")
			resp, err := http.Get("http://" + host + "/v2/isc/web/referrers/" + digest.Digest)
			if err != nil {
				t.Fatal(err)
			}
			resp.Body.Close()
			if listed := resp.StatusCode == http.StatusOK; listed == (len(arg) == 3) {
				t.Errorf("referrers: status %d", resp.StatusCode)
			}
			must("verify", web+":1", "--key", pub)
			must("promote", web+":1", "--channel", "candidate", "--key", key)
			must("copy", web+":1", "oci:"+filepath.Join(t.TempDir(), "copy")+":1")
			must("pull", web+":1", "--key", pub)
		})
	}
}
