package ovf

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"
)

// The tests here run the programs of others: ISC_REAL=1 go test -run TestReal ./ovf, with Debian's
// qemu-utils, libvmdk-utils, libxml2-utils, libarchive-tools, openssl and virt-v2v.

// real skips a test unless real programs are to be run; then a missing one is a failure.
func real(t testing.TB, programs ...string) {
	t.Helper()
	if os.Getenv("ISC_REAL") == "" {
		t.Skip("ISC_REAL is not set")
	}
	for _, p := range programs {
		if _, err := exec.LookPath(p); err != nil {
			t.Fatal(err)
		}
	}
}

func run(t testing.TB, dir, name string, args ...string) (string, error) {
	t.Helper()
	cmd := exec.CommandContext(context.Background(), name, args...)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "LC_ALL=C.UTF-8")
	out, err := cmd.CombinedOutput()
	return string(out), err
}

func mustRun(t testing.TB, dir, name string, args ...string) string {
	t.Helper()
	out, err := run(t, dir, name, args...)
	if err != nil {
		t.Fatalf("%s %s: %v\n%s", name, strings.Join(args, " "), err, out)
	}
	return out
}

func save(t testing.TB, file string, data []byte) {
	t.Helper()
	if err := os.WriteFile(file, data, 0o644); err != nil {
		t.Fatal(err)
	}
}

func TestRealVMDK(t *testing.T) {
	real(t, "qemu-img", "vmdkinfo")
	dir := t.TempDir()
	for _, size := range []int64{GrainSize, 5 << 20, 100<<20 + 512} {
		disk := testDisk(size)
		data, v := writeTest(t, Source{Content: bytes.NewReader(disk), Size: size}, WriteOptions{Level: Fast, ID: [16]byte{1}})
		save(t, filepath.Join(dir, "disk.raw"), disk)
		save(t, filepath.Join(dir, "ours.vmdk"), data)
		if out := mustRun(t, dir, "qemu-img", "check", "-f", "vmdk", "ours.vmdk"); !strings.Contains(out, "No errors were found") {
			t.Errorf("qemu-img check: %s", out)
		}
		mustRun(t, dir, "qemu-img", "compare", "-f", "vmdk", "-F", "raw", "ours.vmdk", "disk.raw")
		mustRun(t, dir, "qemu-img", "convert", "-f", "vmdk", "-O", "raw", "ours.vmdk", "back.raw")
		back, err := os.ReadFile(filepath.Join(dir, "back.raw"))
		if err != nil {
			t.Fatal(err)
		}
		if int64(len(back)) != v.Capacity || !bytes.Equal(back[:size], disk) {
			t.Errorf("size %d: what qemu-img makes of our VMDK differs", size)
		}
		if out := mustRun(t, dir, "vmdkinfo", "ours.vmdk"); !strings.Contains(out, "Stream optimized") {
			t.Errorf("vmdkinfo: %s", out)
		}
		// And what qemu-img writes, in both kinds, we read.
		for _, kind := range []string{"streamOptimized", "monolithicSparse"} {
			mustRun(t, dir, "qemu-img", "convert", "-f", "raw", "-O", "vmdk", "-o", "subformat="+kind, "disk.raw", "theirs.vmdk")
			theirs, err := os.ReadFile(filepath.Join(dir, "theirs.vmdk"))
			if err != nil {
				t.Fatal(err)
			}
			r, err := NewReader(bytes.NewReader(theirs), int64(len(theirs)))
			if err != nil {
				t.Fatal(err)
			}
			if r.CreateType != kind || r.Stream {
				t.Errorf("%s is read as %+v", kind, r)
			}
			if _, err := r.Check(t.Context()); err != nil {
				t.Errorf("%s: %v", kind, err)
			}
			got := make([]byte, size)
			if _, err := r.ReadAt(got, 0); err != nil || !bytes.Equal(got, disk) {
				t.Errorf("%s of size %d: content differs (%v)", kind, size, err)
			}
			if kind != "streamOptimized" {
				continue
			}
			clear(got)
			if _, err := ReadStream(bytes.NewReader(theirs), func(_, off int64, b []byte) error { copy(got[off:], b); return nil }); err != nil || !bytes.Equal(got, disk) {
				t.Errorf("%s of size %d, read forward: content differs (%v)", kind, size, err)
			}
		}
	}
}

