package profiles

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/goldenisc/packer-plugin-isc/internal/zfstest"
)

// real runs a program of somebody else over what we wrote. A program that is missing is a failure
// where ISC_REAL asks for these tests.
func real(t *testing.T, name string, args ...string) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), name, args...)
	cmd.Env = append(os.Environ(), "LC_ALL=C.UTF-8")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("%s: %v\n%s", strings.Join(cmd.Args, " "), err, out)
	} else if len(out) > 0 {
		t.Errorf("%s says:\n%s", strings.Join(cmd.Args, " "), out)
	}
}

func wantReal(t *testing.T) {
	t.Helper()
	if os.Getenv("ISC_REAL") == "" {
		t.Skip("ISC_REAL is not set: make test-real runs this")
	}
}

// unpack writes regular files and links of a tree to a folder.
func unpack(t *testing.T, root Root, patterns ...string) string {
	t.Helper()
	dir := t.TempDir()
	for _, pattern := range patterns {
		names, err := root.Glob(pattern)
		if err != nil {
			t.Fatal(err)
		}
		for _, n := range names {
			e, err := root.Stat(n)
			if err != nil {
				t.Fatal(err)
			}
			to := filepath.Join(dir, filepath.FromSlash(n))
			if err := os.MkdirAll(filepath.Dir(to), 0o755); err != nil {
				t.Fatal(err)
			}
			switch {
			case e.IsRegular():
				err = os.WriteFile(to, []byte(read(t, root, n)), e.Mode.Perm())
			case e.Target != "":
				err = os.Symlink(e.Target, to)
			}
			if err != nil {
				t.Fatal(err)
			}
		}
	}
	return dir
}

// TestRealXMLLint validates manifests and the profile against the DTD of illumos (CDDL, see its
// head): svccfg import refuses what is not valid.
func TestRealXMLLint(t *testing.T) {
	wantReal(t)
	tree := bare(t, Illumos)
	if err := fullLayout(Illumos).Apply(tree, epoch); err != nil {
		t.Fatal(err)
	}
	if err := Apply(tree, baseline(t, Illumos, nil), epoch); err != nil {
		t.Fatal(err)
	}
	dir := unpack(t, tree, manifestDir+"/*.xml", sitePath)
	files, err := filepath.Glob(filepath.Join(dir, manifestDir, "*.xml"))
	if err != nil || len(files) != 7 {
		t.Fatalf("%d manifests, %v", len(files), err)
	}
	for _, f := range append(files, filepath.Join(dir, sitePath)) {
		real(t, "xmllint", "--noout", "--nonet", "--nowarning", "--dtdvalid", "testdata/service_bundle.dtd.1", f)
	}
}

func TestRealShellCheck(t *testing.T) {
	wantReal(t)
	methods, err := filepath.Glob("method/*.sh")
	if err != nil || len(methods) != 4 {
		t.Fatalf("%q, %v", methods, err)
	}
	files, err := fullLayout(Illumos).NetworkFiles()
	if err != nil {
		t.Fatal(err)
	}
	filled, err := Fill(files, siteValues)
	if err != nil {
		t.Fatal(err)
	}
	vnic := filepath.Join(t.TempDir(), "vnic.sh")
	if err := os.WriteFile(vnic, []byte(filled["vnic.sh"]), 0o644); err != nil {
		t.Fatal(err)
	}
	real(t, "shellcheck", append([]string{"--shell=sh", vnic}, methods...)...)
}

// TestRealZoneXML validates configurations of zones against the DTDs of illumos, and of OmniOS and SmartOS.
func TestRealZoneXML(t *testing.T) {
	wantReal(t)
	for i, xml := range zoneConfigs(t) {
		f := filepath.Join(t.TempDir(), fmt.Sprintf("%d.xml", i))
		if err := os.WriteFile(f, xml, 0o644); err != nil {
			t.Fatal(err)
		}
		for _, dtd := range []string{"zonecfg.dtd.1", "zonecfg-downstream.dtd.1"} {
			real(t, "xmllint", "--noout", "--nonet", "--nowarning", "--dtdvalid", "testdata/"+dtd, f)
		}
	}
}

// fullLayout is webLayout with all that only some images have.
func fullLayout(os string) *Layout {
	l := webLayout(os)
	l.Swap, l.Identity = &Swap{Size: "2GiB"}, &Identity{User: "admin"}
	l.Network.Publish = map[string]string{"443/tcp": "8080/tcp", "80/tcp": "80/tcp"}
	l.Services[2].EnvironmentFile = "/etc/web.env"
	return l
}

