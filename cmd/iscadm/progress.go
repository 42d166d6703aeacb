package main

import (
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/vbauerster/mpb/v8"
	"github.com/vbauerster/mpb/v8/decor"

	"github.com/goldenisc/packer-plugin-isc/image"
)

// bars draws the progress of the libraries on a terminal. A nil one draws nothing.
type bars struct {
	mu     sync.Mutex
	box    *mpb.Progress
	stages map[string]*stage
}

type stage struct {
	bar         *mpb.Bar
	done, total atomic.Int64
	drawn       atomic.Int64 // unix milliseconds
}

// progress returns the callback for one command, nil if nothing is to be drawn.
func (a *app) progress() image.Progress {
	f, ok := terminal(a.diag)
	if !ok || a.quiet || a.noProgress || a.json {
		return nil
	}
	if a.bars == nil {
		a.bars = newBars(f)
	}
	return a.bars.set
}

func newBars(f *os.File) *bars {
	return &bars{box: mpb.New(mpb.WithOutput(f), mpb.WithWidth(40), mpb.WithRefreshRate(120*time.Millisecond)), stages: map[string]*stage{}}
}

// set is called often: it draws at most twenty times a second.
func (b *bars) set(name string, done, total int64) {
	s := b.stage(name)
	s.done.Store(done)
	s.total.Store(total)
	now := time.Now().UnixMilli()
	if last := s.drawn.Load(); done != total && (now-last < 50 || !s.drawn.CompareAndSwap(last, now)) {
		return
	}
	if total > 0 {
		s.bar.SetTotal(total, false)
	}
	s.bar.SetCurrent(done)
}

func (b *bars) stage(name string) *stage {
	b.mu.Lock()
	defer b.mu.Unlock()
	s := b.stages[name]
	if s == nil {
		s = &stage{bar: b.box.New(0, mpb.BarStyle(),
			mpb.BarRemoveOnComplete(),
			mpb.PrependDecorators(decor.Name(name, decor.WCSyncSpaceR)),
			mpb.AppendDecorators(decor.CountersKibiByte("% .1f / % .1f", decor.WCSyncSpace), decor.AverageSpeed(decor.SizeB1024(0), " % .1f")))}
		b.stages[name] = s
	}
	return s
}

// above runs print without the bars in its way.
func (b *bars) above(print func()) {
	if b != nil {
		b.stop()
	}
	print()
}

// stop ends the bars; later stages get new ones.
func (b *bars) stop() {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, s := range b.stages {
		s.bar.Abort(true)
	}
	clear(b.stages)
}

func (a *app) stopProgress() {
	if a.bars != nil {
		a.bars.stop()
		a.bars.box.Wait()
	}
}
