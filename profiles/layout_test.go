package profiles

import (
	"bytes"
	"encoding/xml"
	"errors"
	"io"
	"io/fs"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/goldenisc/packer-plugin-isc/image"
)

// webLayout is a layout with a bit of everything.
func webLayout(os string) *Layout {
	return &Layout{
		OS: os, Name: "web",
		Users:  []User{{Name: "webd", UID: 801, Groups: []string{"logs"}, Comment: "web server"}, {Name: "admin", UID: 802, Shell: "/bin/sh", Home: "/home/admin"}},
		Groups: []Group{{Name: "logs", GID: 900, Members: []string{"admin"}}},
		Services: []Service{
			{
				Name: "web", Description: "Web server <main>", Exec: `/opt/web/bin/webd -listen :80 -title "it's 100% $fresh"`, User: "webd",
				Directory: "/opt/web", Environment: map[string]string{"B": "x y", "A": `"1" & 2`}, Listen: []string{"80/tcp", "8080/tcp"},
				Privileges: []string{"basic", "!proc_info", "!file_link_any"}, Health: "http://:8080/healthz", Timeout: 30,
			},
			{Name: "worker", Exec: "/opt/web/bin/worker", User: "webd", Group: "logs", After: []string{"web"}},
			{Name: "rooted", Exec: "/opt/web/bin/rooted"},
		},
		Network:  &Network{Outbound: []string{"53/udp"}},
		Limits:   &Limits{Memory: "2GiB", MaxSwap: "3GiB", Locked: "256MiB", Processes: 500, LWPs: 2000, CPUs: 1.5, Shares: 100},
		Scratch:  &Scratch{Size: "4GiB"},
		Volumes:  []Volume{{Path: "/var/lib/web", Size: "20GiB"}},
		Mutables: []Mutable{{Paths: []string{"/var/log/**", "/run/web.pid"}, Rule: "any"}, {Paths: []string{"/etc/web/**"}, Rule: "reset"}},
	}
}

// bare returns a root with the accounts of a base.
func bare(t testing.TB, os string) *image.Tree {
	t.Helper()
	files := map[string]string{
		"etc/passwd": "root:x:0:0:root:/root:/bin/sh\nbin:x:2:2::/usr/bin:\n",
		"etc/shadow": "root:NP:6445::::::\nbin:NP:6445::::::\n",
		"etc/group":  "root::0:\nbin::2:root\nsys::3:\n",
	}
	switch os {
	case Linux:
		files["etc/gshadow"] = "root:*::\nbin:*::\n"
	case Solaris:
		files["usr/sbin/pfctl"] = "\x7fELF"
	}
	return newTree(t, files)
}

