package main

import (
	"bufio"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// TestPassword types a password on a pseudo-terminal, after it was asked for: it is not shown.
func TestPassword(t *testing.T) {
	master, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer master.Close()
	fd := int(master.Fd())
	if err := unix.IoctlSetPointerInt(fd, unix.TIOCSPTLCK, 0); err != nil {
		t.Fatal(err)
	}
	n, err := unix.IoctlGetInt(fd, unix.TIOCGPTN)
	if err != nil {
		t.Fatal(err)
	}
	tty, err := os.OpenFile(fmt.Sprint("/dev/pts/", n), os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer tty.Close()
	slave := int(tty.Fd())

	dir := t.TempDir()
	c := exec.Command("iscadm", "keygen", "-o", filepath.Join(dir, "rel"))
	c.Env = append(os.Environ(), "HOME="+dir)
	c.Env = deleteVar(c.Env, "COSIGN_PASSWORD")
	c.Stdin = tty
	prompts, err := c.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	r := bufio.NewReader(prompts)
	for range 2 {
		if _, err := r.ReadString(':'); err != nil {
			t.Fatal(err)
		}
		waitNoEcho(t, slave)
		if _, err := master.WriteString("geheim\n"); err != nil {
			t.Fatal(err)
		}
	}
	if err := c.Wait(); err != nil {
		t.Fatal(err)
	}
	state, err := unix.IoctlGetTermios(slave, unix.TCGETS)
	if err != nil || state.Lflag&unix.ECHO == 0 {
		t.Errorf("the terminal is left without echo (%v)", err)
	}
	if _, err := tty.WriteString("\nend\n"); err != nil {
		t.Fatal(err)
	}
	shown := bufio.NewReader(master)
	for {
		line, err := shown.ReadString('\n')
		if strings.Contains(line, "geheim") {
			t.Fatalf("shown: %q", line)
		}
		if err != nil || strings.HasPrefix(line, "end") {
			break
		}
	}
}

// waitNoEcho waits until a terminal shows nothing of what is typed.
func waitNoEcho(t *testing.T, fd int) {
	for {
		state, err := unix.IoctlGetTermios(fd, unix.TCGETS)
		if err != nil {
			t.Fatal(err)
		}
		if state.Lflag&unix.ECHO == 0 {
			return
		}
	}
}

func deleteVar(env []string, name string) []string {
	var out []string
	for _, v := range env {
		if !strings.HasPrefix(v, name+"=") {
			out = append(out, v)
		}
	}
	return out
}
