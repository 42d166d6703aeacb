//go:build linux

package main

import (
	"bytes"
	"encoding/binary"
	"errors"
	"hash/crc32"
	"reflect"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

func TestCmdline(t *testing.T) {
	c, err := parseCmdline("quiet ro isc.root=AA isc.verity=12:5a:0b:CC isc.swap=DD isc.scratch=EE isc.data=FF:/data isc.second isc.var=overlay isc.etc=tmpfs isc.corrupt=panic init=/bin/x foo.root=1 isc.root=bb init=/bin/y isc.verity=1:2:3:4\n")
	if err != nil {
		t.Fatal(err)
	}
	want := &cmdline{root: "aa", swap: "dd", scratch: "ee", data: "ff", dataPath: "/data", second: true, corrupt: "panic", vari: "overlay", etc: "tmpfs", init: "/bin/x"}
	want.verity.blocks, want.verity.salt, want.verity.root, want.verity.hash = 12, "5a", "0b", "cc"
	if !reflect.DeepEqual(c, want) {
		t.Errorf("%+v", c)
	}
	for _, bad := range []string{"", "isc.root=a", "isc.root=a isc.verity=1:2:3", "isc.root=a isc.verity=x:2:3:4", "isc.root=a isc.verity=-1:2:3:4", "isc.data=a:b", "isc.data=a:/b/../c"} {
		if c, err := parseCmdline(bad); err == nil {
			t.Errorf("%q: %+v", bad, c)
		}
	}
}

// TestTmp: fstab may make /tmp stricter and of another size, and nothing else.
func TestTmp(t *testing.T) {
	const least = unix.MS_NOSUID | unix.MS_NODEV
	for _, x := range []struct {
		fstab, options string
		flags          uintptr
	}{
		{"", "mode=1777,size=50%", least},
		{"tmpfs /tmp tmpfs mode=1777,nodev,nosuid,noexec 0 0\n", "mode=1777,size=50%", least | unix.MS_NOEXEC},
		{"a / ext4 noexec 0 0\n tmpfs\t/tmp tmpfs suid,dev,size=64m,mode=0700 0 0", "mode=1777,size=50%,size=64m", least},
		{"#tmpfs /tmp tmpfs noexec 0 0\ntmpfs /tmp tmpfs\n/dev/sdb1 /tmp ext4 noexec 0 0\n", "mode=1777,size=50%", least},
	} {
		if flags, options := tmpOptions(x.fstab); flags != x.flags || options != x.options {
			t.Errorf("%q: %#x %q", x.fstab, flags, options)
		}
	}
}

// TestPick: what is encrypted is of the disk that has the root, or, if there is a second one, of another.
func TestPick(t *testing.T) {
	system := map[string]string{"r": "/dev/sdb1", "h": "/dev/sdb2", "s": "/dev/sdb3"}
	alien := map[string]string{"s": "/dev/sda1", "h": "/dev/sda2"}
	c := &cmdline{root: "r", scratch: "s"}
	c.verity.hash = "h"
	for _, x := range []struct {
		second bool
		tables []map[string]string
		want   disks
		miss   string
	}{
		{false, []map[string]string{alien, system}, disks{root: "/dev/sdb1", hash: "/dev/sdb2", scratch: "/dev/sdb3"}, ""},
		{true, []map[string]string{system, alien}, disks{root: "/dev/sdb1", hash: "/dev/sdb2", scratch: "/dev/sda1"}, ""},
		{false, []map[string]string{alien}, disks{}, "partition r"},
		{true, []map[string]string{system}, disks{root: "/dev/sdb1", hash: "/dev/sdb2"}, "partition s"},
	} {
		c.second = x.second
		if got, miss := pick(c, x.tables); *got != x.want || miss != x.miss {
			t.Errorf("%+v: %+v, %q", x, got, miss)
		}
	}
}

// testGPT is a table of 4 entries, of which the second is one.
func testGPT() []byte {
	le := binary.LittleEndian
	b := make([]byte, 3*512+512)
	h := b[512:]
	copy(h, "EFI PART")
	le.PutUint64(h[72:], 2)
	le.PutUint32(h[80:], 4)
	le.PutUint32(h[84:], 128)
	for i := range 32 {
		b[1024+128+i] = byte(i)
	}
	le.PutUint32(h[88:], crc32.ChecksumIEEE(b[1024:1024+512]))
	return b
}

func TestGPT(t *testing.T) {
	got, err := parseGPT(bytes.NewReader(testGPT()), 512)
	if err != nil || len(got) != 1 || got[2] != "13121110-1514-1716-1819-1a1b1c1d1e1f" {
		t.Errorf("%v %v", got, err)
	}
	b := testGPT()
	b[1024] ^= 1
	if _, err := parseGPT(bytes.NewReader(b), 512); err == nil || !strings.Contains(err.Error(), "damaged") {
		t.Error(err)
	}
}

func FuzzGPT(f *testing.F) {
	f.Add(testGPT())
	f.Fuzz(func(t *testing.T, b []byte) {
		if ids, err := parseGPT(bytes.NewReader(b), 512); err == nil && len(ids) > 256 {
			t.Error(len(ids))
		}
	})
}

func FuzzCmdline(f *testing.F) {
	f.Add("isc.root=a isc.verity=1:2:3:4 isc.data=a:/b")
	f.Fuzz(func(t *testing.T, s string) {
		if c, err := parseCmdline(s); err == nil && (c.root == "" || c.verity.blocks <= 0) {
			t.Errorf("%+v", c)
		}
	})
}

func TestFormat(t *testing.T) {
	for _, size := range []int64{0, 1 << 20, 1 << 60} {
		if err := format(&sink{}, size, [16]byte{}, true, top{mode: 0o755}); err == nil {
			t.Errorf("a file system of %d bytes", size)
		}
	}
	w := &sink{}
	if err := format(w, 20<<30, [16]byte{1}, false, top{mode: 0o755}); err != nil || w.n > 8<<20 {
		t.Errorf("20 GiB cost %d bytes (%v)", w.n, err)
	}
}

type sink struct{ n int }

func (s *sink) WriteAt(p []byte, _ int64) (int, error) { s.n += len(p); return len(p), nil }
func (s *sink) Sync() error                            { return nil }

// A cut is a device whose power goes after some writes and flushes. Of what was written since the last
// flush only the last write has arrived.
type cut struct {
	data []byte
	late []func()
	left int
}

var errCut = errors.New("no power")

func (c *cut) step() error {
	if c.left == 0 {
		if n := len(c.late); n > 0 {
			c.late[n-1]()
		}
		return errCut
	}
	c.left--
	return nil
}

func (c *cut) WriteAt(p []byte, at int64) (int, error) {
	if err := c.step(); err != nil {
		return 0, err
	}
	p = bytes.Clone(p)
	c.late = append(c.late, func() { copy(c.data[at:], p) })
	return len(p), nil
}

func (c *cut) Sync() error {
	if err := c.step(); err != nil {
		return err
	}
	for _, write := range c.late {
		write()
	}
	c.late = nil
	return nil
}

// TestPowerCut: whenever the power goes, the device is either to be formatted or holds the file system.
func TestPowerCut(t *testing.T) {
	const size = 24 << 20
	whole := &cut{data: make([]byte, size), left: -1}
	if err := format(whole, size, [16]byte{1}, true, top{mode: 0o755}); err != nil {
		t.Fatal(err)
	}
	if fresh(whole.data[:1<<20]) || whole.data[0] != 0 {
		t.Fatal("what is whole is to be formatted")
	}
	for n := 0; ; n++ {
		c := &cut{data: make([]byte, size), left: n}
		err := format(c, size, [16]byte{1}, true, top{mode: 0o755})
		if !fresh(c.data[:1<<20]) && !bytes.Equal(c.data[1024:], whole.data[1024:]) {
			t.Errorf("after %d steps the device is neither fresh nor whole", n)
		}
		if err == nil {
			break
		}
	}
	for text, want := range map[string]bool{"": true, "LUKS": false, begun: true, begun[1:]: false} {
		head := make([]byte, 1<<20)
		copy(head, text)
		if fresh(head) != want {
			t.Errorf("%q: fresh is %v", text, !want)
		}
	}
}
