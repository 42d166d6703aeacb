package build

import (
	"fmt"
	"maps"

	"github.com/hashicorp/packer-plugin-sdk/template/config"
	"github.com/hashicorp/packer-plugin-sdk/template/interpolate"
	"github.com/zclconf/go-cty/cty"

	"github.com/goldenisc/packer-plugin-isc/builder"
)

// legacy turns the configuration of a JSON template, in which {{user `name`}} stands for a variable,
// into the value that one in HCL would be.
func legacy(schema []builder.Block, m map[string]any, raws []any) (cty.Value, error) {
	ctx, err := config.DetectContext(raws...)
	if err != nil {
		return cty.NilVal, err
	}
	blocks := map[string]any{}
	for _, b := range schema {
		if v, ok := m[b.Name]; ok {
			blocks[b.Name] = v
		}
	}
	rendered, err := interpolate.RenderMap(blocks, ctx, nil)
	if err != nil {
		return cty.NilVal, err
	}
	return valueOf(rendered)
}

// without returns the configuration less the blocks of the spec.
func without(m map[string]any, spec cty.Value) map[string]any {
	m = maps.Clone(m)
	for name := range spec.AsValueMap() {
		delete(m, name)
	}
	return m
}

// valueOf converts what JSON and the transport between Packer's processes make of values.
func valueOf(v any) (cty.Value, error) {
	switch v := v.(type) {
	case nil:
		return cty.NullVal(cty.DynamicPseudoType), nil
	case string:
		return cty.StringVal(v), nil
	case []byte:
		return cty.StringVal(string(v)), nil
	case bool:
		return cty.BoolVal(v), nil
	case int:
		return cty.NumberIntVal(int64(v)), nil
	case int64:
		return cty.NumberIntVal(v), nil
	case uint64:
		return cty.NumberUIntVal(v), nil
	case float64:
		return cty.NumberFloatVal(v), nil
	case []any:
		list := make([]cty.Value, len(v))
		for i, e := range v {
			var err error
			if list[i], err = valueOf(e); err != nil {
				return cty.NilVal, err
			}
		}
		return cty.TupleVal(list), nil
	case map[any]any:
		m := map[string]any{}
		for key, e := range v {
			m[fmt.Sprint(key)] = e
		}
		return valueOf(m)
	case map[string]any:
		object := map[string]cty.Value{}
		for key, e := range v {
			var err error
			if object[key], err = valueOf(e); err != nil {
				return cty.NilVal, err
			}
		}
		return cty.ObjectVal(object), nil
	}
	return cty.NilVal, fmt.Errorf("a value of type %T is not expected", v)
}