func read(t testing.TB, root Root, name string) string {
	t.Helper()
	data, err := root.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

func TestLayout(t *testing.T) {
	want := map[string][]string{
		Illumos: {
			"lib/svc/manifest/site/isc-enc-scratch.xml", "lib/svc/manifest/site/rooted.xml", "lib/svc/manifest/site/web.xml",
			"lib/svc/manifest/site/worker.xml", "lib/svc/method/isc-enc-scratch", "scratch", "var/lib/web",
		},
		Solaris: {
			"lib/svc/manifest/site/isc-enc-scratch.xml", "lib/svc/manifest/site/web.xml", "lib/svc/method/isc-enc-scratch", "scratch", "var/lib/web",
			"etc/firewall/pf.conf", sitePath,
		},
		Linux: {
			"etc/fstab", "etc/systemd/system/multi-user.target.wants/web.service", "etc/systemd/system/web.service",
			"etc/systemd/system/worker.service", "scratch", "var/lib/web",
		},
	}
	for _, os := range Platforms {
		t.Run(os, func(t *testing.T) {
			l := webLayout(os)
			if errs := l.Check(); len(errs) > 0 {
				t.Fatal(errors.Join(errs...))
			}
			tree := bare(t, os)
			if err := l.Apply(tree, epoch); err != nil {
				t.Fatal(err)
			}
			for _, name := range want[os] {
				e, err := tree.Stat(name)
				if err != nil {
					t.Error(err)
				} else if !e.ModTime.Equal(epoch) || e.Mode&0o022 != 0 && name != "scratch" && e.Type() != fs.ModeSymlink {
					t.Errorf("%s: %v at %v", name, e.Mode, e.ModTime)
				}
			}
			if e, err := tree.Stat("scratch"); err != nil || e.Perm() != 0o1777 {
				t.Errorf("scratch: %v, %v", e, err)
			}
			once := dump(t, tree)
			if err := l.Apply(tree, epoch.AddDate(1, 0, 0)); err != nil {
				t.Fatal(err)
			}
			if twice := dump(t, tree); twice != once {
				t.Errorf("applying twice differs from once:\n%s\n%s", once, twice)
			}
			// A layout must keep the controls that are applied after it.
			s := baseline(t, os, nil)
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
			selected := baseline(t, os, nil)
			zonecfg, err := l.Zonecfg(selected, "")
			if err != nil {
				t.Fatal(err)
			}
			dock, err := l.Dock(selected)
			if err != nil {
				t.Fatal(err)
			}
			golden(t, os+".zonecfg", zonecfg)
			golden(t, os+".dock.json", dock)
			d, err := ParseDock(dock)
			if err != nil {
				t.Fatal(err)
			}
			if d.Memory != 2<<30 || d.Scratch.Path != "/scratch" || !slices.Equal(d.Inbound, []string{"80/tcp", "8080/tcp"}) || len(d.Summary()) < 10 {
				t.Errorf("dock %+v\n%s", d, strings.Join(d.Summary(), "\n"))
			}
			switch os {
			case Solaris:
				golden(t, "solaris.xml", []byte(read(t, tree, manifestDir+"/web.xml")))
				golden(t, "pf.conf", []byte(read(t, tree, "etc/firewall/pf.conf")))
			case Illumos:
				golden(t, "web.xml", []byte(read(t, tree, manifestDir+"/web.xml")))
				golden(t, "isc-enc-scratch.xml", []byte(read(t, tree, manifestDir+"/isc-enc-scratch.xml")))
			case Linux:
				golden(t, "web.service", []byte(read(t, tree, unitDir+"web.service")))
			}
		})
	}
}

func TestAccounts(t *testing.T) {
	want := map[string]map[string]string{
		Illumos: {
			"etc/passwd": "root:x:0:0:root:/root:/bin/sh\nbin:x:2:2::/usr/bin:\nwebd:x:801:801:web server:/:/usr/bin/false\nadmin:x:802:802::/home/admin:/bin/sh\n",
			"etc/shadow": "root:NP:6445::::::\nbin:NP:6445::::::\nwebd:*LK*:::::::\nadmin:NP:::::::\n",
			"etc/group":  "root::0:\nbin::2:root\nsys::3:\nlogs::900:webd,admin\nwebd::801:\nadmin::802:\n",
		},
		Linux: {
			"etc/passwd":  "root:x:0:0:root:/root:/bin/sh\nbin:x:2:2::/usr/bin:\nwebd:x:801:801:web server:/:/bin/false\nadmin:x:802:802::/home/admin:/bin/sh\n",
			"etc/shadow":  "root:NP:6445::::::\nbin:NP:6445::::::\nwebd:!:::::::\nadmin:*:::::::\n",
			"etc/group":   "root::0:\nbin::2:root\nsys::3:\nlogs:x:900:webd,admin\nwebd:x:801:\nadmin:x:802:\n",
			"etc/gshadow": "root:*::\nbin:*::\nlogs:!::webd,admin\nwebd:!::\nadmin:!::\n",
		},
	}
	for _, os := range Platforms {
		tree := bare(t, os)
		if err := webLayout(os).Apply(tree, epoch); err != nil {
			t.Fatal(err)
		}
		for name, text := range want[os] {
			if got := read(t, tree, name); got != text {
				t.Errorf("%s: %s:\n%s\nwant\n%s", os, name, got, text)
			}
		}
	}
	one := 1
	for name, l := range map[string]*Layout{
		`uid 2 is that of "bin"`:         {Users: []User{{Name: "a", UID: 2, GID: &one}}},
		`gid 2 is that of "bin"`:         {Groups: []Group{{Name: "a", GID: 2}}},
		`"bin": has the number 2`:        {Groups: []Group{{Name: "bin", GID: 4}}},
		`there is no group "nogroup"`:    {Users: []User{{Name: "a", UID: 900, Groups: []string{"nogroup"}}}},
		`user "webd" is neither`:         {Services: []Service{{Name: "a", Exec: "/a", User: "webd"}}},
		`group "webd" is neither`:        {Services: []Service{{Name: "a", Exec: "/a", Group: "webd"}}},
		`"/etc/passwd" is a file, not a`: {Volumes: []Volume{{Path: "/etc/passwd"}}},
	} {
		l.OS, l.Name = Illumos, "x"
		if err := l.Apply(bare(t, Illumos), epoch); err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("got %v, want %s", err, name)
		}
	}
}

