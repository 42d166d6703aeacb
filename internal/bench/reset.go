//go:build linux

package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// sent is the spec of an image of a folder as a stream that zfs-fuse takes.
const sent = `image {
  name    = "bench"
  version = "1.0.0"
  os      = "linux"
  arch    = "amd64"
}

base {
  source = %s
}

profile {
  name = "none"
}

zfs {
  profile = "zpl4"
}
`

// reset prints how long the reset of instances on zfs-fuse takes by the clock, of a small image, of
// the base, and of the base after as much again was written to the instance.
func (b *bench) reset(ctx context.Context) error {
	for i := range 20 {
		name := filepath.Join(b.path("small"), "etc", "file-"+strconv.Itoa(i))
		if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
			return err
		}
		if err := os.WriteFile(name, pattern(4096, 'a'), 0o644); err != nil {
			return err
		}
	}
	for _, name := range []string{"small", "root"} {
		text := fmt.Sprintf(sent, strconv.Quote("dir:"+b.path(name)))
		if err := os.WriteFile(b.path("zfs-"+name+".isc.hcl"), []byte(text), 0o644); err != nil {
			return err
		}
	}
	script := b.path("zfsreset.sh")
	if err := os.WriteFile(script, []byte(`set -e
cd "$WORK"
truncate -s 3G reset.disk
zpool create -o ashift=12 -m "$WORK/reset" isc "$WORK/reset.disk"
trap 'cd /; zpool destroy -f isc 2>/dev/null || true' EXIT
for name in small root; do
  "$ISCADM" build "zfs-$name.isc.hcl" -o "oci:zfs-$name:1" >&2
  "$ISCADM" clone "oci:zfs-$name:1" "$name" --to zfs:isc --state reset.state >&2
done
for name in small root written; do
  instance=${name/written/root}
  for i in $(seq "$REPEATS"); do
    [ $name != written ] || cp full reset/root/root/opt/written
    sync
    start=$(date +%s%N)
    "$ISCADM" reset -F "$instance" --state reset.state >&2
    echo $(($(date +%s%N) - start))
  done | sort -n | sed -n "$((REPEATS / 2 + 1))p"
done
`), 0o644); err != nil {
		return err
	}
	c := b.command(ctx, `.ci/zfs.sh fuse "$WORK/zfsreset.sh"`, 0)
	c.Env = append(c.Env, "REPEATS="+strconv.Itoa(b.repeats))
	out, err := c.Output()
	if err != nil {
		return fmt.Errorf("reset on zfs-fuse: %w", err)
	}
	lines := strings.Fields(string(out))
	if len(lines) != 3 {
		return fmt.Errorf("reset on zfs-fuse: output %q", out)
	}
	fmt.Printf("\nReset of instances on zfs-fuse, by the clock, median of %d:\n\n| instance | wall | target |\n|---|---|---|\n", b.repeats)
	for i, what := range []string{"of 20 files", "of the base", "of the base, as much again written to it"} {
		n, err := strconv.ParseInt(lines[i], 10, 64)
		if err != nil {
			return fmt.Errorf("reset on zfs-fuse: output %q", out)
		}
		fmt.Printf("| %s | %.2f s | < 1 s |\n", what, time.Duration(n).Seconds())
	}
	return nil
}
