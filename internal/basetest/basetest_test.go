package basetest

import (
	"archive/tar"
	"bytes"
	"io"
	"path"
	"testing"
)

// read returns the headers of an archive by clean name, and fails on what no root can hold.
func read(t *testing.T, archive []byte) map[string]*tar.Header {
	t.Helper()
	headers := map[string]*tar.Header{}
	r := tar.NewReader(bytes.NewReader(archive))
	for {
		h, err := r.Next()
		if err == io.EOF {
			return headers
		}
		if err != nil {
			t.Fatal(err)
		}
		name := path.Clean(h.Name)
		if headers[name] != nil {
			t.Errorf("%q twice", name)
		}
		if up := path.Dir(name); name != "." && (headers[up] == nil || headers[up].Typeflag != tar.TypeDir) {
			t.Errorf("%q is not below a directory", name)
		}
		if h.Typeflag == tar.TypeLink && headers[path.Clean(h.Linkname)] == nil {
			t.Errorf("%q is a hard link to %q, which does not precede it", name, h.Linkname)
		}
		headers[name] = h
	}
}

func TestOmniOS(t *testing.T) {
	var a, b bytes.Buffer
	if err := OmniOS(&a); err != nil {
		t.Fatal(err)
	}
	if err := OmniOS(&b); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(a.Bytes(), b.Bytes()) {
		t.Error("two runs differ")
	}
	headers := read(t, a.Bytes())
	if len(headers) < 1500 {
		t.Errorf("%d entries", len(headers))
	}
	for name, want := range map[string]struct {
		kind     byte
		mode     int64
		uid, gid int
		target   string
	}{
		"etc/shadow":                {tar.TypeReg, 0o400, 0, 3, ""},
		"etc/cron.d":                {tar.TypeDir, 0o755, 0, 3, ""},
		"bin":                       {tar.TypeSymlink, 0o777, 0, 0, "./usr/bin"},
		"usr/bin/amd64/ls":          {tar.TypeReg, 0o555, 0, 2, ""},
		"usr/bin/su":                {tar.TypeReg, 0o4555, 0, 3, ""},
		"usr/bin/dispgid":           {tar.TypeLink, 0o755, 0, 0, "usr/bin/ckgid"},
		"lib/svc/seed/nonglobal.db": {tar.TypeReg, 0o444, 0, 3, ""},
		"etc/ssh/sshd_config":       {tar.TypeReg, 0o644, 0, 3, ""},
	} {
		h := headers[name]
		if h == nil {
			t.Errorf("%q is missing", name)
			continue
		}
		if h.Typeflag != want.kind || h.Mode != want.mode || h.Uid != want.uid || h.Gid != want.gid || h.Linkname != want.target {
			t.Errorf("%q is %c %o %d:%d %q, want %c %o %d:%d %q", name, h.Typeflag, h.Mode, h.Uid, h.Gid, h.Linkname,
				want.kind, want.mode, want.uid, want.gid, want.target)
		}
	}
	if headers["lib/svc/seed/global.db"] != nil {
		t.Error("a file of the global zone is there")
	}
}

func TestOdd(t *testing.T) {
	var a bytes.Buffer
	if err := Odd(&a); err != nil {
		t.Fatal(err)
	}
	headers := read(t, a.Bytes())
	if h := headers["bin/ping"]; h == nil || h.PAXRecords["SCHILY.xattr.security.capability"] != capNetRaw {
		t.Error("no security.capability")
	}
	if h := headers["ids/subuid"]; h == nil || h.Uid != 2_147_000_000 {
		t.Error("no large owner")
	}
	if headers["names/latin1-\xe4"] == nil {
		t.Error("no name outside UTF-8")
	}
}
