package disk

import (
	"bytes"
	"context"
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"io/fs"
	"math/big"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/goldenisc/packer-plugin-isc/internal/basetest"
)

// The tests here run the programs of others, and boot machines in QEMU without KVM, which takes a
// minute each. Debian's packages are in .ci/peers.sh. TestRealBoot of package builder boots a Debian
// for every change; here that is done at night.

func needReal(t *testing.T) {
	t.Helper()
	if os.Getenv("ISC_REAL") == "" {
		t.Skip("ISC_REAL is not set")
	}
}

func run(t *testing.T, name string, args ...string) string {
	t.Helper()
	out, err := exec.Command(name, args...).CombinedOutput()
	if err != nil {
		t.Errorf("%s %s: %v\n%s", name, strings.Join(args, " "), err, out)
	}
	return string(out)
}

// debian returns a root with kernel, boot stub and systemd.
func debian(tb testing.TB) *testRoot {
	tb.Helper()
	name, err := basetest.Debian(context.Background(), basetest.GuestDebian)
	if err != nil {
		tb.Fatal(err)
	}
	return readTar(tb, name)
}

// program returns the program of testdata/guest for an architecture.
func program(t *testing.T, arch string) string {
	t.Helper()
	out := filepath.Join(t.TempDir(), "guest")
	cmd := exec.Command("go", "build", "-trimpath", "-ldflags=-s -w", "-o", out, "./testdata/guest")
	cmd.Env = append(os.Environ(), "GOOS=linux", "GOARCH="+arch, "CGO_ENABLED=0")
	if text, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("go build: %v\n%s", err, text)
	}
	b, err := os.ReadFile(out)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// blob is a file of the root that nothing reads unless it is told to.
const blob = "usr/lib/isc/blob"

// holes is one with holes.
const holes = "usr/lib/isc/holes"

var blobContent = strings.Repeat("what the disk has, it must tell.", 4096)

// contents puts both into the folder usr/lib/isc.
func contents(r *testRoot) {
	r.file(blob, 0o644, blobContent)
	r.sparse(holes, 30<<20, Extent{5 << 20, 70000}, Extent{20 << 20, 1})
}

// checkContents checks how the guest reads them.
func checkContents(t *testing.T, s *state, r *testRoot) {
	t.Helper()
	for _, name := range []string{blob, holes} {
		if got, want := s.Content["/"+name], contentSum(t, r, name); got != want {
			t.Errorf("%s: %s, want %s", name, got, want)
		}
	}
}

// serve makes the root one with the web service.
func serve(t *testing.T, r *testRoot) {
	r.dir("usr/lib/isc", 0o755)
	r.file("usr/lib/isc/guest", 0o755, program(t, "amd64"))
	contents(r)
	r.file("etc/systemd/system/guest.service", 0o644, "[Service]\nExecStart=/usr/lib/isc/guest\nRestart=always\n[Install]\nWantedBy=multi-user.target\n")
	for _, dir := range []string{"etc/systemd/system/multi-user.target.wants", "etc/systemd/system/network-online.target.wants"} {
		r.dir(dir, 0o755)
	}
	r.link("etc/systemd/system/multi-user.target.wants/guest.service", "/etc/systemd/system/guest.service")
	r.link("etc/systemd/system/multi-user.target.wants/systemd-networkd.service", "/lib/systemd/system/systemd-networkd.service")
	r.file("etc/systemd/network/10-any.network", 0o644, "[Match]\nType=ether\n[Network]\nAddress=10.0.2.15/24\nGateway=10.0.2.2\n")
	r.file("etc/hostname", 0o644, "guest\n")
	r.sort()
}

// A state is what the guest tells; see testdata/guest.
type state struct {
	Mounts, Swaps, Verity, Machine string
	Mapped, Writes, Content        map[string]string
	Exists                         map[string]bool
}

// A vm is a running machine.
type vm struct {
	t    *testing.T
	cmd  *exec.Cmd
	url  string
	log  string
	done chan error
}

// patience is how long a machine may take: an emulated processor on a busy host.
const patience = 6 * time.Minute

