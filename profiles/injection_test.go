//go:build unix

package profiles

import (
	"encoding/xml"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
)

// hostile are values that would break out of a file that does not quote them.
var hostile = []string{
	"x\ny", "x\x00y", "x:y", "x y", "'; touch pwned; '", "$(touch pwned)", "`touch pwned`", "x' enabled='true", "]]><x/>", "--><x/>",
	"x\n[Service]\nExecStartPre=+/bin/sh", "1 keep state\npass in all", "8080/tcp\npass in all", "%i", "$HOME", `a\`, "#",
}

// TestHostileLayout puts each hostile value into every field of a layout: it is refused, or what is
// written says the same as with a harmless one, but for the value.
func TestHostileLayout(t *testing.T) {
	fields := map[string]func(*Layout, string){
		"name":             func(l *Layout, v string) { l.Name = v },
		"user":             func(l *Layout, v string) { l.Users[0].Name = v },
		"comment":          func(l *Layout, v string) { l.Users[0].Comment = v },
		"home":             func(l *Layout, v string) { l.Users[0].Home = "/" + v },
		"shell":            func(l *Layout, v string) { l.Users[0].Shell = "/" + v },
		"member":           func(l *Layout, v string) { l.Groups[0].Members = []string{v} },
		"service":          func(l *Layout, v string) { l.Services[0].Name = v },
		"description":      func(l *Layout, v string) { l.Services[0].Description = v },
		"exec":             func(l *Layout, v string) { l.Services[2].Exec = "/opt/x " + shellQuote(v) },
		"directory":        func(l *Layout, v string) { l.Services[0].Directory = "/" + v },
		"environment":      func(l *Layout, v string) { l.Services[0].Environment = map[string]string{"A": v} },
		"variable":         func(l *Layout, v string) { l.Services[0].Environment = map[string]string{v: "1"} },
		"environment_file": func(l *Layout, v string) { l.Services[0].EnvironmentFile = "/" + v },
		"listen":           func(l *Layout, v string) { l.Services[0].Listen = []string{v} },
		"after":            func(l *Layout, v string) { l.Services[0].After = []string{"svc:/" + v} },
		"health":           func(l *Layout, v string) { l.Services[0].Health = "http://:8080/" + v },
		"privileges":       func(l *Layout, v string) { l.Services[0].Privileges = []string{v} },
		"allow":            func(l *Layout, v string) { l.Network.Allow = []string{v} },
		"outbound":         func(l *Layout, v string) { l.Network.Outbound = []string{v} },
		"publish":          func(l *Layout, v string) { l.Network.Publish = map[string]string{v: "8080/tcp"} },
		"published":        func(l *Layout, v string) { l.Network.Publish = map[string]string{"80/tcp": v} },
		"scratch":          func(l *Layout, v string) { l.Scratch.Path = "/" + v },
		"size":             func(l *Layout, v string) { l.Scratch.Size = v },
		"swap":             func(l *Layout, v string) { l.Swap = &Swap{Size: v} },
		"volume":           func(l *Layout, v string) { l.Volumes[0].Path = "/" + v },
		"mutable":          func(l *Layout, v string) { l.Mutables[0].Paths = []string{"/" + v} },
		"identity":         func(l *Layout, v string) { l.Identity = &Identity{User: v} },
	}
	for _, os := range Platforms {
		base := bare(t, os)
		if os == Linux {
			machine(t, base)
		}
		for name, set := range fields {
			for _, v := range hostile {
				l := webLayout(os)
				set(l, v)
				if errors.Join(append(l.Check(), l.named())...) != nil {
					continue
				}
				root := NewOverlay(base)
				if err := l.Apply(root, epoch); err != nil {
					continue
				}
				wellFormed(t, name+" "+v, l, root)
			}
		}
	}
}

// TestHostileParameters puts each hostile value into every parameter of every control: it is refused, or the
// files have as many lines as with the default, and each differs by the value at most.
func TestHostileParameters(t *testing.T) {
	values := append([]string{
		"ALL:spawn=touch", "ALL:twist", "a;b", "a|b", "a&b", "${x}", "<x/>", `a"b`, "a'b", "a#b", "(a)", "{a}", "-1", "1e3", "0x1", "7777", "a,b", "../../x", "/x,/y",
	}, hostile...)
	for _, system := range Platforms {
		base := violating(t, system)
		var ids []string
		for _, c := range Controls {
			if _, ok := c.On[system]; ok {
				ids = append(ids, c.ID)
			}
		}
		p := &Profile{Name: "all", Controls: map[string][]string{system: ids}}
		apply := func(set map[string]string) (*Overlay, error) {
			s, err := p.Select(system, set, nil)
			if err != nil {
				return nil, err
			}
			over := NewOverlay(base)
			return over, Apply(over, s, epoch)
		}
		plain, err := apply(nil)
		if err != nil {
			t.Fatal(err)
		}
		refused, taken := 0, 0
		for _, c := range Controls {
			for _, q := range c.Parameters {
				if q.Type == Text {
					continue // a text is a file of its own
				}
				for _, v := range values {
					over, err := apply(map[string]string{q.Name: v})
					if err != nil {
						refused++
						continue
					}
					taken++
					sameLines(t, system+" "+q.Name+" "+v, plain, over)
				}
			}
		}
		if refused == 0 || taken == 0 {
			t.Errorf("%s: %d values refused, %d taken", system, refused, taken)
		}
	}
}

