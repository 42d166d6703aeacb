package profiles

import (
	"errors"
	"fmt"
	"io/fs"
	"strings"
	"syscall"
	"unicode/utf8"
)

// maxText bounds the text files of a configuration, in bytes.
const maxText = 1 << 20

// malformed says why a text cannot be edited by lines, or nothing.
func malformed(text string) string {
	switch {
	case len(text) > maxText:
		return fmt.Sprintf("has %d bytes: no configuration is that large", len(text))
	case strings.IndexByte(text, 0) >= 0:
		return "holds NUL bytes: it is no text"
	case strings.Contains(text, "\r\n"):
		return "has the line ends of DOS, which programs take for part of the values"
	case !utf8.ValidString(text) && strings.Count(text, "\n") == 0:
		return "is no text"
	}
	return ""
}

// A malformedError is about a file of the root that no edit can put right.
type malformedError struct{ name, problem string }

func (e *malformedError) Error() string { return fmt.Sprintf("%q %s", e.name, e.problem) }

// asFinding returns what an error says about a file of the root, such as that it is none; that this machine
// cannot read is no such error.
func asFinding(err error) (Finding, bool) {
	var m *malformedError
	if errors.As(err, &m) {
		return Finding{m.name, m.problem}, true
	}
	var p *fs.PathError
	if errors.As(err, &p) && !errors.As(p, new(syscall.Errno)) && !errors.Is(p, fs.ErrNotExist) && !errors.Is(p, fs.ErrClosed) {
		return Finding{p.Path, p.Err.Error()}, true
	}
	return Finding{}, false
}

// AboutFile reports whether an error is about a file of the root, of which the controls that need it tell.
func AboutFile(err error) bool {
	_, is := asFinding(err)
	return is
}