// validate runs xmllint; vbox:Machine is declared to it as the extension that it is.
func validate(t *testing.T, file, version string) error {
	t.Helper()
	schema, err := filepath.Abs(filepath.Join("testdata", "xsd", version, "dsp8023_"+version+".xsd"))
	if err != nil {
		t.Fatal(err)
	}
	template, err := os.ReadFile(filepath.Join("testdata", "xsd", "vbox.xsd"))
	if err != nil {
		t.Fatal(err)
	}
	text := strings.Replace(string(template), "VERSION", schema, 1)
	if version == "2.0.1" {
		text = strings.ReplaceAll(text, nsOVF1, nsOVF2)
	}
	wrapped := filepath.Join(t.TempDir(), "vbox.xsd")
	save(t, wrapped, []byte(text))
	out, err := run(t, "", "xmllint", "--nonet", "--noout", "--schema", wrapped, file)
	if err != nil {
		return fmt.Errorf("%w\n%s", err, out)
	}
	return nil
}

func TestRealSchemas(t *testing.T) {
	real(t, "xmllint")
	for name, a := range appliances(t) {
		versions := []string{"1.1.0", "1.1.1"}
		if a.OVF2 {
			versions = []string{"2.0.1"}
		}
		b, err := a.Descriptor()
		if err != nil {
			t.Fatal(err)
		}
		file := filepath.Join(t.TempDir(), name+".ovf")
		save(t, file, b)
		for _, v := range versions {
			if err := validate(t, file, v); err != nil {
				t.Errorf("%s is not valid under %s: %v\n%s", name, v, err, b)
			}
			if !a.withDefaults().machineSection() {
				schema := filepath.Join("testdata", "xsd", v, "dsp8023_"+v+".xsd")
				if out, err := run(t, "", "xmllint", "--nonet", "--noout", "--schema", schema, file); err != nil {
					t.Errorf("%s is not valid under the bare schema %s: %s", name, v, out)
				}
			}
			// The check itself must be able to fail.
			save(t, file+"x", bytes.Replace(b, []byte("<rasd:InstanceID>1</rasd:InstanceID>"), nil, 1))
			if err := validate(t, file+"x", v); err == nil {
				t.Errorf("%s: a missing InstanceID passes %s", name, v)
			}
		}
	}
}

// testKey returns an RSA key and a certificate of it.
func testKey(t testing.TB) (*rsa.PrivateKey, *x509.Certificate) {
	t.Helper()
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "Example Release"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return key, cert
}

