package host

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"time"

	"github.com/goldenisc/packer-plugin-isc/image"
)

// A Host is the images and instances of this machine, or of this user. Its methods may be called
// concurrently and by several processes at a time; one instance is worked on by one at a time, the
// others get [ErrBusy].
type Host struct {
	// Recovered says what earlier commands left unfinished, and what became of it.
	Recovered []string
	// Progress is told of what takes long. It may be nil.
	Progress image.Progress

	dir string
}

// DefaultDir returns the state folder of who runs this: for root /var/lib/iscadm, on SmartOS
// /opt/custom/iscadm because /var does not outlive a reboot there; for others iscadm in
// $XDG_STATE_HOME, or what the system has in its place.
func DefaultDir() (string, error) {
	if privileged() {
		if _, err := os.Stat("/opt/custom"); err == nil && isSmartOS() {
			return "/opt/custom/iscadm", nil
		}
		return "/var/lib/iscadm", nil
	}
	if d := os.Getenv("XDG_STATE_HOME"); filepath.IsAbs(d) {
		return filepath.Join(d, "iscadm"), nil
	}
	if runtime.GOOS == "windows" {
		d, err := os.UserCacheDir() // %LocalAppData%
		return filepath.Join(d, "iscadm"), err
	}
	home, err := os.UserHomeDir()
	return filepath.Join(home, ".local", "state", "iscadm"), err
}

// isSmartOS reports whether this is a SmartOS global zone, whose release file says so.
func isSmartOS() bool {
	data, _ := os.ReadFile("/etc/release")
	return strings.Contains(string(data), "SmartOS")
}

// Open opens the state folder, which is made if it is missing, and brings what killed commands
// left there to an end. What cannot be brought to an end now is said in Recovered, and again by
// whatever touches that instance.
func Open(ctx context.Context, dir string) (*Host, error) {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return nil, err
	}
	h := &Host{dir: dir}
	for _, d := range []string{"", "locks", "images", "instances"} {
		if err := os.MkdirAll(filepath.Join(dir, d), 0o700); err != nil {
			return nil, fmt.Errorf("state: %w", err)
		}
	}
	s, err := h.View()
	if err != nil {
		return nil, err
	}
	for i := range s.Instances {
		in := &s.Instances[i]
		cleaner, _ := Platforms[in.Platform].(Cleaner)
		litter := cleaner != nil && cleaner.Litter(in)
		if in.Pending == nil && !litter {
			continue
		}
		unlock, err := h.lockInstance(ctx, in.Name)
		if errors.Is(err, ErrBusy) {
			continue // not killed: at work
		}
		if err == nil {
			err = h.recover(ctx, in.Name)
			if err == nil && cleaner != nil && cleaner.Litter(in) {
				err = cleaner.Clean(ctx, in)
			}
			unlock()
		}
		if err != nil {
			h.Recovered = append(h.Recovered, err.Error())
		}
	}
	if err := errors.Join(h.tidyTemps(ctx), h.tidy(ctx)); err != nil {
		h.Recovered = append(h.Recovered, fmt.Sprintf("litter in %q: %v", dir, err))
	}
	return h, nil
}

// Dir is the state folder.
func (h *Host) Dir() string { return h.dir }

func (h *Host) store() store { return store{filepath.Join(h.dir, "content")} }

func (h *Host) imageDir(digest string) string {
	return filepath.Join(h.dir, "images", strings.TrimPrefix(digest, "sha256:"))
}

func (h *Host) instanceLock(name string) string {
	return filepath.Join(h.dir, "locks", name+".lock")
}

func (h *Host) lockInstance(ctx context.Context, name string) (func(), error) {
	unlock, err := lock(ctx, h.instanceLock(name), 0)
	if err != nil {
		return nil, fmt.Errorf("instance %q: %w", name, err)
	}
	return unlock, nil
}

// contentLock is the lock of the images, whose name no instance's can be.
func (h *Host) contentLock() string { return filepath.Join(h.dir, "locks", ".content") }

// lockContent takes the lock of the images.
func (h *Host) lockContent(ctx context.Context, wait time.Duration) (func(), error) {
	unlock, err := lock(ctx, h.contentLock(), wait)
	if err != nil {
		return nil, fmt.Errorf("images of %q: %w", h.dir, err)
	}
	return unlock, nil
}

