package host_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/goldenisc/packer-plugin-isc/host"
	"github.com/goldenisc/packer-plugin-isc/internal/hosttest"
	"github.com/goldenisc/packer-plugin-isc/internal/zfstest"
)

// zfsList returns the names below a pool, our token of the scratch left out.
func zfsList(t *testing.T, pool string) []string {
	t.Helper()
	var names []string
	for _, kind := range []string{"filesystem", "snapshot"} {
		cmd := exec.Command("zfs", "list", "-H", "-r", "-t", kind, "-o", "name", pool)
		cmd.Stderr = os.Stderr
		out, err := cmd.Output()
		if err != nil {
			t.Fatal(err)
		}
		names = append(names, strings.Fields(string(out))...)
	}
	return names
}

// versions makes an image and the next version of it, which has an increment.
func zfsVersions(t *testing.T) (one, two *host.Verified) {
	t.Helper()
	one, base := hosttest.ZFSImage(t, hosttest.Config(), hosttest.Small(), nil)
	c := hosttest.Config()
	c.Version = "1.1.0"
	files := append(hosttest.Small(), hosttest.Regular("usr/bin/more", "more\n"))
	two, _ = hosttest.ZFSImage(t, c, files, base)
	return one, two
}

func open(t *testing.T, state string) *host.Host {
	t.Helper()
	h, err := host.Open(t.Context(), state)
	if err != nil {
		t.Fatal(err)
	}
	return h
}

