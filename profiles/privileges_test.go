package profiles

import (
	"slices"
	"testing"
)

// TestPrivilegesFor comes back to the capabilities.
func TestPrivilegesFor(t *testing.T) {
	names, left := PrivilegesFor([]string{"CAP_NET_BIND_SERVICE", "CAP_NET_RAW", "CAP_KILL", "CAP_X"})
	if want := []string{"net_privaddr", "net_icmpaccess"}; len(names) != 2 || !slices.Contains(names, want[0]) || !slices.Contains(names, want[1]) {
		t.Errorf("%q, want %q", names, want)
	}
	if !slices.Equal(left, []string{"CAP_KILL", "CAP_X"}) {
		t.Errorf("left %q", left)
	}
	s := Service{User: "web", Privileges: append([]string{"basic"}, names...)}
	if caps, _ := s.capabilities(); !slices.Equal(caps, []string{"CAP_NET_BIND_SERVICE", "CAP_NET_RAW"}) {
		t.Errorf("back to %q", caps)
	}
}
