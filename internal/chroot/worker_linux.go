package chroot

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path"
	"runtime"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/goldenisc/packer-plugin-isc/image"
)

// worker is the name that this program is started under to work in a root.
const worker = "isc-chroot"

// ready is set by Main: a program that does not call it would start itself over and over.
var ready bool

// Main does the work of a Root if this process was started for that, and does not return then.
func Main() {
	ready = true
	if len(os.Args) < 3 || os.Args[0] != worker {
		return
	}
	// The new root, and who dies with whom, are matters of threads.
	runtime.LockOSThread()
	status, err := work(os.Args[1], os.Args[2], os.Args[3:])
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		status = 125 // as env(1), chroot(1) and docker(1) have it: it did not come to the command
	}
	os.Exit(status)
}

func work(verb, dir string, args []string) (int, error) {
	if verb == "wait" { // in a new user namespace: dir is the verb, see Root.start
		if _, err := io.ReadFull(os.NewFile(3, "wait"), make([]byte, 1)); err != nil {
			return 0, errors.New("the ids were not mapped")
		}
		unix.CloseOnExec(3)
		return 0, syscall.Exec("/proc/self/exe", append([]string{worker, dir}, args...), os.Environ())
	}
	// Becoming root of a namespace has undone this.
	if err := unix.Prctl(unix.PR_SET_PDEATHSIG, uintptr(unix.SIGKILL), 0, 0, 0); err != nil {
		return 0, err
	}
	unix.Umask(0)
	switch verb {
	case "run":
		return run(dir, args[0])
	case "init":
		return 0, initialise(dir, args[0])
	case "remove":
		return 0, os.RemoveAll(dir)
	}
	if err := enter(dir); err != nil {
		return 0, err
	}
	switch verb {
	case "put":
		return 0, put(os.Stdin, args[0] == "all")
	case "read":
		return 0, read(args[0])
	}
	return 0, fmt.Errorf("%s: unknown verb %q", worker, verb)
}

// enter makes dir the root of this process: what is done from now on cannot leave it.
func enter(dir string) error {
	if err := unix.Chroot(dir); err != nil {
		return fmt.Errorf("chroot %q: %w", dir, err)
	}
	return unix.Chdir("/")
}

// run starts a command in namespaces of its own.
func run(dir, script string) (int, error) {
	c := exec.Command("/proc/self/exe")
	c.Args = []string{worker, "init", dir, script}
	c.Stdin, c.Stdout, c.Stderr = os.Stdin, os.Stdout, os.Stderr
	c.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags: syscall.CLONE_NEWNS | syscall.CLONE_NEWPID | syscall.CLONE_NEWIPC | syscall.CLONE_NEWUTS,
		Pdeathsig:  syscall.SIGKILL,
	}
	err := c.Run()
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		if s, ok := exit.Sys().(syscall.WaitStatus); ok && s.Signaled() {
			return 128 + int(s.Signal()), nil
		}
		return exit.ExitCode(), nil
	}
	return 0, err
}

// initialise is the first process of a command's namespaces, and becomes its shell.
func initialise(dir, script string) error {
	if err := mounts(dir); err != nil {
		return err
	}
	if err := enter(dir); err != nil {
		return err
	}
	if err := unix.Sethostname([]byte("isc-build")); err != nil {
		return err
	}
	unix.Umask(0o022)
	if err := syscall.Exec("/bin/sh", []string{"sh", "-c", script}, os.Environ()); err != nil {
		return fmt.Errorf("the tree has no /bin/sh that runs here: %w", err)
	}
	return nil
}

// read writes the directory name as an archive.
func read(name string) error {
	t, err := image.ReadDir(context.Background(), "/"+name, image.Options{})
	if err != nil {
		return err
	}
	defer t.Close()
	return image.WriteTar(context.Background(), os.Stdout, t, image.Pax, nil)
}

// put unpacks an archive of [image.WriteTar] into the root of this process. Only if it holds all of
// the root do its directories change those that are there.
func put(r io.Reader, all bool) error {
	tr := tar.NewReader(r)
	type stamp struct {
		name string
		at   time.Time
	}
	var dirs []stamp // their times last
	for {
		h, err := tr.Next()
		if err == io.EOF {
			break
		}
		if err != nil {
			return err
		}
		name := "/" + h.Name
		if untouched(path.Clean(h.Name)) && h.Typeflag != tar.TypeDir {
			continue
		}
		if s, err := os.Stat(name); err == nil && s.IsDir() && h.Typeflag == tar.TypeDir && !all {
			continue
		}
		if err := unpack(tr, h, name); err != nil {
			return err
		}
		if h.Typeflag == tar.TypeDir {
			dirs = append(dirs, stamp{name, h.ModTime})
		}
	}
	for i := len(dirs) - 1; i >= 0; i-- {
		if err := os.Chtimes(dirs[i].name, dirs[i].at, dirs[i].at); err != nil {
			return err
		}
	}
	return nil
}

func unpack(tr *tar.Reader, h *tar.Header, name string) error {
	if err := os.MkdirAll(path.Dir(name), 0o755); err != nil {
		return err
	}
	if old, err := os.Lstat(name); err == nil && h.Typeflag != tar.TypeDir {
		if old.IsDir() {
			return fmt.Errorf("%q is a directory", name)
		}
		if err := os.Remove(name); err != nil {
			return err
		}
	}
	switch h.Typeflag {
	case tar.TypeDir:
		if err := os.Mkdir(name, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
			return err
		}
	case tar.TypeSymlink:
		if err := os.Symlink(h.Linkname, name); err != nil {
			return err
		}
	case tar.TypeLink:
		return os.Link("/"+h.Linkname, name)
	case tar.TypeFifo:
		if err := unix.Mkfifo(name, 0o600); err != nil {
			return err
		}
	case tar.TypeReg:
		f, err := os.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
		if err != nil {
			return err
		}
		_, err = io.Copy(f, tr)
		if err := errors.Join(err, f.Close()); err != nil {
			return err
		}
	default: // devices, see the package comment
		return nil
	}
	return restore(h, name)
}

// restore gives an object its owner, mode, attributes and time, in the order in which one would
// undo another.
func restore(h *tar.Header, name string) error {
	if h.Uid >= span || h.Gid >= span {
		return fmt.Errorf("%q belongs to %d:%d: ids in a tree that commands run in go to %d", name, h.Uid, h.Gid, span-1)
	}
	if err := os.Lchown(name, h.Uid, h.Gid); err != nil {
		return err
	}
	for key, value := range h.PAXRecords {
		attr, ok := strings.CutPrefix(key, "SCHILY.xattr.")
		if !ok {
			continue
		}
		if err := unix.Lsetxattr(name, attr, []byte(value), 0); err != nil {
			return fmt.Errorf("%q: attribute %q: %w", name, attr, err)
		}
	}
	if h.Typeflag == tar.TypeSymlink {
		at := unix.NsecToTimespec(h.ModTime.UnixNano())
		return unix.UtimesNanoAt(unix.AT_FDCWD, name, []unix.Timespec{at, at}, unix.AT_SYMLINK_NOFOLLOW)
	}
	if err := os.Chmod(name, h.FileInfo().Mode()); err != nil {
		return err
	}
	return os.Chtimes(name, h.ModTime, h.ModTime)
}
