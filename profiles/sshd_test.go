package profiles

import (
	"slices"
	"strings"
	"testing"
)

// TestOverridden: what a Match says for some connections is found, also in what is included, and stays.
func TestOverridden(t *testing.T) {
	for _, tt := range []struct {
		name  string
		files map[string]string
		path  string
		want  string // in the one finding, or empty: there is none
	}{
		{"for all", map[string]string{sshdConfig: "PermitRootLogin no\nMatch all\n\tPermitRootLogin yes\n"}, sshdConfig, `line 3: PermitRootLogin "yes" holds below "Match all", in place of "no"`},
		{"same value", map[string]string{sshdConfig: "PermitRootLogin no\nMatch User x\npermitrootlogin no\n"}, "", ""},
		{"another keyword", map[string]string{sshdConfig: "PermitRootLogin no\nMatch User x\nMaxAuthTries 9\n"}, "", ""},
		{"included", map[string]string{
			sshdConfig: "PermitRootLogin no\nInclude sshd_config.d/*.conf\nInclude sshd_config\n", "etc/ssh/sshd_config.d/a.conf": "Match User x\n PermitRootLogin yes\n",
		}, "etc/ssh/sshd_config.d/a.conf", "line 2"},
		{"a Match ends with its file", map[string]string{
			sshdConfig: "PermitRootLogin no\nInclude sshd_config.d/*.conf\n", "etc/ssh/sshd_config.d/a.conf": "Match User x\n", "etc/ssh/sshd_config.d/b.conf": "PermitRootLogin yes\n",
		}, "", ""},
		{"included below a Match", map[string]string{
			sshdConfig: "PermitRootLogin no\nInclude /etc/x\nMatch User x\nInclude /etc/x [\n", "etc/x": "PermitRootLogin=yes\n",
		}, "etc/x", "line 1"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			tree := newTree(t, tt.files)
			before := dump(t, tree)
			r, err := Audit(tree, only(t, Linux, "S05"), today)
			if err != nil {
				t.Fatal(err)
			}
			switch f := r.Controls[0].Findings; {
			case tt.want == "" && len(f) > 0, tt.want != "" && (len(f) != 1 || f[0].Path != tt.path || !strings.Contains(f[0].Problem, tt.want)):
				t.Errorf("got %+v, want %s %q", f, tt.path, tt.want)
			}
			if err := Apply(tree, only(t, Linux, "S05"), epoch); err != nil || dump(t, tree) != before {
				t.Errorf("the tree was changed, %v", err)
			}
		})
	}
}

func TestSSHPorts(t *testing.T) {
	for _, tt := range []struct{ config, included, want string }{
		{"", "", "22/tcp"},
		{"Port 22\nInclude x\n", "Port 2222\nPort 22\n", "22/tcp 2222/tcp"},
		{"Include x\n", "Port=2222\n", "2222/tcp"},
		{"Port 22\nMatch all\nPort 23\n", "", "22/tcp"},
		{"ListenAddress 0.0.0.0:2222\nListenAddress [::]:2223\n", "", "2222/tcp 2223/tcp"},
		{"ListenAddress 10.0.0.1\nListenAddress fe80::1\nListenAddress 10.0.0.2:24\nPort 2222\n", "", "2222/tcp 24/tcp"},
		{"ListenAddress 127.0.0.1:2222\nListenAddress ::1\nListenAddress localhost\n", "", ""},
		{"Port ssh-alt\n", "", "2200/tcp"},
		{"Port 99999\nPort 0\n", "", ""},
	} {
		got, err := sshPorts(newTree(t, map[string]string{sshdConfig: tt.config, "etc/ssh/x": tt.included, "etc/services": "ssh-alt 2200/tcp\n"}))
		if err != nil || strings.Join(got, " ") != tt.want {
			t.Errorf("%q, %q: got %q, %v, want %q", tt.config, tt.included, got, err, tt.want)
		}
	}
}

// TestSSHSocket: the firewall lets in what the ssh server is started by, or nobody gets in any more.
func TestSSHSocket(t *testing.T) {
	files := map[string]string{
		"usr/lib/systemd/systemd":                            "\x7fELF",
		"usr/sbin/nft":                                       "\x7fELF",
		"usr/lib/systemd/system/nftables.service":            "[Service]\n",
		"usr/lib/systemd/system/ssh.socket":                  "[Socket]\nListenStream=22\n",
		"etc/systemd/system/sockets.target.wants/":           "",
		"etc/systemd/system/sockets.target.wants/ssh.socket": "",
		"usr/lib/systemd/system/ssh.socket.d/a.conf":         "[Socket]\nListenStream=24\n",
		"etc/systemd/system/ssh.socket.d/a.conf":             "[Socket]\nListenStream=\nListenStream=2222\n",
		"etc/systemd/system/ssh.socket.d/b.conf":             "[Socket]\nListenStream=0.0.0.0:2223\n",
		sshdConfig:                                           "Port 2200\n",
	}
	ports := func() []string {
		t.Helper()
		all, err := BootServices(newTree(t, files), Linux)
		if err != nil || len(all) != 1 {
			t.Fatalf("%v, %v", all, err)
		}
		return all[0].Ports
	}
	if got := ports(); !slices.Equal(got, []string{"2222/tcp", "2223/tcp"}) {
		t.Errorf("got %q", got)
	}
	tree := newTree(t, files)
	if err := Apply(tree, only(t, Linux, "L35"), epoch); err != nil {
		t.Fatal(err)
	}
	if rules := read(t, tree, "etc/nftables.conf"); !strings.Contains(rules, "2222") || !strings.Contains(rules, "2223") {
		t.Errorf("rules %s", rules)
	}
	files["usr/lib/systemd/system-generators/sshd-socket-generator"] = "\x7fELF"
	if got := ports(); !slices.Equal(got, []string{"2200/tcp"}) {
		t.Errorf("with a generator: %q", got)
	}
}