// TestOwnGroup: a group of the user's name that exists is the user's.
func TestOwnGroup(t *testing.T) {
	tree := bare(t, Illumos)
	l := &Layout{OS: Illumos, Users: []User{{Name: "bin", UID: 2}, {Name: "a", UID: 500}}, Groups: []Group{{Name: "a", GID: 600}}}
	if err := l.Apply(tree, epoch); err != nil {
		t.Fatal(err)
	}
	passwd := read(t, tree, "etc/passwd")
	for _, want := range []string{"bin:x:2:2:", "a:x:500:600:"} {
		if !strings.Contains(passwd, "\n"+want) {
			t.Errorf("no %s in\n%s", want, passwd)
		}
	}
}

// TestVolumeOwner: a volume is of use to the user that the services run as.
func TestVolumeOwner(t *testing.T) {
	for want, l := range map[int]*Layout{
		801: {Services: []Service{{Name: "a", Exec: "/a", User: "webd"}}, Volumes: []Volume{{Path: "/srv/v"}}},
		802: {Services: []Service{{Name: "a", Exec: "/a", User: "webd"}}, Volumes: []Volume{{Path: "/srv/v", Owner: "admin"}}},
		0:   {Services: []Service{{Name: "a", Exec: "/a", User: "webd"}, {Name: "b", Exec: "/b"}}, Volumes: []Volume{{Path: "/srv/v"}}},
	} {
		l.OS, l.Users = Linux, []User{{Name: "webd", UID: 801}, {Name: "admin", UID: 802}}
		tree := bare(t, Linux)
		if err := l.Apply(tree, epoch); err != nil {
			t.Fatal(err)
		}
		if e, err := tree.Stat("srv/v"); err != nil || e.UID != want || e.GID != want {
			t.Errorf("%v, %v; want owner %d", e, err, want)
		}
	}
}

func TestCheck(t *testing.T) {
	gid := 0
	l := &Layout{
		OS:     "bsd",
		Users:  []User{{Name: "Bad", UID: 0, GID: &gid, Comment: "a:b", Home: "x", Shell: "/a/../b"}, {Name: "a", UID: 5}, {Name: "a", UID: 5, Groups: []string{"-"}}, {Name: "root", UID: 5}},
		Groups: []Group{{Name: "g", GID: 1 << 40}, {Name: "g", GID: 7}, {Name: "h", GID: 7, Members: []string{"?"}}},
		Services: []Service{
			{Name: "isc-enc-scratch", Exec: "relative"},
			{
				Name: "s", Exec: `/x "`, Listen: []string{"80/tcp", "80/tcp", "x"}, Privileges: []string{"!proc_frok"}, After: []string{"s", "nobody"},
				Health: "http://host:1/", Timeout: -1, Environment: map[string]string{"A B": "", "C": "\n"}, Directory: "rel",
			},
			{Name: "s", Exec: "/x", Health: "http://:81/", Listen: []string{"80/tcp"}, User: "A"},
		},
		Network:  &Network{Allow: []string{"http"}, Outbound: []string{"0/udp"}},
		Limits:   &Limits{Memory: "lots", Processes: -1, CPUs: -1},
		Scratch:  &Scratch{Path: "/var", Size: ""},
		Swap:     &Swap{Size: "x"},
		Volumes:  []Volume{{Path: "/a b"}, {Path: "/v", Size: "0"}, {Path: "/v"}, {Path: "/tmp/v"}, {Path: "/run/v"}, {Path: "/sys"}},
		Mutables: []Mutable{{Rule: "sometimes"}, {Paths: []string{"relative/**", "/a/[/"}, Rule: "appendd"}},
	}
	all := errors.Join(l.Check()...).Error()
	for _, want := range []string{
		`os "bsd" is none of illumos, solaris, linux`,
		`user "Bad": the name`, `user "Bad": uid 0`, `user "Bad": gid 0`, `user "Bad": comment "a:b"`, `user "Bad": home "x"`, `user "Bad": shell "/a/../b"`,
		`user "a": there are two`, `user "root": is in every system`, `user "a": uid 5 is that of user "a" too`, `user "a": "-" is no name of a group`,
		`group "g": gid 1099511627776`, `group "g": there are two`, `group "h": gid 7 is that of group "g" too`, `group "h": member "?"`,
		`service "isc-enc-scratch": the name is taken`, `service "isc-enc-scratch": exec "relative"`,
		`service "s": exec "/x \"": a quote is not closed`, `service "s": listen: 80/tcp stands twice`, `service "s": listen: "x" is not a port`,
		`did you mean "proc_fork"?`, `service "s": after "s"`, `service "s": after "nobody"`, `service "s": health "http://host:1/"`, `service "s": timeout -1`,
		`service "s": environment "A B"`, `service "s": environment "C"`, `service "s": directory "rel"`, `service "s": there are two`,
		`service "s" listens on 80/tcp too`, `does not listen on 81/tcp`, `service "s": "A" is no name of an account`,
		`network: allow: "http"`, `network: outbound: "0/udp"`, `limits: memory: "lots"`, `limits: processes -1`, `limits: cpus -1`,
		`scratch: "/var" is part of the system`, `scratch: no size`, `swap: size: "x"`,
		`volume "/tmp/v": "/tmp/v" is below /tmp/`, `volume "/run/v": "/run/v" is below /run/`, `volume "/sys": "/sys" is part of the system`, `volume "/a b": path "/a b"`, `volume "/v": size: "0"`, `volume "/v": volume "/v" is at "/v" too`,
		`mutable: no paths`, `mutable: rule "sometimes"`, `mutable: "relative/**"`, `mutable: "/a/[/"`, `did you mean "append"?`,
	} {
		if !strings.Contains(all, want) {
			t.Errorf("lacks %s", want)
		}
	}
	if t.Failed() {
		t.Log(all)
	}
	if err := l.Apply(bare(t, Illumos), epoch); err == nil {
		t.Error("a layout with errors was applied")
	}
}

