package profiles

import (
	"errors"
	"io/fs"
	"slices"
	"strings"
	"testing"

	"github.com/goldenisc/packer-plugin-isc/image"
)

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