// start starts a machine. Its console is kept in the cache folder of the tests.
func start(t *testing.T, name string, args ...string) *vm {
	t.Helper()
	cache, err := basetest.CacheDir()
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	port := l.Addr().(*net.TCPAddr).Port
	l.Close()
	m := &vm{t: t, url: fmt.Sprintf("http://127.0.0.1:%d", port), log: filepath.Join(cache, "guest-"+name+".log"), done: make(chan error, 1)}
	os.Remove(m.log)
	m.cmd = exec.Command("qemu-system-x86_64", append([]string{
		"-M", "q35,smm=on", "-accel", "tcg", "-cpu", "max", "-smp", "2", "-m", "512", "-display", "none", "-monitor", "none", "-no-reboot",
		"-netdev", fmt.Sprintf("user,id=n,restrict=on,hostfwd=tcp:127.0.0.1:%d-10.0.2.15:80", port), "-device", "e1000,netdev=n",
		"-serial", "file:" + m.log,
	}, args...)...)
	var out bytes.Buffer
	m.cmd.Stdout, m.cmd.Stderr = &out, &out
	if err := m.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		err := m.cmd.Wait()
		if out.Len() > 0 {
			err = fmt.Errorf("%v: %s", err, out.String())
		}
		m.done <- err
	}()
	t.Cleanup(func() {
		if m.cmd.ProcessState == nil {
			m.cmd.Process.Kill()
		}
		if t.Failed() {
			t.Logf("the console, from %s:\n%s", m.log, m.tail())
		}
	})
	return m
}

// firmware returns the arguments of a UEFI firmware, whose variables are copied.
func firmware(t *testing.T, code, vars string) []string {
	t.Helper()
	b, err := os.ReadFile("/usr/share/OVMF/" + vars)
	if err != nil {
		t.Fatal(err)
	}
	copied := filepath.Join(t.TempDir(), "vars.fd")
	if err := os.WriteFile(copied, b, 0o600); err != nil {
		t.Fatal(err)
	}
	return []string{
		"-global", "driver=cfi.pflash01,property=secure,value=on",
		"-drive", "if=pflash,unit=0,format=raw,readonly=on,file=/usr/share/OVMF/" + code, "-drive", "if=pflash,unit=1,format=raw,file=" + copied,
	}
}

func (m *vm) tail() string {
	b, _ := os.ReadFile(m.log)
	return string(b[max(0, len(b)-6000):])
}

// get asks the guest, again and again until it answers.
func (m *vm) get(path string) string {
	m.t.Helper()
	for deadline := time.Now().Add(patience); time.Now().Before(deadline); {
		select {
		case err := <-m.done:
			m.t.Fatalf("the machine ended: %v", err)
		default:
		}
		if r, err := (&http.Client{Timeout: time.Minute}).Get(m.url + path); err == nil {
			b, err := io.ReadAll(r.Body)
			r.Body.Close()
			if err == nil && r.StatusCode == http.StatusOK {
				return string(b)
			}
		}
		time.Sleep(500 * time.Millisecond)
	}
	m.t.Fatalf("no answer to %s in %v", path, patience)
	return ""
}

func (m *vm) state() (s state) {
	m.t.Helper()
	if err := json.Unmarshal([]byte(m.get("/state")), &s); err != nil {
		m.t.Fatal(err)
	}
	return s
}

// wait waits for the machine to switch itself off.
func (m *vm) wait() {
	m.t.Helper()
	select {
	case err := <-m.done:
		if err != nil {
			m.t.Fatalf("the machine ended: %v", err)
		}
	case <-time.After(patience):
		m.t.Fatalf("the machine runs on after %v", patience)
	}
}

func (m *vm) off() {
	m.t.Helper()
	(&http.Client{Timeout: 10 * time.Second}).Get(m.url + "/off")
	m.wait()
}

// mounted returns the line of /proc/mounts of a path, the last one.
func (s *state) mounted(at string) (line string) {
	for l := range strings.Lines(s.Mounts) {
		if f := strings.Fields(l); len(f) > 3 && f[1] == at {
			line = l
		}
	}
	return line
}

