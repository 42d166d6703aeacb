package hosttest

import (
	"bytes"
	"iter"
	"strconv"
	"testing"
	"time"

	"github.com/goldenisc/packer-plugin-isc/host"
	"github.com/goldenisc/packer-plugin-isc/image"
	"github.com/goldenisc/packer-plugin-isc/zfs"
)

// Objects yields a frozen tree as package zfs wants it.
func Objects(t testing.TB, tree *image.Tree) iter.Seq2[*zfs.Object, error] {
	return func(yield func(*zfs.Object, error) bool) {
		for e := range tree.All() {
			o := &zfs.Object{
				Path: e.Name, Mode: e.Mode, UID: e.UID, GID: e.GID, ModTime: e.ModTime, Size: e.Size, Target: e.Target, Link: e.HardLink,
				Xattrs: e.Xattrs, Digest: e.Digest, Rdev: zfs.Device{Major: e.Rdev.Major, Minor: e.Rdev.Minor},
			}
			if e.IsRegular() && e.Size > 0 && e.HardLink == "" {
				data, err := tree.ReadFile(e.Name)
				if err != nil {
					t.Fatal(err)
				}
				o.Open = func() (zfs.Content, error) { return zfs.BytesContent(data), nil }
			}
			if !yield(o, nil) {
				return
			}
		}
	}
}

// A Base is an image that increments start from.
type Base struct {
	Digest string
	Maps   map[zfs.Profile]*zfs.Map
}

// ZFSImage makes a verified image with send streams: full ones of both profiles, and increments if
// it has a base.
func ZFSImage(t testing.TB, c *image.Config, files []File, from *Base) (*host.Verified, *Base) {
	t.Helper()
	tree := Tree(t, files)
	defer tree.Close()
	c.Artifacts = nil
	src := Source{}
	base := &Base{Maps: map[zfs.Profile]*zfs.Map{}}
	add := func(a image.Artifact, data []byte) {
		src[a.Name] = data
		a.Digest, a.Size = digest(data), int64(len(data))
		c.Artifacts = append(c.Artifacts, a)
	}
	for _, profile := range []zfs.Profile{zfs.ZPL5, zfs.ZPL4} {
		o := zfs.Options{Profile: profile}
		if from != nil {
			o.Base = from.Maps[profile]
		}
		s, err := zfs.NewStream(Objects(t, tree), o)
		if err != nil {
			t.Fatal(err)
		}
		attrs := map[string]string{
			image.AttrProfile: profile.String(), image.AttrLayout: "top", image.AttrPlatform: zfs.Linux.String(), image.AttrGUID: strconv.FormatUint(s.GUID(), 10),
		}
		var b bytes.Buffer
		if err := s.Write(t.Context(), &b); err != nil {
			t.Fatal(err)
		}
		add(image.Artifact{Name: "zfs-" + profile.String(), Kind: "zfs", MediaType: image.TypeZFS, Attributes: attrs}, b.Bytes())
		if base.Maps[profile], err = s.Map(); err != nil {
			t.Fatal(err)
		}
		if from == nil {
			continue
		}
		var inc bytes.Buffer
		if err := s.WriteIncrement(t.Context(), &inc, o.Base, false); err != nil {
			t.Fatal(err)
		}
		with := map[string]string{image.AttrFromGUID: strconv.FormatUint(o.Base.GUID(), 10)}
		for k, v := range attrs {
			with[k] = v
		}
		add(image.Artifact{Name: "increment-" + profile.String(), Kind: image.KindIncrement, MediaType: image.TypeZFS, From: from.Digest, Attributes: with}, inc.Bytes())
	}
	v := FromTree(t, c, tree)
	for name, data := range src {
		v.Source.(Source)[name] = data
	}
	base.Digest = v.Digest
	return v, base
}

// Tree makes a frozen tree of these files, which belong to who runs the test, unless they say
// otherwise.
func Tree(t testing.TB, files []File) *image.Tree {
	t.Helper()
	tree, err := image.NewTree(t.TempDir(), image.DefaultLimits)
	if err != nil {
		t.Fatal(err)
	}
	uid, gid := owner()
	if err := tree.SetMeta(".", dirMode, uid, gid, Time, nil); err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		if f.ModTime.IsZero() {
			f.ModTime = Time
		}
		if f.UID == 0 && f.GID == 0 {
			f.UID, f.GID = uid, gid
		}
		if err := tree.Put(f.Entry, []byte(f.Data)); err != nil {
			t.Fatal(err)
		}
	}
	tree.Freeze(time.Time{})
	return tree
}
