// Package unknown tells what Packer does not know yet: while it validates a template, data sources have
// not been asked, and a string that depends on one is a placeholder.
package unknown

import (
	"strings"

	"github.com/zclconf/go-cty/cty"
)

// placeholder is what Packer writes for a string (hcl2template/shim, WriteUnknownPlaceholderValues).
const placeholder = "<unknown>"

// Is says whether a string depends on what is not known.
func Is(s string) bool { return strings.Contains(s, placeholder) }

// In returns the value with unknown ones in place of placeholders.
func In(v cty.Value) (cty.Value, error) {
	return cty.Transform(v, func(_ cty.Path, v cty.Value) (cty.Value, error) {
		if v.Type() == cty.String && v.IsKnown() && !v.IsNull() && Is(v.AsString()) {
			return cty.UnknownVal(cty.String), nil
		}
		return v, nil
	})
}
