package remote

import (
	"context"
	"crypto/ed25519"
	"encoding/pem"
	"errors"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"testing"

	"golang.org/x/crypto/ssh"
	"golang.org/x/crypto/ssh/knownhosts"
)

// A server is an SSH server in this process, which runs the lines it gets by sh.
type server struct {
	addr    string
	target  Target
	options Options
	host    ssh.PublicKey
}

func newKey(t testing.TB, path string) ssh.Signer {
	t.Helper()
	_, key, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	block, err := ssh.MarshalPrivateKey(key, "")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, pem.EncodeToMemory(block), 0o600); err != nil {
		t.Fatal(err)
	}
	s, err := ssh.NewSignerFromKey(key)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// known writes a file of known hosts.
func known(t testing.TB, path string, hosts map[string]ssh.PublicKey) {
	t.Helper()
	var b []byte
	for addr, key := range hosts {
		b = append(b, knownhosts.Line([]string{addr}, key)+"\n"...)
	}
	if err := os.WriteFile(path, b, 0o600); err != nil {
		t.Fatal(err)
	}
}

func newServer(t testing.TB) *server {
	t.Helper()
	if _, err := exec.LookPath("sh"); err != nil {
		t.Skip("the server in this test runs commands by sh")
	}
	dir := t.TempDir()
	hostKey := newKey(t, filepath.Join(dir, "host"))
	userKey := newKey(t, filepath.Join(dir, "user"))
	config := &ssh.ServerConfig{PublicKeyCallback: func(_ ssh.ConnMetadata, key ssh.PublicKey) (*ssh.Permissions, error) {
		if string(key.Marshal()) != string(userKey.PublicKey().Marshal()) {
			return nil, errors.New("not this key")
		}
		return nil, nil
	}}
	config.AddHostKey(hostKey)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go serve(c, config)
		}
	}()
	s := &server{addr: l.Addr().String(), host: hostKey.PublicKey()}
	_, port, _ := net.SplitHostPort(s.addr)
	n, _ := strconv.Atoi(port)
	s.target = Target{User: "someone", Host: "127.0.0.1", Port: n}
	s.options = Options{KnownHosts: []string{filepath.Join(dir, "known")}, Keys: []string{filepath.Join(dir, "user")}}
	known(t, s.options.KnownHosts[0], map[string]ssh.PublicKey{s.addr: s.host})
	t.Setenv("SSH_AUTH_SOCK", "")
	return s
}

func serve(c net.Conn, config *ssh.ServerConfig) {
	defer c.Close()
	_, chans, reqs, err := ssh.NewServerConn(c, config)
	if err != nil {
		return
	}
	go ssh.DiscardRequests(reqs)
	for nc := range chans {
		switch nc.ChannelType() {
		case "session":
			ch, reqs, err := nc.Accept()
			if err == nil {
				go session(ch, reqs)
			}
		case "direct-tcpip":
			var to struct {
				Host   string
				Port   uint32
				Origin string
				From   uint32
			}
			if ssh.Unmarshal(nc.ExtraData(), &to) != nil {
				nc.Reject(ssh.ConnectionFailed, "malformed")
				continue
			}
			out, err := net.Dial("tcp", net.JoinHostPort(to.Host, strconv.Itoa(int(to.Port))))
			if err != nil {
				nc.Reject(ssh.ConnectionFailed, err.Error())
				continue
			}
			ch, reqs, err := nc.Accept()
			if err != nil {
				out.Close()
				continue
			}
			go ssh.DiscardRequests(reqs)
			go func() { io.Copy(out, ch); out.Close() }()
			go func() { io.Copy(ch, out); ch.Close() }()
		default:
			nc.Reject(ssh.UnknownChannelType, "no")
		}
	}
}

func session(ch ssh.Channel, reqs <-chan *ssh.Request) {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	for r := range reqs {
		var line struct{ Text string }
		switch {
		case r.Type == "exec" && ssh.Unmarshal(r.Payload, &line) == nil:
			r.Reply(true, nil)
			go func() {
				defer ch.Close()
				cmd := exec.CommandContext(ctx, "sh", "-c", line.Text)
				in, err := cmd.StdinPipe()
				if err != nil {
					return
				}
				go func() { io.Copy(in, ch); in.Close() }()
				cmd.Stdout, cmd.Stderr = ch, ch.Stderr()
				cmd.Run()
				if cmd.ProcessState == nil {
					return
				}
				if name := signalName(cmd.ProcessState); name != "" {
					ch.SendRequest("exit-signal", false, ssh.Marshal(struct {
						Signal string
						Core   bool
						Text   string
						Lang   string
					}{name, false, "", ""}))
					return
				}
				ch.SendRequest("exit-status", false, ssh.Marshal(struct{ N uint32 }{uint32(cmd.ProcessState.ExitCode())}))
			}()
		case r.Type == "signal":
			cancel()
		default:
			r.Reply(false, nil)
		}
	}
}
