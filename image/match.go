package image

import (
	"fmt"
	"path"
	"strings"
)

// A Matcher is a compiled name pattern: *, ? and [] as in [path.Match] within an element, and
// the element ** for any number of elements, none included. A leading slash is ignored, so that
// patterns can be written as absolute paths.
type Matcher struct {
	pattern string
	elems   []string
}

// NewMatcher compiles a pattern.
func NewMatcher(pattern string) (*Matcher, error) {
	m := &Matcher{pattern: pattern, elems: strings.Split(strings.Trim(pattern, "/"), "/")}
	for i, e := range m.elems {
		if _, err := path.Match(e, ""); err != nil || e == "" || e == ".." {
			return nil, fmt.Errorf("pattern %q: element %q is malformed", pattern, e)
		}
		if e == "**" && i > 0 && m.elems[i-1] == "**" {
			return nil, fmt.Errorf("pattern %q: ** after **", pattern)
		}
	}
	return m, nil
}

// String returns the pattern as it was given.
func (m *Matcher) String() string { return m.pattern }

// literal returns the leading elements that match only themselves, "." if there are none, and the
// rest of the pattern.
func (m *Matcher) literal() (prefix, rest string) {
	n := 0
	for n < len(m.elems) && !strings.ContainsAny(m.elems[n], `*?[\\`) {
		n++
	}
	if n == 0 {
		return ".", strings.Join(m.elems, "/")
	}
	return strings.Join(m.elems[:n], "/"), strings.Join(m.elems[n:], "/")
}

// Match reports whether the pattern matches the whole of a clean name. "dir/**" matches dir too.
func (m *Matcher) Match(name string) bool { return matchElems(m.elems, name) }

func matchElems(elems []string, name string) bool {
	for i, e := range elems {
		if e == "**" {
			if i == len(elems)-1 {
				return true
			}
			for {
				if matchElems(elems[i+1:], name) {
					return true
				}
				_, rest, ok := strings.Cut(name, "/")
				if !ok {
					return false
				}
				name = rest
			}
		}
		if name == "" {
			return false
		}
		first, rest, _ := strings.Cut(name, "/")
		if ok, _ := path.Match(e, first); !ok {
			return false
		}
		name = rest
	}
	return name == ""
}
