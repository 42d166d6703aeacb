package host

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/goldenisc/packer-plugin-isc/image"
)

var digestA = "sha256:" + strings.Repeat("a", 64)

func sampleState() *State {
	return &State{
		Version: 1, Policy: "/etc/iscadm/policy.json",
		Epochs:    []Epoch{{"web", "stable", 7, digestA, 5}},
		Images:    []Image{{Digest: digestA, Name: "web", Version: "1", OS: "linux", Arch: "amd64", Platforms: []string{"dir"}}},
		Instances: []Instance{{Name: "web01", Image: digestA, Platform: "dir", Place: "/zones", Site: Site{Hostname: "web01"}}},
	}
}

func TestParseState(t *testing.T) {
	good, err := sampleState().marshal()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := parseState(good); err != nil {
		t.Fatal(err)
	}
	replace := func(old, new string) string {
		s := strings.Replace(string(good), old, new, 1)
		if s == string(good) {
			t.Fatalf("%q is not in the state", old)
		}
		return s
	}
	for _, test := range []struct{ data, err string }{
		{"", "unexpected end"},
		{string(good[:len(good)/2]), "unexpected end"},
		{string(good) + "{}", "after top-level value"},
		{replace(`"version": 1`, `"version": 2`), "newer version of this program"},
		{replace(`"version": 1`, `"version": 0`), "version 0 is unknown"},
		{replace(`"policy"`, `"polisy"`), "polisy"},
		{replace(`"name": "web01"`, `"name": "../web01"`), "malformed"},
		{replace(`"epoch": 7`, `"epoch": -7`), "epoch -7"},
		{replace(`"image": "sha256:aa`, `"image": "sha256:ba`), "not in the state"},
		{replace(`"site"`, `"pending": {"op": "reset", "arg": "../x"}, "site"`), "pending"},
	} {
		if _, err := parseState([]byte(test.data)); err == nil || !strings.Contains(err.Error(), test.err) {
			t.Errorf("error %v, want %q in it", err, test.err)
		}
	}
}

