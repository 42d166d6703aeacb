// Gen builds the first program of guests for each architecture and keeps it, compressed, in the folder
// of package disk. The bytes depend on the program's source, golang.org/x/sys as in go.mod, and the
// toolchain named here, and on nothing of the machine: so it is checked that they are current.
package main

import (
	"bytes"
	"compress/gzip"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// toolchain builds the program. With a new one all disks get new bytes.
const toolchain = "go1.26.8"

func main() {
	for _, arch := range []string{"amd64", "arm64"} {
		if err := build(arch); err != nil {
			fmt.Fprintln(os.Stderr, "gen:", err)
			os.Exit(1)
		}
	}
}

func build(arch string) error {
	dir, err := os.MkdirTemp("", "init")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	out := filepath.Join(dir, "init")
	cmd := exec.Command("go", "build", "-trimpath", "-buildvcs=false", "-ldflags=-s -w -buildid=", "-o", out, "./init")
	for _, v := range os.Environ() {
		// What may change the bytes is set here or not at all.
		if name, _, _ := strings.Cut(v, "="); name == "GOFLAGS" || name == "GOEXPERIMENT" || name == "GOFIPS140" {
			continue
		}
		cmd.Env = append(cmd.Env, v)
	}
	cmd.Env = append(cmd.Env, "GOTOOLCHAIN="+toolchain, "GOOS=linux", "GOARCH="+arch, "CGO_ENABLED=0",
		"GOAMD64=v1", "GOARM64=v8.0", "GOFLAGS=-mod=readonly", "GOEXPERIMENT=", "GOFIPS140=off", "GOWORK=off")
	if text, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("go build for %s: %w\n%s", arch, err, text)
	}
	program, err := os.ReadFile(out)
	if err != nil {
		return err
	}
	name := "init-" + arch + ".gz"
	if old, err := os.ReadFile(name); err == nil && same(old, program) {
		return nil // another release of the compressor is no reason for another file
	}
	var b bytes.Buffer
	z, _ := gzip.NewWriterLevel(&b, gzip.BestCompression)
	if _, err := z.Write(program); err != nil {
		return err
	}
	if err := z.Close(); err != nil {
		return err
	}
	return os.WriteFile(name, b.Bytes(), 0o644)
}

// same reports whether a compressed file has this content.
func same(compressed, content []byte) bool {
	z, err := gzip.NewReader(bytes.NewReader(compressed))
	if err != nil {
		return false
	}
	var b bytes.Buffer
	_, err = b.ReadFrom(z)
	return err == nil && bytes.Equal(b.Bytes(), content)
}
