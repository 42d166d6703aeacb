package builder_test

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/goldenisc/packer-plugin-isc/builder"
	"github.com/goldenisc/packer-plugin-isc/image"
	"github.com/goldenisc/packer-plugin-isc/internal/disk"
	"github.com/goldenisc/packer-plugin-isc/internal/guesttest"
	"github.com/goldenisc/packer-plugin-isc/ovf"
	"github.com/goldenisc/packer-plugin-isc/registry"
)

// guestSpec begins a spec of a root that disks can be made of, in a new folder.
func guestSpec(t *testing.T) (dir, text string) {
	t.Helper()
	root, err := guesttest.Tar("amd64")
	if err != nil {
		t.Fatal(err)
	}
	dir = t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "root.tar"), root, 0o600); err != nil {
		t.Fatal(err)
	}
	return dir, linuxImage + "base {\n  source = \"tar:root.tar\"\n}\nprofile {\n  name = \"none\"\n}\nswap {\n  size = \"1MiB\"\n}\n"
}

// compare compares the disk of an artifact with the description of it.
func compare(t *testing.T, m *registry.Image, name, golden string) []disk.Difference {
	t.Helper()
	g, err := disk.ParseGolden(artifact(t, m, golden))
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "disk")
	if err := os.WriteFile(file, artifact(t, m, name), 0o600); err != nil {
		t.Fatal(err)
	}
	i, err := ovf.OpenImage(t.Context(), file, "")
	if err != nil {
		t.Fatal(err)
	}
	defer i.Close()
	_, diffs, err := disk.Verify(context.Background(), []*disk.Golden{g}, i.Content, i.Size, nil)
	if err != nil {
		t.Fatal(err)
	}
	return diffs
}

// TestGolden wants a description with each disk that is made of a root, and none with others.
func TestGolden(t *testing.T) {
	dir, text := guestSpec(t)
	const ahci = "  hardware = [\"ahci\"]\n"
	text += "ova {\n" + ahci + "}\nvmdk {\n" + ahci + "}\nqcow2 {\n" + ahci + "}\nqcow2 {\n  id = \"serial\"\n  serial = true\n" + ahci +
		"}\nraw_disk {\n  compression = \"none\"\n" + ahci + "}\nvhd {\n  compression = \"none\"\n" + ahci + "}\n"
	m, _, err := buildSpec(t, dir, text)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	digests := map[string][]string{}
	for _, a := range m.Config.Artifacts {
		if a.Kind != "golden" {
			continue
		}
		names = append(names, a.Name)
		digests[a.Digest] = append(digests[a.Digest], a.Name)
		if a.MediaType != image.TypeGolden {
			t.Errorf("%s has the type %s", a.Name, a.MediaType)
		}
		if diffs := compare(t, m, strings.TrimSuffix(a.Name, "/golden"), a.Name); len(diffs) > 0 {
			t.Errorf("%s: %v", a.Name, diffs)
		}
	}
	if want := []string{"ova/golden", "vmdk/golden", "qcow2/golden", "serial/golden", "raw_disk/golden", "vhd/golden"}; !slices.Equal(names, want) {
		t.Errorf("%q, want %q", names, want)
	}
	if len(digests) != 2 {
		t.Errorf("two guests are described by %v", digests)
	}
	if diffs := compare(t, m, "qcow2", "serial/golden"); len(diffs) != 1 || diffs[0].Part != disk.PartESP {
		t.Errorf("a guest with another command line differs in %v", diffs)
	}
	captured, _, err := buildSpec(t, saveDisk(t, make([]byte, 1<<20)), linuxImage+"disk {\n  source = \"disk.raw\"\n}\nqcow2 {}\n")
	if err != nil {
		t.Fatal(err)
	}
	for _, a := range captured.Config.Artifacts {
		if a.Kind == "golden" {
			t.Errorf("a captured disk has %s", a.Name)
		}
	}
}

// TestSecondDisk wants what is written on a disk of its own.
func TestSecondDisk(t *testing.T) {
	dir, text := guestSpec(t)
	const block = " {\n  hardware = [\"ahci\"]\n  second_disk = true\n}\n"
	text += "ova" + block + "qcow2" + block + "vmdk" + block + "raw_disk {\n  compression = \"none\"\n" + block[3:]
	m, _, err := buildSpec(t, dir, text)
	if err != nil {
		t.Fatal(err)
	}
	again, _, err := buildSpec(t, dir, text)
	if err != nil || again.Digest() != m.Digest() {
		t.Errorf("built twice: %s and %s (%v)", m.Digest(), again.Digest(), err)
	}
	var names []string
	for _, a := range m.Config.Artifacts {
		if strings.Contains(a.Name, "/second") && a.Kind != "second-disk" || a.Kind == "second-disk" && a.Attributes["cmdline"] != "" {
			t.Errorf("%s is of kind %s, with %v", a.Name, a.Kind, a.Attributes)
		}
		names = append(names, a.Name)
	}
	for _, want := range []string{"ova", "ova/golden", "qcow2", "qcow2/second", "qcow2/golden", "vmdk/second", "raw_disk/second"} {
		if !slices.Contains(names, want) {
			t.Errorf("%q: no %s", names, want)
		}
	}
	if slices.Contains(names, "ova/second") {
		t.Error("the second disk of an appliance is an artifact of its own")
	}
	second := artifact(t, m, "raw_disk/second")
	if len(second) != 3<<20 || string(second[512:520]) != "EFI PART" {
		t.Errorf("the second disk has %d bytes", len(second))
	}
	if got, err := decodeQCOW2(artifact(t, m, "qcow2/second")); err != nil || !bytes.Equal(got, second) {
		t.Errorf("the second disk as qcow2 is another (%v)", err)
	}
	system := artifact(t, m, "raw_disk")
	if table := system[1024:][:2048]; bytes.Contains(table, []byte("s\x00w\x00a\x00p\x00")) || !bytes.Contains(second[1024:2048], []byte("s\x00w\x00a\x00p\x00")) {
		t.Error("swap is not on the second disk alone")
	}
	order, files := members(t, artifact(t, m, "ova"))
	if got := strings.Join(order, " "); got != "web-1.4.0.ovf web-1.4.0.mf web-1.4.0-disk1.vmdk web-1.4.0-disk2.vmdk" {
		t.Errorf("members %s", got)
	}
	for i, want := range [][]byte{system, second} {
		if got, err := decodeVMDK(files[fmt.Sprintf("web-1.4.0-disk%d.vmdk", i+1)]); err != nil || !bytes.Equal(got, want) {
			t.Errorf("disk %d of the appliance is another (%v)", i+1, err)
		}
	}
	if n := bytes.Count(files["web-1.4.0.ovf"], []byte(`"independent_nonpersistent"`)); n != 1 {
		t.Errorf("%d disks are immutable", n)
	}
	if diffs := compare(t, m, "qcow2", "ova/golden"); len(diffs) > 0 {
		t.Error(diffs)
	}
	// The ids of files differ from image to image, what is on them does not.
	other, _, err := buildSpec(t, dir, text+"file {\n  path = \"/etc/more\"\n  content = \"x\"\n}\n")
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(artifact(t, other, "raw_disk/second"), second) {
		t.Error("another root, another second disk: it cannot be kept")
	}
	if bytes.Equal(artifact(t, other, "vmdk/second"), artifact(t, m, "vmdk/second")) {
		t.Error("two images have a second disk of the same id")
	}
}

