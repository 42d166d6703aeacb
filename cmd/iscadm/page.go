package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"time"

	"github.com/spf13/cobra"
)

// newServePage is the service that the demo packs: this program itself, serving one page.
func newServePage(a *app) *cobra.Command {
	var listen string
	c := &cobra.Command{
		Use:    "serve-page",
		Short:  "Serve one page: the service of the demo",
		Hidden: true,
		Args:   cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			l, err := net.Listen("tcp", listen)
			if err != nil {
				return err
			}
			mux := http.NewServeMux()
			mux.HandleFunc("GET /{$}", func(w http.ResponseWriter, _ *http.Request) {
				fmt.Fprintln(w, demoPage)
			})
			mux.HandleFunc("GET /healthz", func(http.ResponseWriter, *http.Request) {})
			s := &http.Server{Handler: mux, ReadHeaderTimeout: 10 * time.Second}
			stop := context.AfterFunc(c.Context(), func() { s.Close() })
			defer stop()
			if err := s.Serve(l); !errors.Is(err, http.ErrServerClosed) {
				return err
			}
			return nil
		},
	}
	c.Flags().StringVar(&listen, "listen", "127.0.0.1:8080", "`ADDRESS` to listen on")
	return c
}

const demoPage = "served from an immutable service container"