func ok(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func clean(t *testing.T, h *host.Host, what string) {
	t.Helper()
	for _, full := range []bool{false, true} {
		if got := hosttest.Findings(t, h, "web01", full); len(got) > 0 {
			t.Errorf("%s: findings %q", what, got)
		}
	}
}

// zfsLife is, in a place that stands for the pool, an instance from an import to its end, with an upgrade by an increment in between.
func zfsLife(t *testing.T, pool, place, mount string) {
	ctx := t.Context()
	one, two := zfsVersions(t)
	h := hosttest.Host(t)
	where := "zfs:" + place
	if _, err := h.Import(ctx, where, one); err != nil {
		t.Fatal(err)
	}
	if _, err := h.Import(ctx, where, one); err != nil {
		t.Fatalf("again: %v", err)
	}
	_, notes, err := h.Clone(ctx, host.CloneRequest{Image: one.Digest, Name: "web01", Platform: "zfs", Place: place, Site: host.Site{Hostname: "front"}})
	ok(t, err)
	t.Logf("notes: %q", notes)
	root := filepath.Join(mount, "web01", "root")
	clean(t, h, "clone")
	ok(t, os.WriteFile(filepath.Join(root, "var/lib/web/data"), []byte("kept"), 0o600))
	if data, err := os.ReadFile(filepath.Join(root, "var/lib/web/seed")); err != nil || string(data) != "seed\n" {
		t.Errorf("a new volume does not have what the image has there: %q, %v", data, err)
	}
	ok(t, os.WriteFile(filepath.Join(root, "usr/evil"), nil, 0o600))
	evidence, err := h.Reset(ctx, "web01", true)
	ok(t, err)
	start := time.Now()
	_, err = h.Reset(ctx, "web01", false)
	ok(t, err)
	t.Logf("a reset, %d entries, took %v", len(hosttest.Small()), time.Since(start).Round(time.Millisecond))
	zfsStart(t, h, pool+"/web01/scratch", root, len(notes) == 0)
	if !slices.Contains(zfsList(t, pool), pool+"/web01/"+evidence) {
		t.Errorf("no %s in %q", evidence, zfsList(t, pool))
	}
	clean(t, h, "reset")

	// The increment is all that is taken of the second image: its full streams are spoilt.
	for name := range two.Source.(hosttest.Source) {
		if strings.HasPrefix(name, "zfs-") {
			two.Source.(hosttest.Source)[name] = []byte("spoilt")
		}
	}
	_, err = h.Import(ctx, where, two)
	ok(t, err)
	ok(t, h.Snapshot(ctx, "web01", "before"))
	if err := h.Upgrade(ctx, "web01", two.Digest); err == nil || !strings.Contains(err.Error(), "destroy them first") {
		t.Errorf("upgrade of an instance with snapshots: %v", err)
	}
	ok(t, h.Forget(ctx, "web01", "before"))
	ok(t, h.Upgrade(ctx, "web01", two.Digest))
	clean(t, h, "upgrade")
	for name, want := range map[string]string{"usr/bin/more": "more\n", "var/lib/web/data": "kept", "etc/hostname": "front\n"} {
		if data, err := os.ReadFile(filepath.Join(root, name)); err != nil || string(data) != want {
			t.Errorf("%s after the upgrade: %q, %v", name, data, err)
		}
	}
	ok(t, h.Upgrade(ctx, "web01", one.Digest))
	clean(t, h, "downgrade")
	if _, err := os.Stat(filepath.Join(root, "usr/bin/more")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a file of the newer version: %v", err)
	}
	// What evidence is a clone of stays as long as that does, and nothing more.
	ok(t, h.Upgrade(ctx, "web01", two.Digest))
	gone, err := h.Prune(ctx)
	if err != nil || len(gone) != 1 {
		t.Errorf("pruned %v, %v", gone, err)
	}
	clean(t, h, "prune")
	ok(t, h.Destroy(ctx, "web01"))
	_, err = h.Prune(ctx)
	ok(t, err)
	if left := zfsList(t, pool); !slices.Equal(left, []string{pool, pool + "/iscadm:golden"}) {
		t.Errorf("left: %q", left)
	}
}

// zfsStart stops an instance, forgets the key of its scratch, as a boot does, and starts it.
func zfsStart(t *testing.T, h *host.Host, scratch, root string, encrypted bool) {
	t.Helper()
	zfsKey(t, scratch, encrypted)
	secret := filepath.Join(root, "scratch/secret")
	ok(t, os.WriteFile(secret, nil, 0o600))
	again := func() {
		p, err := h.Start(t.Context(), "web01")
		if err != nil || p != nil {
			t.Fatalf("start: process %v, %v", p, err)
		}
	}
	again() // which leaves alone what is mounted
	if _, err := os.Stat(secret); err != nil {
		t.Error(err)
	}
	ok(t, h.Stop(t.Context(), "web01", 0))
	ok(t, h.Stop(t.Context(), "web01", 0))
	if encrypted {
		if out, err := exec.Command("zfs", "unload-key", scratch).CombinedOutput(); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
	}
	again()
	zfsKey(t, scratch, encrypted)
	if _, err := os.Stat(secret); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the scratch outlived its key: %v", err)
	}
	if data, err := os.ReadFile(filepath.Join(root, "var/lib/web/data")); err != nil || string(data) != "kept" {
		t.Errorf("the volume after start: %q, %v", data, err)
	}
}

// zfsKey checks whether a dataset is encrypted.
func zfsKey(t *testing.T, name string, encrypted bool) {
	t.Helper()
	if !encrypted {
		return
	}
	for prop, want := range map[string]string{"encryption": "aes-256-gcm", "keyformat": "raw", "keystatus": "available", "encryptionroot": name} {
		out, err := exec.Command("zfs", "get", "-H", "-p", "-o", "property,value", prop, name).Output()
		if err != nil || string(out) != prop+"\t"+want+"\n" {
			t.Errorf("%s of the scratch is %q, %v; want %q", prop, out, err, want)
		}
	}
}

