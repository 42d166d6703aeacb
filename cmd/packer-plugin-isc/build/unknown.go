package build

import (
	"strings"

	"github.com/zclconf/go-cty/cty"
)

// placeholder is what Packer writes for a string that it does not know yet: while it validates a
// template, data sources have not been asked (hcl2template/shim, WriteUnknownPlaceholderValues).
const placeholder = "<unknown>"

// Unknown says whether a string depends on what is not known yet.
func Unknown(s string) bool { return strings.Contains(s, placeholder) }

// withUnknown returns the value with unknown ones in place of placeholders.
func withUnknown(v cty.Value) (cty.Value, error) {
	return cty.Transform(v, func(_ cty.Path, v cty.Value) (cty.Value, error) {
		if v.Type() == cty.String && v.IsKnown() && !v.IsNull() && Unknown(v.AsString()) {
			return cty.UnknownVal(cty.String), nil
		}
		return v, nil
	})
}
