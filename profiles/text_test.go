package profiles

import (
	"slices"
	"strings"
	"testing"

	"github.com/goldenisc/packer-plugin-isc/image"
)

func TestSetters(t *testing.T) {
	for _, tt := range []struct {
		name       string
		set        setter
		text       string
		key, value string
		want       string
	}{
		{"commented default is replaced in place", setAssignment, "# HISTORY is a number\n#HISTORY=0\nX=1\n", "HISTORY", "5", "# HISTORY is a number\nHISTORY=5\nX=1\n"},
		{"prose is no default", setAssignment, "# UMASK sets the mask\n", "UMASK", "077", "# UMASK sets the mask\nUMASK=077\n"},
		{"a set line goes before a commented one", setAssignment, "#K=1\nK=2\n", "K", "3", "#K=1\nK=3\n"},
		{"every set line, for readers of the first and of the last", setAssignment, "K=1\nA=0\nK=2\n", "K", "3", "K=3\nA=0\nK=3\n"},
		{"same value, other blanks", setAssignment, "K = 3\n", "K", "3", "K = 3\n"},
		{"auditd wants blanks", setAudit, "k=3\nlog_group = adm\n", "log_group", "root", "k=3\nlog_group = root\n"},
		{"a line without them is written anew", setAudit, "k=3\n", "k", "3", "k = 3\n"},
		{"with other blanks it stays", setAudit, " k  =  3\n", "k", "3", " k  =  3\n"},
		{"none is set yet", setAudit, "#k = 1\n", "k", "3", "k = 3\n"},
		{"empty value", setAssignment, "K=\n", "K", "3", "K=3\n"},
		{"longer key", setAssignment, "XK=1\nKX=1\n", "K", "3", "XK=1\nKX=1\nK=3\n"},
		{"dots are no wildcards", setAssignment, "net-ipv4=1\n", "net.ipv4", "3", "net-ipv4=1\nnet.ipv4=3\n"},
		{"empty file", setAssignment, "", "K", "3", "K=3\n"},
		{"no end of line", setAssignment, "A=1", "K", "3", "A=1\nK=3\n"},
		{"no end of line, nothing to do", setAssignment, "K=3", "K", "3", "K=3"},

		{"definition", setDefinition, "UMASK\t\t022\n", "UMASK", "077", "UMASK\t077\n"},
		{"definition kept", setDefinition, "UMASK\t\t077\n", "UMASK", "077", "UMASK\t\t077\n"},
		{"commented definition", setDefinition, "#UMASK 022\n", "UMASK", "077", "UMASK\t077\n"},

		{"keyword in place", setKeyword, "Port 22\nX11Forwarding yes\nA b\n", "X11Forwarding", "no", "Port 22\nX11Forwarding no\nA b\n"},
		{"keywords know no case", setKeyword, "x11forwarding no\n", "X11Forwarding", "no", "x11forwarding no\n"},
		{"tab, equals sign, quotes", setKeyword, "MaxAuthTries\t3\n", "MaxAuthTries", "3", "MaxAuthTries\t3\n"},
		{"equals sign", setKeyword, "MaxAuthTries = 3\n", "MaxAuthTries", "3", "MaxAuthTries = 3\n"},
		{"quotes", setKeyword, "Banner \"/etc/issue\"\n", "Banner", "/etc/issue", "Banner \"/etc/issue\"\n"},
		{"first value counts", setKeyword, "A 1\nA 2\n", "A", "2", "A 2\nA 2\n"},
		{"commented keyword", setKeyword, "#PermitRootLogin prohibit-password\n", "PermitRootLogin", "no", "PermitRootLogin no\n"},
		{"prose about a keyword", setKeyword, "# Banner to be printed\n#Banner none at all\n", "Banner", "/etc/issue", "# Banner to be printed\n#Banner none at all\nBanner /etc/issue\n"},
		{"before the first Match", setKeyword, "A 1\nMatch User x\n  PermitRootLogin yes\n", "PermitRootLogin", "no", "A 1\nPermitRootLogin no\nMatch User x\n  PermitRootLogin yes\n"},
		{"commented after Match", setKeyword, "Match all\n#A 1\n", "A", "2", "A 2\nMatch all\n#A 1\n"},
		{"before Include, which would win", setKeyword, "Include /etc/ssh/sshd_config.d/*.conf\nA no\n", "A", "no", "A no\nInclude /etc/ssh/sshd_config.d/*.conf\nA no\n"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got := tt.set(tt.text, tt.key, tt.value)
			if got != tt.want {
				t.Errorf("got %q, want %q", got, tt.want)
			}
			if again := tt.set(got, tt.key, tt.value); again != got {
				t.Errorf("again: %q", again)
			}
		})
	}
}