// TestManifestIsXML: whatever stands in a layout, the manifest parses and says it.
func TestManifestIsXML(t *testing.T) {
	tree := bare(t, Illumos)
	if err := webLayout(Illumos).Apply(tree, epoch); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"web", "worker", "rooted", "isc-enc-scratch"} {
		text := read(t, tree, manifestDir+"/"+name+".xml")
		d := xml.NewDecoder(strings.NewReader(text))
		for {
			if _, err := d.Token(); err == io.EOF {
				break
			} else if err != nil {
				t.Fatalf("%s: %v\n%s", name, err, text)
			}
		}
	}
	if root := read(t, tree, manifestDir+"/rooted.xml"); strings.Contains(root, "privileges=") {
		t.Error("root's service was given a bound it did not ask for")
	}
}

func TestZonecfg(t *testing.T) {
	for _, tt := range []struct{ os, brand, want string }{
		{Illumos, "joyent", "vmadm"},
		{Illumos, "ilumos", `did you mean "illumos"?`},
		{Illumos, "lx", "is for linux"},
		{Linux, "illumos", "is for illumos"},
		{Illumos, "solaris", "is for solaris"},
		{Solaris, "illumos", "is for illumos"},
	} {
		if _, err := (&Layout{OS: tt.os}).Zonecfg(nil, tt.brand); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s on %s: %v, want %s", tt.brand, tt.os, err, tt.want)
		}
	}
	l := &Layout{OS: Illumos, Name: "x", Services: []Service{{Name: "a", Privileges: []string{"basic", "proc_clock_highres"}}}}
	out, err := l.Zonecfg(baseline(t, Illumos, nil), "lipkg")
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"set brand=lipkg\n", `set limitpriv="default,!dtrace_proc,!dtrace_user"`, "set max-processes=1000\n", "set default=ASLR,FORBIDNULLMAP,NOEXECSTACK\n"} {
		if !bytes.Contains(out, []byte(want)) {
			t.Errorf("lacks %q:\n%s", want, out)
		}
	}
	if bytes.Contains(out, []byte("@DATASET@")) {
		t.Errorf("a dataset for nothing:\n%s", out)
	}
	plain, err := l.Zonecfg(nil, "")
	if err != nil || bytes.Contains(plain, []byte("security-flags")) {
		t.Errorf("without controls: %v\n%s", err, plain)
	}
}

// zoneConfigs are XML configurations of zones with everything, with nothing, with read-only configuration
// and of lx.
func zoneConfigs(t *testing.T) [][]byte {
	t.Helper()
	strict := strictZone(t, "/etc/default,lib/svc/method")
	var all [][]byte
	for _, c := range []struct {
		l *Layout
		s *Selection
	}{{webLayout(Illumos), baseline(t, Illumos, nil)}, {&Layout{OS: Illumos, Name: "x"}, nil}, {webLayout(Illumos), strict}, {webLayout(Linux), baseline(t, Linux, nil)}} {
		xml, err := c.l.Detached(c.s, "")
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, xml)
	}
	return all
}

