package chroot

import (
	"os/user"
	"strings"
	"testing"
)

func TestFindIDs(t *testing.T) {
	u := &user.User{Username: "ann", Uid: "1000"}
	for _, c := range []struct {
		name, text string
		first      int
	}{
		{"by name", "bob:100000:65536\nann:165536:65536\n", 165536},
		{"by number", "1000:165536:65536\n", 165536},
		{"the first that is enough", "ann:100:10\nann:200000:65535\n", 200000},
		{"too few", "ann:100:65534\n", 0},
		{"another's", "anne:100000:65536\n", 0},
		{"nothing", "", 0},
		{"odd lines", "ann\nann:x:65536\nann:1:y\nann:0:65536\nann:1:2:3\n::\n", 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			first, err := findIDs(strings.NewReader(c.text), u)
			if first != c.first || (err == nil) != (c.first > 0) {
				t.Errorf("%d, %v", first, err)
			}
		})
	}
}
