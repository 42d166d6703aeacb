package builder_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"maps"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/goldenisc/packer-plugin-isc/builder"
	"github.com/goldenisc/packer-plugin-isc/image"
	"github.com/goldenisc/packer-plugin-isc/internal/kindtest"
	"github.com/goldenisc/packer-plugin-isc/zfs"
)

// A poolReader follows the pointers of a pool from an uberblock down, as a host does. It knows no
// compression.
type poolReader []byte

// A poolObject is an object of a pool, with all its content.
type poolObject struct {
	dnode, bonus, spill []byte
	blocks              map[uint64][]byte
}

func sum4(b []byte) (s [4]uint64) {
	for ; len(b) >= 4; b = b[4:] {
		s[0] += uint64(binary.LittleEndian.Uint32(b))
		s[1] += s[0]
		s[2] += s[1]
		s[3] += s[2]
	}
	return s
}

func (p poolReader) block(bp []byte) ([]byte, error) {
	le := binary.LittleEndian
	prop := le.Uint64(bp[48:])
	if c := prop >> 32 & 0x7f; c != 2 {
		return nil, fmt.Errorf("compression %d", c)
	}
	off := 4<<20 + le.Uint64(bp[8:])<<9
	b := p[off:][:(prop>>16&0xffff+1)*512]
	for i, v := range sum4(b) {
		if le.Uint64(bp[96+8*i:]) != v {
			return nil, fmt.Errorf("checksum of the block at %d", off)
		}
	}
	return b, nil
}

func (p poolReader) object(d []byte) (o poolObject, err error) {
	le := binary.LittleEndian
	o = poolObject{dnode: d, bonus: d[64+128*int(d[3]):][:le.Uint16(d[10:])], blocks: map[uint64][]byte{}}
	if d[7]&4 != 0 {
		if o.spill, err = p.block(d[384:]); err != nil {
			return o, err
		}
	}
	var walk func(bp []byte, level int, id uint64) error
	walk = func(bp []byte, level int, id uint64) error {
		if bytes.Equal(bp[:128], make([]byte, 128)) {
			return nil
		}
		b, err := p.block(bp)
		if err != nil || level == 0 {
			o.blocks[id] = b
			return err
		}
		for i := range uint64(len(b) / 128) {
			if err := walk(b[128*i:], level-1, id<<(d[1]-7)+i); err != nil {
				return err
			}
		}
		return nil
	}
	return o, walk(d[64:], int(d[2])-1, 0)
}

func (p poolReader) objects(bp []byte) (map[uint64]poolObject, error) {
	b, err := p.block(bp)
	if err != nil {
		return nil, err
	}
	meta, err := p.object(b[:512])
	m := map[uint64]poolObject{}
	for id, b := range meta.blocks {
		for i := range uint64(32) {
			d := b[512*i:][:512]
			if d[0] == 0 {
				continue
			}
			o, e := p.object(d)
			m[id*32+i], err = o, errors.Join(err, e)
		}
	}
	return m, err
}

// stream makes a send stream of the snapshot of a guid: package zfs reads streams.
func (p poolReader) stream(guid uint64) ([]byte, error) {
	le := binary.LittleEndian
	mos, err := p.objects(p[128<<10+40:])
	if err != nil {
		return nil, err
	}
	var fs map[uint64]poolObject
	for _, o := range mos {
		if o.dnode[0] == 16 && le.Uint64(o.bonus[14*8:]) == guid { // DMU_OT_DSL_DATASET, ds_guid
			if fs, err = p.objects(o.bonus[128:]); err != nil {
				return nil, err
			}
		}
	}
	if fs == nil {
		return nil, fmt.Errorf("no dataset of guid %d", guid)
	}
	var out []byte
	record := func(kind uint32, payload []byte, fill func(b []byte)) {
		b := make([]byte, 312)
		le.PutUint32(b, kind)
		fill(b[8:])
		if kind == 5 { // DRR_END: of all before it
			for i, v := range sum4(out) {
				le.PutUint64(b[8+8*i:], v)
			}
		}
		if kind != 0 {
			for i, v := range sum4(append(out[:len(out):len(out)], b[:280]...)) {
				le.PutUint64(b[280+8*i:], v)
			}
		}
		out = append(append(out, b...), payload...)
		out = append(out, make([]byte, -len(payload)&7)...)
	}
	record(0, nil, func(b []byte) {
		le.PutUint64(b, 0x2F5bacbac)
		le.PutUint64(b[8:], 1|4<<2) // a substream, DMU_BACKUP_FEATURE_SA_SPILL
		le.PutUint32(b[24:], 2)     // DMU_OST_ZFS
		le.PutUint64(b[32:], guid)
		copy(b[48:], "pool/fs@snap")
	})
	for _, id := range slices.Sorted(maps.Keys(fs)) {
		o := fs[id]
		size := uint64(le.Uint16(o.dnode[8:])) * 512
		record(1, o.bonus, func(b []byte) {
			le.PutUint64(b, id)
			le.PutUint32(b[8:], uint32(o.dnode[0]))
			le.PutUint32(b[12:], uint32(o.dnode[4]))
			le.PutUint32(b[16:], uint32(size))
			le.PutUint32(b[20:], uint32(len(o.bonus)))
			le.PutUint64(b[32:], guid)
		})
		for _, n := range slices.Sorted(maps.Keys(o.blocks)) {
			record(3, o.blocks[n], func(b []byte) {
				le.PutUint64(b, id)
				le.PutUint32(b[8:], uint32(o.dnode[0]))
				le.PutUint64(b[16:], n*size)
				le.PutUint64(b[24:], size)
				le.PutUint64(b[32:], guid)
			})
		}
		if o.spill != nil {
			record(7, o.spill, func(b []byte) {
				le.PutUint64(b, id)
				le.PutUint64(b[8:], uint64(len(o.spill)))
				le.PutUint64(b[16:], guid)
			})
		}
	}
	record(5, nil, func(b []byte) { le.PutUint64(b[32:], guid) })
	return out, nil
}