// checkState checks what holds at every start.
func checkState(t *testing.T, s *state) {
	t.Helper()
	if l := s.mounted("/"); !strings.HasPrefix(l, "/dev/dm-") || !strings.Contains(l, " erofs ro,") {
		t.Errorf("root: %s", l)
	}
	if s.Verity != "V" {
		t.Errorf("verity: %q", s.Verity)
	}
	for name, prefix := range map[string]string{"root": "CRYPT-VERITY-", "swap": "CRYPT-PLAIN-", "scratch": "CRYPT-PLAIN-"} {
		if !strings.HasPrefix(s.Mapped[name], prefix) {
			t.Errorf("device %s: %q, of %v", name, s.Mapped[name], s.Mapped)
		}
	}
	if l := s.mounted("/scratch"); !strings.HasPrefix(l, "/dev/dm-") || !strings.Contains(l, " ext4 rw,") {
		t.Errorf("scratch: %s", l)
	}
	if !strings.Contains(s.Swaps, "/dev/dm-1") {
		t.Errorf("swap: %s", s.Swaps)
	}
	for dir, want := range map[string]bool{"/": false, "/etc": false, "/usr/bin": false, "/var": true, "/tmp": true, "/run": true, "/scratch": true, "/data": true} {
		if got := s.Writes[dir] == ""; got != want {
			t.Errorf("%s can be written: %v (%s)", dir, got, s.Writes[dir])
		}
		if s.Exists[dir] && dir != "/data" {
			t.Errorf("%s has a file of an earlier start", dir)
		}
	}
}

// TestRealGuest has the disk of a Debian checked by other programs, and at night boots it twice on the
// controllers that an appliance declares, with a flipped bit the second time.
func TestRealGuest(t *testing.T) {
	needReal(t)
	r := debian(t)
	serve(t, r)
	g, err := Build(context.Background(), r.all(), Options{
		Arch: "amd64", Hardware: []Hardware{AHCI, E1000}, Swap: 64 << 20, Scratch: 256 << 20, Data: 64 << 20,
		Var: Overlay, Serial: true, Cmdline: "systemd.mask=serial-getty@ttyS0.service",
	})
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	raw := filepath.Join(dir, "disk.raw")
	writeDisk(t, g.System, raw)
	root := cut(t, g, "root", filepath.Join(dir, "root"))
	run(t, "sgdisk", "-v", raw)
	run(t, "fsck.erofs", root)
	run(t, "fsck.vfat", "-n", cut(t, g, "ESP", filepath.Join(dir, "esp")))
	run(t, "veritysetup", "verify", root, cut(t, g, "root-verity", filepath.Join(dir, "tree")), hex.EncodeToString(g.RootHash[:]))
	if os.Getenv("ISC_NIGHTLY") != "1" {
		return
	}

	boot := append(firmware(t, "OVMF_CODE_4M.secboot.fd", "OVMF_VARS_4M.fd"),
		"-drive", "if=none,id=d,format=raw,file="+raw, "-device", "ide-hd,drive=d,bus=ide.0")
	m := start(t, "debian-1", boot...)
	s := m.state()
	checkState(t, &s)
	if s.Exists["/data"] {
		t.Error("/data has a file at the first start")
	}
	checkContents(t, &s, r)
	m.off()
	checkDisk(t, g, raw)
	flip(t, g, raw, blob)

	m = start(t, "debian-2", boot...)
	again := m.state()
	checkState(t, &again)
	if !again.Exists["/data"] {
		t.Error("/data has lost its file")
	}
	if again.Machine == s.Machine || len(s.Machine) != 32 {
		t.Errorf("machine ids %q and %q", s.Machine, again.Machine)
	}
	if got := m.get("/read?name=/" + blob); !strings.Contains(got, "input/output error") {
		t.Errorf("the blob with a flipped bit: %s", got)
	}
	if got := m.get("/read?name=/usr/lib/isc/guest"); strings.Contains(got, "error") {
		t.Errorf("a sound file: %s", got)
	}
	if got := m.get("/status"); got != "C" {
		t.Errorf("verity after a bad block: %q", got)
	}
	m.off()
}

// contentSum returns the SHA-256 of a file of a root.
func contentSum(t *testing.T, r *testRoot, name string) string {
	t.Helper()
	for _, o := range r.objects {
		if o.Path == name {
			h := sha256.New()
			if _, err := io.Copy(h, io.NewSectionReader(fileReader{o}, 0, o.Size)); err != nil {
				t.Fatal(err)
			}
			return hex.EncodeToString(h.Sum(nil))
		}
	}
	t.Fatalf("no file %s", name)
	return ""
}

