// Package remote runs commands in one place, which is this machine or one that SSH reaches, so
// that what is done with them does not need to know where.
//
// A [Command] is a program and its arguments, never a line for a shell. SSH has only such lines
// (RFC 4254, 6.5), which the login shell of the user reads: [Client] quotes them by [Quote], in a
// way that the shells of POSIX, csh and fish read alike.
//
// Hosts are known by their keys in the user's known_hosts file only; nobody is asked, and a host
// that is not in it is refused. Users are known by the agent at SSH_AUTH_SOCK and by key files.
package remote

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"time"
)

// A Command is a program to run.
type Command struct {
	// Args are the program, found in the place's PATH, and its arguments. None has a NUL byte, and
	// for a Client none has a line feed.
	Args []string
	// Stdin is read to its end by the program, or is empty. Run may return before all of it is read.
	Stdin io.Reader
	// Stdout and Stderr take what the program prints; nil discards it, but for the end of Stderr,
	// which is in the ExitError all the same.
	Stdout, Stderr io.Writer
}

// A Runner runs commands. It is safe for concurrent use.
type Runner interface {
	// Run runs the command to its end. The error is an [*ExitError] if the program ran and did not
	// end with status 0. When ctx is done, the program is killed or, if that cannot be done, left
	// with its streams closed.
	Run(ctx context.Context, c Command) error
}

// An ExitError says how a program ended.
type ExitError struct {
	Args   []string
	Status int    // -1: it was killed
	Signal string // "KILL", …, if it was and that is known
	Stderr string // the end of what it said there
}

func (e *ExitError) Error() string {
	how := fmt.Sprintf("exit status %d", e.Status)
	if e.Status < 0 {
		how = "killed"
		if e.Signal != "" {
			how += " by signal " + e.Signal
		}
	}
	if said := strings.TrimSpace(e.Stderr); said != "" {
		how += ": " + said
	}
	return fmt.Sprintf("%q: %s", strings.Join(e.Args, " "), how)
}

// Status returns the exit status that err is about: 0 for nil, and false for what is no ExitError.
func Status(err error) (int, bool) {
	if err == nil {
		return 0, true
	}
	var e *ExitError
	if errors.As(err, &e) {
		return e.Status, true
	}
	return 0, false
}

// Output runs a command and returns what it printed, up to limit bytes: more is an error.
func Output(ctx context.Context, r Runner, limit int64, c Command) ([]byte, error) {
	out := &limited{n: limit}
	c.Stdout = out
	err := r.Run(ctx, c)
	if out.over {
		return nil, fmt.Errorf("%q: printed more than %d bytes", strings.Join(c.Args, " "), limit)
	}
	return out.b.Bytes(), err
}

type limited struct {
	b    bytes.Buffer
	n    int64
	over bool
}

func (l *limited) Write(p []byte) (int, error) {
	if int64(l.b.Len()+len(p)) > l.n {
		l.over = true
		return 0, errors.New("too much output")
	}
	return l.b.Write(p)
}

// maxSaid bounds the end of Stderr that an ExitError has, in bytes.
const maxSaid = 4096

// A tail keeps the end of what is written to it.
type tail struct{ b []byte }

func (t *tail) Write(p []byte) (int, error) {
	t.b = append(t.b, p...)
	if n := len(t.b) - maxSaid; n > 0 {
		t.b = append(t.b[:0], t.b[n:]...)
	}
	return len(p), nil
}

// also returns a writer to w, if there is one, and to t.
func (t *tail) also(w io.Writer) io.Writer {
	if w == nil {
		return t
	}
	return io.MultiWriter(w, t)
}

// Local runs commands on this machine, with its environment.
type Local struct {
	// Files are handed to the program, as descriptors from 3: locks that it keeps if this process
	// is killed. There is no such thing on Windows.
	Files []*os.File
}

// waitDelay is how long streams may stay open after the program has ended, because it left another
// one behind that holds them.
const waitDelay = 5 * time.Second

// Run runs the command.
func (l Local) Run(ctx context.Context, c Command) error {
	if err := check(c.Args, false); err != nil {
		return err
	}
	cmd := exec.CommandContext(ctx, c.Args[0], c.Args[1:]...)
	var said tail
	cmd.Stdin, cmd.Stdout, cmd.Stderr = c.Stdin, c.Stdout, said.also(c.Stderr)
	cmd.WaitDelay = waitDelay
	cmd.ExtraFiles = l.Files
	err := cmd.Run()
	var exit *exec.ExitError
	if ctx.Err() != nil {
		return fmt.Errorf("%q: %w", strings.Join(c.Args, " "), ctx.Err())
	}
	if errors.As(err, &exit) {
		e := &ExitError{Args: c.Args, Status: exit.ExitCode(), Stderr: string(said.b)}
		if e.Status < 0 {
			e.Signal = signalName(exit.ProcessState)
		}
		return e
	}
	return err
}

// check refuses what no program can be given.
func check(args []string, oneLine bool) error {
	if len(args) == 0 || args[0] == "" {
		return errors.New("no program to run")
	}
	for _, a := range args {
		if strings.IndexByte(a, 0) >= 0 {
			return fmt.Errorf("argument %q: has a NUL byte", a)
		}
		if oneLine && strings.ContainsAny(a, "\n\r") {
			return fmt.Errorf("argument %q: has a line feed, which login shells do not agree on", a)
		}
	}
	return nil
}
