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

// violating returns a tree in which nearly every control is violated.
func violating(t testing.TB, os string) *image.Tree {
	files := map[string]string{
		"etc/ssh/sshd_config": "# sshd\n#PermitRootLogin prohibit-password\nX11Forwarding yes\nMaxAuthTries 6\nPermitEmptyPasswords yes\n" +
			"Subsystem sftp internal-sftp\nMatch User backup\n\tPermitRootLogin yes\n",
		"etc/ssh/ssh_host_rsa_key": "-----BEGIN OPENSSH PRIVATE KEY-----\nxxxx\n",
		"root/.rhosts":             "+ +\n",
		"root/.bash_history":       "ls\n",
		"tmp/left":                 "x",
		"var/log/build.log":        "secret\n",
		"opt/web/tls.key":          "-----BEGIN PRIVATE KEY-----\nxxxx\n",
	}
	more := map[string]map[string]string{
		Illumos: {
			"etc/passwd":                "root:x:0:0:Super-User:/root:/usr/bin/bash\nsmith:x:100:1::/home/smith:/bin/sh\n",
			"etc/shadow":                "root::6445::::::\nsmith:$5$salt$hash:6445::::::\n",
			"etc/group":                 "root::0:\nother::1:root\nbin::2:\nsys::3:root\n",
			"etc/default/passwd":        "# comment\nMAXWEEKS=\nMINWEEKS=\nPASSLENGTH=6\n\n#HISTORY=0\n",
			"etc/default/login":         "CONSOLE=/dev/console\nPASSREQ=NO\n#UMASK=022\n#RETRIES=5\n",
			"etc/default/inetinit":      "TCP_STRONG_ISS=1\n",
			"etc/security/policy.conf":  "CRYPT_ALGORITHMS_ALLOW=1,2a,md5,5,6\n#CRYPT_ALGORITHMS_DEPRECATE=__unix__\nCRYPT_DEFAULT=__unix__\n",
			"etc/cron.d/cron.deny":      "daemon\n",
			"lib/svc/seed/nonglobal.db": "seed",
			"etc/svc/repository.db":     "used",
		},
		Linux: {
			"etc/passwd":                  "root:x:0:0:root:/root:/bin/bash\nsmith:x:1000:1::/home/smith:/bin/sh\n",
			"etc/shadow":                  "root::19000:0:99999:7:::\nsmith:$y$j9T$salt$hash:19000:0:99999:7:::\n",
			"etc/group":                   "root:x:0:\ndaemon:x:1:\n",
			"etc/login.defs":              "# comment\nPASS_MAX_DAYS\t99999\nPASS_MIN_DAYS\t0\nUMASK\t\t022\n#ENCRYPT_METHOD DES\n",
			"etc/security/pwquality.conf": "# minlen = 8\n",
			"etc/cron.d/":                 "",
			"etc/cron.deny":               "daemon\n",
			"etc/machine-id":              "0123456789abcdef0123456789abcdef\n",
			"usr/lib/systemd/system/avahi-daemon.service": "[Service]\n",
			"var/lib/systemd/coredump/":                   "",
		},
	}[os]
	for name, text := range more {
		files[name] = text
	}
	tree := newTree(t, files)
	put(t, tree, image.Entry{Name: "var/spool/everybody", Mode: fs.ModeDir | 0o777, ModTime: old}, "")
	put(t, tree, image.Entry{Name: "var/adm/spellhist", Mode: 0o666, ModTime: old}, "")
	put(t, tree, image.Entry{Name: "opt/orphan", Mode: 0o644, UID: 4711, GID: 4712, ModTime: old}, "")
	put(t, tree, image.Entry{Name: "usr/bin/rcp", Mode: fs.ModeSetuid | 0o555, ModTime: old}, "\x7fELF")
	put(t, tree, image.Entry{Name: "usr/bin/su", Mode: fs.ModeSetuid | 0o555, ModTime: old}, "\x7fELF")
	return tree
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
func sameAsOverlay(t *testing.T, os string, s *Selection, want *image.Tree) {
	t.Helper()
	base := violating(t, os)
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

// TestControls proves the whole catalogue: every control is found violated where it is, applying
// it is enough, and applying it again changes nothing.
func TestControls(t *testing.T) {
	for _, os := range Platforms {
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
				tree := violating(t, os)
				before := dump(t, tree)
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
					return
				}
				if got.Status != Fail || len(got.Findings) == 0 {
					t.Fatalf("found %+v where it is violated", got)
				}
				if err := Apply(tree, s, epoch); err != nil {
					t.Fatal(err)
				}
				if m.Check == nil || m.Edits != nil {
					if got := status(); got.Status != Pass {
						t.Errorf("after applying: %+v", got)
					}
				}
				once := dump(t, tree)
				other := violating(t, os)
				if err := Apply(bareRoot{other}, s, epoch); err != nil {
					t.Fatal(err)
				}
				if got := dump(t, other); got != once {
					t.Errorf("through a plain Root:\n%s\n%s", got, once)
				}
				sameAsOverlay(t, os, s, tree)
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
			if err := p.Type.check(p.Default); err != nil {
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
	if n := len(Controls); n < 30 {
		t.Errorf("%d controls: some are lost", n)
	}
}
