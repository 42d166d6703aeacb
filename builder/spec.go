// Package builder makes images: it reads a spec, opens the base, applies files, services and
// the profile to it, and writes the artifacts into an OCI layout.
//
// # The spec file
//
// A spec is one HCL2 file (https://github.com/hashicorp/hcl/blob/main/hclsyntax/spec.md) and
// describes one image. The types below carry the names of its blocks and attributes in their
// tags; [Schema] lists them. [ParseSpec] reads it and reports every problem at once.
//
// Values can come from variable and locals blocks as in Packer, see [Options], and from the
// functions of [Functions]. There is neither a clock nor randomness among those: the same spec
// with the same inputs gives the same image.
//
// Names of local files (file.source, tree.source, base.source, profile.source and the arguments
// of file and templatefile) are relative to the folder of the spec.
package builder

//go:generate go run ../internal/gen/spec -root .. -o ../docs/spec.md -partial ../cmd/packer-plugin-isc/docs-partials/blocks.mdx

import (
	"cmp"
	"fmt"
	"path/filepath"
	"slices"
	"strings"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/gohcl"
	"github.com/hashicorp/hcl/v2/hclsyntax"
	"github.com/zclconf/go-cty/cty"

	"github.com/goldenisc/packer-plugin-isc/internal/hcltext"
	"github.com/goldenisc/packer-plugin-isc/profiles"
)

// A Spec is a decoded spec file.
type Spec struct {
	Image   *Image          `hcl:"image,block"`
	Base    *Base           `hcl:"base,block"`
	Disk    *DiskSource     `hcl:"disk,block"`
	Profile *Profile        `hcl:"profile,block"`
	Files   []File          `hcl:"file,block"`
	Trees   []Tree          `hcl:"tree,block"`
	Links   []Link          `hcl:"link,block"`
	Removes []Remove        `hcl:"remove,block"`
	Layout  profiles.Layout `hcl:",remain"`

	Artifacts []KindBlock // in the order of the file; none stands for the zone archive
	Dir       string      // the folder that names of local files are relative to
	Texts     Texts       // what diagnostics point into
	Inputs    Inputs      // what the spec was read from

	where map[string]hcl.Range // of blocks and values, by path
}

// An Image says what is built.
type Image struct {
	Name        string `hcl:"name"`    // a name for repositories and zones: lower case, digits, inner ".", "_", "-"
	Version     string `hcl:"version"` // an OCI tag
	OS          string `hcl:"os"`      // illumos, solaris (11.4) or linux
	Arch        string `hcl:"arch"`    // amd64 or arm64
	Description string `hcl:"description,optional"`
	// MutableDefaults adds the rules of [profiles.DefaultMutables], for what differs in any running
	// instance, behind those of the mutable blocks. Default true if there is no such block.
	MutableDefaults *bool `hcl:"mutable_defaults,optional"`
}

// A Base is the root file system that an image starts from.
type Base struct {
	// Source is dir:PATH, tar:PATH, zfs:PATH, skeleton:illumos, skeleton:linux, or a reference
	// to an image: oci:DIR, oci-archive:FILE, HOST/REPO.
	Source string `hcl:"source"`
	SHA256 string `hcl:"sha256,optional"` // of the file; 64 hexadecimal digits
	// Release is the newest release of the system that the image's hosts run, such as "r151054"
	// or "12". A zone shares its host's kernel, so a base that is newer is refused.
	Release string `hcl:"release,optional"`
	MaxSize string `hcl:"max_size,optional"` // what the base may unpack to, such as "8GiB"
	// Snapshot is the one wanted of a zfs: source that holds several (zfs send -R): "pool/fs@snap", or
	// "@snap" if no other file system has one of that name. Default the last of the first file system.
	Snapshot string `hcl:"snapshot,optional"`
}

// A Profile selects the controls that are applied.
type Profile struct {
	Name   string            `hcl:"name,optional"`   // default isc-baseline
	Source string            `hcl:"source,optional"` // a profile file, instead of a name
	Set    map[string]string `hcl:"set,optional"`    // parameters
	Waive  []Waiver          `hcl:"waive,block"`
}

// A Waiver excuses a control until the end of a day.
type Waiver struct {
	Control string `hcl:"control"`
	Reason  string `hcl:"reason"`
	Until   string `hcl:"until"` // YYYY-MM-DD
}

