package profiles

import (
	"fmt"
	"io/fs"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/goldenisc/packer-plugin-isc/image"
)

var (
	old   = time.Unix(1600000000, 0).UTC() // of what the fixtures hold
	epoch = time.Unix(1700000000, 0).UTC()
	today = time.Date(2026, 6, 1, 12, 0, 0, 0, time.UTC)
)

// newTree returns a tree with files of root's, 0644; a name that ends in "/" is a directory.
func newTree(t testing.TB, files map[string]string) *image.Tree {
	t.Helper()
	tree, err := image.NewTree(t.TempDir(), image.DefaultLimits)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { tree.Close() })
	for _, name := range sortedKeys(files) {
		e := image.Entry{Name: strings.TrimSuffix(name, "/"), Mode: 0o644, ModTime: old}
		if strings.HasSuffix(name, "/") {
			e.Mode = fs.ModeDir | 0o755
		}
		put(t, tree, e, files[name])
	}
	return tree
}

func put(t testing.TB, root Root, e image.Entry, data string) {
	t.Helper()
	if err := root.Put(e, []byte(data)); err != nil {
		t.Fatal(err)
	}
}

// baseline returns the selection of isc-baseline.
func baseline(t testing.TB, os string, set map[string]string, waivers ...image.Waiver) *Selection {
	t.Helper()
	p, err := Load("isc-baseline")
	if err != nil {
		t.Fatal(err)
	}
	s, err := p.Select(os, set, waivers)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// dump writes all that can be seen of a tree, for comparison.
func dump(t testing.TB, tree *image.Tree) string {
	t.Helper()
	var b strings.Builder
	for e := range tree.All() {
		fmt.Fprintf(&b, "%s %v %d:%d %d %q %x\n", e.Name, e.Mode, e.UID, e.GID, e.ModTime.Unix(), e.Target, e.Digest[:4])
	}
	return b.String()
}

// bareRoot hides what a tree can do beyond a Root.
type bareRoot struct{ Root }

// sameAsOverlay applies on an overlay and compares what it shows with the tree that was edited.
func sameAsOverlay(t *testing.T, base *image.Tree, s *Selection, want *image.Tree) {
	t.Helper()
	over := NewOverlay(base)
	if err := Apply(over, s, epoch); err != nil {
		t.Fatal(err)
	}
	names, err := over.Glob("**")
	if err != nil {
		t.Fatal(err)
	}
	wanted, err := want.Glob("**")
	if err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(names, wanted) {
		t.Fatalf("overlay has %q\ntree has %q", names, wanted)
	}
	for _, n := range names {
		a, err := over.Stat(n)
		if err != nil {
			t.Fatal(err)
		}
		b, err := want.Stat(n)
		if err != nil {
			t.Fatal(err)
		}
		if !sameMeta(a, b) || !a.ModTime.Equal(b.ModTime) || a.Size != b.Size || a.IsRegular() && read(t, over, n) != read(t, want, n) {
			t.Errorf("overlay has %+v\ntree has %+v", a, b)
		}
	}
}

// TestConverge: whatever file a root has not, applying all controls once is enough. One control must
// not make what another one applies to.
func TestConverge(t *testing.T) {
	for os, profile := range map[string]string{Illumos: "isc-strict", Solaris: "stig-solaris11", Linux: "isc-linux"} {
		p, err := Load(profile)
		if err != nil {
			t.Fatal(err)
		}
		s, err := p.Select(os, nil, nil)
		if err != nil {
			t.Fatal(err)
		}
		for _, without := range sortedKeys(ownViolations(os)) {
			tree := violating(t, os)
			if err := tree.Remove(strings.TrimSuffix(without, "/")); err != nil {
				t.Fatal(err)
			}
			if err := Apply(tree, s, epoch); err != nil {
				t.Errorf("%s without %s: %v", os, without, err)
				continue
			}
			once := dump(t, tree)
			if err := Apply(tree, s, epoch.AddDate(1, 0, 0)); err != nil {
				t.Errorf("%s without %s, again: %v", os, without, err)
				continue
			}
			if twice := dump(t, tree); twice != once {
				t.Errorf("%s without %s: a second time changes\n%s", os, without, difference(once, twice))
			}
		}
	}
}

// difference returns the lines that only one of two texts has.
func difference(a, b string) string {
	var out strings.Builder
	for _, side := range []struct{ sign, text, other string }{{"-", a, b}, {"+", b, a}} {
		has := map[string]bool{}
		for line := range strings.Lines(side.other) {
			has[line] = true
		}
		for line := range strings.Lines(side.text) {
			if !has[line] {
				out.WriteString(side.sign + line)
			}
		}
	}
	return out.String()
}

// TestControls proves the whole catalogue: every control is found violated where it is, applying
// it is enough, and applying it again changes nothing.
func TestControls(t *testing.T) {
	for _, os := range Platforms {
		base := violating(t, os) // stays as it is
		before := dump(t, base)
		for _, c := range Controls {
			m, ok := c.On[os]
			if !ok {
				continue
			}
			t.Run(os+"/"+c.ID, func(t *testing.T) {
				p := &Profile{Name: "one", Controls: map[string][]string{os: {c.ID}}}
				s, err := p.Select(os, nil, nil)
				if err != nil {
					t.Fatal(err)
				}
				tree := base
				status := func() Result {
					t.Helper()
					r, err := Audit(tree, s, today)
					if err != nil {
						t.Fatal(err)
					}
					return r.Controls[0]
				}
				got := status()
				if dump(t, tree) != before {
					t.Fatal("auditing changed the tree")
				}
				if !m.inImage() {
					if got.Status != OnDock || got.Reason == "" {
						t.Errorf("got %+v, want a requirement on the dock", got)
					}
					if m.Live != "" && !strings.HasSuffix(got.Reason, ": "+m.Live) {
						t.Errorf("got %+v, want the command %q", got, m.Live)
					}
					return
				}
				if got.Status != Fail || len(got.Findings) == 0 {
					t.Fatalf("found %+v where it is violated", got)
				}
				tree = violating(t, os)
				if err := Apply(tree, s, epoch); err != nil {
					t.Fatal(err)
				}
				if m.Check == nil || m.Edits != nil {
					if got := status(); got.Status != Pass {
						t.Errorf("after applying: %+v", got)
					}
				}
				once := dump(t, tree)
				sameAsOverlay(t, base, s, tree)
				if err := Apply(tree, s, epoch.Add(time.Hour)); err != nil {
					t.Fatal(err)
				}
				if twice := dump(t, tree); twice != once {
					t.Errorf("applying twice differs from once:\n%s\n%s", once, twice)
				}
			})
		}
	}
}

// TestPlainRoot applies all controls through a Root that can do no more than it must.
func TestPlainRoot(t *testing.T) {
	for _, os := range Platforms {
		var ids []string
		for _, c := range Controls {
			if _, ok := c.On[os]; ok {
				ids = append(ids, c.ID)
			}
		}
		s := only(t, os, ids...)
		tree, other := violating(t, os), violating(t, os)
		if err := Apply(tree, s, epoch); err != nil {
			t.Fatal(err)
		}
		if err := Apply(bareRoot{other}, s, epoch); err != nil {
			t.Fatal(err)
		}
		if a, b := dump(t, tree), dump(t, other); a != b {
			t.Errorf("%s: through a plain Root:\n%s\n%s", os, b, a)
		}
	}
}

// TestCatalogue checks what the table itself promises.
func TestCatalogue(t *testing.T) {
	ids, params := map[string]bool{}, map[string]bool{}
	for _, c := range Controls {
		if ids[c.ID] || len(c.ID) != 3 {
			t.Errorf("%s: its id is taken or malformed", c.ID)
		}
		ids[c.ID] = true
		if c.Title == "" || c.Why == "" || len(c.On) == 0 || c.Kind() == "" {
			t.Errorf("%s: lacks a title, a reason or a method", c.ID)
		}
		for _, p := range c.Parameters {
			if params[p.Name] {
				t.Errorf("%s: parameter %s is another control's", c.ID, p.Name)
			}
			params[p.Name] = true
			if err := p.check(p.Default); err != nil {
				t.Errorf("%s: default of %s: %v", c.ID, p.Name, err)
			}
		}
		for os, m := range c.On {
			if !slices.Contains(Platforms, os) || m.How == "" || len(m.Kinds()) == 0 {
				t.Errorf("%s on %s: no such system, or nothing is done", c.ID, os)
			}
			if (m.Edits != nil || m.Check != nil) && len(m.Globs) == 0 {
				t.Errorf("%s on %s: does not say what it touches", c.ID, os)
			}
			for _, g := range slices.Concat(m.Globs, m.Needs) {
				if _, err := image.NewMatcher(g); err != nil {
					t.Errorf("%s on %s: %v", c.ID, os, err)
				}
			}
			for _, ref := range m.SMF {
				if strings.Contains(ref.Service, "svc:") {
					t.Errorf("%s: %s is an FMRI, not a service name", c.ID, ref.Service)
				}
			}
		}
	}
	// The table of the specification has 116 controls of illumos, and Linux is to have 60.
	for os, want := range map[string]int{Illumos: 116, Linux: 60} {
		n := 0
		for _, c := range Controls {
			if _, ok := c.On[os]; ok {
				n++
			}
		}
		if n < want {
			t.Errorf("%d controls of %s: some are lost", n, os)
		}
	}
}
