package signing

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"unicode/utf8"
)

// A schema says which members the objects of a document may have. Signed bytes must mean the same
// to every reader, but encoding/json takes the last of two equal members and does not mind case.
type schema struct {
	exact map[string]string // names as they are written, by their folded form
	free  map[string]bool   // members whose content is somebody else's
}

// newSchema takes the names of members; those of which the content is somebody else's end in "*".
func newSchema(names string) schema {
	s := schema{exact: map[string]string{}, free: map[string]bool{}}
	for name := range strings.FieldsSeq(names) {
		name, free := strings.CutSuffix(name, "*")
		s.exact[fold(name)] = name
		s.free[name] = free
	}
	return s
}

// fold maps names to one form that encoding/json takes for equal.
func fold(name string) string { return strings.ToLower(strings.ToUpper(name)) }

// decode decodes one document into v. It refuses unknown and repeated members, names in another
// case, text that is not UTF-8, and trailing data. What is somebody else's is only checked to be
// JSON.
func (s schema) decode(data []byte, v any) error {
	if !utf8.Valid(data) {
		return errors.New("not UTF-8")
	}
	d := json.NewDecoder(bytes.NewReader(data))
	d.DisallowUnknownFields()
	if err := d.Decode(v); err != nil { // it bounds the depth, too
		return fmt.Errorf("not the JSON that it should be: %s", strings.TrimPrefix(err.Error(), "json: "))
	}
	if _, err := d.Token(); err != io.EOF {
		return errors.New("data behind the document")
	}
	return s.walk(json.NewDecoder(bytes.NewReader(data)))
}

func (s schema) walk(d *json.Decoder) error {
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
		if delim == '{' {
			key, err := d.Token()
			if err != nil {
				return err
			}
			name, _ := key.(string)
			if seen[name] {
				return fmt.Errorf("member %q twice", name)
			}
			seen[name] = true
			if want, ok := s.exact[fold(name)]; ok && want != name {
				return fmt.Errorf("member %q: want %q", name, want)
			}
			if s.free[name] {
				if err := d.Decode(new(json.RawMessage)); err != nil {
					return err
				}
				continue
			}
		}
		if err := s.walk(d); err != nil {
			return err
		}
	}
	_, err = d.Token()
	return err
}