// strictZone selects isc-strict for illumos with directories that are mounted read-only.
func strictZone(t *testing.T, dirs string) *Selection {
	t.Helper()
	p, err := Load("isc-strict")
	if err != nil {
		t.Fatal(err)
	}
	s, err := p.Select(Illumos, map[string]string{"readonly_config": dirs}, nil)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// TestDetached: the XML says what the command file does.
func TestDetached(t *testing.T) {
	type value struct {
		Limit  string `xml:"limit,attr"`
		Action string `xml:"action,attr"`
	}
	var z struct {
		XMLName  xml.Name `xml:"zone"`
		Name     string   `xml:"name,attr"`
		Brand    string   `xml:"brand,attr"`
		Limit    string   `xml:"limitpriv,attr"`
		Datasets []struct {
			Name string `xml:"name,attr"`
		} `xml:"dataset"`
		FS []struct {
			Special   string `xml:"special,attr"`
			Directory string `xml:"directory,attr"`
			Options   []struct {
				Name string `xml:"name,attr"`
			} `xml:"fsoption"`
		} `xml:"filesystem"`
		Rctls []struct {
			Name  string `xml:"name,attr"`
			Value value  `xml:"rctl-value"`
		} `xml:"rctl"`
		Memory struct {
			Cap string `xml:"physcap,attr"`
		} `xml:"mcap"`
		Flags struct {
			Default string `xml:"default,attr"`
		} `xml:"security-flags"`
	}
	if err := xml.Unmarshal(zoneConfigs(t)[2], &z); err != nil {
		t.Fatal(err)
	}
	if z.Name != "@NAME@" || z.Brand != "illumos" || z.Limit != "default,!dtrace_proc,!dtrace_user,!proc_clock_highres" || len(z.Datasets) != 1 ||
		z.Memory.Cap != "2147483648" || z.Flags.Default != "ASLR,FORBIDNULLMAP,NOEXECSTACK" {
		t.Errorf("got %+v", z)
	}
	got := map[string]value{}
	for _, r := range z.Rctls {
		got[r.Name] = r.Value
	}
	want := map[string]value{
		"zone.max-lwps": {"2000", "deny"}, "zone.max-processes": {"500", "deny"}, "zone.cpu-shares": {"100", "none"}, "zone.cpu-cap": {"150", "deny"},
		"zone.max-swap": {"3221225472", "deny"}, "zone.max-locked-memory": {"268435456", "deny"},
	}
	if !maps.Equal(got, want) {
		t.Errorf("resource controls %v, want %v", got, want)
	}
	if len(z.FS) != 2 || z.FS[0].Special != "@GOLDEN@/etc/default" || z.FS[1].Directory != "/lib/svc/method" || len(z.FS[0].Options) != 2 || z.FS[0].Options[0].Name != "ro" {
		t.Errorf("file systems %+v", z.FS)
	}
}

// TestReadOnlyConfig: the control mounts what is a directory of the image, or is made one.
func TestReadOnlyConfig(t *testing.T) {
	l := &Layout{OS: Illumos, Name: "x"}
	s := strictZone(t, "/etc/default,/opt/web/etc")
	out, err := l.Zonecfg(s, "")
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"@GOLDEN@    where", "add fs\nset dir=\"/opt/web/etc\"\nset special=\"@GOLDEN@/opt/web/etc\"\nset type=lofs\nadd options [ro,nodevices]\nend\n"} {
		if !bytes.Contains(out, []byte(want)) {
			t.Errorf("lacks %q:\n%s", want, out)
		}
	}
	tree := bare(t, Illumos)
	if err := Apply(tree, s, epoch); err != nil {
		t.Fatal(err)
	}
	if e, err := tree.Stat("opt/web/etc"); err != nil || !e.IsDir() || e.Perm() != 0o755 {
		t.Errorf("opt/web/etc: %v, %v", e, err)
	}
	// Nothing hides the whole root, or stands for more than one directory; quotes and dollars no list may have.
	for _, dirs := range []string{"/", "/a/../..", "/etc/[a]", "/etc/ä"} {
		s := strictZone(t, dirs)
		if out, err := l.Zonecfg(s, ""); err == nil || !strings.Contains(err.Error(), "readonly_config") {
			t.Errorf("%s: %v\n%s", dirs, err, out)
		}
		if err := Apply(bare(t, Illumos), s, epoch); err == nil || !strings.Contains(err.Error(), "Z06") {
			t.Errorf("%s: %v", dirs, err)
		}
	}
	put(t, tree, image.Entry{Name: "etc/file", Mode: 0o644, ModTime: old}, "")
	r, err := Audit(tree, strictZone(t, "/etc/file"), today)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range r.Controls {
		if c.ID == "Z06" && (c.Status != Fail || len(c.Findings) != 1 || c.Findings[0].Path != "etc/file") {
			t.Errorf("got %+v of a file", c)
		}
	}
}

