package builder_test

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"compress/zlib"
	"context"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/binary"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/big"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/klauspost/compress/zstd"

	"github.com/goldenisc/packer-plugin-isc/builder"
	"github.com/goldenisc/packer-plugin-isc/image"
	"github.com/goldenisc/packer-plugin-isc/internal/guesttest"
	"github.com/goldenisc/packer-plugin-isc/internal/kindtest"
	"github.com/goldenisc/packer-plugin-isc/registry"
)

// decodeVMDK reads a stream-optimized disk in the simplest way: grain after grain, with the standard
// library.
func decodeVMDK(b []byte) ([]byte, error) {
	le := binary.LittleEndian
	disk := make([]byte, le.Uint64(b[12:])*512)
	for at := le.Uint64(b[64:]) * 512; ; {
		lba, size := le.Uint64(b[at:]), uint64(le.Uint32(b[at+8:]))
		if size == 0 {
			switch le.Uint32(b[at+12:]) {
			case 0: // end of stream
				return disk, nil
			case 1, 2, 3:
				at += 512 + 512*lba
				continue
			}
			return nil, fmt.Errorf("marker at %d", at)
		}
		z, err := zlib.NewReader(bytes.NewReader(b[at+12:][:size]))
		if err != nil {
			return nil, err
		}
		if _, err := io.ReadFull(z, disk[lba*512:][:65536]); err != nil {
			return nil, err
		}
		at += (12 + size + 511) / 512 * 512
	}
}

func decodeQCOW2(b []byte) ([]byte, error) {
	be := binary.BigEndian
	disk := make([]byte, be.Uint64(b[24:]))
	for n := 0; n < len(disk); n += 65536 {
		l2 := be.Uint64(b[be.Uint64(b[40:])+uint64(n>>29)*8:]) & (1<<56 - 512)
		if l2 == 0 {
			continue
		}
		e := be.Uint64(b[l2+uint64(n>>16&8191)*8:])
		out := disk[n:min(n+65536, len(disk))]
		switch {
		case e&(1<<62) != 0:
			z, err := zlib.NewReader(io.MultiReader(bytes.NewReader([]byte{0x78, 0x9c}), bytes.NewReader(b[e&(1<<54-1):])))
			if err != nil {
				return nil, err
			}
			if _, err := io.ReadFull(z, out); err != nil {
				return nil, err
			}
		case e != 0:
			copy(out, b[e&(1<<56-512):])
		}
	}
	return disk, nil
}

func unzstd(b []byte) ([]byte, error) {
	z, err := zstd.NewReader(bytes.NewReader(b))
	if err != nil {
		return nil, err
	}
	defer z.Close()
	return io.ReadAll(z)
}

func decodeGCP(b []byte) ([]byte, error) {
	z, err := gzip.NewReader(bytes.NewReader(b))
	if err != nil {
		return nil, err
	}
	first := make([]byte, 512)
	if _, err := io.ReadFull(z, first); err != nil {
		return nil, err
	}
	if string(first[257:265]) != "ustar  \x00" { // which tar --format=oldgnu writes, and POSIX does not
		return nil, fmt.Errorf("the magic of the archive is %q", first[257:265])
	}
	r := tar.NewReader(io.MultiReader(bytes.NewReader(first), z))
	h, err := r.Next()
	if err != nil {
		return nil, err
	}
	if h.Name != "disk.raw" || h.Typeflag != tar.TypeReg || h.Size%(1<<30) != 0 {
		return nil, fmt.Errorf("%q of type %q and %d bytes", h.Name, h.Typeflag, h.Size)
	}
	head := make([]byte, 16<<20)
	if _, err := io.ReadFull(r, head); err != nil {
		return nil, err
	}
	if h, err := r.Next(); err != io.EOF {
		return nil, fmt.Errorf("behind the disk: %v, %v", h, err)
	}
	return head, nil
}

// members returns the files of an archive.
func members(t testing.TB, b []byte) (names []string, files map[string][]byte) {
	t.Helper()
	files = map[string][]byte{}
	for r := tar.NewReader(bytes.NewReader(b)); ; {
		h, err := r.Next()
		if err == io.EOF {
			return names, files
		}
		if err != nil {
			t.Fatal(err)
		}
		data, err := io.ReadAll(r)
		if err != nil {
			t.Fatal(err)
		}
		names = append(names, h.Name)
		files[h.Name] = data
	}
}