// checkDisk checks that a run left the verified partitions and the ESP as they were, and nothing in
// clear on those that are encrypted.
func checkDisk(t *testing.T, g *Guest, raw string) {
	t.Helper()
	f, err := os.Open(raw)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for _, p := range g.Partitions {
		got := make([]byte, p.Length)
		if _, err := f.ReadAt(got, p.Offset); err != nil {
			t.Fatal(err)
		}
		switch p.Name {
		case "root", "root-verity", "ESP":
			want := make([]byte, p.Length)
			if _, err := g.System.ReadAt(want, p.Offset); err != nil {
				t.Fatal(err)
			}
			if !bytes.Equal(got, want) {
				t.Errorf("partition %s has changed", p.Name)
			}
		case "scratch", "swap":
			if bytes.Equal(got, make([]byte, p.Length)) {
				t.Errorf("partition %s was never written", p.Name)
			}
			for _, clear := range []string{"isc-guest-mark-in-clear", "left-behind", "SWAPSPACE2"} {
				if bytes.Contains(got, []byte(clear)) {
					t.Errorf("partition %s has %q in clear", p.Name, clear)
				}
			}
		case "data":
			if !bytes.Contains(got, []byte("isc-guest-mark-in-clear")) {
				t.Error("partition data has not what was written")
			}
		}
	}
}