func TestRealOVA(t *testing.T) {
	real(t, "bsdtar", "tar", "openssl", "sha256sum")
	key, cert := testKey(t)
	a := testAppliance(t, Universal)
	p, err := a.Package(t.Context(), Options{Key: key, Certificates: []*x509.Certificate{cert}, ModTime: time.Unix(1e9, 0)})
	if err != nil {
		t.Fatal(err)
	}
	var ova bytes.Buffer
	if err := p.WriteOVA(t.Context(), &ova); err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	save(t, filepath.Join(dir, "web.ova"), ova.Bytes())
	want := "web-1.4.0.ovf\nweb-1.4.0.mf\nweb-1.4.0.cert\nweb-1.4.0-disk1.vmdk\nweb-1.4.0-disk2.vmdk\n"
	for _, tar := range []string{"bsdtar", "tar"} {
		if got := mustRun(t, dir, tar, "-tf", "web.ova"); got != want {
			t.Errorf("%s lists %q, want %q", tar, got, want)
		}
	}
	if out := mustRun(t, dir, "bsdtar", "-tvvf", "web.ova"); !strings.Contains(out, "Archive Format: POSIX ustar format") {
		t.Errorf("bsdtar: %s", out)
	}
	mustRun(t, dir, "bsdtar", "-xf", "web.ova")
	mf, err := os.ReadFile(filepath.Join(dir, "web-1.4.0.mf"))
	if err != nil {
		t.Fatal(err)
	}
	var sums bytes.Buffer
	for line := range strings.Lines(string(mf)) { // to sha256sum's own form
		name, sum, _ := strings.Cut(strings.TrimPrefix(line, "SHA256("), ")= ")
		sums.WriteString(strings.TrimSpace(sum) + "  " + name + "\n")
	}
	save(t, filepath.Join(dir, "sums"), sums.Bytes())
	mustRun(t, dir, "sha256sum", "-c", "sums")
	// Any file that is changed is found by sha256sum, and by us.
	for _, m := range p.Members {
		if strings.HasSuffix(m.Name, ".mf") || strings.HasSuffix(m.Name, ".cert") {
			continue
		}
		file := filepath.Join(dir, m.Name)
		was, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		bad := bytes.Clone(was)
		bad[len(bad)/2] ^= 1
		save(t, file, bad)
		if out, err := run(t, dir, "sha256sum", "-c", "sums"); err == nil {
			t.Errorf("sha256sum takes another %s: %s", m.Name, out)
		}
		if r, err := Check(t.Context(), filepath.Join(dir, "web-1.4.0.ovf")); err != nil || !r.Damaged() {
			t.Errorf("another %s passes: %v", m.Name, err)
		}
		save(t, file, was)
	}
	if r, err := Check(t.Context(), filepath.Join(dir, "web-1.4.0.ovf")); err != nil || r.Damaged() {
		t.Errorf("%v, %v", r, err)
	}

	pub := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: cert.Raw})
	save(t, filepath.Join(dir, "cert.pem"), pub)
	public := mustRun(t, dir, "openssl", "x509", "-in", "cert.pem", "-noout", "-pubkey")
	save(t, filepath.Join(dir, "pub.pem"), []byte(public))
	raw, err := os.ReadFile(filepath.Join(dir, "web-1.4.0.cert"))
	if err != nil {
		t.Fatal(err)
	}
	c, err := ParseCertificate(raw)
	if err != nil {
		t.Fatal(err)
	}
	save(t, filepath.Join(dir, "sig"), c.Value)
	verify := []string{"dgst", "-sha256", "-verify", "pub.pem", "-signature", "sig", "web-1.4.0.mf"}
	mustRun(t, dir, "openssl", verify...)
	mustRun(t, dir, "openssl", "x509", "-in", "web-1.4.0.cert", "-noout", "-subject") // PEM is found behind the signature line
	save(t, filepath.Join(dir, "web-1.4.0.mf"), append(mf, '\n'))
	if out, err := run(t, dir, "openssl", verify...); err == nil {
		t.Errorf("openssl takes a tampered manifest: %s", out)
	}
	if r, err := Check(t.Context(), filepath.Join(dir, "web-1.4.0.ovf")); err != nil || !r.Damaged() {
		t.Errorf("a tampered manifest passes: %v", err)
	}
	// And what openssl signs, we take: it is the other half of the format.
	save(t, filepath.Join(dir, "web-1.4.0.mf"), mf)
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	save(t, filepath.Join(dir, "key.pem"), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}))
	for _, digest := range []string{"sha1", "sha256", "sha512"} {
		mustRun(t, dir, "openssl", "dgst", "-"+digest, "-sign", "key.pem", "-out", "sig", "web-1.4.0.mf")
		sig, err := os.ReadFile(filepath.Join(dir, "sig"))
		if err != nil {
			t.Fatal(err)
		}
		save(t, filepath.Join(dir, "web-1.4.0.cert"), append([]byte(Sum{strings.ToUpper(digest), "web-1.4.0.mf", sig}.String()+"\n"), pub...))
		if r, err := Check(t.Context(), filepath.Join(dir, "web-1.4.0.ovf")); err != nil || r.Damaged() || r.Signer == nil {
			t.Errorf("signed by openssl with %s: %+v, %v", digest, r, err)
		}
	}
}

