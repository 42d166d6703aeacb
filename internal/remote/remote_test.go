package remote

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"
	"golang.org/x/crypto/ssh/agent"
)

// odd are arguments that a shell would make something of.
var odd = []string{
	"", "plain", "a b", "'", `"`, `\`, `\\`, "!", "!!", "$HOME", "`id`", "$(id)", "*", "~", "~root", "a=b", "%1", "#x", "{a,b}", "[a]",
	"-n", "--", ";", "&", "|", "<x", ">x", "\t", "ä", "\xff", "'!'\\'", `\'`, "x'; touch pwned; '", "^a^b", "tank/isc@x:y",
}

// runs is what every Runner must do.
func runs(t *testing.T, r Runner) {
	ctx := t.Context()
	t.Run("arguments", func(t *testing.T) {
		out, err := Output(ctx, r, 1<<20, Command{Args: append([]string{"printf", `<%s>\n`}, odd...)})
		if err != nil {
			t.Fatal(err)
		}
		var want strings.Builder
		for _, a := range odd {
			fmt.Fprintf(&want, "<%s>\n", a)
		}
		if string(out) != want.String() {
			t.Errorf("printed\n%q\nwant\n%q", out, want.String())
		}
	})
	t.Run("streams", func(t *testing.T) {
		data := bytes.Repeat([]byte("0123456789abcdef"), 1<<16)
		var out, problems bytes.Buffer
		err := r.Run(ctx, Command{Args: []string{"sh", "-c", "cat; echo said >&2"}, Stdin: bytes.NewReader(data), Stdout: &out, Stderr: &problems})
		if err != nil || !bytes.Equal(out.Bytes(), data) || problems.String() != "said\n" {
			t.Errorf("%d bytes, %q, %v", out.Len(), problems.String(), err)
		}
	})
	t.Run("status", func(t *testing.T) {
		err := r.Run(ctx, Command{Args: []string{"sh", "-c", "echo why >&2; exit 3"}})
		if n, ok := Status(err); n != 3 || !ok {
			t.Errorf("status %d, %v: %v", n, ok, err)
		}
		var e *ExitError
		if !errors.As(err, &e) || e.Stderr != "why\n" || !strings.HasSuffix(err.Error(), "exit status 3: why") {
			t.Errorf("error %v", err)
		}
	})
	t.Run("signal", func(t *testing.T) {
		err := r.Run(ctx, Command{Args: []string{"sh", "-c", "kill -9 $$"}})
		var e *ExitError
		if !errors.As(err, &e) || e.Status != -1 && e.Status != 137 {
			t.Errorf("error %v", err)
		}
	})
	t.Run("unread input", func(t *testing.T) {
		blocked, w := io.Pipe()
		defer w.Close()
		if _, ok := r.(Local); ok { // os/exec waits for its reader, whatever the program does
			w.Close()
		}
		if err := r.Run(ctx, Command{Args: []string{"true"}, Stdin: blocked}); err != nil {
			t.Error(err)
		}
	})
	t.Run("failing input", func(t *testing.T) {
		broken := io.MultiReader(strings.NewReader("half"), brokenReader{})
		var out bytes.Buffer
		err := r.Run(ctx, Command{Args: []string{"sh", "-c", "cat >/dev/null; sleep 0.2; echo whole"}, Stdin: broken, Stdout: &out})
		if err == nil {
			t.Error("half the input is taken for the whole")
		}
	})
	t.Run("cancel", func(t *testing.T) {
		ctx, cancel := context.WithCancel(ctx)
		time.AfterFunc(100*time.Millisecond, cancel)
		if err := r.Run(ctx, Command{Args: []string{"sleep", "10"}}); !errors.Is(err, context.Canceled) {
			t.Errorf("error %v", err)
		}
	})
	t.Run("refused", func(t *testing.T) {
		for _, args := range [][]string{nil, {""}, {"echo", "a\x00b"}} {
			if err := r.Run(ctx, Command{Args: args}); err == nil {
				t.Errorf("%q runs", args)
			}
		}
		if _, err := Output(ctx, r, 10, Command{Args: []string{"echo", "more than ten bytes"}}); err == nil || !strings.Contains(err.Error(), "more than 10 bytes") {
			t.Errorf("too much output: %v", err)
		}
	})
}

