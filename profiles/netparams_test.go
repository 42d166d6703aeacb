//go:build unix

package profiles

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// TestNetparamsMethod runs the method with stand-ins for the programs of illumos.
func TestNetparamsMethod(t *testing.T) {
	for _, tt := range []struct {
		name, ipadm string
		calls, says string
		status      int
	}{
		{"own stack", "exit 0", "set-prop -t -p _respond_to_timestamp=0 ip\nset-prop -t -p send_redirects=off ipv6\nset-prop -t -p _conn_req_max_q=1024 tcp\nset-prop -t -p _rev_src_routes=0 tcp\n", "", 0},
		{"shared stack", `[ "$1" != show-prop ]`, "", "its host sets the parameters", 0},
		{
			"unknown property", `case "$*" in *_rev_src_routes*) exit 1 ;; esac`,
			"set-prop -t -p _respond_to_timestamp=0 ip\nset-prop -t -p send_redirects=off ipv6\nset-prop -t -p _conn_req_max_q=1024 tcp\nset-prop -t -p _rev_src_routes=0 tcp\n", "not set: tcp:_rev_src_routes=0", 96,
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			dir := t.TempDir()
			log := filepath.Join(dir, "log")
			for name, text := range map[string]string{
				"svcprop":  "case $2 in\nip) echo ip/respond_to_timestamp count 0 ;;\nipv6) echo ipv6/send_redirects astring off ;;\ntcp) printf 'tcp/conn_req_max_q count 1024\\ntcp/rev_src_routes count 0\\n' ;;\n*) exit 1 ;;\nesac",
				"ipadm":    `[ "$1" = show-prop ] || echo "$*" >>` + log + "\n" + tt.ipadm,
				"zonename": "echo web01",
			} {
				if err := os.WriteFile(filepath.Join(dir, name), []byte("#!/bin/sh\n"+text+"\n"), 0o755); err != nil {
					t.Fatal(err)
				}
			}
			const path = "PATH=/usr/sbin:/usr/bin:/sbin\n"
			script := strings.Replace(string(netparamsMethod), path, "PATH="+dir+":/usr/bin:/bin\n", 1)
			if script == string(netparamsMethod) {
				t.Fatal("the method sets another PATH")
			}
			cmd := exec.CommandContext(t.Context(), "/bin/sh", "-c", script)
			cmd.Env = append(os.Environ(), "SMF_FMRI=svc:/site/isc-netparams:default")
			out, _ := cmd.CombinedOutput()
			calls, err := os.ReadFile(log)
			if err != nil && !os.IsNotExist(err) {
				t.Fatal(err)
			}
			if string(calls) != tt.calls || !strings.Contains(string(out), tt.says) || cmd.ProcessState.ExitCode() != tt.status {
				t.Errorf("status %d, says %q, calls\n%s", cmd.ProcessState.ExitCode(), out, calls)
			}
		})
	}
}

// TestVNIC runs the commands for a zone's interface with stand-ins for the programs of illumos, which remember what
// was made.
func TestVNIC(t *testing.T) {
	const (
		stub  = "dladm create-etherstub isc0\ndladm create-vnic -l isc0 isc0_host0\n"
		host  = "ipadm create-if isc0_host0\nipadm create-addr -T static -a 10.80.0.1/24 isc0_host0/isc\n"
		route = "routeadm -u -e ipv4-forwarding\n"
		zone  = "dladm create-vnic -l isc0 web01_0\n"
		props = "dladm set-linkprop -p protection=mac-nospoof,restricted,ip-nospoof,dhcp-nospoof web01_0\ndladm set-linkprop -p allowed-ips=10.80.0.11 web01_0\n"
	)
	for _, tt := range []struct {
		name, there, fails, calls, again string
	}{
		{"etherstub", "", "", stub + host + route + zone + props, route + props},
		{"link of the site's", "dladm isc0\n", "", zone + props, props},
		{"broken off", "dladm isc0\ndladm isc0_host0\n", "", host + route + zone + props, route + props},
		{"no VNIC", "", "isc0_host0", stub + "dladm delete-etherstub isc0\n", stub + "dladm delete-etherstub isc0\n"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			dir := t.TempDir()
			log, there := filepath.Join(dir, "log"), filepath.Join(dir, "there")
			if err := os.WriteFile(there, []byte(tt.there), 0o644); err != nil {
				t.Fatal(err)
			}
			tool := `#!/bin/sh
for last; do :; done
tool=${0##*/}
case $1 in show-*) exec grep -qx "$tool $last" ` + there + ` ;; esac
echo "$tool $*" >>` + log + `
case $1 in
delete-*) sed -i "/^$tool $last\$/d" ` + there + ` ;;
create-*) [ "$last" != "` + tt.fails + `" ] || exit 1; echo "$tool $last" >>` + there + ` ;;
esac
`
			for _, name := range []string{"dladm", "ipadm", "routeadm"} {
				if err := os.WriteFile(filepath.Join(dir, name), []byte(tool), 0o755); err != nil {
					t.Fatal(err)
				}
			}
			files, err := webLayout(Illumos).NetworkFiles()
			if err != nil {
				t.Fatal(err)
			}
			filled, err := Fill(map[string]string{"vnic.sh": files["vnic.sh"]}, siteValues)
			if err != nil {
				t.Fatal(err)
			}
			for _, want := range []string{tt.calls, tt.again} {
				cmd := exec.CommandContext(t.Context(), "/bin/sh", "-c", filled["vnic.sh"])
				cmd.Env = append(os.Environ(), "PATH="+dir+":/usr/bin:/bin")
				out, err := cmd.CombinedOutput()
				if (err != nil) != (tt.fails != "") {
					t.Errorf("%v\n%s", err, out)
				}
				calls, err := os.ReadFile(log)
				if err != nil || string(calls) != want {
					t.Errorf("%v, calls\n%swant\n%s", err, calls, want)
				}
				if err := os.Remove(log); err != nil {
					t.Fatal(err)
				}
			}
		})
	}
}