func TestRecords(t *testing.T) {
	const text = "root:x:0:\n# comment\nbin:x:2:\n"
	if got, want := setRecord(text, []string{"bin", "x", "3", ""}), "root:x:0:\n# comment\nbin:x:3:\n"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	if got, want := setRecord(text, []string{"b", "x", "3", ""}), text+"b:x:3:\n"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	if got := setRecord(text, []string{"bin", "x", "2", ""}); got != text {
		t.Errorf("got %q", got)
	}
}

func TestFstab(t *testing.T) {
	const text = "# fstab\n/dev/vda1  /  ext4  defaults 0 1\n"
	got := setFstab(text, 1, "tmpfs", "/scratch", "tmpfs", "size=1", "0", "0")
	if want := text + "tmpfs /scratch tmpfs size=1 0 0\n"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	if again := setFstab(got, 1, "tmpfs", "/scratch", "tmpfs", "size=1", "0", "0"); again != got {
		t.Errorf("again: %q", again)
	}
	if same := setFstab(text, 1, "/dev/vda1", "/", "ext4", "defaults", "0", "1"); same != text {
		t.Errorf("blanks changed: %q", same)
	}
}

// FuzzSetters: whatever the text, setting twice is setting once, and what is set is found.
func FuzzSetters(f *testing.F) {
	f.Add("K=1\n#K=2\n", "K", "3")
	f.Add("Match all\nK 1", "K", "no")
	f.Add("k \"3", "K", "3")
	f.Add("[s]\nK=1\n[t]\nK=2", "K", "3")
	f.Add("root::::a=b\\;c;K=1\ndefault:3::::x;K=(1,2)\n", "K", "3")
	f.Add("auth x nullok nullok_secure\n# auth required pam_wheel.so\n/dev/x - - swap - no -\n", "K", "3")
	f.Fuzz(func(t *testing.T, text, key, value string) {
		if !envName(key) || len(key) > 30 || ParameterType(List).check(value) != nil || value == "" || value[0] == '=' || value[0] == '"' {
			t.Skip()
		}
		for name, set := range map[string]setter{
			"assignment": setAssignment, "definition": setDefinition, "keyword": setKeyword, "line": setLine, "command": setCommand,
			"option": setOption("s"), "access": setAccess,
			"attribute": func(text, key, value string) string { return setAttr(text, "root", key, value) },
			"project":   func(text, key, value string) string { return setProject(text, "default", key, value) },
			"dropped":   func(text, key, _ string) string { return dropAttr(text, key) },
			"null":      func(text, _, _ string) string { return noNull(text) },
			"wheel":     func(text, _, _ string) string { text, _ = wheel(text); return text },
			"sysctl":    noAssignment,
			"swap":      func(text, _, value string) string { return noPlainSwap(text, 2, value) },
		} {
			if strings.ContainsAny(value, ":;\\") && (name == "attribute" || name == "project") {
				continue // they part attributes; no control has such a value
			}
			once := set(text, key, value)
			if twice := set(once, key, value); twice != once {
				t.Errorf("%s: once %q, twice %q", name, once, twice)
			}
		}
		once := setRecord(text, []string{key, value})
		if twice := setRecord(once, []string{key, value}); twice != once {
			t.Errorf("record: once %q, twice %q", once, twice)
		}
	})
}

