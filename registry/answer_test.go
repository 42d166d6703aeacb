package registry

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"io/fs"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
)

// An answer is a whole HTTP response, the same to every request.
type answer []byte

func (a answer) RoundTrip(req *http.Request) (*http.Response, error) {
	if req.Body != nil {
		defer req.Body.Close()
		if _, err := io.Copy(io.Discard, req.Body); err != nil {
			return nil, err
		}
	}
	return http.ReadResponse(bufio.NewReader(bytes.NewReader(a)), req)
}

// answering is a repository whose registry gives one answer.
func answering(data []byte) (*repository, error) {
	repo, err := name.NewRepository("127.0.0.1:5000/web")
	if err != nil {
		return nil, err
	}
	sent := new(secrets)
	return &repository{
		repo:     repo,
		client:   &http.Client{Transport: guard{false, sent, patience{answer(data), time.Minute}}, CheckRedirect: checkRedirect},
		resolved: map[string][]byte{},
		secrets:  sent,
	}, nil
}

// FuzzAnswer gives whole answers, statuses, headers and bodies, to all questions. What is taken for an
// answer holds what the caller relies on: digests and sizes fit, lists are bounded, what is stored is what
// was sent; and what a registry says is fit for a terminal.
func FuzzAnswer(f *testing.F) {
	index := `{"schemaVersion":2,"mediaType":"` + typeIndex + `","manifests":[{"mediaType":"` + typeManifest + `","digest":"` + hexDigest + `","size":7}]}`
	d := Descriptor{MediaType: typeIndex, Digest: Digest([]byte(index)), Size: int64(len(index))}
	for _, head := range []string{
		"200 OK\r\nContent-Type: " + typeIndex,
		"200 OK\r\nContent-Type: " + typeManifest,
		"200 OK\r\nContent-Type: " + typeIndex + "\r\nDocker-Content-Digest: " + hexDigest,
		"200 OK\r\nContent-Length: 5",
		"200 OK\r\nContent-Encoding: gzip",
		"200 OK\r\nTransfer-Encoding: chunked",
		"200 OK\r\nLink: </v2/web/tags/list?last=a>; rel=\"next\"",
		"200 OK\r\nLink: <http://192.0.2.1/>; rel=next",
		"201 Created\r\nDocker-Content-Digest: " + d.Digest,
		"202 Accepted\r\nLocation: /v2/web/blobs/uploads/1?state=x",
		"202 Accepted\r\nLocation: ://",
		"206 Partial Content\r\nContent-Range: bytes 0-3/4",
		"302 Found\r\nLocation: http://169.254.169.254/",
		"307 Temporary Redirect\r\nLocation: /v2/web/manifests/v1",
		"401 Unauthorized\r\nWWW-Authenticate: Bearer realm=\"http://127.0.0.1/\"",
		"404 Not Found", "429 Too Many Requests\r\nRetry-After: 1000000", "500 Internal Server Error",
	} {
		f.Add([]byte("HTTP/1.1 " + head + "\r\n\r\n" + index))
	}
	f.Add([]byte("HTTP/1.1 200 OK\r\n\r\n" + `{"name":"web","tags":["v1","` + strings.Repeat("x", 200) + `"]}`))
	f.Add([]byte("HTTP/1.1 403 Forbidden\r\n\r\n" + `{"errors":[{"code":"DENIED","message":"\u001b[2J"}]}`))
	f.Add([]byte("HTTP/1.1 200 OK\r\n\r\n\x00"))
	f.Fuzz(func(t *testing.T, data []byte) {
		r, err := answering(data)
		if err != nil {
			t.Fatal(err)
		}
		ctx := t.Context()
		said := func(what string, err error) {
			if err != nil && strings.ContainsFunc(err.Error(), func(c rune) bool { return c < ' ' || c == 0x7f }) && !strings.Contains(err.Error(), "malformed") {
				t.Errorf("%s: says %q", what, err)
			}
		}
		got, err := r.Resolve(ctx, "v1")
		said("tag", err)
		if err == nil {
			m, err := r.Manifest(ctx, got)
			if err != nil || Digest(m) != got.Digest || int64(len(m)) != got.Size {
				t.Errorf("%q: resolved to %+v, %v", m, got, err)
			}
		}
		if m, err := r.Manifest(ctx, d); err == nil && string(m) != index {
			t.Errorf("took %q for %s", m, d.Digest)
		}
		if b, err := r.Blob(ctx, d); err == nil {
			all, err := io.ReadAll(b)
			if err == nil && string(all) != index || int64(len(all)) > d.Size {
				t.Errorf("took %q for %s: %v", all, d.Digest, err)
			}
			said("blob", err)
			b.Close()
		} else {
			said("blob", err)
		}
		list, err := r.Referrers(ctx, hexDigest)
		said("referrers", err)
		if len(list) > maxReferrers || err != nil && len(list) > 0 || errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%d referrers, %v", len(list), err)
		}
		tags, err := r.Tags(ctx)
		said("tags", err)
		if len(tags) > maxTags || err != nil && len(tags) > 0 {
			t.Errorf("%d tags, %v", len(tags), err)
		}
		if has, err := r.Has(ctx, d); err != nil && has {
			t.Errorf("there, and %v", err)
		}
		put, err := r.PutManifest(ctx, []byte(index), "v1")
		said("push", err)
		if err == nil && put.Digest != d.Digest {
			t.Errorf("stored %+v", put)
		}
		said("upload", r.CopyBlob(ctx, d, func() (io.ReadCloser, error) { return io.NopCloser(strings.NewReader(index)), nil }))
	})
}
