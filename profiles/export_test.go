package profiles

import (
	"testing"

	"github.com/goldenisc/packer-plugin-isc/image"
)

// Violating is the root in which nearly every control is violated.
func Violating(t testing.TB, os string) *image.Tree { return violating(t, os) }

// All selects all controls of an operating system.
func All(t testing.TB, os string) *Selection {
	var ids []string
	for _, c := range Controls {
		if _, ok := c.On[os]; ok {
			ids = append(ids, c.ID)
		}
	}
	return only(t, os, ids...)
}
