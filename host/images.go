package host

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/goldenisc/packer-plugin-isc/image"
)

// A Verified image may be imported: its index is what a policy accepted, or what somebody took
// responsibility for by saying Unsigned.
type Verified struct {
	Digest   string // of the index
	Config   *image.Config
	Source   Source
	Unsigned bool      // no signature was asked for: noted in the state and shown
	Key      string    // identity of the key that vouches for it
	Expires  time.Time // of its release; zero: never
	Progress image.Progress
}

// A Source hands out the artifacts of an image. What is read from them is what the config says, or
// reading ends with an error: [registry.Image] does that.
type Source interface {
	Open(ctx context.Context, artifact string) (io.ReadCloser, error)
}

// importWait is how long an import waits for another one.
const importWait = time.Hour

// copyAt splits the name of a place for golden copies: PLATFORM, or PLATFORM:PLACE of a [Placer].
// The key is how the state names it.
func copyAt(platform string) (p Platform, key, place string, err error) {
	name, place, _ := strings.Cut(platform, ":")
	if p = Platforms[name]; p == nil {
		return nil, "", "", unknownPlatform(name)
	}
	placer, ok := p.(Placer)
	if !ok {
		return p, name, "", nil
	}
	if err := placer.CheckPlace(place); err != nil {
		return nil, "", "", fmt.Errorf("platform %q: place: %w", name, err)
	}
	return p, platform, place, nil
}

// Import makes the golden copy of a verified image for a platform, PLATFORM or PLATFORM:PLACE. Where
// it is there and intact, only the release is noted.
func (h *Host) Import(ctx context.Context, platform string, v *Verified) (*Image, error) {
	m, err := h.importImage(ctx, platform, v)
	if err != nil {
		return nil, fmt.Errorf("import %s: %w", v.Digest, err)
	}
	return m, nil
}

func (h *Host) importImage(ctx context.Context, platform string, v *Verified) (*Image, error) {
	p, key, place, err := copyAt(platform)
	if err != nil {
		return nil, err
	}
	if !isDigest(v.Digest) {
		return nil, errors.New("the digest is malformed")
	}
	unlock, err := h.lockContent(ctx, importWait)
	if err != nil {
		return nil, err
	}
	defer unlock()
	s, err := h.View()
	if err != nil {
		return nil, err
	}
	old := s.Image(v.Digest)
	if old == nil {
		if err := h.describe(ctx, v); err != nil {
			return nil, errors.Join(err, os.RemoveAll(h.imageDir(v.Digest)))
		}
	}
	g, err := h.golden(v.Digest)
	if err == nil {
		_, err = newRules(g.Config)
	}
	if err == nil {
		g.Place, g.lock = place, lockFile(h.contentLock())
		err = p.Import(ctx, g, v)
	}
	if err != nil {
		err = errors.Join(err, h.store().clean())
		if old == nil {
			err = errors.Join(err, os.RemoveAll(h.imageDir(v.Digest)))
		}
		return nil, err
	}
	var m Image
	err = h.Update(ctx, func(s *State) error {
		in := s.Image(v.Digest)
		if in == nil {
			c := v.Config
			s.Images = append(s.Images, Image{
				Digest: v.Digest, Name: c.Name, Version: c.Version, OS: c.OS, Arch: c.Arch,
				Imported: time.Now().UTC().Truncate(time.Second), Unsigned: v.Unsigned,
			})
			in = &s.Images[len(s.Images)-1]
		}
		if !slices.Contains(in.Platforms, key) {
			in.Platforms = append(in.Platforms, key)
			slices.Sort(in.Platforms)
		}
		if !v.Unsigned {
			in.Unsigned, in.Key, in.Expires, in.Revoked = false, v.Key, v.Expires, ""
		}
		m = *in
		return nil
	})
	if err != nil {
		return nil, err
	}
	return &m, h.store().clean()
}

// describe stores the config and the content manifest, complete or not at all.
func (h *Host) describe(ctx context.Context, v *Verified) error {
	dir := h.imageDir(v.Digest)
	temp := filepath.Join(h.dir, "images", ".new")
	if err := errors.Join(os.RemoveAll(temp), os.RemoveAll(dir), os.Mkdir(temp, 0o700)); err != nil {
		return err
	}
	defer os.RemoveAll(temp)
	config, err := v.Config.Marshal()
	if err != nil {
		return err
	}
	if err := replaceFile(filepath.Join(temp, configFile+".new"), filepath.Join(temp, configFile), config); err != nil {
		return err
	}
	for _, f := range []struct{ name, mediaType string }{{contentFile, image.TypeContent}, {objectsFile, image.TypeObjects}} {
		i := slices.IndexFunc(v.Config.Artifacts, func(a image.Artifact) bool { return a.MediaType == f.mediaType })
		if i < 0 {
			return fmt.Errorf("the image has no artifact of type %s: nothing could be checked", f.mediaType)
		}
		if err := fetch(ctx, v.Source, v.Config.Artifacts[i].Name, filepath.Join(temp, f.name)); err != nil {
			return err
		}
	}
	if v.Config.Artifact("report") != nil {
		if err := fetch(ctx, v.Source, "report", filepath.Join(temp, reportFile)); err != nil {
			return err
		}
	}
	if _, err := readGolden(temp); err != nil {
		return err
	}
	if err := os.Rename(temp, dir); err != nil {
		return err
	}
	return syncDir(filepath.Dir(dir))
}

