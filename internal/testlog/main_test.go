package main

import (
	"bufio"
	"bytes"
	"strings"
	"testing"
)

func TestLog(t *testing.T) {
	const (
		passes = `{"Action":"run","Package":"p","Test":"A"}
{"Action":"output","Package":"p","Test":"A","Output":"quiet\n"}
{"Action":"pass","Package":"p","Test":"A"}
{"Action":"output","Package":"p","Output":"ok  \tp\t0.1s\n"}
{"Action":"pass","Package":"p"}
`
		skips = `{"Action":"output","Package":"p","Test":"B","Output":"no tool\n"}
{"Action":"skip","Package":"p","Test":"B"}
{"Action":"pass","Package":"p"}
`
		fails = `{"Action":"output","Package":"p","Test":"B","Output":"loud\n"}
{"Action":"fail","Package":"p","Test":"B"}
{"Action":"output","Package":"p","Output":"FAIL\tp\t0.1s\n"}
{"Action":"fail","Package":"p"}
`
		broken  = "{\"Action\":\"build-output\",\"ImportPath\":\"q\",\"Output\":\"q.go:1: no\\n\"}\n{\"Action\":\"fail\",\"Package\":\"q\"}\n"
		passesB = `{"Action":"pass","Package":"p","Test":"B"}` + "\n"
	)
	for _, c := range []struct {
		name, in string
		strict   bool
		ok       bool
		want     string
	}{
		{"pass", passes, true, true, "ok  \tp\t0.1s\n1 passed, 0 failed\n"},
		{"other lines", "go: downloading x\n" + passes, false, true, "go: downloading x\nok  \tp\t0.1s\n1 passed, 0 failed\n"},
		{"skip", skips, false, true, "no tool\nskipped: p B\n0 passed, 0 failed\n"},
		{"strict skip", skips, true, false, "no tool\nskipped: p B\n0 passed, 1 failed\n"},
		{"skip and pass", skips + passesB, true, true, "no tool\n1 passed, 0 failed\n"},
		{"fail", fails, false, false, "loud\nFAIL\tp\t0.1s\nfailed: p B\n0 passed, 1 failed\n"},
		{"broken package", broken, false, false, "q.go:1: no\nfailed: q \n0 passed, 1 failed\n"},
		{"cut off", `{"Action":"pa`, false, true, "{\"Action\":\"pa0 passed, 0 failed\n"},
	} {
		t.Run(c.name, func(t *testing.T) {
			l := log{map[test]int{}, map[test]int{}, map[test]bool{}, map[test][]byte{}}
			var out bytes.Buffer
			w := bufio.NewWriter(&out)
			if err := l.read(strings.NewReader(c.in), w); err != nil {
				t.Fatal(err)
			}
			if ok := l.summary(&out, c.strict); ok != c.ok || out.String() != c.want {
				t.Errorf("%v %q, want %v %q", ok, out.String(), c.ok, c.want)
			}
		})
	}
}
