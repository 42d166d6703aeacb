package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"runtime"
	"time"

	"github.com/dustin/go-humanize"
	"github.com/spf13/cobra"

	"github.com/goldenisc/packer-plugin-isc/builder"
	"github.com/goldenisc/packer-plugin-isc/image"
	"github.com/goldenisc/packer-plugin-isc/profiles"
	"github.com/goldenisc/packer-plugin-isc/registry"
	"github.com/goldenisc/packer-plugin-isc/signing"
)

type buildFlags struct {
	values
	output                    string
	artifacts                 []string
	locked, dryRun, reproduce bool
	tmp                       string
	sign                      signFlags
	from                      trustFlags // of images that increments start from
}

func newBuild(a *app) *cobra.Command {
	var b buildFlags
	c := &cobra.Command{
		Use:   "build SPEC -o REF",
		Short: "Build an image and print the digest of its index",
		Long: `Build an image from a spec into an OCI layout (oci:DIR[:TAG]) or an archive of
one (oci-archive:FILE[:TAG]), or push it to a registry, and print its digest.

The bytes depend on the inputs only. All times later than the build date are set
to it: SOURCE_DATE_EPOCH, or the newest time in the base.`,
		Args: cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			return a.build(c.Context(), args[0], &b)
		},
	}
	b.flags(c)
	b.sign.flags(c)
	f := c.Flags()
	f.StringVarP(&b.output, "output", "o", "", "the `REF` to write to; required but with --dry-run")
	f.StringArrayVar(&b.artifacts, "artifact", nil, "write only the artifact block `NAME` (repeatable)")
	f.BoolVar(&b.locked, "locked", false, "refuse bases that are not as in SPEC.lock.json")
	f.BoolVar(&b.dryRun, "dry-run", false, "do everything but write; print what the profile found")
	f.BoolVar(&b.reproduce, "check-reproducible", false, "build twice and exit with 3 if the digests differ")
	f.StringArrayVar(&b.from.keys, "from-key", nil, "let increments start only from what is released by the public key `PUB` (repeatable: by one of them)")
	f.StringVar(&b.from.policy, "from-policy", "", "let increments start only from what the policy `FILE` takes")
	c.MarkFlagsMutuallyExclusive("from-key", "from-policy")
	f.StringVar(&b.tmp, "tmp", "", "`FOLDER` for temporary files; default $TMPDIR")
	return c
}

// A buildDocument is what build --json prints.
type buildDocument struct {
	Digest    string           `json:"digest"`
	Reference string           `json:"reference"`
	Name      string           `json:"name"`
	Version   string           `json:"version"`
	Base      image.Base       `json:"base"`
	Artifacts []image.Artifact `json:"artifacts"`

	Release *releaseDocument `json:"release,omitempty"`
}

func (a *app) build(ctx context.Context, name string, b *buildFlags) error {
	s, err := a.parse(name, &b.values)
	if err != nil {
		return err
	}
	o := builder.BuildOptions{Version: buildVersion(), Today: time.Now(), Dir: b.tmp, PlainHTTP: a.plainHTTP, Progress: a.progress(), Log: a.log()}
	if o.Created, err = builder.SourceDate(); err != nil {
		return badInput(err)
	}
	if o.Trust, err = b.from.trust(ctx); err != nil {
		return err
	}
	if b.locked {
		if o.Lock, err = builder.ReadLock(builder.LockName(name)); err != nil {
			return badInput(err)
		}
	}
	if b.dryRun {
		return a.dryRun(ctx, s, o)
	}
	if b.output == "" {
		return badInput(errors.New("build: -o REF is missing"))
	}
	ref, err := registry.Parse(b.output)
	if err != nil {
		return badInput(err)
	}
	start := time.Now()
	var key *signing.Key
	if b.sign.key != "" { // asked for before the work, not after it
		if key, err = a.openKey(ctx, b.sign.key); err != nil {
			return err
		}
	}
	doc, err := a.buildTo(ctx, s, o, ref, b.artifacts, func(from registry.Ref) (*releaseDocument, error) {
		return a.signBuilt(ctx, key, from, ref, &b.sign)
	})
	if err != nil {
		return err
	}
	if b.reproduce {
		if err := a.buildAgain(ctx, s, o, doc.Digest, b.artifacts); err != nil {
			return err
		}
	}
	var size int64
	for _, art := range doc.Artifacts {
		size += art.Size
	}
	a.notef("%s %s: %d artifacts, %s in %s\n", doc.Name, doc.Version, len(doc.Artifacts), humanize.IBytes(uint64(size)), time.Since(start).Round(10*time.Millisecond))
	a.printf("%s\n", doc.Digest)
	return a.document(doc)
}

