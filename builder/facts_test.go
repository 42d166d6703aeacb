package builder

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"github.com/goldenisc/packer-plugin-isc/image"
)

// program returns a minimal ELF file, 64-bit unless it is for machine 3, with an interpreter.
func program(machine uint16, interp string) string {
	wide := machine != 3
	head, entry := 52, 32
	if wide {
		head, entry = 64, 56
	}
	b := make([]byte, head+entry)
	copy(b, "\x7fELF\x01\x01\x01")
	le := binary.LittleEndian
	le.PutUint16(b[18:], machine)
	ph := b[head:]
	le.PutUint32(ph, 3)
	if wide {
		b[4] = 2
		le.PutUint64(b[32:], uint64(head))
		le.PutUint16(b[54:], uint16(entry))
		le.PutUint16(b[56:], 1)
		le.PutUint64(ph[8:], uint64(len(b)))
		le.PutUint64(ph[32:], uint64(len(interp)+1))
	} else {
		le.PutUint32(b[28:], uint32(head))
		le.PutUint16(b[42:], uint16(entry))
		le.PutUint16(b[44:], 1)
		le.PutUint32(ph[4:], uint32(len(b)))
		le.PutUint32(ph[16:], uint32(len(interp)+1))
	}
	return string(b) + interp + "\x00"
}

// tree makes a tree of files; a name with a trailing slash is a folder, a content that starts with
// "-> " a symbolic link.
func tree(t *testing.T, files map[string]string) *image.Tree {
	t.Helper()
	tr, err := image.NewTree(t.TempDir(), image.DefaultLimits)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { tr.Close() })
	for _, name := range sortedKeys(files) {
		content := files[name]
		e := image.Entry{Name: name, Mode: 0o644}
		if dir, ok := strings.CutSuffix(name, "/"); ok {
			e = image.Entry{Name: dir, Mode: fs.ModeDir | 0o755}
		}
		if target, ok := strings.CutPrefix(content, "-> "); ok {
			e.Mode, e.Target, content = fs.ModeSymlink|0o777, target, ""
		}
		if err := tr.Put(e, []byte(content)); err != nil {
			t.Fatal(err)
		}
	}
	return tr
}

// roots are trees as distributions make them, cut down to what tells them.
var roots = []struct {
	name  string
	files map[string]string
	want  Facts
}{
	{
		"debian",
		map[string]string{
			"usr/lib/os-release":          "PRETTY_NAME=\"Debian GNU/Linux 12 (bookworm)\"\nNAME=\"Debian GNU/Linux\"\nVERSION_ID=\"12\"\nID=debian\n",
			"etc/os-release":              "-> ../usr/lib/os-release",
			"bin":                         "-> usr/bin",
			"usr/bin/sh":                  "-> dash",
			"usr/bin/dash":                program(62, "/lib64/ld-linux-x86-64.so.2"),
			"var/lib/dpkg/":               "",
			"usr/lib/systemd/systemd":     "",
			"usr/sbin/sshd":               "",
			"usr/share/doc/bash/README":   "x",
			"usr/lib/systemd/system/x.so": "x",
		},
		Facts{
			OS: "linux", Arch: "amd64", Release: "Debian GNU/Linux 12 (bookworm)", Version: "12", Systemd: true,
			Packages: "dpkg", Daemons: []Daemon{{"/usr/sbin/sshd", "22/tcp"}},
		},
	},
	{
		"alpine",
		map[string]string{
			"etc/os-release": "NAME=\"Alpine Linux\"\nID=alpine\nVERSION_ID=3.20.3\nPRETTY_NAME='Alpine Linux v3.20'\n",
			"bin/sh":         "-> /bin/busybox",
			"bin/busybox":    program(183, "/lib/ld-musl-aarch64.so.1"),
			"lib/apk/db/":    "",
		},
		Facts{OS: "linux", Arch: "arm64", Release: "Alpine Linux v3.20", Version: "3.20.3", Packages: "apk"},
	},
	{
		"omnios",
		map[string]string{
			"etc/os-release":    "NAME=\"OmniOS\"\nPRETTY_NAME=\"OmniOS Community Edition v11 r151054\"\nID=omnios\nVERSION=r151054\nVERSION_ID=r151054\n",
			"etc/release":       "  OmniOS v11 r151054\n  Copyright (c) 2012-2017 OmniTI Computer Consulting, Inc.\n",
			"lib/svc/manifest/": "",
			"usr/bin/sh":        "-> i86/ksh93",
			"usr/bin/i86/ksh93": program(3, "/usr/lib/ld.so.1"),
			"var/pkg/":          "",
		},
		Facts{OS: "illumos", Arch: "amd64", Release: "OmniOS Community Edition v11 r151054", Version: "r151054", Packages: "ips"},
	},
	{
		"illumos by release only",
		map[string]string{
			"etc/release": "             OpenIndiana Hipster 2024.10 (powered by illumos)\n",
			"usr/bin/ls":  program(62, "/lib/amd64/ld.so.1"),
		},
		Facts{OS: "illumos", Arch: "amd64", Release: "OpenIndiana Hipster 2024.10 (powered by illumos)", Version: "2024.10"},
	},
	{
		"solaris",
		map[string]string{
			"etc/os-release":    "NAME=\"Oracle Solaris\"\nPRETTY_NAME=\"Oracle Solaris 11.4\"\nID=solaris\nVERSION=11.4\nVERSION_ID=11.4\n",
			"etc/release":       "                             Oracle Solaris 11.4 X86\n",
			"lib/svc/manifest/": "",
			"usr/bin/ls":        program(62, "/lib/amd64/ld.so.1"),
			"var/pkg/":          "",
		},
		Facts{OS: "solaris", Arch: "amd64", Release: "Oracle Solaris 11.4", Version: "11.4", Packages: "ips"},
	},
	{
		"solaris by release only",
		map[string]string{"etc/release": "                             Oracle Solaris 11.3 X86\n", "lib/svc/manifest/": "", "usr/bin/sh": program(3, "/usr/lib/ld.so.1")},
		Facts{OS: "solaris", Arch: "amd64", Release: "Oracle Solaris 11.3 X86", Version: "11.3"},
	},
	{"nothing", map[string]string{}, Facts{}},
	{
		"odd",
		map[string]string{
			"etc/os-release": "-> os-release", // a loop
			"etc/release":    "-> ../../../../etc/passwd",
			"bin/sh":         "#!/bin/true\n",
			"usr/bin/a":      program(62, "/lib64/ld-linux-x86-64.so.2")[:70],
			"usr/bin/b":      "\x7fELF",
		},
		Facts{Arch: "amd64"},
	},
}