// flip changes one bit of a file's content on the disk.
func flip(t *testing.T, g *Guest, raw, name string) {
	t.Helper()
	f, err := os.OpenFile(raw, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	p := g.Partitions[0]
	b := make([]byte, p.Length)
	if _, err := f.ReadAt(b, p.Offset); err != nil {
		t.Fatal(err)
	}
	at := bytes.Index(b, []byte("what the disk has, it must tell."))
	if at < 0 {
		t.Fatalf("the content of %s is not on the disk", name)
	}
	if _, err := f.WriteAt([]byte{b[at+9000] ^ 4}, p.Offset+int64(at)+9000); err != nil {
		t.Fatal(err)
	}
}

// small keeps of a Debian root what a machine starts with, and makes the test program its init: what
// a guest without systemd is to us.
func small(t *testing.T, r *testRoot, arch string) {
	keep := []string{"usr/lib/modules", "usr/lib/systemd/boot/efi", "boot", "usr/lib/os-release"}
	all := r.objects
	r.objects = nil
	for _, o := range all {
		ok := o.Path == "." || o.Path == "lib"
		for _, k := range keep {
			ok = ok || o.Path == k || strings.HasPrefix(o.Path, k+"/") || strings.HasPrefix(k, o.Path+"/")
		}
		if ok {
			r.objects = append(r.objects, o)
		}
	}
	for _, dir := range []string{"etc", "var", "var/lib", "usr/sbin", "usr/bin", "sbin"} {
		r.dir(dir, fs.ModePerm&0o755)
	}
	r.dir("usr/lib/isc", 0o755)
	contents(r)
	r.file("sbin/init", 0o755, program(t, arch))
	r.sort()
}

// told returns the state that a guest without a network told on its console.
func (m *vm) told() (s state) {
	m.t.Helper()
	b, err := os.ReadFile(m.log)
	if err != nil {
		m.t.Fatal(err)
	}
	_, after, ok := strings.Cut(string(b), "guest-state: ")
	if !ok {
		m.t.Fatal("the guest told nothing")
	}
	if err := json.NewDecoder(strings.NewReader(after)).Decode(&s); err != nil {
		m.t.Fatal(err)
	}
	return s
}

// TestRealSmall boots a guest without systemd, signed, on a system disk that the machine cannot write,
// with the rest on a second one; at night also on other controllers.
func TestRealSmall(t *testing.T) {
	needReal(t)
	r := debian(t)
	small(t, r, "amd64")
	t.Run("signed", func(t *testing.T) { bootSigned(t, r) })
	if os.Getenv("ISC_NIGHTLY") == "1" {
		bootControllers(t, r)
	}
}

// bootControllers boots one disk on several.
func bootControllers(t *testing.T, r *testRoot) {
	var all []Hardware
	for h := range drivers {
		all = append(all, h)
	}
	slices.Sort(all)
	g := build(t, r, Options{
		Arch: "amd64", Hardware: all, Swap: 16 << 20, Scratch: 64 << 20, Data: 64 << 20, Var: Tmpfs, Serial: true, Corruption: Panic,
	})
	raw := filepath.Join(t.TempDir(), "disk.raw")
	writeDisk(t, g.System, raw)
	for name, device := range map[string][]string{
		"nvme":        {"-device", "nvme,drive=d,serial=x"},
		"virtio-scsi": {"-device", "virtio-scsi-pci", "-device", "scsi-hd,drive=d"},
		"ide":         {"-M", "pc", "-device", "ide-hd,drive=d,bus=ide.0"},
	} {
		t.Run(name, func(t *testing.T) {
			boot := firmware(t, "OVMF_CODE_4M.fd", "OVMF_VARS_4M.fd")[2:] // which is not of the secure kind
			boot = append(boot, "-drive", "if=none,id=d,format=raw,snapshot=on,file="+raw)
			m := start(t, name, append(boot, device...)...)
			m.wait()
			s := m.told()
			checkState(t, &s)
		})
	}
}

func bootSigned(t *testing.T, r *testRoot) {
	key, cert := snakeoil(t)
	o := Options{
		Arch: "amd64", Hardware: []Hardware{VirtioBlk}, Swap: 16 << 20, Scratch: 64 << 20, Data: 64 << 20, SecondDisk: true,
		Var: OnScratch, Serial: true, Key: key, Certificate: cert,
	}
	g, err := Build(context.Background(), r.all(), o)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	system, second := filepath.Join(dir, "system.raw"), filepath.Join(dir, "second.raw")
	writeDisk(t, g.System, system)
	writeDisk(t, g.Second, second)
	run(t, "sgdisk", "-v", second)
	boot := append(firmware(t, "OVMF_CODE_4M.secboot.fd", "OVMF_VARS_4M.snakeoil.fd"),
		"-drive", "if=none,id=d,format=raw,readonly=on,file="+system, "-device", "virtio-blk-pci,drive=d",
		"-drive", "if=none,id=e,format=raw,file="+second, "-device", "virtio-blk-pci,drive=e")
	m := start(t, "signed", boot...)
	m.wait()
	s := m.told()
	checkState(t, &s)
	checkContents(t, &s, r)
	log, _ := os.ReadFile(m.log)
	if !strings.Contains(string(log), "Secure boot enabled") && !strings.Contains(string(log), "Kernel is locked down from EFI Secure Boot") {
		t.Error("the kernel says nothing of Secure Boot")
	}
}

// snakeoil returns the key that Debian's firmware for tests trusts.
func snakeoil(t *testing.T) (crypto.Signer, *x509.Certificate) {
	t.Helper()
	out, err := exec.Command("openssl", "pkcs8", "-topk8", "-nocrypt", "-passin", "pass:snakeoil", "-in", "/usr/share/ovmf/PkKek-1-snakeoil.key").Output()
	if err != nil {
		t.Fatalf("openssl: %v", err)
	}
	block, _ := pem.Decode(out)
	key, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile("/usr/share/ovmf/PkKek-1-snakeoil.pem")
	if err != nil {
		t.Fatal(err)
	}
	block, _ = pem.Decode(text)
	cert, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	return key.(crypto.Signer), cert
}

// TestRealSign has sbverify check a signature, and refuse one of a changed image.
func TestRealSign(t *testing.T) {
	needReal(t)
	dir := t.TempDir()
	key, cert := testKey(t)
	signed, err := signPE(testPE("amd64"), key, cert)
	if err != nil {
		t.Fatal(err)
	}
	again, err := signPE(testPE("amd64"), key, cert)
	if err != nil || !bytes.Equal(again, signed) {
		t.Errorf("signed twice: not the same bytes (%v)", err)
	}
	name := func(s string) string { return filepath.Join(dir, s) }
	for file, data := range map[string][]byte{
		"cert.pem": pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: cert.Raw}), "image": signed,
	} {
		if err := os.WriteFile(name(file), data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if out := run(t, "sbverify", "--cert", name("cert.pem"), name("image")); !strings.Contains(out, "Signature verification OK") {
		t.Error(out)
	}
	signed[len(testPE("amd64"))-1] ^= 1
	if err := os.WriteFile(name("changed"), signed, 0o600); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command("sbverify", "--cert", name("cert.pem"), name("changed")).CombinedOutput(); err == nil {
		t.Errorf("sbverify takes a changed image:\n%s", out)
	}
}

// testKey makes a key and a certificate of it.
func testKey(t *testing.T) (*rsa.PrivateKey, *x509.Certificate) {
	t.Helper()
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	c := &x509.Certificate{
		SerialNumber: big.NewInt(1 << 60), Subject: pkix.Name{CommonName: "db"}, NotBefore: time.Unix(0, 0), NotAfter: time.Unix(1<<32, 0),
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageCodeSigning},
	}
	raw, err := x509.CreateCertificate(rand.Reader, c, c, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(raw)
	if err != nil {
		t.Fatal(err)
	}
	return key, cert
}