func TestWords(t *testing.T) {
	for in, want := range map[string][]string{
		`/opt/web/bin/webd -listen :8080`: {"/opt/web/bin/webd", "-listen", ":8080"},
		`  /a  "b c" 'd "e' f\ g ""`:      {"/a", "b c", `d "e`, "f g", ""},
		`/a "\$x \"y\" \\"`:               {"/a", `\$x "y" \`},
		`/a $HOME;x|y`:                    {"/a", "$HOME;x|y"},
		``:                                nil,
	} {
		got, err := words(in)
		if err != nil || len(got) != len(want) {
			t.Errorf("%s: %q, %v; want %q", in, got, err, want)
			continue
		}
		for i := range want {
			if got[i] != want[i] {
				t.Errorf("%s: %q, want %q", in, got, want)
			}
		}
	}
	for _, in := range []string{`/a "b`, `/a 'b`, `/a \`, "/a\nb", "/a \x00"} {
		if got, err := words(in); err == nil {
			t.Errorf("%q: %q, want an error", in, got)
		}
	}
}

func TestParse(t *testing.T) {
	for in, want := range map[string]int64{"4096": 4096, "1K": 1024, "512MiB": 512 << 20, "2GiB": 2 << 30, "2G": 2 << 30, "1TiB": 1 << 40} {
		if got, err := ParseSize(in); err != nil || got != want {
			t.Errorf("%q: %d, %v", in, got, err)
		}
	}
	for _, in := range []string{"", "0", "-1", "+1G", "1.5G", "G", "1 G", "1GiBB", "9999999999T", "1P", "1iB"} {
		if got, err := ParseSize(in); err == nil {
			t.Errorf("%q: %d, want an error", in, got)
		}
	}
	if p, err := ParsePort("53/udp"); err != nil || p != (Port{53, "udp"}) || p.String() != "53/udp" {
		t.Errorf("53/udp: %v, %v", p, err)
	}
	for _, in := range []string{"", "80", "0/tcp", "65536/tcp", "080/tcp", "80/sctp", "-1/tcp", "80/tcp/x"} {
		if got, err := ParsePort(in); err == nil {
			t.Errorf("%q: %v, want an error", in, got)
		}
	}
}

// TestSessions: each account has a bound of its own.
func TestSessions(t *testing.T) {
	tree := newTree(t, map[string]string{
		"etc/passwd":  "root:x:0:0::/root:/bin/sh\nlp:x:71:8::/:/bin/sh\nsmith:x:100:1::/:/bin/sh\njones:x:101:1::/:\nwebd:x:801:1::/:/usr/bin/false\nnobody4:x:65534:1::/:/bin/sh\n",
		"etc/project": "# projects\nsystem:0::::\ndefault:3::::\nbuild:100::::\nuser.smith:102:::x:project.max-lwps=(privileged,9,deny);project.max-tasks=(privileged,99,deny)\n",
	})
	if err := Apply(tree, only(t, Illumos, "E30"), epoch); err != nil {
		t.Fatal(err)
	}
	want := "# projects\nsystem:0::::\ndefault:3::::\nbuild:100::::\nuser.smith:102:::x:project.max-lwps=(privileged,9,deny);project.max-tasks=(privileged,10,deny)\n" +
		"user.jones:101::::project.max-tasks=(privileged,10,deny)\n"
	if got := read(t, tree, "etc/project"); got != want {
		t.Errorf("got %s\nwant %s", got, want)
	}
}

// TestPAM: what Debian's login and sessions read has its line, once, and where no jump is changed.
func TestPAM(t *testing.T) {
	const auth = "auth optional pam_faildelay.so delay=4000000\n"
	const session = "session optional pam_umask.so umask=077\n"
	tree := newTree(t, map[string]string{
		"etc/login.defs":                          "UMASK 022\n",
		"etc/pam.d/login":                         "#%PAM-1.0\n\nauth requisite pam_securetty.so\n",
		"etc/pam.d/common-session":                "session [default=1] pam_permit.so\nsession required pam_unix.so",
		"etc/pam.d/common-session-noninteractive": "session [success=ok default=ignore] /lib/security/pam_umask.so usergroups\nsession required pam_unix.so\n",
	})
	if err := Apply(tree, only(t, Linux, "E15", "E16"), epoch); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{
		"etc/pam.d/login":                         "#%PAM-1.0\n\n" + auth + "auth requisite pam_securetty.so\n",
		"etc/pam.d/common-session":                "session [default=1] pam_permit.so\nsession required pam_unix.so\n" + session,
		"etc/pam.d/common-session-noninteractive": session + "session required pam_unix.so\n",
	} {
		if got := read(t, tree, name); got != want {
			t.Errorf("%s: got %q, want %q", name, got, want)
		}
	}
}

// TestAges: what is older than the rules is found, or put right where that locks nobody out.
func TestAges(t *testing.T) {
	files := map[string]string{
		"etc/passwd":                 "root:x:0:0::/root:/bin/sh\na:x:1000:1::/:/bin/sh\nb:x:1001:1::/:/bin/sh\nc:x:1002:1::/:/bin/sh\nd:x:1003:1::/:/bin/sh\n",
		"etc/shadow":                 "root:!:1:0:99999:7:::\na:$6$x:1:0:99999:7:::\nb:!:1:0:99999:7:::\nc:$6$x:1:3:30:7:::\nd:$6$x:1:::7:::\n",
		"etc/login.defs":             "",
		"etc/security/faillock.conf": "",
		"etc/pam.d/common-auth":      "# auth required pam_faillock.so\nauth required pam_unix.so\n",
	}
	tree, s := newTree(t, files), only(t, Linux, "E01", "E02", "E14")
	if err := Apply(tree, s, epoch); err != nil {
		t.Fatal(err)
	}
	if got, want := read(t, tree, "etc/shadow"), "root:!:1:0:99999:7:::\na:$6$x:1:1:99999:7:::\nb:!:1:0:99999:7:::\nc:$6$x:1:3:30:7:::\nd:$6$x:1:1::7:::\n"; got != want {
		t.Errorf("got %s", got)
	}
	findings := func(tree Root) (got []string) {
		r, err := Audit(tree, s, today)
		if err != nil {
			t.Fatal(err)
		}
		for _, c := range r.Controls {
			for _, f := range c.Findings {
				got = append(got, c.ID+" "+f.Problem)
			}
		}
		return got
	}
	want := []string{
		`E01 the password of "a" does not end after 60 days: chage -M 60 a`, `E01 the password of "d" does not end after 60 days: chage -M 60 d`,
		`E14 no stack has pam_faillock, so that etc/security/faillock.conf counts nothing, and "d" logs in by password`,
	}
	if got := findings(tree); !slices.Equal(got, want) {
		t.Errorf("got %q\nwant %q", got, want)
	}
	put(t, tree, image.Entry{Name: "etc/shadow", Mode: 0o600, ModTime: old}, "root:!:1:0:99999:7:::\n")
	if got := findings(tree); got != nil {
		t.Errorf("where nobody has a password: %q", got)
	}
}

// TestNIS: what is filled from elsewhere is no account to edit.
func TestNIS(t *testing.T) {
	files := map[string]string{"etc/passwd": "root:x:0:0::/root:/bin/sh\n+::0:0:::\n-x::::::\n", "etc/shadow": "root:!:1:0:60:7:::\n+::::::::\n"}
	tree := newTree(t, files)
	if err := Apply(tree, only(t, Linux, "E12", "E22", "L39"), epoch); err != nil {
		t.Fatal(err)
	}
	for name, want := range files {
		if got := read(t, tree, name); got != want {
			t.Errorf("%s: got %q", name, got)
		}
	}
}
