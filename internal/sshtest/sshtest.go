// Package sshtest runs a real OpenSSH server on loopback, whose sessions have a Debian as their root.
package sshtest

import (
	"bytes"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
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
}

// Start unpacks the archive of a Debian and starts a server for it. It takes root.
func Start(t testing.TB, archive string) *Server {
	t.Helper()
	run := func(name string, args ...string) {
		t.Helper()
		if out, err := exec.Command(name, args...).CombinedOutput(); err != nil {
			t.Fatalf("%s: %v\n%s", name, err, out)
		}
	}
	check := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	// sshd wants every folder above the root to be root's alone, which those for tests are not.
	root, err := os.MkdirTemp("/var/lib", "isc-sshtest-*")
	check(err)
	t.Cleanup(func() { os.RemoveAll(root) })
	run("tar", "-xpf", archive, "-C", root)
	check(os.Chmod(root, 0o755))

	work := t.TempDir()
	for _, name := range []string{"host", "user"} {
		run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", filepath.Join(work, name))
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	check(err)
	port := l.Addr().(*net.TCPAddr).Port
	check(l.Close())
	check(os.WriteFile(filepath.Join(work, "config"), fmt.Appendf(nil, `Port %d
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
`, port, work, root), 0o600))
	check(os.MkdirAll("/run/sshd", 0o755))

	c := exec.Command("/usr/sbin/sshd", "-D", "-e", "-f", filepath.Join(work, "config"))
	var log bytes.Buffer
	c.Stderr, c.WaitDelay = &log, time.Second // sessions keep it open
	check(c.Start())
	t.Cleanup(func() {
		c.Process.Kill()
		c.Wait()
		if t.Failed() {
			t.Log(log.String())
		}
	})
	public, err := os.ReadFile(filepath.Join(work, "host.pub"))
	check(err)
	known := filepath.Join(work, "known_hosts")
	check(os.WriteFile(known, fmt.Appendf(nil, "[127.0.0.1]:%d %s", port, public), 0o600))
	t.Setenv("SSH_AUTH_SOCK", "")
	for range 200 {
		if conn, err := net.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", port)); err == nil {
			conn.Close()
			break
		}
		time.Sleep(50 * time.Millisecond)
	}
	key := filepath.Join(work, "user")
	return &Server{
		Root: root, Port: port, Key: key,
		Target: remote.Target{User: "root", Host: "127.0.0.1", Port: port},
		Known:  remote.Options{KnownHosts: []string{known}, Keys: []string{key}},
	}
}
