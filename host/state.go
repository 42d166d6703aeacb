package host

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/goldenisc/packer-plugin-isc/image"
)

// A State is what the host remembers: the file state.json in the state folder (docs/format.md).
// Its order is fixed, so that equal states are equal bytes.
type State struct {
	Version   int        `json:"version"`
	Policy    string     `json:"policy,omitempty"` // path of the policy file
	Epochs    []Epoch    `json:"epochs"`           // by name and channel
	Images    []Image    `json:"images"`           // by digest
	Instances []Instance `json:"instances"`        // by name
}

// An Epoch is the highest release of an image name in a channel that this host has acquired. An
// older one is refused: this is all that protects against being fed an old release.
type Epoch struct {
	Name    string `json:"name"`
	Channel string `json:"channel"`
	Epoch   int64  `json:"epoch"`
	Digest  string `json:"digest"` // of the index released as that epoch
	// Minimum is the highest minimum epoch that any release taken in has demanded. Below it nothing is
	// taken in, not even by a policy that allows downgrades.
	Minimum int64 `json:"minimum,omitempty"`
}

// An Image is an image that this host holds.
type Image struct {
	Digest    string    `json:"digest"` // of its index
	Name      string    `json:"name"`
	Version   string    `json:"version"`
	OS        string    `json:"os"`
	Arch      string    `json:"arch"`
	Platforms []string  `json:"platforms"` // that hold a golden copy: PLATFORM, or PLATFORM:PLACE
	Imported  time.Time `json:"imported"`
	Unsigned  bool      `json:"unsigned,omitempty"` // nobody's signature was asked for
	Key       string    `json:"key,omitempty"`      // identity of the key that vouched for it
	Expires   time.Time `json:"expires,omitzero"`   // of the release it was acquired by
	Revoked   string    `json:"revoked,omitempty"`  // why, if its release was withdrawn
}

// An Instance is a running or stopped clone of an image.
type Instance struct {
	Name      string     `json:"name"`
	Image     string     `json:"image"`    // digest
	Platform  string     `json:"platform"` // key of [Platforms]
	Place     string     `json:"place"`    // of the platform: a folder, a dataset
	Site      Site       `json:"site"`
	Created   time.Time  `json:"created"`
	Reset     time.Time  `json:"reset,omitzero"`     // last time
	Evidence  int        `json:"evidence,omitempty"` // number of the last one kept
	Snapshots []Snapshot `json:"snapshots,omitempty"`
	Files     []SiteFile `json:"files,omitempty"`   // what the site values wrote
	Process   *Process   `json:"process,omitempty"` // of a Starter
	Pending   *Pending   `json:"pending,omitempty"` // what is being done; left by a command that was killed
}

// A Snapshot is a kept state of an instance.
type Snapshot struct {
	Name    string    `json:"name"`
	Created time.Time `json:"created"`
}

// A Process is a started service.
type Process struct {
	PID     int    `json:"pid"`
	Started string `json:"started"` // of the process, as the system tells it: tells a reused number apart
	Log     string `json:"log"`     // path
}

// A Pending is the journal of one operation. Whoever finds it without holding the instance's
// lock's owner alive finishes or undoes it.
type Pending struct {
	Op    string `json:"op"`              // clone, reset, rollback, snapshot, forget, upgrade or destroy
	Phase string `json:"phase,omitempty"` // of the platform
	Arg   string `json:"arg,omitempty"`   // snapshot, or the evidence's name
	Inode uint64 `json:"inode,omitempty"` // of the new root
}

// version is that of the state format this program writes.
const version = 1

// migrations turn a state of the version that is their key into one of the next.
var migrations = map[int]func(json.RawMessage) (json.RawMessage, error){}

// maxState bounds the state file: a few hundred bytes an instance.
const maxState = 64 << 20

const (
	stateFile = "state.json"
	stateLock = "lock"
	stateTemp = "state.json.new" // only its writer, who holds the lock, touches it
)

// ErrNewer is the error of a state that a newer version of this program wrote.
var ErrNewer = errors.New("written by a newer version of this program")

// parseState decodes a state file strictly.
func parseState(data []byte) (*State, error) {
	var head struct {
		Version int `json:"version"`
	}
	if err := json.Unmarshal(data, &head); err != nil {
		return nil, err
	}
	if head.Version > version {
		return nil, fmt.Errorf("version %d: %w, which knows %d", head.Version, ErrNewer, version)
	}
	for v := head.Version; v < version; v++ {
		up := migrations[v]
		if up == nil {
			return nil, fmt.Errorf("version %d is unknown", v)
		}
		next, err := up(data)
		if err != nil {
			return nil, fmt.Errorf("from version %d to %d: %w", v, v+1, err)
		}
		data = next
	}
	s := new(State)
	if err := image.DecodeStrict(data, s); err != nil {
		return nil, err
	}
	return s, s.check()
}

