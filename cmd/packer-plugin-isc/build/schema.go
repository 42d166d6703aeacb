package build

import (
	"os"
	"slices"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hcldec"
	sdk "github.com/hashicorp/packer-plugin-sdk/packer"
	"github.com/zclconf/go-cty/cty"

	"github.com/goldenisc/packer-plugin-isc/builder"
)

// Blocks says in the words of hcldec what the schema of a spec says.
func Blocks(schema []builder.Block) hcldec.ObjectSpec {
	spec := hcldec.ObjectSpec{}
	for _, b := range schema {
		nested := Blocks(b.Blocks)
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

// Split parts the blocks of the schema from a component's own fields: of raws, which are what Packer
// hands to it, it returns the blocks, cty.NilVal if there are none, and the rest.
func Split(schema []builder.Block, raws []any) (cty.Value, []any, error) {
	blocks, rest := cty.NilVal, slices.Clone(raws)
	for i, raw := range raws {
		v, ok := raw.(cty.Value)
		m, isMap := raw.(map[string]any)
		if isMap {
			var err error
			if v, err = legacy(schema, m, raws); err != nil {
				return cty.NilVal, nil, err
			}
		}
		if !ok && !isMap || v.IsNull() || !v.Type().IsObjectType() {
			continue
		}
		fields, spec := split(schema, v)
		if spec.LengthInt() > 0 {
			var err error
			if blocks, err = withUnknown(spec); err != nil {
				return cty.NilVal, nil, err
			}
		}
		if rest[i] = fields; isMap {
			rest[i] = without(m, spec)
		}
	}
	return blocks, rest, nil
}

// split parts one value. What is null, or a list of no blocks, was not written.
func split(schema []builder.Block, v cty.Value) (fields, spec cty.Value) {
	rest, blocks := map[string]cty.Value{}, map[string]cty.Value{}
	for name, value := range v.AsValueMap() {
		switch {
		case !slices.ContainsFunc(schema, func(b builder.Block) bool { return b.Name == name }):
			rest[name] = value
		case value.IsNull() || value.IsKnown() && value.CanIterateElements() && value.LengthInt() == 0:
		default:
			blocks[name] = value
		}
	}
	return cty.ObjectVal(rest), cty.ObjectVal(blocks)
}

// Parse reads the spec that stands in a template. Names of local files are relative to the folder that
// Packer runs in.
func Parse(blocks cty.Value) (*builder.Spec, hcl.Diagnostics) {
	dir, err := os.Getwd()
	if err != nil {
		return nil, hcl.Diagnostics{{Severity: hcl.DiagError, Summary: err.Error()}}
	}
	return builder.ParseValue(blocks, dir)
}

// Report sorts diagnostics into warnings and errors, each on one line that stands for itself: Packer
// shows no source.
func Report(diags hcl.Diagnostics, errs *sdk.MultiError) ([]string, *sdk.MultiError) {
	var warnings []string
	for _, d := range diags {
		text := d.Summary
		if d.Detail != "" {
			text = d.Detail
		}
		switch at := d.Subject; {
		case at == nil || at.Filename == "":
		case at.Start != at.End: // in a file
			text = at.String() + ": " + text
		default: // in a value, whose place is the path of the block
			text = at.Filename + ": " + text
		}
		if d.Severity == hcl.DiagWarning {
			warnings = append(warnings, text)
		} else {
			errs = Append(errs, textError(text))
		}
	}
	return warnings, errs
}

type textError string

func (e textError) Error() string { return string(e) }

// Append adds an error, unless it is nil.
func Append(errs *sdk.MultiError, err error) *sdk.MultiError {
	if err == nil {
		return errs
	}
	return sdk.MultiErrorAppend(errs, err)
}

// Err returns the errors as one, or nil.
func Err(errs *sdk.MultiError) error {
	if errs == nil || len(errs.Errors) == 0 {
		return nil
	}
	return errs
}
