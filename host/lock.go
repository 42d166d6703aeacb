package host

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/goldenisc/packer-plugin-isc/internal/flock"
)

// ErrBusy is the error of an instance that another command is working on.
var ErrBusy = errors.New("another command is working on it")

// held are the lock files of this process: some systems' locks do not keep goroutines apart, and
// give a lock up when any descriptor of the file is closed.
var held = struct {
	sync.Mutex
	paths map[string]*os.File
}{paths: map[string]*os.File{}}

// lock takes the lock file of this path, waiting up to wait, and returns what gives it up.
// The file stays: removing it would let two take "the" lock.
func lock(ctx context.Context, path string, wait time.Duration) (unlock func(), err error) {
	path, err = filepath.Abs(path)
	if err != nil {
		return nil, err
	}
	for end := time.Now().Add(wait); ; {
		f, err := lockOnce(path)
		if err != nil {
			return nil, err
		}
		if f != nil {
			return func() {
				held.Lock()
				defer held.Unlock()
				delete(held.paths, path)
				f.Close()
			}, nil
		}
		if !time.Now().Before(end) {
			return nil, ErrBusy
		}
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-time.After(5 * time.Millisecond):
		}
	}
}

// lockOnce returns nil if somebody has the lock.
func lockOnce(path string) (*os.File, error) {
	held.Lock()
	defer held.Unlock()
	if held.paths[path] != nil {
		return nil, nil
	}
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	ok, err := flock.Try(f)
	if err != nil || !ok {
		f.Close()
		return nil, err
	}
	held.paths[path] = f
	return f, nil
}

// lockFile returns the file of a lock that this process has. A child that is given it has the lock,
// too, after the process was killed, where locks are of the file and not of the process.
func lockFile(path string) *os.File {
	held.Lock()
	defer held.Unlock()
	path, err := filepath.Abs(path)
	if err != nil {
		return nil
	}
	return held.paths[path]
}

// stateWait is how long the state, whose changes take milliseconds, is waited for.
const stateWait = 30 * time.Second

// View returns the state as it is now.
func (h *Host) View() (*State, error) {
	s, err := readState(h.dir)
	if err != nil {
		return nil, fmt.Errorf("state %w", err)
	}
	return s, nil
}

// Update changes the state: change sees the newest one, and what it makes of it is on the disk
// when Update returns. Its error leaves the state as it was.
func (h *Host) Update(ctx context.Context, change func(*State) error) error {
	unlock, err := lock(ctx, filepath.Join(h.dir, stateLock), stateWait)
	if err != nil {
		return fmt.Errorf("state %q: %w", h.dir, err)
	}
	defer unlock()
	s, err := h.View()
	if err != nil {
		return err
	}
	if err := change(s); err != nil {
		return err
	}
	s.sort()
	if err := s.check(); err != nil {
		return fmt.Errorf("state %q: %w", h.dir, err)
	}
	if err := writeState(h.dir, s); err != nil {
		return fmt.Errorf("state %w", err)
	}
	return nil
}
