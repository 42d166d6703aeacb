package chroot

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/goldenisc/packer-plugin-isc/image"
)

// A Root is a tree in a folder. Its methods are not safe for concurrent use, but for Run.
type Root struct {
	parent   string // private to this user
	dir      string // the root, in parent
	uid, gid int    // first subordinate ids, 0 if this is root of the machine
}

// New unpacks a tree into a new folder below parent, or the system's for temporary files if that is
// empty. The error is ErrUnsupported where an ordinary user lacks what it takes.
func New(ctx context.Context, parent string, t *image.Tree) (_ *Root, err error) {
	if !ready {
		panic("chroot.Main was not called")
	}
	r := &Root{}
	if os.Geteuid() != 0 {
		if err := r.ids(); err != nil {
			return nil, fmt.Errorf("%w: neither as root of the machine nor in a user namespace: %w", ErrUnsupported, err)
		}
		for e := range t.All() {
			if e.UID >= span || e.GID >= span {
				return nil, fmt.Errorf("%w: %q belongs to %d:%d, and ids go to %d without root", ErrUnsupported, e.Name, e.UID, e.GID, span-1)
			}
		}
	}
	if r.parent, err = os.MkdirTemp(parent, "isc-root-*"); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, r.Close())
		}
	}()
	r.dir = filepath.Join(r.parent, "root")
	if err := os.Mkdir(r.dir, 0o755); err != nil {
		return nil, err
	}
	return r, r.put(ctx, t, "all")
}

// ids finds the subordinate ids.
func (r *Root) ids() error {
	u, err := user.Current()
	if err != nil {
		return err
	}
	for _, name := range []string{"newuidmap", "newgidmap"} {
		if _, err := exec.LookPath(name); err != nil {
			return fmt.Errorf("%s is missing: install the package uidmap (shadow-utils)", name)
		}
	}
	if r.uid, err = subordinate("/etc/subuid", u); err != nil {
		return err
	}
	r.gid, err = subordinate("/etc/subgid", u)
	return err
}

// Run runs a script of /bin/sh as root of the tree and returns its exit status. When it ends, or ctx
// is done, all processes that it started are gone. The error is about running it, not its own.
func (r *Root) Run(ctx context.Context, script string, stdin io.Reader, stdout, stderr io.Writer) (int, error) {
	c := r.command(ctx, "run", script)
	c.Stdin, c.Stdout, c.Stderr = stdin, stdout, stderr
	err := r.start(c)
	var exit *exec.ExitError
	switch {
	case ctx.Err() != nil:
		return 0, ctx.Err()
	case errors.As(err, &exit) && exit.ExitCode() >= 0:
		return exit.ExitCode(), nil
	}
	return 0, err
}

// Put lays a tree over what is there. Symbolic links to directories are followed within the root, and
// directories that are there stay as they are.
func (r *Root) Put(ctx context.Context, t *image.Tree) error { return r.put(ctx, t, "new") }

func (r *Root) put(ctx context.Context, t *image.Tree, what string) error {
	in, out := io.Pipe()
	done := make(chan error, 1)
	go func() {
		err := image.WriteTar(ctx, out, t, image.Pax, nil)
		out.CloseWithError(err)
		done <- err
	}()
	c := r.command(ctx, "put", what)
	c.Stdin = in
	err := r.quiet(c)
	in.CloseWithError(io.ErrClosedPipe)
	if e := <-done; err == nil {
		err = e
	}
	return err
}

// Read reads the directory name, "." for all, as a tree, in which it is the root. The tree is to be
// closed.
func (r *Root) Read(ctx context.Context, name string) (*image.Tree, error) {
	in, out := io.Pipe()
	c := r.command(ctx, "read", name)
	c.Stdout = out
	done := make(chan error, 1)
	go func() {
		err := r.quiet(c)
		out.CloseWithError(err)
		done <- err
	}()
	t, err := image.ReadTar(ctx, in, image.Options{Dir: r.parent})
	in.CloseWithError(io.ErrClosedPipe)
	if e := <-done; e != nil {
		err = e
	}
	if err != nil && t != nil {
		t.Close()
		t = nil
	}
	return t, err
}

// Dir is the folder that the tree was unpacked into.
func (r *Root) Dir() string { return r.dir }

// Close removes the folder.
func (r *Root) Close() error {
	err := os.RemoveAll(r.parent)
	if err == nil || r.uid == 0 {
		return err
	}
	// What belongs to other ids only the namespace can remove.
	if err := r.quiet(r.command(context.Background(), "remove")); err != nil {
		return err
	}
	return os.RemoveAll(r.parent)
}

// command is this program as a worker.
func (r *Root) command(ctx context.Context, verb string, args ...string) *exec.Cmd {
	c := exec.CommandContext(ctx, "/proc/self/exe")
	c.Args = append([]string{worker, verb, r.dir}, args...)
	c.Env = []string{"PATH=" + searchPath, "HOME=/root", "LC_ALL=C.UTF-8", "TERM=dumb"}
	c.Dir = "/"
	return c
}

// searchPath is that of root's commands in a tree.
const searchPath = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

