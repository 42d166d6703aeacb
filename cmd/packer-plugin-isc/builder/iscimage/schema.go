package iscimage

import (
	"maps"

	"github.com/hashicorp/hcl/v2/hcldec"
	"github.com/zclconf/go-cty/cty"

	"github.com/goldenisc/packer-plugin-isc/builder"
)

// ConfigSpec is what Packer decodes a source by: the fields of Config and the blocks of a spec.
func (b *Builder) ConfigSpec() hcldec.ObjectSpec {
	spec := hcldec.ObjectSpec(new(Config).FlatMapstructure().HCL2Spec())
	maps.Copy(spec, blocks(builder.Schema()))
	return spec
}

// blocks says in the words of hcldec what the schema says.
func blocks(schema []builder.Block) hcldec.ObjectSpec {
	spec := hcldec.ObjectSpec{}
	for _, b := range schema {
		nested := blocks(b.Blocks)
		for _, a := range b.Attributes {
			nested[a.Name] = &hcldec.AttrSpec{Name: a.Name, Type: a.Type, Required: a.Required}
		}
		if b.Repeatable {
			spec[b.Name] = &hcldec.BlockListSpec{TypeName: b.Name, Nested: nested}
		} else {
			spec[b.Name] = &hcldec.BlockSpec{TypeName: b.Name, Nested: nested}
		}
	}
	return spec
}

// split parts the blocks of a spec from the fields of Config. What is null, or a list of no blocks,
// was not written.
func split(v cty.Value) (fields, spec cty.Value) {
	ours := blocks(builder.Schema())
	rest, blocks := map[string]cty.Value{}, map[string]cty.Value{}
	for name, value := range v.AsValueMap() {
		switch {
		case ours[name] == nil:
			rest[name] = value
		case value.IsNull() || value.IsKnown() && value.CanIterateElements() && value.LengthInt() == 0:
		default:
			blocks[name] = value
		}
	}
	return cty.ObjectVal(rest), cty.ObjectVal(blocks)
}
