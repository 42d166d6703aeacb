package builder

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/hashicorp/hcl/v2"

	"github.com/goldenisc/packer-plugin-isc/image"
	"github.com/goldenisc/packer-plugin-isc/internal/hcltext"
	"github.com/goldenisc/packer-plugin-isc/profiles"
	"github.com/goldenisc/packer-plugin-isc/registry"
)

// A Problem is what is wrong with an attribute or a block of a spec.
type Problem struct {
	Path string // of the attribute or block, as --set takes it: "file[0].mode"
	Err  error
}

func (p Problem) Error() string { return p.Path + ": " + p.Err.Error() }

func (p Problem) Unwrap() error { return p.Err }

// The forms of names. An image's name is the last part of a repository (OCI distribution
// specification, "Pulling manifests") and, as the default of a clone's name, a zone's: at most 63
// bytes (ZONENAME_MAX less the NUL), beginning with a letter or digit.
var (
	nameForm    = regexp.MustCompile(`^[a-z0-9]+([._-][a-z0-9]+)*$`)
	versionForm = regexp.MustCompile(`^[A-Za-z0-9_][A-Za-z0-9._-]{0,127}$`)
	sha256Form  = regexp.MustCompile(`^[0-9a-f]{64}$`)
	modeForm    = regexp.MustCompile(`^[0-7]{3,4}$`)
	ownerForm   = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9._-]{0,31}$`)
)

const maxName = 63

// Architectures are those that images are built for.
var Architectures = []string{"amd64", "arm64"}

// Systems that images are built for, and those that there is an empty base of.
var (
	systems   = profiles.Platforms
	skeletons = []string{"illumos", "linux"}
)

// otherNames are what others call the architectures.
var otherNames = map[string]string{"x86_64": "amd64", "x64": "amd64", "i86pc": "amd64", "aarch64": "arm64", "armv8": "arm64"}

// reserved are the names of the artifacts that every image has.
var reserved = []string{"content", "objects", "report", "sbom", "config"}

// Check returns everything that is wrong with the values of a spec, local files that do not exist
// included. It is for those who fill a Spec otherwise: [ParseSpec] has done it.
func (s *Spec) Check() []Problem {
	c := &checker{spec: s, taken: map[string]string{}}
	if s.Image != nil {
		c.image(s.Image)
	}
	if s.Base != nil {
		c.base(s.Base)
	}
	if s.Disk != nil {
		c.disk(s.Disk)
	}
	if s.Profile != nil {
		c.profile(s.Profile)
	}
	c.files()
	c.artifacts()
	for _, err := range s.Layout.Check() {
		// The system is image.os, which is checked above.
		if path := s.layoutPath(err); path != "os" {
			c.problems = append(c.problems, Problem{path, err})
		}
	}
	return c.problems
}

type checker struct {
	spec     *Spec
	taken    map[string]string // by path in the image, what puts something there
	problems []Problem
}

// on notes a problem, unless err is nil.
func (c *checker) on(path string, err error) {
	if err != nil {
		c.problems = append(c.problems, Problem{path, err})
	}
}

func (c *checker) image(img *Image) {
	c.on("image.name", checkName(img.Name))
	c.on("image.version", checkVersion(img.Version))
	c.on("image.os", checkOneOf(img.OS, systems))
	if other := otherNames[img.Arch]; other != "" {
		c.on("image.arch", fmt.Errorf("%q is called %q here", img.Arch, other))
	} else {
		c.on("image.arch", checkOneOf(img.Arch, Architectures))
	}
}

func checkName(name string) error {
	switch {
	case name == "":
		return errors.New("is empty")
	case len(name) > maxName:
		return fmt.Errorf("%q has %d bytes: a zone's name has %d at most", name, len(name), maxName)
	case !nameForm.MatchString(name):
		return fmt.Errorf("%q is no name for repositories and zones: lower-case letters and digits, parted by single . _ or -", name)
	case name == "global":
		return fmt.Errorf("%q is the name of a host's own zone", name)
	}
	return nil
}

func checkVersion(v string) error {
	switch {
	case v == "":
		return errors.New("is empty")
	case strings.Contains(v, "+") && versionForm.MatchString(strings.ReplaceAll(v, "+", "_")):
		return fmt.Errorf("%q holds a +, which tags of registries cannot: write %q", v, strings.ReplaceAll(v, "+", "_"))
	case !versionForm.MatchString(v):
		return fmt.Errorf("%q is no tag: up to 128 letters, digits, _ . and -, of which . and - not first", v)
	case v == "latest":
		return fmt.Errorf("%q is what a tag is called that moves: a version stays", v)
	}
	return nil
}

// checkOneOf checks a value that is one of a few.
func checkOneOf(value string, values []string) error {
	if slices.Contains(values, value) {
		return nil
	}
	return fmt.Errorf("%q is none of %s.%s", value, list(values), hcltext.Suggest(value, values))
}

func (c *checker) base(b *Base) {
	loc, err := ParseSource(b.Source, c.spec.Dir)
	c.on("base.source", err)
	if err == nil {
		c.on("base.source", loc.exists())
	}
	if b.SHA256 != "" {
		switch {
		case !sha256Form.MatchString(b.SHA256):
			c.on("base.sha256", fmt.Errorf("%q is not 64 lower-case hexadecimal digits", b.SHA256))
		case err == nil && loc.Ref != (registry.Ref{}):
			c.on("base.sha256", errors.New("pins a file: pin an image by @sha256:… behind its name"))
		case err == nil && loc.Scheme != "tar" && loc.Scheme != "zfs":
			c.on("base.sha256", fmt.Errorf("pins a file: there is none in %q", b.Source))
		}
	}
	if b.MaxSize != "" {
		_, err := b.Limit()
		c.on("base.max_size", err)
	}
	if b.Snapshot != "" && err == nil && loc.Scheme != "zfs" {
		c.on("base.snapshot", fmt.Errorf("is of send streams: there is none in %q", b.Source))
	}
}

func (c *checker) profile(p *Profile) {
	if p.Name != "" && p.Source != "" {
		c.on("profile.source", errors.New("stands beside name: a profile has one of them"))
	}
	// selectable reports what the profile says to one parameter or one control.
	selectable := func(set map[string]string, waivers ...image.Waiver) error { return nil }
	switch loaded, err := c.spec.loadProfile(p); {
	case err != nil && p.Source != "":
		c.on("profile.source", err)
	case err != nil:
		c.on("profile.name", err)
	case c.spec.Image != nil && slices.Contains(systems, c.spec.Image.OS):
		selectable = func(set map[string]string, waivers ...image.Waiver) error {
			_, err := loaded.Select(c.spec.Image.OS, set, waivers)
			return err
		}
	}
	for _, name := range sortedKeys(p.Set) {
		c.on("profile.set."+name, selectable(map[string]string{name: p.Set[name]}))
	}
	seen := map[string]string{}
	for i, w := range p.Waive {
		at := fmt.Sprintf("profile.waive[%d]", i)
		switch first, dup := seen[w.Control]; {
		case w.Control == "":
			c.on(at+".control", errors.New("is empty"))
		case dup:
			c.on(at+".control", fmt.Errorf("%q is waived by %s already", w.Control, first))
		default:
			// Reason and date are checked below: here they are right.
			c.on(at+".control", selectable(nil, image.Waiver{Control: w.Control, Reason: "given", Until: "2000-01-01"}))
		}
		seen[w.Control] = at
		if strings.TrimSpace(w.Reason) == "" {
			c.on(at+".reason", errors.New("is empty: say why the control is waived"))
		}
		if _, err := time.Parse(time.DateOnly, w.Until); err != nil {
			c.on(at+".until", fmt.Errorf("%q is no date such as 2027-01-31", w.Until))
		}
	}
}

func (c *checker) files() {
	for i, f := range c.spec.Files {
		at := fmt.Sprintf("file[%d]", i)
		c.put(at, f.Path)
		switch {
		case f.Source == "" && f.Content == nil:
			c.on(at, errors.New("has neither source nor content"))
		case f.Source != "" && f.Content != nil:
			c.on(at+".content", errors.New("stands beside source: a file has one of them"))
		case f.Source != "":
			c.on(at+".source", regularFile(local(c.spec.Dir, f.Source)))
		}
		if !modeForm.MatchString(f.Mode) {
			c.on(at+".mode", fmt.Errorf("%q is no octal mode such as 0644", f.Mode))
		}
		c.on(at+".owner", checkOwner(f.Owner))
		c.on(at+".group", checkOwner(f.Group))
	}
	for i, l := range c.spec.Links {
		at := fmt.Sprintf("link[%d]", i)
		c.put(at, l.Path)
		switch {
		case l.Target == "":
			c.on(at+".target", errors.New("is empty"))
		case l.Hard:
			c.on(at+".target", checkPath(l.Target))
		case len(l.Target) > image.MaxName || strings.IndexByte(l.Target, 0) >= 0:
			c.on(at+".target", errors.New("is too long, or holds a NUL byte"))
		}
	}
	for i, t := range c.spec.Trees {
		at := fmt.Sprintf("tree[%d]", i)
		if t.Path != "/" {
			c.on(at+".path", checkPath(t.Path))
		}
		loc, err := ParseSource(t.Source, c.spec.Dir)
		if err == nil && loc.Scheme != "dir" && loc.Scheme != "tar" {
			err = fmt.Errorf("%q is neither dir:PATH nor tar:PATH", t.Source)
		}
		if err == nil {
			err = loc.exists()
		}
		c.on(at+".source", err)
		if t.Owner != "" {
			c.on(at+".owner", checkOwner(t.Owner))
		}
		if t.Group != "" {
			c.on(at+".group", checkOwner(t.Group))
		}
	}
	for i, r := range c.spec.Removes {
		for j, p := range r.Paths {
			at := fmt.Sprintf("remove[%d].paths[%d]", i, j)
			m, err := image.NewMatcher(p)
			switch {
			case err != nil:
				c.on(at, err)
			case !strings.HasPrefix(p, "/"):
				c.on(at, fmt.Errorf("%q is not absolute", p))
			case m.Match("."):
				c.on(at, fmt.Errorf("%q removes everything", p))
			}
		}
	}
	c.below()
}

// put checks the path of what a block puts into the image.
func (c *checker) put(at, p string) {
	if err := checkPath(p); err != nil {
		c.on(at+".path", err)
		return
	}
	if first := c.taken[p]; first != "" {
		c.on(at+".path", fmt.Errorf("%q is put by %s already", p, first))
		return
	}
	c.taken[p] = at
}

// below refuses what is put below a file or a link of the same spec.
func (c *checker) below() {
	for _, p := range sortedKeys(c.taken) {
		for dir := path.Dir(p); dir != "/"; dir = path.Dir(dir) {
			if above := c.taken[dir]; above != "" {
				c.on(c.taken[p]+".path", fmt.Errorf("%q is below %q, which %s makes and which is no folder", p, dir, above))
				break
			}
		}
	}
}

// checkPath checks an absolute path in the image that is not the root.
func checkPath(p string) error {
	if p == "" {
		return errors.New("is empty")
	}
	if !strings.HasPrefix(p, "/") {
		return fmt.Errorf("%q is not absolute: paths in the image start with /", p)
	}
	clean, err := image.Clean(p)
	switch {
	case err != nil:
		return err
	case clean == ".":
		return fmt.Errorf("%q is the root", p)
	case "/"+clean != p:
		return fmt.Errorf("%q has a shorter form: write %q", p, "/"+clean)
	}
	return nil
}

// checkOwner checks the name or number of a user or group.
func checkOwner(s string) error {
	if s == "" {
		return errors.New("is empty")
	}
	if s[0] >= '0' && s[0] <= '9' {
		// UID_MAX of illumos and the highest id of Linux that is not special: 2^31-1.
		if n, err := strconv.ParseUint(s, 10, 31); err != nil || strconv.FormatUint(n, 10) != s {
			return fmt.Errorf("%q is no id: a decimal number up to 2147483647", s)
		}
		return nil
	}
	if !ownerForm.MatchString(s) {
		return fmt.Errorf("%q is neither a name nor a number", s)
	}
	return nil
}

// checked is a Writer with more to say about its values, by the rest of the spec. The paths are within
// its block.
type checked interface {
	problems(s *Spec) []Problem
}

func (c *checker) artifacts() {
	count := map[string]int{}
	seen := map[string]string{}
	for _, k := range c.spec.Artifacts {
		at := fmt.Sprintf("%s[%d]", k.Kind, count[k.Kind])
		count[k.Kind]++
		switch first, dup := seen[k.ID]; {
		case len(k.ID) > maxName || !nameForm.MatchString(k.ID):
			c.on(at+".id", fmt.Errorf("%q is no name for an artifact: lower-case letters and digits, parted by single . _ or -", k.ID))
		case slices.Contains(reserved, k.ID):
			c.on(at+".id", fmt.Errorf("%q is the name of an artifact that every image has", k.ID))
		case dup:
			c.on(at+".id", fmt.Errorf("%q is the id of %s already: give each an id of its own", k.ID, first))
		default:
			seen[k.ID] = at
		}
		if img := c.spec.Image; img != nil && img.OS == profiles.Solaris && c.spec.Disk == nil && k.Kind != "zone" {
			c.on(at, errors.New("is not made of a Solaris root, whose pools and boot loader are nobody else's: a zone block is"))
			continue
		}
		if w, ok := k.Writer.(checked); ok {
			for _, p := range w.problems(c.spec) {
				c.on(strings.TrimSuffix(at+"."+p.Path, "."), p.Err)
			}
		}
	}
}

// regularFile reports what stands where a local file is needed.
func regularFile(name string) error {
	st, err := os.Stat(name)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return fmt.Errorf("%q does not exist", name)
	case err != nil:
		return err
	case st.IsDir():
		return fmt.Errorf("%q is a folder, not a file", name)
	case !st.Mode().IsRegular():
		return fmt.Errorf("%q is no regular file", name)
	}
	return nil
}

// blockForm is how errors of [profiles.Layout.Check] begin: with the block, its name or path if it
// has one, and the attribute if it is about one.
var blockForm = regexp.MustCompile(`^([a-z]+)(?: ("(?:[^"\\]|\\.)*"))?:?(?: (?:the )?([a-z_]+))?`)