func TestDiskKinds(t *testing.T) {
	kinds := map[string]kindtest.DiskKind{
		"raw":   {Block: "raw_disk {\n  compression = \"none\"\n}", Artifact: "raw_disk", Decode: func(b []byte) ([]byte, error) { return b, nil }},
		"zstd":  {Block: "raw_disk {}", Artifact: "raw_disk", Decode: unzstd},
		"qcow2": {Block: "qcow2 {}", Artifact: "qcow2", Decode: decodeQCOW2},
		"vmdk":  {Block: "vmdk {\n  level = \"small\"\n}", Artifact: "vmdk", Decode: decodeVMDK},
		"vhd": {Block: "vhd {}", Artifact: "vhd", Decode: func(b []byte) ([]byte, error) {
			b, err := unzstd(b)
			if err != nil || len(b)%(1<<20) != 512 {
				return nil, fmt.Errorf("%d bytes: %w", len(b), err)
			}
			return b[:len(b)-512], nil
		}},
		"ova": {Block: "ova {}", Artifact: "ova", Decode: func(b []byte) ([]byte, error) {
			names, files := members(t, b)
			if want := []string{"t-1.ovf", "t-1.mf", "t-1-disk1.vmdk"}; strings.Join(names, " ") != strings.Join(want, " ") {
				return nil, fmt.Errorf("members %q", names)
			}
			for _, n := range []string{"t-1.ovf", "t-1-disk1.vmdk"} {
				if line := fmt.Sprintf("SHA256(%s)= %x\n", n, sha256.Sum256(files[n])); !strings.Contains(string(files["t-1.mf"]), line) {
					return nil, fmt.Errorf("no %q in the manifest", line)
				}
			}
			return decodeVMDK(files["t-1-disk1.vmdk"])
		}},
	}
	if os.Getenv("ISC_NIGHTLY") != "" { // a GiB each time; TestGCP writes one
		kinds["gcp"] = kindtest.DiskKind{Block: "gcp {}", Artifact: "gcp", Decode: decodeGCP}
	}
	for name, k := range kinds {
		t.Run(name, func(t *testing.T) { kindtest.RunDisk(t, k) })
	}
}

func TestGCP(t *testing.T) {
	disk := bytes.Repeat([]byte("disk"), 4096)
	dir := saveDisk(t, disk)
	m, _, err := buildSpec(t, dir, linuxImage+"disk {\n  source = \"disk.raw\"\n}\ngcp {}\n")
	if err != nil {
		t.Fatal(err)
	}
	if got, err := decodeGCP(artifact(t, m, "gcp")); err != nil || !bytes.Equal(got[:len(disk)], disk) {
		t.Errorf("another disk (%v)", err)
	}
}

// buildSpec builds a spec into a new layout.
func buildSpec(t *testing.T, dir, text string) (*registry.Image, *builder.Built, error) {
	t.Helper()
	s, diags := builder.ParseSpec(filepath.Join(dir, "t.isc.hcl"), []byte(text), builder.Options{})
	if diags.HasErrors() {
		return nil, nil, diags
	}
	b, err := builder.Prepare(t.Context(), s, builder.BuildOptions{Dir: t.TempDir(), Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		return nil, nil, err
	}
	t.Cleanup(func() { b.Close() })
	l, err := registry.CreateLayout(filepath.Join(t.TempDir(), "out"))
	if err != nil {
		t.Fatal(err)
	}
	digest, err := b.Write(t.Context(), l, "t", nil)
	if err != nil {
		return nil, nil, err
	}
	m, err := registry.ReadImage(t.Context(), l, digest)
	if err != nil {
		t.Fatal(err)
	}
	return m, b, nil
}

func artifact(t testing.TB, m *registry.Image, name string) []byte {
	t.Helper()
	r, err := m.Open(t.Context(), name)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	data, err := io.ReadAll(r)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

const linuxImage = "image {\n  name = \"web\"\n  version = \"1.4.0\"\n  os = \"linux\"\n  arch = \"amd64\"\n}\n"

// saveDisk writes a disk of a test and returns its folder.
func saveDisk(t testing.TB, disk []byte) string {
	t.Helper()
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "disk.raw"), disk, 0o600); err != nil {
		t.Fatal(err)
	}
	return dir
}

