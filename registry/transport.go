package registry

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

const (
	// idleTimeout ends a request in which nothing moves: stalled bodies hang other clients for ever.
	idleTimeout = 30 * time.Second
	// storeTimeout is what a registry may take to store a blob that it has got.
	storeTimeout = 10 * time.Minute

	maxRedirects = 5
)

var errIdle = errors.New("the registry sent and took nothing for too long")

// A refusal is an error of ours about what the registry wants, which it will want again.
type refusal string

func (r refusal) Error() string { return string(r) }

// newTransport is the HTTP below authentication. Nothing is decompressed on the way: digests are
// of the bytes that are stored.
func newTransport(plainHTTP bool, s *secrets) http.RoundTripper {
	return guard{plainHTTP, s, patience{&http.Transport{
		Proxy:                  http.ProxyFromEnvironment,
		DialContext:            (&net.Dialer{Timeout: idleTimeout}).DialContext,
		ForceAttemptHTTP2:      true,
		TLSHandshakeTimeout:    idleTimeout,
		IdleConnTimeout:        90 * time.Second,
		MaxIdleConnsPerHost:    8,
		MaxResponseHeaderBytes: 256 << 10,
		DisableCompression:     true,
	}, idleTimeout}}
}

// secrets are what was sent to be let in. A registry that repeats it does not bring it into an error,
// and so into a log.
type secrets struct {
	mu   sync.Mutex
	list []string
}

// saw takes in an Authorization header (RFC 7617, RFC 6750).
func (s *secrets) saw(header string) {
	_, value, _ := strings.Cut(header, " ")
	data, _ := base64.StdEncoding.DecodeString(value)
	_, password, _ := strings.Cut(string(data), ":")
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, secret := range []string{value, password} {
		if secret != "" && !slices.Contains(s.list, secret) {
			s.list = append(s.list, secret)
		}
	}
}

func (s *secrets) hide(text string) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, secret := range s.list {
		text = strings.ReplaceAll(text, secret, "…")
	}
	return text
}

// guard refuses plain HTTP but to this machine, and notes what is secret.
type guard struct {
	plainHTTP bool
	secrets   *secrets
	inner     http.RoundTripper
}

func (g guard) RoundTrip(req *http.Request) (*http.Response, error) {
	if req.URL.Scheme != "https" && !g.plainHTTP && !isLoopback(req.URL.Hostname()) {
		if req.Body != nil {
			req.Body.Close()
		}
		return nil, refusal(fmt.Sprintf("plain HTTP to %q is not allowed", req.URL.Host))
	}
	g.secrets.saw(req.Header.Get("Authorization"))
	return g.inner.RoundTrip(req)
}

func isLoopback(host string) bool {
	ip, err := netip.ParseAddr(host)
	return host == "localhost" || err == nil && ip.Unmap().IsLoopback()
}

// checkRedirect is the policy for redirects, by which registries hand out blobs: never from HTTPS
// to HTTP, and never to an address of this machine or network that is not the registry itself.
func checkRedirect(req *http.Request, via []*http.Request) error {
	if len(via) > maxRedirects {
		return refusal(fmt.Sprintf("more than %d redirects", maxRedirects))
	}
	from, to := via[0].URL, req.URL
	if to.Scheme != "https" && (via[len(via)-1].URL.Scheme == "https" || to.Scheme != "http") {
		return refusal(fmt.Sprintf("redirect to %q: not HTTPS", to.Redacted()))
	}
	ip, err := netip.ParseAddr(to.Hostname())
	ip = ip.Unmap()
	local := to.Hostname() == "localhost" ||
		err == nil && (ip.IsLoopback() || ip.IsPrivate() || ip.IsLinkLocalUnicast() || ip.IsUnspecified() || ip.IsMulticast())
	if local && to.Hostname() != from.Hostname() {
		return refusal(fmt.Sprintf("redirect to %q: an address of the local network", to.Redacted()))
	}
	return nil
}

// patience cancels a request in which nothing moves for the time, until its body is closed.
type patience struct {
	inner http.RoundTripper
	idle  time.Duration
}

func (p patience) RoundTrip(req *http.Request) (*http.Response, error) {
	ctx, cancel := context.WithCancelCause(req.Context())
	w := &watch{ctx: ctx, cancel: cancel, idle: p.idle}
	w.timer = time.AfterFunc(p.idle, func() {
		if !w.waiting.Load() {
			cancel(errIdle)
		}
	})
	req = req.Clone(ctx)
	if req.Body != nil && req.Body != http.NoBody {
		req.Body = watchedUpload{watchedBody{w, req.Body}}
	}
	resp, err := p.inner.RoundTrip(req)
	if err != nil {
		err = w.cause(err)
		w.stop()
		return nil, err
	}
	w.waiting.Store(true)
	resp.Body = watchedBody{w, resp.Body}
	return resp, nil
}

type watch struct {
	ctx     context.Context
	cancel  context.CancelCauseFunc
	timer   *time.Timer
	idle    time.Duration
	waiting atomic.Bool // the consumer has the turn, not the registry
}

func (w *watch) moved(next time.Duration) { w.timer.Reset(next) }

func (w *watch) stop() {
	w.timer.Stop()
	w.cancel(nil)
}

// cause tells the timeout from the cancelled request that it makes.
func (w *watch) cause(err error) error {
	if errors.Is(context.Cause(w.ctx), errIdle) {
		return errIdle
	}
	return err
}

type watchedBody struct {
	w *watch
	io.ReadCloser
}

func (b watchedBody) Read(p []byte) (int, error) {
	b.w.waiting.Store(false)
	b.w.moved(b.w.idle)
	n, err := b.ReadCloser.Read(p)
	b.w.waiting.Store(true) // a slow consumer is nobody's fault
	if err != nil && err != io.EOF {
		err = b.w.cause(err)
	}
	return n, err
}

func (b watchedBody) Close() error {
	b.w.stop()
	return b.ReadCloser.Close()
}

// watchedUpload is the body of a request: reading moves it on, and at its end the registry has
// something to do.
type watchedUpload struct{ watchedBody }

func (b watchedUpload) Read(p []byte) (int, error) {
	b.w.moved(b.w.idle)
	n, err := b.ReadCloser.Read(p)
	if err == io.EOF {
		b.w.moved(max(storeTimeout, b.w.idle))
	} else {
		b.w.moved(b.w.idle)
	}
	return n, err
}

func (b watchedUpload) Close() error { return b.ReadCloser.Close() }
