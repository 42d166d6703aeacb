// Sh stands in for the shell of a tree: it understands what the tests need, one command a line.
package main

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

func main() {
	for line := range strings.Lines(os.Args[2]) {
		if err := run(strings.Fields(line)); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(3)
		}
	}
}

func run(f []string) error {
	switch f[0] {
	case "write":
		return os.WriteFile(f[1], []byte(f[2]), 0o640)
	case "mkdir":
		return os.Mkdir(f[1], 0o750)
	case "rm":
		return os.RemoveAll(f[1])
	case "mv":
		return os.Rename(f[1], f[2])
	case "ln":
		return os.Link(f[1], f[2])
	case "symlink":
		return os.Symlink(f[1], f[2])
	case "chown":
		uid, _ := strconv.Atoi(f[2])
		gid, _ := strconv.Atoi(f[3])
		return os.Lchown(f[1], uid, gid)
	case "chmod":
		mode, _ := strconv.ParseUint(f[2], 8, 32)
		return os.Chmod(f[1], os.FileMode(mode))
	case "cat":
		_, err := io.Copy(os.Stdout, os.Stdin)
		return err
	case "processes":
		names, err := filepath.Glob("/proc/[0-9]*")
		fmt.Println(len(names), os.Getpid())
		return err
	case "discard":
		return os.WriteFile("/dev/null", []byte("x"), 0)
	case "sleep":
		time.Sleep(time.Hour)
	case "exit":
		n, _ := strconv.Atoi(f[1])
		os.Exit(n)
	default:
		return fmt.Errorf("%s: not found", f[0])
	}
	return nil
}