// A File is put into the image, from a local file or from the spec itself.
type File struct {
	Path    string  `hcl:"path"`
	Source  string  `hcl:"source,optional"`
	Content *string `hcl:"content,optional"`
	Mode    string  `hcl:"mode,optional"`  // octal, default 0644
	Owner   string  `hcl:"owner,optional"` // name or number, default root
	Group   string  `hcl:"group,optional"` // name or number, default root
}

// A Tree is a folder or an archive laid over the root.
type Tree struct {
	Path   string `hcl:"path"`
	Source string `hcl:"source"`         // dir:PATH or tar:PATH
	Owner  string `hcl:"owner,optional"` // of everything; default as in an archive, root for a folder
	Group  string `hcl:"group,optional"`
}

// A Link is a symbolic link, or a further name of a file.
type Link struct {
	Path   string `hcl:"path"`
	Target string `hcl:"target"`
	Hard   bool   `hcl:"hard,optional"`
}

// A Remove takes files and folders out of the base.
type Remove struct {
	Paths []string `hcl:"paths"` // patterns of [image.NewMatcher]
}

// A KindBlock is one artifact that the spec asks for.
type KindBlock struct {
	Kind   string // the block's name
	ID     string // tells several of one kind apart; default Kind
	Writer Writer
}

// Options are the values that a spec is read with.
type Options struct {
	Set      []string          // "path=value": attributes that replace or add to those of the file, see [ParseSpec]
	Vars     map[string]string // values of variables, as given on a command line
	VarFiles []string          // files with values of variables, HCL or JSON by name
	Env      []string          // the environment, as of os.Environ: ISC_VAR_name sets a variable
}

// ParseSpec reads a spec. The file's name is where the spec was read from: it stands in the
// diagnostics, and its folder is what local names are relative to.
//
// The diagnostics hold everything that is wrong, in the order of the file, see
// [Texts.Write]. The spec is never nil; if there are errors, only its Texts are of use.
//
// Variables take their value from the environment (ISC_VAR_name), else the default; values in a
// variable file win over those, later files over earlier ones, and Vars over all.
//
// An element of Set names an attribute as the diagnostics do, with [N] for one of several blocks
// (counted from 0, needless if there is only one): "image.version=1.4.1",
// "file[1].mode=0555", "profile.set.banner=Hello". A block that may stand once is made if it is
// missing. The value is taken as it is for a string; for anything else, what starts with [, { or
// " is an HCL expression.
func ParseSpec(filename string, src []byte, opts Options) (*Spec, hcl.Diagnostics) {
	p := newParser(filename, src, opts)
	p.parse(filename, src)
	sortDiagnostics(filename, p.diags)
	return p.spec, p.diags
}

// A parser holds the state of one ParseSpec.
type parser struct {
	spec       *Spec
	opts       Options
	start      hcl.Range // of the spec file
	ctx        *hcl.EvalContext
	blocks     []*hclsyntax.Block   // all but variable and locals
	where      map[string]hcl.Range // of blocks and values, by path
	missing    map[string]bool      // required attributes that are not there, by path
	incomplete map[string]bool      // blocks with such attributes, by path
	misspelt   map[string]bool      // blocks that another one was probably meant to be
	failed     []hcl.Range          // of expressions that have no value, and are reported already
	unknown    map[string]bool      // blocks with such expressions, by path
	diags      hcl.Diagnostics
}

func newParser(filename string, src []byte, opts Options) *parser {
	where := map[string]hcl.Range{}
	return &parser{
		spec:  &Spec{Dir: filepath.Dir(filename), Texts: Texts{filename: src}, Inputs: newInputs(filename, src, opts), where: where},
		opts:  opts,
		start: hcl.Range{Filename: filename, Start: hcl.InitialPos, End: hcl.InitialPos},
		where: where, missing: map[string]bool{}, incomplete: map[string]bool{}, misspelt: map[string]bool{}, unknown: map[string]bool{},
	}
}

func (p *parser) parse(filename string, src []byte) {
	body, diags := parseBody(filename, src)
	p.diags = append(p.diags, diags...)
	if diags.HasErrors() {
		return
	}
	p.topLevel(body)
	p.override()
	p.evaluate()
	p.decode()
	p.check()
}

