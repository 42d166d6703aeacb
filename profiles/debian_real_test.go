//go:build linux

package profiles

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/goldenisc/packer-plugin-isc/image"
	"github.com/goldenisc/packer-plugin-isc/internal/basetest"
)

// TestRealDebian hardens a server of Debian, lets its own programs check what was written, and
// prints what Lynis thinks of it before and after.
func TestRealDebian(t *testing.T) {
	wantReal(t)
	if os.Getuid() != 0 {
		t.Skip("only root enters a root")
	}
	name, err := basetest.Debian(t.Context(), basetest.ServerDebian)
	if err != nil {
		t.Fatal(err)
	}
	f, err := os.Open(name)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	tree, err := image.ReadTar(t.Context(), f, image.Options{Dir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	defer tree.Close()
	before := lynis(t, tree)
	p, err := Load("isc-linux")
	if err != nil {
		t.Fatal(err)
	}
	s, err := p.Select(Linux, nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	l := &Layout{
		OS: Linux, Name: "web", Network: &Network{Allow: []string{"22/tcp"}, Outbound: []string{"53/udp"}}, Identity: &Identity{User: "root"},
		Services: []Service{{Name: "web", Exec: "/bin/sleep 1"}},
	}
	if err := l.Apply(tree, epoch); err != nil {
		t.Fatal(err)
	}
	if err := Apply(tree, s, epoch); err != nil {
		t.Fatal(err)
	}
	once := dump(t, tree)
	if err := Apply(tree, s, epoch.AddDate(1, 0, 0)); err != nil {
		t.Fatal(err)
	}
	if dump(t, tree) != once {
		t.Error("applying twice differs from once")
	}
	r, err := Audit(tree, s, today)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range r.Controls {
		if c.Status == Fail {
			t.Errorf("%s %s: %+v", c.ID, c.Title, c.Findings)
		}
	}
	t.Logf("%d controls hold, %d are not applicable, %d are up to the dock", r.Count(Pass), r.Count(NotApplicable), r.Count(OnDock))
	dir := enter(t, tree)
	for _, check := range []string{
		"mkdir -p /run/sshd && ssh-keygen -q -A && /usr/sbin/sshd -t",
		"visudo -cq",
		"nft -c -f /etc/nftables.conf",
		"pwck -qr",
		"grpck -r",
		"sysctl --system --dry-run >/dev/null 2>&1 || ls /etc/sysctl.d",
		"sh -n /etc/profile.d/isc-tmout.sh && sh -n /etc/profile.d/isc-mesg.sh",
		"systemd-analyze verify --man=no /etc/systemd/system/web.service",
		// A system call that auditctl does not know costs the rule.
		"for a in b64:x86_64 b32:i386; do for c in $(sed -n \"s/.*arch=${a%:*} -S \\([^ ]*\\).*/\\1/p\" /etc/audit/rules.d/50-isc.rules | tr , ' '); do " +
			"ausyscall ${a#*:} $c --exact >/dev/null || exit 1; done; done; grep -q arch=b32 /etc/audit/rules.d/50-isc.rules",
		"apt-config dump | grep -q 'AllowUnauthenticated \"false\"'",
	} {
		if out, err := exec.CommandContext(t.Context(), "chroot", dir, "/bin/sh", "-c", check).CombinedOutput(); err != nil {
			t.Errorf("%s: %v\n%s", check, err, out)
		}
	}
	after := lynis(t, tree)
	t.Logf("Lynis: hardening index %s before, %s after", before, after)
}

// enter unpacks a tree to a folder that can be entered.
func enter(t *testing.T, tree *image.Tree) string {
	t.Helper()
	var b bytes.Buffer
	if err := image.WriteTar(t.Context(), &b, tree, image.Pax, nil); err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(t.TempDir(), "root")
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), "tar", "-xpf", "-", "-C", dir, "--numeric-owner", "--exclude=./dev/*")
	cmd.Stdin = &b
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("tar: %v\n%s", err, out)
	}
	for name, text := range map[string]string{"dev/null": "", "dev/urandom": strings.Repeat("x", 4096)} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o666); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

var hardeningIndex = regexp.MustCompile(`(?m)^hardening_index=([0-9]+)$`)

// lynis returns the hardening index that Lynis gives a tree, and logs its warnings.
func lynis(t *testing.T, tree *image.Tree) string {
	t.Helper()
	if os.Getenv("ISC_NIGHTLY") == "" {
		return "(not asked)" // it takes minutes
	}
	dir := enter(t, tree)
	cmd := exec.CommandContext(t.Context(), "unshare", "--mount", "--pid", "--fork", "chroot", dir, "/bin/sh", "-c",
		"mount -t proc proc /proc; lynis audit system --quick --no-colors --report-file /lynis.dat --log-file /lynis.log >/dev/null 2>&1")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Logf("lynis: %v\n%s", err, out) // its status is that of its warnings
	}
	report, err := os.ReadFile(filepath.Join(dir, "lynis.dat"))
	if err != nil {
		t.Fatal(err)
	}
	for _, line := range lines(string(report)) {
		if strings.HasPrefix(line, "warning[]") || strings.HasPrefix(line, "suggestion[]") {
			t.Log(line)
		}
	}
	if m := hardeningIndex.FindSubmatch(report); m != nil {
		return string(m[1])
	}
	t.Error("lynis gives no index")
	return ""
}
