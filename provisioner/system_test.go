package provisioner_test

import (
	"context"
	"io"
	"testing"

	"github.com/goldenisc/packer-plugin-isc/internal/remote"
	"github.com/goldenisc/packer-plugin-isc/provisioner"
)

// named is a machine that answers uname.
type named map[string]string

func (n named) Run(_ context.Context, c remote.Command) error {
	_, err := io.WriteString(c.Stdout, n[c.Args[1]]+"\n")
	return err
}

func (named) Close() error { return nil }

// TestSystem: illumos and Solaris give the same name.
func TestSystem(t *testing.T) {
	for _, tt := range []struct {
		machine named
		want    string
	}{
		{named{"-s": "Linux"}, "linux"},
		{named{"-s": "SunOS", "-v": "omnios-r151054-b6848f4455"}, "illumos"},
		{named{"-s": "SunOS", "-v": "joyent_20241024T000000Z"}, "illumos"},
		{named{"-s": "SunOS", "-v": "11.4.0.15.0"}, "solaris"},
		{named{"-s": "FreeBSD"}, ""},
	} {
		got, err := provisioner.System(t.Context(), tt.machine)
		if got != tt.want || (err == nil) != (tt.want != "") {
			t.Errorf("%v: %q, %v", tt.machine, got, err)
		}
	}
}