// golden finds the guid of the only snapshot in a pool.
func (p poolReader) golden() (guid uint64, err error) {
	le := binary.LittleEndian
	mos, err := p.objects(p[128<<10+40:])
	if err != nil {
		return 0, err
	}
	for _, o := range mos {
		// A snapshot has a next one (ds_next_snap_obj) and is not $ORIGIN's, which has no content.
		if o.dnode[0] == 16 && le.Uint64(o.bonus[3*8:]) != 0 && !bytes.Equal(o.bonus[128:256], make([]byte, 128)) {
			if guid != 0 {
				return 0, errors.New("two snapshots")
			}
			guid = le.Uint64(o.bonus[14*8:])
		}
	}
	return guid, nil
}

func decodePool(platform zfs.Platform) func(io.Reader) (map[string]string, error) {
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
		p := poolReader(data)
		guid, err := p.golden()
		if err != nil {
			return nil, err
		}
		stream, err := p.stream(guid)
		if err != nil {
			return nil, err
		}
		return describeZFS(stream, platform, "")
	}
}

func TestZPoolKind(t *testing.T) {
	loses := func(e *image.Entry) bool { return e.UID > 1<<31-1 || e.GID > 1<<31-1 || len(e.Target) > 1023 }
	for name, block := range map[string]string{
		"default": "zpool {\n  size = \"128MiB\"\n}",
		"disk":    "zpool {\n  size = \"100MiB\"\n  ashift = 9\n  pool = \"tank\"\n  vdev = \"disk\"\n  compression = \"gzip\"\n}",
	} {
		t.Run(name, func(t *testing.T) {
			kindtest.Run(t, kindtest.Kind{Block: block, Artifact: "zpool", Decode: decodePool(zfs.Linux), Loses: loses, Few: true})
		})
	}
}

// The snapshot in a pool is that of the stream beside it, of every version, and so are the objects.
func TestZPoolIsStream(t *testing.T) {
	dir := t.TempDir()
	root := oddTree(t)
	build := func(version, from string) {
		t.Helper()
		m, err := buildInto(t, filepath.Join(dir, version), zfsSpec("illumos", version, "dir:"+filepath.ToSlash(root),
			"zfs {\n  id = \"smartos\"\n  layout = \"root\"\n}\nzfs {\n"+from+"}\nzpool {\n  size = \"64MiB\"\n}"))
		if err != nil {
			t.Fatal(err)
		}
		a := map[string]map[string]string{}
		for _, x := range m.Config.Artifacts {
			a[x.Name] = x.Attributes
		}
		for _, k := range []string{image.AttrGUID, image.AttrProfile, image.AttrLayout, image.AttrPlatform, image.AttrBrand} {
			if got, want := a["zpool"][k], a["zfs"][k]; got != want || got == "" {
				t.Errorf("attribute %q of the pool is %q, of the stream %q", k, got, want)
			}
		}
		if got := a["zpool"]["bootfs"]; got != "rpool/ROOT/web" {
			t.Errorf("bootfs %q", got)
		}
		pool := poolReader(plain(t, artifact(t, m, "zpool")))
		guid, err := pool.golden()
		if err != nil || strconv.FormatUint(guid, 10) != a["zfs"][image.AttrGUID] {
			t.Errorf("the snapshot has the guid %d, that of the stream %s: %v", guid, a["zfs"][image.AttrGUID], err)
		}
		again, err := pool.stream(guid)
		if err != nil {
			t.Fatal(err)
		}
		got, err := describeZFS(again, zfs.Illumos, "")
		if err != nil {
			t.Fatal(err)
		}
		want, err := describeZFS(plain(t, artifact(t, m, "zfs")), zfs.Illumos, "")
		if err != nil {
			t.Fatal(err)
		}
		if !maps.Equal(got, want) {
			t.Errorf("the pool has\n%v\nthe stream\n%v", got, want)
		}
		for _, s := range []string{"org.opensolaris.libbe", "/rpool", "legacy"} { // in pieces of 21 bytes
			if !bytes.Contains(pool, []byte(s)) {
				t.Errorf("no %q in the pool", s)
			}
		}
	}
	build("1", "")
	put(t, filepath.Join(root, "srv", "new"), "new")
	put(t, filepath.Join(root, "srv", "a"), "other")
	build("2", "  from = [\"oci:"+filepath.ToSlash(filepath.Join(dir, "1"))+"\"]\n")
}

func TestZPoolRefused(t *testing.T) {
	for want, block := range map[string]string{
		`name "mirror"`:            `pool = "mirror"`,
		`ashift 0`:                 `ashift = 0`,
		`ashift 14`:                `ashift = 14`,
		`size 1048576: not from`:   `size = "1MiB"`,
		`size`:                     `size = "many"`,
		`none of file, disk`:       `vdev = "tape"`,
		`none of none, gzip, zstd`: `compression = "xz"`,
		`the contents need`:        `size = "64MiB"`,
	} {
		root := oddTree(t)
		put(t, filepath.Join(root, "large"), strings.Repeat("0123456789abcdef", 5<<20))
		_, err := buildInto(t, filepath.Join(t.TempDir(), "o"), zfsSpec("linux", "1", "dir:"+filepath.ToSlash(root), "zpool {\n  "+block+"\n}"))
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: error %v, want %s", block, err, want)
		}
		if strings.Contains(want, "need") && !errors.Is(err, builder.ErrInput) {
			t.Errorf("%v: not one of the input", err)
		}
	}
}
