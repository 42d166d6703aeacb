package builder

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strconv"
	"strings"

	"github.com/goldenisc/packer-plugin-isc/internal/hcltext"
	"github.com/goldenisc/packer-plugin-isc/profiles"
	"github.com/goldenisc/packer-plugin-isc/registry"
)

// A Location is a source taken apart.
type Location struct {
	Scheme string       // dir, tar, zfs or skeleton; oci, oci-archive or docker for a Ref
	Path   string       // of the folder or file, on this machine; the name of a skeleton
	Ref    registry.Ref // of an image
}

// schemes are the prefixes of sources, for suggestions.
var schemes = []string{"dir", "tar", "zfs", "skeleton", "oci", "oci-archive", "docker"}

// ParseSource reads the source of a base or of a tree. Relative paths are taken from the folder dir.
func ParseSource(source, dir string) (Location, error) {
	if strings.IndexByte(source, 0) >= 0 {
		return Location{}, errors.New("holds a NUL byte")
	}
	scheme, rest, ok := strings.Cut(source, ":")
	switch {
	case source == "":
		return Location{}, errors.New("is empty")
	case ok && rest == "":
		return Location{}, fmt.Errorf("%q ends behind its scheme", source)
	case ok && scheme == "skeleton":
		return Location{Scheme: scheme, Path: rest}, checkOneOf(rest, skeletons)
	case ok && (scheme == "dir" || scheme == "tar" || scheme == "zfs"):
		return Location{Scheme: scheme, Path: local(dir, rest)}, nil
	}
	ref, err := registry.Parse(source)
	if err != nil {
		if s := hcltext.Closest(scheme, schemes); ok && s != "" && s != scheme {
			return Location{}, fmt.Errorf("%q has no scheme that is known here.%s", source, hcltext.Suggest(scheme, schemes))
		}
		if st, e := os.Stat(local(dir, source)); e == nil {
			scheme = "tar"
			if st.IsDir() {
				scheme = "dir"
			}
			return Location{}, fmt.Errorf("%q is the name of a file or folder: write %q", source, scheme+":"+source)
		}
		return Location{}, fmt.Errorf("neither dir:PATH, tar:PATH, zfs:PATH, skeleton:NAME nor a reference to an image: %w", err)
	}
	if ref.Place != registry.InRegistry {
		ref.Path = local(dir, ref.Path)
	}
	return Location{Scheme: string(ref.Place), Path: ref.Path, Ref: ref}, nil
}

// exists checks that a local source is there. What it holds is found out by opening it.
func (l Location) exists() error {
	switch l.Scheme {
	case "tar", "zfs", string(registry.InArchive):
		return regularFile(l.Path)
	case "dir", string(registry.InLayout):
		st, err := os.Stat(l.Path)
		switch {
		case errors.Is(err, fs.ErrNotExist):
			return fmt.Errorf("%q does not exist", l.Path)
		case err != nil:
			return err
		case !st.IsDir():
			return fmt.Errorf("%q is a file, not a folder", l.Path)
		}
	}
	return nil
}

// Limit returns the bytes that the base may unpack to: MaxSize, or 0 if there is none.
func (b *Base) Limit() (int64, error) {
	if b.MaxSize == "" {
		return 0, nil
	}
	return profiles.ParseSize(b.MaxSize)
}

// Perm returns the permission bits of Mode.
func (f *File) Perm() (uint32, error) {
	n, err := strconv.ParseUint(f.Mode, 8, 12)
	if err != nil {
		return 0, fmt.Errorf("file %q: mode %q is not octal", f.Path, f.Mode)
	}
	return uint32(n), nil
}
