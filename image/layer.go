package image

import (
	"context"
	"fmt"
	"io"
	"path"
	"strings"
)

// AddLayer applies a layer of a container image, compressed or not: entries replace what lower
// layers hold, whatever its kind, and whiteouts remove it (OCI image specification 1.1, "Image
// Layer Filesystem Changeset"). Directories that lower layers made symbolic links are followed
// within the root, as container runtimes do. The layer is as hostile as any archive, and must end
// cleanly.
func (t *Tree) AddLayer(ctx context.Context, r io.Reader, p Progress) error {
	l := &loader{tree: t, at: ".", how: replaceAll, progress: p, layer: &layer{
		fresh: map[string]bool{}, white: map[string]bool{}, opaque: map[string]bool{},
	}}
	if err := l.stream(ctx, r); err != nil {
		return err
	}
	return l.layer.apply(t)
}

// A layer remembers what it put itself, because its whiteouts apply to lower layers only,
// wherever they stand in the archive.
type layer struct {
	fresh  map[string]bool // names it holds
	white  map[string]bool // names it removes
	opaque map[string]bool // directories it empties
}

// The prefix and the opaque marker of the specification; other names with a doubled prefix are
// bookkeeping of AUFS and mean nothing in a layer.
const (
	whiteoutPrefix = ".wh."
	whiteoutMeta   = ".wh..wh."
	whiteoutOpaque = ".wh..wh..opq"
)

// whiteout notes name if it is a marker and reports whether it was.
func (l *layer) whiteout(name string) (bool, error) {
	dir, base := path.Split(name)
	dir = path.Clean(dir)
	switch {
	case base == whiteoutOpaque:
		l.opaque[dir] = true
	case strings.Contains("/"+name, "/"+whiteoutMeta):
	case strings.HasPrefix(base, whiteoutPrefix):
		gone := base[len(whiteoutPrefix):]
		if gone == "" || gone == "." || gone == ".." {
			return true, fmt.Errorf("entry %q: whiteout of nothing", name)
		}
		l.white[path.Join(dir, gone)] = true
	default:
		return false, nil
	}
	return true, nil
}

// apply removes what the whiteouts name, in one pass however many there are.
func (l *layer) apply(t *Tree) error {
	if len(l.white) == 0 && len(l.opaque) == 0 {
		return nil
	}
	var gone []*node
	for name, n := range t.nodes {
		if name != "." && !l.fresh[name] && l.hidden(name) {
			gone = append(gone, n)
		}
	}
	for _, n := range gone {
		t.unlink(n)
	}
	// A directory that was whited out and only implied by what the layer put into it.
	for name := range l.fresh {
		n := t.nodes[name]
		if n == nil {
			continue // replaced again by a later entry of the layer
		}
		if err := t.parents(name, n.ModTime, replaceAll); err != nil {
			return err
		}
	}
	return nil
}

// hidden reports whether a lower layer's name is removed by the whiteouts.
func (l *layer) hidden(name string) bool {
	if l.white[name] {
		return true
	}
	for name != "." {
		name = parent(name)
		if l.white[name] && !l.fresh[name] || l.opaque[name] {
			return true
		}
	}
	return false
}