type brokenReader struct{}

func (brokenReader) Read([]byte) (int, error) { return 0, errors.New("broken") }

func needSh(t *testing.T) {
	t.Helper()
	if _, err := exec.LookPath("sh"); err != nil {
		t.Skip("no sh")
	}
}

func TestLocal(t *testing.T) {
	needSh(t)
	runs(t, Local{})
	if err := (Local{}).Run(t.Context(), Command{Args: []string{"no-such-program"}}); err == nil {
		t.Error("what does not exist runs")
	}
}

func dial(t *testing.T, target Target, o Options) *Client {
	t.Helper()
	c, err := Dial(t.Context(), target, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

func TestSSH(t *testing.T) {
	s := newServer(t)
	c := dial(t, s.target, s.options)
	runs(t, c)
	for _, arg := range []string{"a\nb", "a\rb"} {
		if err := c.Run(t.Context(), Command{Args: []string{"echo", arg}}); err == nil {
			t.Errorf("%q is sent", arg)
		}
	}
	if err := c.Close(); err != nil {
		t.Error(err)
	}
	if err := c.Run(t.Context(), Command{Args: []string{"true"}}); err == nil {
		t.Error("runs on a closed connection")
	}
}

func TestJump(t *testing.T) {
	first, second := newServer(t), newServer(t)
	o := second.options
	o.Keys = append(o.Keys, first.options.Keys...)
	target := second.target
	target.Jump = []Host{first.target.host()}
	_, err := Dial(t.Context(), target, o)
	if err == nil || !strings.Contains(err.Error(), "jump host") || !strings.Contains(err.Error(), "not in known_hosts") {
		t.Errorf("a jump host that nobody knows: %v", err)
	}
	o.KnownHosts = append(o.KnownHosts, first.options.KnownHosts...)
	c := dial(t, target, o)
	if out, err := Output(t.Context(), c, 100, Command{Args: []string{"echo", "there"}}); err != nil || string(out) != "there\n" {
		t.Errorf("%q, %v", out, err)
	}
}

func TestHostKeys(t *testing.T) {
	s := newServer(t)
	other := newKey(t, filepath.Join(t.TempDir(), "other")).PublicKey()
	for name, c := range map[string]struct {
		hosts map[string]ssh.PublicKey
		want  string
	}{
		"unknown": {map[string]ssh.PublicKey{"other.example": s.host}, "not in known_hosts"},
		"changed": {map[string]ssh.PublicKey{s.addr: other}, "is NOT the one in"},
	} {
		o := s.options
		o.KnownHosts = []string{filepath.Join(t.TempDir(), "known")}
		known(t, o.KnownHosts[0], c.hosts)
		if _, err := Dial(t.Context(), s.target, o); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v", name, err)
		}
	}
	o := s.options
	o.KnownHosts = []string{filepath.Join(t.TempDir(), "none")}
	if _, err := Dial(t.Context(), s.target, o); err == nil {
		t.Error("a file that is not there is no problem")
	}
}

func TestAgent(t *testing.T) {
	s := newServer(t)
	key, err := os.ReadFile(s.options.Keys[0])
	if err != nil {
		t.Fatal(err)
	}
	private, err := ssh.ParseRawPrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	ring := agent.NewKeyring()
	if err := ring.Add(agent.AddedKey{PrivateKey: private}); err != nil {
		t.Fatal(err)
	}
	dir, err := os.MkdirTemp("", "a") // names of sockets are short
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	l, err := net.Listen("unix", filepath.Join(dir, "s"))
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go agent.ServeAgent(ring, c)
		}
	}()
	o := s.options
	o.Keys, o.AgentSock = []string{}, l.Addr().String()
	dial(t, s.target, o)
	o.AgentSock = filepath.Join(dir, "none")
	if _, err := Dial(t.Context(), s.target, o); err == nil {
		t.Error("an agent that is not there is no problem")
	}
	o = s.options
	o.Keys = []string{filepath.Join(dir, "none")}
	if _, err := Dial(t.Context(), s.target, o); err == nil || !strings.Contains(err.Error(), "key ") {
		t.Errorf("a key that is not there: %v", err)
	}
}

