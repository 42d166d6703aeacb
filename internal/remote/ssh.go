package remote

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/user"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"time"

	"golang.org/x/crypto/ssh"
	"golang.org/x/crypto/ssh/agent"
	"golang.org/x/crypto/ssh/knownhosts"
)

// Options say what a connection goes by. The zero value is what ssh(1) goes by without a
// configuration file, which is not read.
type Options struct {
	KnownHosts []string // files; default ~/.ssh/known_hosts and /etc/ssh/ssh_known_hosts, if they exist
	Keys       []string // private key files without passphrase; default those of ~/.ssh that exist
	AgentSock  string   // of an agent; default $SSH_AUTH_SOCK
}

// dialTimeout bounds connecting and logging in, at each hop.
const dialTimeout = 30 * time.Second

// A Client is a connection to an account on another machine. It is a [Runner].
type Client struct {
	name  string
	conns []*ssh.Client // of the hops, in order
	agent net.Conn

	closing sync.Once
	err     error
}

// Dial connects to a target, through its jump hosts.
func Dial(ctx context.Context, t Target, o Options) (*Client, error) {
	c := &Client{name: t.host().addr()}
	err := c.dial(ctx, t, o)
	if err != nil {
		c.Close()
		return nil, fmt.Errorf("ssh %s: %w", c.name, err)
	}
	return c, nil
}

func (c *Client) dial(ctx context.Context, t Target, o Options) error {
	known, err := knownHosts(o.KnownHosts)
	if err != nil {
		return err
	}
	auth, err := c.auth(t, o)
	if err != nil {
		return err
	}
	for _, hop := range append(append([]Host{}, t.Jump...), t.host()) {
		if err := c.hop(ctx, hop, known, auth); err != nil {
			if hop != t.host() {
				err = fmt.Errorf("jump host %s: %w", hop.addr(), err)
			}
			return err
		}
	}
	return nil
}

// hop connects to one more machine, through those before.
func (c *Client) hop(ctx context.Context, h Host, known ssh.HostKeyCallback, auth ssh.AuthMethod) error {
	ctx, cancel := context.WithTimeout(ctx, dialTimeout)
	defer cancel()
	name := h.User
	if name == "" {
		u, err := user.Current()
		if err != nil {
			return err
		}
		name = u.Username[strings.LastIndexByte(u.Username, '\\')+1:] // of a Windows domain
	}
	var conn net.Conn
	var err error
	if n := len(c.conns); n > 0 {
		conn, err = c.conns[n-1].DialContext(ctx, "tcp", h.addr())
	} else {
		conn, err = new(net.Dialer).DialContext(ctx, "tcp", h.addr())
	}
	if err != nil {
		return err
	}
	stop := context.AfterFunc(ctx, func() { conn.Close() }) // ends the handshake
	sc, chans, reqs, err := ssh.NewClientConn(conn, h.addr(), &ssh.ClientConfig{
		User: name, Auth: []ssh.AuthMethod{auth},
		HostKeyCallback: known, HostKeyAlgorithms: algorithms(known, h.addr()),
	})
	if !stop() && err == nil {
		err = ctx.Err()
	}
	if err != nil {
		conn.Close()
		if ctx.Err() != nil {
			return ctx.Err()
		}
		return hostKeyError(err)
	}
	c.conns = append(c.conns, ssh.NewClient(sc, chans, reqs))
	return nil
}

// hostKeyError says what to do about an unknown host.
func hostKeyError(err error) error {
	var ke *knownhosts.KeyError
	switch {
	case !errors.As(err, &ke):
		return err
	case len(ke.Want) == 0:
		return errors.New("its host key is not in known_hosts: connect once with ssh(1) and compare it")
	}
	return fmt.Errorf("its host key is NOT the one in %q, line %d: somebody may be in between, or the host was installed anew",
		ke.Want[0].Filename, ke.Want[0].Line)
}

// knownHosts reads the files of known hosts.
func knownHosts(files []string) (ssh.HostKeyCallback, error) {
	if files == nil {
		if home, err := os.UserHomeDir(); err == nil {
			files = append(files, filepath.Join(home, ".ssh", "known_hosts"))
		}
		if runtime.GOOS != "windows" {
			files = append(files, "/etc/ssh/ssh_known_hosts")
		}
		files = existing(files)
	}
	return knownhosts.New(files...)
}

// algorithms returns those of the keys that a host is known by, so that it does not offer another
// one, which would look like an attack. A host that is not known has none.
func algorithms(known ssh.HostKeyCallback, addr string) []string {
	var ke *knownhosts.KeyError
	if !errors.As(known(addr, &net.TCPAddr{IP: net.IPv4zero}, noKey{}), &ke) {
		return nil
	}
	var list []string
	for _, k := range ke.Want {
		switch t := k.Key.Type(); t {
		case ssh.KeyAlgoRSA:
			list = append(list, ssh.KeyAlgoRSASHA512, ssh.KeyAlgoRSASHA256)
		default:
			list = append(list, t)
		}
	}
	return list
}

// noKey is no host's key.
type noKey struct{}

func (noKey) Type() string                        { return "none" }
func (noKey) Marshal() []byte                     { return nil }
func (noKey) Verify([]byte, *ssh.Signature) error { return errors.New("no key") }

