package builder_test

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/goldenisc/packer-plugin-isc/internal/basetest"
	"github.com/goldenisc/packer-plugin-isc/profiles"
	"github.com/goldenisc/packer-plugin-isc/registry"
)

// The tests here run the programs of others, which .ci/peers.sh installs, and one boots a machine in
// QEMU without KVM twice, which takes a minute each.

// needReal skips a test unless real programs are to be run; then a missing one is a failure.
func needReal(t *testing.T, programs ...string) {
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

// runIn runs a shell command, which must succeed, in a folder.
func runIn(t *testing.T, dir, script string) string {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "bash", "-euo", "pipefail", "-c", script)
	cmd.Dir = dir
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Errorf("%s: %v\n%s", script, err, out)
	}
	return string(out)
}

// unpack writes artifacts to files of a folder.
func unpack(t *testing.T, m *registry.Image, dir string, files map[string]string) {
	t.Helper()
	for name, file := range files {
		if err := os.WriteFile(filepath.Join(dir, file), artifact(t, m, name), 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

// TestRealDisks compares what each kind makes of a captured disk with the disk.
func TestRealDisks(t *testing.T) {
	needReal(t, "qemu-img", "vmdkinfo", "xmllint", "zstd", "tar", "virt-v2v")
	disk := make([]byte, 40<<20+512)
	r := rand.New(rand.NewPCG(8, 9))
	for off := 0; off < 20<<20; off += 300_000 {
		for i := range 50_000 {
			disk[off+i] = byte(r.Uint32() & 0x3f)
		}
	}
	copy(disk[len(disk)-512:], "the last sector")
	dir := saveDisk(t, disk)
	runIn(t, dir, "qemu-img convert -c -f raw -O qcow2 disk.raw disk.qcow2")
	m, _, err := buildSpec(t, dir, linuxImage+`disk {
  source = "disk.qcow2"
}
ova {
  memory = "2GiB"
  cpus   = 2
}
vmdk {}
qcow2 {}
raw_disk {}
vhd {}
gcp {}
`)
	if err != nil {
		t.Fatal(err)
	}
	unpack(t, m, dir, map[string]string{
		"ova": "web.ova", "vmdk": "web.vmdk", "qcow2": "web.qcow2", "raw_disk": "web.raw.zst", "vhd": "web.vhd.zst", "gcp": "web.tar.gz",
	})
	runIn(t, dir, `
		zstd -q -d web.raw.zst && cmp web.raw disk.raw
		zstd -q -d web.vhd.zst && qemu-img compare -f vpc -F raw web.vhd disk.raw
		mkdir gcp ova && tar -xzf web.tar.gz -C gcp && qemu-img compare -f raw -F raw gcp/disk.raw disk.raw
		tar -xf web.ova -C ova && cmp ova/web-1.4.0-disk1.vmdk web.vmdk
		qemu-img compare -f vmdk -F raw web.vmdk disk.raw
		qemu-img compare -f qcow2 -F raw web.qcow2 disk.raw`)
	for _, f := range []string{"vmdk", "qcow2"} {
		if out := runIn(t, dir, "qemu-img check -f "+f+" web."+f); !strings.Contains(out, "No errors were found") {
			t.Error(out)
		}
	}
	if out := runIn(t, dir, "vmdkinfo web.vmdk"); !strings.Contains(out, "Stream optimized") {
		t.Error(out)
	}
	for _, v := range []string{"1.1.0", "1.1.1"} {
		xsd, err := filepath.Abs("../ovf/testdata/xsd/" + v + "/dsp8023_" + v + ".xsd")
		if err != nil {
			t.Fatal(err)
		}
		// vbox:Machine, the last section, is VirtualBox's own and not in the schema.
		runIn(t, dir, `sed '/<vbox:Machine/,/<\/vbox:Machine>/d' ova/web-1.4.0.ovf >bare.ovf && xmllint --nonet --noout --schema '`+xsd+`' bare.ovf`)
	}
	t.Setenv("LIBGUESTFS_BACKEND", "direct")
	out := runIn(t, dir, "virt-v2v --print-source -i ova web.ova")
	for _, want := range []string{"source name: web-1.4.0\n", "memory: 2147483648 (bytes)", "nr vCPUs: 2\n", "firmware: uefi", "0 [sata]", "[e1000]"} {
		if !strings.Contains(out, want) {
			t.Errorf("virt-v2v does not read %q:\n%s", want, out)
		}
	}
}

// appliance is a spec of a hardened Debian with the example's web service. A shell of root's is on the
// second serial port, for the test.
const appliance = linuxImage + `base {
  source = "tar:%s"
}
profile {
  name = "isc-linux"
}
file {
  path   = "/opt/web/bin/webd"
  source = "%[2]s/web/webd"
  mode   = "0555"
}
tree {
  path   = "/opt/web/share"
  source = "dir:%[2]s/web/share"
}
file {
  path   = "/opt/web/share/blob"
  source = "blob"
}
user {
  name = "webd"
  uid  = 801
}
service {
  name       = "web"
  exec       = "/opt/web/bin/webd 8080 /opt/web/share"
  user       = "webd"
  listen     = ["8080/tcp"]
  privileges = ["basic"]
}
network {}
identity {}
scratch {
  size = "64MiB"
}
swap {
  size = "16MiB"
}
volume {
  path = "/var/lib/web"
  size = "64MiB"
}
file {
  path    = "/etc/systemd/network/10-any.network"
  content = "[Match]\nType=ether\n[Network]\nDHCP=ipv4\n"
}
file {
  path    = "/etc/systemd/system/probe.service"
  content = "[Service]\nExecStart=/bin/sh\nStandardInput=tty-force\nStandardOutput=tty\nStandardError=tty\nTTYPath=/dev/ttyS1\nKillSignal=SIGKILL\n"
}
link {
  path   = "/etc/systemd/system/multi-user.target.wants/probe.service"
  target = "../probe.service"
}
link {
  path   = "/etc/systemd/system/multi-user.target.wants/systemd-networkd.service"
  target = "/lib/systemd/system/systemd-networkd.service"
}
file {
  path   = "/usr/bin/iscadm"
  source = "%[3]s"
  mode   = "0555"
}
ova {
  serial = true
}
`

// blobLine is what the page blob repeats, and blob all of it.
const blobLine = "what the disk has, it must tell."

var blob = strings.Repeat(blobLine, 4096)

// TestRealBoot boots the disk in the OVA of a hardened Debian on the devices that the OVA declares, and
// again with a flipped bit: it serves, drops what else comes in, writes nothing to its root, forgets all
// but its volume, and reads what is damaged as an error.
func TestRealBoot(t *testing.T) {
	needReal(t, "qemu-system-x86_64", "qemu-img", "sgdisk")
	base, err := basetest.Debian(t.Context(), basetest.GuestDebian)
	if err != nil {
		t.Fatal(err)
	}
	example, err := filepath.Abs("../example")
	if err != nil {
		t.Fatal(err)
	}
	program := os.Getenv("ISCADM")
	if program == "" {
		t.Fatal("ISCADM is not set")
	}
	dir := t.TempDir()
	put(t, filepath.Join(dir, "blob"), blob)
	m, b, err := buildSpec(t, dir, fmt.Sprintf(appliance, base, example, program))
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range b.Report.Controls {
		if c.Status == profiles.Fail {
			t.Errorf("%s %s: %+v", c.ID, c.Title, c.Findings)
		}
	}
	unpack(t, m, dir, map[string]string{"ova": "web.ova"})
	// QEMU writes beside a stream-optimized disk, not into it.
	runIn(t, dir, "tar -xf web.ova && rm web.ova && qemu-img create -q -f qcow2 -b web-1.4.0-disk1.vmdk -F vmdk disk.qcow2")

	g := start(t, dir, "format=qcow2,file=disk.qcow2", "1")
	if page := g.get("/blob"); page != blob {
		t.Errorf("%d bytes of the blob", len(page))
	}
	first := g.check()
	if s := g.banner(); s != "" {
		t.Errorf("a port that the spec does not name answers: %q", s)
	}
	g.want(`^SSH-`, "busybox nc 127.0.0.1 22 </dev/null | head -c 20")
	g.want(`^no\n$`, "ls /scratch /var/lib/web /var/lib /etc | grep -q left-behind || echo no")
	g.want(`^801 801 755\n$`, "stat -c '%u %g %a' /var/lib/web")
	g.want(`^$`, "for d in /scratch /var/lib/web /var/lib /tmp /run; do yes $(basename $d)-mark 2>/dev/null | head -n 9999 >$d/left-behind || echo $d; done; sync")
	g.want(`^(touch: .*: Read-only file system\n){4}$`, "touch /left-behind /etc/left-behind /usr/bin/left-behind /opt/web/left-behind")
	g.want(`noexec`, "cp /bin/true /scratch/true; /scratch/true || grep ' /scratch ' /proc/mounts")
	g.off("systemctl reboot")

	runIn(t, dir, "qemu-img convert -f qcow2 -O raw disk.qcow2 disk.raw && rm disk.qcow2 && sgdisk -v disk.raw")
	checkWritten(t, filepath.Join(dir, "disk.raw"))

	g = start(t, dir, "format=raw,file=disk.raw", "2")
	second := g.check()
	if first == second {
		t.Errorf("the machine id %s again", first)
	}
	g.want(`^/var/lib/web/left-behind\n$`, "ls /*/left-behind /var/lib/left-behind /var/lib/web/left-behind 2>/dev/null")
	g.want(`Input/output error`, "cat /opt/web/share/blob >/dev/null")
	g.want(`^\d+ \d+ verity C`, "dmsetup status root")
	if page := g.get("/blob"); page == blob {
		t.Error("the page with a flipped bit was served")
	}
	if page := g.get("/index.html"); !strings.Contains(page, indexText) {
		t.Errorf("a sound page: %q", page)
	}
	g.want(`^$`, "nft flush ruleset")
	if s := g.banner(); !strings.HasPrefix(s, "SSH-") {
		t.Errorf("without its packet filter the guest says %q: it was not the filter", s)
	}
	g.off("systemctl poweroff")
}

// busyboxAppliance is a spec of a guest like Alpine Linux, whose init is busybox's: what it starts is in
// files of its own.
const busyboxAppliance = linuxImage + `base {
  source = "tar:alpine.tar"
}
tree {
  path   = "/"
  source = "tar:kernel.tar"
}
profile {
  name = "isc-linux"
}
file {
  path    = "/etc/inittab"
  content = "::sysinit:/etc/rc\n::respawn:/bin/busybox httpd -f -p 8080 -h /run/www\n"
}
file {
  path    = "/etc/rc"
  mode    = "0755"
  content = <<-EOT
	#!/bin/sh
	mkdir /dev/pts /run/www
	mount -t devpts devpts /dev/pts
	sysctl -q -p /etc/sysctl.d/99-zz-isc.conf
	ip link set lo up
	ip link set eth0 up
	ip addr add 10.0.2.15/24 dev eth0
	{
		cat /proc/mounts /proc/swaps
		ls -ld /srv/data
		sysctl kernel.dmesg_restrict
		touch /left-behind /var/left-behind /scratch/left-behind
		ls -d /left-behind /*/left-behind
	} >/run/www/state 2>&1
	echo "%s" >/run/www/index.html
  EOT
}
scratch {
  size = "64MiB"
}
swap {
  size = "16MiB"
}
user {
  name = "web"
  uid  = 801
}
volume {
  path  = "/srv/data"
  size  = "64MiB"
  owner = "web"
}
ova {
  serial = true
}
`

// TestRealBusybox boots the disk in the OVA of a root without systemd.
func TestRealBusybox(t *testing.T) {
	needReal(t, "qemu-system-x86_64", "bsdtar")
	base, err := basetest.Debian(t.Context(), basetest.GuestDebian)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	f, err := os.Create(filepath.Join(dir, "alpine.tar"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := basetest.Alpine(t.Context(), f, "/bin/busybox"); err != nil {
		t.Fatal(err)
	}
	// Of a Debian's kernel what such a machine may need.
	runIn(t, dir, `include=(--include './boot/[cv]*' --include './usr/lib/systemd/boot/*' --include './usr/lib/modules/*/modules.*')
		for d in arch block crypto fs lib drivers/{acpi,ata,md,scsi,virtio,net/ethernet/intel/e1000}; do include+=(--include "./usr/lib/modules/*/kernel/$d/*"); done
		bsdtar -cf kernel.tar "${include[@]}" @'`+base+`'`)
	m, _, err := buildSpec(t, dir, fmt.Sprintf(busyboxAppliance, indexText))
	if err != nil {
		t.Fatal(err)
	}
	unpack(t, m, dir, map[string]string{"ova": "web.ova"})
	runIn(t, dir, "tar -xf web.ova")
	g := start(t, dir, "format=vmdk,snapshot=on,file=web-1.4.0-disk1.vmdk", "busybox")
	state := g.get("/state")
	for _, want := range []string{
		` / erofs ro,`, ` /var overlay rw,`, ` /scratch ext4 rw,nosuid,nodev,noexec,`, ` /tmp tmpfs rw,nosuid,nodev,`, ` /srv/data ext4 rw,nosuid,nodev,`,
		`/dev/dm-1 +partition`, `drwxr-xr-x +3 web +web .*/srv/data`, `dmesg_restrict = 1`, `touch: /left-behind: Read-only file system`, `(?m)^/scratch/left-behind\n/var/left-behind$`,
	} {
		if !regexp.MustCompile(want).MatchString(state) {
			t.Errorf("no %q in\n%s", want, state)
		}
	}
}

// checkWritten looks at what a run left on the disk, and flips a bit of the page blob.
func checkWritten(t *testing.T, name string) {
	t.Helper()
	disk, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	for mark, want := range map[string]bool{"scratch-mark": false, "lib-mark": false, "tmp-mark": false, "web-mark": true} {
		if bytes.Contains(disk, []byte(mark+"\n"+mark)) != want {
			t.Errorf("%q is on the disk: %v, want %v", mark, !want, want)
		}
	}
	for _, part := range []string{"swap", "scratch"} {
		table := runIn(t, filepath.Dir(name), "sgdisk -p disk.raw | awk '$7 == \""+part+"\" { print $2, $3 }'")
		var from, to int
		if _, err := fmt.Sscan(table, &from, &to); err != nil || to < from || to*512 > len(disk) {
			t.Fatalf("partition %s: %q (%v)", part, table, err)
		}
		if p := disk[from*512 : (to+1)*512]; len(bytes.Trim(p, "\x00")) == 0 || bytes.Contains(p, []byte("SWAPSPACE2")) {
			t.Errorf("partition %s was never written, or is in clear", part)
		}
	}
	at := bytes.Index(disk, []byte(blobLine+blobLine))
	if at < 0 {
		t.Fatal("the page is not on the disk")
	}
	f, err := os.OpenFile(name, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.WriteAt([]byte{disk[at+90000] ^ 4}, int64(at)+90000); err != nil {
		t.Fatal(err)
	}
}

// A guest is a running machine of the appliance.
type guest struct {
	t        *testing.T
	web, ssh string // addresses, forwarded to the guest's
	shell    net.Conn
	ended    <-chan error
	commands int
}

// patience is how long a machine may take: an emulated processor on a busy host.
const patience = 10 * time.Minute

// runQEMU starts a machine with a disk on AHCI, as our OVA declare it. Its console goes to a file in the
// cache folder of the tests, whose path is returned, and what it ends with to the channel.
func runQEMU(t *testing.T, dir, log, drive string, more ...string) (console string, ended <-chan error) {
	t.Helper()
	cache, err := basetest.CacheDir()
	if err != nil {
		t.Fatal(err)
	}
	console = filepath.Join(cache, log)
	os.Remove(console)
	vars, err := os.ReadFile("/usr/share/OVMF/OVMF_VARS_4M.fd")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "vars.fd"), vars, 0o600); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cmd := exec.CommandContext(ctx, "qemu-system-x86_64", append([]string{
		"-M", "q35,smm=on", "-accel", "tcg", "-cpu", "max", "-smp", "2", "-m", "1024",
		"-display", "none", "-monitor", "none", "-no-reboot", "-nodefaults", "-serial", "file:" + console,
		"-drive", "if=pflash,format=raw,readonly=on,file=/usr/share/OVMF/OVMF_CODE_4M.fd", "-drive", "if=pflash,format=raw,file=vars.fd",
		"-device", "ahci,id=sata", "-drive", "if=none,id=d," + drive, "-device", "ide-hd,drive=d,bus=sata.0",
	}, more...)...)
	cmd.Dir = dir
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Start(); err != nil {
		cancel()
		t.Fatal(err)
	}
	end := make(chan error, 1)
	go func() {
		err := cmd.Wait()
		if err != nil || out.Len() > 0 {
			err = fmt.Errorf("%v: %s", err, out.String())
		}
		end <- err
		close(end)
	}()
	t.Cleanup(func() {
		cancel()
		for range end { // until it is closed
		}
		if t.Failed() {
			text, _ := os.ReadFile(console)
			t.Logf("the console, from %s:\n%s", console, text[max(0, len(text)-8000):])
		}
	})
	return console, end
}

// boot starts a machine with a disk, which is not written, until its console says these texts, one after
// the other.
func boot(t *testing.T, dir, disk, log string, until ...string) {
	t.Helper()
	console, ended := runQEMU(t, dir, log, "format=vmdk,snapshot=on,file="+disk)
	for deadline := time.Now().Add(patience); ; {
		text, _ := os.ReadFile(console)
		rest, ok := string(text), true
		for _, want := range until {
			if ok {
				_, rest, ok = strings.Cut(rest, want)
			}
		}
		if ok {
			return
		}
		select {
		case err := <-ended:
			t.Fatalf("the machine ended: %v", err)
		case <-time.After(time.Second):
		}
		if time.Now().After(deadline) {
			t.Fatalf("no %q in %v", until, patience)
		}
	}
}

// start starts the machine that the OVA declares, and waits until its service answers.
func start(t *testing.T, dir, drive, name string) *guest {
	t.Helper()
	g := &guest{t: t, web: freePort(t), ssh: freePort(t)}
	shell := filepath.Join(dir, "shell"+name)
	_, g.ended = runQEMU(t, dir, "ova-boot-"+name+".log", drive,
		"-serial", "unix:"+shell+",server=on,wait=off", "-smbios", "type=11,value=io.systemd.credential:isc.identity=hostname=golden"+name,
		"-netdev", "user,id=n,restrict=on,hostfwd=tcp:"+g.web+"-:8080,hostfwd=tcp:"+g.ssh+"-:22", "-device", "e1000,netdev=n")
	began := time.Now()
	for g.shell == nil {
		var err error
		if g.shell, err = net.Dial("unix", shell); err != nil {
			g.shell = nil
			select {
			case err := <-g.ended:
				t.Fatalf("the machine ended: %v", err)
			case <-time.After(100 * time.Millisecond):
			}
		}
	}
	t.Cleanup(func() { g.shell.Close() })
	if page := g.get("/index.html"); !strings.Contains(page, indexText) {
		t.Errorf("the page: %q", page)
	}
	t.Logf("start %s: the service answers after %v", name, time.Since(began).Round(time.Second))
	return g
}

// indexText is in the example's page.
const indexText = "Served from a golden image"

// freePort returns a local address that nothing listens on.
func freePort(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

// get asks the service for a page, again and again until it answers, and returns as much as comes.
func (g *guest) get(page string) string {
	g.t.Helper()
	for deadline := time.Now().Add(patience); time.Now().Before(deadline); time.Sleep(time.Second) {
		select {
		case err := <-g.ended:
			g.t.Fatalf("the machine ended: %v", err)
		default:
		}
		r, err := (&http.Client{Timeout: time.Minute}).Get("http://" + g.web + page)
		if err != nil {
			continue
		}
		body, _ := io.ReadAll(r.Body)
		r.Body.Close()
		if r.StatusCode != http.StatusOK {
			g.t.Errorf("%s: %s", page, r.Status)
		}
		return string(body)
	}
	g.t.Fatalf("no answer in %v", patience)
	return ""
}

// banner returns what the ssh server tells who connects, or nothing if none answers soon.
func (g *guest) banner() string {
	c, err := net.Dial("tcp", g.ssh)
	if err != nil {
		g.t.Fatal(err)
	}
	defer c.Close()
	c.SetReadDeadline(time.Now().Add(15 * time.Second))
	line, _ := bufio.NewReader(c).ReadString('\n')
	return line
}

// run runs a command in the shell of the guest and returns its output.
func (g *guest) run(command string) string {
	g.t.Helper()
	g.commands++
	g.shell.SetDeadline(time.Now().Add(patience))
	fmt.Fprintf(g.shell, "stty -echo; PS1=; PS2=; echo; echo begin-$((%d)); { %s; } 2>&1 | cat; echo end-$((%[1]d))\n", g.commands, command)
	begin, end := fmt.Sprintf("begin-%d\n", g.commands), fmt.Sprintf("end-%d\n", g.commands)
	var out strings.Builder
	buf := make([]byte, 4096)
	for {
		n, err := g.shell.Read(buf)
		out.WriteString(strings.ReplaceAll(string(buf[:n]), "\r", ""))
		if _, text, ok := strings.Cut(out.String(), begin); ok {
			if text, _, ok = strings.Cut(text, end); ok {
				return text
			}
		}
		if err != nil {
			g.t.Fatalf("%s: %v\n%s", command, err, out.String())
		}
	}
}

// want runs a command whose output must match.
func (g *guest) want(match, command string) string {
	g.t.Helper()
	out := g.run(command)
	if !regexp.MustCompile(match).MatchString(out) {
		g.t.Errorf("%s: no %q in\n%s", command, match, out)
	}
	return out
}

// check checks what holds at every start, and returns the machine id.
func (g *guest) check() string {
	g.t.Helper()
	g.want(`^running\n$`, "systemctl is-system-running --wait; systemctl --failed --no-legend --plain")
	g.want(`^/dev/dm-0 / erofs ro,`, "grep ' / ' /proc/mounts")
	g.want(`^\d+ \d+ verity V`, "dmsetup status root")
	g.want(` /scratch ext4 rw,nosuid,nodev,noexec,`, "grep ' /scratch ' /proc/mounts")
	g.want(` /var overlay rw,`, "grep ' /var ' /proc/mounts")
	g.want(`^/dev/dm-1 +partition`, "tail -n +2 /proc/swaps")
	// The keys are in the kernel, and their names all that it tells.
	g.want(`(?m)^scratch: .* crypt aes-xts-plain64 :64:logon:isc:scratch 0 `, "dmsetup table --showkeys")
	g.want(`(?m)^swap: .* crypt aes-xts-plain64 :64:logon:isc:swap 0 `, "dmsetup table --showkeys")
	g.want(`^golden\d\n$`, "hostname")
	g.want(`^active\n$`, "systemctl is-active ssh")
	// The kernel has what the profile says, and iscadm finds in the running guest what it left in the image.
	g.want(`^$`, "cat /etc/sysctl.d/*isc*.conf | tr -d ' ' | grep '^[a-z]' | while IFS== read -r k v; do f=/proc/sys/$(echo $k | tr . /); [ ! -e $f ] || [ \"$(cat $f)\" = \"$v\" ] || echo $k; done")
	g.want(`^0\n$`, "iscadm audit local: --profile isc-linux >/tmp/audit 2>&1; s=$?; grep -A 9 ' fail ' /tmp/audit; echo $s")
	return g.run("cat /etc/machine-id")
}

// off has the machine end itself.
func (g *guest) off(command string) {
	g.t.Helper()
	fmt.Fprintf(g.shell, "%s\n", command)
	select {
	case err := <-g.ended:
		if err != nil {
			g.t.Fatalf("the machine ended: %v", err)
		}
	case <-time.After(patience):
		g.t.Fatalf("the machine runs on after %v", patience)
	}
}
