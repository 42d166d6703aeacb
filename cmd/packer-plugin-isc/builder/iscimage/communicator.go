package iscimage

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"
	"sync"
	"time"

	sdk "github.com/hashicorp/packer-plugin-sdk/packer"

	"github.com/goldenisc/packer-plugin-isc/cmd/packer-plugin-isc/build"
	"github.com/goldenisc/packer-plugin-isc/image"
	"github.com/goldenisc/packer-plugin-isc/internal/chroot"
)

// A communicator lets provisioners work on a tree. Files go straight into it and come out of it.
// The first command has it unpacked into a folder, in which commands run from then on; finish
// brings what they did back.
type communicator struct {
	ctx     context.Context // of the build: the provisioners, in other processes, have none of it
	tree    *image.Tree
	system  string // illumos, solaris or linux
	created time.Time
	dir     string // for temporary files
	keep    bool   // leave the folder when done

	mu       sync.Mutex
	root     *chroot.Root // nil until a command ran
	touched  bool         // files went into the tree
	commands sync.WaitGroup
}

var _ sdk.Communicator = (*communicator)(nil)

// Start starts a command of /bin/sh in the tree.
func (c *communicator) Start(ctx context.Context, cmd *sdk.RemoteCmd) error {
	root, err := c.unpack(ctx)
	if err != nil {
		return err
	}
	stdout, stderr := cmd.Stdout, cmd.Stderr
	ctx, cancel := context.WithCancel(ctx)
	stop := context.AfterFunc(c.ctx, cancel)
	c.commands.Add(1)
	go func() {
		defer c.commands.Done()
		defer cancel()
		defer stop()
		status, err := root.Run(ctx, cmd.Command, cmd.Stdin, discard(stdout), discard(stderr))
		if err != nil {
			fmt.Fprintln(discard(stderr), err)
			status = sdk.CmdDisconnect
		}
		cmd.SetExited(status)
	}()
	return nil
}

func discard(w io.Writer) io.Writer {
	if w == nil {
		return io.Discard
	}
	return w
}

// unpack makes the folder once.
func (c *communicator) unpack(ctx context.Context) (*chroot.Root, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.root != nil {
		return c.root, nil
	}
	if c.system != "linux" {
		return nil, fmt.Errorf("commands do not run in a tree of %s: only files can be transferred, by the file provisioner; to run commands build with isc-zone", c.system)
	}
	root, err := chroot.New(ctx, c.dir, c.tree)
	if err != nil {
		return nil, fmt.Errorf("running commands in the tree: %w", err)
	}
	c.root = root
	return root, nil
}

// Upload puts one file. As with scp(1), a file that is there keeps its mode and owner; one that is
// made belongs to root, and the folder must exist.
func (c *communicator) Upload(name string, r io.Reader, info *os.FileInfo) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.change(func(t *image.Tree, stat func(string) (*image.Entry, error)) error {
		e := image.Entry{Name: name, Mode: 0o644, ModTime: c.created}
		if info != nil && *info != nil {
			e.Mode = (*info).Mode().Perm()
		}
		switch old, err := stat(name); {
		case err == nil && old.IsDir():
			return fmt.Errorf("upload %q: it is a directory", name)
		case err == nil && old.IsRegular():
			e.Mode, e.UID, e.GID = old.Mode, old.UID, old.GID
		case err != nil && !errors.Is(err, fs.ErrNotExist):
			return err
		}
		if parent := path.Dir(path.Clean("/" + name)); parent != "/" {
			if e, err := stat(parent); err != nil {
				return fmt.Errorf("upload %q: %w", name, err)
			} else if !e.IsDir() && e.Target == "" {
				return fmt.Errorf("upload %q: %q is no directory", name, parent)
			}
		}
		return t.PutFrom(e, r)
	})
}

