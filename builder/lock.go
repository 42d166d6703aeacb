package builder

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"

	"github.com/goldenisc/packer-plugin-isc/image"
)

// A Lock pins what the sources of a spec stand for. It is stored as strict JSON beside the spec.
type Lock struct {
	Version int            `json:"version"` // 1
	Bases   map[string]Pin `json:"bases"`   // by source, as written in the spec
}

// A Pin is what a source stood for when it was locked.
type Pin struct {
	Digest   string `json:"digest"`             // sha256:…, as of image.Base
	Resolved string `json:"resolved,omitempty"` // a more exact name, such as a reference with a digest
}

// LockName returns the name of a spec's lock file.
func LockName(spec string) string { return spec + ".lock.json" }

var digestForm = regexp.MustCompile(`^sha256:[0-9a-f]{64}$`)

// ReadLock reads a lock file. The error of a missing one is [fs.ErrNotExist].
func ReadLock(name string) (*Lock, error) {
	data, err := readBounded(name)
	if err != nil {
		if errors.Is(err, fs.ErrNotExist) {
			return nil, fmt.Errorf("lock file %q does not exist: iscadm lock makes it: %w", name, fs.ErrNotExist)
		}
		return nil, fmt.Errorf("lock file: %w", err)
	}
	l, err := ParseLock(data)
	if err != nil {
		return nil, fmt.Errorf("lock file %q: %w", name, err)
	}
	return l, nil
}

// ParseLock decodes a lock file strictly.
func ParseLock(data []byte) (*Lock, error) {
	l := new(Lock)
	if err := image.DecodeStrict(data, l); err != nil {
		return nil, err
	}
	if l.Version != 1 {
		return nil, fmt.Errorf("version %d: this program knows 1", l.Version)
	}
	for _, source := range sortedKeys(l.Bases) {
		if d := l.Bases[source].Digest; !digestForm.MatchString(d) {
			return nil, fmt.Errorf("base %q: digest %q is not sha256: and 64 hexadecimal digits", source, d)
		}
	}
	return l, nil
}

// Marshal encodes the lock. The bytes depend on its values only.
func (l *Lock) Marshal() ([]byte, error) {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	e.SetIndent("", "  ")
	out := Lock{Version: 1, Bases: l.Bases}
	if out.Bases == nil {
		out.Bases = map[string]Pin{}
	}
	err := e.Encode(out)
	return b.Bytes(), err
}

// WriteFile writes the lock file: all of it or, if there is an error, none.
func (l *Lock) WriteFile(name string) (err error) {
	defer func() {
		if err != nil {
			err = fmt.Errorf("lock file: %w", err)
		}
	}()
	data, err := l.Marshal()
	if err != nil {
		return err
	}
	f, err := os.CreateTemp(filepath.Dir(name), ".lock-*")
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	// It stands beside the spec in a repository and is as public.
	err = errors.Join(err, f.Chmod(0o644), f.Sync(), f.Close())
	if err == nil {
		err = os.Rename(f.Name(), name)
	}
	if err != nil {
		return errors.Join(err, os.Remove(f.Name()))
	}
	return nil
}

// A LockError says that a source is not what the lock file says.
type LockError struct {
	Source string
	Digest string // of the source now, or ""
	Locked string // or "", if the lock has no such source
}

func (e *LockError) Error() string {
	if e.Locked == "" {
		return fmt.Sprintf("base %q is not in the lock file: iscadm lock adds it", e.Source)
	}
	return fmt.Sprintf("base %q has digest %s: the lock file says %s", e.Source, e.Digest, e.Locked)
}

// Pin returns what the source is locked to, or a [LockError].
func (l *Lock) Pin(source string) (Pin, error) {
	pin, ok := l.Bases[source]
	if !ok {
		return Pin{}, &LockError{Source: source}
	}
	return pin, nil
}

// Check compares the digest that a source has with the one it is locked to. The error is a
// [LockError].
func (l *Lock) Check(source, digest string) error {
	pin, err := l.Pin(source)
	if err == nil && pin.Digest != digest {
		err = &LockError{Source: source, Digest: digest, Locked: pin.Digest}
	}
	return err
}
