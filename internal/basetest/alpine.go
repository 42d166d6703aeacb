package basetest

import (
	"archive/tar"
	"context"
	"fmt"
	"io"
	"maps"
	"os"
	"os/exec"
	"slices"
	"strings"
)

// Alpine writes a root like that of Alpine Linux as an uncompressed archive: the static busybox at
// the path given, its applets as symbolic links in /bin and /sbin and as hard links in /usr, the
// accounts and the package database. It runs busybox for the list of its applets.
func Alpine(ctx context.Context, w io.Writer, busybox string) error {
	program, err := os.ReadFile(busybox)
	if err != nil {
		return err
	}
	list, err := exec.CommandContext(ctx, busybox, "--list-full").Output()
	if err != nil {
		return fmt.Errorf("list the applets of %q: %w", busybox, err)
	}
	applets := strings.Fields(string(list))
	slices.Sort(applets)

	tw := tar.NewWriter(w)
	var failed error
	add := func(h *tar.Header, data []byte) {
		if failed == nil {
			failed = tw.WriteHeader(h)
		}
		if failed == nil {
			_, failed = tw.Write(data)
		}
	}
	dirs := []string{
		".", "bin", "dev", "etc", "etc/apk", "home", "lib", "lib/apk", "lib/apk/db", "media", "mnt", "opt", "proc",
		"root", "run", "sbin", "srv", "sys", "usr", "usr/bin", "usr/lib", "usr/sbin", "usr/share", "var", "var/log",
	}
	for _, name := range dirs {
		mode := int64(0o755)
		if name == "root" {
			mode = 0o700
		}
		add(dir(name, mode, 0), nil)
	}
	for _, name := range []string{"tmp", "var/tmp"} {
		add(dir(name, 0o1777, 0), nil)
	}
	add(file("bin/busybox", 0o755, 0, len(program)), program)
	for _, name := range applets {
		switch {
		case name == "bin/busybox":
		case strings.HasPrefix(name, "usr/"):
			add(hardLink(name, "bin/busybox"), nil)
		case strings.HasPrefix(name, "bin/"), strings.HasPrefix(name, "sbin/"):
			add(link(name, "/bin/busybox"), nil)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(alpineFiles)) {
		h := file(name, 0o644, 0, len(alpineFiles[name]))
		if name == "etc/shadow" {
			h.Mode, h.Gid = 0o640, 42
		}
		add(h, []byte(alpineFiles[name]))
	}
	if failed != nil {
		return failed
	}
	return tw.Close()
}

var alpineFiles = map[string]string{
	"etc/alpine-release": "3.20.3\n",
	"etc/os-release":     "NAME=\"Alpine Linux\"\nID=alpine\nVERSION_ID=3.20.3\nPRETTY_NAME=\"Alpine Linux v3.20\"\n",
	"etc/apk/world":      "alpine-baselayout\nbusybox\n",
	"etc/group":          "root:x:0:root\nbin:x:1:root,bin,daemon\ndaemon:x:2:root,bin,daemon\nshadow:x:42:\nnobody:x:65534:\n",
	"etc/passwd":         "root:x:0:0:root:/root:/bin/sh\nbin:x:1:1:bin:/bin:/sbin/nologin\ndaemon:x:2:2:daemon:/sbin:/sbin/nologin\nnobody:x:65534:65534:nobody:/:/sbin/nologin\n",
	"etc/shadow":         "root:*::0:::::\nbin:!::0:::::\ndaemon:!::0:::::\nnobody:!::0:::::\n",
	"etc/hosts":          "127.0.0.1\tlocalhost localhost.localdomain\n::1\t\tlocalhost localhost.localdomain\n",
	"etc/inittab":        "::sysinit:/sbin/openrc sysinit\n::shutdown:/sbin/openrc shutdown\n",
	"lib/apk/db/installed": "P:busybox\nV:1.36.1-r29\nA:x86_64\nT:Size optimized toolbox of many common UNIX utilities\n" +
		"L:GPL-2.0-only\nF:bin\nR:busybox\na:0:0:755\n\n",
}
