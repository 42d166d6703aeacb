package profiles

import (
	"io/fs"
	"strings"
	"testing"

	"github.com/goldenisc/packer-plugin-isc/image"
)

// TestMalformed: what is wrong with a base is one finding that says where, and an error that leaves
// the tree alone when the control is applied.
func TestMalformed(t *testing.T) {
	file := func(name, text string) func(*testing.T, *image.Tree) {
		return func(t *testing.T, tree *image.Tree) {
			put(t, tree, image.Entry{Name: name, Mode: 0o644, ModTime: old}, text)
		}
	}
	link := func(name, target string) func(*testing.T, *image.Tree) {
		return func(t *testing.T, tree *image.Tree) {
			if err := tree.Remove(name); err != nil {
				t.Fatal(err)
			}
			put(t, tree, image.Entry{Name: name, Mode: fs.ModeSymlink | 0o777, Target: target, ModTime: old}, "")
		}
	}
	dir := func(name string) func(*testing.T, *image.Tree) {
		return func(t *testing.T, tree *image.Tree) {
			if err := tree.Remove(name); err != nil {
				t.Fatal(err)
			}
			put(t, tree, image.Entry{Name: name, Mode: fs.ModeDir | 0o755, ModTime: old}, "")
		}
	}
	for _, tt := range []struct {
		name, control string
		break_        func(*testing.T, *image.Tree)
		path, want    string
		applied       string // error of applying, or empty: a check alone
	}{
		{"binary defaults", "E03", file("etc/default/passwd", "\x7fELF\x00\x00"), "etc/default/passwd", "NUL bytes", "NUL bytes"},
		{"DOS line ends", "E03", file("etc/default/passwd", "PASSLENGTH=6\r\n"), "etc/default/passwd", "line ends of DOS", "line ends of DOS"},
		{"huge defaults", "E03", file("etc/default/passwd", strings.Repeat("#\n", maxText)), "etc/default/passwd", "no configuration is that large", "that large"},
		{"defaults are a folder", "E03", dir("etc/default/passwd"), "etc/default/passwd", "is a directory, not a file", "not a file"},
		{"broken site profile", "A01", file(sitePath, "<service_bundle"), sitePath, "is no profile", "is no profile"},
		{"broken shadow", "E23", file("etc/shadow", "root:NP:6445::::::\nroot\n"), "etc/shadow", "line 2 has 1 fields", ""},
		{"linked shadow", "E23", link("etc/shadow", "/tmp/shadow"), "etc/shadow", "is a symbolic link, not a file", ""},
		{"accounts of NIS", "E23", file("etc/passwd", "root:x:0:0::/:/bin/sh\n+::0:0:::\n"), "etc/passwd", `line 2, "+::0:0:::", takes accounts of NIS`, ""},
		{"same number", "E23", file("etc/passwd", "root:x:0:0::/:/bin/sh\ntoor:x:0:0::/:/bin/sh\n"), "etc/passwd", `"toor" has the number 0, which is that of "root"`, ""},
		{"sudoers of everybody", "E32", file("etc/sudoers.d/x", "ALL ALL=(ALL) ALL\n"), "etc/sudoers.d/x", "ALL ALL=(ALL) ALL", ""},
		{"continued rule", "E32", file("etc/sudoers.d/x", "smith ALL=(ALL) \\\n  NOPASSWD: ALL\n"), "etc/sudoers.d/x", "NOPASSWD", ""},
		{"rule of a number", "E32", file("etc/sudoers.d/x", "#1000 ALL=(ALL) NOPASSWD: ALL\n"), "etc/sudoers.d/x", "#1000 ALL=(ALL) NOPASSWD", ""},
		{"rule of a group's number", "E32", file("etc/sudoers.d/x", "# none\n%#0 ALL=(ALL) NOPASSWD: ALL # some\n"), "etc/sudoers.d/x", `rule 2: "%#0 ALL=(ALL) NOPASSWD: ALL"`, ""},
		{"comments are not continued", "E32", file("etc/sudoers.d/x", "# none \\\nsmith ALL=(ALL) NOPASSWD: ALL\n"), "etc/sudoers.d/x", "NOPASSWD", ""},
		{"quotes are no comments", "E32", file("etc/sudoers.d/x", "Defaults passprompt=\"# \", !authenticate\n"), "etc/sudoers.d/x", "!authenticate", ""},
		{"included rules", "E32", func(t *testing.T, tree *image.Tree) {
			file("etc/sudoers", "@include sudo/%h\n#includedir /etc/sudo\n")(t, tree)
			file("etc/sudo/x", "@include \"/etc/sudo/y z\"\n@include x\n")(t, tree)
			file("etc/sudo/y z", "smith ALL=(ALL) NOPASSWD: ALL\n")(t, tree)
		}, "etc/sudo/y z", "NOPASSWD", ""},
		{"binary sudoers", "E32", file("etc/sudoers.d/x", "a\x00b"), "etc/sudoers.d/x", "NUL bytes", ""},
		{"/root is a link", "P10", link("root", "home"), "root", "is a symbolic link, not a directory", ""},
		{"unreadable manifest", "C11", file("lib/svc/manifest/site/x.xml", "<?xml version='1.0'?><service_bundle/>"), "lib/svc/manifest/site/x.xml", "no document type", ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			tree := newTree(t, map[string]string{
				"etc/passwd": "root:x:0:0::/root:/bin/sh\n", "etc/shadow": "root:NP:6445::::::\n", "etc/group": "root::0:\n",
				"etc/default/passwd": "PASSLENGTH=6\n", "root/": "", "tmp/shadow": "root:NP:6445::::::\n",
			})
			tt.break_(t, tree)
			s := only(t, Illumos, tt.control)
			r, err := Audit(tree, s, today)
			if err != nil {
				t.Fatal(err)
			}
			n := 0
			for _, f := range r.Controls[0].Findings {
				if f.Path == tt.path && strings.Contains(f.Problem, tt.want) {
					n++
				}
			}
			if r.Controls[0].Status != Fail || n != 1 {
				t.Errorf("got %+v; want one of %s with %q", r.Controls[0], tt.path, tt.want)
			}
			before := dump(t, tree)
			err = Apply(tree, s, epoch)
			if tt.applied == "" && err != nil || tt.applied != "" && (err == nil || !strings.Contains(err.Error(), tt.applied) || !strings.Contains(err.Error(), tt.path)) {
				t.Errorf("applying: %v, want %q", err, tt.applied)
			}
			if after := dump(t, tree); after != before {
				t.Errorf("the tree was changed:\n%s\n%s", before, after)
			}
		})
	}
}

