package iscimage

import (
	"slices"
	"testing"

	"github.com/hashicorp/hcl/v2/hcldec"
	"github.com/zclconf/go-cty/cty"

	"github.com/goldenisc/packer-plugin-isc/builder"
)

// TestSchema holds what Packer is told against the types that a spec decodes into.
func TestSchema(t *testing.T) {
	got := hcldec.ImpliedType(new(Builder).ConfigSpec()).AttributeTypes()
	own := new(Config).FlatMapstructure().HCL2Spec()
	for _, b := range builder.Schema() {
		if own[b.Name] != nil {
			t.Errorf("%q is a block of the spec and a field of the source", b.Name)
		}
		compare(t, b.Name, b, got[b.Name])
		delete(got, b.Name)
	}
	for name := range got {
		if own[name] == nil {
			t.Errorf("%q is neither", name)
		}
	}
}

func compare(t *testing.T, path string, b builder.Block, typ cty.Type) {
	t.Helper()
	if b.Repeatable {
		if !typ.IsListType() {
			t.Fatalf("%s is %s", path, typ.FriendlyName())
		}
		typ = typ.ElementType()
	}
	if !typ.IsObjectType() {
		t.Fatalf("%s is %s", path, typ.FriendlyName())
	}
	have := typ.AttributeTypes()
	var names []string
	for _, a := range b.Attributes {
		names = append(names, a.Name)
		if have[a.Name] == cty.NilType || !have[a.Name].Equals(a.Type) {
			t.Errorf("%s.%s is %#v, want %#v", path, a.Name, have[a.Name], a.Type)
		}
	}
	for _, n := range b.Blocks {
		names = append(names, n.Name)
		compare(t, path+"."+n.Name, n, have[n.Name])
	}
	for name := range have {
		if !slices.Contains(names, name) {
			t.Errorf("%s.%s is not in the spec", path, name)
		}
	}
}

func TestPrepareLegacy(t *testing.T) {
	var b Builder
	_, _, err := b.Prepare(map[string]any{
		"output": "oci:{{user `place`}}",
		"image":  map[string]any{"name": "web", "version": "{{user `version`}}", "os": []byte("linux"), "arch": "amd64"},
		"base":   []any{map[any]any{"source": "skeleton:linux"}},
		"limits": map[string]any{"processes": 10.0},
	}, map[string]any{"packer_user_variables": map[string]string{"version": "2", "place": "images"}})
	if err != nil {
		t.Fatal(err)
	}
	if got := b.job.Output.String(); got != "oci:images:latest" {
		t.Errorf("output %s", got)
	}
	if b.job.Spec.Image.OS != "linux" || b.job.Spec.Image.Version != "2" || b.job.Spec.Base.Source != "skeleton:linux" || b.job.Spec.Layout.Limits.Processes != 10 {
		t.Errorf("%+v", b.job.Spec)
	}
	_, _, err = b.Prepare(map[string]any{"output": "oci:x", "nonsense": 1, "image": map[string]any{}})
	if err == nil {
		t.Error("an unknown key was taken")
	}
}
