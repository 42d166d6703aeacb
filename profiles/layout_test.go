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
