package profiles

import (
	"strings"
)

// An element is a node of an XML document that is written.
type element struct {
	name  string
	attrs []string // name, value, name, value …
	text  string   // instead of children
	child []element
}

func el(name string, attrs ...string) element { return element{name: name, attrs: attrs} }

// with returns e with further children.
func (e element) with(child ...element) element {
	e.child = append(e.child, child...)
	return e
}

// smfDocument is the head of every SMF document: svccfg compares the identifier byte by byte
// with the DTD it knows (svccfg_xml.c, lxml_is_known_dtd).
const smfDocument = `<?xml version='1.0'?>
<!DOCTYPE service_bundle SYSTEM '/usr/share/lib/xml/dtd/service_bundle.dtd.1'>
`

// document writes an SMF document with a comment for whoever meets the file.
func document(comment string, root element) []byte {
	var b strings.Builder
	b.WriteString(smfDocument)
	b.WriteString("<!-- " + strings.ReplaceAll(comment, "--", "- -") + " -->\n")
	root.write(&b, "")
	return []byte(b.String())
}

func (e element) write(b *strings.Builder, indent string) {
	b.WriteString(indent + "<" + e.name)
	for i := 0; i+1 < len(e.attrs); i += 2 {
		b.WriteString(" " + e.attrs[i] + "='" + escape(e.attrs[i+1]) + "'")
	}
	switch {
	case e.text != "":
		b.WriteString(">" + escape(e.text) + "</" + e.name + ">\n")
	case len(e.child) == 0:
		b.WriteString("/>\n")
	default:
		b.WriteString(">\n")
		for _, c := range e.child {
			c.write(b, indent+"  ")
		}
		b.WriteString(indent + "</" + e.name + ">\n")
	}
}

var escaper = strings.NewReplacer("&", "&amp;", "<", "&lt;", ">", "&gt;", "'", "&apos;", "\t", "&#9;", "\n", "&#10;", "\r", "&#13;")

func escape(s string) string { return escaper.Replace(s) }