// auth offers the keys of the agent and of files, in this order.
func (c *Client) auth(t Target, o Options) (ssh.AuthMethod, error) {
	sock := o.AgentSock
	if sock == "" {
		sock = os.Getenv("SSH_AUTH_SOCK")
	}
	var ag agent.ExtendedAgent
	if sock != "" {
		conn, err := net.Dial("unix", sock)
		if err == nil {
			c.agent = conn
			ag = agent.NewClient(conn)
		} else if o.AgentSock != "" {
			return nil, fmt.Errorf("agent: %w", err)
		}
	}
	var signers []ssh.Signer
	files, must := o.Keys, true
	if t.Key != "" {
		files = append([]string{t.Key}, files...)
	} else if files == nil {
		must = false
		if home, err := os.UserHomeDir(); err == nil {
			for _, name := range []string{"id_ed25519", "id_ecdsa", "id_rsa"} {
				files = append(files, filepath.Join(home, ".ssh", name))
			}
		}
		files = existing(files)
	}
	for _, name := range files {
		s, err := readKey(name)
		if err != nil && must {
			return nil, fmt.Errorf("key %q: %w", name, err)
		}
		if err == nil {
			signers = append(signers, s)
		}
	}
	return ssh.PublicKeysCallback(func() ([]ssh.Signer, error) {
		if ag == nil {
			return signers, nil
		}
		held, err := ag.Signers()
		if err != nil && len(signers) == 0 {
			return nil, fmt.Errorf("agent: %w", err)
		}
		return append(held, signers...), nil
	}), nil
}

// maxKey bounds a key file, in bytes.
const maxKey = 1 << 20

func readKey(name string) (ssh.Signer, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxKey))
	if err != nil {
		return nil, err
	}
	s, err := ssh.ParsePrivateKey(data)
	var locked *ssh.PassphraseMissingError
	if errors.As(err, &locked) {
		return nil, errors.New("has a passphrase: add it to an agent with ssh-add(1)")
	}
	return s, err
}

func existing(files []string) []string {
	var list []string
	for _, f := range files {
		if _, err := os.Stat(f); err == nil {
			list = append(list, f)
		}
	}
	return list
}

// Run runs the command on the other machine.
func (c *Client) Run(ctx context.Context, cmd Command) error {
	if err := check(cmd.Args, true); err != nil {
		return err
	}
	err := c.run(ctx, cmd)
	var exit *ExitError
	if err == nil || errors.As(err, &exit) {
		return err
	}
	if ctx.Err() != nil {
		err = ctx.Err()
	}
	return fmt.Errorf("ssh %s: %q: %w", c.name, strings.Join(cmd.Args, " "), err)
}

func (c *Client) run(ctx context.Context, cmd Command) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	s, err := c.conns[len(c.conns)-1].NewSession()
	if err != nil {
		return err
	}
	defer s.Close()
	// Servers do not close a session whose program goes on: nothing is waited for then, and what
	// it still prints is not wanted.
	var said tail
	out, problems := &gate{w: cmd.Stdout}, &gate{w: said.also(cmd.Stderr)}
	defer out.close()
	defer problems.close()
	s.Stdout, s.Stderr = out, problems
	// Not by s.Stdin: Wait would wait for a reader that blocks although the program has ended.
	in, err := s.StdinPipe()
	if err != nil {
		return err
	}
	if err := s.Start(Quote(cmd.Args...)); err != nil {
		return err
	}
	broken := make(chan error, 1)
	go func() {
		r := &faithful{r: cmd.Stdin}
		if cmd.Stdin != nil {
			io.Copy(in, r) //nolint:errcheck // a program need not read all; what fails to be read counts
		}
		if r.err != nil { // no end of input, which would look like that of the whole
			broken <- fmt.Errorf("standard input: %w", r.err)
			return
		}
		in.Close()
	}()
	ended := make(chan error, 1)
	go func() { ended <- s.Wait() }()
	select {
	case err = <-ended:
	case err = <-broken:
		return err
	case <-ctx.Done():
		s.Signal(ssh.SIGKILL) //nolint:errcheck // not every server does it
		return ctx.Err()
	}
	problems.close()
	var exit *ssh.ExitError
	if errors.As(err, &exit) {
		e := &ExitError{Args: cmd.Args, Status: exit.ExitStatus(), Signal: exit.Signal(), Stderr: string(said.b)}
		if e.Signal != "" {
			e.Status = -1
		}
		return e
	}
	return err
}

// A gate discards what comes after it was closed.
type gate struct {
	mu sync.Mutex
	w  io.Writer
}

func (g *gate) Write(p []byte) (int, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.w == nil {
		return len(p), nil
	}
	return g.w.Write(p)
}

func (g *gate) close() {
	g.mu.Lock()
	g.w = nil
	g.mu.Unlock()
}

// A faithful reader remembers what went wrong.
type faithful struct {
	r   io.Reader
	err error
}

func (f *faithful) Read(p []byte) (int, error) {
	n, err := f.r.Read(p)
	if err != nil && err != io.EOF {
		f.err = err
	}
	return n, err
}

// Close ends the connection and what runs through it.
func (c *Client) Close() error {
	c.closing.Do(func() {
		for i := len(c.conns) - 1; i >= 0; i-- {
			if err := c.conns[i].Close(); err != nil && !errors.Is(err, net.ErrClosed) && c.err == nil && err != io.EOF {
				c.err = err
			}
		}
		if c.agent != nil {
			c.agent.Close()
		}
	})
	return c.err
}
