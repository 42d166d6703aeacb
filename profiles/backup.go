package profiles

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"time"

	"github.com/goldenisc/packer-plugin-isc/image"
)

// A backupDocument is a backup as it is kept in a file.
type backupDocument struct {
	Schema  int            `json:"schema"` // 1
	Added   []string       `json:"added"`  // names to remove, directories before what is in them
	Objects []backupObject `json:"objects"`
	Running Running        `json:"running,omitzero"`
}

// symlinkType is the one type that has a target.
const symlinkType = fs.ModeSymlink

// backupTypes are the types of objects that controls change.
var backupTypes = map[string]fs.FileMode{
	image.TypeName(0): 0, image.TypeName(fs.ModeDir): fs.ModeDir, image.TypeName(symlinkType): symlinkType,
}

type backupObject struct {
	Name    string    `json:"name"`
	Type    string    `json:"type"` // as image.TypeName has it
	Mode    uint32    `json:"mode"` // permission bits
	UID     int       `json:"uid"`
	GID     int       `json:"gid"`
	ModTime time.Time `json:"modTime"`
	Target  string    `json:"target,omitempty"`
	Data    []byte    `json:"data,omitempty"`
}

// Names returns what the backup is about, sorted.
func (b *Backup) Names() []string {
	names := slices.Clone(b.added)
	for _, l := range b.saved {
		names = append(names, l.Name)
	}
	slices.Sort(names)
	return slices.Compact(names)
}

// Marshal encodes the backup, which has the contents of files and so their secrets. Extended attributes
// are not kept.
func (b *Backup) Marshal() ([]byte, error) {
	doc := backupDocument{Schema: 1, Added: append([]string{}, b.added...), Objects: []backupObject{}, Running: b.Running}
	for _, l := range b.saved {
		if _, ok := backupTypes[image.TypeName(l.Mode)]; !ok {
			return nil, fmt.Errorf("backup: %q is a %s", l.Name, image.TypeName(l.Mode))
		}
		doc.Objects = append(doc.Objects, backupObject{
			Name: l.Name, Type: image.TypeName(l.Mode), Mode: l.Perm(), UID: l.UID, GID: l.GID,
			ModTime: l.ModTime, Target: l.Target, Data: l.data,
		})
	}
	return json.Marshal(doc)
}

// ParseBackup decodes a backup strictly.
func ParseBackup(data []byte) (*Backup, error) {
	var doc backupDocument
	if err := image.DecodeStrict(data, &doc); err != nil {
		return nil, fmt.Errorf("backup: %w", err)
	}
	if doc.Schema != 1 {
		return nil, fmt.Errorf("backup: schema %d is not 1", doc.Schema)
	}
	if err := doc.Running.check(); err != nil {
		return nil, fmt.Errorf("backup: %w", err)
	}
	b := &Backup{Running: doc.Running}
	for _, name := range doc.Added {
		if err := backupName(name); err != nil {
			return nil, err
		}
		b.added = append(b.added, name)
	}
	for _, o := range doc.Objects {
		if err := backupName(o.Name); err != nil {
			return nil, err
		}
		typ, ok := backupTypes[o.Type]
		if !ok || o.Mode > 0o7777 || o.UID < 0 || o.GID < 0 || (o.Target != "") != (typ == symlinkType) {
			return nil, fmt.Errorf("backup: %q: no such object", o.Name)
		}
		b.saved = append(b.saved, layered{
			Entry: image.Entry{Name: o.Name, Mode: image.ModeOf(o.Mode, typ), UID: o.UID, GID: o.GID, ModTime: o.ModTime, Target: o.Target},
			data:  o.Data,
		})
	}
	return b, nil
}

func backupName(name string) error {
	clean, err := image.Clean(name)
	if err == nil && (clean != name || name == ".") {
		err = errors.New("no clean name")
	}
	if err != nil {
		return fmt.Errorf("backup: %q: %w", name, err)
	}
	return nil
}