// sameLines compares the files that two overlays of a root hold.
func sameLines(t *testing.T, what string, want, got *Overlay) {
	t.Helper()
	for name, l := range got.put {
		w := want.put[name]
		if w == nil || !l.IsRegular() || l.meta || w.meta {
			continue
		}
		a, b := lines(string(w.data)), lines(string(l.data))
		if len(a) != len(b) {
			t.Errorf("%s: %s has %d lines, not %d", what, name, len(b), len(a))
			continue
		}
		changed := 0
		for i := range a {
			if a[i] != b[i] {
				changed++
			}
		}
		if changed > 2 {
			t.Errorf("%s: %s: %d lines changed", what, name, changed)
		}
		if strings.HasSuffix(name, ".xml") {
			if _, err := ParseBundle(l.data); err != nil {
				t.Errorf("%s: %s: %v", what, name, err)
			}
		}
	}
}

// wellFormed checks that every file of a layout has the structure that our writers give it.
func wellFormed(t *testing.T, what string, l *Layout, root Root) {
	t.Helper()
	names, err := root.Glob("**")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range names {
		e, err := root.Stat(name)
		if err != nil {
			t.Fatal(err)
		}
		if !e.IsRegular() {
			continue
		}
		text := read(t, root, e.Name)
		switch {
		case strings.HasSuffix(e.Name, ".xml"):
			var x xmlBundle
			if err := xml.Unmarshal([]byte(text), &x); err != nil || len(x.Services) != 1 {
				t.Errorf("%s: %s: %v", what, e.Name, err)
			}
		case strings.HasSuffix(e.Name, ".service"):
			for _, line := range lines(text) {
				key, _, ok := strings.Cut(line, "=")
				if line != "" && line[0] != '#' && line[0] != '[' && (!ok || !unitKeys[key]) {
					t.Errorf("%s: %s: %q", what, e.Name, line)
				}
			}
		case e.Name == "etc/fstab" || e.Name == "etc/crypttab": // of crypttab, no field is a value of a spec
			for _, line := range lines(text) {
				if n := len(strings.Fields(line)); n != map[string]int{"etc/fstab": 6, "etc/crypttab": 4}[e.Name] {
					t.Errorf("%s: %s: %q", what, e.Name, line)
				}
			}
		case strings.HasPrefix(e.Name, "etc/tmpfiles.d/"):
			for _, line := range lines(text) {
				if !regexp.MustCompile(`^(#.*|d "/([^"\\%]|\\.|%%)*" 1777 root root)$`).MatchString(line) {
					t.Errorf("%s: %s: %q", what, e.Name, line)
				}
			}
		case e.Name == "etc/passwd" || e.Name == "etc/shadow" || e.Name == "etc/group":
			for _, f := range records(text) {
				if len(f) != map[string]int{"etc/passwd": 7, "etc/shadow": 9, "etc/group": 4}[e.Name] {
					t.Errorf("%s: %s: %q", what, e.Name, f)
				}
			}
		}
	}
	files, err := l.NetworkFiles()
	if err != nil {
		t.Errorf("%s: %v", what, err)
	}
	files["nftables.conf of the image"] = ""
	if rules, err := l.nftables(); err != nil {
		t.Errorf("%s: %v", what, err)
	} else {
		files["nftables.conf of the image"] = string(rules)
	}
	for name, text := range files {
		form := dockForms[name]
		if form == nil {
			t.Fatalf("no form of %s", name)
		}
		for _, line := range lines(text) {
			if !form.MatchString(line) {
				t.Errorf("%s: %s: %q", what, name, line)
			}
		}
	}
	conf, err := l.Zonecfg(nil, "illumos")
	if err != nil {
		return // refused
	}
	for _, line := range lines(string(conf)) {
		if !zonecfgForm.MatchString(line) {
			t.Errorf("%s: zonecfg: %q", what, line)
		}
	}
}

