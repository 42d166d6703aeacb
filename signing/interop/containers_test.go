package interop

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"go.podman.io/image/v5/docker"
	containers "go.podman.io/image/v5/image"
	"go.podman.io/image/v5/signature"
	"go.podman.io/image/v5/types"

	"github.com/goldenisc/packer-plugin-isc/signing"
)

// TestContainersPolicy lets the library behind podman, skopeo and bootc judge our classic
// signatures.
func TestContainersPolicy(t *testing.T) {
	for name, private := range keys(t) {
		t.Run(name, func(t *testing.T) {
			k := parse(t, private)
			signed := publish(t, true, "content")
			signed.signAll(t, k)
			if err := allowed(t, signed, k.Public()); err != nil {
				t.Error(err)
			}
			for another, private := range keys(t) {
				if another == name && allowed(t, signed, parse(t, private).Public()) == nil {
					t.Error("allowed by another key")
				}
			}
			if allowed(t, publish(t, true, "content"), k.Public()) == nil {
				t.Error("allowed without a signature")
			}
		})
	}
}

// TestContainersPolicyProgram lets it judge what the program has pushed, both with the referrers API and
// without.
func TestContainersPolicyProgram(t *testing.T) {
	dir := t.TempDir()
	program := filepath.Join(dir, "iscadm")
	build := exec.Command("go", "build", "-o", program, "./cmd/iscadm")
	build.Dir = "../.."
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	run := func(args ...string) {
		t.Helper()
		c := exec.Command(program, args...)
		c.Dir = dir
		c.Env = append(os.Environ(), "COSIGN_PASSWORD=", "ISCADM_STATE="+filepath.Join(dir, "state"))
		if out, err := c.CombinedOutput(); err != nil {
			t.Fatalf("iscadm %q: %v\n%s", args, err, out)
		}
	}
	spec := "image {\n  name    = \"web\"\n  version = \"1.4.0\"\n  os      = \"linux\"\n  arch    = \"amd64\"\n}\n\nbase {\n  source = \"skeleton:linux\"\n}\n"
	if err := os.WriteFile(filepath.Join(dir, "web.isc.hcl"), []byte(spec), 0o644); err != nil {
		t.Fatal(err)
	}
	run("keygen", "-o", "one")
	run("keygen", "-o", "two")
	key := func(name string) *signing.PublicKey {
		data, err := os.ReadFile(filepath.Join(dir, name+".pub"))
		if err != nil {
			t.Fatal(err)
		}
		k, err := signing.ParsePublicKey(data)
		if err != nil {
			t.Fatal(err)
		}
		return k
	}
	for _, api := range []bool{true, false} {
		i := publish(t, api, "content") // a registry; what is in it is replaced
		run("build", "web.isc.hcl", "-o", i.repo+":1.4.0", "--key", "one.key")
		if err := allowed(t, i, key("one")); err != nil {
			t.Errorf("referrers API %v: %v", api, err)
		}
		if allowed(t, i, key("two")) == nil {
			t.Error("allowed by another key")
		}
		run("build", "web.isc.hcl", "-o", i.repo+":1.4.0", "--key", "one.key", "--set", "image.version=1.4.1", "--signature-format", "bundle")
		if allowed(t, i, key("one")) == nil {
			t.Error("allowed without a classic signature")
		}
	}
}

func allowed(t *testing.T, i *image, public *signing.PublicKey) error {
	t.Helper()
	dir := t.TempDir()
	write := func(name, content string) string {
		name = filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(name, []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
		return name
	}
	key := write("key.pub", string(public.PEM()))
	registries := write("registries.conf", "")
	write("registries.d/default.yaml", "default-docker:\n  use-sigstore-attachments: true\n")
	policy, err := signature.NewPolicyFromBytes([]byte(fmt.Sprintf(
		`{"default":[{"type":"reject"}],"transports":{"docker":{%q:[{"type":"sigstoreSigned","keyPath":%q,"signedIdentity":{"type":"matchRepository"}}]}}}`, i.host, key)))
	if err != nil {
		t.Fatal(err)
	}
	pc, err := signature.NewPolicyContext(policy)
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := pc.Destroy(); err != nil {
			t.Error(err)
		}
	}()
	ctx := context.Background()
	ref, err := docker.ParseReference("//" + i.repo + ":1.4.0")
	if err != nil {
		t.Fatal(err)
	}
	src, err := ref.NewImageSource(ctx, &types.SystemContext{
		DockerInsecureSkipTLSVerify: types.OptionalBoolTrue,
		RegistriesDirPath:           filepath.Join(dir, "registries.d"),
		SystemRegistriesConfPath:    registries,
		SystemRegistriesConfDirPath: dir,
		AuthFilePath:                write("auth.json", "{}"),
	})
	if err != nil {
		t.Fatal(err)
	}
	defer src.Close()
	_, err = pc.IsRunningImageAllowed(ctx, containers.UnparsedInstance(src, nil))
	return err
}
