package builder_test

import (
	"archive/tar"
	"compress/gzip"
	"crypto/sha256"
	"fmt"
	"io"
	"io/fs"
	"path"
	"strings"
	"testing"

	"github.com/klauspost/compress/zstd"

	"github.com/goldenisc/packer-plugin-isc/image"
	"github.com/goldenisc/packer-plugin-isc/internal/kindtest"
)

// decodeTar reads an archive with the standard library alone.
func decodeTar(open func(io.Reader) (io.Reader, error)) func(io.Reader) (map[string]string, error) {
	return func(r io.Reader) (map[string]string, error) {
		r, err := open(r)
		if err != nil {
			return nil, err
		}
		found := map[string]string{}
		for tr := tar.NewReader(r); ; {
			h, err := tr.Next()
			if err == io.EOF {
				return found, nil
			}
			if err != nil {
				return nil, err
			}
			name := path.Clean(h.Name)
			if h.Typeflag == tar.TypeLink {
				first, ok := found[path.Clean(h.Linkname)]
				if !ok {
					return nil, fmt.Errorf("%q: link to %q, which is not there yet", h.Name, h.Linkname)
				}
				found[name] = first
				continue
			}
			mode := map[byte]fs.FileMode{
				tar.TypeReg: 0, tar.TypeDir: fs.ModeDir, tar.TypeSymlink: fs.ModeSymlink, tar.TypeFifo: fs.ModeNamedPipe,
				tar.TypeChar: fs.ModeDevice | fs.ModeCharDevice, tar.TypeBlock: fs.ModeDevice,
			}[h.Typeflag]
			var sum [32]byte
			hash := sha256.New()
			n, err := io.Copy(hash, tr)
			if err != nil {
				return nil, err
			}
			hash.Sum(sum[:0])
			if v, ok := h.PAXRecords["SCHILY.xattr.security.capability"]; strings.HasSuffix(name, "/ping") != ok || ok && len(v) != 12 {
				return nil, fmt.Errorf("%q: capability %q", name, v)
			}
			found[name] = kindtest.Describe(image.ModeOf(uint32(h.Mode), mode), h.Uid, h.Gid, h.ModTime,
				image.Device{Major: uint32(h.Devmajor), Minor: uint32(h.Devminor)}, h.Linkname, n, sum)
		}
	}
}

func raw(r io.Reader) (io.Reader, error) { return r, nil }

func TestZone(t *testing.T) {
	for name, k := range map[string]kindtest.Kind{
		"none": {Block: `zone { compression = "none" }`, Decode: decodeTar(raw)},
		"gzip": {Block: `zone { compression = "gzip" }`, Decode: decodeTar(func(r io.Reader) (io.Reader, error) { return gzip.NewReader(r) })},
		"zstd": {Block: `zone { compression = "zstd" }`, Decode: decodeTar(func(r io.Reader) (io.Reader, error) { return zstd.NewReader(r) })},
		"strict": {
			Block: "zone {\n  dialect = \"ustar-strict\"\n  compression = \"none\"\n}", Decode: decodeTar(raw),
			Loses: func(e *image.Entry) bool {
				return e.Xattrs != nil || len(e.Name) > 100 || len(e.Target) > 100 || e.UID >= 1<<21 ||
					strings.IndexFunc(e.Name, func(r rune) bool { return r > 0x7f }) >= 0
			},
		},
	} {
		t.Run(name, func(t *testing.T) {
			k.Artifact = "zone"
			kindtest.Run(t, k)
		})
	}
}
