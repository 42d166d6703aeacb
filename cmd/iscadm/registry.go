package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"time"

	"github.com/spf13/cobra"

	"github.com/goldenisc/packer-plugin-isc/registry"
)

// registry is how registries are spoken to, by all verbs alike.
func (a *app) registry() registry.Options {
	return registry.Options{PlainHTTP: a.plainHTTP, Progress: a.progress()}
}

func newCopy(a *app) *cobra.Command {
	return &cobra.Command{
		Use:   "copy SRC DST",
		Short: "Copy an image and everything that belongs to it, verified",
		Args:  cobra.ExactArgs(2),
		RunE: func(c *cobra.Command, args []string) error {
			return a.copy(c.Context(), args[0], args[1])
		},
	}
}

func newPush(a *app) *cobra.Command {
	return &cobra.Command{
		Use:   "push oci:DIR[:TAG] REF",
		Short: "Publish an image: copy it from a layout to a registry",
		Args:  cobra.ExactArgs(2),
		RunE: func(c *cobra.Command, args []string) error {
			return a.copy(c.Context(), args[0], args[1])
		},
	}
}

func (a *app) copy(ctx context.Context, src, dst string) error {
	from, err := registry.Parse(src)
	if err != nil {
		return badInput(err)
	}
	to, err := registry.Parse(dst)
	if err != nil {
		return badInput(err)
	}
	digest, err := registry.Copy(ctx, from, to, a.registry())
	if err != nil {
		return err
	}
	a.printf("%s\n", digest)
	return a.document(map[string]string{"digest": digest, "reference": to.String()})
}

func newServe(a *app) *cobra.Command {
	var listen, dir string
	var without bool
	c := &cobra.Command{
		Use:   "serve --listen 127.0.0.1:PORT --dir DIR",
		Short: "Serve an embedded registry, for trying out and for air gaps",
		Long: "Serves an embedded registry, for trying out and for air gaps. Images in the folder that have a stream for SmartOS\n" +
			"are offered by IMGAPI as well: imgadm sources -a http://HOST:PORT",
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			return a.serve(c.Context(), listen, dir, !without)
		},
	}
	c.Flags().StringVar(&listen, "listen", "127.0.0.1:5000", "`ADDRESS` to listen on")
	c.Flags().StringVar(&dir, "dir", "", "`FOLDER` of the registry; default in memory")
	c.Flags().BoolVar(&without, "no-referrers-api", false, "do not list referrers, as many registries do not: clients use tags for that")
	return c
}

func (a *app) serve(ctx context.Context, listen, dir string, referrers bool) error {
	l, err := net.Listen("tcp", listen)
	if err != nil {
		return err
	}
	a.printf("%s\n", l.Addr())
	handler := registry.HandlerWithoutReferrers
	if referrers {
		handler = registry.Handler
	}
	h := handler(dir)
	images := imgapi{dir}
	s := &http.Server{ReadHeaderTimeout: 10 * time.Second, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if images.serves(r.URL.Path) {
			images.ServeHTTP(w, r)
			return
		}
		h.ServeHTTP(w, r)
	})}
	stop := context.AfterFunc(ctx, func() {
		shutdown, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		s.Shutdown(shutdown)
	})
	defer stop()
	err = s.Serve(l)
	if errors.Is(err, http.ErrServerClosed) {
		err = nil
	}
	if err := errors.Join(err, h.Close()); err != nil {
		return fmt.Errorf("serve %s: %w", listen, err)
	}
	return nil
}
