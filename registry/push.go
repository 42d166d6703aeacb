package registry

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"net/http"
	"net/url"
	"strings"
	"sync/atomic"
	"time"
)

// Has implements [Sink].
func (r *repository) Has(ctx context.Context, d Descriptor) (bool, error) {
	resp, err := r.do(ctx, request{
		method: http.MethodHead, path: "blobs/" + d.Digest,
		want: []int{http.StatusOK, http.StatusNotFound},
	})
	if err != nil {
		return false, r.errorf("blob "+d.Digest, err)
	}
	resp.Body.Close()
	return resp.StatusCode == http.StatusOK && (resp.ContentLength < 0 || resp.ContentLength == d.Size), nil
}

// CopyBlob implements [Sink] (spec.md, "POST then PUT").
func (r *repository) CopyBlob(ctx context.Context, d Descriptor, open func() (io.ReadCloser, error)) error {
	if err := r.upload(ctx, d, open); err != nil {
		return r.errorf("push of blob "+d.Digest, err)
	}
	return nil
}

func (r *repository) upload(ctx context.Context, d Descriptor, open func() (io.ReadCloser, error)) error {
	var err error
	for try := range attempts {
		if try > 0 { // an upload is never continued, but begun anew
			select {
			case <-ctx.Done():
				return err
			case <-time.After(time.Duration(try) * 4 * r.delay):
			}
		}
		var resp *http.Response
		if resp, err = r.do(ctx, request{method: http.MethodPost, path: "blobs/uploads/", want: []int{http.StatusAccepted}}); err != nil {
			return err
		}
		resp.Body.Close()
		location, locErr := resp.Request.URL.Parse(resp.Header.Get("Location"))
		if locErr != nil || resp.Header.Get("Location") == "" {
			return fmt.Errorf("the registry gives no place to upload to: %q", resp.Header.Get("Location"))
		}
		var source atomic.Pointer[error] // an error of ours is no reason to try again
		resp, again, putErr := r.once(ctx, request{
			method: http.MethodPut, path: location.String(), query: url.Values{"digest": {d.Digest}},
			header: map[string]string{"Content-Type": "application/octet-stream"},
			size:   d.Size,
			body: func() (io.ReadCloser, error) {
				f, err := open()
				if err != nil {
					source.Store(&err)
					return nil, err
				}
				return &sourceBody{ReadCloser: verify(f, d), err: &source}, nil
			},
			want: []int{http.StatusCreated},
		})
		if err = putErr; err == nil {
			resp.Body.Close()
			return nil
		}
		if ours := source.Load(); ours != nil {
			return *ours
		}
		if !again || ctx.Err() != nil {
			return err
		}
	}
	return err
}

// A sourceBody keeps the error of reading what is uploaded, unless the client had lost interest:
// it closes the body when the registry answers before the end.
type sourceBody struct {
	io.ReadCloser
	err    *atomic.Pointer[error]
	closed atomic.Bool
}

func (s *sourceBody) Read(p []byte) (int, error) {
	n, err := s.ReadCloser.Read(p)
	if err != nil && err != io.EOF && !s.closed.Load() {
		s.err.Store(&err)
	}
	return n, err
}

func (s *sourceBody) Close() error {
	s.closed.Store(true)
	return s.ReadCloser.Close()
}

// PutManifest implements [Sink].
func (r *repository) PutManifest(ctx context.Context, data []byte, tag string) (Descriptor, error) {
	d, err := describe(data)
	if err != nil {
		return Descriptor{}, err
	}
	version := tag
	if tag == "" {
		version = d.Digest
	}
	resp, err := r.do(ctx, request{
		method: http.MethodPut, path: "manifests/" + version,
		header: map[string]string{"Content-Type": d.MediaType},
		size:   d.Size,
		body:   func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(data)), nil },
		want:   []int{http.StatusCreated},
	})
	if err != nil {
		return Descriptor{}, r.errorf("push of manifest "+version, err)
	}
	resp.Body.Close()
	if h := resp.Header.Get("Docker-Content-Digest"); strings.HasPrefix(h, "sha256:") && h != d.Digest {
		return Descriptor{}, r.errorf("push of manifest "+version, fmt.Errorf("the registry stored %q, not %s", h, d.Digest))
	}
	return d, nil
}

// Registries have no compare-and-swap. Who writes a tag that others write too reads it again until it
// was as wanted that many times in a row, each after longer than somebody else takes from reading to
// writing: what they overwrote is put back.
const (
	quietReads  = 2
	updateTries = 40
	maxWindow   = 5 * time.Second
)

// UpdateTag implements [Sink].
func (r *repository) UpdateTag(ctx context.Context, tag string, edit func(present []byte) ([]byte, error)) error {
	wrote, quiet := false, 0
	window := r.delay / 5
	for range updateTries {
		begun := time.Now()
		present, err := r.getManifest(ctx, tag)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		data, err := edit(present)
		if err != nil {
			return err
		}
		if present == nil || !bytes.Equal(data, present) {
			if _, err := r.PutManifest(ctx, data, tag); err != nil {
				return err
			}
			wrote, quiet = true, 0
			window = min(max(window, time.Since(begun)), maxWindow)
		} else if quiet++; !wrote || quiet > quietReads {
			return nil
		}
		// Not in step with the others.
		if err := sleep(ctx, 2*window+rand.N(2*window)); err != nil {
			return err
		}
	}
	return r.errorf("tag "+tag, fmt.Errorf("%w: others write it all the time", ErrUndetermined))
}

func sleep(ctx context.Context, d time.Duration) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(d):
		return nil
	}
}

// AddReferrers implements [Sink]. Where the registry lists referrers itself they are looked for, and
// stored again if its list has lost them; else they are added to the referrers tag.
func (r *repository) AddReferrers(ctx context.Context, digest string, referrers []Descriptor) error {
	const tries = 6
	for try := range tries {
		list, fallback, err := r.referrers(ctx, digest)
		if err != nil {
			return r.errorf("referrers of "+digest, err)
		}
		if fallback {
			return r.addToTag(ctx, digest, referrers)
		}
		lost := missing(list, referrers)
		if len(lost) == 0 {
			return nil
		}
		if err := sleep(ctx, time.Duration(try)*r.delay); err != nil {
			return err
		}
		for _, d := range lost {
			data, err := r.getManifest(ctx, d.Digest)
			if err != nil {
				return err
			}
			if _, err := r.PutManifest(ctx, data, ""); err != nil {
				return err
			}
		}
	}
	return r.errorf("referrers of "+digest, fmt.Errorf("%w: they are not listed after %d tries", ErrUndetermined, tries))
}

func (r *repository) addToTag(ctx context.Context, digest string, referrers []Descriptor) error {
	return r.UpdateTag(ctx, fallbackTag(digest), func(present []byte) ([]byte, error) {
		var list []Descriptor
		if present != nil {
			var err error
			if list, err = parseReferrers(present); err != nil {
				return nil, r.errorf("referrers of "+digest, err)
			}
		}
		data, changed, err := mergeReferrers(list, referrers)
		if err != nil {
			return nil, r.errorf("referrers of "+digest, err)
		}
		if !changed && present != nil {
			return present, nil
		}
		return data, nil
	})
}
