package registry

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"mime"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
	"unicode"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/v1/remote/transport"
)

const (
	attempts = 3    // of a request that failed for a reason that may pass
	maxPages = 64   // of a list
	maxTags  = 1e5  // of a repository
	pageSize = 1000 // tags we ask for at once
)

// acceptManifests are the types that a manifest is asked for as.
var acceptManifests = strings.Join([]string{typeIndex, typeManifest, typeDockerList, typeDockerManifest}, ", ")

// retryDelay is waited before a request is made again. Tests shorten it.
var retryDelay = 250 * time.Millisecond

// A repository is a repository of a registry, by the OCI distribution protocol. Authentication is that
// of go-containerregistry.
type repository struct {
	repo   name.Repository
	client *http.Client
	delay  time.Duration // before the second attempt; later ones wait longer

	secrets *secrets

	mu       sync.Mutex
	resolved map[string][]byte // manifests that came with the resolution of their tag
}

// openRepository logs in to the registry.
func openRepository(ctx context.Context, r Ref, plainHTTP, push bool) (*repository, error) {
	var opts []name.Option
	if plainHTTP {
		opts = append(opts, name.Insecure)
	}
	repo, err := name.NewRepository(r.Host+"/"+r.Repo, opts...)
	if err != nil {
		return nil, err
	}
	auth, err := authn.Resolve(ctx, authn.DefaultKeychain, repo)
	if err != nil {
		return nil, fmt.Errorf("credentials for %q: %w", repo.RegistryStr(), err)
	}
	scope := transport.PullScope
	if push {
		scope = transport.PushScope
	}
	sent := new(secrets)
	t, err := transport.NewWithContext(ctx, repo.Registry, auth, newTransport(plainHTTP, sent), []string{repo.Scope(scope)})
	if err != nil {
		return nil, undetermined(ctx, fmt.Errorf("registry %q: %w", repo.RegistryStr(), foreignError{err, sent}))
	}
	return &repository{
		repo:     repo,
		client:   &http.Client{Transport: t, CheckRedirect: checkRedirect},
		delay:    retryDelay,
		resolved: map[string][]byte{},
		secrets:  sent,
	}, nil
}

// undetermined marks an error as none that answers the question, unless it was the caller who
// ended it.
func undetermined(ctx context.Context, err error) error {
	if err == nil || ctx.Err() != nil {
		return err
	}
	return fmt.Errorf("%w: %w", ErrUndetermined, err)
}

// Close implements [Store].
func (r *repository) Close() error {
	r.client.CloseIdleConnections()
	return nil
}

// A request is one request of the distribution protocol.
type request struct {
	method string
	path   string // below /v2/REPO/, or a whole URL
	query  url.Values
	header map[string]string
	body   func() (io.ReadCloser, error) // called for every attempt
	size   int64                         // of the body
	want   []int                         // statuses that are answers
}

// do sends a request, again if there is hope, and returns a response that has a wanted status.
func (r *repository) do(ctx context.Context, q request) (*http.Response, error) {
	for try := 1; ; try++ {
		resp, again, err := r.once(ctx, q)
		if err == nil || !again || try == attempts || ctx.Err() != nil {
			return resp, err
		}
		select {
		case <-ctx.Done():
			return nil, err
		case <-time.After(time.Duration(try*try) * r.delay):
		}
	}
}

func (r *repository) once(ctx context.Context, q request) (resp *http.Response, again bool, err error) {
	u, err := r.url(q.path)
	if err != nil {
		return nil, false, err
	}
	if q.query != nil {
		all := u.Query()
		for k, v := range q.query {
			all[k] = v
		}
		u.RawQuery = all.Encode()
	}
	req, err := http.NewRequestWithContext(ctx, q.method, u.String(), nil)
	if err != nil {
		return nil, false, err
	}
	for k, v := range q.header {
		req.Header.Set(k, v)
	}
	if q.body != nil {
		if req.Body, err = q.body(); err != nil {
			return nil, false, err
		}
		if req.ContentLength = q.size; q.size == 0 {
			req.Body.Close()
			req.Body = http.NoBody
		}
	}
	resp, err = r.client.Do(req)
	if err != nil {
		var ours refusal
		return nil, !errors.Is(err, errIdle) && !errors.As(err, &ours), err
	}
	if slices.Contains(q.want, resp.StatusCode) {
		return resp, false, nil
	}
	defer resp.Body.Close()
	again = resp.StatusCode == http.StatusTooManyRequests || resp.StatusCode >= 500
	return nil, again, foreignError{transport.CheckError(resp, q.want...), r.secrets}
}

