package profiles_test

import (
	"bytes"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/goldenisc/packer-plugin-isc/image"
	"github.com/goldenisc/packer-plugin-isc/internal/remote"
	"github.com/goldenisc/packer-plugin-isc/profiles"
	"github.com/goldenisc/packer-plugin-isc/provisioner"
)

// entries are what a root holds, but for times and for what only images have. A machine has numbers for
// owners and bits for modes, as a tree has.
func entries(t *testing.T, all func(func(*image.Entry) bool)) string {
	t.Helper()
	var b strings.Builder
	for e := range all {
		if e.Name == "." {
			continue
		}
		mode := e.Mode
		if e.Type() == fs.ModeSymlink {
			mode = fs.ModeSymlink // bits of links mean nothing
		}
		fmt.Fprintf(&b, "%s %v %d:%d %q %x\n", e.Name, mode, e.UID, e.GID, e.Target, e.Digest)
	}
	return b.String()
}

// folderOf is a tree as a folder.
func folderOf(t *testing.T, tree *image.Tree) string {
	t.Helper()
	var b bytes.Buffer
	if err := image.WriteTar(t.Context(), &b, tree, image.Pax, nil); err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	cmd := exec.CommandContext(t.Context(), "tar", "-xpf", "-", "-C", dir, "--numeric-owner")
	cmd.Stdin = &b
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("tar: %v\n%s", err, out)
	}
	return dir
}

// TestMachineAgrees applies every control that machines have, of every system, to a tree and to a folder
// that is worked on by commands: both end up the same, an audit finds the same, and undoing puts all back.
func TestMachineAgrees(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("takes root")
	}
	today := time.Date(2026, 6, 1, 12, 0, 0, 0, time.UTC)
	for _, system := range profiles.Platforms {
		t.Run(system, func(t *testing.T) {
			s := profiles.All(t, system).Live()
			tree := profiles.Violating(t, system)
			dir := folderOf(t, tree)
			read := func() string {
				t.Helper()
				r, err := image.ReadDir(t.Context(), dir, image.Options{})
				if err != nil {
					t.Fatal(err)
				}
				defer r.Close()
				return entries(t, r.All())
			}
			before := read()
			var backup *profiles.Backup
			o := provisioner.Options{Root: dir, Dir: t.TempDir(), Today: today, Save: func(b *profiles.Backup, _ []profiles.Change) error { backup = b; return nil }}
			changes, report, err := provisioner.Harden(t.Context(), remote.Local{}, system, s, o)
			if err != nil {
				t.Fatal(err)
			}
			if len(changes) < 40 {
				t.Errorf("%d changes: the root violates next to nothing", len(changes))
			}
			if err := profiles.Apply(tree, s, today); err != nil {
				t.Fatal(err)
			}
			same(t, "the machine and the tree", read(), entries(t, tree.All()))
			want, err := profiles.Audit(tree, s, today)
			if err != nil {
				t.Fatal(err)
			}
			for i, c := range report.Controls {
				if c.Status != want.Controls[i].Status || len(c.Findings) != len(want.Controls[i].Findings) {
					t.Errorf("%s: the machine says %s %v, the tree %s %v", c.ID, c.Status, c.Findings, want.Controls[i].Status, want.Controls[i].Findings)
				}
			}
			if again, _, err := provisioner.Harden(t.Context(), remote.Local{}, system, s, o); err != nil || len(again) > 0 {
				t.Errorf("again: %d changes, %v", len(again), err)
			}
			if err := provisioner.Undo(t.Context(), remote.Local{}, system, backup, o); err != nil {
				t.Fatal(err)
			}
			same(t, "before and after", read(), before)
		})
	}
}

// same compares texts by lines.
func same(t *testing.T, what, got, want string) {
	t.Helper()
	for _, side := range []struct{ mark, a, b string }{{"-", want, got}, {"+", got, want}} {
		for line := range strings.Lines(side.a) {
			if !strings.Contains("\n"+side.b, "\n"+line) {
				t.Errorf("%s differ: %s%s", what, side.mark, line)
			}
		}
	}
}
