package interop

import (
	"context"
	"fmt"
	"os"
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
