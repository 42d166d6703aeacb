// Package sshtest runs a real OpenSSH server on loopback, whose sessions have a Debian as their root.
package sshtest

import (
	"bytes"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"github.com/goldenisc/packer-plugin-isc/internal/remote"
)

// A Server is one that runs until the test ends.
type Server struct {
	Root   string // the folder that sessions see as /
	Port   int    // on 127.0.0.1
	Key    string // the file of root's private key
	Target remote.Target
	Known  remote.Options

	work string // keys and configuration
}

// Start unpacks the archive of a Debian and starts this machine's server for it. It takes root.
func Start(t testing.TB, archive string) *Server {
	t.Helper()
	s := unpack(t, archive)
	write(t, filepath.Join(s.work, "config"), 0o600, fmt.Sprintf(`Port %d
ListenAddress 127.0.0.1
HostKey %[2]s/host
PidFile %[2]s/pid
AuthorizedKeysFile %[2]s/user.pub
StrictModes no
PermitRootLogin prohibit-password
PasswordAuthentication no
UsePAM no
MaxStartups 100
ChrootDirectory %[3]s
`, s.Port, s.work, s.Root))
	check(t, os.MkdirAll("/run/sshd", 0o755))
	s.start(t, "/usr/sbin/sshd", "-D", "-e", "-f", filepath.Join(s.work, "config"))
	return s
}

// StartOwn unpacks the archive of a Debian that has a server and sudo, and starts that server in it, with
// the configuration that is there. The key is root's and that of an account keeper, who may sudo. What reloads
// services there reloads the server. It takes root.
func StartOwn(t testing.TB, archive string) *Server {
	t.Helper()
	s := unpack(t, archive)
	in := func(name string) string { return filepath.Join(s.Root, name) }
	run(t, "chroot", s.Root, "useradd", "-m", "-s", "/bin/bash", "keeper")
	run(t, "chroot", s.Root, "usermod", "-p", "*", "keeper") // logs in by key; "!" would be locked without PAM
	public, err := os.ReadFile(s.Key + ".pub")
	check(t, err)
	for _, home := range []string{"root", "home/keeper"} {
		check(t, os.MkdirAll(in(home+"/.ssh"), 0o700))
		write(t, in(home+"/.ssh/authorized_keys"), 0o600, string(public))
	}
	run(t, "chroot", s.Root, "chown", "-R", "keeper:", "/home/keeper")
	write(t, in("etc/sudoers.d/keeper"), 0o440, "keeper ALL=(ALL) NOPASSWD: ALL\n")
	for _, name := range []string{"host", "host.pub"} {
		data, err := os.ReadFile(filepath.Join(s.work, name))
		check(t, err)
		write(t, in("etc/ssh/ssh_host_ed25519_key"+name[len("host"):]), 0o600, string(data))
	}
	write(t, in("usr/bin/systemctl"), 0o755, "#!/bin/sh\ncase \"$1\" in reload) kill -HUP \"$(cat /run/sshd.pid)\" ;; esac\n")
	script := `set -e
mount -t tmpfs -o mode=755 tmpfs "$1/run"
mkdir -p "$1/run/sshd" "$1/run/systemd/system"
mount --rbind /dev "$1/dev"
mount -t proc proc "$1/proc"
exec chroot "$1" /usr/sbin/sshd -D -e -p "$2" -o ListenAddress=127.0.0.1 -o UsePAM=no -o MaxStartups=100`
	s.start(t, "unshare", "--mount", "sh", "-c", script, "sh", s.Root, strconv.Itoa(s.Port))
	return s
}

// As is the server with another account.
func (s *Server) As(user string) remote.Target {
	t := s.Target
	t.User = user
	return t
}

func check(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func run(t testing.TB, name string, args ...string) {
	t.Helper()
	if out, err := exec.Command(name, args...).CombinedOutput(); err != nil {
		t.Fatalf("%s: %v\n%s", name, err, out)
	}
}

func write(t testing.TB, name string, mode os.FileMode, text string) {
	t.Helper()
	check(t, os.WriteFile(name, []byte(text), mode))
}

// unpack makes the root, the keys and the choice of a port.
func unpack(t testing.TB, archive string) *Server {
	t.Helper()
	// sshd wants every folder above the root to be root's alone, which those for tests are not.
	root, err := os.MkdirTemp("/var/lib", "isc-sshtest-*")
	check(t, err)
	t.Cleanup(func() { os.RemoveAll(root) })
	run(t, "tar", "-xpf", archive, "-C", root)
	check(t, os.Chmod(root, 0o755))

	work := t.TempDir()
	for _, name := range []string{"host", "user"} {
		run(t, "ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", filepath.Join(work, name))
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	check(t, err)
	port := l.Addr().(*net.TCPAddr).Port
	check(t, l.Close())
	public, err := os.ReadFile(filepath.Join(work, "host.pub"))
	check(t, err)
	known := filepath.Join(work, "known_hosts")
	write(t, known, 0o600, fmt.Sprintf("[127.0.0.1]:%d %s", port, public))
	key := filepath.Join(work, "user")
	return &Server{
		Root: root, Port: port, Key: key, work: work,
		Target: remote.Target{User: "root", Host: "127.0.0.1", Port: port},
		Known:  remote.Options{KnownHosts: []string{known}, Keys: []string{key}},
	}
}

// start runs the server until the test ends, and waits until it listens.
func (s *Server) start(t testing.TB, name string, args ...string) {
	t.Helper()
	c := exec.Command(name, args...)
	var log bytes.Buffer
	c.Stderr, c.WaitDelay = &log, time.Second // sessions keep it open
	check(t, c.Start())
	t.Cleanup(func() {
		c.Process.Kill()
		c.Wait()
		if t.Failed() {
			t.Log(log.String())
		}
	})
	t.Setenv("SSH_AUTH_SOCK", "")
	for range 200 {
		if conn, err := net.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", s.Port)); err == nil {
			conn.Close()
			return
		}
		time.Sleep(50 * time.Millisecond)
	}
	t.Error("the server does not listen")
}