// check refuses what later code relies on not to meet: the file is root's, but a name from it
// becomes a path.
func (s *State) check() error {
	var errs []error
	for i, e := range s.Epochs {
		if e.Name == "" || e.Channel == "" || e.Epoch < 0 || e.Minimum < 0 || e.Minimum > e.Epoch || !isDigest(e.Digest) {
			errs = append(errs, fmt.Errorf("epoch %d: name %q, channel %q, epoch %d, minimum %d, digest %q", i, e.Name, e.Channel, e.Epoch, e.Minimum, e.Digest))
		}
	}
	for i, m := range s.Images {
		if !isDigest(m.Digest) || i > 0 && m.Digest <= s.Images[i-1].Digest {
			errs = append(errs, fmt.Errorf("image %d: digest %q is malformed, twice or out of order", i, m.Digest))
		}
	}
	for i, in := range s.Instances {
		if CheckName(in.Name) != nil || i > 0 && in.Name <= s.Instances[i-1].Name {
			errs = append(errs, fmt.Errorf("instance %d: name %q is malformed, twice or out of order", i, in.Name))
		}
		if s.Image(in.Image) == nil {
			errs = append(errs, fmt.Errorf("instance %q: its image %q is not in the state", in.Name, in.Image))
		}
		for _, p := range in.Snapshots {
			if err := CheckName(p.Name); err != nil {
				errs = append(errs, fmt.Errorf("instance %q: snapshot: %w", in.Name, err))
			}
		}
		if in.Pending != nil && in.Pending.Arg != "" {
			if err := CheckName(in.Pending.Arg); err != nil {
				errs = append(errs, fmt.Errorf("instance %q: pending: %w", in.Name, err))
			}
		}
	}
	return errors.Join(errs...)
}

// sort brings the state into its canonical order.
func (s *State) sort() {
	slices.SortFunc(s.Epochs, func(a, b Epoch) int {
		return cmp.Or(cmp.Compare(a.Name, b.Name), cmp.Compare(a.Channel, b.Channel))
	})
	slices.SortFunc(s.Images, func(a, b Image) int { return cmp.Compare(a.Digest, b.Digest) })
	slices.SortFunc(s.Instances, func(a, b Instance) int { return cmp.Compare(a.Name, b.Name) })
}

// marshal encodes the state in its canonical order.
func (s *State) marshal() ([]byte, error) {
	s.Version = version
	s.sort()
	data, err := json.MarshalIndent(s, "", "  ")
	return append(data, '\n'), err
}

// Image returns the image of this digest, or nil.
func (s *State) Image(digest string) *Image {
	if i := slices.IndexFunc(s.Images, func(m Image) bool { return m.Digest == digest }); i >= 0 {
		return &s.Images[i]
	}
	return nil
}

// epoch returns what was acquired of a name in a channel, or nil.
func (s *State) epoch(name, channel string) *Epoch {
	if i := slices.IndexFunc(s.Epochs, func(e Epoch) bool { return e.Name == name && e.Channel == channel }); i >= 0 {
		return &s.Epochs[i]
	}
	return nil
}

// Instance returns the instance of this name, or nil.
func (s *State) Instance(name string) *Instance {
	if i := slices.IndexFunc(s.Instances, func(in Instance) bool { return in.Name == name }); i >= 0 {
		return &s.Instances[i]
	}
	return nil
}

// readState reads the state of a folder; one that has none is new.
func readState(dir string) (*State, error) {
	path := filepath.Join(dir, stateFile)
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return &State{Version: version, Epochs: []Epoch{}, Images: []Image{}, Instances: []Instance{}}, nil
	}
	if err != nil {
		return nil, err
	}
	defer f.Close()
	var b bytes.Buffer
	if n, err := io.Copy(&b, io.LimitReader(f, maxState+1)); err != nil || n > maxState {
		return nil, errors.Join(err, fmt.Errorf("%q: %d bytes or more", path, n))
	}
	s, err := parseState(b.Bytes())
	if errors.Is(err, ErrNewer) {
		return nil, fmt.Errorf("%q: %w", path, err)
	}
	if err != nil {
		return nil, fmt.Errorf("%q is damaged: %w; restore it from a backup: without it this host accepts old releases again", path, err)
	}
	return s, nil
}

// writeState replaces the state of a folder. The caller holds the lock.
func writeState(dir string, s *State) error {
	data, err := s.marshal()
	if err != nil {
		return err
	}
	return replaceFile(filepath.Join(dir, stateTemp), filepath.Join(dir, stateFile), data)
}

// replaceFile writes data under a temporary name, brings it to the disk and renames it.
func replaceFile(temp, path string, data []byte) error {
	f, err := os.OpenFile(temp, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err == nil {
		err = os.Rename(temp, path)
	}
	if err != nil {
		os.Remove(temp)
		return err
	}
	return syncDir(filepath.Dir(path))
}

// CheckName refuses what cannot be the name of an instance or a snapshot: letters, digits, "-",
// "_" and "." only, starting with a letter or digit, at most 63 bytes (zonename(1) allows 63).
func CheckName(name string) error {
	ok := len(name) > 0 && len(name) <= 63
	for i := range len(name) {
		c := name[i]
		alnum := c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9'
		ok = ok && (alnum || i > 0 && (c == '-' || c == '_' || c == '.'))
	}
	if !ok {
		return fmt.Errorf("name %q: use up to 63 letters, digits, \"-\", \"_\" and \".\", the first a letter or digit", name)
	}
	return nil
}

// isDigest reports whether s is "sha256:" and 64 lower-case hexadecimal digits.
func isDigest(s string) bool {
	if len(s) != 7+64 || s[:7] != "sha256:" {
		return false
	}
	for _, c := range []byte(s[7:]) {
		if (c < '0' || c > '9') && (c < 'a' || c > 'f') {
			return false
		}
	}
	return true
}