// topLevel sorts the blocks of the file, makes the context that expressions are evaluated in,
// and reports what does not belong into a spec.
func (p *parser) topLevel(body *hclsyntax.Body) {
	for _, attr := range body.Attributes {
		p.errorf(attr.NameRange, "Unsupported argument", "A spec consists of blocks; %q stands outside of them.", attr.Name)
	}
	known := append(blockNames(Schema()), "variable", "locals")
	var variables, locals []*hclsyntax.Block
	for _, b := range body.Blocks {
		switch {
		case b.Type == "variable":
			variables = append(variables, b)
		case b.Type == "locals":
			locals = append(locals, b)
		case slices.Contains(known, b.Type):
			p.blocks = append(p.blocks, b)
		default:
			p.errorf(b.TypeRange, "Unsupported block type", "%s", unknownBlock(b.Type, known))
			p.misspelt[hcltext.Closest(b.Type, known)] = true
		}
	}
	p.variables(variables)
	p.locals(locals)
}

// unknownBlock says that there are no blocks of this type, with a suggestion or what the table of
// kinds has.
func unknownBlock(name string, known []string) string {
	if s := hcltext.Suggest(name, known); s != "" {
		return "Blocks of type " + quote(name) + " are not expected here." + s
	}
	return "A spec has no " + name + " blocks, and this build of iscadm has no " + name +
		" artifacts: it writes " + list(kindNames()) + "."
}

// evaluate replaces every expression by its value, once and for all. An attribute whose value is
// null is taken out, as if it was not written.
func (p *parser) evaluate() {
	count := map[string]int{}
	for _, b := range p.blocks {
		schema, _ := findBlock(Schema(), b.Type)
		p.evaluateBlock(b, schema, schema.path("", count))
	}
}

func (p *parser) evaluateBlock(b *hclsyntax.Block, schema Block, path string) {
	p.where[path] = b.DefRange()
	for _, name := range sortedKeys(b.Body.Attributes) {
		attr := b.Body.Attributes[name]
		at := attr.Expr.Range()
		p.where[path+"."+name] = at
		if tuple, ok := attr.Expr.(*hclsyntax.TupleConsExpr); ok {
			for i, e := range tuple.Exprs {
				p.where[fmt.Sprintf("%s.%s[%d]", path, name, i)] = e.Range()
			}
		}
		if object, ok := attr.Expr.(*hclsyntax.ObjectConsExpr); ok {
			for _, item := range object.Items {
				if key := literalKey(item.KeyExpr); key != "" {
					p.where[path+"."+name+"."+key] = item.ValueExpr.Range()
				}
			}
		}
		if p.numberForString(attr, schema) {
			p.fail(attr, path)
			continue
		}
		v, diags := p.value(attr.Expr, p.ctx)
		p.diags = append(p.diags, diags...)
		switch {
		case diags.HasErrors() || !v.IsWhollyKnown():
			p.fail(attr, path)
		case v.IsNull():
			delete(b.Body.Attributes, name)
		default:
			attr.Expr = &hclsyntax.LiteralValueExpr{Val: v, SrcRange: at}
		}
	}
	for _, a := range schema.Attributes {
		if a.Required && b.Body.Attributes[a.Name] == nil {
			// Reported when the block is decoded.
			p.missing[path+"."+a.Name] = true
			p.incomplete[path] = true
		}
	}
	count := map[string]int{}
	for _, nested := range b.Body.Blocks {
		child, ok := findBlock(schema.Blocks, nested.Type)
		if !ok {
			continue // reported when the block is decoded
		}
		p.evaluateBlock(nested, child, child.path(path+".", count))
	}
}

// literalKey returns the key of an object item if it is written out, else "".
func literalKey(expr hclsyntax.Expression) string {
	if key := hcl.ExprAsKeyword(expr); key != "" {
		return key
	}
	if v, diags := expr.Value(nil); !diags.HasErrors() && v.Type() == cty.String && v.IsKnown() && !v.IsNull() {
		return v.AsString()
	}
	return ""
}

// fail notes that the attribute, in the block at path, has no value and why is reported: what follows from that is not.
func (p *parser) fail(attr *hclsyntax.Attribute, path string) {
	p.unknown[path] = true
	at := attr.Expr.Range()
	p.failed = append(p.failed, at)
	attr.Expr = &hclsyntax.LiteralValueExpr{Val: cty.DynamicVal, SrcRange: at}
}

// numberForString refuses a bare number where a string is meant: version = 1.10 would be "1.1"
// and mode = 0555 lose its zero.
func (p *parser) numberForString(attr *hclsyntax.Attribute, schema Block) bool {
	lit, ok := attr.Expr.(*hclsyntax.LiteralValueExpr)
	if !ok || lit.Val.Type() != cty.Number {
		return false
	}
	a, ok := schema.attribute(attr.Name)
	if !ok || a.Type != cty.String {
		return false
	}
	text := lit.SrcRange.SliceBytes(p.spec.Texts[lit.SrcRange.Filename])
	p.errorf(lit.SrcRange, "Unsuitable value type", "A string is required: write \"%s\", in quotes.", text)
	return true
}

