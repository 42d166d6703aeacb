//go:build unix

package profiles

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// runScratch runs the method with stand-ins for the programs of a system, which calls its version as
// uname -v has it, and returns what they were called with.
func runScratch(t *testing.T, version, method, datasets, fallback, mnttab string, fails ...string) (calls string, err error) {
	t.Helper()
	dir := t.TempDir()
	log := filepath.Join(dir, "log")
	tools := map[string]string{
		"svcprop": `case "$2" in
config/parent) echo '""' ;;
config/mountpoint) echo /scratch ;;
config/quota) echo 4294967296 ;;
config/encryption) echo aes-256-gcm ;;
config/fallback) echo ` + fallback + ` ;;
*) exit 1 ;;
esac`,
		"zfs": `case "$1 $3" in
"list -t") printf '` + datasets + `'; exit ;;
esac
echo "zfs $*" >>` + log + `
case "$1" in
create)
	key=$(echo "$*" | sed -n 's/.*keysource=raw,file:\/\/\([^ ]*\).*/\1/p')
	echo "key of $(cat ${key:+"$key"} | wc -c | tr -d ' ') bytes" >>` + log + ` ;;
esac`,
		"uname": "echo " + version,
		"mount": `echo "mount $*" >>` + log, "umount": `echo "umount $*" >>` + log, "chmod": `echo "chmod $*" >>` + log,
	}
	for name, text := range tools {
		for _, f := range fails {
			if tool, verb, _ := strings.Cut(f, " "); tool == name {
				text += "\ncase \"$1\" in " + verb + ") exit 1 ;; esac"
			}
		}
		if err := os.WriteFile(filepath.Join(dir, name), []byte("#!/bin/sh\n"+text+"\nexit 0\n"), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	const path = "PATH=/usr/sbin:/usr/bin:/sbin\n"
	if !strings.Contains(string(scratchMethod), path) {
		t.Fatal("the method sets another PATH")
	}
	script, table := filepath.Join(dir, "method"), filepath.Join(dir, "mnttab")
	if err := os.WriteFile(table, []byte("/dev/dsk/c0 / ufs rw 1\n"+mnttab), 0o644); err != nil {
		t.Fatal(err)
	}
	text := strings.Replace(string(scratchMethod), path, "PATH="+dir+":/usr/bin:/bin\n", 1)
	volatile := t.TempDir()
	text = strings.Replace(text, "/etc/mnttab", table, 1)
	text = strings.Replace(text, "VOLATILE=/system/volatile", "VOLATILE="+volatile, 1)
	if err := os.WriteFile(script, []byte(text), 0o755); err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), "/bin/sh", script, method)
	cmd.Env = append(os.Environ(), "SMF_FMRI=svc:/site/isc-enc-scratch:default")
	out, err := cmd.CombinedOutput()
	t.Logf("%s", out)
	if left, rerr := os.ReadDir(volatile); rerr != nil || len(left) > 0 {
		t.Errorf("a key is left: %v, %v", left, rerr)
	}
	data, rerr := os.ReadFile(log)
	if rerr != nil && !os.IsNotExist(rerr) {
		t.Fatal(rerr)
	}
	return string(data), err
}

func TestScratchMethod(t *testing.T) {
	const (
		omnios    = "omnios-r151054-b6848f4455"
		none      = `rpool\toff\t/rpool\n`
		delegated = `rpool\toff\t/rpool\nrpool/zones/web/ROOT/zbe\ton\tlegacy\nrpool/isc/web\ton\t/rpool/isc/web\n`
	)
	mounted := map[string]string{
		"no dataset, again":                   "swap /scratch tmpfs rw 1\n",
		"no dataset, busy":                    "swap /scratch tmpfs rw 1\n",
		"no dataset, but another file system": "host /scratch lofs rw 1\n",
	}
	for _, tt := range []struct {
		name, method, datasets, fallback string
		fails                            []string
		want                             []string
		status                           int
		version                          string
	}{
		{"delegated dataset", "start", delegated, "tmpfs", nil, []string{
			"zfs destroy -r rpool/isc/web/scratch", "zfs create -o encryption=aes-256-gcm -o keyformat=raw -o keylocation=prompt",
			"-o quota=4294967296 rpool/isc/web/scratch", "key of 32 bytes", "zfs mount rpool/isc/web/scratch", "chmod 1777 /scratch",
		}, 0, omnios},
		{"Solaris", "start", `isc\ton\t/isc\nrpool\ton\t/rpool\n`, "none", nil, []string{
			"zfs create -o encryption=aes-256-gcm -o keysource=raw,file:///", "-o quota=4294967296 isc/scratch", "key of 32 bytes", "zfs mount isc/scratch",
		}, 0, "11.4.0.15.0"},
		{"Solaris, cannot encrypt", "start", `isc\ton\t/isc\n`, "none", []string{"zfs create"}, nil, 96, "11.4.0.15.0"},
		{"no dataset", "start", none, "tmpfs", nil, []string{"mount -F tmpfs -o size=4294967296,nosuid,nodevices,noexec swap /scratch", "chmod 1777"}, 0, omnios},
		{"no dataset, again", "start", none, "tmpfs", nil, []string{"umount -f /scratch", "mount -F tmpfs"}, 0, omnios},
		{"no dataset, but another file system", "start", none, "tmpfs", []string{"umount -f"}, []string{"mount -F tmpfs"}, 0, omnios},
		{"no dataset, busy", "start", none, "tmpfs", []string{"umount -f"}, nil, 95, omnios},
		{"no dataset, no fallback", "start", none, "none", nil, nil, 96, omnios},
		{"cannot encrypt", "start", delegated, "tmpfs", []string{"zfs create"}, []string{"mount -F tmpfs"}, 0, omnios},
		{"cannot encrypt, no fallback", "start", delegated, "none", []string{"zfs create"}, nil, 96, omnios},
		{"cannot mount", "start", delegated, "tmpfs", []string{"zfs mount"}, nil, 95, omnios},
		{"stop", "stop", delegated, "tmpfs", nil, []string{"zfs unmount -f rpool/isc/web/scratch", "zfs unload-key rpool/isc/web/scratch", "zfs destroy -r"}, 0, omnios},
		{"stop tmpfs", "stop", none, "tmpfs", nil, []string{"umount -f /scratch"}, 0, omnios},
		{"no such method", "refresh", none, "tmpfs", nil, nil, 96, omnios},
	} {
		t.Run(tt.name, func(t *testing.T) {
			calls, err := runScratch(t, tt.version, tt.method, tt.datasets, tt.fallback, mounted[tt.name], tt.fails...)
			status := 0
			if e, ok := err.(*exec.ExitError); ok {
				status = e.ExitCode()
			} else if err != nil {
				t.Fatal(err)
			}
			if status != tt.status {
				t.Errorf("exit status %d, want %d", status, tt.status)
			}
			rest := calls
			for _, w := range tt.want {
				_, after, ok := strings.Cut(rest, w)
				if !ok {
					t.Errorf("%q is not called, or too early:\n%s", w, calls)
				}
				rest = after
			}
		})
	}
}
