package provisioner

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"iter"
	"os"
	"path"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/goldenisc/packer-plugin-isc/image"
	"github.com/goldenisc/packer-plugin-isc/internal/remote"
	"github.com/goldenisc/packer-plugin-isc/profiles"
)

// A Machine is the root of a running machine, or a folder of it. Its metadata is that of when it was
// opened; contents are fetched when they are read. Edits go to the machine at once. Its methods are not
// safe for concurrent use.
type Machine struct {
	ctx    context.Context // of Open: the methods of a Root have none
	runner remote.Runner
	root   string // of the machine's names
	tree   *image.Tree
	unread map[string]bool // regular files whose content is not in the tree yet
}

var _ profiles.Root = (*Machine)(nil)

// maxFetch is the size up to which files are fetched together, in bytes: configuration is small.
const maxFetch = 1 << 20

// Open lists the files below root on a machine and fetches those that match the patterns, unless they
// begin with "**". Temporary files go below dir. Everything on the machine is done under ctx.
func Open(ctx context.Context, r remote.Runner, root string, patterns []string, dir string) (_ *Machine, err error) {
	t, err := image.NewTree(dir, image.Limits{})
	if err != nil {
		return nil, err
	}
	m := &Machine{ctx: ctx, runner: r, root: path.Clean("/" + root), tree: t, unread: map[string]bool{}}
	defer func() {
		if err != nil {
			m.Close()
		}
	}()
	if err := list(ctx, r, m.root, m.add); err != nil {
		return nil, err
	}
	return m, m.fetch(patterns)
}

// Close releases what was fetched.
func (m *Machine) Close() error { return m.tree.Close() }

// add notes an object that was listed. Names that no image could have are left out.
func (m *Machine) add(e image.Entry) error {
	if name, err := image.Clean(e.Name); err != nil || name != e.Name {
		return nil
	}
	if e.IsRegular() && e.Size > 0 {
		m.unread[e.Name] = true
	}
	if e.Name == "." {
		return m.tree.SetMeta(".", e.Mode, e.UID, e.GID, e.ModTime, nil)
	}
	if err := m.tree.Put(e, nil); err != nil {
		return fmt.Errorf("list %q: %w", e.Name, err)
	}
	return nil
}

// at is the machine's name of a name. Symbolic links in its directories are resolved here, within the
// root: in a folder, those of the machine would lead out of it.
func (m *Machine) at(name string) (string, error) {
	rest := strings.Split(strings.Trim(path.Clean("/"+name), "/"), "/")
	dir := "."
	for links := 0; len(rest) > 1; {
		next := path.Join(dir, rest[0])
		rest = rest[1:]
		e, err := m.tree.Stat(next)
		switch {
		case errors.Is(err, fs.ErrNotExist):
		case err != nil:
			return "", err
		case e.Mode&fs.ModeSymlink != 0:
			if links++; links > maxLinks {
				return "", &fs.PathError{Op: "resolve", Path: name, Err: errLinks}
			}
			target := e.Target
			if !path.IsAbs(target) {
				target = path.Join("/", dir, target)
			}
			rest = append(strings.Split(strings.Trim(path.Clean(target), "/"), "/"), rest...)
			dir = "."
			continue
		}
		dir = next
	}
	return path.Join(m.root, dir, rest[0]), nil
}

// maxLinks bounds symbolic links in one name, as MAXSYMLINKS does in kernels.
const maxLinks = 40

var errLinks = errors.New("too many levels of symbolic links")

// fetch reads the small files that match, with one archive.
func (m *Machine) fetch(patterns []string) error {
	var names []string
	for _, pattern := range patterns {
		if strings.Contains(pattern, "**") {
			continue // about metadata, as a rule, and far too much otherwise
		}
		matches, err := m.tree.Glob(pattern)
		if err != nil {
			return err
		}
		for _, name := range matches {
			if m.unread[name] && !strings.ContainsAny(name, "\n\r") {
				names = append(names, name)
			}
		}
	}
	slices.Sort(names)
	names = slices.Compact(names)
	// A command line has an end.
	for chunk := range slices.Chunk(names, 200) {
		if err := m.fetchAll(chunk); err != nil {
			return err
		}
	}
	return nil
}