// TestRealNft lets nft(8) check the rules of images and of hosts.
func TestRealNft(t *testing.T) {
	wantReal(t)
	if os.Getuid() != 0 {
		t.Skip("nft checks rules for root only")
	}
	l := fullLayout(Linux)
	own, err := l.nftables()
	if err != nil {
		t.Fatal(err)
	}
	deny, err := (&Layout{OS: Linux}).nftables()
	if err != nil {
		t.Fatal(err)
	}
	files, err := l.NetworkFiles()
	if err != nil {
		t.Fatal(err)
	}
	if files, err = Fill(files, siteValues); err != nil {
		t.Fatal(err)
	}
	for i, rules := range []string{string(own), string(deny), files["nftables.conf"]} {
		name := filepath.Join(t.TempDir(), "rules")
		if err := os.WriteFile(name, []byte(rules), 0o644); err != nil {
			t.Fatal(err)
		}
		real(t, "nft", "-c", "-f", name)
		if i < 2 && !dropsByDefault(rules) {
			t.Errorf("control L35 would not take our own rules:\n%s", rules)
		}
	}

	// Loaded over those of an earlier release, in a network of its own, the rules of a host leave none of them.
	l.Services, l.Network = []Service{{Listen: []string{"8443/tcp"}}}, &Network{Outbound: []string{"123/udp"}}
	next, err := l.NetworkFiles()
	if err != nil {
		t.Fatal(err)
	}
	if next, err = Fill(next, siteValues); err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	for name, rules := range map[string]string{"old": files["nftables.conf"], "new": next["nftables.conf"]} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(rules), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	list := func(load string) string {
		out, err := exec.CommandContext(t.Context(), "unshare", "-n", "sh", "-ec", "cd "+dir+"; "+load+"; nft list ruleset").CombinedOutput()
		if err != nil {
			t.Fatalf("%s: %v\n%s", load, err, out)
		}
		return string(out)
	}
	if over, fresh := list("nft -f old; nft -f new"), list("nft -f new"); over != fresh || !strings.Contains(fresh, "8443") {
		t.Errorf("loaded over the last release's:\n%s\nalone:\n%s", over, fresh)
	}
}

// TestRealSSHD asks the ssh server what it makes of the configuration, Include and Match included.
func TestRealSSHD(t *testing.T) {
	wantReal(t)
	// sshd wants this even for reading its configuration; its unit makes it at start.
	if err := os.MkdirAll("/run/sshd", 0o755); err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	key, included := filepath.Join(dir, "key"), filepath.Join(dir, "included.conf")
	real(t, "ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", key)
	if err := os.WriteFile(included, []byte("PasswordAuthentication yes\nPermitRootLogin yes\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	tree := newTree(t, map[string]string{"etc/ssh/sshd_config": "Port 22\nInclude " + included + "\n" +
		"X11Forwarding yes\n#PermitRootLogin yes\nKbdInteractiveAuthentication yes\nMatch User backup\n\tMaxAuthTries 9\n"})
	s := baseline(t, Linux, nil)
	if err := Apply(tree, s, epoch); err != nil {
		t.Fatal(err)
	}
	config := filepath.Join(dir, "sshd_config")
	if err := os.WriteFile(config, []byte(read(t, tree, "etc/ssh/sshd_config")), 0o600); err != nil {
		t.Fatal(err)
	}
	out, err := exec.CommandContext(t.Context(), "/usr/sbin/sshd", "-T", "-f", config, "-h", key).CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	for _, want := range []string{
		"x11forwarding no", "maxauthtries 3", "ignorerhosts yes", "hostbasedauthentication no", "permitrootlogin no",
		"permitemptypasswords no", "clientaliveinterval 600", "clientalivecountmax 1", "banner /etc/issue",
		"passwordauthentication no", "kbdinteractiveauthentication no",
	} {
		if !strings.Contains("\n"+string(out), "\n"+want+"\n") {
			t.Errorf("sshd does not say %q:\n%s", want, out)
		}
	}
}

// TestRealAccounts lets the shadow suite check the account files.
func TestRealAccounts(t *testing.T) {
	wantReal(t)
	tree := newTree(t, map[string]string{
		"etc/passwd":  "root:x:0:0:root:/root:/bin/sh\n",
		"etc/shadow":  "root:!:19000:0:99999:7:::\n",
		"etc/group":   "root:x:0:\n",
		"etc/gshadow": "root:*::\n",
	})
	l := webLayout(Linux)
	l.Users[0].Groups, l.Groups[0].Members = nil, []string{"root"} // grpck looks members up on this machine
	if err := l.Apply(tree, epoch); err != nil {
		t.Fatal(err)
	}
	dir := unpack(t, tree, "etc/*")
	real(t, "/usr/sbin/pwck", "-q", "-r", filepath.Join(dir, "etc/passwd"), filepath.Join(dir, "etc/shadow"))
	real(t, "/usr/sbin/grpck", "-r", filepath.Join(dir, "etc/group"), filepath.Join(dir, "etc/gshadow"))
}

