package main_test

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/goldenisc/packer-plugin-isc/internal/basetest"
)

func leftovers(t *testing.T) int {
	t.Helper()
	names, err := filepath.Glob(filepath.Join(os.TempDir(), "isc-root-*"))
	if err != nil {
		t.Fatal(err)
	}
	return len(names)
}

// TestRealCancel interrupts a build while a command runs.
func TestRealCancel(t *testing.T) {
	p := newPacker(t)
	archive, err := basetest.Debian(context.Background(), basetest.SmallDebian)
	if err != nil {
		t.Fatal(err)
	}
	p.template(t, "web.pkr.hcl", fmt.Sprintf(`
source "isc-image" "web" {
  output = "oci:images"
  image {
    name    = "web"
    version = "1"
    os      = "linux"
    arch    = "amd64"
  }
  base {
    source = "tar:%s"
  }
}

build {
  sources = ["source.isc-image.web"]
  provisioner "shell" {
    inline = ["echo started", "sleep 4242"]
  }
}
`, archive))
	before := leftovers(t)
	for name, signal := range map[string]func(pid int) error{
		"SIGTERM":             func(pid int) error { return syscall.Kill(pid, syscall.SIGTERM) },
		"SIGINT to the group": func(pid int) error { return syscall.Kill(-pid, syscall.SIGINT) },
	} {
		t.Run(name, func(t *testing.T) {
			c, _ := p.command("build", "web.pkr.hcl")
			out := &waiter{want: "started", found: make(chan struct{})}
			c.Stdout, c.Stderr = out, out
			if err := c.Start(); err != nil {
				t.Fatal(err)
			}
			done := make(chan error, 1)
			go func() { done <- c.Wait() }()
			select {
			case <-out.found:
			case err := <-done:
				t.Fatalf("%v\n%s", err, out)
			}
			if err := signal(c.Process.Pid); err != nil {
				t.Fatal(err)
			}
			select {
			case <-done:
			case <-time.After(time.Minute):
				syscall.Kill(-c.Process.Pid, syscall.SIGKILL)
				t.Fatalf("it did not end\n%s", out)
			}
			if c.ProcessState.ExitCode() != 1 {
				t.Errorf("status %d\n%s", c.ProcessState.ExitCode(), out)
			}
			if _, err := os.Stat(filepath.Join(p.dir, "images")); err == nil {
				t.Error("it left a layout")
			}
			if running(t, "sleep\x004242") {
				t.Error("the command still runs")
			}
			if after := leftovers(t); after != before {
				t.Errorf("left behind: %d folders more", after-before)
			}
		})
	}
}

// A waiter keeps output and tells when it has some text.
type waiter struct {
	mu    sync.Mutex
	buf   bytes.Buffer
	want  string
	found chan struct{}
	once  sync.Once
}

func (w *waiter) Write(p []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.buf.Write(p)
	if strings.Contains(w.buf.String(), w.want) {
		w.once.Do(func() { close(w.found) })
	}
	return len(p), nil
}

func (w *waiter) String() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.buf.String()
}

func running(t *testing.T, command string) bool {
	t.Helper()
	names, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range names {
		if data, err := os.ReadFile(name); err == nil && strings.HasPrefix(string(data), command) {
			return true
		}
	}
	return false
}

func matches(text, pattern string) bool {
	return regexp.MustCompile(`(?m)^` + pattern).MatchString(text)
}
