package registry

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
)

// unambiguous refuses a document that two readers may understand differently: a member twice, and
// names that differ in case only, which encoding/json takes for one. Annotations are a map, whose
// keys may.
func unambiguous(data []byte) error {
	if !json.Valid(data) { // it bounds the depth, too
		var v any
		if err := json.Unmarshal(data, &v); err != nil {
			return err
		}
		return errors.New("not a JSON document")
	}
	return unique(json.NewDecoder(bytes.NewReader(data)), true)
}

func unique(d *json.Decoder, fold bool) error {
	tok, err := d.Token()
	if err != nil {
		return err
	}
	delim, ok := tok.(json.Delim)
	if !ok {
		return nil
	}
	seen := map[string]bool{}
	for d.More() {
		inner := true
		if delim == '{' {
			key, err := d.Token()
			if err != nil {
				return err
			}
			name, _ := key.(string)
			inner = name != "annotations"
			if fold {
				name = strings.ToLower(strings.ToUpper(name)) // as encoding/json folds
			}
			if seen[name] {
				return fmt.Errorf("member %q twice", name)
			}
			seen[name] = true
		}
		if err := unique(d, inner); err != nil {
			return err
		}
	}
	_, err = d.Token()
	return err
}
