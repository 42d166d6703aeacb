package profiles

import (
	"bytes"
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/goldenisc/packer-plugin-isc/image"
)

var update = flag.Bool("update", false, "write the golden files")

// golden compares with a file of testdata.
func golden(t *testing.T, name string, got []byte) {
	t.Helper()
	name = filepath.Join("testdata", name)
	if *update {
		if err := os.WriteFile(name, got, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Errorf("%s differs (-update writes it):\n%s", name, got)
	}
}

func TestBuiltIn(t *testing.T) {
	if got, want := Names(), []string{"isc-baseline", "isc-linux", "isc-strict", "none", "stig-solaris11"}; !slices.Equal(got, want) {
		t.Errorf("profiles %q, want %q", got, want)
	}
	for _, name := range Names() {
		p, err := Load(name)
		if err != nil {
			t.Fatal(err)
		}
		if p.Name != name || p.Title == "" {
			t.Errorf("%s: name %q, title %q", name, p.Name, p.Title)
		}
	}
	_, err := Load("isc-basline")
	if err == nil || !strings.Contains(err.Error(), `did you mean "isc-baseline"?`) {
		t.Errorf("got %v", err)
	}
}

func TestExample(t *testing.T) {
	const name = "../example/profile.hcl"
	src, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	p, diags := Parse(name, src)
	if diags.HasErrors() {
		t.Fatal(diags)
	}
	if _, err := p.Select(Linux, nil, nil); err != nil {
		t.Fatal(err)
	}
}

func TestMarkdown(t *testing.T) {
	want, err := os.ReadFile("../docs/controls.md")
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(Markdown(), want) {
		t.Error("docs/controls.md is stale: run go generate ./profiles")
	}
}

func TestParseProfile(t *testing.T) {
	for _, tt := range []struct{ name, src, want string }{
		{"syntax", `name = `, "Missing expression"},
		{"no name", `controls = {}`, `"name" is required`},
		{"no controls", `name = "a"`, "names controls, or extends another"},
		{"bad name", "name = \"A b\"\ncontrols = {}", "not made of lower-case"},
		{"unknown attribute", "name = \"a\"\ncontrols = {}\nparametres = {}", "parametres"},
		{"unknown system", "name = \"a\"\ncontrols = { ilumos = [] }", `did you mean "illumos"?`},
		{"unknown control", "name = \"a\"\ncontrols = { linux = [\"E003\"] }", `did you mean "E03"?`},
		{"other system", "name = \"a\"\ncontrols = { linux = [\"A01\"] }", `only on illumos`},
		{"twice", "name = \"a\"\ncontrols = { linux = [\"E03\", \"E03\"] }", "listed twice"},
		{"system twice", "name = \"a\"\ncontrols = {\nlinux = []\nlinux = []\n}", "listed twice"},
		{"no list", "name = \"a\"\ncontrols = { linux = 3 }", "list"},
		{"no string", "name = \"a\"\ncontrols = { linux = [[]] }", "string"},
		{"unknown parameter", "name = \"a\"\ncontrols = {}\nparameters = { baner = \"x\" }", `did you mean "banner"?`},
		{"bad value", "name = \"a\"\ncontrols = {}\nparameters = { password_length = \"long\" }", "is no number from 8 to 128"},
		{"deep", "name = " + strings.Repeat("[", 100000), "nested more than"},
		{"large", strings.Repeat("#\n", 200000), "more than"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			p, diags := Parse("x.hcl", []byte(tt.src))
			if p == nil || !diags.HasErrors() {
				t.Fatal("no error")
			}
			all := ""
			for _, d := range diags {
				all += d.Error() + "\n"
				if d.Subject == nil || d.Subject.Filename != "x.hcl" {
					t.Errorf("%v: no place", d)
				}
			}
			if !strings.Contains(all, tt.want) {
				t.Errorf("got %s, want %q", all, tt.want)
			}
		})
	}
}

// TestExtendAlone takes controls away from another profile and adds none.
func TestExtendAlone(t *testing.T) {
	p, diags := Parse("x.hcl", []byte("name = \"ours\"\nextends = \"isc-baseline\"\nexcept = [\"S05\"]\n"))
	if diags.HasErrors() {
		t.Fatal(diags)
	}
	base, err := Load("isc-baseline")
	if err != nil {
		t.Fatal(err)
	}
	if got, want := len(p.Controls[Linux]), len(base.Controls[Linux])-1; got != want || slices.Contains(p.Controls[Linux], "S05") {
		t.Errorf("%d controls, want %d", got, want)
	}
}

