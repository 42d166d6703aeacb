package profiles

import (
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/goldenisc/packer-plugin-isc/image"
)

// manifest writes a small manifest.
func manifest(service, inner string) string {
	return smfDocument + "<service_bundle type='manifest' name='t'><service name='" + service + "' type='service' version='1'>" + inner + "</service></service_bundle>"
}

func TestParseBundle(t *testing.T) {
	for _, tt := range []struct{ name, text, want string }{
		{"empty", "", "is empty"},
		{"no type", "<service_bundle type='manifest' name='x'/>", "no document type"},
		{"other type", "<!DOCTYPE html SYSTEM 'service_bundle.dtd.1'><service_bundle/>", "no document type"},
		{"other root", smfDocument + "<manifest/>", "no document type"},
		{"cut off", smfDocument + "<service_bundle type='manifest' name='x'><service name='a'>", "unexpected EOF"},
		{"binary", "\x7fELF\x01\x02", ""},
		{"large", strings.Repeat(" ", maxText+1), "no manifest is that large"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if b, err := ParseBundle([]byte(tt.text)); err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got %+v, %v; want %q", b, err, tt.want)
			}
		})
	}
	b, err := ParseBundle([]byte(manifest("network/x", `<create_default_instance enabled='true'/>
<restarter><service_fmri value='svc:/network/inetd:default'/></restarter>
<exec_method type='method' name='inetd_start' exec='/usr/sbin/in.x' timeout_seconds='0'><method_context><method_credential user='x'/></method_context></exec_method>
<property_group name='inetd' type='framework'><propval name='name' type='astring' value='x'/>
<property name='proto' type='astring'><astring_list><value_node value='tcp'/><value_node value='udp6'/></astring_list></property></property_group>
<instance name='other' enabled='false'/>`)))
	if err != nil {
		t.Fatal(err)
	}
	s := b.Services[0]
	if s.Name != "network/x" || s.User != "x" || s.Start != "/usr/sbin/in.x" || s.Restarter != "svc:/network/inetd:default" || len(s.Instances) != 2 ||
		s.Instances[0].Enabled != "true" || s.Instances[1].Name != "other" || s.Properties[1].Value != "tcp udp6" {
		t.Errorf("got %+v", s)
	}
}

// system returns a root with the manifests of a system.
func system(t *testing.T, more map[string]string) *image.Tree {
	files := map[string]string{
		"lib/svc/manifest/system/restarter.xml":      manifest("system/svc/restarter", "<create_default_instance enabled='true'/>"),
		"lib/svc/manifest/milestone/multi-user.xml":  manifest("milestone/multi-user", "<create_default_instance enabled='true'/>"),
		"lib/svc/manifest/network/ssh.xml":           manifest("network/ssh", "<create_default_instance enabled='false'/>"),
		"lib/svc/manifest/network/rpc/bind.xml":      manifest("network/rpc/bind", "<create_default_instance enabled='true'/><property_group name='config' type='application'><propval name='local_only' type='boolean' value='true'/></property_group>"),
		"lib/svc/manifest/network/dns/multicast.xml": manifest("network/dns/multicast", "<create_default_instance enabled='true'/>"),
		"lib/svc/manifest/network/talk.xml":          manifest("network/talk", "<create_default_instance enabled='true'/><restarter><service_fmri value='svc:/network/inetd:default'/></restarter><property_group name='inetd' type='framework'><propval name='name' type='astring' value='talk'/><propval name='proto' type='astring' value='udp'/></property_group>"),
		"lib/svc/manifest/system/broken.xml":         "not XML",
		"etc/inet/services":                          "talk\t517/udp\n",
		"etc/ssh/sshd_config":                        "Port 2222\n",
		"etc/svc/profile/generic_limited_net.xml":    smfDocument + "<service_bundle type='profile' name='generic' xmlns:xi='http://www.w3.org/2001/XInclude'><xi:include href='file:/etc/svc/profile/more.xml'/><service name='network/ssh' version='1' type='service'><instance name='default' enabled='true'/></service></service_bundle>",
		"etc/svc/profile/more.xml":                   smfDocument + "<service_bundle type='profile' name='more'><service name='network/dns/multicast' version='1' type='service'><instance name='default' enabled='false'/></service><service name='network/absent' version='1' type='service'><instance name='default' enabled='true'/></service></service_bundle>",
	}
	for name, text := range more {
		files[name] = text
	}
	tree := newTree(t, files)
	put(t, tree, image.Entry{Name: "etc/svc/profile/generic.xml", Mode: fs.ModeSymlink | 0o777, Target: "generic_limited_net.xml", ModTime: old}, "")
	return tree
}

