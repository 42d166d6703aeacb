package builder

import (
	"fmt"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclsyntax"
	"github.com/zclconf/go-cty/cty"
	ctyjson "github.com/zclconf/go-cty/cty/json"
)

// ParseValue reads a spec that is no file but a value of another configuration language with the
// blocks of [Schema]: an object whose attributes are the names of blocks, each an object, or a list
// of objects. What is null counts as not written. Names of local files are relative to dir.
//
// What is unknown is not checked, and neither is what follows from it; such a spec is of no other use.
//
// There is no source that diagnostics could point into: their subject's Filename is the path of the
// block or attribute, such as "file[1].mode", and empty for the spec as a whole.
func ParseValue(v cty.Value, dir string) (*Spec, hcl.Diagnostics) {
	p := newParser("", nil, Options{})
	p.spec.Dir, p.spec.Texts = dir, nil
	switch {
	case !v.IsKnown() || v.IsNull() || !isObject(v):
		p.errorf(p.start, "Unsuitable value type", "A spec is an object of blocks.")
	default:
		if v.IsWhollyKnown() {
			text, err := ctyjson.Marshal(v, v.Type())
			if err != nil {
				p.errorf(p.start, "Unsuitable value", "%v", err)
				break
			}
			p.spec.Inputs = newInputs("spec.json", text, Options{})
		}
		body := p.body(v, Block{Blocks: Schema()}, "")
		p.topLevel(body)
		p.evaluate()
		p.decode()
		p.check()
		p.spec.where = nil // there is no file that it could be told of later
	}
	sortDiagnostics("", p.diags)
	return p.spec, p.diags
}

func isObject(v cty.Value) bool { return v.Type().IsObjectType() || v.Type().IsMapType() }

// placeOf is the range that stands for a path.
func placeOf(path string) hcl.Range {
	return hcl.Range{Filename: path, Start: hcl.InitialPos, End: hcl.InitialPos}
}

// body turns the object at path into what the parser of HCL makes of a block.
func (p *parser) body(v cty.Value, schema Block, path string) *hclsyntax.Body {
	at := placeOf(path)
	body := &hclsyntax.Body{Attributes: hclsyntax.Attributes{}, SrcRange: at, EndRange: at}
	prefix := path
	if prefix != "" {
		prefix += "."
	}
	for it := v.ElementIterator(); it.Next(); {
		key, value := it.Element()
		name := key.AsString()
		if value.IsNull() {
			continue
		}
		if _, ok := findBlock(schema.Blocks, name); ok && !value.IsKnown() {
			p.unknown[prefix+name] = true
			continue
		}
		// What has no place in the schema is left as it is: the parser has the words for it.
		child, ok := findBlock(schema.Blocks, name)
		if !ok && isBlock(value) && schema.Name == "" {
			child, ok = Block{Name: name, Repeatable: true}, true
		}
		if !ok {
			at := placeOf(prefix + name)
			body.Attributes[name] = &hclsyntax.Attribute{Name: name, Expr: expressionOf(value, at), SrcRange: at, NameRange: at, EqualsRange: at}
			continue
		}
		blocks := []cty.Value{value}
		if value.Type().IsTupleType() || value.Type().IsListType() || value.Type().IsSetType() {
			blocks = value.AsValueSlice()
		}
		for i, b := range blocks {
			at := prefix + name
			if child.Repeatable {
				at = fmt.Sprintf("%s[%d]", at, i)
			}
			if !b.IsKnown() {
				p.unknown[at] = true
				continue
			}
			if b.IsNull() || !isObject(b) {
				p.errorf(placeOf(at), "Unsuitable value type", "%s is a block.", name)
				continue
			}
			body.Blocks = append(body.Blocks, &hclsyntax.Block{
				Type: name, TypeRange: placeOf(at), OpenBraceRange: placeOf(at), CloseBraceRange: placeOf(at), Body: p.body(b, child, at),
			})
		}
	}
	return body
}

// isBlock says whether a value looks like one block or several.
func isBlock(v cty.Value) bool {
	if isObject(v) {
		return true
	}
	if !v.CanIterateElements() || v.LengthInt() == 0 {
		return false
	}
	for it := v.ElementIterator(); it.Next(); {
		if _, e := it.Element(); e.IsNull() || !isObject(e) {
			return false
		}
	}
	return true
}

// expressionOf takes lists and maps apart, so that each element has its place.
func expressionOf(v cty.Value, at hcl.Range) hclsyntax.Expression {
	if !v.IsKnown() || v.IsNull() || !v.CanIterateElements() {
		return &hclsyntax.LiteralValueExpr{Val: v, SrcRange: at}
	}
	if isObject(v) {
		object := &hclsyntax.ObjectConsExpr{SrcRange: at, OpenRange: at}
		for it := v.ElementIterator(); it.Next(); {
			key, value := it.Element()
			at := placeOf(at.Filename + "." + key.AsString())
			object.Items = append(object.Items, hclsyntax.ObjectConsItem{
				KeyExpr: &hclsyntax.LiteralValueExpr{Val: key, SrcRange: at}, ValueExpr: expressionOf(value, at),
			})
		}
		return object
	}
	tuple := &hclsyntax.TupleConsExpr{SrcRange: at, OpenRange: at}
	i := 0
	for it := v.ElementIterator(); it.Next(); i++ {
		_, value := it.Element()
		tuple.Exprs = append(tuple.Exprs, expressionOf(value, placeOf(fmt.Sprintf("%s[%d]", at.Filename, i))))
	}
	return tuple
}
