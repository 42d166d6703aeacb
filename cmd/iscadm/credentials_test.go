package main

import (
	"encoding/base64"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"
)

const helperPassword = "hunter2-secret"

// TestCredentialHelpers runs the scripts of a registry that wants a password, $PRIVATE for the basic scheme
// and $TOKENS for tokens, which a program docker-credential-test knows.
func TestCredentialHelpers(t *testing.T) {
	scripts(t, "testdata/credentials/*.txtar", func(e *testscript.Env) error {
		to, err := url.Parse("http://" + e.Getenv("REGISTRY"))
		if err != nil {
			return err
		}
		forward := httputil.NewSingleHostReverseProxy(to)
		basic := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if user, password, _ := r.BasicAuth(); user != "me" || password != helperPassword {
				refuse(w, r, `Basic realm="test"`)
				return
			}
			forward.ServeHTTP(w, r)
		}))
		e.Defer(basic.Close)
		var tokens *httptest.Server
		tokens = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			_, password, _ := r.BasicAuth()
			switch {
			case r.URL.Path == "/token" && password == helperPassword:
				fmt.Fprint(w, `{"token":"token-secret"}`)
			case r.Header.Get("Authorization") != "Bearer token-secret":
				refuse(w, r, `Bearer realm="`+tokens.URL+`/token",service="test"`)
			default:
				forward.ServeHTTP(w, r)
			}
		}))
		e.Defer(tokens.Close)
		for name, s := range map[string]*httptest.Server{"PRIVATE": basic, "TOKENS": tokens} {
			e.Setenv(name, strings.TrimPrefix(s.URL, "http://"))
		}
		e.Setenv("DOCKER_CONFIG", e.WorkDir)
		e.Setenv("REGISTRY_AUTH_FILE", "")
		e.Setenv("XDG_RUNTIME_DIR", "")
		return keysAndPolicies(e)
	})
}

// refuse is unkind: it repeats what it was told.
func refuse(w http.ResponseWriter, r *http.Request, challenge string) {
	w.Header().Set("WWW-Authenticate", challenge)
	w.WriteHeader(http.StatusUnauthorized)
	user, password, _ := r.BasicAuth()
	fmt.Fprintf(w, `{"errors":[{"code":"UNAUTHORIZED","message":"wrong: %s %s, %s"}]}`, user, password, r.Header.Get("Authorization"))
}

// credentialHelper is a program as github.com/docker/docker-credential-helpers describes it. $HELPER says
// what it does.
func credentialHelper() {
	host, err := io.ReadAll(os.Stdin)
	if err != nil || len(os.Args) != 2 || os.Args[1] != "get" {
		os.Exit(2)
	}
	answer := func(user, secret string) {
		fmt.Printf(`{"ServerURL":%q,"Username":%q,"Secret":%q}`, host, user, secret)
	}
	switch os.Getenv("HELPER") {
	case "right":
		answer("me", helperPassword)
	case "wrong":
		answer("me", "other-secret")
	case "none":
		fmt.Println("credentials not found in native keychain")
		os.Exit(1)
	case "garbage":
		fmt.Print(base64.StdEncoding.EncodeToString([]byte(helperPassword)), " other-secret {")
	case "dies":
		fmt.Print("cannot unlock the keys")
		os.Exit(1)
	}
}
