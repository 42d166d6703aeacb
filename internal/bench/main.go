//go:build linux

// Command bench times the program's commands beside the usual tools on the same data, in turns, and
// prints tables of ratios in Markdown: wall and CPU time, peak memory, size of what is written.
//
//	make bench BENCHFLAGS='-n 7'
//
// It wants root, so that owners are real on both sides, GNU tar, zstd, qemu-img, pigz, mke2fs, oras, crane, cosign, and
// mmdebstrap for the base, a Debian root of some 400 MB and 16,000 entries. Figures are medians; the ratio of the
// wall times is that of the minima too, in brackets, as other load only ever adds. Memory is that of the
// largest process on either side.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strconv"

	"github.com/goldenisc/packer-plugin-isc/internal/basetest"
)

func main() {
	iscadm := flag.String("iscadm", "bin/iscadm", "the program to time")
	repeats := flag.Int("n", 5, "runs of each command")
	dir := flag.String("dir", "", "where to work (default a temporary folder)")
	only := flag.String("case", "", "run this case only; registry is the second table, zfs the third")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := run(ctx, *iscadm, *dir, *only, *repeats); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, iscadm, dir, only string, repeats int) error {
	if os.Geteuid() != 0 {
		return fmt.Errorf("wants root: owners are part of what is timed")
	}
	iscadm, err := filepath.Abs(iscadm)
	if err != nil {
		return err
	}
	work, err := os.MkdirTemp(dir, "iscadm-bench-*")
	if err != nil {
		return err
	}
	defer os.RemoveAll(work)
	b := &bench{iscadm: iscadm, work: work, repeats: repeats}
	if only == "registry" { // which takes no base
		return b.registry(ctx)
	}
	if b.archive, err = basetest.Debian(ctx, basetest.BenchDebian); err != nil {
		return err
	}
	if err := b.prepare(ctx); err != nil {
		return err
	}
	fmt.Printf("%d entries, %s of content, %d processors, median of %d\n\n", b.entries, megabytes(b.content), processors(), repeats)
	fmt.Println("| case | wall | peer | ratio (min) | target | CPU | peer | ratio | peak memory | peer | size ratio |")
	fmt.Println("|---|---|---|---|---|---|---|---|---|---|---|")
	for _, c := range cases() {
		if only != "" && c.name != only {
			continue
		}
		ours, peers, err := b.measure(ctx, c)
		if err != nil {
			return fmt.Errorf("%s: %w", c.name, err)
		}
		fmt.Println(row(c, ours, peers))
	}
	if only == "" {
		if err := b.registry(ctx); err != nil {
			return err
		}
	}
	if only == "" || only == "zfs" { // last: a process begins with the peak memory of the one that starts it
		return b.zfs(ctx)
	}
	return nil
}

// A bench is the data and the folders that the cases share.
type bench struct {
	iscadm  string
	archive string // the base, uncompressed
	work    string
	env     []string // further names that scripts know
	repeats int
	entries int
	content int64
}

func (b *bench) path(name string) string { return filepath.Join(b.work, name) }

// prepare unpacks the base and makes the image and the instance that are checked and reset.
func (b *bench) prepare(ctx context.Context) error {
	if err := os.Mkdir(b.path("root"), 0o755); err != nil {
		return err
	}
	const unpack = `tar --numeric-owner --xattrs --xattrs-include='*' -xpf "$ARCHIVE" -C "$WORK/root"`
	if err := b.command(ctx, unpack, 0).Run(); err != nil {
		return err
	}
	err := filepath.WalkDir(b.path("root"), func(_ string, d os.DirEntry, err error) error {
		if err != nil {
			return err
		}
		b.entries++
		if d.Type().IsRegular() {
			info, err := d.Info()
			if err != nil {
				return err
			}
			b.content += info.Size()
		}
		return nil
	})
	if err != nil {
		return err
	}
	for spec, source := range map[string]string{"dir": "dir:" + b.path("root"), "tar": "tar:" + b.archive} {
		text := fmt.Sprintf(asIs, strconv.Quote(source))
		if err := os.WriteFile(b.path(spec+".isc.hcl"), []byte(text), 0o644); err != nil {
			return err
		}
	}
	// A disk as a virtual machine has it: the base in a file system with room left.
	disk := fmt.Sprintf(captured, strconv.Quote(b.path("disk.raw")))
	if err := os.WriteFile(b.path("disk.isc.hcl"), []byte(disk), 0o644); err != nil {
		return err
	}
	const fill = `mke2fs -q -t ext4 -E lazy_itable_init=0 -d "$ROOT" "$WORK/disk.raw" 1000M`
	if err := b.command(ctx, fill, 0).Run(); err != nil {
		return err
	}
	const instance = `"$ISCADM" build "$WORK/tar.isc.hcl" -o "oci:$WORK/layout:1" >"$WORK/log" 2>&1 &&
		"$ISCADM" clone "oci:$WORK/layout:1" bench --to "dir:$WORK/instances" --state "$WORK/state" >>"$WORK/log" 2>&1 ||
		{ cat "$WORK/log" >&2; exit 1; }`
	return b.command(ctx, instance, 0).Run()
}

// asIs is the spec of an image that changes nothing of its base, whose source goes in quoted.
const asIs = `image {
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

zone {
  brand       = "lx"
  compression = "zstd"
}
`

// captured is the spec of an image that packs a disk.
const captured = `image {
  name    = "bench"
  version = "1.0.0"
  os      = "linux"
  arch    = "amd64"
}

disk {
  source = %s
}

vmdk {}
`

// command is a script with the bench's names in its environment. RUN is the number of the run.
func (b *bench) command(ctx context.Context, script string, run int) *exec.Cmd {
	cmd := exec.CommandContext(ctx, "bash", "-euo", "pipefail", "-c", script)
	cmd.Env = append(os.Environ(), "LC_ALL=C", "ISCADM="+b.iscadm, "ARCHIVE="+b.archive, "WORK="+b.work,
		"ROOT="+b.path("root"), "INSTANCE="+b.path("instances/bench/root"), "RUN="+strconv.Itoa(run))
	cmd.Env = append(cmd.Env, b.env...)
	cmd.Stderr = os.Stderr
	return cmd
}
