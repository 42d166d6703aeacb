package main

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

func (d *demo) pull() error {
	if _, err := d.command(statusNo, "pull", d.ref("linux"), "--state", d.path("state")); err != nil {
		return err
	}
	if _, err := d.command(0, "verify", d.ref("linux"), "--key", d.path("release.pub"), "--state", d.path("state")); err != nil {
		return err
	}
	if _, err := d.command(0, "pull", d.ref("linux"), "--key", d.path("release.pub"), "--state", d.path("state")); err != nil {
		return err
	}
	d.prove("the host took the image only after the key had vouched for it, and its epoch was noted")
	return nil
}

func (d *demo) promote() error {
	digest, err := d.command(0, "promote", d.ref("linux"), "--channel", "stable", "--key", d.path("release.key"))
	if err != nil {
		return err
	}
	out, err := d.command(0, "verify", d.ref("linux"), "--key", d.path("release.pub"), "--state", d.path("state"))
	if err != nil {
		return err
	}
	if !strings.Contains(out, "stable") || !strings.Contains(out, digest[strings.LastIndexByte(digest, '\n')+1:]) {
		return errors.New("the same digest is not in stable")
	}
	d.prove("the same digest went from candidate to stable by a statement, not by a rebuild")
	return nil
}

// forge changes one byte of the archive in the registry's folder, as somebody with access to it
// could.
func (d *demo) forge() error {
	m, store, err := d.open(d.ctx, d.ref("illumos"))
	if err != nil {
		return err
	}
	defer store.Close()
	blob := strings.TrimPrefix(m.Config.Artifact("zone").Digest, "sha256:")
	name := ""
	err = filepath.WalkDir(d.path("registry"), func(p string, e fs.DirEntry, err error) error {
		if err == nil && e.Name() == blob {
			name = p
		}
		return err
	})
	if err != nil || name == "" {
		return errors.Join(err, errors.New("the registry's folder does not hold the archive"))
	}
	data, err := os.ReadFile(name)
	if err != nil {
		return err
	}
	data[len(data)/2] ^= 1
	if err := os.WriteFile(name, data, 0o644); err != nil {
		return err
	}
	d.printf("(one bit of the archive in the registry is flipped)\n")
	if _, err := d.command(statusNo, "pull", d.ref("illumos"), "--key", d.path("release.pub"), "--state", d.path("state")); err != nil {
		return err
	}
	d.prove("an image that was changed in the registry is refused")
	return nil
}

// rollBack lets the registry offer a release that is older than what the host has.
func (d *demo) rollBack() error {
	key := []string{"--key", d.path("release.key")}
	for _, version := range []string{"1.1.0", "1.2.0"} {
		args := []string{"build", d.path("linux.isc.hcl"), "--set", "image.version=" + version, "-o", d.version("linux", version)}
		if _, err := d.command(0, append(args, key...)...); err != nil {
			return err
		}
	}
	current := d.version("linux", "current")
	pull := []string{"pull", current, "--policy", d.path("policy.hcl"), "--state", d.path("state")}
	if _, err := d.command(0, "copy", d.version("linux", "1.2.0"), current); err != nil {
		return err
	}
	if _, err := d.command(0, pull...); err != nil {
		return err
	}
	if _, err := d.command(0, "copy", d.version("linux", "1.1.0"), current); err != nil {
		return err
	}
	if _, err := d.command(statusNo, pull...); err != nil {
		return err
	}
	d.prove("an older release is refused although it is signed, as the host has seen a newer epoch")
	return nil
}

func (d *demo) revoke() error {
	if _, err := d.command(0, "revoke", d.ref("linux"), "--reason", "only a demo", "--key", d.path("release.key")); err != nil {
		return err
	}
	if _, err := d.command(statusNo, "verify", d.ref("linux"), "--policy", d.path("policy.hcl"), "--state", d.path("state")); err != nil {
		return err
	}
	if _, err := d.command(statusNo, "check", "web", "--state", d.path("state")); err != nil {
		return err
	}
	d.prove("a withdrawn image is refused, and its running clones are findings")
	return nil
}