// prepare reports what the profile found if the image does not hold to it.
func (a *app) prepare(ctx context.Context, s *builder.Spec, o builder.BuildOptions) (*builder.Built, error) {
	b, err := builder.Prepare(ctx, s, o)
	if errors.Is(err, builder.ErrFindings) {
		a.findings(b.Report)
		return nil, errors.Join(err, b.Close())
	}
	return b, err
}

// findings lists the controls that failed on stderr.
func (a *app) findings(r *profiles.Report) {
	for _, c := range r.Controls {
		if c.Status != profiles.Fail {
			continue
		}
		a.notef("%s %s\n", c.ID, c.Title)
		for _, f := range c.Findings {
			a.notef("    %s\n", f)
		}
	}
}

// buildTo builds into a layout. Any other place gets a copy of one in a temporary folder. sign signs
// what is in the layout before it is copied.
func (a *app) buildTo(ctx context.Context, s *builder.Spec, o builder.BuildOptions, ref registry.Ref, only []string,
	sign func(registry.Ref) (*releaseDocument, error),
) (doc *buildDocument, err error) {
	b, err := a.prepare(ctx, s, o)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, b.Close()) }()
	dir := ref.Path
	if ref.Place != registry.InLayout {
		if dir, err = os.MkdirTemp(o.Dir, "iscadm-build-*"); err != nil {
			return nil, err
		}
		defer os.RemoveAll(dir)
	}
	l, err := registry.CreateLayout(dir)
	if err != nil {
		return nil, err
	}
	digest, err := b.Write(ctx, l, ref.Tag, only)
	if err != nil {
		return nil, err
	}
	from := registry.Ref{Place: registry.InLayout, Path: dir, Tag: ref.Tag}
	released, err := sign(from)
	if err != nil {
		return nil, err
	}
	if ref.Place != registry.InLayout {
		if _, err := registry.Copy(ctx, from, ref, a.registry()); err != nil {
			return nil, err
		}
	}
	return &buildDocument{
		Digest: digest, Reference: ref.String(), Name: b.Config.Name, Version: b.Config.Version,
		Base: b.Config.Base, Artifacts: b.Config.Artifacts,
		Release: released,
	}, nil
}

// buildAgain builds into a temporary layout, with another number of threads, and compares.
func (a *app) buildAgain(ctx context.Context, s *builder.Spec, o builder.BuildOptions, digest string, only []string) error {
	dir, err := os.MkdirTemp(o.Dir, "iscadm-again-*")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(runtime.GOMAXPROCS(0) + 1))
	again, err := a.buildTo(ctx, s, o, registry.Ref{Place: registry.InLayout, Path: dir, Tag: "again"}, only, func(registry.Ref) (*releaseDocument, error) { return nil, nil })
	if err != nil {
		return err
	}
	if again.Digest != digest {
		return &statusError{statusNo, fmt.Errorf("not reproducible: %s, then %s", digest, again.Digest)}
	}
	a.notef("reproducible: the second build gave the same digest\n")
	return nil
}

// dryRun builds but for writing, and prints the report.
func (a *app) dryRun(ctx context.Context, s *builder.Spec, o builder.BuildOptions) error {
	b, err := builder.Prepare(ctx, s, o)
	if err != nil && !errors.Is(err, builder.ErrFindings) {
		return err
	}
	defer b.Close()
	c := b.Config
	a.printf("%s %s for %s/%s from %s\n", c.Name, c.Version, c.OS, c.Arch, c.Base.Source)
	a.printf("%d entries, %s\n", b.Source.Tree.Len(), humanize.IBytes(uint64(b.Source.Tree.Bytes())))
	for _, svc := range c.Services {
		a.printf("service %s: %s %v\n", svc.ID, svc.Exec, svc.Listen)
	}
	for _, r := range b.Report.Controls {
		a.printf("%-4s %-15s %s\n", r.ID, r.Status, r.Title)
		for _, f := range r.Findings {
			a.printf("     %s\n", f)
		}
	}
	if err := a.document(map[string]any{"name": c.Name, "version": c.Version, "base": c.Base, "entries": b.Source.Tree.Len(), "report": b.Report}); err != nil {
		return err
	}
	return err
}