// layoutPath returns the path of what an error of the layout is about, as near as it says.
func (s *Spec) layoutPath(err error) string {
	m := blockForm.FindStringSubmatch(err.Error())
	if m == nil {
		return ""
	}
	block, ok := findBlock(Schema(), m[1])
	if !ok {
		return m[1]
	}
	path := block.Name
	if block.Repeatable {
		path = fmt.Sprintf("%s[%d]", path, s.layoutIndex(block.Name, m[2], err))
	}
	if _, ok := block.attribute(m[3]); ok {
		path += "." + m[3]
	}
	return path
}

// layoutIndex finds the block of a quoted name; of several, the last, which is the one too many.
func (s *Spec) layoutIndex(block, name string, err error) int {
	index := 0
	is := func(i int, key string) {
		if strconv.Quote(key) == name {
			index = i
		}
	}
	switch l := &s.Layout; block {
	case "user":
		for i, u := range l.Users {
			is(i, u.Name)
		}
	case "group":
		for i, g := range l.Groups {
			is(i, g.Name)
		}
	case "service":
		for i, v := range l.Services {
			is(i, v.Name)
		}
	case "volume":
		for i, v := range l.Volumes {
			is(i, v.Path)
		}
	case "mutable":
		for i, m := range l.Mutables {
			if len(m.Paths) == 0 || slices.ContainsFunc(append(m.Paths[:len(m.Paths):len(m.Paths)], m.Rule), func(v string) bool {
				return strings.Contains(err.Error(), strconv.Quote(v))
			}) {
				index = i
			}
		}
	}
	return index
}