func TestBootServices(t *testing.T) {
	all, err := BootServices(system(t, nil), Illumos)
	if err != nil {
		t.Fatal(err)
	}
	got := ""
	for _, s := range all {
		got += s.ID + " " + strings.Join(s.Ports, ",") + "\n"
	}
	if want := "svc:/milestone/multi-user:default \nsvc:/network/rpc/bind:default \nsvc:/network/ssh:default 2222/tcp\n" +
		"svc:/network/talk:default 517/udp\nsvc:/system/svc/restarter:default \n"; got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
	tree := newTree(t, map[string]string{
		"usr/lib/systemd/system/web.socket":             "[Socket]\nListenStream=0.0.0.0:8080\nListenStream=127.0.0.1:9\nListenStream=/run/x\nListenDatagram=5353\n",
		"usr/lib/systemd/system/ssh.service":            "[Service]\n",
		"usr/lib/systemd/system/nginx.service":          "[Service]\n",
		"usr/lib/systemd/system/getty@.service":         "[Service]\n",
		"etc/systemd/system/our.service":                "[X-ISC]\nListen=443/tcp\n",
		"etc/systemd/system/sockets.target.wants/":      "",
		"etc/systemd/system/multi-user.target.wants/":   "",
		"usr/lib/systemd/system/rescue.target.wants/":   "",
		"usr/lib/systemd/system/rescue.target.wants/no": "",
	})
	for link, target := range map[string]string{
		"etc/systemd/system/sockets.target.wants/web.socket":            "/usr/lib/systemd/system/web.socket",
		"etc/systemd/system/multi-user.target.wants/ssh.service":        "/lib/systemd/system/ssh.service",
		"etc/systemd/system/multi-user.target.wants/our.service":        "../our.service",
		"etc/systemd/system/multi-user.target.wants/nginx.service":      "x",
		"etc/systemd/system/multi-user.target.wants/getty@tty1.service": "x",
		"etc/systemd/system/nginx.service":                              "/dev/null",
	} {
		put(t, tree, image.Entry{Name: link, Mode: fs.ModeSymlink | 0o777, Target: target, ModTime: old}, "")
	}
	all, err = BootServices(tree, Linux)
	if err != nil {
		t.Fatal(err)
	}
	got = ""
	for _, s := range all {
		got += s.ID + " " + strings.Join(s.Ports, ",") + "\n"
	}
	if want := "getty@tty1.service \nour.service 443/tcp\nssh.service 22/tcp\nweb.socket 5353/udp,8080/tcp\n"; got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}

