package isczone

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"time"

	sdk "github.com/hashicorp/packer-plugin-sdk/packer"

	"github.com/goldenisc/packer-plugin-isc/cmd/packer-plugin-isc/build"
	"github.com/goldenisc/packer-plugin-isc/image"
	"github.com/goldenisc/packer-plugin-isc/internal/remote"
)

// A communicator lets provisioners work in a zone that runs, through its host.
type communicator struct {
	ctx  context.Context // of the build: the provisioners, in other processes, have none of it
	zone *zone
}

var _ sdk.Communicator = (*communicator)(nil)

// Start starts a command of /bin/sh in the zone.
func (c *communicator) Start(ctx context.Context, cmd *sdk.RemoteCmd) error {
	ctx, cancel := context.WithCancel(ctx)
	stop := context.AfterFunc(c.ctx, cancel)
	command := c.zone.login("/bin/sh", "-c", cmd.Command)
	command.Stdin, command.Stdout, command.Stderr = cmd.Stdin, cmd.Stdout, cmd.Stderr
	go func() {
		defer cancel()
		defer stop()
		err := c.zone.runner.Run(ctx, command)
		status, ran := remote.Status(err)
		if !ran || status < 0 {
			if cmd.Stderr != nil {
				fmt.Fprintln(cmd.Stderr, err)
			}
			status = sdk.CmdDisconnect
		}
		cmd.SetExited(status)
	}()
	return nil
}

// Upload writes one file. As with scp(1), one that is there keeps its mode and owner.
func (c *communicator) Upload(name string, r io.Reader, info *os.FileInfo) error {
	script := `set -e; [ -e "$1" ] && new= || new=1; cat >"$1"; [ -z "$new" ] || chmod "$2" "$1"`
	mode := os.FileMode(0o644)
	if info != nil && *info != nil {
		mode = (*info).Mode().Perm()
	}
	command := c.zone.login("/bin/sh", "-c", script, "sh", name, fmt.Sprintf("%04o", mode))
	command.Stdin = r
	if err := c.zone.runner.Run(c.ctx, command); err != nil {
		return fmt.Errorf("upload %q: %w", name, err)
	}
	return nil
}

// UploadDir writes a folder: its content if the name of the source ends in a slash, else the folder
// itself. Everything belongs to root.
func (c *communicator) UploadDir(dst, src string, exclude []string) error {
	if len(exclude) > 0 {
		return errors.New("upload: exclude is not supported")
	}
	folder, err := image.ReadDir(c.ctx, src, image.Options{})
	if err != nil {
		return fmt.Errorf("upload: %w", err)
	}
	defer folder.Close()
	// What strict ustar cannot say is of no use there: parts of seconds, large ids, attributes.
	for _, e := range slices.Collect(folder.All()) {
		if err := folder.SetMeta(e.Name, e.Mode, 0, 0, e.ModTime.Truncate(time.Second), nil); err != nil {
			return fmt.Errorf("upload: %w", err)
		}
	}
	folder.Freeze(time.Time{})
	at := dst
	if !strings.HasSuffix(src, "/") && !strings.HasSuffix(src, string(filepath.Separator)) {
		at = path.Join(dst, filepath.Base(src))
	}
	in, out := io.Pipe()
	written := make(chan error, 1)
	go func() {
		// tar(1) of illumos takes an extended header of pax for a file.
		err := image.WriteTar(c.ctx, out, folder, image.USTARStrict, nil)
		out.CloseWithError(err)
		written <- err
	}()
	// o: files belong to who unpacks them.
	command := c.zone.login("/bin/sh", "-c", `set -e; mkdir -p "$1"; cd "$1"; exec tar xof -`, "sh", at)
	command.Stdin = in
	err = c.zone.runner.Run(c.ctx, command)
	in.CloseWithError(errUnread)
	if w := <-written; w != nil && !errors.Is(w, errUnread) {
		err = w // what tar makes of half an archive says nothing
	}
	if err != nil {
		return fmt.Errorf("upload %q: %w", dst, err)
	}
	return nil
}

// errUnread is met by an archive that nobody reads to its end.
var errUnread = errors.New("tar ended early")

// Download writes the content of a file.
func (c *communicator) Download(name string, w io.Writer) error {
	command := c.zone.login("cat", name)
	command.Stdout = w
	if err := c.zone.runner.Run(c.ctx, command); err != nil {
		return fmt.Errorf("download %q: %w", name, err)
	}
	return nil
}

// DownloadDir writes the files and folders below src, and src itself unless its name ends in a slash, to
// the folder dst.
func (c *communicator) DownloadDir(src, dst string, exclude []string) error {
	if len(exclude) > 0 {
		return errors.New("download: exclude is not supported")
	}
	if !strings.HasSuffix(src, "/") {
		dst = filepath.Join(dst, path.Base(src))
	}
	in, out := io.Pipe()
	go func() {
		command := c.zone.login("/bin/sh", "-c", `cd "$1" && exec tar cf - .`, "sh", src)
		command.Stdout = out
		out.CloseWithError(c.zone.runner.Run(c.ctx, command))
	}()
	defer in.Close()
	t, err := image.ReadTar(c.ctx, in, image.Options{})
	if err != nil {
		return fmt.Errorf("download %q: %w", src, err)
	}
	defer t.Close()
	return build.WriteFolder(t, ".", dst)
}
