package basetest

import (
	"archive/tar"
	"io"
	"strings"
	"time"
)

// capNetRaw is a security.capability of revision 2: cap_net_raw, permitted and effective
// (linux/capability.h, struct vfs_cap_data).
const capNetRaw = "\x01\x00\x00\x02\x00\x20\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00"

// Odd writes an archive of what tools tend to get wrong: names with every special character,
// longer than a ustar header takes and not in UTF-8, ids over 2^21, times before 1970 and between
// seconds, set-id and unreadable files, hard links, devices, a fifo, extended attributes, holes
// and empty things. It is a Linux root as far as os-release goes.
func Odd(w io.Writer) error {
	tw := tar.NewWriter(w)
	for _, o := range odd() {
		o.h.Size = int64(len(o.data))
		if err := tw.WriteHeader(o.h); err != nil {
			return err
		}
		if _, err := io.WriteString(tw, o.data); err != nil {
			return err
		}
	}
	return tw.Close()
}

type oddEntry struct {
	h    *tar.Header
	data string
}

func odd() []oddEntry {
	var all []oddEntry
	add := func(h *tar.Header, data string, edit ...func(*tar.Header)) {
		for _, f := range edit {
			f(h)
		}
		all = append(all, oddEntry{h, data})
	}
	reg := func(name, data string, edit ...func(*tar.Header)) { add(file(name, 0o644, 0, 0), data, edit...) }
	xattr := func(key, value string) func(*tar.Header) {
		return func(h *tar.Header) {
			if h.PAXRecords == nil {
				h.PAXRecords = map[string]string{}
			}
			h.PAXRecords["SCHILY.xattr."+key] = value
		}
	}
	at := func(t time.Time) func(*tar.Header) {
		return func(h *tar.Header) { h.ModTime, h.Format = t, tar.FormatPAX }
	}
	mode := func(m int64) func(*tar.Header) { return func(h *tar.Header) { h.Mode = m } }
	owner := func(uid, gid int) func(*tar.Header) { return func(h *tar.Header) { h.Uid, h.Gid = uid, gid } }

	for _, name := range []string{".", "bin", "dev", "etc", "names", "ids", "times", "modes", "links", "xattrs", "sizes"} {
		add(dir(name, 0o755, 0), "")
	}
	reg("etc/os-release", "NAME=Odd\nID=odd\nVERSION_ID=1\n")

	for _, name := range []string{
		" leading space", "trailing space ", "a b", "tab\tname", "new\nline", `back\slash`, "#comment", "glob*?[x]",
		"equals=sign", "quote'\"", "-dash", "~tilde", "ümläut", "日本語", "del\x7f", "esc\x1b[31m", "colon:name", "...", "semi;colon",
		strings.Repeat("n", 100), strings.Repeat("m", 255),
	} {
		reg("names/"+name, name)
	}
	reg("names/latin1-\xe4", "kept as bytes", func(h *tar.Header) { h.Format = tar.FormatGNU })
	deep := "names"
	for range 12 {
		deep += "/" + strings.Repeat("d", 60)
		add(dir(deep, 0o755, 0), "")
	}
	reg(deep+"/leaf", "below 700 bytes of path")
	add(link("names/long target", strings.Repeat("t/", 500)+"end"), "")

	reg("ids/over-2^21", "x", owner(3_000_000, 2_500_000))
	reg("ids/nobody", "x", owner(65534, 65534))
	reg("ids/subuid", "x", owner(2_147_000_000, 2_147_000_001))

	reg("times/before-1970", "x", at(time.Unix(-86400, 0)))
	reg("times/between", "x", at(time.Unix(1_600_000_000, 123_456_789)))
	reg("times/zero", "x", at(time.Unix(0, 0)))
	reg("times/after-2106", "x", at(time.Unix(1<<32+5, 0)))
	add(dir("times/dir", 0o755, 0), "", at(time.Unix(1_500_000_000, 500)))
	reg("times/dir/inside", "x")
	add(link("times/link", "between"), "", at(time.Unix(1_400_000_000, 7)))

	reg("modes/setuid", "x", mode(0o4755), owner(1, 2))
	reg("modes/setgid", "x", mode(0o2755))
	reg("modes/none", "x", mode(0))
	add(dir("modes/sticky", 0o1777, 0), "")
	add(dir("modes/setgid-dir", 0o2775, 50), "")
	reg("modes/setgid-dir/inside", "x")
	add(dir("modes/unwritable", 0o555, 0), "")
	reg("modes/unwritable/inside", "x", mode(0o400))

	reg("links/a", "three names")
	add(hardLink("links/b", "links/a"), "")
	add(hardLink("names/also a", "links/a"), "")
	reg("links/empty1", "")
	add(hardLink("links/empty2", "links/empty1"), "")
	add(link("links/absolute", "/etc/os-release"), "")
	add(link("links/dangling", "no/such"), "")
	add(link("links/loop", "loop"), "")
	add(link("links/up", "../../../../etc"), "")

	node := func(name string, kind byte, major, minor int64) {
		h := file(name, 0o620, 5, 0)
		h.Typeflag, h.Devmajor, h.Devminor = kind, major, minor
		add(h, "")
	}
	node("dev/null", tar.TypeChar, 1, 3)
	node("dev/sda", tar.TypeBlock, 8, 0)
	node("dev/high", tar.TypeChar, 511, 70000)
	node("dev/fifo", tar.TypeFifo, 0, 0)

	reg("bin/ping", "#!ping\n", mode(0o755), xattr("security.capability", capNetRaw))
	reg("xattrs/binary", "x", xattr("user.binary", "\x00\n=\xff"), xattr("user.plain", "value"))
	reg("xattrs/linked", "x", xattr("user.shared", "by two names"))
	add(hardLink("xattrs/linked2", "xattrs/linked"), "")
	add(dir("xattrs/dir", 0o755, 0), "", xattr("user.of-dir", "value"))

	reg("sizes/empty", "")
	reg("sizes/one", "1")
	reg("sizes/512", strings.Repeat("b", 512))
	reg("sizes/513", strings.Repeat("c", 513))
	reg("sizes/holes", strings.Repeat("\x00", 1<<20)+"middle"+strings.Repeat("\x00", 3<<20))
	reg("sizes/hole only", strings.Repeat("\x00", 2<<20))
	reg("sizes/5MiB", strings.Repeat("0123456789abcdef", 5<<16))
	return all
}
