package registry

import (
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"
)

func TestPlainHTTP(t *testing.T) {
	for _, host := range []string{"192.168.77.1:5000", "10.0.0.1", "registry.local:80", "192.0.2.1"} {
		req, err := http.NewRequest(http.MethodGet, "http://"+host+"/v2/", nil)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := (guard{inner: nil}).RoundTrip(req); err == nil || !strings.Contains(err.Error(), "plain HTTP") {
			t.Errorf("%s: %v", host, err)
		}
	}
	for host, want := range map[string]bool{"localhost": true, "127.9.9.9": true, "::1": true, "::ffff:127.0.0.1": true, "128.0.0.1": false, "localhost.example": false} {
		if isLoopback(host) != want {
			t.Errorf("isLoopback(%q) = %v", host, !want)
		}
	}
}

func TestCheckRedirect(t *testing.T) {
	for _, test := range []struct {
		from, to string
		ok       bool
	}{
		{"https://r.example/a", "https://cdn.example/b", true},
		{"https://r.example/a", "http://cdn.example/b", false},
		{"https://r.example/a", "http://r.example/a", false},
		{"https://r.example/a", "https://169.254.169.254/latest", false},
		{"https://r.example/a", "https://10.1.2.3/x", false},
		{"https://r.example/a", "https://[::1]/x", false},
		{"https://r.example/a", "https://[::ffff:127.0.0.1]/x", false},
		{"https://r.example/a", "https://localhost/x", false},
		{"https://r.example/a", "file:///etc/passwd", false},
		{"https://10.1.2.3/a", "https://10.1.2.3:8443/b", true},
		{"http://127.0.0.1:5000/a", "http://127.0.0.1:5001/b", true},
		{"http://127.0.0.1:5000/a", "http://169.254.169.254/b", false},
		{"http://127.0.0.1:5000/a", "https://cdn.example/b", true},
	} {
		request := func(s string) *http.Request {
			u, err := url.Parse(s)
			if err != nil {
				t.Fatal(err)
			}
			return &http.Request{URL: u}
		}
		err := checkRedirect(request(test.to), []*http.Request{request(test.from)})
		if (err == nil) != test.ok {
			t.Errorf("%s to %s: %v", test.from, test.to, err)
		}
	}
}

// A canned answer needs no network. Its body ends with the request.
type canned string

func (c canned) RoundTrip(req *http.Request) (*http.Response, error) {
	body := readerContext{req.Context(), strings.NewReader(string(c))}
	return &http.Response{StatusCode: http.StatusOK, Body: io.NopCloser(body)}, nil
}

// A body that stalls ends; a slow consumer does not matter.
func TestIdle(t *testing.T) {
	t.Parallel()
	stop := make(chan struct{})
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/silent" {
			<-stop
			return
		}
		w.Write([]byte("begin"))
		w.(http.Flusher).Flush()
		<-stop
	}))
	defer server.Close()
	defer close(stop)
	client := &http.Client{Transport: patience{http.DefaultTransport, 50 * time.Millisecond}}
	for _, path := range []string{"/silent", "/stall"} {
		resp, err := client.Get(server.URL + path)
		if err == nil {
			_, err = io.ReadAll(resp.Body)
			resp.Body.Close()
		}
		if !errors.Is(err, errIdle) {
			t.Errorf("%s: %v", path, err)
		}
	}
	req, err := http.NewRequest(http.MethodGet, server.URL, nil)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := patience{canned("begin"), 100 * time.Millisecond}.RoundTrip(req)
	if err != nil {
		t.Fatal(err)
	}
	time.Sleep(300 * time.Millisecond)
	if data, err := io.ReadAll(resp.Body); err != nil || string(data) != "begin" {
		t.Errorf("%q, %v", data, err)
	}
	resp.Body.Close()
}