func TestDialCancel(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0") // says nothing
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	s := newServer(t)
	target := s.target
	target.Port = l.Addr().(*net.TCPAddr).Port
	ctx, cancel := context.WithCancel(t.Context())
	time.AfterFunc(50*time.Millisecond, cancel)
	if _, err := Dial(ctx, target, s.options); !errors.Is(err, context.Canceled) {
		t.Errorf("error %v", err)
	}
}

func TestParseTarget(t *testing.T) {
	got, path, err := ParseTarget("ssh://root@web.example:2222/tank/isc?jump=me@gate.example,[::1]:23&key=/k")
	want := Target{User: "root", Host: "web.example", Port: 2222, Key: "/k", Jump: []Host{{"me", "gate.example", 0}, {"", "::1", 23}}}
	if err != nil || path != "tank/isc" || got.User != want.User || got.Host != want.Host || got.Port != want.Port || got.Key != want.Key || !slices.Equal(got.Jump, want.Jump) {
		t.Errorf("%+v, %q, %v", got, path, err)
	}
	for _, s := range []string{
		"", "http://x", "ssh:x", "ssh://", "ssh:///p", "ssh://u:pw@h", "ssh://h:0", "ssh://h:70000", "ssh://-oProxyCommand=x/p", "ssh://h?jump=", "ssh://h?x=y",
		"ssh://h?jump=a/b", "ssh://h?jump=u:p@a", "ssh://h#f", "ssh://a b", "ssh://h?key=a&key=b", "ssh://%00",
	} {
		if _, _, err := ParseTarget(s); err == nil {
			t.Errorf("%q is accepted", s)
		}
	}
}

func FuzzParseTarget(f *testing.F) {
	f.Add("ssh://root@web.example:2222/tank/isc?jump=me@gate.example&key=/k")
	f.Fuzz(func(t *testing.T, s string) {
		if target, _, err := ParseTarget(s); err == nil && (target.Host == "" || target.Host[0] == '-') {
			t.Errorf("%q gives %+v", s, target)
		}
	})
}

// shells are those of this machine that Quote must be right for.
func shells() []string {
	var list []string
	for _, s := range []string{"sh", "dash", "bash", "ksh", "zsh", "csh", "tcsh", "fish", "busybox"} {
		if path, err := exec.LookPath(s); err == nil {
			list = append(list, path)
		}
	}
	return list
}

