package main_test

import (
	"bytes"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/goldenisc/packer-plugin-isc/registry"
)

// scripts are the block scalars of a YAML file: what stands indented after a line that ends in "|".
func scripts(text string) (list []string) {
	in, depth := false, 0
	for line := range strings.Lines(text) {
		indent := len(line) - len(strings.TrimLeft(line, " "))
		switch blank := strings.TrimSpace(line) == ""; {
		case in && depth == 0 && !blank:
			depth = indent
			fallthrough
		case in && (indent >= depth || blank):
			list[len(list)-1] += line[min(depth, len(line)-1):]
			continue
		}
		in, depth = strings.HasSuffix(line, "|\n"), 0
		if in {
			list = append(list, "")
		}
	}
	return list
}

// TestRealPipelines runs the steps of example/ci as one script, with what the two systems set.
func TestRealPipelines(t *testing.T) {
	root, err := filepath.Abs("../..")
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		steps int
		vars  func(host string) []string
	}{
		"github-actions.yml": {3, func(host string) []string {
			return []string{"DESTINATION=" + host + "/isc/web", "EPOCH=7", "TAG=v1.2.3", "REGISTRY_USER=u", "REGISTRY_TOKEN=secret-token", "GITHUB_OUTPUT=outputs"}
		}},
		"gitlab-ci.yml": {3, func(host string) []string {
			return []string{
				"CI_REGISTRY=" + host, "CI_REGISTRY_IMAGE=" + host + "/isc/web", "CI_PIPELINE_IID=7", "CI_COMMIT_TAG=v1.2.3",
				"CI_REGISTRY_USER=u", "CI_REGISTRY_PASSWORD=secret-token", "CI_COMMIT_TIMESTAMP=2023-11-14T22:13:20Z",
			}
		}},
	} {
		t.Run(name, func(t *testing.T) {
			p := newPacker(t)
			text, err := os.ReadFile(filepath.Join(root, "example/ci", name))
			if err != nil {
				t.Fatal(err)
			}
			list := scripts(string(text))
			if len(list) != c.steps {
				t.Fatalf("%d steps: %q", len(list), list)
			}
			if out, err := exec.Command("cp", "-r", filepath.Join(root, "example"), p.dir).CombinedOutput(); err != nil {
				t.Fatalf("%v: %s", err, out)
			}
			for _, args := range [][]string{
				{"init", "-q"}, {"add", "example"}, {"-c", "user.name=t", "-c", "user.email=t@example", "commit", "-q", "-m", "x"},
			} {
				git := exec.Command("git", args...)
				git.Dir = p.dir
				if out, err := git.CombinedOutput(); err != nil {
					t.Fatalf("%v: %s", err, out)
				}
			}
			server := registry.Handler(t.TempDir())
			defer server.Close()
			web := httptest.NewServer(server)
			defer web.Close()
			host := strings.TrimPrefix(web.URL, "http://")
			t.Setenv("COSIGN_PASSWORD", "pa55-word")
			iscadm(t, p.dir, "keygen", "-o", "release")
			key, err := os.ReadFile(filepath.Join(p.dir, "release.key"))
			if err != nil {
				t.Fatal(err)
			}
			if err := os.Remove(filepath.Join(p.dir, "release.key")); err != nil {
				t.Fatal(err)
			}
			sh := exec.Command("sh", "-e", "-c", strings.Join(list, "\n"))
			sh.Dir = p.dir
			sh.Env = append(append(p.env, "ISC_KEY="+string(key), "COSIGN_PASSWORD=pa55-word"), c.vars(host)...)
			var diag bytes.Buffer
			sh.Stderr = &diag
			out, err := sh.Output()
			if err != nil {
				t.Fatalf("%v\n%s%s", err, out, &diag)
			}
			log, err := os.ReadFile(filepath.Join(p.dir, "build.log"))
			if err != nil {
				t.Fatal(err)
			}
			for _, secret := range []string{"pa55-word", "secret-token", strings.Split(string(key), "\n")[1]} {
				if strings.Contains(string(out)+diag.String()+string(log), secret) {
					t.Error("a secret is printed")
				}
			}
			ref, digest, ok := strings.Cut(strings.TrimSpace(string(out)), "@")
			if !ok || ref != host+"/isc/web:1.2.3" {
				t.Fatalf("printed %q", out)
			}
			if got := iscadm(t, p.dir, "verify", ref, "--key", "release.pub"); !strings.Contains(got, digest) || !strings.Contains(got, "stable") || !strings.Contains(got, "7") {
				t.Error(got)
			}
			for _, kind := range []string{"provenance", "spdx"} {
				if got := iscadm(t, p.dir, "attestation", ref, kind, "--key", "release.pub"); !strings.Contains(got, "payload") {
					t.Errorf("%s: %s", kind, got)
				}
			}
		})
	}
}
