package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"strings"

	"github.com/hashicorp/hcl/v2"
	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/goldenisc/packer-plugin-isc/builder"
	"github.com/goldenisc/packer-plugin-isc/host"
	"github.com/goldenisc/packer-plugin-isc/image"
	"github.com/goldenisc/packer-plugin-isc/internal/release"
	"github.com/goldenisc/packer-plugin-isc/registry"
	"github.com/goldenisc/packer-plugin-isc/signing"
)

// An app is what all verbs share: the streams and the flags that every verb has.
type app struct {
	in        io.Reader
	out, diag io.Writer

	json, quiet, verbose, noProgress bool

	plainHTTP bool // also to registries on other machines

	bars *bars
}

// verbs is the table of commands. It is a function because the demo runs the others.
func verbs() []func(*app) *cobra.Command {
	return []func(*app) *cobra.Command{
		newInit, newFmt, newValidate, newBuild, newLock, newInspect, newDiff, newExport, newDock,
		newKeygen, newSign, newPromote, newRefresh, newRevoke, newVerify, newAttestation, newPolicy,
		newCopy, newPush, newPull, newClone, newStart, newStop, newList, newShow, newCheck, newReset, newUpgrade,
		newSnapshot, newRollback, newDestroy, newPrune, newAudit, newHarden, newAdopt, newProfile, newOVF, newZFS, newServe, newDemo, newServePage,
	}
}

func (a *app) command() *cobra.Command {
	root := &cobra.Command{
		Use:           "iscadm",
		Short:         "Build, publish and use golden images of Immutable Service Containers",
		Version:       buildVersion(),
		SilenceErrors: true,
		SilenceUsage:  true,
	}
	root.SetIn(a.in)
	root.SetOut(a.out)
	root.SetErr(a.diag)
	root.SetVersionTemplate("iscadm {{.Version}}\n")
	root.SetFlagErrorFunc(func(c *cobra.Command, err error) error {
		return badInput(fmt.Errorf("%w (see iscadm help %s)", err, c.Name()))
	})
	f := root.PersistentFlags()
	f.BoolVar(&a.json, "json", false, "print one JSON document on stdout and nothing else")
	f.BoolVarP(&a.quiet, "quiet", "q", false, "print results and errors only")
	f.BoolVar(&a.plainHTTP, "plain-http", false, "speak HTTP also to registries on other machines")
	f.BoolVarP(&a.verbose, "verbose", "v", false, "say more")
	f.BoolVar(&a.noProgress, "no-progress", false, "no progress bars (there are none if stderr is no terminal)")
	for _, v := range verbs() {
		c := v(a)
		checkArgs(c)
		root.AddCommand(c)
	}
	return root
}

// checkArgs makes wrong arguments of a verb and those below it the caller's, and shows the usage.
func checkArgs(c *cobra.Command) {
	for _, below := range c.Commands() {
		checkArgs(below)
	}
	if c.HasSubCommands() { // it says what there is
		c.Args = cobra.NoArgs
		c.RunE = func(c *cobra.Command, _ []string) error {
			c.Help()
			return answer(statusInput)
		}
	}
	if check := c.Args; check != nil {
		c.Args = func(c *cobra.Command, args []string) error {
			if err := check(c, args); err != nil {
				usage, _, _ := strings.Cut(c.UseLine(), " [flags]")
				return badInput(fmt.Errorf("%s: %w (usage: %s)", c.Name(), err, usage))
			}
			return nil
		}
	}
}

// statuses maps errors of the libraries to exit statuses; the first that fits counts.
var statuses = []struct {
	status int
	is     func(error) bool
}{
	{statusUnknown, is(signing.ErrUndetermined)}, // whatever kept it from being known
	{statusNo, is(builder.ErrMismatch)},
	{statusNo, is(registry.ErrMismatch)},
	{statusNo, is(builder.ErrFindings)},
	{statusNo, func(err error) bool { var l *builder.LockError; return errors.As(err, &l) }},
	{statusNo, is(signing.ErrNotVerified)},
	{statusNo, func(err error) bool { var e *host.EpochError; return errors.As(err, &e) }},
	{statusNo, is(release.ErrRefused)},
	{statusUnknown, is(registry.ErrUndetermined)},
	{statusInput, is(builder.ErrInput)},
	{statusInput, is(release.ErrInput)},
	{statusInput, is(host.ErrPlatform)},
	{statusInput, is(image.ErrMalformed)},
	{statusInput, func(err error) bool { var d hcl.Diagnostics; return errors.As(err, &d) }},
	{statusInput, func(err error) bool { // cobra has no types for these
		text := err.Error()
		return strings.HasPrefix(text, "unknown command") || strings.HasPrefix(text, "required flag") || strings.HasPrefix(text, "if any flags in the group")
	}},
}

