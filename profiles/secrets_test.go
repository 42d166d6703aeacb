package profiles

import (
	"strings"
	"testing"

	"github.com/goldenisc/packer-plugin-isc/image"
)

const pemKey = "-----BEGIN PRIVATE KEY-----\nxxxx\n"

// TestSecrets: what is searched, and what is not.
func TestSecrets(t *testing.T) {
	tree := newTree(t, map[string]string{
		"etc/passwd": "root:x:0:0::/root:/bin/sh\n",
		"etc/shadow": "root:!$6$s$hash:1::::::\na:*LK*$5$s$hash:1::::::\nb:!!:1::::::\nc:*LK*:1::::::\nd:NP:1::::::\ne:*:1::::::\nf:!ab01FAX.bQRSU:1::::::\n" +
			"g:*NP*:1::::::\nh:$5$kr1VgdIt$:1::::::\n",
		"host.key":                                 pemKey,
		"data/id_ed25519":                          pemKey,
		"usr/share/app/tls.key":                    pemKey,
		"usr/share/app/bundle.pem":                 strings.Repeat("#\n", 35<<10) + pemKey,
		"usr/share/app/store.p12":                  "\x30\x82\x01\x02",
		"usr/share/app/store":                      pemKey, // of a package, and named like nothing in particular
		"usr/lib/x/tests/tls.key":                  pemKey,
		"usr/share/app/public.pem":                 "-----BEGIN CERTIFICATE-----\nxxxx\n",
		"srv/app/config":                           pemKey + strings.Repeat("#\n", 64<<10),
		"app/tls.conf":                             pemKey,
		"app/static/login.js":                      pemKey,
		"app/tests/login.js":                       pemKey,
		"usr/local/share/allowed/private/tls.conf": pemKey,
	})
	p := &Profile{Name: "some", Controls: map[string][]string{Linux: {"X02"}}}
	s, err := p.Select(Linux, map[string]string{"secrets_allow": "usr/local/share/allowed/**"}, nil)
	if err != nil {
		t.Fatal(err)
	}
	s = s.For(Asked{Files: map[string]string{"app/tls.conf": `file "/app/tls.conf"`}, Trees: map[string]bool{"app/static/login.js": true}})
	for name, root := range map[string]Root{"tree": tree, "overlay": NewOverlay(tree), "plain": bareRoot{tree}} {
		r, err := Audit(root, s, today)
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, f := range r.Controls[0].Findings {
			got = append(got, f.Path+" "+f.Problem)
		}
		want := `app/static/login.js holds a private key in line 1
app/tls.conf holds a private key in line 1
data/id_ed25519 holds a private key in line 1
host.key holds a private key in line 1
srv/app/config holds a private key in line 1
usr/share/app/bundle.pem holds a private key in line 35841
usr/share/app/store.p12 is a store of PKCS #12, which are for private keys
usr/share/app/tls.key holds a private key in line 1
etc/shadow account "root" is locked, but still has a password hash
etc/shadow account "a" is locked, but still has a password hash
etc/shadow account "f" is locked, but still has a password hash
etc/shadow account "h" has a password that everybody knows`
		if strings.Join(got, "\n") != want {
			t.Errorf("%s: got\n%s\nwant\n%s", name, strings.Join(got, "\n"), want)
		}
	}
	if err := Apply(tree, only(t, Linux, "E21", "E22"), epoch); err != nil {
		t.Fatal(err)
	}
	if shadow := read(t, tree, "etc/shadow"); strings.Contains(shadow, "hash") || strings.Contains(shadow, "FAX") {
		t.Errorf("hashes of locked accounts stay: %s", shadow)
	}
}

// TestSealing: what is packaged stays, and what is allowed.
func TestSealing(t *testing.T) {
	for os, files := range map[string][3]string{
		Illumos: {
			"etc/dhcp/inittab etc/dhcp/inittab6 var/mail/:saved/x etc/nodename",
			"etc/dhcp/net0.dhc etc/dhcp/net0.dh6 var/mail/root", "var/adm/messages",
		},
		Linux: {
			"etc/resolv.conf etc/hosts", "etc/hostid etc/krb5.keytab var/lib/urandom/random-seed var/lib/random-seed boot/loader/random-seed " +
				"var/lib/systemd/random-seed etc/NetworkManager/system-connections/office.nmconnection", "etc/hostname etc/machine-id",
		},
	} {
		all := map[string]string{}
		for _, names := range files {
			for _, n := range strings.Fields(names) {
				all[n] = "x\n"
			}
		}
		tree := newTree(t, all)
		p := &Profile{Name: "some", Controls: map[string][]string{os: {"X01"}}}
		s, err := p.Select(os, map[string]string{"residue_allow": "etc/nodename"}, nil)
		if err != nil {
			t.Fatal(err)
		}
		if err := Apply(tree, s, epoch); err != nil {
			t.Fatal(err)
		}
		for i, names := range files {
			for _, n := range strings.Fields(names) {
				e, err := tree.Stat(n)
				if there := err == nil; there != (i != 1) || there && (e.Size == 0) != (i == 2) {
					t.Errorf("%s: %+v, %v", n, e, err)
				}
			}
		}
	}
}

// TestAsked: a control that takes back what a block of the spec is for says so, and changes nothing.
func TestAsked(t *testing.T) {
	for _, tt := range []struct {
		control, file, want string
		user                User
	}{
		{control: "E24", file: "root/.forward", want: `control E24 removes "root/.forward", which file "/x" lays`},
		{control: "X01", file: "etc/hostname", want: `control X01 empties "etc/hostname", which file "/x" lays`},
		{control: "X01", file: "etc/krb5.keytab", want: `control X01 removes "etc/krb5.keytab"`},
		{control: "S12", file: "etc/ssh/ssh_host_x_key", want: `control S12 removes`},
		{control: "E22", user: User{Name: "ops", UID: 500, Shell: "/bin/sh"}, want: `control E22 gives user "ops" of the spec, whose number is 500, the shell "/usr/sbin/nologin"`},
		{control: "E22", user: User{Name: "gone", UID: 501}, want: `control E22 removes user "gone" of the spec`},
		{control: "E22", user: User{Name: "smith", UID: 1000, Shell: "/bin/sh"}},
		{control: "S05", file: "etc/ssh/sshd_config"},
	} {
		tree := newTree(t, map[string]string{
			"etc/passwd": "root:x:0:0::/root:/bin/sh\nops:x:500:500::/:/bin/sh\ngone:x:501:500::/:/bin/false\nsmith:x:1000:1000::/:/bin/sh\n",
			"etc/shadow": "root:*:::::::\n", "etc/ssh/sshd_config": "Port 22\n",
		})
		asked := Asked{Users: []User{tt.user}}
		if tt.file != "" {
			put(t, tree, image.Entry{Name: tt.file, Mode: 0o644, ModTime: old}, "x\n")
			asked = Asked{Files: map[string]string{tt.file: `file "/x"`}}
		}
		p := &Profile{Name: "some", Controls: map[string][]string{Linux: {tt.control}}}
		set := map[string]string{"accounts_remove": ""}
		if tt.user.Name == "gone" {
			set["accounts_remove"] = "gone"
		}
		s, err := p.Select(Linux, set, nil)
		if err != nil {
			t.Fatal(err)
		}
		before := dump(t, tree)
		err = Apply(tree, s.For(asked), epoch)
		if tt.want == "" && err != nil || tt.want != "" && (err == nil || !strings.Contains(err.Error(), tt.want) || dump(t, tree) != before) {
			t.Errorf("%s: got %v, want %q, and the same tree", tt.control, err, tt.want)
		}
	}
}