// A foreignError has text of the registry in it: nothing for a terminal to obey, not pages, and not what
// was sent to it in secret.
type foreignError struct {
	err     error
	secrets *secrets
}

func (e foreignError) Error() string {
	const most = 500
	s := strings.Map(func(c rune) rune {
		if !unicode.IsPrint(c) {
			return ' '
		}
		return c
	}, e.secrets.hide(e.err.Error()))
	if len(s) > most {
		s = strings.ToValidUTF8(s[:most], "") + "…"
	}
	return s
}

func (e foreignError) Unwrap() error { return e.err }

// url makes the URL of a path of the repository, or of a location that the registry gave.
func (r *repository) url(path string) (*url.URL, error) {
	base := &url.URL{
		Scheme: r.repo.Registry.Scheme(),
		Host:   r.repo.RegistryStr(),
		Path:   "/v2/" + r.repo.RepositoryStr() + "/",
	}
	u, err := base.Parse(path)
	if err != nil {
		return nil, fmt.Errorf("location %q of the registry: %w", path, err)
	}
	return u, nil
}

func (r *repository) errorf(what string, err error) error {
	return fmt.Errorf("repository %q: %s: %w", r.repo.Name(), what, err)
}

// getManifest fetches a manifest and checks it against its digest, if that is what it was asked
// for, and against what the headers say.
func (r *repository) getManifest(ctx context.Context, version string) ([]byte, error) {
	data, err := r.fetchManifest(ctx, version)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, r.errorf("manifest "+version, fs.ErrNotExist)
	case errors.Is(err, ErrMismatch): // an answer, and a wrong one
		return nil, r.errorf("manifest "+version, err)
	case err != nil:
		return nil, r.errorf("manifest "+version, undetermined(ctx, err))
	}
	return data, nil
}

func (r *repository) fetchManifest(ctx context.Context, version string) ([]byte, error) {
	resp, err := r.do(ctx, request{
		method: http.MethodGet, path: "manifests/" + version,
		header: map[string]string{"Accept": acceptManifests},
		want:   []int{http.StatusOK, http.StatusNotFound},
	})
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	if resp.StatusCode == http.StatusNotFound {
		return nil, fs.ErrNotExist
	}
	data, err := readBounded(resp.Body)
	if err != nil {
		return nil, err
	}
	digest := Digest(data)
	if _, err := digestHex(version); err == nil && version != digest {
		return nil, fmt.Errorf("%w: its bytes have the digest %s", ErrMismatch, digest)
	}
	if h := resp.Header.Get("Docker-Content-Digest"); strings.HasPrefix(h, "sha256:") && h != digest {
		return nil, fmt.Errorf("%w: its bytes have the digest %s, the registry says %q", ErrMismatch, digest, h)
	}
	d, err := describe(data)
	if err != nil {
		return nil, err
	}
	// CVE-2021-41190. Registries that know no types send something general.
	t, _, _ := mime.ParseMediaType(resp.Header.Get("Content-Type"))
	if (isIndex(t) || isManifest(t)) && t != d.MediaType {
		return nil, fmt.Errorf("is of type %q, the registry says %q", d.MediaType, t)
	}
	return data, nil
}

func readBounded(r io.Reader) ([]byte, error) {
	data, err := io.ReadAll(io.LimitReader(r, maxManifest+1))
	if err == nil && len(data) > maxManifest {
		err = fmt.Errorf("more than the %d bytes of a manifest", maxManifest)
	}
	return data, err
}

