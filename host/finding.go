package host

import (
	"bytes"
	"cmp"
	"fmt"
	"io/fs"
	"maps"
	"path"
	"slices"
	"strings"

	"github.com/goldenisc/packer-plugin-isc/image"
)

// The kinds of a Finding.
const (
	Added   = "added"
	Removed = "removed"
	Changed = "changed"
	Unread  = "unread"  // could not be determined: not a yes
	Expired = "expired" // the image's release
	Revoked = "revoked"
)

// A Finding is one difference of an instance from its image.
type Finding struct {
	Path string `json:"path"` // absolute, in the instance
	Kind string `json:"kind"`
	What string `json:"what"` // "content", "mode 0755 → 0777", …; of what was added or removed its type
}

func (f Finding) String() string { return fmt.Sprintf("%s %q: %s", f.Kind, f.Path, f.What) }

// A Report is the result of a check.
type Report struct {
	Findings []Finding `json:"findings"` // by path
	More     int       `json:"more"`     // findings after MaxFindings
	Restored []string  `json:"restored"` // paths put back by the rule reset
	Entries  int       `json:"entries"`  // objects looked at
	Hashed   int       `json:"hashed"`   // files whose content was read
	Bytes    int64     `json:"bytes"`    // of content read
}

// MaxFindings bounds a report, because an instance can make files without end.
const MaxFindings = 100_000

// sort brings findings into the order of paths, so that parallel reading does not show.
func (r *Report) sort() {
	slices.SortFunc(r.Findings, func(a, b Finding) int {
		return cmp.Or(image.Compare(a.Path, b.Path), cmp.Compare(a.Kind, b.Kind), cmp.Compare(a.What, b.What))
	})
	slices.Sort(r.Restored)
}

// Learn returns the mutable block, in the syntax of a spec file, that makes the findings expected:
// a directory that was added with all in it, single paths else. Read it before you paste it.
func Learn(findings []Finding) string {
	paths := map[string]bool{}
	for _, f := range findings {
		switch {
		case f.Path == "/" || f.Kind == Unread || f.Kind == Expired || f.Kind == Revoked:
		case f.Kind == Added && f.What == image.TypeName(fs.ModeDir):
			paths[escapePattern(f.Path)+"/**"] = true
		default:
			paths[escapePattern(f.Path)] = true
		}
	}
	if len(paths) == 0 {
		return ""
	}
	// Many changed names of one directory stand for the directory.
	const many = 4
	dirs := map[string][]string{}
	for p := range paths {
		if !strings.HasSuffix(p, "/**") {
			dirs[path.Dir(p)] = append(dirs[path.Dir(p)], p)
		}
	}
	for dir, names := range dirs {
		if len(names) >= many && dir != "/" {
			for _, p := range names {
				delete(paths, p)
			}
			paths[dir+"/*"] = true
		}
	}
	var b strings.Builder
	b.WriteString("mutable {\n  paths = [\n")
	for _, p := range slices.SortedFunc(maps.Keys(paths), image.Compare) {
		fmt.Fprintf(&b, "    %s,\n", quoteHCL(p))
	}
	b.WriteString("  ]\n  rule = \"any\"\n}\n")
	return b.String()
}

// escapePattern makes a pattern that matches only this path.
func escapePattern(p string) string {
	var b strings.Builder
	for i := range len(p) {
		if strings.IndexByte(`\*?[`, p[i]) >= 0 {
			b.WriteByte('\\')
		}
		b.WriteByte(p[i])
	}
	return b.String()
}

// quoteHCL quotes a string for HCL native syntax, where "${" and "%{" begin templates.
func quoteHCL(s string) string {
	var b strings.Builder
	b.WriteByte('"')
	for _, r := range s {
		switch {
		case r == '"' || r == '\\':
			b.WriteByte('\\')
			b.WriteRune(r)
		case r == '\n':
			b.WriteString(`\n`)
		case r == '\r':
			b.WriteString(`\r`)
		case r == '\t':
			b.WriteString(`\t`)
		case r < ' ' || r == 0x7f:
			fmt.Fprintf(&b, `\u%04x`, r)
		default:
			b.WriteRune(r)
		}
	}
	b.WriteByte('"')
	return strings.NewReplacer("${", "$${", "%{", "%%{").Replace(b.String())
}

// xattrChange says how the extended attributes differ, or "".
func xattrChange(want, got map[string][]byte) string {
	var diffs []string
	for _, key := range slices.Sorted(maps.Keys(want)) {
		if v, ok := got[key]; !ok {
			diffs = append(diffs, fmt.Sprintf("attribute %q removed", key))
		} else if !bytes.Equal(v, want[key]) {
			diffs = append(diffs, fmt.Sprintf("attribute %q changed", key))
		}
	}
	for _, key := range slices.Sorted(maps.Keys(got)) {
		if _, ok := want[key]; !ok {
			diffs = append(diffs, fmt.Sprintf("attribute %q added", key))
		}
	}
	return strings.Join(diffs, ", ")
}