func TestQuote(t *testing.T) {
	for _, c := range []struct {
		args []string
		want string
	}{
		{[]string{"zfs", "list", "-H", "tank/isc@x:y"}, "zfs list -H tank/isc@x:y"},
		{[]string{"", "a b", "it's"}, `'' 'a b' 'it'\''s'`},
		{[]string{"a=b", "!", `\`}, `'a=b' \! \\`},
	} {
		if got := Quote(c.args...); got != c.want {
			t.Errorf("%q: %s, want %s", c.args, got, c.want)
		}
	}
	for _, shell := range shells() {
		args := []string{"-c", Quote(append([]string{"printf", `<%s>\n`}, odd...)...)}
		if filepath.Base(shell) == "busybox" {
			args = append([]string{"sh"}, args...)
		}
		out, err := exec.Command(shell, args...).Output()
		var want strings.Builder
		for _, a := range odd {
			fmt.Fprintf(&want, "<%s>\n", a)
		}
		if err != nil || string(out) != want.String() {
			t.Errorf("%s: %v\n%q\nwant\n%q", shell, err, out, want.String())
		}
	}
}

// split reads what Quote writes, by the rules all shells share.
func split(t *testing.T, s string) []string {
	var args []string
	var b strings.Builder
	quoted, any := false, false
	for i := 0; i < len(s); i++ {
		switch c := s[i]; {
		case c == '\'':
			quoted, any = !quoted, true
		case !quoted && c == '\\':
			i++
			b.WriteByte(s[i])
			any = true
		case !quoted && c == ' ':
			args, any = append(args, b.String()), false
			b.Reset()
		case quoted && (c == '!' || c == '\\'), !quoted && !plain(string(c)):
			t.Fatalf("%q: byte %d", s, i)
		default:
			b.WriteByte(c)
			any = true
		}
	}
	if any {
		args = append(args, b.String())
	}
	return args
}

func FuzzQuote(f *testing.F) {
	for _, a := range odd {
		f.Add(a, "x")
	}
	f.Fuzz(func(t *testing.T, a, b string) {
		if got := split(t, Quote(a, b)); !slices.Equal(got, []string{a, b}) {
			t.Errorf("%q, %q: %q", a, b, got)
		}
	})
}

// TestRealSSHD connects to OpenSSH.
func TestRealSSHD(t *testing.T) {
	if os.Getenv("ISC_REAL") != "1" {
		t.Skip("ISC_REAL is not 1")
	}
	const sshd = "/usr/sbin/sshd"
	dir := t.TempDir()
	host := newKey(t, filepath.Join(dir, "host"))
	userKey := newKey(t, filepath.Join(dir, "user"))
	if err := os.WriteFile(filepath.Join(dir, "authorized"), ssh.MarshalAuthorizedKey(userKey.PublicKey()), 0o600); err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := l.Addr().(*net.TCPAddr)
	l.Close()
	config := fmt.Sprintf("ListenAddress 127.0.0.1\nPort %d\nHostKey %s/host\nAuthorizedKeysFile %s/authorized\nStrictModes no\nUsePAM no\nPidFile none\nPermitRootLogin yes\n", addr.Port, dir, dir)
	if err := os.WriteFile(filepath.Join(dir, "config"), []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	if os.Getuid() == 0 {
		os.MkdirAll("/run/sshd", 0o755) //nolint:errcheck // it says so itself
	}
	log := filepath.Join(dir, "log") // a file, as programs that were given up hold it
	cmd := exec.Command(sshd, "-D", "-E", log, "-f", filepath.Join(dir, "config"))
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() {
		cmd.Process.Kill()
		cmd.Wait()
		if t.Failed() {
			text, _ := os.ReadFile(log)
			t.Logf("%s", text)
		}
	}()
	known(t, filepath.Join(dir, "known"), map[string]ssh.PublicKey{addr.String(): host.PublicKey()})
	me, err := user.Current()
	if err != nil {
		t.Fatal(err)
	}
	t.Setenv("SSH_AUTH_SOCK", "")
	target := Target{User: me.Username, Host: "127.0.0.1", Port: addr.Port}
	o := Options{KnownHosts: []string{filepath.Join(dir, "known")}, Keys: []string{filepath.Join(dir, "user")}}
	var c *Client
	for end := time.Now().Add(time.Minute); ; time.Sleep(50 * time.Millisecond) {
		if c, err = Dial(t.Context(), target, o); err == nil {
			break
		}
		if time.Now().After(end) {
			t.Fatal(err)
		}
	}
	defer c.Close()
	runs(t, c)
	target.Jump = []Host{target.host()}
	through := dial(t, target, o)
	if out, err := Output(t.Context(), through, 100, Command{Args: []string{"echo", "there"}}); err != nil || string(out) != "there\n" {
		t.Errorf("through itself: %q, %v", out, err)
	}
}
