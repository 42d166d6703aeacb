package builder_test

import (
	"crypto/sha1"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"strconv"
	"strings"
	"testing"

	"github.com/goldenisc/packer-plugin-isc/builder"
	"github.com/goldenisc/packer-plugin-isc/image"
	"github.com/goldenisc/packer-plugin-isc/zfs"
)

const (
	mineHead = "<?xml version='1.0'?><!DOCTYPE service_bundle SYSTEM '/usr/share/lib/xml/dtd/service_bundle.dtd.1'>" +
		"<service_bundle type='manifest' name='x'><service name='site/mine' type='service' version='1'><create_default_instance enabled='false'/><single_instance/>"
	mineTail = "</service></service_bundle>"
)

const smartOSService = `
file {
  path    = "/opt/web/webd"
  content = "x"
  mode    = "0555"
}
file {
  path    = "/lib/svc/method/web"
  content = "#!/bin/sh\n"
  mode    = "0555"
}
file {
  path    = "/lib/svc/manifest/site/mine.xml"
  content = "` + mineHead + `<exec_method type='method' name='start' exec='/lib/svc/method/web start' timeout_seconds='9'/><exec_method type='method' name='stop' exec='/lib/svc/method/webx' timeout_seconds='9'/>` + mineTail + `"
}
link {
  path   = "/opt/web/method"
  target = "/lib/svc/method/web"
  hard   = true
}
service {
  name = "web"
  exec = "/opt/web/webd"
}
scratch {
  path = "/scratch"
  size = "1GiB"
}
`

// A zone of SmartOS sees nothing that an image has below /lib, /sbin and /usr.
func TestZFSSmartOS(t *testing.T) {
	spec := strings.Replace(zfsSpec("illumos", "1.0", "skeleton:illumos", smartOSService, "zfs {\n  layout = \"root\"\n  min_platform = \"20240101T000000Z\"\n}"), "\"none\"", "\"isc-baseline\"", 1)
	m, b, err := buildSpec(t, t.TempDir(), spec)
	if err != nil {
		t.Fatal(err)
	}
	blob := artifact(t, m, "zfs")
	stream := plain(t, blob)
	if err := zfs.Check(strings.NewReader(string(stream)), int64(len(stream))); err != nil {
		t.Error(err)
	}
	s, err := zfs.Open(strings.NewReader(string(stream)), int64(len(stream)), "")
	if err != nil {
		t.Fatal(err)
	}
	found := map[string]string{}
	for o, err := range s.Objects(zfs.Illumos) {
		if err != nil {
			t.Fatal(err)
		}
		found[o.Path] = o.Mode.Type().String()
		if o.Path == "root/opt/web/method" && o.Link != "root/opt/iscadm/method/web" {
			t.Errorf("a further name of a moved file: link %q", o.Link)
		}
		if o.Mode.IsRegular() && o.Size > 0 && strings.Contains(o.Path, "mine.xml") {
			c, err := o.Open()
			if err != nil {
				t.Fatal(err)
			}
			data, err := io.ReadAll(io.NewSectionReader(c, 0, o.Size))
			if err != nil {
				t.Fatal(err)
			}
			if !strings.Contains(string(data), "exec='/opt/iscadm/method/web start'") || !strings.Contains(string(data), "exec='/lib/svc/method/webx'") {
				t.Errorf("manifest %q", data)
			}
		}
	}
	for _, name := range []string{".", "root", "root/opt/web/webd", "root/etc/passwd", "site/mine.xml", "site", "root/opt/iscadm/method/web", "root/lib", "root/usr", "root/sbin"} {
		if found[name] == "" {
			t.Errorf("%q is missing", name)
		}
	}
	services := 0
	for name := range found {
		if rest, ok := strings.CutPrefix(name, "root/"); ok && strings.Contains(rest, "/") {
			for _, dir := range []string{"lib/", "usr/", "sbin/"} {
				if strings.HasPrefix(rest, dir) {
					t.Errorf("%q is hidden by the platform", name)
				}
			}
		}
		if strings.HasPrefix(name, "site/") {
			services++
		}
	}
	if services < 3 {
		t.Errorf("%d manifests in site", services)
	}
	paths, err := builder.ParsePaths(artifact(t, m, "zfs/paths"))
	if err != nil {
		t.Fatal(err)
	}
	for _, moved := range paths.Moved {
		if found[moved.Path] == "" {
			t.Errorf("the path map has %q, the stream does not", moved.Path)
		}
		if e, err := b.Source.Tree.Stat(moved.Name); err != nil || !e.IsRegular() {
			t.Errorf("the path map has %q, the tree does not: %v", moved.Name, err)
		}
	}

	var manifest builder.Imgmanifest
	if err := json.Unmarshal(artifact(t, m, "zfs/imgmanifest"), &manifest); err != nil {
		t.Fatal(err)
	}
	sum := sha1.Sum(blob)
	f := manifest.Files[0]
	if f.SHA1 != hex.EncodeToString(sum[:]) || f.Size != int64(len(blob)) || f.Compression != "gzip" || f.DatasetGUID != strconv.FormatUint(s.Header().GUID, 10) {
		t.Errorf("file %+v", f)
	}
	if manifest.Type != "zone-dataset" || manifest.OS != "smartos" || manifest.Requirements.Brand != "joyent" || manifest.Requirements.MinPlatform["7.0"] != "20240101T000000Z" {
		t.Errorf("manifest %+v", manifest)
	}
}