func is(target error) func(error) bool {
	return func(err error) bool { return errors.Is(err, target) }
}

// report prints an error, one line unless it is the problems of a spec.
func (a *app) report(err error) error {
	if err.Error() == "" {
		return nil
	}
	if errors.Is(err, fs.ErrPermission) && os.Geteuid() > 0 {
		err = fmt.Errorf("%w (not run as root)", err)
	}
	_, e := fmt.Fprintf(a.diag, "iscadm: %s\n", printable(err.Error()))
	return e
}

// printable takes control characters out of text that came from elsewhere: an archive or a
// registry must not speak to a terminal.
func printable(s string) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' && r != '\n' && r != '\t' || r >= 0x7f && r < 0xa0 {
			return '?'
		}
		return r
	}, s)
}

// printf writes to stdout, for people: nothing with --json.
func (a *app) printf(format string, args ...any) {
	if !a.json {
		a.bars.above(func() { fmt.Fprint(a.out, printable(fmt.Sprintf(format, args...))) })
	}
}

// notef writes to stderr unless --quiet.
func (a *app) notef(format string, args ...any) {
	if !a.quiet {
		a.bars.above(func() { fmt.Fprint(a.diag, printable(fmt.Sprintf(format, args...))) })
	}
}

// document prints v if --json is set.
func (a *app) document(v any) error {
	if !a.json {
		return nil
	}
	e := json.NewEncoder(a.out)
	e.SetEscapeHTML(false)
	e.SetIndent("", "  ")
	return e.Encode(v)
}

// log hands the libraries a logger: warnings, more with --verbose, none with --quiet.
func (a *app) log() *slog.Logger {
	level := slog.LevelWarn
	switch {
	case a.quiet:
		level = slog.LevelError
	case a.verbose:
		level = slog.LevelInfo
	}
	return slog.New(&logHandler{a, level})
}

// A logHandler writes records for people: "iscadm: warning: the base is not pinned: source=…".
type logHandler struct {
	app   *app
	level slog.Level
}

func (h *logHandler) Enabled(_ context.Context, l slog.Level) bool { return l >= h.level }

func (h *logHandler) Handle(_ context.Context, r slog.Record) error {
	var b strings.Builder
	if r.Level >= slog.LevelWarn {
		b.WriteString("warning: ")
	}
	b.WriteString(r.Message)
	r.Attrs(func(at slog.Attr) bool {
		fmt.Fprintf(&b, " %s=%s", at.Key, at.Value)
		return true
	})
	h.app.bars.above(func() { fmt.Fprintf(h.app.diag, "iscadm: %s\n", printable(b.String())) })
	return nil
}

// The libraries hand over whole records: there are no loggers below this one.
func (h *logHandler) WithAttrs([]slog.Attr) slog.Handler { return h }
func (h *logHandler) WithGroup(string) slog.Handler      { return h }

// terminal returns the file behind a stream if it is a terminal.
func terminal(stream any) (*os.File, bool) {
	f, ok := stream.(*os.File)
	return f, ok && term.IsTerminal(int(f.Fd()))
}

// confirm asks before something is destroyed: on a terminal; elsewhere it refuses unless forced.
func (a *app) confirm(force bool, what string) error {
	if force {
		return nil
	}
	if _, ok := terminal(a.in); !ok {
		return badInput(fmt.Errorf("%s: not done without -F, as nobody can be asked", what))
	}
	fmt.Fprintf(a.diag, "%s? [y/N] ", what)
	var reply string
	fmt.Fscanln(a.in, &reply)
	if r := strings.ToLower(reply); r != "y" && r != "yes" {
		return badInput(fmt.Errorf("%s: not confirmed", what))
	}
	return nil
}