// machine makes of a root of Linux that of a virtual machine.
func machine(t testing.TB, tree *image.Tree) {
	t.Helper()
	for _, name := range []string{"usr/lib/systemd/systemd-cryptsetup", "boot/vmlinuz-6.1.0-13-amd64"} {
		put(t, tree, image.Entry{Name: name, Mode: 0o755, ModTime: old}, "")
	}
}

// TestLinuxDisks: scratch and swap are on disks of their own where there is a machine for them, and what the
// base swapped to is not used in any case.
func TestLinuxDisks(t *testing.T) {
	l := &Layout{OS: Linux, Name: "x", Scratch: &Scratch{Path: "/srv/s", Size: "1GiB"}, Swap: &Swap{Size: "1GiB"}}
	const (
		base    = "/dev/vda1 / ext4 defaults 0 1\n/swapfile none swap sw 0 0\n"
		without = "/dev/vda1 / ext4 defaults 0 1\n#/swapfile none swap sw 0 0\ntmpfs /srv/s tmpfs size=1073741824,mode=1777,nodev,nosuid,noexec 0 0\n"
	)
	files := func(name string) string {
		tree := bare(t, Linux)
		put(t, tree, image.Entry{Name: "etc/fstab", Mode: 0o644, ModTime: old}, base)
		switch name {
		case "machine":
			machine(t, tree)
		case "":
		default:
			put(t, tree, image.Entry{Name: name, Mode: 0o755, ModTime: old}, "")
		}
		var all [2]string
		for i := range all {
			if err := l.Apply(tree, epoch); err != nil {
				t.Fatal(err)
			}
			for _, file := range []string{"etc/fstab", "etc/crypttab", "etc/tmpfiles.d/isc-enc-scratch.conf"} {
				if data, err := tree.ReadFile(file); err == nil {
					all[i] += string(data)
				}
			}
		}
		if all[0] != all[1] {
			t.Errorf("%s: once\n%stwice\n%s", name, all[0], all[1])
		}
		return all[0]
	}
	for name, want := range map[string]string{
		"":                               without,
		"lib/systemd/systemd-cryptsetup": without, // Debian's package systemd has it, in containers too
		"boot/vmlinuz-6.1.0-13-amd64":    without,
		"machine": "/dev/vda1 / ext4 defaults 0 1\n#/swapfile none swap sw 0 0\n" +
			"/dev/mapper/isc-scratch /srv/s ext4 nodev,nosuid,noexec 0 0\n/dev/mapper/isc-swap none swap sw 0 0\n" +
			"isc-scratch PARTLABEL=isc-scratch /dev/urandom tmp=ext4,cipher=aes-xts-plain64,size=512\n" +
			"isc-swap PARTLABEL=isc-swap /dev/urandom swap,cipher=aes-xts-plain64,size=512\n" +
			"# Made by iscadm. Changes are drift.\nd \"/srv/s\" 1777 root root\n",
	} {
		if got := files(name); got != want {
			t.Errorf("%s: got\n%swant\n%s", name, got, want)
		}
	}
}

func FuzzDock(f *testing.F) {
	data, err := webLayout(Linux).Dock(nil)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(data)
	f.Fuzz(func(t *testing.T, data []byte) {
		d, err := ParseDock(data)
		if err != nil {
			return
		}
		once, err := marshal(d)
		if err != nil {
			t.Fatal(err)
		}
		again, err := ParseDock(once)
		if err != nil {
			t.Fatal(err)
		}
		if twice, err := marshal(again); err != nil || !bytes.Equal(once, twice) {
			t.Errorf("not stable: %v", err)
		}
		d.Summary()
	})
}