// fetch stores an artifact, as it is, in a file.
func fetch(ctx context.Context, from Source, artifact, path string) error {
	r, err := from.Open(ctx, artifact)
	if err != nil {
		return err
	}
	defer r.Close()
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	_, err = io.Copy(f, r)
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return fmt.Errorf("artifact %q: %w", artifact, err)
	}
	return nil
}

// ErrPlatform is the error of a platform that is not in [Platforms].
var ErrPlatform = errors.New("not known")

func unknownPlatform(name string) error {
	var known []string
	for k := range Platforms {
		known = append(known, k)
	}
	slices.Sort(known)
	return fmt.Errorf("platform %q: %w: use one of %s", name, ErrPlatform, strings.Join(known, ", "))
}

// Prune removes the images that no instance was made from, and returns them. Their epochs stay.
func (h *Host) Prune(ctx context.Context) ([]Image, error) {
	unlock, err := h.lockContent(ctx, importWait)
	if err != nil {
		return nil, err
	}
	defer unlock()
	var gone []Image
	err = h.Update(ctx, func(s *State) error {
		s.Images = slices.DeleteFunc(s.Images, func(m Image) bool {
			if slices.ContainsFunc(s.Instances, func(in Instance) bool { return in.Image == m.Digest }) {
				return false
			}
			gone = append(gone, m)
			return true
		})
		return nil
	})
	if err != nil {
		return nil, err
	}
	var dirs []string
	for _, m := range gone {
		dirs = append(dirs, h.imageDir(m.Digest))
		g, err := h.golden(m.Digest)
		if err != nil {
			continue // its folder is removed all the same
		}
		for _, name := range m.Platforms {
			if p, _, place, err := copyAt(name); err == nil {
				g.Place, g.lock = place, lockFile(h.contentLock())
				if err := p.Remove(ctx, g); err != nil {
					return gone, err
				}
			}
		}
	}
	return gone, h.sweep(ctx, dirs)
}

// An EpochError says that a release is older than, or another than, what this host has acquired.
type EpochError struct {
	Offered, Highest Epoch
}

func (e *EpochError) Error() string {
	o := e.Offered
	if o.Epoch == e.Highest.Epoch {
		return fmt.Sprintf("%q in channel %q: epoch %d is %s here, not %s", o.Name, o.Channel, o.Epoch, e.Highest.Digest, o.Digest)
	}
	return fmt.Sprintf("%q in channel %q: epoch %d is older than epoch %d, which this host has seen", o.Name, o.Channel, o.Epoch, e.Highest.Epoch)
}

// Acquire notes that a release is taken in. Its error is an [*EpochError] if a newer one, or
// another of the same epoch, was taken in before. Going back to an image that the host already
// holds is a local act and needs no Acquire. The minimum epoch never becomes less.
func (h *Host) Acquire(ctx context.Context, offered Epoch) error {
	return h.Update(ctx, func(s *State) error {
		e := s.epoch(offered.Name, offered.Channel)
		if e == nil {
			s.Epochs = append(s.Epochs, offered)
			return nil
		}
		if offered.Epoch < e.Epoch || offered.Epoch == e.Epoch && offered.Digest != e.Digest {
			return &EpochError{offered, *e}
		}
		offered.Minimum = max(offered.Minimum, e.Minimum)
		*e = offered
		return nil
	})
}

// Withdraw raises the minimum epoch of a name and channel that this host has acquired: a later
// statement about the same release may demand a higher one.
func (h *Host) Withdraw(ctx context.Context, name, channel string, minimum int64) error {
	return h.Update(ctx, func(s *State) error {
		if e := s.epoch(name, channel); e != nil {
			e.Minimum = min(max(e.Minimum, minimum), e.Epoch)
		}
		return nil
	})
}

// SetRelease notes what is known now of the release of an image this host holds: when it expires
// and, if it was withdrawn, why. Check reports both.
func (h *Host) SetRelease(ctx context.Context, digest string, expires time.Time, revoked string) error {
	return h.Update(ctx, func(s *State) error {
		m := s.Image(digest)
		if m == nil {
			return fmt.Errorf("image %s: %w", digest, fs.ErrNotExist)
		}
		m.Expires, m.Revoked = expires, revoked
		return nil
	})
}

// SetPolicy notes the path of the policy file that verifies what is pulled, empty for none.
func (h *Host) SetPolicy(ctx context.Context, path string) error {
	return h.Update(ctx, func(s *State) error {
		s.Policy = path
		return nil
	})
}
