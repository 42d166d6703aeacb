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

// copyFlags are shared by the verbs that copy images.
type copyFlags struct{ plainHTTP bool }

func (c *copyFlags) flags(cmd *cobra.Command) {
	cmd.Flags().BoolVar(&c.plainHTTP, "plain-http", false, "speak HTTP also to registries on other machines")
}

func newCopy(a *app) *cobra.Command {
	var f copyFlags
	c := &cobra.Command{
		Use:   "copy SRC DST",
		Short: "Copy an image and everything that belongs to it, verified",
		Args:  cobra.ExactArgs(2),
		RunE: func(c *cobra.Command, args []string) error {
			return a.copy(c.Context(), args[0], args[1], f)
		},
	}
	f.flags(c)
	return c
}

func newPush(a *app) *cobra.Command {
	var f copyFlags
	c := &cobra.Command{
		Use:   "push oci:DIR[:TAG] REF",
		Short: "Publish an image: copy it from a layout to a registry",
		Args:  cobra.ExactArgs(2),
		RunE: func(c *cobra.Command, args []string) error {
			return a.copy(c.Context(), args[0], args[1], f)
		},
	}
	f.flags(c)
	return c
}

func (a *app) copy(ctx context.Context, src, dst string, f copyFlags) error {
	from, err := registry.Parse(src)
	if err != nil {
		return badInput(err)
	}
	to, err := registry.Parse(dst)
	if err != nil {
		return badInput(err)
	}
	digest, err := registry.Copy(ctx, from, to, registry.Options{PlainHTTP: f.plainHTTP, Progress: a.progress()})
	if err != nil {
		return err
	}
	a.printf("%s\n", digest)
	return a.document(map[string]string{"digest": digest, "reference": to.String()})
}

func newServe(a *app) *cobra.Command {
	var listen, dir string
	c := &cobra.Command{
		Use:   "serve --listen 127.0.0.1:PORT --dir DIR",
		Short: "Serve an embedded registry, for trying out and for air gaps",
		Long: "Serves an embedded registry, for trying out and for air gaps. Images in the folder that have a stream for SmartOS\n" +
			"are offered by IMGAPI as well: imgadm sources -a http://HOST:PORT",
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			return a.serve(c.Context(), listen, dir)
		},
	}
	c.Flags().StringVar(&listen, "listen", "127.0.0.1:5000", "`ADDRESS` to listen on")
	c.Flags().StringVar(&dir, "dir", "", "`FOLDER` of the registry; default in memory")
	return c
}

func (a *app) serve(ctx context.Context, listen, dir string) error {
	l, err := net.Listen("tcp", listen)
	if err != nil {
		return err
	}
	a.printf("%s\n", l.Addr())
	h := registry.Handler(dir)
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
