package main

import (
	"bytes"
	"context"
	"errors"
	"io/fs"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"
)

// self runs this program as a process of its own, as the scripts do.
func self(t *testing.T, args ...string) *exec.Cmd {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	// testscript.Main tells by the name of the program which command is meant.
	link := filepath.Join(t.TempDir(), "iscadm")
	if runtime.GOOS == "windows" {
		link += ".exe"
	}
	if err := os.Symlink(exe, link); err != nil {
		t.Skipf("no symbolic links: %v", err)
	}
	return exec.Command(link, args...)
}

// ok runs a command line in-process and returns what it printed.
func ok(t *testing.T, args ...string) string {
	t.Helper()
	var out, diag bytes.Buffer
	if status := run(context.Background(), args, strings.NewReader(""), &out, &diag); status != 0 {
		t.Fatalf("iscadm %s: exit status %d: %s", strings.Join(args, " "), status, diag.String())
	}
	return strings.TrimSpace(out.String())
}

// bigSpec writes a spec whose build takes a while: a base of some megabytes that compress badly.
func bigSpec(t *testing.T, dir, version string) string {
	t.Helper()
	base := filepath.Join(dir, "base")
	if err := os.MkdirAll(filepath.Join(base, "usr", "lib"), 0o755); err != nil {
		t.Fatal(err)
	}
	r := rand.New(rand.NewPCG(1, 2))
	for _, name := range []string{"a", "b", "c", "d"} {
		data := make([]byte, 8<<20)
		for i := range data {
			data[i] = byte(r.Uint32() & 0x3f)
		}
		if err := os.WriteFile(filepath.Join(base, "usr", "lib", name), data, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(base, "usr", "lib", "os-release"), []byte("ID=debian\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	at := time.Unix(1700000000, 0)
	err := filepath.WalkDir(base, func(p string, _ fs.DirEntry, err error) error {
		return errors.Join(err, os.Chtimes(p, at, at))
	})
	if err != nil {
		t.Fatal(err)
	}
	spec := filepath.Join(dir, version+".isc.hcl")
	text := "image {\n  name = \"big\"\n  version = \"" + version + "\"\n  os = \"linux\"\n  arch = \"amd64\"\n}\nbase {\n  source = \"dir:base\"\n}\nprofile {\n  name = \"none\"\n}\n"
	if err := os.WriteFile(spec, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	return spec
}

// files returns all names below a folder.
func files(t *testing.T, dir string) string {
	t.Helper()
	var names []string
	err := filepath.WalkDir(dir, func(p string, e fs.DirEntry, err error) error {
		if err == nil && !e.IsDir() {
			names = append(names, strings.TrimPrefix(p, dir))
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return strings.Join(names, "\n")
}

// TestKilledBuild kills builds into a layout at random points, and interrupts others. The image that
// stood at the tag is intact every time, and the next build leaves what it would have left anyway.
func TestKilledBuild(t *testing.T) {
	dir := t.TempDir()
	layout := filepath.Join(dir, "out")
	ref := "oci:" + layout + ":big"
	old := ok(t, "build", bigSpec(t, dir, "1.0.0"), "-o", ref, "--quiet")
	next := bigSpec(t, dir, "1.0.1")
	clean := filepath.Join(dir, "clean")
	ok(t, "build", filepath.Join(dir, "1.0.0.isc.hcl"), "-o", "oci:"+clean+":big", "--quiet")
	start := time.Now()
	ok(t, "build", next, "-o", "oci:"+clean+":big", "--quiet")
	took := time.Since(start)

	tmp := filepath.Join(dir, "tmp")
	if err := os.Mkdir(tmp, 0o755); err != nil {
		t.Fatal(err)
	}
	r := rand.New(rand.NewPCG(uint64(time.Now().UnixNano()), 0))
	killed := 0
	for i := range 12 {
		c := self(t, "build", next, "-o", ref, "--quiet", "--tmp", tmp)
		if err := c.Start(); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Duration(r.Int64N(int64(took))))
		if i%3 == 0 {
			c.Process.Signal(os.Interrupt)
		} else {
			c.Process.Kill()
		}
		if c.Wait() == nil {
			continue // it was faster: the new image stands, as it should
		}
		killed++
		got := ok(t, "inspect", ref, "--json")
		if !strings.Contains(got, old) && !strings.Contains(got, `"version": "1.0.1"`) {
			t.Fatalf("after a kill the tag stands for neither image:\n%s", got)
		}
		ok(t, "export", ref, "zone", "-o", filepath.Join(dir, "zone"))
	}
	if killed == 0 {
		t.Fatal("no build was killed")
	}
	ok(t, "build", next, "-o", ref, "--quiet", "--tmp", tmp)
	if got, want := files(t, layout), files(t, clean); got != want {
		t.Errorf("after the last build the layout holds\n%s\nwant\n%s", got, want)
	}
	if got := files(t, tmp); got != "" {
		t.Errorf("left in the folder for temporary files: %s", got)
	}
}

// TestTwoBuilds builds two images into one layout at once.
func TestTwoBuilds(t *testing.T) {
	dir := t.TempDir()
	specs := []string{bigSpec(t, dir, "1.0.0"), bigSpec(t, dir, "1.0.1")}
	ref := "oci:" + filepath.Join(dir, "out")
	var cmds []*exec.Cmd
	for i, spec := range specs {
		c := self(t, "build", spec, "-o", ref+":"+[]string{"a", "b"}[i], "--quiet")
		c.Stderr = os.Stderr
		if err := c.Start(); err != nil {
			t.Fatal(err)
		}
		cmds = append(cmds, c)
	}
	for _, c := range cmds {
		if err := c.Wait(); err != nil {
			t.Error(err)
		}
	}
	for tag, version := range map[string]string{"a": "1.0.0", "b": "1.0.1"} {
		if got := ok(t, "inspect", ref+":"+tag, "--json"); !strings.Contains(got, `"version": "`+version+`"`) {
			t.Errorf("tag %s: %s", tag, got)
		}
		ok(t, "export", ref+":"+tag, "zone", "-o", filepath.Join(dir, "zone"))
	}
}
