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
