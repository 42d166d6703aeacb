package main_test

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
)

// A packer is the real program with our plugin installed.
type packer struct {
	dir     string // what templates are relative to
	env     []string
	program string // where it is
	user    uint32 // who runs it, if that is not who runs the test
}

const release = "1.2.3"

// binary is built once, as a release: packer init takes nothing else without a network.
var binary = sync.OnceValues(func() (string, error) {
	dir, err := os.MkdirTemp("", "packer-plugin-isc-*")
	if err != nil {
		return "", err
	}
	name := filepath.Join(dir, "packer-plugin-isc")
	const vars = "github.com/goldenisc/packer-plugin-isc/cmd/packer-plugin-isc/version."
	build := exec.Command("go", "build", "-ldflags", "-X "+vars+"Version="+release+" -X "+vars+"Prerelease=", "-o", name, ".")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	out, err := build.CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("%w\n%s", err, out)
	}
	return name, nil
})

func newPacker(t *testing.T) *packer {
	t.Helper()
	if os.Getenv("ISC_REAL") == "" {
		t.Skip("runs with ISC_REAL")
	}
	name, err := binary()
	if err != nil {
		t.Fatal(err)
	}
	program := cmp.Or(os.Getenv("ISC_PACKER"), "packer") // an older one
	if _, err := exec.LookPath(program); err != nil {
		t.Fatal(err)
	}
	home := t.TempDir()
	p := &packer{dir: t.TempDir(), program: program, env: append(os.Environ(),
		"CHECKPOINT_DISABLE=1", "PACKER_NO_COLOR=1", "HOME="+home,
		"PACKER_PLUGIN_PATH="+filepath.Join(home, "plugins"), "PACKER_CONFIG_DIR="+filepath.Join(home, "config"),
		"PACKER_CACHE_DIR="+filepath.Join(home, "cache"), "SOURCE_DATE_EPOCH=1700000000")}
	p.run(t, 0, "plugins", "install", "--path", name, "github.com/goldenisc/isc")
	return p
}

// template writes a file, with required_plugins in front.
func (p *packer) template(t *testing.T, name, text string) {
	t.Helper()
	text = "packer {\n  required_plugins {\n    isc = {\n      source  = \"github.com/goldenisc/isc\"\n      version = \">= 1.0.0\"\n    }\n  }\n}\n" + text
	p.write(t, name, text)
}

func (p *packer) write(t *testing.T, name, text string) {
	t.Helper()
	name = filepath.Join(p.dir, name)
	if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(name, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

func (p *packer) command(args ...string) (*exec.Cmd, *bytes.Buffer) {
	var out bytes.Buffer
	c := exec.Command(p.program, args...)
	c.Dir, c.Env, c.Stdout, c.Stderr = p.dir, p.env, &out, &out
	c.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if p.user != 0 {
		c.SysProcAttr.Credential = &syscall.Credential{Uid: p.user, Gid: p.user}
	}
	return c, &out
}

// run runs packer and returns what it printed.
func (p *packer) run(t *testing.T, status int, args ...string) string {
	t.Helper()
	c, out := p.command(args...)
	err := c.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	if got := c.ProcessState.ExitCode(); got != status {
		t.Fatalf("packer %s: status %d, want %d\n%s", strings.Join(args, " "), got, status, out)
	}
	return out.String()
}

// records are the lines of -machine-readable of one type.
func records(out, kind string) [][]string {
	var list [][]string
	for line := range strings.Lines(out) {
		f := strings.Split(strings.TrimSpace(line), ",")
		if len(f) > 3 && f[2] == kind {
			for i := range f {
				f[i] = strings.ReplaceAll(f[i], "%!(PACKER_COMMA)", ",")
			}
			list = append(list, f[3:])
		}
	}
	return list
}

func iscadm(t *testing.T, dir string, args ...string) string {
	t.Helper()
	name := os.Getenv("ISCADM")
	if name == "" {
		t.Fatal("ISCADM does not name the program")
	}
	c := exec.Command(name, args...)
	c.Dir = dir
	c.Env = append(os.Environ(), "SOURCE_DATE_EPOCH=1700000000", "ISCADM_STATE="+filepath.Join(dir, "state"))
	var diag bytes.Buffer
	c.Stderr = &diag
	out, err := c.Output()
	if err != nil {
		t.Fatalf("iscadm %s: %v\n%s", strings.Join(args, " "), err, &diag)
	}
	return strings.TrimSpace(string(out))
}

const blocks = `
  image {
    name    = "web"
    version = "1.4.0"
    os      = "linux"
    arch    = "amd64"
  }
  base {
    source = "skeleton:linux"
  }
  file {
    path    = "/etc/motd"
    content = "{{not a template}} $${neither}\n"
  }
  user {
    name = "webd"
    uid  = 801
  }
  service {
    name   = "web"
    exec   = "/opt/web/webd"
    user   = "webd"
    listen = ["8080/tcp"]
  }
  file {
    path    = "/opt/web/webd"
    content = "#!/bin/sh\n"
    mode    = "0555"
  }
`