// zfsRefusals feeds streams that must not get into the pool.
func zfsRefusals(t *testing.T, pool string) {
	one, two := zfsVersions(t)
	other := hosttest.Small()
	other[1].Data = "other\n"
	evil, _ := hosttest.ZFSImage(t, hosttest.Config(), other, nil)
	with := func(stream string, data []byte) *host.Verified {
		v := *one
		src := hosttest.Source{}
		for k, b := range one.Source.(hosttest.Source) {
			src[k] = b
			if strings.HasPrefix(k, "zfs-") {
				src[k] = data
			}
		}
		v.Source = src
		return &v
	}
	good := one.Source.(hosttest.Source)["zfs-zpl5"]
	flipped := slices.Clone(good)
	flipped[len(flipped)/2] ^= 1
	for name, data := range map[string][]byte{
		"another image's": evil.Source.(hosttest.Source)["zfs-zpl5"], "an increment": two.Source.(hosttest.Source)["increment-zpl5"],
		"cut short": good[:len(good)/2], "flipped": flipped, "two": append(slices.Clone(good), good...), "nothing": nil,
	} {
		h := hosttest.Host(t)
		if _, err := h.Import(t.Context(), "zfs:"+pool, with(name, data)); err == nil {
			t.Errorf("%s: imported", name)
		}
		if left := zfsList(t, pool); len(left) > 2 {
			t.Errorf("%s: left %q", name, left)
		}
	}
	h := hosttest.Host(t)
	if _, err := h.Import(t.Context(), "zfs:"+pool+"/none", one); err == nil {
		t.Error("imported into a dataset that is not there")
	}
	if _, err := h.Import(t.Context(), "zfs", one); err == nil {
		t.Error("imported without a place")
	}
}

// killAt runs the operation in another process, which is killed when it starts its nth command of
// zfs(8), while that goes on. It reports whether the process had ended by itself.
func killAt(t *testing.T, c crash, n int) bool {
	t.Helper()
	job, err := json.Marshal(c)
	ok(t, err)
	zfs, err := exec.LookPath("zfs")
	ok(t, err)
	dir := t.TempDir()
	shim := fmt.Sprintf("#!/bin/sh\necho >>%q\n[ $(wc -l <%q) -ne %d ] || kill -9 $PPID\nexec %q \"$@\"\n", dir+"/n", dir+"/n", n, zfs)
	ok(t, os.WriteFile(filepath.Join(dir, "zfs"), []byte(shim), 0o700))
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), "HOST_TEST_CRASH="+string(job), "PATH="+dir+":"+os.Getenv("PATH"))
	// No pipes: what outlives the process would be waited for.
	f, err := os.Create(filepath.Join(dir, "log"))
	ok(t, err)
	defer f.Close()
	cmd.Stderr = f
	if err := cmd.Run(); err == nil {
		return true
	}
	if cmd.ProcessState.ExitCode() != -1 {
		log, _ := os.ReadFile(f.Name())
		t.Fatalf("%s, command %d: %s", c.Op, n, log)
	}
	return false
}

