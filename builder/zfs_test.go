package builder_test

import (
	"bytes"
	"crypto/sha256"
	"io"
	"math"
	"testing"

	"github.com/goldenisc/packer-plugin-isc/image"
	"github.com/goldenisc/packer-plugin-isc/internal/kindtest"
	"github.com/goldenisc/packer-plugin-isc/zfs"
)

// decodeZFS reads a stream with the reader of package zfs, which shares the format's constants with the
// writer and nothing else.
func decodeZFS(platform zfs.Platform, under string) func(io.Reader) (map[string]string, error) {
	return func(r io.Reader) (map[string]string, error) {
		plain, _, err := image.Decompress(r)
		if err != nil {
			return nil, err
		}
		defer plain.Close()
		data, err := io.ReadAll(plain)
		if err != nil {
			return nil, err
		}
		if err := zfs.Check(bytes.NewReader(data), int64(len(data))); err != nil {
			return nil, err
		}
		return describeZFS(data, platform, under)
	}
}

// describeZFS lists what is below a folder of a stream.
func describeZFS(data []byte, platform zfs.Platform, under string) (map[string]string, error) {
	s, err := zfs.Open(bytes.NewReader(data), int64(len(data)), "")
	if err != nil {
		return nil, err
	}
	return describeSnapshot(s, platform, under)
}

func describeSnapshot(s *zfs.Snapshot, platform zfs.Platform, under string) (map[string]string, error) {
	m := map[string]string{}
	for o, err := range s.Objects(platform) {
		if err != nil {
			return nil, err
		}
		name, ok := below(under, o.Path)
		if !ok {
			continue
		}
		if o.Link != "" {
			first, _ := below(under, o.Link)
			m[name] = m[first]
			continue
		}
		var digest [sha256.Size]byte
		if o.Mode.IsRegular() {
			h := sha256.New()
			if o.Size > 0 {
				c, err := o.Open()
				if err != nil {
					return nil, err
				}
				if _, err := io.Copy(h, io.NewSectionReader(c, 0, o.Size)); err != nil {
					return nil, err
				}
			}
			h.Sum(digest[:0])
		}
		m[name] = kindtest.Describe(o.Mode, o.UID, o.GID, o.ModTime, image.Device(o.Rdev), o.Target, o.Size, digest)
	}
	return m, nil
}

// below returns a name without the folder it is below.
func below(dir, name string) (string, bool) {
	switch {
	case dir == "":
		return name, true
	case name == dir:
		return ".", true
	case len(name) > len(dir) && name[:len(dir)+1] == dir+"/":
		return name[len(dir)+1:], true
	}
	return "", false
}

func TestZFSKind(t *testing.T) {
	loses := func(e *image.Entry) bool {
		return e.UID > math.MaxInt32 || e.GID > math.MaxInt32 || len(e.Target) > 1023
	}
	for _, c := range []struct {
		name, block string
		decode      func(io.Reader) (map[string]string, error)
	}{
		{"zpl5", `zfs {}`, decodeZFS(zfs.Linux, "")},
		{"zpl4 gzip", `zfs {
  profile     = "zpl4"
  compression = "gzip"
  platform    = "freebsd"
}`, decodeZFS(zfs.FreeBSD, "")},
		{"lx", `zfs {
  layout      = "root"
  compression = "none"
}`, decodeZFS(zfs.Illumos, "root")},
		{"lz4", `zfs {
  lz4 = true
}`, decodeZFS(zfs.Linux, "")},
	} {
		t.Run(c.name, func(t *testing.T) {
			kindtest.Run(t, kindtest.Kind{Block: c.block, Artifact: "zfs", Decode: c.decode, Loses: loses, Few: c.name != "zpl5"})
		})
	}
}
