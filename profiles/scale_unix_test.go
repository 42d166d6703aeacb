//go:build unix

package profiles

import (
	"syscall"
	"testing"
	"time"
)

// TestAuditIsQuick bounds what applying and auditing adds to the build of a root of 15,000 entries: a second,
// in time of processors, which other programs of the machine do not take from.
func TestAuditIsQuick(t *testing.T) {
	used := func() time.Duration {
		var u syscall.Rusage
		if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
			t.Fatal(err)
		}
		return time.Duration(u.Utime.Nano() + u.Stime.Nano())
	}
	for _, os := range Platforms {
		tree := large(t, os)
		if n := tree.Len(); n < 15000 {
			t.Fatalf("%d entries", n)
		}
		s := baseline(t, os, nil)
		before := used()
		if err := Apply(tree, s, epoch); err != nil {
			t.Fatal(err)
		}
		if _, err := Audit(tree, s, today); err != nil {
			t.Fatal(err)
		}
		took := used() - before
		t.Logf("%s: %v", os, took)
		if took > time.Second {
			t.Errorf("%s: %v", os, took)
		}
	}
}
