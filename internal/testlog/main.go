// Command testlog reads the events of go test -json, as one stream or many after each other, and
// prints what go test prints without -v: a line a package, and the output of tests that failed or
// were skipped. Lines that are no events pass through. The last line is "N passed, N failed".
//
//	go test -json ./... | tee -a events | testlog
//	testlog -strict < events
//
// The exit status is 1 if a test failed. With -strict a test that was skipped and has passed in none
// of the runs counts as failed, so that a tool that is missing cannot hide what it would have shown.
package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
)

// An event is one line of go test -json (go doc test2json).
type event struct {
	Action  string
	Package string
	Test    string
	Output  string
}

type test struct{ pkg, name string }

func (t test) String() string { return t.pkg + " " + t.name }

// A log is what is known of the tests so far.
type log struct {
	passed  map[test]int
	failed  map[test]int
	skipped map[test]bool
	output  map[test][]byte
}

func main() {
	strict := flag.Bool("strict", false, "count a test that was only ever skipped as failed")
	flag.Parse()
	l := log{map[test]int{}, map[test]int{}, map[test]bool{}, map[test][]byte{}}
	w := bufio.NewWriter(os.Stdout)
	if err := l.read(os.Stdin, w); err != nil {
		fmt.Fprintln(os.Stderr, "testlog:", err)
		os.Exit(2)
	}
	ok := l.summary(w, *strict)
	if err := w.Flush(); err != nil {
		fmt.Fprintln(os.Stderr, "testlog:", err)
		os.Exit(2)
	}
	if !ok {
		os.Exit(1)
	}
}

// read takes events in until the end of r, and prints as it goes.
func (l log) read(r io.Reader, w *bufio.Writer) error {
	lines := bufio.NewReader(r)
	for {
		line, err := lines.ReadBytes('\n')
		if len(line) > 0 {
			l.line(line, w)
			if err := w.Flush(); err != nil {
				return err
			}
		}
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

func (l log) line(line []byte, w *bufio.Writer) {
	var e event
	if !bytes.HasPrefix(line, []byte("{")) || json.Unmarshal(line, &e) != nil || e.Action == "" {
		w.Write(line)
		return
	}
	t := test{e.Package, e.Test}
	switch e.Action {
	case "output", "build-output":
		if e.Test == "" {
			w.WriteString(e.Output)
			return
		}
		l.output[t] = append(l.output[t], e.Output...)
	case "pass", "fail", "skip":
		if e.Action != "pass" {
			w.Write(l.output[t])
		}
		delete(l.output, t)
		l.end(t, e.Action)
	}
}

// end counts a test, or a package that failed without a test that did.
func (l log) end(t test, action string) {
	switch {
	case action == "fail" && (t.name != "" || !l.anyFailed(t.pkg)):
		l.failed[t]++
	case t.name == "":
	case action == "pass":
		l.passed[t]++
	case action == "skip":
		l.skipped[t] = true
	}
}

func (l log) anyFailed(pkg string) bool {
	for t := range l.failed {
		if t.pkg == pkg {
			return true
		}
	}
	return false
}

// summary prints the last lines and reports whether all is well.
func (l log) summary(w io.Writer, strict bool) bool {
	never := 0
	for _, t := range sorted(l.skipped) {
		if l.passed[t]+l.failed[t] == 0 {
			fmt.Fprintln(w, "skipped:", t)
			never++
		}
	}
	for _, t := range sorted(l.failed) {
		fmt.Fprintln(w, "failed:", t)
	}
	passed, failed := sum(l.passed), sum(l.failed)
	if strict {
		failed += never
	}
	fmt.Fprintf(w, "%d passed, %d failed\n", passed, failed)
	return failed == 0
}

func sorted[V any](m map[test]V) []test {
	return slices.SortedFunc(maps.Keys(m), func(a, b test) int { return bytes.Compare([]byte(a.String()), []byte(b.String())) })
}

func sum(m map[test]int) (n int) {
	for _, v := range m {
		n += v
	}
	return n
}
