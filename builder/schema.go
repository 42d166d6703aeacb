package builder

import (
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"
	"sync"

	"github.com/hashicorp/hcl/v2"
	"github.com/zclconf/go-cty/cty"
	"github.com/zclconf/go-cty/cty/gocty"
)

// A Block is the schema of one block of the spec.
type Block struct {
	Name       string
	Repeatable bool
	Kind       bool // an artifact, of the table of Kinds
	Attributes []Attribute
	Blocks     []Block
}

// An Attribute is the schema of one attribute.
type Attribute struct {
	Name     string
	Type     cty.Type
	Required bool
}

// Schema returns the blocks of a spec in the order of the types that they decode into: those of
// [Spec] first, then those of [Kinds]. It is derived from the types, for those who offer the same
// blocks elsewhere and for documentation. The result is shared and must not be changed.
func Schema() []Block { return schema() }

var schema = sync.OnceValue(func() []Block {
	blocks := structSchema(reflect.TypeFor[Spec]()).Blocks
	for _, k := range Kinds {
		w, _ := k.New(hcl.EmptyBody(), nil)
		b := structSchema(reflect.TypeOf(w).Elem())
		b.Name, b.Repeatable, b.Kind = k.Block, true, true
		blocks = append(blocks, b)
	}
	return blocks
})

// structSchema reads the tags of package gohcl.
func structSchema(t reflect.Type) Block {
	var b Block
	for i := range t.NumField() {
		f := t.Field(i)
		name, kind, _ := strings.Cut(f.Tag.Get("hcl"), ",")
		switch {
		case kind == "remain":
			rest := structSchema(f.Type)
			b.Attributes = append(b.Attributes, rest.Attributes...)
			b.Blocks = append(b.Blocks, rest.Blocks...)
		case name == "":
		case kind == "block":
			ft := f.Type
			repeatable := ft.Kind() == reflect.Slice
			if repeatable || ft.Kind() == reflect.Pointer {
				ft = ft.Elem()
			}
			nested := structSchema(ft)
			nested.Name, nested.Repeatable = name, repeatable
			b.Blocks = append(b.Blocks, nested)
		default:
			typ, err := gocty.ImpliedType(reflect.New(f.Type).Interface())
			if err != nil {
				panic(fmt.Sprintf("%s.%s: %v", t, f.Name, err))
			}
			b.Attributes = append(b.Attributes, Attribute{Name: name, Type: typ, Required: kind == ""})
		}
	}
	return b
}

func (b Block) attribute(name string) (Attribute, bool) {
	i := slices.IndexFunc(b.Attributes, func(a Attribute) bool { return a.Name == name })
	if i < 0 {
		return Attribute{}, false
	}
	return b.Attributes[i], true
}

// path returns the next block's path, as in "file[2]", counting in count.
func (b Block) path(prefix string, count map[string]int) string {
	if !b.Repeatable {
		return prefix + b.Name
	}
	n := count[b.Name]
	count[b.Name]++
	return fmt.Sprintf("%s%s[%d]", prefix, b.Name, n)
}

func findBlock(blocks []Block, name string) (Block, bool) {
	i := slices.IndexFunc(blocks, func(b Block) bool { return b.Name == name })
	if i < 0 {
		return Block{}, false
	}
	return blocks[i], true
}

func blockNames(blocks []Block) []string {
	names := make([]string, len(blocks))
	for i, b := range blocks {
		names[i] = b.Name
	}
	return names
}

func attributeNames(attrs []Attribute) []string {
	names := make([]string, len(attrs))
	for i, a := range attrs {
		names[i] = a.Name
	}
	return names
}

func kindNames() []string {
	names := make([]string, len(Kinds))
	for i, k := range Kinds {
		names[i] = k.Block
	}
	return names
}

func sortedKeys[V any](m map[string]V) []string { return slices.Sorted(maps.Keys(m)) }
