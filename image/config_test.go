package image

import (
	"strings"
	"testing"
)

// Deep nesting is an error; it must not exhaust the stack, which nothing recovers from.
func TestDecodeStrictDepth(t *testing.T) {
	for _, doc := range []string{"[", `{"a":`} {
		var v any
		if err := DecodeStrict([]byte(strings.Repeat(doc, MaxConfig/len(doc))), &v); err == nil || !strings.Contains(err.Error(), "deep") {
			t.Errorf("%s…: %v", doc, err)
		}
	}
	var v any
	if err := DecodeStrict([]byte(`{"a":[{"b":[[1]]}]}`), &v); err != nil {
		t.Error(err)
	}
}