// dockForms are the forms of all lines of the files of a dock.
var dockForms = func() map[string]*regexp.Regexp {
	const ports = `(\{ [0-9]+(, [0-9]+)* \})`
	nft := regexp.MustCompile(`^(#.*|flush ruleset|table inet (isc|isc-@NAME@) \{|table inet isc-@NAME@ \{\}|delete table inet isc-@NAME@|\tchain [a-z]+ \{|\t?\}|\t\ttype (filter|nat) hook [a-z]+ priority -?[0-9]+; policy (drop|accept);` +
		`|\t\t(iif lo|oif lo|ct state [a-z,]+) (accept|drop)|\t\t(icmp|icmpv6) type \{ [a-z0-9, -]+ \} accept|\t\tip6 [sd]addr [0-9a-f:/]+ udp sport [0-9]+ udp dport [0-9]+ accept|\t\t(tcp|udp) dport ` + ports + ` ct state new accept` +
		`|\t\t[io]ifname "@PHYSICAL@" ((tcp|udp) dport ` + ports + ` accept|drop)|\t\tiifname "@OUTSIDE@" (tcp|udp) dport [0-9]+ dnat ip to @IP@:[0-9]+|\t\toifname "@OUTSIDE@" ip saddr @IP@ masquerade|\t\t.*ct state new.*accept)$`)
	return map[string]*regexp.Regexp{
		"ipf.conf":                   ipfRule,
		"ipf6.conf":                  regexp.MustCompile(`^(#.*|(block|pass) (in|out) (log |quick )*(all|on lo0 all|proto ipv6-icmp all|proto (tcp|udp) from any to any port = [0-9]+( flags S)? keep state))$`),
		"ipnat.conf":                 regexp.MustCompile(`^(#.*|rdr @OUTSIDE@ 0\.0\.0\.0/0 port [0-9]+ -> @IP@ port [0-9]+ (tcp|udp)|map @OUTSIDE@ @IP@/32 -> 0/32( portmap tcp/udp auto)?)$`),
		"pf.conf":                    regexp.MustCompile(`^(#.*|set [a-z-]+ (on|skip on|.*)lo0|block log all|(block|pass) .*|match .*|rdr .*)$`),
		"vnic.sh":                    regexp.MustCompile(`^(#.*|set -e|(UPLINK|ADDRESS|ROUTER)=.*|\t*((if|if !) )?(dladm|ipadm|routeadm) .*|\t*(fi|;;|esac)|case "\$ROUTER" in|\*:\*\) ;;|\*\))$`),
		"nftables.conf":              nft,
		"nftables.conf of the image": nft,
	}
}()

// zonecfgForm is the form of the lines of a command file of zonecfg(8).
var zonecfgForm = regexp.MustCompile(`^(#.*|create.*|add [a-z-]+|end|verify|commit|(set|add) [a-z-]+[= ].*)?$`)

// ipfRule is the form of all rules that we write for ipf(5).
var ipfRule = regexp.MustCompile(`^(#.*|(block|pass) (in|out) (log |quick )*(all( with opt (lsrr|ssrr))?|on lo0 all|proto (tcp|udp) from any to any port = [0-9]+( flags S)? keep state))$`)

// unitKeys are the keys of the units that we write.
var unitKeys = func() map[string]bool {
	keys := map[string]bool{}
	for _, k := range strings.Fields(`Description Wants Requires After Before Type ExecStart User Group WorkingDirectory Environment
		EnvironmentFile Restart RestartSec TimeoutSec Slice RestrictAddressFamilies ProtectProc CapabilityBoundingSet AmbientCapabilities
		ReadWritePaths MemoryMax MemorySwapMax LimitMEMLOCK TasksMax CPUQuota CPUWeight WantedBy Listen Health RemainAfterExit
		ConditionPathExists DefaultDependencies`) {
		keys[k] = true
	}
	for _, l := range sandbox {
		k, _, _ := strings.Cut(l, "=")
		keys[k] = true
	}
	return keys
}()

// TestEnvironmentFile runs a start method as SMF does, with an environment file whose path a shell
// would like to read otherwise.
func TestEnvironmentFile(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "it's$(touch$IFS$PWNED)&x")
	if err := os.WriteFile(file, []byte("GREETING='a  b'\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	tree := bare(t, Illumos)
	l := &Layout{OS: Illumos, Name: "x", Services: []Service{{Name: "a", Exec: `/bin/sh -c 'printf %s "$GREETING"'`, EnvironmentFile: file}}}
	if err := l.Apply(tree, epoch); err != nil {
		t.Fatal(err)
	}
	b, err := ParseBundle([]byte(read(t, tree, manifestDir+"/a.xml")))
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), "/bin/sh", "-c", "exec "+strings.ReplaceAll(b.Services[0].Start, "%%", "%"))
	cmd.Dir, cmd.Env = dir, append(os.Environ(), "PWNED=pwned")
	out, err := cmd.CombinedOutput()
	if err != nil || string(out) != "a  b" {
		t.Errorf("got %q, %v", out, err)
	}
	if _, err := os.Stat(filepath.Join(dir, "pwned")); err == nil {
		t.Error("the path was run")
	}
}