func FuzzParse(f *testing.F) {
	for _, name := range Names() {
		src, err := builtin.ReadFile(name + ".hcl")
		if err != nil {
			f.Fatal(err)
		}
		f.Add(src)
	}
	f.Add([]byte("name = \"a\"\ncontrols = { linux = [\"E03\", 1, null] }\nparameters = { banner = null, x = [] }"))
	f.Fuzz(func(t *testing.T, src []byte) {
		p, diags := Parse("x.hcl", src)
		if diags.HasErrors() {
			return
		}
		for os := range p.Controls {
			if _, err := p.Select(os, nil, nil); err != nil {
				t.Errorf("a profile without errors cannot be selected: %v", err)
			}
		}
	})
}

func TestSelect(t *testing.T) {
	p, err := Load("isc-baseline")
	if err != nil {
		t.Fatal(err)
	}
	other, diags := Parse("x.hcl", []byte("name = \"x\"\ncontrols = { linux = [] }"))
	if diags.HasErrors() {
		t.Fatal(diags)
	}
	if _, err := other.Select(Illumos, nil, nil); err == nil || !strings.Contains(err.Error(), "is for linux, not for illumos") {
		t.Errorf("a profile without controls for illumos: %v", err)
	}
	_, err = p.Select("linx", map[string]string{"umsk": "077", "password_length": "-1", "umask": "22", "secrets_allow": "a,[", "audit_flags": "lo, am"}, []image.Waiver{
		{Control: "E99", Reason: "x", Until: "2027-01-01"},
		{Control: "A01", Reason: " ", Until: "soon"},
	})
	if err == nil {
		t.Fatal("no error")
	}
	for _, want := range []string{`did you mean "linux"?`, `did you mean "umask"?`, `"password_length"`, `parameter "umask": "22"`, `parameter "secrets_allow": pattern "["`, `parameter "audit_flags"`, `no control "E99"`, "no reason", `"soon" is not a day`} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("%v\nlacks %q", err, want)
		}
	}
}

func TestWaivers(t *testing.T) {
	waiver := image.Waiver{Control: "S05", Reason: "console by key only", Until: "2026-06-01"}
	s := baseline(t, Linux, nil, waiver)
	tree := violating(t, Linux)
	if err := Apply(tree, s, epoch); err != nil {
		t.Fatal(err)
	}
	config, err := tree.ReadFile("etc/ssh/sshd_config")
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(string(config), "#PermitRootLogin prohibit-password\n") {
		t.Errorf("a waived control was applied:\n%s", config)
	}
	for day, want := range map[string]Status{"2026-05-31": Waived, "2026-06-01": Waived, "2026-06-02": Fail} {
		at, err := time.Parse(time.DateOnly, day)
		if err != nil {
			t.Fatal(err)
		}
		r, err := Audit(tree, s, at.Add(23*time.Hour))
		if err != nil {
			t.Fatal(err)
		}
		i := slices.IndexFunc(r.Controls, func(c Result) bool { return c.ID == "S05" })
		if got := r.Controls[i]; got.Status != want || got.Reason != waiver.Reason || got.Until != waiver.Until {
			t.Errorf("%s: %+v, want %s", day, got, want)
		}
	}
}

