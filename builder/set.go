package builder

import (
	"fmt"
	"slices"
	"strings"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclsyntax"
	"github.com/zclconf/go-cty/cty"

	"github.com/goldenisc/packer-plugin-isc/internal/hcltext"
)

// override applies the elements of Options.Set to the blocks, before anything is evaluated.
func (p *parser) override() {
	body := &hclsyntax.Body{Blocks: p.blocks}
	for _, arg := range p.opts.Set {
		p.set(body, arg)
	}
	p.blocks = body.Blocks
}

// set applies one "path=value". Its own text takes the place of a source file in diagnostics.
func (p *parser) set(body *hclsyntax.Body, arg string) {
	path, raw, found := strings.Cut(arg, "=")
	s := &setting{parser: p, path: path, raw: raw, file: "--set " + path}
	for n := 2; p.spec.Texts[s.file] != nil; n++ {
		s.file = fmt.Sprintf("--set %s (%d)", path, n)
	}
	p.spec.Texts[s.file] = []byte(arg)
	if !found {
		s.errorf("There is no = in it: a path and a value are required, as in image.version=1.4.1.")
		return
	}
	if len(arg) > hcltext.Max {
		s.errorf("The value has more than %d bytes.", hcltext.Max)
		return
	}
	t, diags := hclsyntax.ParseTraversalAbs([]byte(path), s.file, hcl.InitialPos)
	if diags.HasErrors() {
		s.errorf("%q is no path such as image.version, file[0].mode or profile.set.banner.", path)
		return
	}
	s.descend(body, Block{Blocks: Schema()}, steps(t))
}

// A setting is a --set at work.
type setting struct {
	*parser
	path, raw, file string
}

func (s *setting) errorf(format string, args ...any) {
	s.parser.errorf(s.pathRange(), "Invalid --set", format, args...)
}

func (s *setting) pathRange() hcl.Range { return s.textRange(0, len(s.path)) }

func (s *setting) textRange(from, to int) hcl.Range {
	return hcl.Range{
		Filename: s.file,
		Start:    hcl.Pos{Line: 1, Column: from + 1, Byte: from},
		End:      hcl.Pos{Line: 1, Column: to + 1, Byte: to},
	}
}

// A step is one element of a path: a name, or an index.
type step struct {
	name  string
	index int // -1 for a name
}

// maxIndex is more blocks than a file can hold.
const maxIndex = hcltext.Max

// steps flattens a traversal. A quoted key is a name, anything odd an index that no list has.
func steps(t hcl.Traversal) []step {
	var out []step
	for _, e := range t {
		switch e := e.(type) {
		case hcl.TraverseRoot:
			out = append(out, step{e.Name, -1})
		case hcl.TraverseAttr:
			out = append(out, step{e.Name, -1})
		case hcl.TraverseIndex:
			if e.Key.Type() == cty.String {
				out = append(out, step{e.Key.AsString(), -1})
				continue
			}
			n, acc := e.Key.AsBigFloat().Int64()
			if acc != 0 || n < 0 || n > maxIndex {
				n = maxIndex
			}
			out = append(out, step{"", int(n)})
		}
	}
	return out
}

// descend finds the attribute below a block whose schema is given.
func (s *setting) descend(body *hclsyntax.Body, schema Block, path []step) {
	first, rest := path[0], path[1:]
	if first.index >= 0 {
		s.errorf("%s is not repeated: no index is expected.", schema.Name)
		return
	}
	if child, ok := findBlock(schema.Blocks, first.name); ok {
		if b, rest := s.choose(body, child, rest); b != nil {
			if len(rest) == 0 {
				s.errorf("%s is a block: name one of its attributes: %s.", s.path, list(attributeNames(child.Attributes)))
				return
			}
			s.descend(b.Body, child, rest)
		}
		return
	}
	attr, ok := schema.attribute(first.name)
	if !ok {
		names := append(attributeNames(schema.Attributes), blockNames(schema.Blocks)...)
		what := "The spec has no block"
		if schema.Name != "" {
			what = "Block " + schema.Name + " has no"
		}
		s.errorf("%s %q.%s", what, first.name, hcltext.Suggest(first.name, names))
		return
	}
	s.assign(body, attr, rest)
}

