package main

import (
	"bufio"
	"context"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
)

// TestRealCommonRegistry runs scripts against distribution, the registry that most others are made of, in the
// place of ours. It takes minutes to build.
func TestRealCommonRegistry(t *testing.T) {
	if os.Getenv("ISC_NIGHTLY") == "" {
		t.Log("ISC_NIGHTLY is not set: make test-nightly runs this")
		return
	}
	needPeers(t, "registry")
	scripts(t, "testdata/distribution/*.txtar", func(e *testscript.Env) error {
		address, err := distribution(t, filepath.Join(e.WorkDir, ".distribution"))
		if err != nil {
			return err
		}
		e.Setenv("REGISTRY", address)
		return keysAndPolicies(e)
	})
}

// distribution starts it in a new folder and returns its address.
func distribution(t *testing.T, dir string) (string, error) {
	config := filepath.Join(dir, "config.yml")
	if err := os.Mkdir(dir, 0o700); err != nil {
		return "", err
	}
	// It does not say which port it was given.
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	address := l.Addr().String()
	l.Close()
	text := fmt.Sprintf("version: 0.1\nlog:\n  level: error\nstorage:\n  filesystem:\n    rootdirectory: %s\n  delete:\n    enabled: true\nhttp:\n  addr: %s\n", filepath.Join(dir, "data"), address)
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		return "", err
	}
	ctx, stop := context.WithCancel(context.Background())
	cmd := exec.CommandContext(ctx, "registry", "serve", config)
	cmd.Env = append(os.Environ(), "OTEL_TRACES_EXPORTER=none")
	diag, err := cmd.StderrPipe()
	if err != nil {
		stop()
		return "", err
	}
	if err := cmd.Start(); err != nil {
		stop()
		return "", err
	}
	said := make(chan string, 1)
	go func() {
		var b strings.Builder
		for s := bufio.NewScanner(diag); s.Scan(); {
			fmt.Fprintln(&b, s.Text())
		}
		said <- b.String()
	}()
	t.Cleanup(func() {
		stop()
		<-said
		cmd.Wait()
	})
	for {
		resp, err := http.Get("http://" + address + "/v2/")
		if err == nil {
			resp.Body.Close()
			return address, nil
		}
		select {
		case text := <-said:
			said <- text
			return "", fmt.Errorf("registry: %w: %s", err, text)
		case <-time.After(50 * time.Millisecond):
		}
	}
}