func TestZFSIndexes(t *testing.T) {
	for _, c := range []struct{ system, block, brand, kind, suffix string }{
		{"illumos", "zfs {}", "illumos", "zone-dataset", "zfs.zst"},
		{"linux", "zfs {\n  layout = \"root\"\n}", "lx", "lx-dataset", "zfs.gz"},
	} {
		m, _, err := buildSpec(t, t.TempDir(), zfsSpec(c.system, "1.0", "skeleton:"+c.system, c.block))
		if err != nil {
			t.Fatal(err)
		}
		var index builder.ZadmIndex
		if err := json.Unmarshal(artifact(t, m, "zfs/zadm"), &index); err != nil {
			t.Fatal(err)
		}
		want := builder.ZadmImage{
			UUID: index.Images[0].UUID, Name: "web", Version: "1.0", Path: "web-1.0." + c.suffix, Brand: c.brand, Type: c.kind,
			Comp: c.suffix, SHA256: strings.TrimPrefix(m.Config.Artifact("zfs").Digest, "sha256:"),
		}
		if index.Images[0] != want {
			t.Errorf("%+v, want %+v", index.Images[0], want)
		}
		if a := m.Config.Artifact("dock/zfs/zonecfg"); a == nil || a.Attributes[image.AttrBrand] != c.brand {
			t.Errorf("%s: zonecfg %+v", c.system, a)
		}
	}
}

func TestZFSProblems(t *testing.T) {
	for _, c := range []struct{ system, block, want string }{
		{"illumos", "zfs {\n  layout = \"root\"\n  compression = \"zstd\"\n}", "imgadm"},
		{"illumos", "zfs {\n  layout = \"root\"\n  brand = \"joyent-minimal\"\n}", "import no manifest"},
		{"illumos", "zfs {\n  layout = \"root\"\n  brand = \"illumos\"\n}", "is none of joyent, lx"},
		{"illumos", "zfs {\n  brand = \"lx\"\n}", "Linux images"},
		{"linux", "zfs {\n  brand = \"sparse\"\n}", "zones of the brand lx"},
		{"linux", "zfs {\n  layout = \"root\"\n  platform = \"linux\"\n}", "illumos hosts only"},
		{"linux", "zfs {\n  layout = \"top\"\n  profile = \"zpl6\"\n}", "is none of zpl5, zpl4"},
		{"linux", "zfs {\n  lz4 = true\n  profile = \"zpl4\"\n}", "lz4_compress"},
		{"illumos", "zfs {\n  min_platform = \"20240101T000000Z\"\n}", "of layout root"},
		{"illumos", "zfs {\n  layout = \"root\"\n}\nfile {\n  path = \"/usr/bin/x\"\n  content = \"\"\n}", "SmartOS has its own /usr"},
		{"illumos", "zfs {\n  layout = \"root\"\n}\nlink {\n  path = \"/lib/x\"\n  target = \"y\"\n}", "SmartOS has its own /lib"},
	} {
		_, err := prepareSpec(t, zfsSpec(c.system, "1", "skeleton:"+c.system, c.block))
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: error %v, want %q", c.block, err, c.want)
		}
	}
	// What only the tree shows.
	_, _, err := buildSpec(t, t.TempDir(), zfsSpec("illumos", "1", "skeleton:illumos", "zfs {\n  layout = \"root\"\n}",
		fmt.Sprintf("tree {\n  path = \"/usr/local\"\n  source = %q\n}", "dir:"+oddTree(t))))
	if err == nil || !strings.Contains(err.Error(), `file "usr/local/etc/passwd": SmartOS has its own /usr`) {
		t.Errorf("a tree below /usr: %v", err)
	}
}

func FuzzParsePaths(f *testing.F) {
	f.Add(`{"schema":1,"root":"root","hidden":["lib"],"moved":[{"name":"lib/a","path":"site/a","size":1,"sha256":"00"}],"added":["site"]}`)
	f.Fuzz(func(t *testing.T, text string) {
		p, err := builder.ParsePaths([]byte(text))
		if err != nil {
			return
		}
		data, err := p.Marshal()
		if err != nil {
			t.Fatal(err)
		}
		if _, err := builder.ParsePaths(data); err != nil {
			t.Fatalf("%q, again: %v", data, err)
		}
	})
}
