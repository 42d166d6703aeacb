package disk

import (
	"errors"
	"fmt"
	"io/fs"
	"iter"
	"path"
	"slices"
	"strings"
)

// maxName is NAME_MAX of Linux.
const maxName = 255

// maxLinks bounds symbolic links followed in one name, as MAXSYMLINKS does in the kernel.
const maxLinks = 40

// A node is an object in the tree of all.
type node struct {
	*Object
	children []*node // of a directory, in no order
	nlink    uint32
	first    *node // of a further name, the object
	parent   *node

	// What the writer of the file system decides.
	layout int
	at     int64 // of the inode
	block  uint32
	body   int64 // bytes of the inode with attributes and what is inline
	chunks chunks
}

// A rootFS is the objects by name.
type rootFS struct {
	nodes []*node // in the order they came; a directory before what is in it
	names map[string]*node
}

// readRoot takes the objects, checks how they stand to each other, and leaves out those that skip
// says.
func readRoot(objects iter.Seq2[*Object, error]) (*rootFS, error) {
	r := &rootFS{names: map[string]*node{}}
	for o, err := range objects {
		if err != nil {
			return nil, err
		}
		if err := r.add(o); err != nil {
			return nil, fmt.Errorf("object %q: %w", o.Path, err)
		}
	}
	if len(r.nodes) == 0 {
		return nil, errors.New("the root is empty")
	}
	return r, nil
}

// add checks one object and puts it into its directory.
func (r *rootFS) add(o *Object) error {
	if r.names[o.Path] != nil {
		return errors.New("comes twice")
	}
	if len(r.nodes) == 0 {
		if o.Path != "." || !o.Mode.IsDir() {
			return errors.New("is not the root directory, which comes first")
		}
		r.put(&node{Object: o, nlink: 2})
		return nil
	}
	if !fs.ValidPath(o.Path) || strings.IndexByte(o.Path, 0) >= 0 {
		return errors.New("is not a clean relative path")
	}
	dir, name := path.Split(o.Path)
	parent := r.names[path.Clean(dir)]
	switch {
	case len(name) > maxName:
		return fmt.Errorf("has a last element over %d bytes", maxName)
	case parent == nil || !parent.Mode.IsDir():
		return fmt.Errorf("has no directory before it")
	}
	n := &node{Object: o, nlink: 1, parent: parent}
	if o.Link != "" {
		n.first = r.names[o.Link]
		if n.first == nil || n.first.first != nil || n.first.Mode.IsDir() {
			return fmt.Errorf("is a further name of %q, which is no object before it that can have one", o.Link)
		}
		n.first.nlink++
	} else if err := checkObject(o); err != nil {
		return err
	}
	if n.first == nil && o.Mode.IsDir() {
		n.nlink = 2
		parent.nlink++
	}
	r.put(n)
	parent.children = append(parent.children, n)
	return nil
}

func (r *rootFS) put(n *node) {
	r.nodes = append(r.nodes, n)
	r.names[n.Path] = n
}

// checkObject tells what is wrong with an object by itself.
func checkObject(o *Object) error {
	switch {
	case o.UID < 0 || o.GID < 0 || int64(o.UID) > 1<<32-2 || int64(o.GID) > 1<<32-2:
		return fmt.Errorf("owner %d:%d is not one that Linux knows", o.UID, o.GID)
	case o.Mode.IsRegular() && (o.Size < 0 || o.Size > 0 && o.Open == nil):
		return fmt.Errorf("size %d without content", o.Size)
	case o.Mode.Type() == fs.ModeSymlink && (o.Target == "" || len(o.Target) > maxTarget || strings.IndexByte(o.Target, 0) >= 0):
		return fmt.Errorf("symbolic link to %.64q: not of 1 to %d bytes without NUL", o.Target, maxTarget)
	case o.Mode.Type()&^(fs.ModeDir|fs.ModeSymlink|fs.ModeDevice|fs.ModeCharDevice|fs.ModeNamedPipe|fs.ModeSocket) != 0:
		return fmt.Errorf("type %v is not known", o.Mode.Type())
	}
	return nil
}

// maxTarget bounds a symbolic link: PATH_MAX without the NUL.
const maxTarget = 4095

// mkdir makes a directory, owned by root, and those above it, unless something is there.
func (r *rootFS) mkdir(name string, perm fs.FileMode) error {
	if n := r.names[name]; n != nil {
		if n.first == nil && n.Mode.IsDir() {
			return nil
		}
		return &Problem{What: fmt.Sprintf("%q is not a directory", name), Hint: "something is mounted there"}
	}
	if dir := path.Dir(name); dir != "." {
		if err := r.mkdir(dir, 0o755); err != nil {
			return err
		}
	}
	return r.add(&Object{Path: name, Mode: fs.ModeDir | perm, ModTime: r.nodes[0].ModTime})
}

// remove takes out a name that is not a directory's; of an object of several the next becomes the first.
func (r *rootFS) remove(n *node) {
	delete(r.names, n.Path)
	n.parent.children = slices.DeleteFunc(n.parent.children, func(c *node) bool { return c == n })
	r.nodes = slices.DeleteFunc(r.nodes, func(c *node) bool { return c == n })
	if n.first != nil {
		n.first.nlink--
		return
	}
	var heir *node
	for _, c := range r.nodes {
		switch {
		case c.first != n:
		case heir == nil:
			o := *n.Object
			o.Path = c.Path
			heir, c.Object, c.first, c.nlink = c, &o, nil, n.nlink-1
		default:
			c.first = heir
		}
	}
}

// lookup follows name, symbolic links included, within the root, and returns nil if nothing is there.
func (r *rootFS) lookup(name string) *node {
	rest := strings.Split(path.Clean(name), "/")
	done := "."
	for followed := 0; len(rest) > 0; {
		elem := rest[0]
		rest = rest[1:]
		switch elem {
		case "", ".":
			continue
		case "..":
			done = path.Dir(done)
			continue
		}
		n := r.names[path.Join(done, elem)]
		if n == nil {
			return nil
		}
		if n.first != nil {
			n = n.first
		}
		if n.Mode.Type() != fs.ModeSymlink {
			done = path.Join(done, elem)
			continue
		}
		if followed++; followed > maxLinks {
			return nil
		}
		if strings.HasPrefix(n.Target, "/") {
			done = "."
		}
		rest = append(strings.Split(path.Clean(n.Target), "/"), rest...)
	}
	n := r.names[done]
	if n != nil && n.first != nil {
		n = n.first
	}
	return n
}

// file returns the object that name leads to if it is a regular file, or nil.
func (r *rootFS) file(name string) *node {
	if n := r.lookup(name); n != nil && n.Mode.IsRegular() {
		return n
	}
	return nil
}

// read returns the content of a regular file of at most limit bytes.
func (n *node) read(limit int64) ([]byte, error) {
	if n.Size > limit {
		return nil, fmt.Errorf("%q: %d bytes are more than the %d that can be", n.Path, n.Size, limit)
	}
	data := make([]byte, n.Size)
	if len(data) == 0 {
		return data, nil
	}
	_, err := fileReader{n.Object}.ReadAt(data, 0)
	return data, err
}
