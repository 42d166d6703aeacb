//go:build linux

package main

import (
	"context"
	"fmt"
	"strconv"
	"strings"
)

// A variant is one side of a case.
type variant struct {
	script string // what is timed
	after  string // puts things back, untimed; what it prints is the size of the output in bytes
}

// A testCase is a command of ours beside the usual tools.
type testCase struct {
	name       string
	target     string // of the ratio of wall times, as the project wants it
	ours, peer variant
}

// cases returns what is measured, in order.
func cases() []testCase {
	build := func(spec string) variant {
		return variant{
			script: `"$ISCADM" build "$WORK/` + spec + `.isc.hcl" -o "oci:$WORK/out:1" --quiet >/dev/null`,
			after: `"$ISCADM" export "oci:$WORK/out:1" zone -o "$WORK/ours.tar.zst" --quiet >/dev/null
				stat -c %s "$WORK/ours.tar.zst"; rm -r "$WORK/ours.tar.zst" "$WORK/out"`,
		}
	}
	archive := variant{
		script: `tar --sort=name --numeric-owner --xattrs --xattrs-include='*' -cf - -C "$ROOT" . | zstd -q -3 -T0 >"$WORK/peer.tar.zst"
			sha256sum "$WORK/peer.tar.zst" >/dev/null`,
		after: `stat -c %s "$WORK/peer.tar.zst"; rm "$WORK/peer.tar.zst"`,
	}
	disk := func(level string) variant {
		return variant{
			script: `"$ISCADM" build "$WORK/disk.isc.hcl" --set vmdk.level=` + level + ` -o "oci:$WORK/out:1" --quiet >/dev/null`,
			after: `"$ISCADM" export "oci:$WORK/out:1" vmdk -o "$WORK/ours.vmdk" --quiet >/dev/null
				stat -c %s "$WORK/ours.vmdk"; rm -r "$WORK/ours.vmdk" "$WORK/out"`,
		}
	}
	qemu := variant{
		script: `qemu-img convert -m 8 -W -f raw -O vmdk -o subformat=streamOptimized "$WORK/disk.raw" "$WORK/peer.vmdk"
			sha256sum "$WORK/peer.vmdk" >/dev/null`,
		after: `stat -c %s "$WORK/peer.vmdk"; rm "$WORK/peer.vmdk"`,
	}
	return []testCase{
		{"build from a folder", "≤ 0.85", build("dir"), archive},
		{"build from an archive", "≤ 0.85", build("tar"), archive},
		{"disk to VMDK", "≤ 0.2", disk("default"), qemu},
		{"disk to VMDK, small", "≤ 1", disk("small"), qemu},
		{
			"disk to VMDK beside pigz", "", disk("default"),
			variant{
				script: `pigz -6 -c "$WORK/disk.raw" >"$WORK/peer.gz"`,
				after:  `stat -c %s "$WORK/peer.gz"; rm "$WORK/peer.gz"`,
			},
		},
		{
			"check", "≤ 2",
			variant{script: `"$ISCADM" check bench --state "$WORK/state" --quiet >/dev/null`},
			variant{script: `find "$INSTANCE" -printf '%P %y %m %U %G %s %T@ %C@ %i %n %l\n' >/dev/null`},
		},
		{
			"check --full", "≤ 1",
			variant{script: `"$ISCADM" check bench --full --state "$WORK/state" --quiet >/dev/null`},
			variant{script: `find "$INSTANCE" -type f -print0 | xargs -0 -P "$(nproc)" -n 64 sha256sum >/dev/null`},
		},
		{
			"reset beside clone", "≤ 1.2",
			variant{script: `"$ISCADM" reset -F bench --state "$WORK/state" --quiet >/dev/null`},
			variant{
				script: `"$ISCADM" clone "oci:$WORK/layout:1" "bench-$RUN" --to "dir:$WORK/instances" --state "$WORK/state" --quiet >/dev/null`,
				after:  `"$ISCADM" destroy -F "bench-$RUN" --state "$WORK/state" --quiet >/dev/null`,
			},
		},
	}
}

// measure runs both sides in turns, after one run of each that warms the caches.
func (b *bench) measure(ctx context.Context, c testCase) (ours, peers []usage, err error) {
	for run := range b.repeats + 1 {
		a, err := b.once(ctx, c.ours, run)
		if err != nil {
			return nil, nil, err
		}
		p, err := b.once(ctx, c.peer, run)
		if err != nil {
			return nil, nil, fmt.Errorf("peer: %w", err)
		}
		if run > 0 {
			ours, peers = append(ours, a), append(peers, p)
		}
	}
	return ours, peers, nil
}

// once times one run, weighs its output and puts things back.
func (b *bench) once(ctx context.Context, v variant, run int) (usage, error) {
	u, err := timed(b.command(ctx, v.script, run))
	if err != nil || v.after == "" {
		return u, err
	}
	out, err := b.command(ctx, v.after, run).Output()
	if size := strings.TrimSpace(string(out)); err == nil && size != "" {
		u.size, err = strconv.ParseInt(size, 10, 64)
	}
	return u, err
}

// row is a line of the table.
func row(c testCase, ours, peers []usage) string {
	size := "–"
	if ours[0].size > 0 {
		size = fmt.Sprintf("%.3f", float64(ours[0].size)/float64(peers[0].size))
	}
	return fmt.Sprintf("| %s | %.2f s | %.2f s | %.2f (%.2f) | %s | %.2f s | %.2f s | %.2f | %s | %s | %s |", c.name,
		median(ours, wall), median(peers, wall), median(ours, wall)/median(peers, wall), least(ours, wall)/least(peers, wall),
		c.target, median(ours, cpu), median(peers, cpu), median(ours, cpu)/median(peers, cpu),
		megabytes(int64(median(ours, memory))), megabytes(int64(median(peers, memory))), size)
}
