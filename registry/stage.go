package registry

import (
	"errors"
	"maps"
	"slices"
	"sync"
)

// A Stage keeps the finished blobs of an image out of the layout until all of them are there, so
// that work which fails, or whose process is killed, leaves nothing in it. Blobs may be created
// and committed by several goroutines at once.
type Stage struct {
	l     *Layout
	mu    sync.Mutex
	blobs map[string]*Blob // finished, by digest; each is a locked temporary file
}

// Stage begins a stage. The caller closes it.
func (l *Layout) Stage() *Stage { return &Stage{l: l, blobs: map[string]*Blob{}} }

// Create begins a blob, whose Commit leaves it in the stage.
func (s *Stage) Create() (*Blob, error) {
	b, err := s.l.Create()
	if err == nil {
		b.stage = s
	}
	return b, err
}

// keep takes over the file of a finished blob, which its writer may close then without effect.
func (s *Stage) keep(digest string, b *Blob) {
	kept := *b
	b.f = nil
	s.mu.Lock()
	defer s.mu.Unlock()
	if old := s.blobs[digest]; old != nil {
		kept.Close() // the same bytes twice
		return
	}
	s.blobs[digest] = &kept
}

// Commit makes all blobs of the stage part of the layout.
func (s *Stage) Commit() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, digest := range slices.Sorted(maps.Keys(s.blobs)) {
		if err := s.blobs[digest].install(digest); err != nil {
			return err
		}
		delete(s.blobs, digest)
	}
	return nil
}

// Close gives up the blobs that were not committed.
func (s *Stage) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	var errs []error
	for _, b := range s.blobs {
		errs = append(errs, b.Close())
	}
	clear(s.blobs)
	return errors.Join(errs...)
}