// TestIdentity runs the method of the identity in a root of its own.
func TestIdentity(t *testing.T) {
	files := map[string]string{}
	uid, gid := os.Getuid(), os.Getgid()
	if uid == 0 {
		uid, gid = 500, 500
	}
	run := func(user, input string, want int) string {
		t.Helper()
		root := t.TempDir()
		all := maps.Clone(files)
		all["etc/passwd"] = fmt.Sprintf("root:x:0:0::/root:/bin/sh\nadmin:x:%d:%d::/home/admin:/bin/sh\nd:x:1:1::/:/bin/sh\n", uid, gid)
		if input != "" {
			all["etc/isc/identity"] = input
		}
		for name, text := range all {
			to := filepath.Join(root, name)
			if err := os.MkdirAll(filepath.Dir(to), 0o755); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(to, []byte(text), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		cmd := exec.CommandContext(t.Context(), "/bin/sh", "method/isc-identity.sh", user)
		cmd.Env = append(os.Environ(), "ISC_ROOT="+root)
		out, _ := cmd.CombinedOutput()
		if got := cmd.ProcessState.ExitCode(); got != want {
			t.Errorf("%q: status %d, want %d\n%s", input, got, want, out)
		}
		return root
	}
	got := func(root, name string) string {
		data, err := os.ReadFile(filepath.Join(root, name))
		if err != nil {
			return ""
		}
		return string(data)
	}
	root := run("admin", "hostname=web01\nauthorized_key=ssh-ed25519 AAAA a\nauthorized_key=ssh-ed25519 BBBB $(b)\n", 0)
	if got(root, "etc/hostname") != "web01\n" || got(root, "home/admin/.ssh/authorized_keys") != "ssh-ed25519 AAAA a\nssh-ed25519 BBBB $(b)\n" {
		t.Errorf("hostname %q, keys %q", got(root, "etc/hostname"), got(root, "home/admin/.ssh/authorized_keys"))
	}
	if st, err := os.Stat(filepath.Join(root, "home/admin/.ssh/authorized_keys")); err != nil || st.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v", st, err)
	}
	// sshd reads the keys as the account.
	for name, mode := range map[string]fs.FileMode{"home": 0o755, "home/admin": 0o750, "home/admin/.ssh": 0o700, "home/admin/.ssh/authorized_keys": 0o600} {
		st, err := os.Stat(filepath.Join(root, name))
		if err != nil {
			t.Fatal(err)
		}
		if own := st.Sys().(*syscall.Stat_t).Uid == uint32(uid); st.Mode().Perm() != mode || own == (name == "home" && uid == 500) {
			t.Errorf("%s: %v, of the account: %v", name, st.Mode(), own)
		}
	}
	if _, err := os.Stat(filepath.Join(root, "etc/isc/identified")); err != nil {
		t.Error(err)
	}
	for _, bad := range []string{"hostname=a b\n", "hostname=$(reboot)\n", "hostname=-n\n", "hostname=../../x\n"} {
		if root := run("admin", bad, 96); got(root, "etc/hostname") != "" {
			t.Errorf("%q was taken", bad)
		}
	}
	// What cannot be used keeps nothing else from being done, and is tried again at the next start.
	for user, input := range map[string]string{"d": "hostname=web01\nauthorized_key=x\n", "admin": "hostname=a b\nauthorized_key=x\n"} {
		root := run(user, input, 96)
		if got(root, "etc/hostname")+got(root, "home/admin/.ssh/authorized_keys") == "" || got(root, "etc/isc/identified") != "" {
			t.Errorf("%s: hostname %q, keys %q", user, got(root, "etc/hostname"), got(root, "home/admin/.ssh/authorized_keys"))
		}
	}
	run("-", "", 0)
	// A system credential counts if the image has no file.
	files = map[string]string{"run/credentials/@system/isc.identity": "hostname=web02\n"}
	if root := run("-", "", 0); got(root, "etc/hostname") != "web02\n" {
		t.Errorf("hostname %q, not that of the credential", got(root, "etc/hostname"))
	}
	if root := run("-", "hostname=web01\n", 0); got(root, "etc/hostname") != "web01\n" {
		t.Errorf("hostname %q, not that of the file", got(root, "etc/hostname"))
	}
}
