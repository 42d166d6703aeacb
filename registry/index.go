package registry

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"regexp"
	"strings"
)

// tagForm is what the distribution specification allows as a tag.
var tagForm = regexp.MustCompile(`^[A-Za-z0-9_][A-Za-z0-9._-]{0,127}$`)

func checkTag(tag string) error {
	if !tagForm.MatchString(tag) {
		return fmt.Errorf("tag %q: want at most 128 letters, digits and any of _ . - (these two not first)", tag)
	}
	return nil
}

// An indexJSON is index.json. Members and descriptors of other programs are preserved as they are.
type indexJSON struct {
	members   map[string]json.RawMessage
	manifests []indexEntry
}

type indexEntry struct {
	Descriptor
	raw json.RawMessage
}

func (e indexEntry) tag() string { return e.Annotations[annotationRefName] }

func parseIndexJSON(data []byte) (*indexJSON, error) {
	if err := unambiguous(data); err != nil {
		return nil, err
	}
	x := new(indexJSON)
	if err := json.Unmarshal(data, &x.members); err != nil {
		return nil, err
	}
	for k := range x.members {
		for _, known := range []string{"schemaVersion", "mediaType", "manifests", "layers"} {
			if k != known && strings.EqualFold(k, known) {
				return nil, fmt.Errorf("member %q: want %q", k, known)
			}
		}
	}
	var head struct {
		SchemaVersion int               `json:"schemaVersion"`
		MediaType     string            `json:"mediaType"`
		Manifests     []json.RawMessage `json:"manifests"`
		Layers        json.RawMessage   `json:"layers"`
	}
	if err := json.Unmarshal(data, &head); err != nil {
		return nil, err
	}
	if head.SchemaVersion != 2 || head.MediaType != "" && head.MediaType != typeIndex || head.Layers != nil {
		return nil, errors.New("not an OCI image index")
	}
	for i, raw := range head.Manifests {
		e := indexEntry{raw: raw}
		if err := json.Unmarshal(raw, &e.Descriptor); err != nil {
			return nil, fmt.Errorf("manifest %d: %w", i, err)
		}
		x.manifests = append(x.manifests, e)
	}
	return x, nil
}

func (x *indexJSON) marshal() ([]byte, error) {
	members := map[string]json.RawMessage{
		"schemaVersion": json.RawMessage("2"),
		"mediaType":     json.RawMessage(`"` + typeIndex + `"`),
	}
	for k, v := range x.members {
		members[k] = v
	}
	raws := make([]json.RawMessage, 0, len(x.manifests))
	for _, e := range x.manifests {
		if e.raw == nil {
			var err error
			if e.raw, err = json.Marshal(e.Descriptor); err != nil {
				return nil, err
			}
		}
		raws = append(raws, e.raw)
	}
	var err error
	if members["manifests"], err = json.Marshal(raws); err != nil {
		return nil, err
	}
	return json.Marshal(members)
}

// drop removes the entries that have the tag and says whether there were any.
func (x *indexJSON) drop(tag string) bool {
	kept := x.manifests[:0]
	for _, e := range x.manifests {
		if e.tag() != tag {
			kept = append(kept, e)
		}
	}
	dropped := len(kept) < len(x.manifests)
	x.manifests = kept
	return dropped
}

// set makes tag stand for d and for nothing else.
func (x *indexJSON) set(tag string, d Descriptor) {
	x.drop(tag)
	d = d.bare()
	d.Annotations = map[string]string{annotationRefName: tag}
	x.manifests = append(x.manifests, indexEntry{Descriptor: d})
}

// resolve finds the descriptor of a tag.
func (x *indexJSON) resolve(tag string) (Descriptor, error) {
	var found *indexEntry
	for i := range x.manifests {
		e := &x.manifests[i]
		if e.tag() != tag {
			continue
		}
		if found != nil && found.Digest != e.Digest {
			return Descriptor{}, fmt.Errorf("tag %q stands for more than one manifest: name one by its digest", tag)
		}
		found = e
	}
	// Tools that write a layout for one image leave it without a tag.
	if found == nil && tag == defaultTag && len(x.manifests) == 1 && x.manifests[0].tag() == "" {
		found = &x.manifests[0]
	}
	if found == nil {
		return Descriptor{}, fmt.Errorf("tag %q: %w", tag, fs.ErrNotExist)
	}
	return found.bare(), found.check()
}

func (l *Layout) readIndex() (*indexJSON, error) {
	data, err := readFile(l.path(indexFile), maxIndexFile)
	if err != nil {
		return nil, err
	}
	x, err := parseIndexJSON(data)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", indexFile, err)
	}
	return x, nil
}

func (l *Layout) replaceIndex(x *indexJSON) error {
	data, err := x.marshal()
	if err != nil {
		return err
	}
	if len(data) > maxIndexFile {
		return fmt.Errorf("%s: would be larger than %d bytes", indexFile, maxIndexFile)
	}
	return l.replaceFile(indexFile, data)
}

// change edits index.json under its lock, after making the blobs that are named durable.
func (l *Layout) change(edit func(*indexJSON) error) error {
	err := l.locked(func() error {
		x, err := l.readIndex()
		if err != nil {
			return err
		}
		if err := edit(x); err != nil {
			return err
		}
		if err := syncDir(l.path("blobs", "sha256")); err != nil {
			return err
		}
		return l.replaceIndex(x)
	})
	if err != nil {
		return fmt.Errorf("OCI layout %q: %w", l.dir, err)
	}
	return nil
}

// Tag makes tag stand for d, whose blob the layout has, instead of what it stood for.
func (l *Layout) Tag(tag string, d Descriptor) error {
	if err := errors.Join(checkTag(tag), d.check()); err != nil {
		return err
	}
	return l.change(func(x *indexJSON) error {
		path, err := l.blobPath(d.Digest)
		if err != nil {
			return err
		}
		fi, err := os.Stat(path)
		if err != nil {
			return err
		}
		if fi.Size() != d.Size {
			return fmt.Errorf("blob %s has %d bytes, its descriptor says %d", d.Digest, fi.Size(), d.Size)
		}
		x.set(tag, d)
		return nil
	})
}

// Untag removes a tag. The blobs stay.
func (l *Layout) Untag(tag string) error {
	return l.change(func(x *indexJSON) error {
		if !x.drop(tag) {
			return fmt.Errorf("tag %q: %w", tag, fs.ErrNotExist)
		}
		return nil
	})
}