// zfsKill kills each operation at every command of zfs(8), or every so many: the next command finds
// the instance as it was or complete, and nothing else in the pool.
func zfsKill(t *testing.T, pool, mount string, stride int) {
	one, two := zfsVersions(t)
	saved := func(v *host.Verified) string {
		data, err := json.Marshal(savedImage{v.Digest, v.Config, v.Source.(hosttest.Source)})
		ok(t, err)
		path := filepath.Join(t.TempDir(), "image")
		ok(t, os.WriteFile(path, data, 0o600))
		return path
	}
	files := map[*host.Verified]string{one: saved(one), two: saved(two)}
	root := filepath.Join(mount, "web01", "root")
	for i, op := range []string{"import", "increment", "clone", "reset", "keep", "snapshot", "rollback", "upgrade", "destroy"} {
		t.Run(op, func(t *testing.T) {
			killed := 0
			for n, done := 1+i%min(stride, 2), false; !done; n += stride {
				c := crash{Op: op, State: t.TempDir(), Place: pool, Platform: "zfs", Image: files[one]}
				h := open(t, c.State)
				imp := func(v *host.Verified) {
					_, err := h.Import(t.Context(), c.where(), v)
					ok(t, err)
				}
				if op != "import" {
					imp(one)
				}
				switch op {
				case "increment":
					c.Op, c.Image = "import", files[two]
				case "upgrade":
					imp(two)
					c.Image = files[two]
				}
				made := !slices.Contains([]string{"import", "increment", "clone"}, op)
				if made {
					_, _, err := h.Clone(t.Context(), host.CloneRequest{Image: one.Digest, Name: "web01", Platform: "zfs", Place: pool})
					ok(t, err)
					ok(t, os.WriteFile(filepath.Join(root, "var/lib/web/data"), []byte("kept"), 0o600))
					if op == "rollback" {
						ok(t, h.Snapshot(t.Context(), "web01", "s"))
						ok(t, h.Snapshot(t.Context(), "web01", "later"))
					}
					ok(t, os.WriteFile(filepath.Join(root, "usr/drift"), nil, 0o600))
				}
				if done = killAt(t, c, n); !done {
					killed++
				}
				h = open(t, c.State)
				// The command that goes on has the lock.
				for range 40 {
					s, err := h.View()
					ok(t, err)
					if in := s.Instance("web01"); in == nil || in.Pending == nil {
						break
					}
					time.Sleep(50 * time.Millisecond)
					h = open(t, c.State)
				}
				t.Logf("command %d: %q", n, h.Recovered)
				s, err := h.View()
				ok(t, err)
				switch c.Op {
				case "import":
					imp(one)
					if op == "increment" {
						imp(two)
					}
				default:
					in := s.Instance("web01")
					if in == nil {
						if op != "clone" && op != "destroy" {
							t.Fatalf("the instance is gone: %q", h.Recovered)
						}
						break
					}
					if in.Pending != nil {
						t.Fatalf("pending: %+v, %q", in.Pending, h.Recovered)
					}
					got := hosttest.Findings(t, h, "web01", true)
					if len(got) > 0 && (op == "clone" || !slices.Equal(got, []string{`added "/usr/drift": file`})) {
						t.Fatalf("findings %q, %q", got, h.Recovered)
					}
					if data, err := os.ReadFile(filepath.Join(root, "var/lib/web/data")); made && (err != nil || string(data) != "kept") {
						t.Fatalf("volume: %q, %v, %q", data, err, h.Recovered)
					}
					for _, n := range zfsList(t, pool) {
						if strings.HasSuffix(n, ":new") {
							t.Fatalf("left: %q, %q", n, h.Recovered)
						}
					}
					ok(t, h.Destroy(t.Context(), "web01"))
				}
				_, err = h.Prune(t.Context())
				ok(t, err)
				if left := zfsList(t, pool); len(left) != 2 {
					t.Fatalf("left: %q, %q", left, h.Recovered)
				}
			}
			if killed == 0 {
				t.Error("nothing was killed")
			}
			t.Logf("%s: killed at %d commands", op, killed)
		})
	}
}

func TestZFSLife(t *testing.T) { zfsLife(t, "tank", "tank", fakeZFS(t)) }

func TestZFSRefusals(t *testing.T) {
	fakeZFS(t)
	zfsRefusals(t, "tank")
}

// TestZFSHere is what tests of real implementations run where those are: HOST_TEST_ZFS is
// POOL:MOUNTPOINT.
func TestZFSHere(t *testing.T) {
	pool, mount, found := strings.Cut(os.Getenv("HOST_TEST_ZFS"), ":")
	if !found {
		return // the real tests start this in another process
	}
	t.Run("Suite", func(t *testing.T) {
		s := zfsSuite(mount)
		s.Place = pool
		s.Run(t)
		h := hosttest.Host(t) // another state, which prunes nothing it does not know
		if len(zfsList(t, pool)) > 4 {
			t.Errorf("left: %q", zfsList(t, pool))
		}
		v, _ := zfsVersions(t)
		_, err := h.Import(t.Context(), "zfs:"+pool, v)
		ok(t, err)
		_, err = h.Prune(t.Context())
		ok(t, err)
	})
	t.Run("Life", func(t *testing.T) { zfsLife(t, pool, pool, mount) })
	if place := os.Getenv("HOST_TEST_FAR"); place != "" && os.Getenv("ISC_NIGHTLY") == "1" { // minutes, on a slow machine
		t.Run("Far", func(t *testing.T) { zfsLife(t, pool, place, mount) })
	}
	t.Run("Refusals", func(t *testing.T) { zfsRefusals(t, pool) })
	stride := 4
	if os.Getenv("ISC_NIGHTLY") == "1" {
		stride = 1
	}
	t.Run("Kill", func(t *testing.T) { zfsKill(t, pool, mount, stride) })
}