// TestBaseline applies all of the baseline, in one go and with controls in any order of edits, and
// reads the report back.
func TestBaseline(t *testing.T) {
	for _, os := range Platforms {
		t.Run(os, func(t *testing.T) {
			s := baseline(t, os, map[string]string{"banner": "Go away.\nNow."})
			tree := violating(t, os)
			for _, gone := range []string{
				"opt/orphan", "opt/web/tls.key", "etc/sudoers", "usr/sbin/gdm", "usr/bin/ping", "usr/local/bin", "etc/security/audit_class",
				manifestDir + "/gone.xml", "etc/systemd/system/gone.service",
			} { // what only people can put right
				if err := tree.Remove(gone); err != nil && !errors.Is(err, fs.ErrNotExist) {
					t.Fatal(err)
				}
			}
			shadow, err := tree.ReadFile("etc/shadow")
			if err != nil {
				t.Fatal(err)
			}
			put(t, tree, image.Entry{Name: "etc/shadow", Mode: 0o400, ModTime: old}, string(bytes.SplitAfter(shadow, []byte("\n"))[0]))
			if err := Apply(tree, s, epoch); err != nil {
				t.Fatal(err)
			}
			r, err := Audit(tree, s, today)
			if err != nil {
				t.Fatal(err)
			}
			for _, c := range r.Controls {
				if c.Status == Fail {
					t.Errorf("%+v", c)
				}
			}
			if !r.OK() || r.Count(Pass) < 20 || r.Count(OnDock) == 0 {
				t.Errorf("ok %v, %d pass, %d dock", r.OK(), r.Count(Pass), r.Count(OnDock))
			}
			data, err := r.Marshal()
			if err != nil {
				t.Fatal(err)
			}
			if strings.Contains(string(data), today.Format(time.DateOnly)) {
				t.Error("the report holds the day")
			}
			again, err := ParseReport(data)
			if err != nil {
				t.Fatal(err)
			}
			if more, err := again.Marshal(); err != nil || !bytes.Equal(more, data) {
				t.Errorf("report differs when read back: %v", err)
			}
			issue, err := tree.ReadFile("etc/issue")
			if err != nil || string(issue) != "Go away.\nNow.\n" {
				t.Errorf("issue %q, %v", issue, err)
			}
			// What was right already keeps its time, what was changed has the new one.
			for name, want := range map[string]time.Time{"etc/group": old, "etc/ssh/sshd_config": epoch, "usr/bin/rcp": old} {
				if e, err := tree.Stat(name); err != nil || !e.ModTime.Equal(want) {
					t.Errorf("%s: %v, %v; want %v", name, e, err, want)
				}
			}
			if os == Illumos {
				site, err := tree.ReadFile(sitePath)
				if err != nil {
					t.Fatal(err)
				}
				golden(t, "isc-hardening.xml", site)
			}
		})
	}
}

// TestSite: the profile does not depend on the order of edits, and what stands in it stays.
func TestSite(t *testing.T) {
	var sets [][]Property
	for _, c := range Controls {
		if m := c.On[Illumos]; len(m.SMF) > 0 {
			sets = append(sets, m.SMF)
		}
	}
	s := baseline(t, Illumos, nil)
	write := func(sets [][]Property) string {
		tree := newTree(t, nil)
		for _, set := range sets {
			if err := editSite(set, s.params(epoch))(tree); err != nil {
				t.Fatal(err)
			}
		}
		data, err := tree.ReadFile(sitePath)
		if err != nil {
			t.Fatal(err)
		}
		return string(data)
	}
	forward := write(sets)
	slices.Reverse(sets)
	if backward := write(sets); backward != forward {
		t.Errorf("the order of controls matters:\n%s\n%s", forward, backward)
	}
	tree := newTree(t, map[string]string{sitePath: "<service_bundle"})
	if err := editSite(sets[0], s.params(epoch))(tree); err == nil {
		t.Error("a broken profile was accepted")
	}
}

func FuzzSite(f *testing.F) {
	f.Add(writeSite(append(securityFlag("aslr"), disable("a", "b:c")...)))
	f.Add([]byte("<service_bundle><service name='x'><instance name='y' enabled='&#10;'/></service></service_bundle>"))
	f.Fuzz(func(t *testing.T, data []byte) {
		set, err := parseSite(data)
		if err != nil {
			return
		}
		once := writeSite(set)
		again, err := parseSite(once)
		if err != nil {
			return // characters that XML cannot have
		}
		twice := writeSite(again)
		third, err := parseSite(twice)
		if err != nil || !bytes.Equal(writeSite(third), twice) {
			t.Errorf("not stable: %v\n%s\n%s", err, once, twice)
		}
	})
}

