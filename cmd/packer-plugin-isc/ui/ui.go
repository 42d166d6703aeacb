// Package ui tells Packer's user, and those who read packer -machine-readable, what happens.
package ui

import (
	"context"
	"io"
	"log/slog"
	"strconv"
	"strings"
	"sync"
	"time"

	sdk "github.com/hashicorp/packer-plugin-sdk/packer"

	"github.com/goldenisc/packer-plugin-isc/image"
	"github.com/goldenisc/packer-plugin-isc/profiles"
)

// Findings lists the controls that failed. With -machine-readable they are records
// isc-finding,control,path,problem.
func Findings(ui sdk.Ui, r *profiles.Report) {
	for _, c := range r.Controls {
		if c.Status != profiles.Fail {
			continue
		}
		ui.Errorf("%s %s", c.ID, c.Title)
		for _, f := range c.Findings {
			ui.Errorf("    %s", f)
			ui.Machine("isc-finding", c.ID, f.Path, f.Problem)
		}
	}
}

// Digest prints the digest of an image: isc-digest,sha256,hex and, for each artifact,
// isc-artifact,name,digest,bytes.
func Digest(ui sdk.Ui, digest string, artifacts []image.Artifact) {
	algorithm, hex, _ := strings.Cut(digest, ":")
	ui.Machine("isc-digest", algorithm, hex)
	for _, a := range artifacts {
		ui.Machine("isc-artifact", a.Name, a.Digest, strconv.FormatInt(a.Size, 10))
	}
}

// Published prints where an image is: isc-published,reference.
func Published(ui sdk.Ui, ref string) {
	ui.Machine("isc-published", ref)
	ui.Say(ref)
}

// Log returns a logger whose warnings the user sees.
func Log(ui sdk.Ui) *slog.Logger { return slog.New(handler{ui: ui}) }

type handler struct {
	ui    sdk.Ui
	attrs []slog.Attr
}

func (h handler) Enabled(_ context.Context, l slog.Level) bool { return l >= slog.LevelWarn }

func (h handler) Handle(_ context.Context, r slog.Record) error {
	text := r.Message
	add := func(a slog.Attr) bool {
		text += " " + a.Key + "=" + strconv.Quote(a.Value.String())
		return true
	}
	for _, a := range h.attrs {
		add(a)
	}
	r.Attrs(add)
	h.ui.Say("Warning: " + text)
	return nil
}

func (h handler) WithAttrs(attrs []slog.Attr) slog.Handler {
	return handler{h.ui, append(h.attrs[:len(h.attrs):len(h.attrs)], attrs...)}
}

func (h handler) WithGroup(string) slog.Handler { return h }

// interval is how often a bar is moved: each move is a call to another process.
const interval = 200 * time.Millisecond

// Progress draws bars where Packer draws them, on terminals, and says elsewhere which stage begins.
// The function returned ends all bars.
func Progress(ui sdk.Ui) (image.Progress, func()) {
	p := &progress{ui: ui, stages: map[string]*stage{}}
	return p.report, p.close
}

type progress struct {
	ui     sdk.Ui
	mu     sync.Mutex
	stages map[string]*stage
	buf    []byte // never touched, so that it takes no memory
}

type stage struct {
	bar   io.ReadCloser
	shown int64
	at    time.Time
}

func (p *progress) report(name string, done, total int64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	s := p.stages[name]
	if s == nil {
		p.ui.Machine("isc-stage", name)
		s = &stage{bar: p.ui.TrackProgress(name, 0, total, io.NopCloser(endless{}))}
		p.stages[name] = s
	}
	if now := time.Now(); s.bar != nil && done > s.shown && (done == total || now.Sub(s.at) >= interval) {
		if err := p.move(s.bar, done-s.shown); err != nil {
			s.bar.Close()
			s.bar = nil
		}
		s.shown, s.at = done, now
	}
	if s.bar != nil && total > 0 && done >= total {
		s.bar.Close()
		s.bar = nil
	}
}

// move moves a bar by n. A bar moves by what is read through it, and each read is a call.
func (p *progress) move(bar io.Reader, n int64) error {
	if p.buf == nil {
		p.buf = make([]byte, 64<<20)
	}
	for n > 0 {
		k, err := bar.Read(p.buf[:min(n, int64(len(p.buf)))])
		if err != nil {
			return err
		}
		n -= int64(k)
	}
	return nil
}

func (p *progress) close() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, s := range p.stages {
		if s.bar != nil {
			s.bar.Close()
			s.bar = nil
		}
	}
}

// endless is a stream of anything.
type endless struct{}

func (endless) Read(p []byte) (int, error) { return len(p), nil }