// decode turns blocks into the fields of the spec.
func (p *parser) decode() {
	var specBlocks []*hclsyntax.Block
	first := map[string]*hclsyntax.Block{}
	for _, b := range p.blocks {
		schema, _ := findBlock(Schema(), b.Type)
		switch {
		case schema.Kind:
			p.decodeKind(b)
		case !schema.Repeatable && first[b.Type] != nil:
			p.errorf(b.DefRange(), "Duplicate block", "Only one %s block is allowed; the first is at %s.", b.Type, first[b.Type].DefRange())
		default:
			first[b.Type] = b
			specBlocks = append(specBlocks, b)
		}
	}
	body := &hclsyntax.Body{Blocks: specBlocks, SrcRange: p.start, EndRange: p.start}
	diags := gohcl.DecodeBody(body, p.ctx, p.spec)
	p.follow(diags)
	for _, d := range diags {
		p.unreadable(d)
	}
	for _, name := range []string{"image", "base"} {
		if first[name] == nil && !p.misspelt[name] && (name != "base" || first["disk"] == nil && !p.misspelt["disk"]) {
			p.errorf(p.start, "Missing block", "A spec needs one %s block.", name)
		}
	}
	p.spec.Complete()
}

// Complete fills in the defaults that the field comments name. [ParseSpec] has done it; those who
// fill a Spec otherwise call it before [Spec.Check].
func (s *Spec) Complete() {
	if s.Profile == nil {
		s.Profile = &Profile{}
	}
	if s.Profile.Name == "" && s.Profile.Source == "" {
		s.Profile.Name = DefaultProfile
		if s.Base == nil && s.Disk != nil {
			s.Profile.Name = "none" // there is nothing that a profile could be applied to
		}
	}
	for i := range s.Files {
		f := &s.Files[i]
		f.Mode, f.Owner, f.Group = cmp.Or(f.Mode, "0644"), cmp.Or(f.Owner, "root"), cmp.Or(f.Group, "root")
	}
	if s.Image != nil {
		s.Layout.OS, s.Layout.Name = s.Image.OS, s.Image.Name
	}
}

// DefaultProfile is applied by a spec that names none.
const DefaultProfile = "isc-baseline"

func (p *parser) decodeKind(b *hclsyntax.Block) {
	if len(b.Labels) > 0 {
		p.errorf(b.LabelRanges[0], "Extraneous label", "No labels are expected for %s blocks; use id to tell several apart.", b.Type)
	}
	k := KindBlock{Kind: b.Type, ID: b.Type}
	if attr := b.Body.Attributes["id"]; attr != nil {
		// A value of another type is reported by the kind.
		gohcl.DecodeExpression(attr.Expr, p.ctx, &k.ID)
	}
	for _, kind := range Kinds {
		if kind.Block == b.Type {
			var diags hcl.Diagnostics
			k.Writer, diags = kind.New(b.Body, p.ctx)
			p.follow(diags)
		}
	}
	p.spec.Artifacts = append(p.spec.Artifacts, k)
}

// follow adds diagnostics of a decoder, but not those that follow from an expression without a
// value.
func (p *parser) follow(diags hcl.Diagnostics) {
	for _, d := range diags {
		if d.Subject == nil || !p.hasFailed(*d.Subject) {
			p.diags = append(p.diags, d)
		}
	}
}

// unreadable notes the value, if there is one, that a decoder could not make sense of.
func (p *parser) unreadable(d *hcl.Diagnostic) {
	if d.Subject == nil {
		return
	}
	for path, at := range p.where {
		if i := strings.LastIndexByte(path, '.'); i >= 0 && contains(at, *d.Subject) {
			p.failed = append(p.failed, at)
			p.unknown[path[:i]] = true
		}
	}
}

func contains(r, part hcl.Range) bool {
	return r.Filename == part.Filename && r.Start.Byte <= part.Start.Byte && part.End.Byte <= r.End.Byte
}

func (p *parser) hasFailed(at hcl.Range) bool {
	return slices.ContainsFunc(p.failed, func(r hcl.Range) bool { return contains(r, at) })
}