// TestRealSystemd lets systemd read the units as it would at boot.
func TestRealSystemd(t *testing.T) {
	wantReal(t)
	tree := bare(t, Linux)
	l := fullLayout(Linux)
	for i := range l.Services {
		l.Services[i].Exec = strings.Replace(l.Services[i].Exec, "/opt/web/bin/"+l.Services[i].Name+"d", "/bin/true", 1)
		l.Services[i].Exec = strings.Replace(l.Services[i].Exec, "/opt/web/bin/"+l.Services[i].Name, "/bin/true", 1)
	}
	if err := l.Apply(tree, epoch); err != nil {
		t.Fatal(err)
	}
	dir := unpack(t, tree, unitDir+"*.service", unitDir+sliceName)
	units, err := filepath.Glob(filepath.Join(dir, unitDir, "*.service"))
	if err != nil || len(units) != 4 {
		t.Fatalf("%d units, %v", len(units), err)
	}
	for i, u := range units {
		// The program of the identity lies in the image.
		text, err := os.ReadFile(u)
		if err == nil {
			err = os.WriteFile(u, []byte(strings.Replace(string(text), "/usr/lib/isc/isc-identity", "/bin/true", 1)), 0o644)
		}
		if err != nil {
			t.Fatal(i, err)
		}
	}
	real(t, "systemd-analyze", append([]string{"verify", "--man=no"}, units...)...)
	for _, u := range units {
		if filepath.Base(u) == identityService+".service" {
			continue // no service of the spec
		}
		text, err := os.ReadFile(u)
		if err != nil {
			t.Fatal(err)
		}
		for change, unit := range map[string]string{
			"as it is":   string(text),
			"of root":    regexp.MustCompile(`(?m)^(User|AmbientCapabilities|CapabilityBoundingSet|ProtectProc)=.*\n`).ReplaceAllString(string(text), ""),
			"all but":    regexp.MustCompile(`(?m)^CapabilityBoundingSet=.*$`).ReplaceAllString(string(text), "CapabilityBoundingSet=~CAP_SYS_ADMIN CAP_NET_RAW"),
			"all rights": regexp.MustCompile(`(?m)^CapabilityBoundingSet=.*$`).ReplaceAllString(string(text), "CapabilityBoundingSet="+everyCapability()),
		} {
			if err := os.WriteFile(u, []byte(unit), 0o644); err != nil {
				t.Fatal(err)
			}
			out, err := exec.CommandContext(t.Context(), "systemd-analyze", "security", "--no-pager", "--offline=true", u).CombinedOutput()
			if err != nil {
				t.Errorf("%v\n%s", err, out)
			}
			want := "Overall exposure level for " + filepath.Base(u) + ": " + exposure(unit) + " "
			if exposure(unit) == "" || !strings.Contains(string(out), want) {
				t.Errorf("%s, %s: not %q:\n%s", filepath.Base(u), change, want, out)
			}
			if change == "as it is" {
				t.Log(want)
			}
		}
	}
}

// TestRealTmpfiles lets systemd-tmpfiles(8) open the top of a new scratch space to everybody.
func TestRealTmpfiles(t *testing.T) {
	wantReal(t)
	if os.Getuid() != 0 {
		t.Skip("the owner is root")
	}
	const at = `/srv/it's_"100%"`
	tree := bare(t, Linux)
	machine(t, tree)
	if err := (&Layout{OS: Linux, Name: "x", Scratch: &Scratch{Path: at, Size: "1GiB"}}).Apply(tree, epoch); err != nil {
		t.Fatal(err)
	}
	dir := unpack(t, tree, "etc/*", "etc/tmpfiles.d/*")
	if err := os.MkdirAll(dir+at, 0o755); err != nil {
		t.Fatal(err)
	}
	real(t, "systemd-tmpfiles", "--create", "--root="+dir)
	if info, err := os.Stat(dir + at); err != nil || info.Mode() != os.ModeDir|os.ModeSticky|0o777 {
		t.Errorf("%v, %v", info.Mode(), err)
	}
}

// everyCapability are all that our services can have.
func everyCapability() string {
	var all []string
	for _, g := range capabilityGroups {
		all = append(all, g.caps)
	}
	return strings.Join(all, " ")
}

// TestRealMethods runs the methods of scratch and swap space on OpenZFS in a guest.
func TestRealMethods(t *testing.T) {
	zfstest.Scratch(t)
	out, ok := zfstest.Run(t, "vm", "testdata/methods.sh", "method/isc-enc-scratch.sh", "method/isc-enc-swap.sh")
	if !ok || !strings.Contains(out, "\nall ok") {
		t.Errorf("the methods fail:\n%s", zfstest.Tail(out))
	}
}