func (m *Machine) fetchAll(names []string) error {
	args := []string{"tar", "-cf", "-", "-C", m.root}
	for _, name := range names {
		args = append(args, "./"+name)
	}
	in, out := io.Pipe()
	done := make(chan error, 1)
	go func() {
		err := m.runner.Run(m.ctx, remote.Command{Args: args, Stdout: out})
		out.CloseWithError(err)
		done <- err
	}()
	err := m.take(in)
	in.CloseWithError(io.ErrClosedPipe)
	if e := <-done; err == nil && e != nil {
		if _, ran := remote.Status(e); !ran {
			return fmt.Errorf("fetch: %w", e)
		}
		// A file that vanished or changed meanwhile is read again when it is needed.
	}
	return err
}

// take puts the content of an archive into the tree.
func (m *Machine) take(r io.Reader) error {
	tr := tar.NewReader(r)
	for {
		h, err := tr.Next()
		var exit *remote.ExitError
		switch {
		case err == io.EOF: // archives are padded
			_, err := io.Copy(io.Discard, r)
			if errors.As(err, &exit) {
				err = nil
			}
			return err
		case errors.As(err, &exit):
			return nil
		case err != nil:
			return fmt.Errorf("fetch: %w", err)
		}
		name, err := image.Clean(h.Name)
		if err != nil || h.Typeflag != tar.TypeReg || !m.unread[name] || h.Size > maxFetch {
			continue
		}
		data, err := io.ReadAll(tr)
		if err != nil {
			return fmt.Errorf("fetch %q: %w", name, err)
		}
		if err := m.keep(name, data); err != nil {
			return err
		}
	}
}

// keep puts content into the tree, under the metadata that is there.
func (m *Machine) keep(name string, data []byte) error {
	e, err := m.tree.Stat(name)
	if err != nil {
		return err
	}
	delete(m.unread, name)
	return m.tree.Put(*e, data)
}

// Stat returns the entry of name.
func (m *Machine) Stat(name string) (*image.Entry, error) { return m.tree.Stat(name) }

// Glob returns the names that match.
func (m *Machine) Glob(pattern string) ([]string, error) { return m.tree.Glob(pattern) }

// All yields all entries.
func (m *Machine) All() iter.Seq[*image.Entry] { return m.tree.All() }

// ReadFile returns the content of a regular file.
func (m *Machine) ReadFile(name string) ([]byte, error) {
	e, err := m.tree.Stat(name)
	if err != nil {
		return nil, err
	}
	if e.IsRegular() && m.unread[e.Name] {
		if strings.ContainsAny(e.Name, "\n\r") {
			return nil, &fs.PathError{Op: "read", Path: e.Name, Err: errLineFeed}
		}
		at, err := m.at(e.Name)
		if err != nil {
			return nil, err
		}
		data, err := remote.Output(m.ctx, m.runner, image.MaxRead, remote.Command{Args: []string{"cat", at}})
		if err != nil {
			return nil, fmt.Errorf("read %q: %w", e.Name, err)
		}
		if err := m.keep(e.Name, data); err != nil {
			return nil, err
		}
	}
	return m.tree.ReadFile(name)
}

// shell runs a script of one line with arguments.
func (m *Machine) shell(script string, stdin io.Reader, args ...string) error {
	for _, a := range args {
		if strings.ContainsAny(a, "\n\r\x00") {
			return errLineFeed
		}
	}
	return m.runner.Run(m.ctx, remote.Command{Args: append([]string{"sh", "-c", script, "sh"}, args...), Stdin: stdin})
}

// suffix is that of a file until it is whole.
const suffix = ".isc-new"

