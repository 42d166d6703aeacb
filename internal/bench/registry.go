//go:build linux

package main

import (
	"bufio"
	"context"
	"crypto/rand"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
)

// layerSize is what the image that is published holds, in bytes: what does not compress.
const layerSize = 200 << 20

// A side is one program in a case of the third table.
type side struct {
	program string
	target  string // what the project wants of it
	variant
}

// A transfer is what several programs do with the same image and the same registry, $REF.
type transfer struct {
	name  string
	sides []side // ours first
}

// transfers returns the cases of the third table. Ours copies referrers and signatures too, reads back
// what it has written and brings it to the disk; oras copies referrers.
func transfers() []transfer {
	pulled := `rm -r "$WORK/pulled"`
	pushed := `rm -r "$WORK/served/pushed-$RUN"`
	return []transfer{
		{"pull and verify", []side{
			{"iscadm", "≤ 0.5 s CPU, ≤ 32 MB", variant{
				`"$ISCADM" verify "$REF" --key "$WORK/key.pub" --state "$WORK/none" -q >/dev/null
				"$ISCADM" copy "$REF" "oci:$WORK/pulled:1" -q >/dev/null`, pulled,
			}},
			{"oras", "", variant{`oras copy -r --from-plain-http "$REF" --to-oci-layout "$WORK/pulled:1" >/dev/null`, pulled}},
			{"crane", "", variant{`crane pull --format oci "$REF" "$WORK/pulled"`, pulled}},
		}},
		{"push", []side{
			{"iscadm", "≤ 0.5 s CPU", variant{`"$ISCADM" push "oci:$WORK/release:1" "$HOST/pushed-$RUN:1" -q >/dev/null`, pushed}},
			{"oras", "", variant{`oras copy -r --from-oci-layout "$WORK/release:1" --to-plain-http "$HOST/pushed-$RUN:1" >/dev/null`, pushed}},
			{"crane", "", variant{`crane push --index "$WORK/release" "$HOST/pushed-$RUN:1" >/dev/null 2>&1`, pushed}},
		}},
		{"verify", []side{
			{"iscadm", "≤ 0.03 s CPU, ≤ 16 MB", variant{script: `"$ISCADM" verify "$REF" --key "$WORK/key.pub" --state "$WORK/none" -q >/dev/null`}},
			{"cosign", "", variant{script: `cosign verify --key "$WORK/key.pub" --insecure-ignore-tlog "$REF" >/dev/null 2>&1`}},
		}},
		{"arguments are wrong", []side{
			{"iscadm", "", variant{script: `! "$ISCADM" verify 2>/dev/null`}},
			{"oras", "", variant{script: `! oras copy 2>/dev/null`}},
			{"crane", "", variant{script: `! crane pull 2>/dev/null`}},
			{"cosign", "", variant{script: `! cosign sign 2>/dev/null`}},
		}},
	}
}

// registry prints the third table: an image in a registry on this machine, taken and put by several
// programs in turns.
func (b *bench) registry(ctx context.Context) error {
	if err := b.publish(ctx); err != nil {
		return err
	}
	serve := exec.CommandContext(ctx, b.iscadm, "serve", "--listen", "127.0.0.1:0", "--dir", b.path("served"))
	serve.Cancel = func() error { return serve.Process.Signal(syscall.SIGTERM) }
	out, err := serve.StdoutPipe()
	if err != nil {
		return err
	}
	if err := serve.Start(); err != nil {
		return err
	}
	defer serve.Wait()
	defer serve.Process.Signal(syscall.SIGTERM)
	host, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		return fmt.Errorf("serve: %w", err)
	}
	host = strings.TrimSpace(host)
	b.env = append(b.env, "HOST="+host, "REF="+host+"/bench:1")
	const push = `"$ISCADM" push "oci:$WORK/release:1" "$REF" -q >/dev/null`
	if err := b.command(ctx, push, 0).Run(); err != nil {
		return err
	}
	fmt.Printf("\nAn image with %s that do not compress, and its release:\n\n", megabytes(layerSize))
	fmt.Println("| case | program | CPU | ours is | wall | ours is | peak memory | target |")
	fmt.Println("|---|---|---|---|---|---|---|---|")
	for _, t := range transfers() {
		all := make([][]usage, len(t.sides))
		for run := range b.repeats + 1 {
			for i, s := range t.sides {
				u, err := b.once(ctx, s.variant, run)
				if err != nil {
					return fmt.Errorf("%s: %s: %w", t.name, s.program, err)
				}
				if run > 0 { // the first warms the caches
					all[i] = append(all[i], u)
				}
			}
		}
		for i, s := range t.sides {
			ratio := func(of func(usage) float64) string {
				if i == 0 {
					return ""
				}
				return fmt.Sprintf("%.2f ×", median(all[0], of)/median(all[i], of))
			}
			fmt.Printf("| %s | %s | %.2f s | %s | %.2f s | %s | %s | %s |\n", t.name, s.program,
				median(all[i], cpu), ratio(cpu), median(all[i], wall), ratio(wall), megabytes(int64(median(all[i], memory))), s.target)
		}
	}
	return nil
}

// publish makes a signed image in the layout "release".
func (b *bench) publish(ctx context.Context) error {
	if err := os.Mkdir(b.path("payload"), 0o755); err != nil {
		return err
	}
	if _, err := b.create("payload/random", func(w io.Writer) error {
		_, err := io.CopyN(w, rand.Reader, layerSize)
		return err
	}); err != nil {
		return err
	}
	text := fmt.Sprintf(strings.Replace(asIs, `"zstd"`, `"none"`, 1), strconv.Quote("dir:"+b.path("payload")))
	if err := os.WriteFile(b.path("release.isc.hcl"), []byte(text), 0o644); err != nil {
		return err
	}
	const script = `export COSIGN_PASSWORD=
		"$ISCADM" keygen -o "$WORK/key" >"$WORK/log" 2>&1 &&
		"$ISCADM" build "$WORK/release.isc.hcl" -o "oci:$WORK/release:1" --key "$WORK/key.key" --state "$WORK/none" >>"$WORK/log" 2>&1 ||
		{ cat "$WORK/log" >&2; exit 1; }`
	return b.command(ctx, script, 0).Run()
}