// check reports the problems of the values, at their place in the source. What is wrong with a
// value that could not be read follows from what is reported already.
func (p *parser) check() {
	for _, problem := range p.spec.Check() {
		at, found := p.locate(problem.Path)
		if p.missing[problem.Path] || p.hasFailed(at) || p.unknown[found] || p.incomplete[found] && inLayout(found) {
			continue
		}
		var diags hcl.Diagnostics
		if errors.As(problem.Err, &diags) {
			p.quote(diags)
			continue
		}
		summary := "Invalid " + problem.Path
		if problem.Path == "" {
			summary = "Invalid spec"
		}
		p.errorf(at, summary, "%s", sentence(problem.Err))
	}
}

// inLayout reports whether a path is of a block that [profiles.Layout.Check] checks, which takes a
// missing value for a zero.
func inLayout(path string) bool {
	name, _, _ := strings.Cut(path, "[")
	_, ok := findBlock(structSchema(reflect.TypeFor[profiles.Layout]()).Blocks, name)
	return ok
}

// quote adds diagnostics that point into a file that the spec names.
func (p *parser) quote(diags hcl.Diagnostics) {
	for _, d := range diags {
		if d.Subject == nil || p.spec.Texts[d.Subject.Filename] != nil {
			continue
		}
		// It was read a moment ago: should that fail now, there is no snippet.
		if src, err := readBounded(d.Subject.Filename); err == nil {
			p.spec.Texts[d.Subject.Filename] = src
		}
	}
	p.diags = append(p.diags, diags...)
}

