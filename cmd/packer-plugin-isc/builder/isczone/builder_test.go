package isczone

import (
	"os"
	"strings"
	"testing"
)

// configOf is a complete one, with changes.
func configOf(changes map[string]any) map[string]any {
	m := map[string]any{
		"host": "ssh://root@127.0.0.1", "brand": "illumos", "output": "oci:images",
		"image": []any{map[string]any{"name": "web", "version": "1", "os": "illumos", "arch": "amd64"}},
	}
	for k, v := range changes {
		m[k] = v
	}
	return m
}

func TestPrepare(t *testing.T) {
	for _, m := range []map[string]any{
		nil,
		{"zonecfg": []string{"add net", "set physical=web0", `set allowed-address="10.0.0.1/24"`, "end"}, "as": []string{"pfexec"}},
		{"brand": "lipkg", "install_arguments": []string{"-P", "omnios=https://pkg.example/"}},
		{"archive": os.Args[0]},
	} {
		var b Builder
		if _, _, err := b.Prepare(configOf(m)); err != nil {
			t.Errorf("%v: %v", m, err)
		}
		if b.config.ZoneName != "isc-web" || b.config.ZonesFolder != "/zones" {
			t.Errorf("zone %q in %q", b.config.ZoneName, b.config.ZonesFolder)
		}
	}
	// What would be another command on the host, another zone or another place.
	for name, values := range map[string][]any{
		"host":              {"", "root@h", "ssh://u:p@h", "ssh://h/etc", "ssh://-oProxyCommand=x"},
		"brand":             {"lipkg; delete -F", "a b", "-", ""},
		"zone_name":         {"global", "../web", "-web", "web;x", "web:x", "Web", strings.Repeat("w", 64)},
		"zones_folder":      {"zones", "/zones/../etc", "/a;b", "/a b", "/", "/zones/"},
		"milestone":         {"multi-user", "svc:/x; reboot", "svc:/$(id)"},
		"boot_timeout":      {"soon", "-1s", "0s"},
		"archive":           {"nowhere.tar"},
		"install_arguments": {[]string{"-s\nx"}, []string{""}},
		"as":                {[]string{"pf\x00exec"}},
		"zonecfg": {
			[]string{"set a=b; delete -F"},
			[]string{"delete -F"},
			[]string{"create"},
			[]string{"commit"},
			[]string{"exit"},
			[]string{"export -f /etc/passwd"},
			[]string{`set a="b`},
			[]string{"set zonename=global"},
			[]string{"set  zonepath=/"},
			[]string{"set brand=lx"},
			[]string{"set autoboot=true"},
			[]string{"set a=b\ndelete"},
			[]string{"# no"},
			[]string{"set a=b # no"},
			[]string{" set a=b"},
			[]string{""},
		},
	} {
		for _, v := range values {
			var b Builder
			if _, _, err := b.Prepare(configOf(map[string]any{name: v})); err == nil || !strings.Contains(err.Error(), name) {
				t.Errorf("%s = %q: %v", name, v, err)
			}
		}
	}
	var b Builder
	_, _, err := b.Prepare(configOf(map[string]any{"brand": "lipkg", "archive": os.Args[0], "zone_name": "global", "milestone": "x"}))
	for _, want := range []string{"install -s", "zone_name", "milestone"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("nothing of %q in %v", want, err)
		}
	}
}
