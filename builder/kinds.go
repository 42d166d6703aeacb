package builder

import (
	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/gohcl"
)

// A Kind is one artifact format. New decodes its block of the spec into a Writer: a pointer to a
// struct whose hcl tags name the attributes, also if there are errors.
type Kind struct {
	Block string
	New   func(body hcl.Body, ctx *hcl.EvalContext) (Writer, hcl.Diagnostics)
}

// A Writer writes the artifacts of one block of the spec.
type Writer interface{}

// Kinds is the table of artifact formats.
var Kinds = []Kind{
	{Block: "zone", New: newZone},
}

// A Zone is the archive of the root, as zoneadm install and container runtimes take it.
type Zone struct {
	ID          string `hcl:"id,optional"`
	Brand       string `hcl:"brand,optional"`
	Dialect     string `hcl:"dialect,optional"`     // pax or ustar-strict
	Compression string `hcl:"compression,optional"` // none, gzip or zstd
}

func newZone(body hcl.Body, ctx *hcl.EvalContext) (Writer, hcl.Diagnostics) {
	z := &Zone{ID: "zone", Dialect: "pax", Compression: "zstd"}
	diags := gohcl.DecodeBody(body, ctx, z)
	diags = append(diags, oneOf(body, "dialect", z.Dialect, "pax", "ustar-strict")...)
	diags = append(diags, oneOf(body, "compression", z.Compression, "none", "gzip", "zstd")...)
	return z, diags
}

// oneOf checks the value of an attribute of a body that has few values.
func oneOf(body hcl.Body, name, value string, values ...string) hcl.Diagnostics {
	for _, v := range values {
		if v == value {
			return nil
		}
	}
	at := body.MissingItemRange()
	content, _, _ := body.PartialContent(&hcl.BodySchema{Attributes: []hcl.AttributeSchema{{Name: name}}})
	if attr := content.Attributes[name]; attr != nil {
		at = attr.Expr.Range()
	}
	return hcl.Diagnostics{{
		Severity: hcl.DiagError,
		Summary:  "Invalid " + name,
		Detail:   quote(value) + " is none of " + list(values) + "." + suggest(value, values),
		Subject:  &at,
	}}
}