// Scripts that make one object. A regular file and a link take the place of what was there in one
// step. $1 is the name, $2 owner and group, $3 the mode, $4 the time, $5 the size: a connection that is
// lost looks like the end of the content.
const (
	// mv(1) would move into a directory, also one that a link leads to.
	clear = `if [ -h "$1" ]; then rm -f "$1"; elif [ -d "$1" ]; then echo "it is a directory" >&2; exit 1; fi; `
	// chown(1) and chmod(1) follow links.
	noLink = `if [ -h "$1" ]; then echo "it is a symbolic link" >&2; exit 1; fi; `

	putFile = `set -e; umask 022; mkdir -p "$(dirname "$1")"; umask 077; t="$1` + suffix + `"; rm -f "$t"; trap 'rm -f "$t"' 0; cat >"$t"; ` +
		`[ "$(wc -c <"$t")" -eq "$5" ] || { echo "it arrived cut short" >&2; exit 1; }; chown "$2" "$t"; chmod "$3" "$t"; TZ=UTC0 touch -t "$4" "$t"; ` + clear + `mv -f "$t" "$1"`
	putLink = `set -e; umask 022; mkdir -p "$(dirname "$1")"; t="$1` + suffix + `"; rm -f "$t"; ln -s "$3" "$t"; chown -h "$2" "$t"; ` + clear + `mv -f "$t" "$1"`
	putDir  = `set -e; umask 022; ` + noLink + `[ -d "$1" ] || mkdir -p "$1"; chown "$2" "$1"; chmod "$3" "$1"`
	setMeta = `set -e; ` + noLink + `chown "$2" "$1"; chmod "$3" "$1"`
)

func ownerOf(uid, gid int) string { return strconv.Itoa(uid) + ":" + strconv.Itoa(gid) }

func modeOf(m fs.FileMode) string { return fmt.Sprintf("%04o", image.Perm(m)) }

// Put makes or replaces one object on the machine.
func (m *Machine) Put(e image.Entry, data []byte) error {
	name, err := m.at(e.Name)
	switch {
	case err != nil:
	case e.HardLink != "":
		err = errors.ErrUnsupported
	case e.IsDir():
		err = m.shell(putDir, nil, name, ownerOf(e.UID, e.GID), modeOf(e.Mode))
	case e.Mode&fs.ModeSymlink != 0:
		err = m.shell(putLink, nil, name, ownerOf(e.UID, e.GID), e.Target)
	case e.IsRegular():
		err = m.shell(putFile, bytes.NewReader(data), name, ownerOf(e.UID, e.GID), modeOf(e.Mode), e.ModTime.UTC().Format("200601021504.05"), strconv.Itoa(len(data)))
	default:
		err = errors.ErrUnsupported
	}
	if err != nil {
		return fmt.Errorf("write %q: %w", e.Name, err)
	}
	if old, err := m.tree.Stat(e.Name); err == nil {
		delete(m.unread, old.Name)
	}
	return m.tree.Put(e, data)
}

// SetMeta changes owner and mode on the machine.
func (m *Machine) SetMeta(name string, mode fs.FileMode, uid, gid int, mtime time.Time, xattrs map[string][]byte) error {
	at, err := m.at(name)
	if err == nil {
		err = m.shell(setMeta, nil, at, ownerOf(uid, gid), modeOf(mode))
	}
	if err != nil {
		return fmt.Errorf("change %q: %w", name, err)
	}
	return m.tree.SetMeta(name, mode, uid, gid, mtime, xattrs)
}

// Remove removes name and all below it on the machine.
func (m *Machine) Remove(name string) error {
	e, err := m.tree.Stat(name)
	if err != nil {
		return err
	}
	if e.Name == "." {
		return &fs.PathError{Op: "remove", Path: name, Err: os.ErrInvalid}
	}
	at, err := m.at(e.Name)
	if err == nil {
		err = m.shell(`rm -rf "$1"`, nil, at)
	}
	if err != nil {
		return fmt.Errorf("remove %q: %w", e.Name, err)
	}
	return m.tree.Remove(name)
}