// TestSharedPorts: a service of a spec cannot open what another one has.
func TestSharedPorts(t *testing.T) {
	files := map[string]string{
		"etc/passwd":                           "root:x:0:0::/root:/bin/sh\n",
		"etc/ssh/sshd_config":                  "Port 2222\n",
		"usr/lib/systemd/system/web.socket":    "[Socket]\nListenStream=8080\n",
		"usr/lib/systemd/system/ssh.service":   "[Service]\n",
		"usr/lib/systemd/system/nginx.service": "[Service]\n",
		"etc/systemd/system/web.service":       "[X-ISC]\nListen=8080/tcp\n",
		"etc/systemd/system/a.service":         "[X-ISC]\nListen=2222/tcp\nListen=80/tcp\nListen=53/udp\n",
		"etc/systemd/system/b.service":         "[X-ISC]\nListen=53/udp\nListen=8080/tcp\n",
	}
	for name := range files {
		if base := path.Base(name); strings.Contains(name, "/systemd/") {
			files["etc/systemd/system/multi-user.target.wants/"+base] = ""
		}
	}
	r, err := Audit(newTree(t, files), only(t, Linux, "C11"), today)
	if err != nil {
		t.Fatal(err)
	}
	got := ""
	for _, f := range slices.Concat(r.Controls[0].Findings, r.Controls[0].Notes) {
		got += f.Problem + "\n"
	}
	if want := "a.service and b.service both open 53/udp\n" +
		"a.service and ssh.service both open 2222/tcp\n" +
		"b.service and web.service both open 8080/tcp\n" +
		"b.service and web.socket both open 8080/tcp\n" +
		"a.service opens 80/tcp, as nginx.service does unless it is configured otherwise\n"; got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}

	tree := system(t, map[string]string{"lib/svc/manifest/network/http.xml": manifest("network/http", "<create_default_instance enabled='true'/>")})
	l := &Layout{OS: Illumos, Name: "x", Services: []Service{
		{Name: "a", Exec: "/opt/a", Listen: []string{"80/tcp", "2222/tcp"}}, {Name: "b", Exec: "/opt/b", Listen: []string{"517/udp"}},
	}}
	if err := l.Apply(tree, epoch); err != nil {
		t.Fatal(err)
	}
	if r, err = Audit(tree, only(t, Illumos, "C11"), today); err != nil {
		t.Fatal(err)
	}
	got = ""
	for _, f := range slices.Concat(r.Controls[0].Findings, r.Controls[0].Notes) {
		got += f.Problem + "\n"
	}
	for _, want := range []string{
		"svc:/site/a:default and svc:/network/ssh:default both open 2222/tcp\n", "svc:/site/b:default and svc:/network/talk:default both open 517/udp\n",
		"svc:/site/a:default opens 80/tcp, as svc:/network/http:default does unless",
	} {
		if !strings.Contains(got, want) {
			t.Errorf("no %q in\n%s", want, got)
		}
	}
}

// TestAbsent: what is not there cannot be enabled, nor waited for.
func TestAbsent(t *testing.T) {
	tree := system(t, nil)
	s := only(t, Illumos, "B01")
	r, err := Audit(tree, s, today)
	if err != nil {
		t.Fatal(err)
	}
	if c := r.Controls[0]; c.Status != Fail || !slices.ContainsFunc(c.Findings, func(f Finding) bool {
		return strings.Contains(f.Problem, "no manifest brings svc:/system/auditd:default")
	}) {
		t.Errorf("got %+v", c)
	}
	l := &Layout{OS: Illumos, Name: "x", Services: []Service{{Name: "a", Exec: "/opt/a", After: []string{"svc:/network/absent:default"}}}}
	before := dump(t, tree)
	if err := l.Apply(tree, epoch); err == nil || !strings.Contains(err.Error(), `service "a": after "svc:/network/absent:default": the base has no such service`) {
		t.Errorf("got %v", err)
	}
	if dump(t, tree) != before {
		t.Error("the tree was changed")
	}
	l.Services[0].After = []string{"svc:/network/ssh"}
	if err := l.Apply(tree, epoch); err != nil {
		t.Error(err)
	}
	c := only(t, Illumos, "C11")
	if r, err = Audit(tree, c, today); err != nil {
		t.Fatal(err)
	}
	if got := r.Controls[0].Findings; len(got) != 1 || got[0].Path != "lib/svc/manifest/system/broken.xml" {
		t.Errorf("got %+v, want the broken manifest", got) // /opt is the host's: it says nothing of /opt/a
	}
}