// TestApplyIsWhole: if one control cannot be applied, none is.
func TestApplyIsWhole(t *testing.T) {
	for _, os := range Platforms {
		tree := violating(t, os)
		put(t, tree, image.Entry{Name: "etc/ssh/sshd_config", Mode: 0o644, ModTime: old}, "Port 22\x00\n")
		before := dump(t, tree)
		err := Apply(tree, baseline(t, os, nil), epoch)
		if err == nil || !strings.Contains(err.Error(), "etc/ssh/sshd_config") {
			t.Errorf("got %v", err)
		}
		if dump(t, tree) != before {
			t.Error("the tree was changed")
		}
	}
}

// TestLinkedEtc: edits go where the links of a root lead, and nowhere else.
func TestLinkedEtc(t *testing.T) {
	tree := newTree(t, map[string]string{"real/etc/default/passwd": "PASSLENGTH=6\n"})
	put(t, tree, image.Entry{Name: "etc", Mode: fs.ModeSymlink | 0o777, Target: "../../real/etc", ModTime: old}, "")
	if err := Apply(tree, only(t, Illumos, "E03"), epoch); err != nil {
		t.Fatal(err)
	}
	if got := read(t, tree, "real/etc/default/passwd"); got != "PASSLENGTH=15\n" {
		t.Errorf("got %q", got)
	}
}

// TestLastLine: a file whose last line has no end is not joined with what is added.
func TestLastLine(t *testing.T) {
	tree := newTree(t, map[string]string{"etc/default/passwd": "# end"})
	if err := Apply(tree, only(t, Illumos, "E03"), epoch); err != nil {
		t.Fatal(err)
	}
	if got := read(t, tree, "etc/default/passwd"); got != "# end\nPASSLENGTH=15\n" {
		t.Errorf("got %q", got)
	}
}

// TestRestore puts back what all controls of a system change.
func TestRestore(t *testing.T) {
	for _, os := range Platforms {
		var ids []string
		for _, c := range Controls {
			if _, ok := c.On[os]; ok {
				ids = append(ids, c.ID)
			}
		}
		tree := violating(t, os)
		before := dump(t, tree)
		over := NewOverlay(tree)
		if err := Apply(over, only(t, os, ids...), epoch); err != nil {
			t.Fatal(err)
		}
		changes, err := over.Changes()
		if err != nil {
			t.Fatal(err)
		}
		backup, err := Save(tree, changes)
		if err != nil {
			t.Fatal(err)
		}
		if err := Commit(tree, changes); err != nil {
			t.Fatal(err)
		}
		if dump(t, tree) == before {
			t.Error("nothing was changed")
		}
		if err := backup.Restore(tree); err != nil {
			t.Fatal(err)
		}
		if after := dump(t, tree); after != before {
			t.Errorf("restored:\n%s\nbefore:\n%s", after, before)
		}
	}
}