func TestCapturedDisk(t *testing.T) {
	disk := append(bytes.Repeat([]byte("guest"), 100_000), make([]byte, 1<<20)...)
	disk = disk[:len(disk)/512*512]
	sum := sha256.Sum256(disk)
	dir := saveDisk(t, disk)
	m, b, err := buildSpec(t, dir, linuxImage+fmt.Sprintf("disk {\n  source = \"disk.raw\"\n  sha256 = \"%x\"\n}\nqcow2 {}\n", sum))
	if err != nil {
		t.Fatal(err)
	}
	content, err := image.ReadContent(bytes.NewReader(artifact(t, m, "content")), bytes.NewReader(artifact(t, m, "objects")))
	if err != nil {
		t.Fatal(err)
	}
	var file *image.Entry
	for e := range content.All() {
		if e.Name == "disk.raw" {
			file = e
		}
	}
	if file == nil || file.Digest != sum || file.Size != int64(len(disk)) {
		t.Errorf("content manifest: %+v", file)
	}
	if c := m.Config; c.Base.Source != "disk:disk.raw" || c.Base.Digest != fmt.Sprintf("sha256:%x", sum) || c.Profile != "none" {
		t.Errorf("base %+v, profile %q", c.Base, c.Profile)
	}
	if d := b.Provenance.BuildDefinition.Resolved[0]; d.URI != "disk:disk.raw" || d.Digest["sha256"] != fmt.Sprintf("%x", sum) {
		t.Errorf("provenance: %+v", d)
	}
	// The same disk in another container is the same disk.
	if err := os.WriteFile(filepath.Join(dir, "disk.raw"), artifact(t, m, "qcow2"), 0o600); err != nil {
		t.Fatal(err)
	}
	again, _, err := buildSpec(t, dir, linuxImage+"disk {\n  source = \"disk.raw\"\n}\nqcow2 {}\n")
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(artifact(t, again, "content"), artifact(t, m, "content")) || !bytes.Equal(artifact(t, again, "qcow2"), artifact(t, m, "qcow2")) {
		t.Error("a qcow2 of the disk becomes another disk")
	}
}

func TestCapturedDiskProvisioned(t *testing.T) {
	dir := saveDisk(t, bytes.Repeat([]byte{1}, 4096))
	s, diags := builder.ParseSpec(filepath.Join(dir, "t.isc.hcl"), []byte(linuxImage+"disk {\n  source = \"disk.raw\"\n}\nqcow2 {}\n"), builder.Options{})
	if diags.HasErrors() {
		t.Fatal(diags)
	}
	for _, changed := range []bool{false, true} {
		b, err := builder.Prepare(t.Context(), s, builder.BuildOptions{
			Dir: t.TempDir(), Log: slog.New(slog.DiscardHandler),
			Provision: func(context.Context, *image.Tree, time.Time) (bool, error) { return changed, nil },
		})
		if (err != nil) != changed || changed && !strings.Contains(err.Error(), "no root to work on") {
			t.Errorf("provisioners that changed something: %t: %v", changed, err)
		}
		if b != nil {
			b.Close()
		}
	}
}