func TestRealVirtV2V(t *testing.T) {
	real(t, "virt-v2v")
	t.Setenv("LIBGUESTFS_BACKEND", "direct")
	dir := t.TempDir()
	a := testAppliance(t, Universal)
	a.NICs = []NIC{{}}
	data := writeOVA(t, a, Options{})
	save(t, filepath.Join(dir, "web.ova"), data)
	out := mustRun(t, dir, "virt-v2v", "--print-source", "-i", "ova", "web.ova")
	for _, want := range []string{
		"source name: web-1.4.0\n", "memory: 1073741824 (bytes)", "nr vCPUs: 2\n", "firmware: uefi", "0 [sata]", "1 [sata]", `"VM Network" [e1000]`,
	} {
		if !strings.Contains(out, want) {
			t.Errorf("virt-v2v does not read %q:\n%s", want, out)
		}
	}
	data[bytes.Index(data, []byte("KDMV"))+overheadSector*sectorSize+100] ^= 1
	save(t, filepath.Join(dir, "bad.ova"), data)
	if out, err := run(t, dir, "virt-v2v", "--print-source", "-i", "ova", "bad.ova"); err == nil || !strings.Contains(out, "does not match manifest") && !strings.Contains(out, "checksum") {
		t.Errorf("virt-v2v takes a tampered disk: %v\n%s", err, out)
	}
}

// What virt-v2v makes of manifests that are not as they should be is what we say of it.
func TestRealVirtV2VManifests(t *testing.T) {
	real(t, "virt-v2v")
	t.Setenv("LIBGUESTFS_BACKEND", "direct")
	dir := t.TempDir()
	a := testAppliance(t, Universal)
	good := writeOVA(t, a, Options{ModTime: time.Unix(1e9, 0)})
	const mf, disk = "web-1.4.0.mf", "web-1.4.0-disk1.vmdk"
	for name, change := range map[string]func(names []string, files map[string][]byte){
		"another name": func(n []string, f map[string][]byte) {
			n[1], f["other.mf"] = "other.mf", bytes.ReplaceAll(f[mf], []byte("= "), []byte("= 00"))
		},
		"MF": func(n []string, f map[string][]byte) {
			n[1], f["web-1.4.0.MF"] = "web-1.4.0.MF", bytes.ReplaceAll(f[mf], []byte("= "), []byte("= 00"))
		},
		"no sense": func(_ []string, f map[string][]byte) { f[mf] = append(f[mf], "junk\n"...) },
		"MD5":      func(_ []string, f map[string][]byte) { f[mf] = append(f[mf], "MD5("+disk+")= 00\n"...) },
		"upper-case digits": func(_ []string, f map[string][]byte) {
			f[mf] = regexp.MustCompile("= .*").ReplaceAllFunc(f[mf], bytes.ToUpper)
		},
		"lower-case name":   func(_ []string, f map[string][]byte) { f[mf] = append(f[mf], "sha256("+disk+")= 00\n"...) },
		"space":             func(_ []string, f map[string][]byte) { f[mf] = append(f[mf], "SHA256 ("+disk+")= 00\n"...) },
		"absent":            func(_ []string, f map[string][]byte) { f[mf] = append(f[mf], "SHA256(absent)= 00\n"...) },
		"twice":             func(_ []string, f map[string][]byte) { f[mf] = bytes.Repeat(f[mf], 2) },
		"twice, once wrong": func(_ []string, f map[string][]byte) { f[mf] = append(f[mf], "SHA1("+disk+")= 00\n"...) },
		"folder": func(n []string, f map[string][]byte) {
			for i := range n {
				n[i], f["web/"+n[i]] = "web/"+n[i], f[n[i]]
			}
		},
	} {
		names, files := unpack(t, good)
		change(names, files)
		data := pack(t, names, files)
		save(t, filepath.Join(dir, "web.ova"), data)
		out, err := run(t, dir, "virt-v2v", "--print-source", "-i", "ova", "web.ova")
		if r := checkBytes(t, data); r.Refused(VirtV2V) != (err != nil) {
			t.Errorf("%s: refused: %t, %v\n%s", name, r.Refused(VirtV2V), refusals(r.Findings, VirtV2V), out)
		}
	}
}
