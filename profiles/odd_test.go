package profiles

import (
	"io/fs"
	"slices"
	"testing"

	"github.com/goldenisc/packer-plugin-isc/image"
)

// TestOdd: what is no file where one should be is a finding of the controls that read it, and keeps no
// report from being made.
func TestOdd(t *testing.T) {
	dir := image.Entry{Mode: fs.ModeDir | 0o755}
	loop := func(to string) image.Entry { return image.Entry{Mode: fs.ModeSymlink | 0o777, Target: to} }
	for _, tt := range []struct {
		name  string
		entry image.Entry
		ids   []string // of controls that say so
	}{
		{"etc/passwd", dir, []string{"E22", "E23"}},
		{"etc/login.defs", loop("login.defs"), []string{"E01"}},
		{"etc/ssh", loop("ssh"), nil},
		{"usr/lib/systemd/system/x.service", loop("x.service"), nil},
	} {
		tree := newTree(t, map[string]string{"usr/lib/systemd/systemd": "", "etc/os-release": "ID=debian\n", "etc/shadow": "root:*:1::::::\n"})
		tt.entry.Name = tt.name
		put(t, tree, tt.entry, "")
		if tt.name == "etc/login.defs" {
			put(t, tree, image.Entry{Name: "etc/passwd", Mode: 0o644}, "root:x:0:0::/root:/bin/sh\n")
		}
		r, err := Audit(tree, All(t, Linux), today)
		if err != nil {
			t.Errorf("%s: %v", tt.name, err)
			continue
		}
		for _, id := range tt.ids {
			i := slices.IndexFunc(r.Controls, func(c Result) bool { return c.ID == id })
			if i < 0 || !slices.ContainsFunc(r.Controls[i].Findings, func(f Finding) bool { return f.Path == tt.name }) {
				t.Errorf("%s: %s says nothing of it: %+v", tt.name, id, r.Controls[max(i, 0)])
			}
		}
	}
}