// locate returns the range of what a path names, or else of the nearest thing around it, whose
// path is found.
func (p *parser) locate(path string) (at hcl.Range, found string) {
	if at, found = p.spec.locate(path); found == "" {
		at = p.start
	}
	return at, found
}

func (s *Spec) locate(path string) (at hcl.Range, found string) {
	for around := path; around != ""; around = around[:max(0, strings.LastIndexAny(around, ".["))] {
		if at, ok := s.where[around]; ok {
			return at, around
		}
	}
	return at, ""
}

// placed has what is wrong with a layout be bad input, and say where in the spec it is. Other errors stay.
func (s *Spec) placed(err error) error {
	var misfit *profiles.MisfitError
	if !errors.As(err, &misfit) {
		return err
	}
	var all []error
	for _, err := range misfit.Errs {
		for part := err; part != nil; part = errors.Unwrap(part) { // a file of the base may stand before the block
			if at, found := s.locate(s.layoutPath(part)); found != "" {
				err = fmt.Errorf("%s:%d: %w", hcltext.Printable(at.Filename), at.Start.Line, err)
				break
			}
		}
		all = append(all, err)
	}
	return Input(errors.Join(all...))
}

// sentence makes an error's text end like those of HCL.
func sentence(err error) string {
	text := err.Error()
	if !strings.HasSuffix(text, "?") && !strings.HasSuffix(text, ".") {
		text += "."
	}
	return text
}