func TestCapturedDiskRefusals(t *testing.T) {
	dir := saveDisk(t, bytes.Repeat([]byte{1}, 4096))
	const source = "disk {\n  source = \"disk.raw\"\n}\n"
	for name, c := range map[string]struct{ text, want string }{
		"no kind":       {source, "needs an artifact block"},
		"zone":          {source + "zone {}\n", "needs a root"},
		"file":          {source + "ova {}\nfile {\n  path = \"/x\"\n  content = \"x\"\n}\n", "needs a root"},
		"user":          {source + "ova {}\nuser {\n  name = \"x\"\n  uid = 800\n}\n", "needs a root"},
		"profile":       {source + "ova {}\nprofile {\n  name = \"isc-linux\"\n}\n", "must be none"},
		"missing":       {"disk {\n  source = \"nothing.raw\"\n}\nova {}\n", "does not exist"},
		"other digest":  {"disk {\n  source = \"disk.raw\"\n  sha256 = \"" + strings.Repeat("0", 64) + "\"\n}\nova {}\n", "digest mismatch"},
		"other format":  {"disk {\n  source = \"disk.raw\"\n  format = \"vdi\"\n}\nova {}\n", "it is not vdi"},
		"size":          {source + "qcow2 {\n  size = \"1GiB\"\n}\n", "stays as it is"},
		"level":         {source + "vmdk {\n  level = \"tiny\"\n}\n", `"tiny" is none of`},
		"target":        {source + "ova {\n  targets = [\"hyperv\"]\n}\n", `"hyperv" is none of`},
		"memory":        {source + "ova {\n  memory = \"1\"\n}\n", "4 MiB and 4 TiB"},
		"cpus":          {source + "ova {\n  cpus = 100\n}\n", "100 CPUs"},
		"controller":    {source + "ova {\n  controller = \"nvme\"\n}\n", `controller "nvme": target universal takes`},
		"card":          {source + "ova {\n  targets = [\"virtualbox\"]\n  nic {\n    card = \"vmxnet3\"\n  }\n}\n", `card "vmxnet3": target virtualbox takes`},
		"card of one":   {source + "ova {\n  targets = [\"virtualbox\", \"vmware\"]\n  nic {\n    card = \"virtio\"\n  }\n}\n", `card "virtio": targets virtualbox, vmware take e1000; virtio is for target virtualbox`},
		"OVF 2.0":       {source + "ova {\n  ovf = \"2.0\"\n}\n", "OVF 2.0 is refused"},
		"key alone":     {source + "ova {\n  key = \"env://X\"\n}\n", "goes with a certificate"},
		"property":      {source + "ova {\n  property {\n    key = \"a b\"\n  }\n}\n", `property "a b"`},
		"neither":       {"", "needs one base block"},
		"no EULA chars": {source + "ova {\n  eula = \"\\u0001\"\n}\n", "XML cannot hold"},
	} {
		_, _, err := buildSpec(t, dir, linuxImage+c.text)
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q", name, err, c.want)
		}
	}
}

// TestGuestProblems wants all that keeps a disk from being made of a root at once, before any work.
func TestGuestProblems(t *testing.T) {
	const base = "base {\n  source = \"skeleton:linux\"\n}\nprofile {\n  name = \"none\"\n}\n"
	_, _, err := buildSpec(t, t.TempDir(), linuxImage+base+"ova {}\n")
	if !errors.Is(err, builder.ErrInput) {
		t.Fatalf("%v: no error of the input", err)
	}
	for _, want := range []string{"has no kernel", "has no boot stub", "has no /sbin/init"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("%v: no %q", err, want)
		}
	}
	for name, c := range map[string]struct{ text, want string }{
		"firmware":   {"ova {\n  firmware = \"bios\"\n}\n", "unified kernel image"},
		"unsigned":   {"ova {\n  secure_boot = true\n}\n", "needs uki_key and uki_cert"},
		"etc":        {"qcow2 {\n  etc = \"memory\"\n}\n", `"memory" is none of`},
		"hardware":   {"qcow2 {\n  hardware = [\"floppy\"]\n}\n", `"floppy" is none of`},
		"size":       {"qcow2 {\n  size = \"big\"\n}\n", "is not a size"},
		"2 TiB":      {"ova {\n  size = \"3TiB\"\n}\n", "more than the 2 TiB of a disk"},
		"scratch of": {"vhd {}\nscratch {\n  size = \"3TiB\"\n}\n", "more than the 2 TiB of a disk"},
		"stub":       {"qcow2 {\n  stub = \"none.stub\"\n}\n", "does not exist"},
		"key":        {"qcow2 {\n  uki_key = \"env://X\"\n}\n", "goes with uki_cert"},
		"scratch":    {"qcow2 {}\nscratch {\n  path = \"/tmp/x\"\n  size = \"1GiB\"\n}\n", "has its scratch at /scratch"},
		"no scratch": {"qcow2 {\n  var = \"scratch\"\n}\n", "changes to /var are to be on the scratch, but there is none"},
		"small":      {"qcow2 {}\nscratch {\n  size = \"10MiB\"\n}\n", "it has 64 MiB at least"},
		"odd":        {"qcow2 {\n  size = \"3000000\"\n}\n", "it is of whole MiB"},
		"card alone": {"qcow2 {\n  hardware = [\"e1000\"]\n}\n", "no disk controller"},
		"cmdline":    {"qcow2 {\n  cmdline = \"quiet init=/bin/sh\"\n}\n", `"init=/bin/sh" cannot stand`},
		"volumes":    {"qcow2 {}\nvolume {\n  path = \"/a\"\n  size = \"1GiB\"\n}\nvolume {\n  path = \"/b\"\n  size = \"1GiB\"\n}\n", "one volume"},
	} {
		if _, _, err := buildSpec(t, t.TempDir(), linuxImage+base+c.text); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q", name, err, c.want)
		}
	}
}