// staticTest builds this test program so that it runs anywhere.
func staticTest(t *testing.T, dir string) string {
	t.Helper()
	path := filepath.Join(dir, "host.test")
	cmd := exec.Command("go", "test", "-c", "-o", path, ".")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	return path
}

// TestRealZFSFuse runs the conformance tests and the whole life on zfs-fuse, and the life over SSH.
func TestRealZFSFuse(t *testing.T) {
	dir := zfstest.Scratch(t)
	script := filepath.Join(dir, "script")
	ok(t, os.WriteFile(script, []byte(`set -e
cd "$1"; truncate -s 512M disk
zpool create -o ashift=9 -m "$1/mnt" isc "$1/disk"
mkdir -p home/.ssh /run/sshd
ssh-keygen -q -t ed25519 -N '' -f host; ssh-keygen -q -t ed25519 -N '' -f user
port=$2
echo "[127.0.0.1]:$port $(cat host.pub)" > home/.ssh/known_hosts
printf '%s\n' "ListenAddress 127.0.0.1" "Port $port" "HostKey $1/host" "AuthorizedKeysFile $1/user.pub" "StrictModes no" "UsePAM no" "PidFile none" "PermitRootLogin yes" > sshd
/usr/sbin/sshd -D -E sshd.log -f sshd &
sshd=$!
trap 'kill $sshd' EXIT
export HOME=$1/home HOST_TEST_FAR="ssh://root@127.0.0.1:$port/isc?key=$1/user"
HOST_TEST_ZFS="isc:$1/mnt" "$1/host.test" -test.v -test.run '^TestZFSHere$'
zpool scrub isc
while zpool status isc | grep -q 'in progress'; do sleep 1; done
zpool status isc | grep -q 'errors: No known data errors'
`), 0o600))
	staticTest(t, dir)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	ok(t, err)
	port := l.Addr().(*net.TCPAddr).Port
	l.Close()
	out, good := zfstest.Run(t, "fuse", script, dir, strconv.Itoa(port))
	t.Log(zfsPassed(out))
	if !good {
		t.Errorf("%s", out)
	}
}

// zfsPassed is what a test that ran elsewhere says of the time it took.
func zfsPassed(out string) string {
	var lines []string
	for line := range strings.Lines(out) {
		if strings.Contains(line, "--- ") || strings.Contains(line, " took ") || strings.Contains(line, ": killed at ") {
			lines = append(lines, line)
		}
	}
	return strings.Join(lines, "")
}

// TestRealZFSKernel runs the life on OpenZFS in a guest, where the scratch is encrypted.
func TestRealZFSKernel(t *testing.T) {
	dir := zfstest.Scratch(t)
	script := filepath.Join(dir, "script")
	ok(t, os.WriteFile(script, []byte(`set -e
truncate -s 700M /tmp/disk
zpool create -o ashift=12 -O xattr=sa -m /tmp/mnt isc /tmp/disk
zfs create isc/place
export HOME=/tmp
HOST_TEST_ZFS=isc/place:/tmp/mnt/place /in/host.test -test.v -test.run '^TestZFSHere$/^Life$'
sync; zpool scrub -w isc
zpool status isc | grep -q 'errors: No known data errors'
`), 0o600))
	out, good := zfstest.Run(t, "vm", script, staticTest(t, dir))
	t.Log(zfsPassed(out))
	if !good {
		t.Fatalf("%s", out)
	}
	if strings.Contains(out, "the scratch is not encrypted") {
		t.Error("the scratch is not encrypted")
	}
}
