package image

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"slices"
)

// objects is what mtree(5) cannot say, as JSON. Names are as in the mtree file.
type objects struct {
	Schema int          `json:"schema"` // 1
	Links  [][]string   `json:"links"`  // the names of every object of several
	Xattrs []nameXattrs `json:"xattrs"`
}

type nameXattrs struct {
	Name  string  `json:"name"`
	Attrs []xattr `json:"attrs"`
}

type xattr struct {
	Key   string `json:"key"`   // in the encoding of vis(3), as names
	Value []byte `json:"value"` // base64
}

// maxObjects bounds the objects artifact, in bytes.
const maxObjects = 1 << 30

// objects collects links and attributes in the order of the entries.
func (c *Content) objects() *objects {
	o := &objects{Schema: 1, Links: [][]string{}, Xattrs: []nameXattrs{}}
	group := map[string]int{}
	for i := range c.entries {
		e := &c.entries[i]
		name := func() string { return string(appendName(nil, e.Name)) }
		if e.HardLink != "" {
			g := group[e.HardLink]
			o.Links[g] = append(o.Links[g], name())
			continue
		}
		if c.Nlink(e) > 1 {
			group[e.Name] = len(o.Links)
			o.Links = append(o.Links, []string{name()})
		}
		if len(e.Xattrs) == 0 {
			continue
		}
		x := nameXattrs{Name: name()}
		for _, key := range sortedKeys(e.Xattrs) {
			x.Attrs = append(x.Attrs, xattr{string(appendVis(nil, key)), append([]byte{}, e.Xattrs[key]...)})
		}
		o.Xattrs = append(o.Xattrs, x)
	}
	return o
}

// WriteObjects writes which names are one object, and extended attributes, as strict JSON. Those
// of an object of several names stand with its first.
func (c *Content) WriteObjects(w io.Writer) error {
	b := bufio.NewWriterSize(w, 64<<10)
	enc := json.NewEncoder(b)
	if err := enc.Encode(c.objects()); err != nil {
		return err
	}
	return b.Flush()
}

// readObjects adds what WriteObjects wrote to the entries.
func (c *Content) readObjects(r io.Reader) error {
	data, err := io.ReadAll(io.LimitReader(r, maxObjects+1))
	if err != nil {
		return err
	}
	if len(data) > maxObjects {
		return fmt.Errorf("more than %d bytes", maxObjects)
	}
	var o objects
	if err := DecodeStrict(data, &o); err != nil {
		return err
	}
	if o.Schema != 1 {
		return fmt.Errorf("schema %d: this program knows 1", o.Schema)
	}
	for _, names := range o.Links {
		if len(names) < 2 {
			return fmt.Errorf("an object of %d names", len(names))
		}
		first, err := c.named(names[0])
		if err != nil {
			return err
		}
		for _, name := range names[1:] {
			e, err := c.named(name)
			if err != nil {
				return err
			}
			if e.IsDir() || Compare(first.Name, e.Name) >= 0 || e.HardLink != "" || first.HardLink != "" || !sameObject(first, e) {
				return fmt.Errorf("%q cannot be the same object as %q", name, names[0])
			}
			e.HardLink = first.Name
		}
	}
	last := ""
	for _, x := range o.Xattrs {
		e, err := c.named(x.Name)
		if err != nil {
			return err
		}
		if e.HardLink != "" || len(x.Attrs) == 0 || last != "" && Compare(last, e.Name) >= 0 {
			return fmt.Errorf("%q: attributes out of order, empty or not with the first name", x.Name)
		}
		last = e.Name
		e.Xattrs = make(map[string][]byte, len(x.Attrs))
		for _, a := range x.Attrs {
			key, err := unvis(a.Key)
			if err != nil {
				return err
			}
			e.Xattrs[key] = a.Value
		}
	}
	// Further names have the attributes of the first, as in a tree.
	for i := range c.entries {
		if e := &c.entries[i]; e.HardLink != "" {
			e.Xattrs = c.Lookup(e.HardLink).Xattrs
		}
	}
	c.count()
	again, err := json.Marshal(c.objects())
	clear(c.nlink)
	if err != nil {
		return err
	}
	if string(again)+"\n" != string(data) {
		return fmt.Errorf("not in canonical form")
	}
	return nil
}

// named returns the entry of an encoded name.
func (c *Content) named(vis string) (*Entry, error) {
	name, err := unvis(vis)
	if err == nil {
		name, err = Clean(name)
	}
	if err != nil {
		return nil, err
	}
	e := c.Lookup(name)
	if e == nil {
		return nil, fmt.Errorf("%q is not in the content manifest", name)
	}
	return e, nil
}

// sameObject reports whether two lines of the manifest can be names of one object.
func sameObject(a, b *Entry) bool {
	return a.Mode == b.Mode && a.UID == b.UID && a.GID == b.GID && a.ModTime.Equal(b.ModTime) &&
		a.Size == b.Size && a.Rdev == b.Rdev && a.Target == b.Target && a.Digest == b.Digest
}

func sortedKeys(m map[string][]byte) []string {
	keys := make([]string, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}
