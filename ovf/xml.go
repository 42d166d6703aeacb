package ovf

import (
	"bytes"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"unicode/utf16"
)

// Limits of descriptors, far above any real one. They bound memory whatever comes.
const (
	// MaxDescriptor is the largest descriptor that is read, in bytes.
	MaxDescriptor = 8 << 20
	maxDepth      = 64
	maxNodes      = 100_000
	maxValueText  = 1 << 20 // an EULA may be long
	maxAttrs      = 256
)

type attr = xml.Attr

// A node is one element of a descriptor.
type node struct {
	space, name string // namespace and local name
	attrs       []attr
	text        string // its own, trimmed
	children    []*node
	line        int
}

// parseXML reads a document. Document types, and with them all entities but the five of XML, are
// refused: no descriptor needs them, and they are how XML is made to explode or to read files.
func parseXML(data []byte) (*node, error) {
	if len(data) > MaxDescriptor {
		return nil, fmt.Errorf("%d bytes: more than %d", len(data), MaxDescriptor)
	}
	data, err := toUTF8(data)
	if err != nil {
		return nil, err
	}
	d := xml.NewDecoder(bytes.NewReader(data))
	d.CharsetReader = charset
	var root *node
	var stack []*node
	var text []*strings.Builder
	count := 0
	fail := func(format string, args ...any) error {
		line, _ := d.InputPos()
		return fmt.Errorf("line %d: %w", line, fmt.Errorf(format, args...))
	}
	for {
		tok, err := d.Token()
		if err == io.EOF {
			break
		}
		if err != nil {
			var syntax *xml.SyntaxError
			if errors.As(err, &syntax) {
				return nil, fmt.Errorf("line %d: %s", syntax.Line, syntax.Msg)
			}
			return nil, err
		}
		switch tok := tok.(type) {
		case xml.Directive:
			return nil, fail("a document type declaration is refused")
		case xml.StartElement:
			line, _ := d.InputPos()
			n := &node{space: tok.Name.Space, name: tok.Name.Local, line: line}
			if count++; count > maxNodes {
				return nil, fail("more than %d elements", maxNodes)
			}
			if len(stack) == maxDepth {
				return nil, fail("elements nested deeper than %d", maxDepth)
			}
			if len(tok.Attr) > maxAttrs {
				return nil, fail("element %q: more than %d attributes", n.name, maxAttrs)
			}
			for _, a := range tok.Attr {
				if len(a.Value) > maxValueText {
					return nil, fail("attribute %q: value of %d bytes", a.Name.Local, len(a.Value))
				}
			}
			n.attrs = slices.Clone(tok.Attr)
			switch {
			case len(stack) > 0:
				top := stack[len(stack)-1]
				top.children = append(top.children, n)
			case root != nil:
				return nil, fail("element %q follows the root", n.name)
			default:
				root = n
			}
			stack = append(stack, n)
			text = append(text, new(strings.Builder))
		case xml.EndElement:
			top := len(stack) - 1
			stack[top].text = strings.TrimSpace(text[top].String())
			stack, text = stack[:top], text[:top]
		case xml.CharData:
			if len(text) == 0 {
				continue
			}
			b := text[len(text)-1]
			if b.Len()+len(tok) > maxValueText {
				return nil, fail("element %q: text longer than %d bytes", stack[len(stack)-1].name, maxValueText)
			}
			b.Write(tok)
		}
	}
	if root == nil {
		return nil, fmt.Errorf("no element in it")
	}
	return root, nil
}

// toUTF8 decodes UTF-16, which is known by its mark or by the shape of "<?".
func toUTF8(b []byte) ([]byte, error) {
	big := bytes.HasPrefix(b, []byte{0xfe, 0xff}) || bytes.HasPrefix(b, []byte{0, '<', 0, '?'})
	little := bytes.HasPrefix(b, []byte{0xff, 0xfe}) || bytes.HasPrefix(b, []byte{'<', 0, '?', 0})
	if !big && !little {
		return bytes.TrimPrefix(b, []byte("\ufeff")), nil
	}
	if len(b)%2 != 0 {
		return nil, fmt.Errorf("UTF-16 of an odd number of bytes")
	}
	u := make([]uint16, len(b)/2)
	for i := range u {
		lo, hi := b[2*i], b[2*i+1]
		if big {
			lo, hi = hi, lo
		}
		u[i] = uint16(lo) | uint16(hi)<<8
	}
	return []byte(strings.TrimPrefix(string(utf16.Decode(u)), "\ufeff")), nil
}