// quiet runs a worker whose standard error says what was wrong.
func (r *Root) quiet(c *exec.Cmd) error {
	var said bytes.Buffer
	c.Stderr = &said
	return explain(r.start(c), &said)
}

func explain(err error, said *bytes.Buffer) error {
	if text := strings.TrimSpace(said.String()); err != nil && text != "" {
		return errors.New(text)
	}
	return err
}

// start runs a worker to its end. For an ordinary user it waits in a user namespace until the
// ids are mapped, and then starts once more, as root of it.
func (r *Root) start(c *exec.Cmd) error {
	// The worker is killed with the thread that started it, and so with this program.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	c.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL, Setpgid: true}
	if r.uid == 0 {
		return c.Run()
	}
	wait, release, err := os.Pipe()
	if err != nil {
		return err
	}
	defer release.Close()
	c.SysProcAttr.Cloneflags = syscall.CLONE_NEWUSER
	c.ExtraFiles = []*os.File{wait}
	c.Args = append([]string{worker, "wait"}, c.Args[1:]...)
	err = c.Start()
	wait.Close()
	if err != nil {
		if errors.Is(err, syscall.EPERM) || errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EUSERS) {
			err = fmt.Errorf("%w: the kernel makes no user namespace (sysctl kernel.unprivileged_userns_clone, user.max_user_namespaces, kernel.apparmor_restrict_unprivileged_userns): %w", ErrUnsupported, err)
		}
		return err
	}
	for _, m := range []struct {
		tool       string
		own, first int
	}{{"newuidmap", os.Geteuid(), r.uid}, {"newgidmap", os.Getegid(), r.gid}} {
		out, e := exec.Command(m.tool, strconv.Itoa(c.Process.Pid), "0", strconv.Itoa(m.own), "1",
			"1", strconv.Itoa(m.first), strconv.Itoa(span-1)).CombinedOutput()
		if e != nil && err == nil {
			err = fmt.Errorf("%w: %s: %s: %w", ErrUnsupported, m.tool, bytes.TrimSpace(out), e)
		}
	}
	if err == nil {
		_, err = release.Write([]byte{1})
	}
	release.Close()
	if e := c.Wait(); err == nil {
		err = e
	}
	return err
}

// mounts are done in the namespace of a command.
func mounts(dir string) error {
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("mount /: %w", err)
	}
	at := func(name string) string { return filepath.Join(dir, name) }
	isDir := func(name string) bool {
		s, err := os.Lstat(at(name))
		return err == nil && s.IsDir()
	}
	if isDir("proc") {
		err := unix.Mount("proc", at("proc"), "proc", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, "")
		if errors.Is(err, unix.EPERM) { // in a container that hides parts of its own
			err = unix.Mount("/proc", at("proc"), "", unix.MS_BIND|unix.MS_REC, "")
		}
		if err != nil {
			return fmt.Errorf("mount /proc: %w", err)
		}
	}
	if isDir("dev") {
		if err := devices(at("dev")); err != nil {
			return err
		}
	}
	if s, err := os.Lstat(at("etc/resolv.conf")); err == nil && s.Mode().IsRegular() && isDir("etc") {
		if _, err := os.Stat("/etc/resolv.conf"); err == nil {
			if err := unix.Mount("/etc/resolv.conf", at("etc/resolv.conf"), "", unix.MS_BIND, ""); err != nil {
				return fmt.Errorf("mount /etc/resolv.conf: %w", err)
			}
		}
	}
	return nil
}

// devices makes a /dev of what every program may expect of it.
func devices(dev string) error {
	if err := unix.Mount("tmpfs", dev, "tmpfs", unix.MS_NOSUID, "mode=755,size=64k,nr_inodes=64"); err != nil {
		return fmt.Errorf("mount /dev: %w", err)
	}
	for _, name := range []string{"null", "zero", "full", "random", "urandom", "tty"} {
		to := filepath.Join(dev, name)
		if err := os.WriteFile(to, nil, 0o666); err != nil {
			return err
		}
		if err := unix.Mount("/dev/"+name, to, "", unix.MS_BIND, ""); err != nil {
			return fmt.Errorf("mount /dev/%s: %w", name, err)
		}
	}
	for name, target := range map[string]string{"fd": "/proc/self/fd", "stdin": "fd/0", "stdout": "fd/1", "stderr": "fd/2", "ptmx": "pts/ptmx"} {
		if err := os.Symlink(target, filepath.Join(dev, name)); err != nil {
			return err
		}
	}
	for _, m := range []struct{ name, fs, data string }{{"shm", "tmpfs", "mode=1777"}, {"pts", "devpts", "newinstance,ptmxmode=0666,mode=620"}} {
		to := filepath.Join(dev, m.name)
		if err := os.Mkdir(to, 0o755); err != nil {
			return err
		}
		if err := unix.Mount(m.fs, to, m.fs, unix.MS_NOSUID|unix.MS_NOEXEC, m.data); err != nil {
			return fmt.Errorf("mount /dev/%s: %w", m.name, err)
		}
	}
	return nil
}
