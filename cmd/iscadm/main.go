// Command iscadm builds, packs and publishes golden images of Immutable Service Containers, and
// uses them on hosts: pull, verify, clone, check, reset. See the README for a tour and
// "iscadm help VERB" for each verb.
package main

import (
	"context"
	"errors"
	"io"
	"os"
	"os/signal"
	"runtime/debug"
	"syscall"
)

// version is stamped by make build VERSION=…; an installed module knows its own.
var version = ""

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	status := run(ctx, os.Args[1:], os.Stdin, os.Stdout, os.Stderr)
	stop()
	os.Exit(status)
}

// run executes one command line and returns the exit status.
func run(ctx context.Context, args []string, in io.Reader, out, diag io.Writer) int {
	a := &app{in: in, out: out, diag: diag}
	root := a.command()
	root.SetArgs(args)
	err := root.ExecuteContext(ctx)
	a.stopProgress()
	if err == nil {
		return 0
	}
	if err := a.report(err); err != nil {
		return 1
	}
	return statusOf(err)
}

func buildVersion() string {
	if version != "" {
		return version
	}
	if info, ok := debug.ReadBuildInfo(); ok && info.Main.Version != "" && info.Main.Version != "(devel)" {
		return info.Main.Version
	}
	return "dev"
}

// Exit statuses, a part of the contract with scripts.
const (
	statusFailed  = 1 // input and output, network, host command
	statusInput   = 2 // bad usage or bad input: the caller must change something
	statusNo      = 3 // not verified, drift, findings, different
	statusUnknown = 4 // could not be determined
)

// A statusError gives an error its exit status. With a nil error everything has been said already.
type statusError struct {
	status int
	err    error
}

func (e *statusError) Error() string {
	if e.err == nil {
		return ""
	}
	return e.err.Error()
}

func (e *statusError) Unwrap() error { return e.err }

// answer is the error of a question that was answered on stdout: nil, or just a status.
func answer(status int) error {
	if status == 0 {
		return nil
	}
	return &statusError{status: status}
}

// badInput makes err the caller's.
func badInput(err error) error {
	if err == nil {
		return nil
	}
	return &statusError{statusInput, err}
}

func statusOf(err error) int {
	var s *statusError
	if errors.As(err, &s) {
		return s.status
	}
	for _, c := range statuses {
		if c.is(err) {
			return c.status
		}
	}
	return statusFailed
}

// worst joins the statuses of several objects: any 3, else any 4, else any 1.
func worst(a, b int) int {
	for _, s := range []int{statusNo, statusUnknown, statusFailed, statusInput} {
		if a == s || b == s {
			return s
		}
	}
	return 0
}
