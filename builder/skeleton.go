package builder

import (
	"bytes"
	"context"
	_ "embed"
	"fmt"
	"io/fs"
	"strconv"
	"strings"
	"time"

	"github.com/goldenisc/packer-plugin-isc/image"
)

// The skeletons are root file systems without programs: accounts, configuration and the folders
// that a zone or a container is expected to have. They serve services that are one static
// program, and zones whose /usr comes from the host.
var (
	//go:embed skeleton/illumos.txt
	skeletonIllumos string
	//go:embed skeleton/linux.txt
	skeletonLinux string
)

// openSkeleton makes the tree of an embedded table; its digest is that of the content manifest.
func openSkeleton(ctx context.Context, name string, o image.Options) (*image.Tree, string, error) {
	table := skeletonIllumos
	if name == "linux" {
		table = skeletonLinux
	}
	t, err := image.NewTree(o.Dir, image.Limits{})
	if err != nil {
		return nil, "", err
	}
	digest := ""
	if err = putSkeleton(t, table); err == nil {
		digest, err = contentDigest(t)
	}
	if err == nil {
		err = ctx.Err()
	}
	if err != nil {
		t.Close()
		return nil, "", fmt.Errorf("skeleton %q: %w", name, err)
	}
	return t, digest, nil
}

// putSkeleton reads a table. A line is "epoch SECONDS", the time of everything, or
// "TYPE MODE OWNER GROUP PATH [TARGET]" with the types dir, file and link; lines that start with
// "|" are the content of the file above. Owners are names of the skeleton's own accounts.
func putSkeleton(t *image.Tree, table string) error {
	type object struct {
		image.Entry
		owner, group string
		data         bytes.Buffer
	}
	var objects []*object
	var epoch time.Time
	for n, line := range strings.Split(table, "\n") {
		f := strings.Fields(line)
		switch {
		case strings.HasPrefix(line, "|"):
			if len(objects) == 0 {
				return fmt.Errorf("line %d: content of no file", n+1)
			}
			o := objects[len(objects)-1]
			o.data.WriteString(strings.TrimPrefix(line[1:], " ") + "\n")
		case len(f) == 0 || strings.HasPrefix(line, "#"):
		case f[0] == "epoch" && len(f) == 2:
			sec, err := strconv.ParseInt(f[1], 10, 64)
			if err != nil {
				return fmt.Errorf("line %d: %w", n+1, err)
			}
			epoch = time.Unix(sec, 0).UTC()
		case len(f) == 5 && f[0] != "link" || len(f) == 6 && f[0] == "link":
			typ, ok := map[string]fs.FileMode{"dir": fs.ModeDir, "file": 0, "link": fs.ModeSymlink}[f[0]]
			mode, err := strconv.ParseUint(f[1], 8, 12)
			if !ok || err != nil {
				return fmt.Errorf("line %d: %q", n+1, line)
			}
			o := &object{owner: f[2], group: f[3]}
			o.Entry = image.Entry{Name: f[4], Mode: image.ModeOf(uint32(mode), typ)}
			if typ == fs.ModeSymlink {
				o.Target = f[5]
			}
			objects = append(objects, o)
		default:
			return fmt.Errorf("line %d: %q", n+1, line)
		}
	}
	for _, o := range objects {
		o.ModTime = epoch
		if err := t.Put(o.Entry, o.data.Bytes()); err != nil {
			return err
		}
	}
	for _, o := range objects { // now that the accounts are there
		if err := chown(t, &o.Entry, o.owner, o.group); err != nil {
			return err
		}
		if err := t.SetMeta(o.Name, o.Mode, o.UID, o.GID, epoch, nil); err != nil {
			return err
		}
	}
	return nil
}
