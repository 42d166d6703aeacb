package main

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/goldenisc/packer-plugin-isc/host"
	"github.com/goldenisc/packer-plugin-isc/image"
	"github.com/goldenisc/packer-plugin-isc/registry"
)

// acquire finds an image, makes sure that it may be used and imports it for a platform.
//
// What comes from a registry or an archive is first copied into a layout below the state folder,
// where a cut-off copy goes on the next time, and each blob is used only after all of it was
// verified: neither a parser nor a system call ever sees bytes that somebody is still sending.
func (a *app) acquire(ctx context.Context, h *host.Host, name, platform string, trust trustFlags) (*host.Image, error) {
	ref, err := registry.Parse(name)
	if err != nil {
		return nil, badInput(err)
	}
	if err := trust.check(ref); err != nil {
		return nil, err
	}
	m, store, err := a.open(ctx, name)
	if err != nil {
		return nil, err
	}
	defer store.Close()
	state, err := h.View()
	if err != nil {
		return nil, err
	}
	if old := state.Image(m.Digest()); old != nil && slices.Contains(old.Platforms, platform) {
		return old, nil
	}
	layout, ok := store.(*registry.Layout)
	if !ok {
		dir := filepath.Join(h.Dir(), "staging", strings.TrimPrefix(m.Digest(), "sha256:"))
		if layout, err = a.stage(ctx, ref, m.Digest(), dir); err != nil {
			return nil, err
		}
		defer os.RemoveAll(dir)
	}
	a.notef("%s %s: no signature was asked for\n", m.Config.Name, m.Config.Version)
	return h.Import(ctx, platform, &host.Verified{
		Digest: m.Digest(), Config: m.Config, Source: staged{layout, m.Config}, Unsigned: true, Progress: a.progress(),
	})
}

// stage copies an image into a layout.
func (a *app) stage(ctx context.Context, ref registry.Ref, digest, dir string) (*registry.Layout, error) {
	ref.Tag, ref.Digest = "", digest
	to := registry.Ref{Place: registry.InLayout, Path: dir, Tag: "staged"}
	if _, err := registry.Copy(ctx, ref, to, registry.Options{Progress: a.progress()}); err != nil {
		return nil, err
	}
	return registry.OpenLayout(dir)
}

// staged hands out the artifacts of an image as files of a layout that were verified on the very
// descriptor they are read from.
type staged struct {
	layout *registry.Layout
	config *image.Config
}

func (s staged) Open(_ context.Context, artifact string) (io.ReadCloser, error) {
	a := s.config.Artifact(artifact)
	if a == nil {
		return nil, fmt.Errorf("artifact %q: %w", artifact, fs.ErrNotExist)
	}
	f, err := s.layout.Open(a.Digest)
	if err != nil {
		return nil, err
	}
	h := sha256.New()
	n, err := io.Copy(h, f)
	if sum := "sha256:" + hex.EncodeToString(h.Sum(nil)); err == nil && (n != a.Size || sum != a.Digest) {
		err = fmt.Errorf("artifact %q: %w: %d bytes %s, not %d bytes %s", artifact, registry.ErrMismatch, n, sum, a.Size, a.Digest)
	}
	if err == nil {
		_, err = f.Seek(0, io.SeekStart)
	}
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}

// trustFlags say what vouches for an image.
type trustFlags struct{ unsigned bool }

func (t *trustFlags) flags(c *cobra.Command) {
	c.Flags().BoolVar(&t.unsigned, "unsigned", false, "take an image from a registry that nobody has signed, at your own risk")
}

// check refuses what is not the caller's own: a folder or file of this machine is.
func (t *trustFlags) check(ref registry.Ref) error {
	if ref.Place == registry.InRegistry && !t.unsigned {
		return &statusError{statusNo, fmt.Errorf("%s: not verified: nothing says whose signature to accept (--unsigned takes it as it is)", ref)}
	}
	return nil
}
