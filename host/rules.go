package host

import (
	"fmt"
	"strings"

	"github.com/goldenisc/packer-plugin-isc/image"
)

// The rules for what may differ from the golden content.
const (
	ruleNone   = ""
	ruleAny    = "any"    // everything may
	ruleAppend = "append" // files may grow, new ones may come
	ruleReset  = "reset"  // differences are put back by check
)

// rules say of every name whether it may differ. The first that matches counts.
type rules struct {
	list []rule
	skip map[string]bool // volumes and the scratch: not looked into
}

type rule struct {
	m    *image.Matcher
	rule string
}

func newRules(c *image.Config) (*rules, error) {
	r := &rules{skip: map[string]bool{}}
	for _, mut := range c.Mutable {
		switch mut.Rule {
		case ruleAny, ruleAppend, ruleReset:
		default:
			return nil, fmt.Errorf("mutable rule %q: use any, append or reset", mut.Rule)
		}
		for _, p := range mut.Paths {
			m, err := image.NewMatcher(p)
			if err != nil {
				return nil, err
			}
			r.list = append(r.list, rule{m: m, rule: mut.Rule})
		}
	}
	vols, err := volumes(c)
	if err != nil {
		return nil, err
	}
	for _, v := range vols {
		r.skip[v] = true
	}
	if c.Scratch != "" {
		s, err := image.Clean(c.Scratch)
		if err != nil {
			return nil, fmt.Errorf("scratch: %w", err)
		}
		r.skip[s] = true
	}
	delete(r.skip, ".")
	return r, nil
}

// volumes returns the clean names of an image's volumes; none may be the root or within another.
func volumes(c *image.Config) ([]string, error) {
	var names []string
	for _, v := range c.Volumes {
		name, err := image.Clean(v.Path)
		if err == nil && name == "." {
			err = fmt.Errorf("is the root")
		}
		for _, other := range names {
			if name == other || strings.HasPrefix(name, other+"/") || strings.HasPrefix(other, name+"/") {
				err = fmt.Errorf("overlaps volume %q", "/"+other)
			}
		}
		if err != nil {
			return nil, fmt.Errorf("volume %q: %w", v.Path, err)
		}
		names = append(names, name)
	}
	return names, nil
}

// above reports whether a volume or the scratch is somewhere below name.
func (r *rules) above(name string) bool {
	for s := range r.skip {
		if strings.HasPrefix(s, name+"/") {
			return true
		}
	}
	return false
}

// of returns the rule for a name.
func (r *rules) of(name string) string {
	for i := range r.list {
		if r.list[i].m.Match(name) {
			return r.list[i].rule
		}
	}
	return ruleNone
}

// ignores reports whether nothing of a directory needs to be looked at: "dir/**" matches dir and
// whatever comes below.
func (r *rules) ignores(dir string) bool {
	for i := range r.list {
		if r.list[i].m.Match(dir) {
			return r.list[i].rule == ruleAny && strings.HasSuffix(r.list[i].m.String(), "/**")
		}
	}
	return false
}