// FuzzService: what passes the check gives a manifest that parses and a unit, and both say the same
// command.
func FuzzService(f *testing.F) {
	f.Add(`/a "b c" 'd' \\e $f 100% &<>`, "x & y", "K", "v\\", "/srv/d")
	f.Fuzz(func(t *testing.T, exec, description, key, value, directory string) {
		s := Service{Name: "s", Exec: exec, Description: description, Environment: map[string]string{key: value}, Directory: directory}
		l := &Layout{OS: Illumos, Name: "x", Services: []Service{s}}
		if len(l.Check()) > 0 {
			return
		}
		argv, err := words(exec)
		if err != nil {
			t.Fatal(err)
		}
		tree := bare(t, Illumos)
		if err := l.Apply(tree, epoch); err != nil {
			t.Fatal(err)
		}
		var bundle struct {
			Methods []struct {
				Exec string `xml:"exec,attr"`
			} `xml:"service>exec_method"`
			Env []struct {
				Value string `xml:"value,attr"`
			} `xml:"service>method_context>method_environment>envvar"`
		}
		if err := xml.Unmarshal([]byte(read(t, tree, manifestDir+"/s.xml")), &bundle); err != nil {
			t.Fatal(err)
		}
		if got, err := words(strings.ReplaceAll(bundle.Methods[0].Exec, "%%", "%")); err != nil || !slices.Equal(got, argv) {
			t.Errorf("the manifest runs %q, want %q", got, argv)
		}
		if bundle.Env[0].Value != value {
			t.Errorf("the manifest has %q, want %q", bundle.Env[0].Value, value)
		}
		unit, err := (&baker{layout: l}).unitText(&l.Services[0])
		if err != nil {
			t.Fatal(err)
		}
		var sections []string
		for _, line := range lines(unit) {
			if strings.HasPrefix(line, "[") {
				sections = append(sections, line)
			}
			if strings.HasSuffix(line, `\`) {
				t.Errorf("line %q continues", line)
			}
			if cmd, ok := strings.CutPrefix(line, "ExecStart="); ok {
				got, err := words(strings.NewReplacer("%%", "%", "$$", "$").Replace(cmd))
				if err != nil || !slices.Equal(got, argv) {
					t.Errorf("the unit runs %q, want %q", got, argv)
				}
			}
		}
		if want := []string{"[Unit]", "[Service]", "[Install]", "[X-ISC]"}; !slices.Equal(sections, want) {
			t.Errorf("sections %q", sections)
		}
	})
}

// TestNeverStarts: services that could never start are refused.
func TestNeverStarts(t *testing.T) {
	named := func(name string, after ...string) Service {
		return Service{Name: name, Exec: "/bin/x", User: "w", After: after}
	}
	for _, tt := range []struct {
		os   string
		l    Layout
		want string // "": is right
	}{
		{Linux, Layout{Services: []Service{named("a", "b"), named("b", "c.service"), named("c", "a")}}, `service "a": after: none of a, b, c, a ever starts`},
		{Illumos, Layout{Services: []Service{named("a", "svc:/site/b:default"), named("b", "a")}}, `none of a, b, a ever starts`},
		{Linux, Layout{Services: []Service{named("a", "b", "c"), named("b", "c"), named("c", "postgresql@15-main.service")}}, ""},
		{Linux, Layout{Services: []Service{named("a", "a.service")}}, `after "a.service"`},
		{Linux, Layout{Services: []Service{{Name: "a", Exec: "/bin/x", Privileges: []string{"basic", "!proc_exec", "!net_access"}}}}, `privileges: Linux takes no "proc_exec"`},
		{Illumos, Layout{Services: []Service{{Name: "a", Exec: "/bin/x", Privileges: []string{"basic", "!proc_exec"}}}}, ""},
		{Linux, Layout{Services: []Service{named("a", "../x.service")}}, `after "../x.service" is no other service`},
		{Illumos, Layout{Services: []Service{named("a", "svc:/../x")}}, `after "svc:/../x" is no other service`},
		{Illumos, Layout{Services: []Service{named("a", "svc:/network/rpc/bind:default")}}, ""},
		{Linux, Layout{Services: []Service{named("a")}, Volumes: []Volume{{Path: "/home/data"}}}, `volume "/home/data": path "/home/data": services see nothing below /home`},
		{Linux, Layout{Services: []Service{named("a")}, Volumes: []Volume{{Path: "/home/other", Owner: "other"}}}, ""},
		{Linux, Layout{Services: []Service{{Name: "a", Exec: "/bin/x", Directory: "/root"}}}, `service "a": directory "/root"`},
		{Illumos, Layout{Services: []Service{named("a")}, Volumes: []Volume{{Path: "/home/data"}}}, ""},
	} {
		tt.l.OS = tt.os
		got := ""
		if err := errors.Join(tt.l.Check()...); err != nil {
			got = err.Error()
		}
		if (got == "") != (tt.want == "") || !strings.Contains(got, tt.want) || strings.Contains(got, "\n") {
			t.Errorf("%+v: %q, want %q", tt.l, got, tt.want)
		}
	}
	system := map[string]string{
		"dbus": "[Unit]\nRequires=dbus.socket\n", "early": "[Unit]\nDefaultDependencies=no\n", "systemd-x": "[Unit]\n", "nginx": "[Unit]\nRequires=network.target\n",
	}
	for name, text := range system {
		tree := bare(t, Linux)
		put(t, tree, image.Entry{Name: "usr/lib/systemd/system/" + name + ".service", Mode: 0o644}, text)
		l := &Layout{OS: Linux, Name: "x", Services: []Service{{Name: name, Exec: "/bin/x"}}}
		var misfit *MisfitError
		if err := l.Apply(tree, epoch); errors.As(err, &misfit) == (name == "nginx") {
			t.Errorf("%s: %v", name, err)
		}
	}
	tree := newTree(t, map[string]string{"srv/": "", "etc/env": ""})
	for s, want := range map[*Service]string{
		{Directory: "/srv", EnvironmentFile: "/etc/env"}:        "",
		{Directory: "/data/x", EnvironmentFile: "/run/web/env"}: "",
		{Directory: "/nope"}:            `service "a": directory "/nope" is not in the image`,
		{Directory: "/etc/env"}:         `is a file`,
		{EnvironmentFile: "/srv"}:       `environment_file "/srv" is a directory`,
		{EnvironmentFile: "/data2/env"}: `environment_file "/data2/env" is not in the image`,
	} {
		s.Name = "a"
		l := &Layout{OS: Linux, Services: []Service{*s}, Volumes: []Volume{{Path: "/data"}}}
		if err := l.CheckPresent(tree); (err == nil) != (want == "") || err != nil && !strings.Contains(err.Error(), want) {
			t.Errorf("%+v: %v", *s, err)
		}
	}
}

// TestIdentityAccount: whoever the identity block names can log in, whatever the number of the account.
func TestIdentityAccount(t *testing.T) {
	for _, os := range []string{Illumos, Linux} {
		l := &Layout{OS: os, Name: "web", Users: []User{{Name: "w", UID: 801, Home: "/home/w", Shell: "/bin/bash"}}, Identity: &Identity{User: "w"}}
		tree := bare(t, os)
		if err := l.Apply(tree, epoch); err != nil {
			t.Fatal(err)
		}
		if err := Apply(tree, baseline(t, os, nil), epoch); err != nil {
			t.Fatal(err)
		}
		if text := read(t, tree, "etc/passwd"); !strings.Contains(text, "w:x:801:801::/home/w:/bin/bash\n") {
			t.Errorf("%s: passwd is\n%s", os, text)
		}
		for name, want := range map[string]image.Entry{
			"home": {Mode: fs.ModeDir | 0o755}, "home/w": {Mode: fs.ModeDir | 0o750, UID: 801, GID: 801}, "home/w/.ssh": {Mode: fs.ModeDir | 0o700, UID: 801, GID: 801},
		} {
			if e, err := tree.Stat(name); err != nil || !sameMeta(e, &want) {
				t.Errorf("%s: %s is %+v, %v", os, name, e, err)
			}
		}
		personal, err := l.Personal(tree)
		if err != nil || len(personal) != 1 || !slices.Contains(personal[0].Paths, "/home/w/.ssh/authorized_keys") {
			t.Errorf("%s: %v, %v", os, personal, err)
		}
	}
	for _, tt := range []struct {
		user User
		want string
	}{
		{User{Name: "w", UID: 801, Shell: "/bin/sh"}, `home "/"`},
		{User{Name: "w", UID: 801, Home: "/var", Shell: "/bin/sh"}, `home "/var"`},
		{User{Name: "w", UID: 801, Home: "/home/w"}, `shell "/bin/false"`},
		{User{Name: "w", UID: 801, Home: "/home/w", Shell: "/usr/sbin/nologin"}, `shell "/usr/sbin/nologin"`},
	} {
		l := &Layout{OS: Linux, Name: "web", Users: []User{tt.user}, Identity: &Identity{User: "w"}}
		if err := errors.Join(l.Check()...); err == nil || !strings.HasPrefix(err.Error(), "identity: user") || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%+v: %v", tt.user, err)
		}
	}
	// Of accounts of the base only the root says.
	tree := newTree(t, map[string]string{
		"etc/passwd": "root:x:0:0::/root:/bin/sh\nbin:x:1:1::/usr/bin:/bin/sh\nd:x:2:2::/srv/d:/bin/false\no:x:3:3::/srv/o:/bin/sh\n", "srv/o/x": "",
	})
	for user, want := range map[string]string{"bin": `home "/usr/bin"`, "d": "lets nobody in", "o": "from what others can write"} {
		l := &Layout{OS: Linux, Name: "web", Identity: &Identity{User: user}}
		if err := l.Apply(tree, epoch); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", user, err)
		}
	}
}