func TestOverlay(t *testing.T) {
	tree := newTree(t, map[string]string{"usr/lib/a": "a", "usr/lib/b": "b", "etc/x": "x", "var/d/e/f": "f"})
	put(t, tree, image.Entry{Name: "lib", Mode: fs.ModeSymlink | 0o777, Target: "usr/lib", ModTime: old}, "")
	before := dump(t, tree)
	o := NewOverlay(tree)
	put(t, o, image.Entry{Name: "lib/c", Mode: 0o644, ModTime: epoch}, "c") // through the link
	put(t, o, image.Entry{Name: "etc/x", Mode: 0o644, ModTime: epoch}, "x") // as it was
	put(t, o, image.Entry{Name: "new/dir/file", Mode: 0o600, ModTime: epoch}, "n")
	if err := o.Remove("lib/b"); err != nil {
		t.Fatal(err)
	}
	if err := o.Remove("var/d"); err != nil {
		t.Fatal(err)
	}
	put(t, o, image.Entry{Name: "var/d/g", Mode: 0o644, ModTime: epoch}, "g")
	if err := ensureMode(o, "usr/lib/a", 0o600, 1, 2); err != nil {
		t.Fatal(err)
	}

	names, err := o.Glob("**")
	if err != nil {
		t.Fatal(err)
	}
	want := []string{".", "etc", "etc/x", "lib", "new", "new/dir", "new/dir/file", "usr", "usr/lib", "usr/lib/a", "usr/lib/c", "var", "var/d", "var/d/g"}
	if !slices.Equal(names, want) {
		t.Errorf("names %q\nwant %q", names, want)
	}
	if data, err := o.ReadFile("lib/a"); err != nil || string(data) != "a" {
		t.Errorf("content behind changed metadata: %q, %v", data, err)
	}
	for _, gone := range []string{"lib/b", "var/d/e/f", "var/d/e"} {
		if _, err := o.Stat(gone); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s: %v", gone, err)
		}
		if err := o.Remove(gone); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("remove %s: %v", gone, err)
		}
	}
	if err := o.Put(image.Entry{Name: "usr", Mode: 0o644}, nil); err == nil {
		t.Error("a full directory was replaced")
	}
	if err := o.Put(image.Entry{Name: "etc/x/y", Mode: 0o644}, nil); err == nil {
		t.Error("a file was put below a file")
	}
	changes, err := o.Changes()
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, c := range changes {
		how := "changed"
		switch {
		case c.Before == nil:
			how = "new"
		case c.After == nil:
			how = "gone"
		}
		got = append(got, c.Name+" "+how)
	}
	want = []string{"new new", "new/dir new", "new/dir/file new", "usr/lib/a changed", "usr/lib/b gone", "usr/lib/c new", "var/d/g new"}
	if !slices.Equal(got, want) {
		t.Errorf("changes %q\nwant %q", got, want)
	}
	if dump(t, tree) != before {
		t.Error("the tree changed")
	}
}