func TestInspect(t *testing.T) {
	for _, c := range roots {
		got, err := Inspect(tree(t, c.files))
		if err != nil || !reflect.DeepEqual(got, c.want) {
			t.Errorf("%s: got %+v, %v, want %+v", c.name, got, err, c.want)
		}
	}
}

// TestInit shows that what init writes is valid and as fmt writes it.
func TestInit(t *testing.T) {
	dir := t.TempDir()
	if err := os.Mkdir(filepath.Join(dir, "ro${o}t"), 0o700); err != nil {
		t.Fatal(err)
	}
	for _, c := range roots {
		for _, source := range []string{"", "dir:ro${o}t", "registry.example/base:1"} {
			f := c.want
			f.Source = source
			src := Init(f)
			name := filepath.Join(dir, "app.isc.hcl")
			spec, diags := ParseSpec(name, src, Options{})
			if len(diags) > 0 {
				t.Errorf("%s, %q: %s\n%s", c.name, source, report(spec, diags), src)
				continue
			}
			if source != "" && spec.Base.Source != source {
				t.Errorf("%s: source %q, want %q", c.name, spec.Base.Source, source)
			}
			if err := spec.CheckBase(f); err != nil && f.OS != "" {
				t.Errorf("%s: %v", c.name, err)
			}
			if formatted, _ := Format(name, src); !bytes.Equal(formatted, src) {
				t.Errorf("%s: not as fmt writes it", c.name)
			}
		}
	}
	golden(t, "testdata/init-debian.hcl", string(Init(roots[0].want)))
	golden(t, "testdata/init-omnios.hcl", string(Init(roots[2].want)))

	evil := Facts{Release: "a\nimage {}", Version: "1\"2\n", Daemons: []Daemon{{"/${x}", "y"}}}
	if spec, diags := ParseSpec("x", Init(evil), Options{}); len(diags) > 0 {
		t.Error(report(spec, diags))
	}
}

func TestCheckBase(t *testing.T) {
	debian := roots[0].want
	for _, c := range []struct{ os, arch, release, want string }{
		{"linux", "amd64", "", ""},
		{"linux", "amd64", "12", ""},
		{"linux", "amd64", "13", ""},
		{"linux", "amd64", "11", `base "dir:x" (Debian GNU/Linux 12 (bookworm)) is release 12: newer than base.release, "11"`},
		{"linux", "amd64", "r151054", `base "dir:x" (Debian GNU/Linux 12 (bookworm)): base.release: "r151054" cannot be compared with the base's release "12"`},
		{"illumos", "amd64", "", `base "dir:x" (Debian GNU/Linux 12 (bookworm)) is a linux system: image.os says "illumos"`},
		{"illumos", "arm64", "", `base "dir:x" (Debian GNU/Linux 12 (bookworm)) is a linux system: image.os says "illumos"
base "dir:x" (Debian GNU/Linux 12 (bookworm)) holds amd64 programs: image.arch says "arm64"`},
	} {
		s := &Spec{Image: &Image{OS: c.os, Arch: c.arch}, Base: &Base{Source: "dir:x", Release: c.release}}
		err := s.CheckBase(debian)
		if got := errorText(err); got != c.want {
			t.Errorf("%+v: got %s", c, got)
		}
	}
}

func errorText(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}

func TestNewerRelease(t *testing.T) {
	for _, c := range []struct {
		version, declared string
		newer, ok         bool
	}{
		{"r151054", "r151054", false, true},
		{"r151054", "r151052", true, true},
		{"r151054", "R151056", false, true},
		{"12.4", "12", false, true},
		{"12", "12.4", false, true},
		{"3.20.3", "3.9", true, true},
		{"24.04", "24.4", false, true},
		{"20241018T000000Z", "20240101T000000Z", true, true},
		{"99999999999999999999999", "99999999999999999999998", true, true},
		{"12", "bookworm", false, false},
		{"", "12", false, false},
	} {
		newer, err := newerRelease(c.version, c.declared)
		if newer != c.newer || (err == nil) != c.ok {
			t.Errorf("%q, declared %q: %v, %v", c.version, c.declared, newer, err)
		}
	}
}

func FuzzInspectELF(f *testing.F) {
	f.Add([]byte(program(62, "/lib64/ld-linux-x86-64.so.2")))
	f.Add([]byte(program(3, "/usr/lib/ld.so.1")))
	f.Fuzz(func(t *testing.T, data []byte) {
		_, _, err := inspectELF(bytes.NewReader(data))
		if err != nil && !errors.Is(err, errNotELF) {
			t.Fatal(err)
		}
	})
}
