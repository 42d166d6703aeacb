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
// case, text that is not UTF-8, and trailing data.
func (s schema) decode(data []byte, v any) error {
	if !utf8.Valid(data) {
		return errors.New("not UTF-8")
	}
	if !json.Valid(data) { // it bounds the depth, too
		err := json.Unmarshal(data, new(json.RawMessage))
		return fmt.Errorf("not a JSON document: %w", err)
	}
	if err := s.walk(json.NewDecoder(bytes.NewReader(data)), false); err != nil {
		return err
	}
	d := json.NewDecoder(bytes.NewReader(data))
	d.DisallowUnknownFields()
	if err := d.Decode(v); err != nil {
		return errors.New(strings.TrimPrefix(err.Error(), "json: "))
	}
	if _, err := d.Token(); err != io.EOF {
		return errors.New("data behind the document")
	}
	return nil
}

func (s schema) walk(d *json.Decoder, free bool) error {
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
		inner := free
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
			if !free {
				if want, ok := s.exact[fold(name)]; ok && want != name {
					return fmt.Errorf("member %q: want %q", name, want)
				}
				inner = s.free[name]
			}
		}
		if err := s.walk(d, inner); err != nil {
			return err
		}
	}
	_, err = d.Token()
	return err
}