// charset serves documents that say another encoding than UTF-8. One that says UTF-16 was decoded
// before, or says so wrongly, as XenServer's exports do.
func charset(label string, in io.Reader) (io.Reader, error) {
	switch strings.ToLower(label) {
	case "utf-16", "utf-16le", "utf-16be", "us-ascii", "ascii":
		return in, nil
	case "iso-8859-1", "latin1", "windows-1252":
		b, err := io.ReadAll(in)
		if err != nil {
			return nil, err
		}
		r := make([]rune, len(b))
		for i, c := range b {
			r[i] = rune(c)
		}
		return strings.NewReader(string(r)), nil
	}
	return nil, fmt.Errorf("encoding %q is not known", label)
}

// attr returns an attribute by its local name, in whatever namespace: exports differ in prefixes.
func (n *node) attr(name string) (string, bool) {
	for _, a := range n.attrs {
		if a.Name.Local == name && a.Name.Space != "xmlns" {
			return a.Value, true
		}
	}
	return "", false
}

// value returns an attribute, or "".
func (n *node) value(name string) string {
	v, _ := n.attr(name)
	return v
}

// child returns the first child of a name, or nil.
func (n *node) child(name string) *node {
	for _, c := range n.children {
		if c.name == name {
			return c
		}
	}
	return nil
}

// deep returns the first element of a name below n, or an empty one.
func (n *node) deep(name string) *node {
	for _, c := range n.children {
		if c.name == name {
			return c
		}
		if d := c.deep(name); d.name != "" {
			return d
		}
	}
	return new(node)
}

// childText returns the text of the first child of a name, or "".
func (n *node) childText(name string) string {
	if c := n.child(name); c != nil {
		return c.text
	}
	return ""
}

// all returns the children of a name.
func (n *node) all(name string) (out []*node) {
	for _, c := range n.children {
		if c.name == name {
			out = append(out, c)
		}
	}
	return out
}

// section returns the name of a section: that of its element, or in OVF 0.9 its xsi:type.
func (n *node) section() string {
	if n.name != "Section" && n.name != "Content" {
		return n.name
	}
	t := n.value("type")
	if _, local, ok := strings.Cut(t, ":"); ok {
		t = local
	}
	return strings.TrimSuffix(t, "_Type")
}

// foreignType tells whether a section of OVF 0.9 has its type in an attribute that is not xsi:type.
func (n *node) foreignType() bool {
	return (n.name == "Section" || n.name == "Content") && !slices.ContainsFunc(n.attrs, func(a attr) bool {
		return a.Name.Local == "type" && a.Name.Space == nsXSI
	})
}

// optional tells whether importers may ignore the element.
func (n *node) optional() bool {
	v := n.value("required")
	return v == "false" || v == "0"
}

// sections returns the children that are sections of a kind.
func (n *node) sections(kind string) (out []*node) {
	for _, c := range n.children {
		if c.section() == kind {
			out = append(out, c)
		}
	}
	return out
}

// undeclared returns the first element with an attribute whose prefix has no declaration, which
// encoding/xml leaves in place of the namespace. ovftool takes such elements, but not attributes.
func (n *node) undeclared() (*node, xml.Name) {
	for _, a := range n.attrs {
		if s := a.Name.Space; s != "" && s != "xmlns" && !strings.ContainsAny(s, ":/") {
			return n, a.Name
		}
	}
	for _, c := range n.children {
		if u, name := c.undeclared(); u != nil {
			return u, name
		}
	}
	return nil, xml.Name{}
}