// TestGuestWithoutSystemd: what a spec starts by a unit, such a root does not start.
func TestGuestWithoutSystemd(t *testing.T) {
	dir := t.TempDir()
	root, err := guesttest.Tar("amd64")
	if err != nil {
		t.Fatal(err)
	}
	put(t, filepath.Join(dir, "root.tar"), string(root))
	const spec = linuxImage + `base {
  source = "tar:root.tar"
}
profile {
  name = "none"
}
scratch {
  size = "64MiB"
}
qcow2 {
  hardware = ["ahci"]
}
`
	declared := strings.Replace(spec, "qcow2 {", "ova {\n  targets = [\"vmware\"]\n  nic {\n    card = \"vmxnet3\"\n  }", 1)
	if _, _, err := buildSpec(t, dir, declared); err == nil || !strings.Contains(err.Error(), "no module vmxnet3, the driver of vmxnet3") {
		t.Errorf("hardware of the descriptor is forgotten: %v", err)
	}
	if _, _, err := buildSpec(t, dir, spec); err != nil {
		t.Error(err)
	}
	for block, want := range map[string]string{
		"service {\n  name = \"web\"\n  exec = \"/sbin/init\"\n}\n": `would start the service "web"`, "identity {}\n": "service of the identity block",
	} {
		if _, _, err := buildSpec(t, dir, spec+block); !errors.Is(err, builder.ErrInput) || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %q", err, want)
		}
	}
}

// TestLargeDisk wants what cannot be packed to be refused before it is read.
func TestLargeDisk(t *testing.T) {
	dir := t.TempDir()
	f, err := os.Create(filepath.Join(dir, "disk.raw"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := f.Truncate(3 << 40); err != nil {
		return // the file system has no files of that size
	}
	start := time.Now()
	_, _, err = buildSpec(t, dir, linuxImage+"disk {\n  source = \"disk.raw\"\n}\nova {}\n")
	if !errors.Is(err, builder.ErrInput) || !strings.Contains(err.Error(), "disk of 3298534883328 bytes") {
		t.Error(err)
	}
	if d := time.Since(start); d > time.Minute { // reading it takes half an hour
		t.Errorf("it took %s", d)
	}
}

func TestOVASigned(t *testing.T) {
	dir := saveDisk(t, bytes.Repeat([]byte("x"), 1<<20))
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "Example Release"},
		NotBefore: time.Unix(1e9, 0), NotAfter: time.Unix(4e9, 0),
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	pkcs8, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	private := pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: pkcs8})
	for name, data := range map[string][]byte{
		"cert.pem": pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), "key.pem": private,
		"other.pem": pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: []byte("no")}),
	} {
		if err := os.WriteFile(filepath.Join(dir, name), data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	spec := func(key string) string {
		return linuxImage + "disk {\n  source = \"disk.raw\"\n}\nova {\n  memory = \"2GiB\"\n  cpus = 2\n  eula = \"Be kind.\"\n  key = \"" + key + "\"\n  certificate = \"cert.pem\"\n}\n"
	}
	m, _, err := buildSpec(t, dir, spec("key.pem"))
	if err != nil {
		t.Fatal(err)
	}
	names, files := members(t, artifact(t, m, "ova"))
	if got := strings.Join(names, " "); got != "web-1.4.0.ovf web-1.4.0.mf web-1.4.0.cert web-1.4.0-disk1.vmdk" {
		t.Errorf("members %s", got)
	}
	for _, want := range []string{"Be kind.", "<rasd:VirtualQuantity>2048<", "<rasd:VirtualQuantity>2<"} {
		if !bytes.Contains(files["web-1.4.0.ovf"], []byte(want)) {
			t.Errorf("no %s in the descriptor", want)
		}
	}
	t.Setenv("OVA_KEY", string(private))
	if again, _, err := buildSpec(t, dir, spec("env://OVA_KEY")); err != nil || !bytes.Equal(artifact(t, again, "ova"), artifact(t, m, "ova")) {
		t.Errorf("the key from the environment: %v, or other bytes", err)
	}
	if _, _, err := buildSpec(t, dir, spec("other.pem")); err == nil || !strings.Contains(err.Error(), "no private key that can be read") {
		t.Errorf("a key of another kind: %v", err)
	}
}