// Resolve implements [Store].
func (r *repository) Resolve(ctx context.Context, tagOrDigest string) (Descriptor, error) {
	data, err := r.getManifest(ctx, tagOrDigest)
	if err != nil {
		return Descriptor{}, err
	}
	d, err := describe(data)
	if err != nil {
		return Descriptor{}, err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.resolved[d.Digest] = data
	return d, nil
}

// Manifest implements [Store].
func (r *repository) Manifest(ctx context.Context, d Descriptor) ([]byte, error) {
	if err := d.check(); err != nil {
		return nil, err
	}
	r.mu.Lock()
	data, ok := r.resolved[d.Digest]
	delete(r.resolved, d.Digest)
	r.mu.Unlock()
	if !ok {
		var err error
		if data, err = r.getManifest(ctx, d.Digest); err != nil {
			return nil, err
		}
	}
	if int64(len(data)) != d.Size {
		return nil, r.errorf("manifest "+d.Digest, fmt.Errorf("has %d bytes, its descriptor says %d", len(data), d.Size))
	}
	return data, nil
}

// Blob implements [Store].
func (r *repository) Blob(ctx context.Context, d Descriptor) (io.ReadCloser, error) {
	if err := d.check(); err != nil {
		return nil, err
	}
	resp, err := r.do(ctx, request{
		method: http.MethodGet, path: "blobs/" + d.Digest,
		want: []int{http.StatusOK, http.StatusNotFound},
	})
	if err != nil {
		return nil, r.errorf("blob "+d.Digest, err)
	}
	if resp.StatusCode == http.StatusNotFound {
		resp.Body.Close()
		return nil, r.errorf("blob "+d.Digest, fs.ErrNotExist)
	}
	return verify(resp.Body, d), nil
}

// Tags implements [Store].
func (r *repository) Tags(ctx context.Context) ([]string, error) {
	var tags []string
	err := r.pages(ctx, "tags/list?n="+strconv.Itoa(pageSize), func(data []byte) error {
		var page struct {
			Tags []string `json:"tags"`
		}
		if err := json.Unmarshal(data, &page); err != nil {
			return err
		}
		if tags = append(tags, page.Tags...); len(tags) > maxTags {
			return fmt.Errorf("more than %.0f", maxTags)
		}
		return nil
	})
	if errors.Is(err, fs.ErrNotExist) {
		return nil, r.errorf("tags", fs.ErrNotExist)
	} else if err != nil {
		return nil, r.errorf("tags", undetermined(ctx, err))
	}
	return tags, nil
}

// pages reads a list that may come in pages (spec.md, "Listing Tags"). A list that is not there is
// [fs.ErrNotExist].
func (r *repository) pages(ctx context.Context, path string, add func([]byte) error) error {
	for range maxPages {
		resp, err := r.do(ctx, request{
			method: http.MethodGet, path: path, want: []int{http.StatusOK, http.StatusNotFound},
		})
		if err != nil {
			return err
		}
		data, err := readBounded(resp.Body)
		resp.Body.Close()
		switch {
		case err != nil:
			return err
		case resp.StatusCode == http.StatusNotFound:
			return fs.ErrNotExist
		}
		if err := add(data); err != nil {
			return err
		}
		if path, err = r.nextPage(resp); err != nil || path == "" {
			return err
		}
	}
	return fmt.Errorf("more than %d pages", maxPages)
}

// nextPage returns the URL of the Link header of RFC 8288 with rel="next", which must stay on the
// registry.
func (r *repository) nextPage(resp *http.Response) (string, error) {
	link := resp.Header.Get("Link")
	if link == "" {
		return "", nil
	}
	target, params, ok := strings.Cut(strings.TrimPrefix(link, "<"), ">")
	if !ok || !strings.Contains(strings.ReplaceAll(params, `"`, ""), "rel=next") {
		return "", nil
	}
	u, err := resp.Request.URL.Parse(target)
	if err != nil || u.Host != resp.Request.URL.Host {
		return "", fmt.Errorf("next page at %q", target)
	}
	return u.RequestURI(), nil
}

// Referrers implements [Store]: what the registry lists, or if it cannot list, what stands under
// the referrers tag.
func (r *repository) Referrers(ctx context.Context, digest string) ([]Descriptor, error) {
	list, _, err := r.referrers(ctx, digest)
	if err != nil {
		return nil, r.errorf("referrers of "+digest, err)
	}
	return list, nil
}

func (r *repository) referrers(ctx context.Context, digest string) (list []Descriptor, fallback bool, err error) {
	if _, err := digestHex(digest); err != nil {
		return nil, false, err
	}
	err = r.pages(ctx, "referrers/"+digest, func(data []byte) error {
		page, err := parseReferrers(data)
		if list = append(list, page...); len(list) > maxReferrers {
			err = fmt.Errorf("more than %d", maxReferrers)
		}
		return err
	})
	if err == nil {
		return list, false, nil
	}
	if !errors.Is(err, fs.ErrNotExist) || len(list) > 0 {
		return nil, false, undetermined(ctx, err)
	}
	data, err := r.fetchManifest(ctx, fallbackTag(digest))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, true, nil
	} else if err != nil {
		return nil, true, undetermined(ctx, err)
	}
	list, err = parseReferrers(data)
	return list, true, err
}