// tidyTemps removes files that were being written, beside the ones they were to replace.
func (h *Host) tidyTemps(ctx context.Context) error {
	temps, err := filepath.Glob(filepath.Join(h.dir, "instances", "*", "*.new"))
	if err != nil {
		return err
	}
	for _, path := range append(temps, filepath.Join(h.dir, stateTemp)) {
		if _, err := os.Lstat(path); err != nil {
			continue
		}
		guard := filepath.Join(h.dir, stateLock)
		if filepath.Base(path) != stateTemp {
			guard = h.instanceLock(filepath.Base(filepath.Dir(path)))
		}
		unlock, err := lock(ctx, guard, 0)
		if errors.Is(err, ErrBusy) {
			continue // being written
		}
		if err != nil {
			return err
		}
		err = os.Remove(path)
		unlock()
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return nil
}

// tidy removes what killed imports and prunes left.
func (h *Host) tidy(ctx context.Context) error {
	orphans := func() ([]string, error) {
		s, err := h.View()
		if err != nil {
			return nil, err
		}
		var list []string
		entries, err := os.ReadDir(filepath.Join(h.dir, "images"))
		for _, e := range entries {
			if s.Image("sha256:"+e.Name()) == nil {
				list = append(list, filepath.Join(h.dir, "images", e.Name()))
			}
		}
		return list, err
	}
	list, err := orphans()
	if err != nil || len(list) == 0 && !h.store().litter() {
		return err
	}
	unlock, err := h.lockContent(ctx, 0)
	if errors.Is(err, ErrBusy) {
		return nil // an import or prune at work
	}
	if err != nil {
		return err
	}
	defer unlock()
	if list, err = orphans(); err != nil {
		return err
	}
	return h.sweep(ctx, list)
}

// sweep removes folders of images and all content that no image needs. The caller holds the lock.
func (h *Host) sweep(ctx context.Context, dirs []string) error {
	s, err := h.View()
	if err != nil {
		return err
	}
	used := map[[sha256.Size]byte]bool{}
	for i := range s.Images {
		g, err := h.golden(s.Images[i].Digest)
		if err != nil {
			return err
		}
		for e := range g.Content.All() {
			if e.IsRegular() {
				used[e.Digest] = true
			}
		}
	}
	if err := errors.Join(h.store().clean(), h.store().sweep(ctx, used)); err != nil {
		return err
	}
	for _, d := range dirs {
		if err := os.RemoveAll(d); err != nil {
			return err
		}
	}
	return nil
}

// The files about an image.
const (
	configFile  = "config.json"
	contentFile = "content.mtree"
	objectsFile = "objects.json"
	reportFile  = "report.json" // of images that have one, and were imported by a version that keeps it
)

// golden returns an image of the store.
func (h *Host) golden(digest string) (*Golden, error) {
	g, err := readGolden(h.imageDir(digest))
	if err != nil {
		return nil, fmt.Errorf("image %s: %w", digest, err)
	}
	g.Digest, g.store = digest, h.store()
	return g, nil
}

func readGolden(dir string) (*Golden, error) {
	data, err := os.ReadFile(filepath.Join(dir, configFile))
	if err != nil {
		return nil, err
	}
	config, err := image.ParseConfig(data)
	if err != nil {
		return nil, err
	}
	mtree, err := os.Open(filepath.Join(dir, contentFile))
	if err != nil {
		return nil, err
	}
	defer mtree.Close()
	objects, err := os.Open(filepath.Join(dir, objectsFile))
	if err != nil {
		return nil, err
	}
	defer objects.Close()
	content, err := image.ReadContent(mtree, objects)
	if err != nil {
		return nil, err
	}
	return &Golden{Config: config, Content: content, Dir: dir}, nil
}

// recover brings an instance's unfinished operation to an end. The caller holds its lock.
func (h *Host) recover(ctx context.Context, name string) error {
	s, err := h.View()
	if err != nil {
		return err
	}
	in := s.Instance(name)
	if in == nil || in.Pending == nil {
		return nil
	}
	op := in.Pending.Op
	fail := func(err error) error { return fmt.Errorf("instance %q: unfinished %s: %w", name, op, err) }
	j, p, err := h.job(ctx, in)
	if err != nil {
		return fail(err)
	}
	exists, err := p.Recover(ctx, j)
	if err != nil {
		return fail(err)
	}
	if err := h.settle(ctx, j, exists); err != nil {
		return fail(err)
	}
	what := "undone"
	if exists == (op != opDestroy) && j.Instance.Pending == nil {
		what = "brought to an end"
	}
	h.Recovered = append(h.Recovered, fmt.Sprintf("instance %q: %s was interrupted: %s", name, op, what))
	return nil
}

// settle stores the instance after an operation; one that does not exist any more is forgotten.
func (h *Host) settle(ctx context.Context, j *Job, exists bool) error {
	j.Instance.Pending = nil
	if !exists {
		if err := os.RemoveAll(j.Dir); err != nil {
			return err
		}
	}
	return h.Update(context.WithoutCancel(ctx), func(s *State) error {
		in := s.Instance(j.Instance.Name)
		if in == nil {
			return fmt.Errorf("instance %q: %w", j.Instance.Name, fs.ErrNotExist)
		}
		if exists {
			*in = *j.Instance
			return nil
		}
		s.remove(j.Instance.Name)
		return nil
	})
}

// job prepares work on an instance, whose lock the caller holds.
func (h *Host) job(ctx context.Context, in *Instance) (*Job, Platform, error) {
	p := Platforms[in.Platform]
	if p == nil {
		return nil, nil, fmt.Errorf("platform %q is unknown", in.Platform)
	}
	g, err := h.golden(in.Image)
	if err != nil {
		return nil, nil, err
	}
	c := *in
	j := &Job{Golden: g, Instance: &c, Dir: filepath.Join(h.dir, "instances", in.Name), Progress: h.Progress, lock: lockFile(h.instanceLock(in.Name))}
	if err := os.MkdirAll(j.Dir, 0o700); err != nil {
		return nil, nil, err
	}
	j.save = func() error {
		return h.Update(context.WithoutCancel(ctx), func(s *State) error {
			in := s.Instance(c.Name)
			if in == nil {
				return fmt.Errorf("instance %q: %w", c.Name, fs.ErrNotExist)
			}
			*in = *j.Instance
			return nil
		})
	}
	return j, p, nil
}