func TestLive(t *testing.T) {
	s := baseline(t, Linux, nil).Live()
	tree := violating(t, Linux)
	if err := Apply(tree, s, epoch); err != nil {
		t.Fatal(err)
	}
	for _, kept := range []string{"etc/ssh/ssh_host_rsa_key", "var/log/build.log", "tmp/left"} {
		if e, err := tree.Stat(kept); err != nil || !e.ModTime.Equal(old) {
			t.Errorf("%s of a live machine was touched: %v", kept, err)
		}
	}
	if g := s.Globs(); !slices.Contains(g, "etc/ssh/sshd_config") || slices.Contains(g, "etc/ssh/ssh_host_*") || !slices.IsSorted(g) {
		t.Errorf("globs %q", g)
	}
	p, err := Load("stig-solaris11")
	if err != nil {
		t.Fatal(err)
	}
	all, err := p.Select(Illumos, nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	r, err := Audit(violating(t, Illumos), all.Live(), today)
	if err != nil {
		t.Fatal(err)
	}
	for _, rule := range r.Rules {
		if strings.Contains(rule.Reason, "does not hold control") {
			t.Errorf("%s of a machine: %s", rule.ID, rule.Reason)
		}
	}
}

// TestFindings: what a finding says.
func TestFindings(t *testing.T) {
	tree := violating(t, Illumos)
	r, err := Audit(tree, baseline(t, Illumos, nil), today)
	if err != nil {
		t.Fatal(err)
	}
	for id, want := range map[string]Finding{
		"A02": {sitePath, `is missing: should have "system/process-security default/aslr=true", "system/process-security:default enabled=true"`},
		"A06": {"var/cores", "is missing"},
		"E03": {"etc/default/passwd", `content: has "PASSLENGTH=6": should have "PASSLENGTH=15"`},
		"E24": {"root/.rhosts", "is there and should not be"},
		"P01": {"var/spool/everybody", "mode 0777, should be 1777"},
		"P03": {"opt/orphan", "owner 4711 is not in etc/passwd"},
		"S05": {"etc/ssh/sshd_config", `content: has "#PermitRootLogin prohibit-password": should have "PermitRootLogin no"`},
		"X01": {"var/log/build.log", "content: 7 bytes, should be empty"},
		"X02": {"opt/web/tls.key", "holds a private key in line 1"},
	} {
		i := slices.IndexFunc(r.Controls, func(c Result) bool { return c.ID == id })
		if !slices.Contains(r.Controls[i].Findings, want) {
			t.Errorf("%s: %+v, want %+v", id, r.Controls[i].Findings, want)
		}
	}
	if f := bound(make([]Finding, maxFindings+3)); len(f) != maxFindings+1 || f[maxFindings].Problem != "and 3 more" {
		t.Errorf("%d findings, the last %+v", len(f), f[len(f)-1])
	}
}

// TestSecretsAreNotShown: findings are published with the image.
func TestSecretsAreNotShown(t *testing.T) {
	r, err := Audit(violating(t, Linux), baseline(t, Linux, nil), today)
	if err != nil {
		t.Fatal(err)
	}
	data, err := r.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	for _, secret := range []string{"$y$", "salt", "BEGIN"} {
		if strings.Contains(string(data), secret) {
			t.Errorf("the report shows %q", secret)
		}
	}
	if !strings.Contains(string(data), `the lines of root`) {
		t.Error("the report does not name the account")
	}
}

// TestFilter: the filter that a control writes lets in what starts at boot.
func TestFilter(t *testing.T) {
	tree := newTree(t, map[string]string{
		"usr/sbin/nft": "", "etc/systemd/system/web.service": "[X-ISC]\nListen=8080/tcp\n", "etc/systemd/system/multi-user.target.wants/": "",
	})
	put(t, tree, image.Entry{Name: "etc/systemd/system/multi-user.target.wants/web.service", Mode: fs.ModeSymlink | 0o777, Target: "../web.service", ModTime: old}, "")
	if err := Apply(tree, only(t, Linux, "L35"), epoch); err != nil {
		t.Fatal(err)
	}
	if got := read(t, tree, "etc/nftables.conf"); !dropsByDefault(got) || !strings.Contains(got, "tcp dport { 8080 } ct state new accept") {
		t.Errorf("got\n%s", got)
	}
}

func TestDropsByDefault(t *testing.T) {
	const input, forward = "type filter hook input priority 0; policy drop;", "type filter hook forward priority filter; policy drop;"
	for _, tt := range []struct {
		rules string
		want  bool
	}{
		{"chain i { " + input + " }\nchain f { " + forward + " }", true},
		{"chain i { type filter hook input priority 0;\n policy drop; } # ours\nchain f { " + forward + " }", true},
		{"chain i { iifname \"#1\" accept; " + input + " }\nchain f { " + forward + " }", true},
		{"chain i { " + input + " }", false},
		{"chain f { " + forward + " }", false},
		{"# chain i { " + input + " }\nchain f { " + forward + " }", false},
		{"chain i { type filter hook input priority 0; policy accept; } # " + input + "\nchain f { " + forward + " }", false},
		{"chain i { type filter hook input priority 0; accept comment \"hook input; policy drop;\" }\nchain f { " + forward + " }", false},
	} {
		if got := dropsByDefault(tt.rules); got != tt.want {
			t.Errorf("%t of\n%s", got, tt.rules)
		}
	}
}

// TestAuditRules: the rules are those that the kernel of a root takes, each once.
func TestAuditRules(t *testing.T) {
	const loader = "usr/lib64/ld-linux-x86-64.so.2"
	rules := func(files map[string]string) string {
		files["usr/sbin/auditd"] = ""
		tree := newTree(t, files)
		for range 2 { // the second time after other controls have made folders
			if err := Apply(tree, only(t, Linux, "B02", "L31"), epoch); err != nil {
				t.Fatal(err)
			}
		}
		r, err := Audit(tree, only(t, Linux, "B02"), today)
		if err != nil || r.Controls[0].Status != Pass {
			t.Errorf("%v, %+v", err, r)
		}
		return read(t, tree, auditRulesPath)
	}
	least, all := rules(map[string]string{}), rules(map[string]string{
		loader: "", "etc/ssh/sshd_config": "", "etc/security/limits.conf": "", "lib/systemd/systemd": "", "var/run/": "",
	})
	for _, text := range []string{least, all} {
		if got := lines(text); got[1] != "-c" || len(slices.Compact(slices.Sorted(slices.Values(got)))) != len(got) {
			t.Errorf("got\n%s", text)
		}
	}
	for _, rule := range []string{
		"-w /etc/ssh/sshd_config ", "-w /etc/security/opasswd ", "-w /etc/systemd/system ", "-w /var/run/utmp ",
		"-F arch=b64 -S openat,truncate,ftruncate,open,creat -F exit=-EACCES ", "-F arch=b32 -S fchown,fchownat,chown,lchown,fchown32,chown32,lchown32 ",
		"-F arch=b64 -S unlinkat,renameat,renameat2,unlink,rename ", "-F arch=b64 -S fchmod,fchmodat,setxattr,lsetxattr,fsetxattr,removexattr,lremovexattr,fremovexattr,chmod ",
	} {
		if strings.Contains(least, rule) || !strings.Contains(all, rule) {
			t.Errorf("%q is not in the second alone:\n%s\n%s", rule, least, all)
		}
	}
	for _, rule := range []string{"-w /etc/passwd -p wa -k identity\n", "-F arch=b64 -S fchown,fchownat -F auid"} {
		if !strings.Contains(least, rule) {
			t.Errorf("%q is missing:\n%s", rule, least)
		}
	}
}

// TestSysctl: no file that is read later sets another value, nor does the one that is read last by other programs
// than systemd's.
func TestSysctl(t *testing.T) {
	const keeps, wins = "net.ipv4.tcp_rfc1337=1\nnet.ipv4.tcp_rfc1337.x=0\nnet/ipv4/*=0\n; net.ipv4.tcp_rfc1337=0\nkernel.sysrq=1\n", " -net/ipv4/tcp_rfc1337 = 0\n"
	for _, tt := range []struct {
		name string
		edit bool
	}{
		{"etc/sysctl.conf", true},
		{"etc/sysctl.d/99-zz-isc2.conf", true},
		{"run/sysctl.d/zz.conf", true},
		{"usr/local/lib/sysctl.d/zz.conf", true},
		{"usr/lib/sysctl.d/zz.conf", true},
		{"lib/sysctl.d/zz.conf", true},
		{"etc/sysctl.d/99-local.conf", false},
		{"usr/lib/sysctl.d/50-default.conf", false},
		{"etc/sysctl.d/zz.conf.bak", false},
	} {
		tree := newTree(t, map[string]string{tt.name: keeps + wins})
		put(t, tree, image.Entry{Name: "etc/sysctl.d/zzz.conf", Mode: fs.ModeSymlink | 0o777, Target: "/dev/null", ModTime: old}, "")
		s := only(t, Linux, "L14")
		before, err := Audit(tree, s, today)
		if err != nil {
			t.Fatal(err)
		}
		if err := Apply(tree, s, epoch); err != nil {
			t.Fatal(err)
		}
		want := keeps + wins
		if tt.edit {
			want = keeps + "#" + wins
		}
		if got := read(t, tree, tt.name); got != want {
			t.Errorf("%s: got\n%s", tt.name, got)
		}
		after, err := Audit(tree, s, today)
		if err != nil || before.Controls[0].Status != Fail || after.Controls[0].Status != Pass {
			t.Errorf("%s: %+v, then %+v, %v", tt.name, before.Controls, after.Controls, err)
		}
		if tt.edit != strings.Contains(fmt.Sprint(before.Controls[0].Findings), tt.name) {
			t.Errorf("%s: findings %+v", tt.name, before.Controls[0].Findings)
		}
	}
}

// TestParameters: with no value does a control hold in name only.
func TestParameters(t *testing.T) {
	p := &Profile{Name: "some", Controls: map[string][]string{Linux: {}}}
	for name, values := range map[string][2][]string{ // good and bad ones
		"ssh_idle_seconds":   {{"1", "3600"}, {"0", "3601", "-1", "+1", "01"}},
		"umask":              {{"022", "027", "077", "777"}, {"000", "002", "020", "700", "755"}},
		"password_length":    {{"8"}, {"0", "7", "99999999999"}},
		"password_max_days":  {{"365"}, {"0", "1000000000"}},
		"password_max_weeks": {{"52"}, {"0", "53"}},
		"max_sessions":       {{"1"}, {"0"}},
		"inactive_days":      {{"35"}, {"0", "366"}},
		"audit_free_percent": {{"20"}, {"0", "200"}},
	} {
		for i, all := range values {
			for _, v := range all {
				if _, err := p.Select(Linux, map[string]string{name: v}, nil); (err != nil) != (i == 1) {
					t.Errorf("%s = %s: %v", name, v, err)
				}
			}
		}
	}
}