// UploadDir puts a folder: its content if the name of the source ends in a slash, else the folder
// itself. Everything belongs to root.
func (c *communicator) UploadDir(dst, src string, exclude []string) error {
	if len(exclude) > 0 {
		return errors.New("upload: exclude is not supported")
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	at := dst
	if !strings.HasSuffix(src, "/") && !strings.HasSuffix(src, string(filepath.Separator)) {
		at = path.Join(dst, filepath.Base(src))
	}
	return c.change(func(t *image.Tree, _ func(string) (*image.Entry, error)) error {
		folder, err := image.ReadDir(c.ctx, src, image.Options{Dir: c.dir})
		if err != nil {
			return fmt.Errorf("upload: %w", err)
		}
		defer folder.Close()
		return c.lay(t, folder, at)
	})
}

// lay copies a folder below at, owned by root. Directories that are there stay as they are.
func (c *communicator) lay(t, folder *image.Tree, at string) error {
	for e := range folder.All() {
		to := *e
		to.Name, to.UID, to.GID, to.ModTime = path.Join(at, e.Name), 0, 0, c.created
		if e.HardLink != "" {
			to.HardLink = path.Join(at, e.HardLink)
		}
		if e.IsDir() {
			if old, err := t.Stat(to.Name); err == nil && (old.IsDir() || old.Target != "") {
				continue
			}
		}
		if !e.IsRegular() || e.HardLink != "" {
			if err := t.Put(to, nil); err != nil {
				return err
			}
			continue
		}
		f, err := folder.Open(e.Name)
		if err != nil {
			return err
		}
		err = t.PutFrom(to, io.NewSectionReader(f, 0, f.Size()))
		f.Close()
		if err != nil {
			return err
		}
	}
	return nil
}

// change has files put: into the tree, or into one that is laid over the folder that it was unpacked
// into. stat is about what is there now.
func (c *communicator) change(put func(t *image.Tree, stat func(string) (*image.Entry, error)) error) error {
	if c.root == nil {
		c.touched = true
		return put(c.tree, c.tree.Stat)
	}
	more, err := image.NewTree(c.dir, image.Limits{})
	if err != nil {
		return err
	}
	defer more.Close()
	stat := func(name string) (*image.Entry, error) { return c.stat(name) }
	if err := put(more, stat); err != nil {
		return err
	}
	return c.root.Put(c.ctx, more)
}

// stat looks at one object in the folder.
func (c *communicator) stat(name string) (*image.Entry, error) {
	clean := path.Clean("/" + name)
	t, err := c.root.Read(c.ctx, path.Dir(clean)[1:])
	if err != nil {
		return nil, err
	}
	defer t.Close()
	if clean == "/" {
		return t.Stat(".")
	}
	return t.Stat(path.Base(clean))
}

// read calls f with a tree in which the object is that is called name in it.
func (c *communicator) read(name string, f func(t *image.Tree, name string) error) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.root == nil {
		return f(c.tree, name)
	}
	clean := path.Clean("/" + name)
	t, err := c.root.Read(c.ctx, path.Dir(clean)[1:])
	if err != nil {
		return err
	}
	defer t.Close()
	if clean == "/" {
		return f(t, ".")
	}
	return f(t, path.Base(clean))
}

// Download writes the content of a file.
func (c *communicator) Download(name string, w io.Writer) error {
	return c.read(name, func(t *image.Tree, at string) error {
		f, err := t.Open(at)
		if err != nil {
			return fmt.Errorf("download %q: %w", name, err)
		}
		defer f.Close()
		_, err = io.Copy(w, io.NewSectionReader(f, 0, f.Size()))
		return err
	})
}

// DownloadDir writes the files and folders below src, and src itself unless its name ends in a
// slash, to the folder dst. Links and the like stay behind.
func (c *communicator) DownloadDir(src, dst string, exclude []string) error {
	if len(exclude) > 0 {
		return errors.New("download: exclude is not supported")
	}
	return c.read(src, func(t *image.Tree, at string) error {
		if !strings.HasSuffix(src, "/") {
			dst = filepath.Join(dst, path.Base(src))
		}
		top, err := image.Clean(at)
		if err != nil {
			return err
		}
		if e, err := t.Stat(top); err != nil || !e.IsDir() {
			return fmt.Errorf("download %q: no such directory", src)
		}
		return build.WriteFolder(t, top, dst)
	})
}

// finish brings what commands did back into the tree and reports whether anything has changed.
func (c *communicator) finish(ctx context.Context) (bool, error) {
	c.commands.Wait()
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.root == nil {
		return c.touched, nil
	}
	now, err := c.root.Read(ctx, ".")
	if err != nil {
		return false, err
	}
	defer now.Close()
	n, err := chroot.Merge(c.tree, now, c.created)
	return c.touched || n > 0, err
}

// folder is where the tree was unpacked, if it was.
func (c *communicator) folder() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.root == nil {
		return ""
	}
	return c.root.Dir()
}

// close removes the folder.
func (c *communicator) close() error {
	c.commands.Wait()
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.root == nil || c.keep {
		return nil
	}
	return c.root.Close()
}
