package disk

import (
	"bytes"
	"crypto/sha256"
	"debug/buildinfo"
	"embed"
	"fmt"
	"io"

	"github.com/klauspost/compress/gzip"
)

//go:generate go run ./gen

// programs are the first programs, which gen builds.
//
//go:embed init-*.gz
var programs embed.FS

// InitProgram returns the first program of guests of an architecture: its bytes, which are part of
// every disk, their SHA-256, and the Go release that they were built by.
func InitProgram(arch string) (program []byte, digest [32]byte, toolchain string, err error) {
	f, err := programs.Open("init-" + arch + ".gz")
	if err != nil {
		return nil, digest, "", fmt.Errorf("there is no init for architecture %q", arch)
	}
	defer f.Close()
	z, err := gzip.NewReader(f)
	if err != nil {
		return nil, digest, "", err
	}
	if program, err = io.ReadAll(z); err != nil {
		return nil, digest, "", err
	}
	info, err := buildinfo.Read(bytes.NewReader(program))
	if err != nil {
		return nil, digest, "", err
	}
	return program, sha256.Sum256(program), info.GoVersion, nil
}