// only returns the selection of some controls.
func only(t testing.TB, os string, ids ...string) *Selection {
	t.Helper()
	p := &Profile{Name: "some", Controls: map[string][]string{os: ids}}
	s, err := p.Select(os, nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// TestShippedManifests reads what illumos and OmniOS ship: those in testdata, and all below the folder that
// ISC_SHARED names.
func TestShippedManifests(t *testing.T) {
	files, err := filepath.Glob("testdata/smf/*.xml")
	if err != nil || len(files) < 12 {
		t.Fatalf("%d files, %v", len(files), err)
	}
	if shared := os.Getenv("ISC_SHARED"); shared != "" {
		more, err := filepath.Glob(filepath.Join(shared, "data/illumos/smf/*/*.xml"))
		if err != nil || len(more) == 0 {
			t.Fatalf("no files in %s: %v", shared, err)
		}
		files = append(files, more...)
	}
	seen := map[string]bool{}
	for _, f := range files {
		data, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		b, err := ParseBundle(data)
		if err != nil {
			t.Errorf("%s: %v", filepath.Base(f), err)
			continue
		}
		empty := []string{"inetd_upgrade.xml", "ns_files.xml", "platform_none.xml"}
		if len(b.Services)+len(b.Includes) == 0 && !slices.Contains(empty, filepath.Base(f)) {
			t.Errorf("%s: nothing in it", filepath.Base(f))
		}
		for _, s := range b.Services {
			for _, i := range s.Instances {
				seen[b.Type+" "+s.Name+":"+i.Name+" "+i.Enabled] = true
			}
			for _, p := range s.Properties {
				seen[b.Type+" "+s.Name+" "+p.Group+"/"+p.Name+"="+p.Value] = true
			}
		}
		for _, i := range b.Includes {
			seen[b.Type+" includes "+i] = true
		}
	}
	for _, want := range []string{
		"manifest network/ssh:default false", "manifest network/login:rlogin false", "manifest network/login:klogin false",
		"manifest network/rpc/bind config/local_only=true", "manifest system/auditd:default false",
		"profile network/ssh:default true", "profile includes file:/etc/svc/profile/name_service.xml",
	} {
		if !seen[want] {
			t.Errorf("not read: %s", want)
		}
	}
	t.Logf("%d files", len(files))
}

func FuzzParseBundle(f *testing.F) {
	f.Add([]byte(manifest("a/b", "<instance name='x' enabled='true'/>")))
	f.Add([]byte(smfDocument + "<service_bundle type='profile' name='x'><service_bundle type='profile' name='y'/></service_bundle>"))
	f.Add([]byte("<?xml version='1.0' encoding='iso-8859-1'?><!DOCTYPE x>"))
	f.Fuzz(func(t *testing.T, data []byte) {
		b, err := ParseBundle(data)
		if err == nil && b == nil {
			t.Error("neither a bundle nor an error")
		}
	})
}

func TestCompareServices(t *testing.T) {
	got := ""
	for _, c := range CompareServices(
		[]BootService{{ID: "a", Ports: []string{"1/tcp"}}, {ID: "b"}, {ID: "c"}},
		[]BootService{{ID: "a"}, {ID: "c"}, {ID: "d", Ports: []string{"2/udp"}}},
	) {
		got += c.ID + " " + c.String() + "\n"
	}
	if want := "a opens 1/tcp → nothing\nb no longer started at boot\nd started at boot, opens 2/udp\n"; got != want {
		t.Errorf("got\n%s", got)
	}
}

// TestBootInstances: instances of one service open different ports, and Solaris's are switched off.
func TestBootInstances(t *testing.T) {
	tree := newTree(t, map[string]string{manifestDir + "/rad.xml": smfDocument + "<service_bundle type='manifest' name='rad'><service name='system/rad' type='service' version='1'>" +
		"<instance name='local' enabled='true'/><instance name='remote' enabled='true'/></service></service_bundle>"})
	want := []BootService{{ID: "svc:/system/rad:local"}, {ID: "svc:/system/rad:remote", Ports: []string{"12302/tcp"}}}
	if got, err := BootServices(tree, Solaris); err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("got %v, %v", got, err)
	}
	if err := Apply(tree, only(t, Solaris, "C01"), epoch); err != nil {
		t.Fatal(err)
	}
	if got, err := BootServices(tree, Solaris); err != nil || !reflect.DeepEqual(got, want[:1]) {
		t.Errorf("hardened: got %v, %v", got, err)
	}
}
