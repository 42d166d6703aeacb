package build

import (
	"reflect"
	"slices"
	"testing"

	"github.com/zclconf/go-cty/cty"

	"github.com/goldenisc/packer-plugin-isc/builder"
)

func TestSplit(t *testing.T) {
	fields, spec := split(builder.Schema(), cty.ObjectVal(map[string]cty.Value{
		"output":  cty.StringVal("oci:x"),
		"image":   cty.ObjectVal(map[string]cty.Value{"name": cty.StringVal("web")}),
		"scratch": cty.NullVal(cty.DynamicPseudoType),
		"file":    cty.ListValEmpty(cty.EmptyObject),
		"zone":    cty.TupleVal([]cty.Value{cty.EmptyObjectVal}),
	}))
	if got := keys(fields); !reflect.DeepEqual(got, []string{"output"}) {
		t.Errorf("fields %v", got)
	}
	if got := keys(spec); !reflect.DeepEqual(got, []string{"image", "zone"}) {
		t.Errorf("blocks %v", got)
	}
}

func keys(v cty.Value) []string {
	var list []string
	for name := range v.AsValueMap() {
		list = append(list, name)
	}
	slices.Sort(list)
	return list
}