func FuzzParseState(f *testing.F) {
	good, err := sampleState().marshal()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(good)
	f.Add([]byte(`{"version":1,"epochs":[],"images":[],"instances":[]}`))
	f.Add([]byte(`{"version":2}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		s, err := parseState(data)
		if err != nil {
			return
		}
		once, err := s.marshal()
		if err != nil {
			t.Fatal(err)
		}
		again, err := parseState(once)
		if err != nil {
			t.Fatalf("%v in %s", err, once)
		}
		if twice, err := again.marshal(); err != nil || !bytes.Equal(once, twice) {
			t.Fatalf("%s\nand then\n%s", once, twice)
		}
	})
}

func FuzzParseBaseline(f *testing.F) {
	b := &baseline{dev: 1, marks: []mark{{1, 2, 3}, {4, 5, 6}}}
	f.Add(b.marshal(digestA), 2)
	f.Fuzz(func(t *testing.T, data []byte, n int) {
		b, err := parseBaseline(data, digestA, n)
		if err == nil && !bytes.Equal(b.marshal(digestA), data) {
			t.Fatal("another encoding of the same baseline")
		}
	})
}

// TestDamagedState shows that a damaged state is never replaced by an empty one.
func TestDamagedState(t *testing.T) {
	dir := t.TempDir()
	h, err := Open(t.Context(), dir)
	if err != nil {
		t.Fatal(err)
	}
	if err := h.Acquire(t.Context(), Epoch{"web", "stable", 7, digestA, 0}); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, stateFile)
	good, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	bad := good[:len(good)-10]
	if err := os.WriteFile(path, bad, 0o600); err != nil {
		t.Fatal(err)
	}
	_, openErr := Open(t.Context(), dir)
	for _, err := range []error{openErr, h.Acquire(t.Context(), Epoch{"web", "stable", 8, digestA, 0})} {
		if err == nil || !strings.Contains(err.Error(), path) || !strings.Contains(err.Error(), "damaged") {
			t.Errorf("error %v", err)
		}
	}
	if now, err := os.ReadFile(path); err != nil || !bytes.Equal(now, bad) {
		t.Errorf("the damaged state became %q, %v", now, err)
	}
}

func TestAcquire(t *testing.T) {
	h, err := Open(t.Context(), t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	digestB := "sha256:" + strings.Repeat("b", 64)
	for _, test := range []struct {
		channel string
		epoch   int64
		minimum int64
		digest  string
		ok      bool
	}{
		{"stable", 3, 2, digestA, true},
		{"stable", 3, 0, digestA, true},
		{"stable", 3, 3, digestB, false},
		{"stable", 2, 0, digestA, false},
		{"testing", 1, 0, digestB, true},
		{"stable", 9, 1, digestB, true},
		{"stable", 3, 0, digestA, false},
	} {
		err := h.Acquire(t.Context(), Epoch{"web", test.channel, test.epoch, test.digest, test.minimum})
		var old *EpochError
		if test.ok != (err == nil) || err != nil && !errors.As(err, &old) {
			t.Errorf("%+v: %v", test, err)
		}
	}
	if err := h.Acquire(t.Context(), Epoch{"web", "stable", 10, "sha256:x", 0}); err == nil {
		t.Error("a malformed digest was noted")
	}
	minimum := func(want int64) {
		t.Helper()
		s, err := h.View()
		if err != nil {
			t.Fatal(err)
		}
		if e := s.epoch("web", "stable"); e.Epoch != 9 || e.Minimum != want {
			t.Errorf("%+v, want minimum %d", e, want)
		}
	}
	minimum(2) // of epoch 3: never less
	for _, raise := range []struct{ to, want int64 }{{5, 5}, {4, 5}, {100, 9}} {
		if err := h.Withdraw(t.Context(), "web", "stable", raise.to); err != nil {
			t.Fatal(err)
		}
		minimum(raise.want)
	}
	if err := h.Withdraw(t.Context(), "web", "nothing", 5); err != nil {
		t.Error(err)
	}
}

// TestUpdateConcurrently shows that no change is lost.
func TestUpdateConcurrently(t *testing.T) {
	h, err := Open(t.Context(), t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			if err := h.Acquire(context.Background(), Epoch{fmt.Sprint("image-", i), "stable", 1, digestA, 0}); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	s, err := h.View()
	if err != nil || len(s.Epochs) != 8 {
		t.Errorf("%d epochs, %v", len(s.Epochs), err)
	}
}

func TestHosts(t *testing.T) {
	for _, test := range []struct{ in, out string }{
		{"", "::1\tlocalhost web\n127.0.0.1\tlocalhost web\n"},
		{"::1 localhost\n127.0.0.1 localhost loghost # lo\n10.0.0.1 db\n", "::1 localhost web\n127.0.0.1 localhost loghost web # lo\n10.0.0.1 db\n"},
		{"# none\n::1 web\n127.0.0.1 x", "# none\n::1 web\n127.0.0.1 x web\n"},
	} {
		if got := string(addHost([]byte(test.in), "web")); got != test.out {
			t.Errorf("%q became %q, not %q", test.in, got, test.out)
		}
	}
}

func TestLearn(t *testing.T) {
	got := Learn([]Finding{
		{"/etc/mnttab", Changed, "content"},
		{"/opt/new", Added, "directory"},
		{"/var/a/1", Added, "file"},
		{"/var/a/2", Added, "file"},
		{"/var/a/3", Added, "file"},
		{"/var/a/4", Removed, "file"},
		{"/usr/${x}\"*", Added, "file"},
		{"/", Expired, "2024"},
	})
	want := `mutable {
  paths = [
    "/etc/mnttab",
    "/opt/new/**",
    "/usr/$${x}\"\\*",
    "/var/a/*",
  ]
  rule = "any"
}
`
	if got != want {
		t.Errorf("learned\n%s\nnot\n%s", got, want)
	}
	r, err := newRules(&image.Config{Mutable: []image.Mutable{{Paths: []string{`/usr/${x}"\*`}, Rule: "any"}}})
	if err != nil || r.of(`usr/${x}"*`) != ruleAny || r.of(`usr/${x}"y`) == ruleAny {
		t.Errorf("the escaped pattern does not match what it was made from: %v", err)
	}
}