// TestBootKeys wants keys that firmware takes, which is said before the root is read; that of an
// environment may be missing where a spec is only validated.
func TestBootKeys(t *testing.T) {
	dir, text := guestSpec(t)
	save := func(name, kind string, der []byte, err error) {
		t.Helper()
		if err == nil {
			err = os.WriteFile(filepath.Join(dir, name), pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	certificate := func(name string, key crypto.Signer) {
		c := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name}, NotBefore: time.Unix(0, 0), NotAfter: time.Unix(1<<32, 0)}
		der, err := x509.CreateCertificate(rand.Reader, c, c, key.Public(), key)
		save(name+".pem", "CERTIFICATE", der, err)
		der, err = x509.MarshalPKCS8PrivateKey(key)
		save(name+".key", "PRIVATE KEY", der, err)
	}
	for _, name := range []string{"db", "other"} {
		key, err := rsa.GenerateKey(rand.Reader, 2048)
		if err != nil {
			t.Fatal(err)
		}
		certificate(name, key)
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	certificate("ec", key)
	spec := func(key, cert string) string {
		return text + fmt.Sprintf("qcow2 {\n  hardware = [\"ahci\"]\n  uki_key = %q\n  uki_cert = %q\n}\n", key, cert)
	}
	for _, c := range []struct{ key, cert, want string }{
		{"ec.key", "ec.pem", "firmware takes RSA keys only"},
		{"db.key", "other.pem", "the certificate is not of this key"},
		{"db.pem", "db.pem", "is no private key"},
		{"db.key", "db.key", "holds none"},
		{"none.key", "db.pem", "does not exist"},
		{"db.key", "none.pem", "does not exist"},
		{"env://ISC_TEST_NO_KEY", "db.pem", "holds no PEM"},
	} {
		if _, _, err := buildSpec(t, dir, spec(c.key, c.cert)); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s and %s: %v, want %q", c.key, c.cert, err, c.want)
		}
	}
	if _, diags := builder.ParseSpec(filepath.Join(dir, "t.isc.hcl"), []byte(spec("env://ISC_TEST_NO_KEY", "db.pem")), builder.Options{}); diags.HasErrors() {
		t.Error(diags)
	}
	private, err := os.ReadFile(filepath.Join(dir, "db.key"))
	if err != nil {
		t.Fatal(err)
	}
	t.Setenv("ISC_TEST_KEY", string(private))
	m, _, err := buildSpec(t, dir, spec("env://ISC_TEST_KEY", "db.pem"))
	if err != nil {
		t.Fatal(err)
	}
	again, _, err := buildSpec(t, dir, spec("db.key", "db.pem"))
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(artifact(t, m, "qcow2"), artifact(t, again, "qcow2")) {
		t.Error("signed twice with a key: other bytes")
	}
}

func TestSecondDiskProblems(t *testing.T) {
	const base = "base {\n  source = \"skeleton:linux\"\n}\nprofile {\n  name = \"none\"\n}\n"
	for name, c := range map[string]struct{ text, want string }{
		"nothing on it": {linuxImage + base + "qcow2 {\n  second_disk = true\n}\n", "there is none of them"},
		"illumos":       {strings.Replace(linuxImage, `"linux"`, `"illumos"`, 1) + "base {\n  source = \"skeleton:illumos\"\n}\nqcow2 {\n  second_disk = true\n}\n", "is of Linux roots"},
		"no key":        {linuxImage + base + "qcow2 {\n  uki_key = \"none.key\"\n  uki_cert = \"none.pem\"\n}\n", "none.key"},
	} {
		if _, _, err := buildSpec(t, t.TempDir(), c.text); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q", name, err, c.want)
		}
	}
	_, _, err := buildSpec(t, saveDisk(t, make([]byte, 4096)), linuxImage+"disk {\n  source = \"disk.raw\"\n}\nqcow2 {\n  second_disk = true\n}\n")
	if err == nil || !strings.Contains(err.Error(), "stays as it is") {
		t.Errorf("captured: %v", err)
	}
}
