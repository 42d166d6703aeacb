package profiles

import (
	"strings"
	"testing"

	"github.com/goldenisc/packer-plugin-isc/image"
)

// TestExposure scores the units of a layout, and only what the score is known of.
func TestExposure(t *testing.T) {
	tree := bare(t, Linux)
	if err := webLayout(Linux).Apply(tree, epoch); err != nil {
		t.Fatal(err)
	}
	unit := read(t, tree, unitDir+"web.service")
	for _, tt := range []struct{ from, to, want string }{
		{"", "", "1.9"},
		{"User=webd\n", "", "2.2"},
		{"ProtectProc=invisible\n", "", "2.1"},
		{"CapabilityBoundingSet=CAP_NET_BIND_SERVICE\n", "", "3.6"},
		{"NoNewPrivileges=yes\n", "", ""},
		{"NoNewPrivileges=yes\n", "NoNewPrivileges=no\n", ""},
		{"User=webd\n", "User=webd\nNoNewPrivileges=no\n", ""},
		{"User=webd\n", "User=webd\nDelegate=yes\n", ""},
		{"AF_NETLINK", "AF_VSOCK", ""},
		{"=invisible", "=ptraceable", ""},
	} {
		if got := exposure(strings.Replace(unit, tt.from, tt.to, 1)); got != tt.want {
			t.Errorf("%q as %q: %q, want %q", tt.from, tt.to, got, tt.want)
		}
	}
	score := func() string {
		t.Helper()
		all, err := BootServices(tree, Linux)
		if err != nil {
			t.Fatal(err)
		}
		for _, b := range all {
			if b.ID == "web.service" {
				return b.Exposure
			}
		}
		return "not started"
	}
	if got := score(); got != "1.9" {
		t.Errorf("at boot: %q", got)
	}
	put(t, tree, image.Entry{Name: unitDir + "web.service.d/x.conf", Mode: 0o644, ModTime: old}, "[Service]\nNoNewPrivileges=no\n")
	if got := score(); got != "" {
		t.Errorf("changed by another file: %q", got)
	}
}
