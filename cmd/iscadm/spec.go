package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/goldenisc/packer-plugin-isc/builder"
)

// values are the flags that give a spec its values.
type values struct {
	set, vars, files []string
}

func (v *values) flags(c *cobra.Command) {
	f := c.Flags()
	f.StringArrayVar(&v.set, "set", nil, "set an attribute: `PATH=VALUE`, such as image.version=1.4.1 (repeatable)")
	f.StringArrayVar(&v.vars, "var", nil, "value of a variable: `NAME=VALUE` (repeatable)")
	f.StringArrayVar(&v.files, "var-file", nil, "file with values of variables (repeatable)")
}

// parse reads a spec and reports all its problems on stderr.
func (a *app) parse(name string, v *values) (*builder.Spec, error) {
	src, err := os.ReadFile(name)
	if err != nil {
		return nil, fmt.Errorf("spec: %w", err)
	}
	vars, err := pairs(v.vars)
	if err != nil {
		return nil, badInput(fmt.Errorf("--var: %w", err))
	}
	s, diags := builder.ParseSpec(name, src, builder.Options{Set: v.set, Vars: vars, VarFiles: v.files, Env: os.Environ()})
	if len(diags) > 0 && !(a.quiet && !diags.HasErrors()) {
		if err := s.Texts.Write(a.diag, diags); err != nil {
			return nil, err
		}
	}
	if diags.HasErrors() {
		return nil, &statusError{status: statusInput}
	}
	return s, nil
}

func pairs(list []string) (map[string]string, error) {
	m := map[string]string{}
	for _, s := range list {
		k, v, ok := cut(s)
		if !ok {
			return nil, fmt.Errorf("%q is not NAME=VALUE", s)
		}
		m[k] = v
	}
	return m, nil
}

func cut(s string) (k, v string, ok bool) {
	b, a, ok := bytes.Cut([]byte(s), []byte("="))
	return string(b), string(a), ok && len(b) > 0
}

func newInit(a *app) *cobra.Command {
	var from, out string
	c := &cobra.Command{
		Use:   "init [--from SOURCE] [-o FILE]",
		Short: "Write a commented spec to start from, looking at the base",
		Args:  cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			return a.init(c.Context(), from, out)
		},
	}
	c.Flags().StringVar(&from, "from", "skeleton:linux", "the `SOURCE` of the base")
	c.Flags().StringVarP(&out, "output", "o", "", "write to `FILE`, which must not exist; default stdout")
	return c
}

func (a *app) init(ctx context.Context, from, out string) error {
	t, _, err := builder.OpenBase(ctx, &builder.Spec{Image: &builder.Image{}, Base: &builder.Base{Source: from}}, builder.BuildOptions{PlainHTTP: a.plainHTTP, Progress: a.progress()})
	if err != nil {
		return err
	}
	defer t.Close()
	facts, err := builder.Inspect(t)
	if err != nil {
		return err
	}
	facts.Source = sourceFrom(from, out)
	text := builder.Init(facts)
	if out == "" {
		_, err = a.out.Write(text)
		return err
	}
	f, err := os.OpenFile(out, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o666)
	if err != nil {
		return err
	}
	_, err = f.Write(text)
	return errors.Join(err, f.Close())
}

// sourceFrom is a source as the file of a spec names it: relative to its folder.
func sourceFrom(source, spec string) string {
	kind, name, ok := strings.Cut(source, ":")
	if !ok || spec == "" || filepath.IsAbs(name) || !slices.Contains([]string{"dir", "tar", "zfs", "oci", "oci-archive"}, kind) {
		return source
	}
	relative, err := filepath.Rel(filepath.Dir(spec), name)
	if err != nil {
		return source
	}
	return kind + ":" + filepath.ToSlash(relative)
}

func newFmt(a *app) *cobra.Command {
	var check bool
	c := &cobra.Command{
		Use:   "fmt SPEC…",
		Short: "Format specs in place, as packer fmt does",
		Args:  cobra.MinimumNArgs(1),
		RunE: func(_ *cobra.Command, args []string) error {
			return a.fmt(args, check)
		},
	}
	c.Flags().BoolVar(&check, "check", false, "write nothing: list what would change, and exit with 3 if anything would")
	return c
}

func (a *app) fmt(names []string, check bool) error {
	status := 0
	for _, name := range names {
		src, err := os.ReadFile(name)
		if err != nil {
			return err
		}
		text, diags := builder.Format(name, src)
		if diags.HasErrors() {
			if err := (builder.Texts{name: src}).Write(a.diag, diags); err != nil {
				return err
			}
			return answer(statusInput)
		}
		if bytes.Equal(src, text) {
			continue
		}
		a.printf("%s\n", name)
		if check {
			status = statusNo
			continue
		}
		info, err := os.Stat(name)
		if err != nil {
			return err
		}
		if err := writeFile(name, info.Mode().Perm(), bytesTo(text)); err != nil {
			return err
		}
	}
	return answer(status)
}

func newValidate(a *app) *cobra.Command {
	var v values
	c := &cobra.Command{
		Use:   "validate SPEC",
		Short: "Check a spec without building",
		Args:  cobra.ExactArgs(1),
		RunE: func(_ *cobra.Command, args []string) error {
			s, err := a.parse(args[0], &v)
			if err != nil {
				return err
			}
			if !a.quiet {
				a.printf("%s: image %s %s for %s/%s is valid\n", args[0], s.Image.Name, s.Image.Version, s.Image.OS, s.Image.Arch)
			}
			return a.document(map[string]any{"valid": true, "name": s.Image.Name, "version": s.Image.Version})
		},
	}
	v.flags(c)
	return c
}

func newLock(a *app) *cobra.Command {
	var v values
	c := &cobra.Command{
		Use:   "lock SPEC",
		Short: "Pin the bases of a spec in SPEC.lock.json",
		Args:  cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			s, err := a.parse(args[0], &v)
			if err != nil {
				return err
			}
			bases, err := builder.Resolve(c.Context(), s, builder.BuildOptions{PlainHTTP: a.plainHTTP, Progress: a.progress()})
			if err != nil {
				return err
			}
			l := &builder.Lock{Version: 1, Bases: map[string]builder.Pin{}}
			for _, base := range bases {
				l.Bases[base.Source] = builder.Pin{Digest: base.Digest}
			}
			if err := l.WriteFile(builder.LockName(args[0])); err != nil {
				return err
			}
			for _, base := range bases {
				a.printf("%s %s\n", base.Digest, base.Source)
			}
			return a.document(l)
		},
	}
	v.flags(c)
	return c
}