// choose returns the block that the steps after its name mean, and the steps that are left.
func (s *setting) choose(body *hclsyntax.Body, schema Block, path []step) (*hclsyntax.Block, []step) {
	var blocks []*hclsyntax.Block
	for _, b := range body.Blocks {
		if b.Type == schema.Name {
			blocks = append(blocks, b)
		}
	}
	if !schema.Repeatable {
		if len(blocks) == 0 {
			at := s.pathRange()
			b := &hclsyntax.Block{
				Type: schema.Name, TypeRange: at, OpenBraceRange: at, CloseBraceRange: at,
				Body: &hclsyntax.Body{Attributes: hclsyntax.Attributes{}, SrcRange: at, EndRange: at},
			}
			body.Blocks = append(body.Blocks, b)
			return b, path
		}
		return blocks[0], path
	}
	index := 0
	switch {
	case len(path) > 0 && path[0].index >= 0:
		index, path = path[0].index, path[1:]
	case len(blocks) > 1:
		s.errorf("The spec has %d %s blocks: say which, from %s[0] to %s[%d].", len(blocks), schema.Name, schema.Name, schema.Name, len(blocks)-1)
		return nil, nil
	}
	if index >= len(blocks) {
		have := fmt.Sprintf("%d %s blocks", len(blocks), schema.Name)
		switch len(blocks) {
		case 0:
			have = "no " + schema.Name + " block"
		case 1:
			have = "one " + schema.Name + " block"
		}
		s.errorf("The spec has %s; blocks are counted from 0.", have)
		return nil, nil
	}
	return blocks[index], path
}

// assign sets an attribute, or a key of one that is a map.
func (s *setting) assign(body *hclsyntax.Body, attr Attribute, key []step) {
	typ := attr.Type
	if len(key) > 0 {
		if !typ.IsMapType() || len(key) > 1 || key[0].index >= 0 {
			s.errorf("%s has nothing below it that could be set.", attr.Name)
			return
		}
		typ = typ.ElementType()
	}
	expr, ok := s.expression(typ)
	if !ok {
		return
	}
	at := s.pathRange()
	old := body.Attributes[attr.Name]
	if len(key) > 0 {
		// Of keys that are there twice, the later wins.
		item := hclsyntax.ObjectConsItem{
			KeyExpr:   &hclsyntax.LiteralValueExpr{Val: cty.StringVal(key[0].name), SrcRange: at},
			ValueExpr: expr,
		}
		object := &hclsyntax.ObjectConsExpr{SrcRange: at, OpenRange: at}
		if old != nil {
			o, ok := old.Expr.(*hclsyntax.ObjectConsExpr)
			if !ok {
				s.errorf("%s is not written as { … } in the spec: set it as a whole.", attr.Name)
				return
			}
			object = &hclsyntax.ObjectConsExpr{SrcRange: o.SrcRange, OpenRange: o.OpenRange, Items: slices.Clone(o.Items)}
		}
		object.Items = append(object.Items, item)
		expr = object
	}
	body.Attributes[attr.Name] = &hclsyntax.Attribute{Name: attr.Name, Expr: expr, SrcRange: at, NameRange: at, EqualsRange: at}
}

// expression makes an expression of the value, see [ParseSpec].
func (s *setting) expression(typ cty.Type) (hclsyntax.Expression, bool) {
	from := len(s.path) + 1
	at := s.textRange(from, from+len(s.raw))
	if typ != cty.String && s.raw != "" && strings.ContainsRune("[{\"", rune(s.raw[0])) {
		expr, diags := parseExpression(s.file, s.raw, at.Start)
		s.diags = append(s.diags, diags...)
		return expr, !diags.HasErrors()
	}
	return &hclsyntax.LiteralValueExpr{Val: cty.StringVal(s.raw), SrcRange: at}, true
}
