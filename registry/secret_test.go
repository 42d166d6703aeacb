package registry

import (
	"encoding/base64"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// Credentials of Podman's file get a token, and neither they nor the token are in what is said when the
// registry refuses them, or repeats them.
func TestTokenAndSecrets(t *testing.T) {
	const password, token = "hunter2-secret", "token-secret"
	basic := base64.StdEncoding.EncodeToString([]byte("me:" + password))
	inner := Handler("")
	defer inner.Close()
	broken := false
	var server *httptest.Server
	server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch {
		case r.URL.Path == "/token":
			if _, p, _ := r.BasicAuth(); p != password {
				w.WriteHeader(http.StatusUnauthorized)
				return
			}
			fmt.Fprintf(w, `{"token":%q}`, token)
		case r.Header.Get("Authorization") != "Bearer "+token:
			w.Header().Set("WWW-Authenticate", `Bearer realm="`+server.URL+`/token",service="test"`)
			w.WriteHeader(http.StatusUnauthorized)
		case broken:
			w.WriteHeader(http.StatusForbidden)
		default:
			inner.ServeHTTP(w, r)
		}
	}))
	defer server.Close()
	host := strings.TrimPrefix(server.URL, "http://")
	dir := t.TempDir()
	file := filepath.Join(dir, "auth.json")
	t.Setenv("DOCKER_CONFIG", dir)
	t.Setenv("REGISTRY_AUTH_FILE", file)
	l := newLayout(t)
	writeTestImage(t, l, "v1")
	ref, err := Parse(host + "/web:v1")
	if err != nil {
		t.Fatal(err)
	}
	config := `{"auths":{"` + host + `":{"auth":"` + basic + `"}}}`
	if err := os.WriteFile(file, []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Copy(t.Context(), layoutRef(l, "v1"), ref, Options{}); err != nil {
		t.Fatal(err)
	}
	broken = true
	_, refused := Copy(t.Context(), layoutRef(l, "v1"), ref, Options{})
	wrong := strings.Replace(config, basic, base64.StdEncoding.EncodeToString([]byte("me:other-secret")), 1)
	if err := os.WriteFile(file, []byte(wrong), 0o600); err != nil {
		t.Fatal(err)
	}
	_, unknown := Copy(t.Context(), layoutRef(l, "v1"), ref, Options{})
	for _, err := range []error{refused, unknown} {
		if err == nil || strings.Contains(err.Error(), "secret") || strings.Contains(err.Error(), basic) {
			t.Errorf("said: %v", err)
		}
	}
}
