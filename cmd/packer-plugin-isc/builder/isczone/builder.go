// Package isczone is the builder isc-zone: on a host of illumos or Solaris it makes a zone, lets
// provisioners work in it, fetches its root, and makes an image of that. Nothing of the zone is left.
package isczone

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"maps"
	"os"
	"path"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/hashicorp/hcl/v2/hcldec"
	sdk "github.com/hashicorp/packer-plugin-sdk/packer"
	"github.com/hashicorp/packer-plugin-sdk/template/config"
	"github.com/zclconf/go-cty/cty"

	"github.com/goldenisc/packer-plugin-isc/builder"
	"github.com/goldenisc/packer-plugin-isc/cmd/packer-plugin-isc/artifact"
	"github.com/goldenisc/packer-plugin-isc/cmd/packer-plugin-isc/build"
	"github.com/goldenisc/packer-plugin-isc/internal/remote"
	"github.com/goldenisc/packer-plugin-isc/provisioner"
)

// A Builder makes one image by way of a zone.
type Builder struct {
	config  Config
	blocks  cty.Value
	job     build.Job
	target  remote.Target
	timeout time.Duration
}

var _ sdk.Builder = (*Builder)(nil)

// schema is that of a spec less what it starts from.
func schema() []builder.Block {
	return slices.DeleteFunc(slices.Clone(builder.Schema()), func(b builder.Block) bool { return b.Name == "base" || b.Name == "disk" })
}

// ConfigSpec is what Packer decodes a source by: the fields of Config and the blocks of a spec.
func (b *Builder) ConfigSpec() hcldec.ObjectSpec {
	spec := hcldec.ObjectSpec(new(Config).FlatMapstructure().HCL2Spec())
	maps.Copy(spec, build.Blocks(schema()))
	return spec
}

// generated are the names of what provisioners may use as build.NAME.
var generated = []string{"ISCName", "ISCVersion", "ISCOutput", "ISCZone"}

// The forms of what goes into commands. A zone's name is that of zonename_t less what nobody needs; a line
// of zonecfg(8) is one command, so that none hides behind another, and leaves alone what the builder sets.
var (
	zoneForm  = regexp.MustCompile(`^[a-z0-9][a-z0-9._-]{0,62}$`)
	brandForm = regexp.MustCompile(`^[a-zA-Z0-9][a-zA-Z0-9-]{0,31}$`)
	pathForm  = regexp.MustCompile(`^(/[A-Za-z0-9._-]+)+$`)
	lineForm  = regexp.MustCompile(`^(add|set|end|select|remove|clear)( [ !$-:<-~]*("[ !#-:<-~]*"[ !$-:<-~]*)*)?$`) // without a semicolon
	ownForm   = regexp.MustCompile(`^(set|clear) +(zonename|zonepath|brand|autoboot)\b`)
	wordForm  = regexp.MustCompile(`^[ -~]+$`)
	fmriForm  = regexp.MustCompile(`^svc:/[A-Za-z0-9_/:,.-]+$`)
)

// Prepare checks everything that can be checked without the host.
func (b *Builder) Prepare(raws ...any) ([]string, []string, error) {
	blocks, raws, err := build.Split(schema(), raws)
	if err != nil {
		return nil, nil, err
	}
	b.config = Config{}
	c := &b.config
	if err := config.Decode(c, &config.DecodeOpts{PluginType: artifact.BuilderZone, Interpolate: true}, raws...); err != nil {
		return nil, nil, err
	}
	b.job = build.Job{Component: artifact.BuilderZone, Force: c.PackerForce, Artifacts: c.Artifacts, Dir: c.TemporaryFolder}
	var errs *sdk.MultiError
	var warnings []string
	if b.blocks = blocks; blocks == cty.NilVal {
		errs = build.Append(errs, errors.New("image: the block is missing"))
	} else {
		// A file that is there stands in for the archive of the zone's root.
		spec, diags := build.Parse(withBase(blocks, os.Args[0]))
		warnings, errs = build.Report(diags, errs)
		if spec != nil && spec.Image != nil {
			c.ZoneName = cmp.Or(c.ZoneName, "isc-"+spec.Image.Name)
		}
		b.job.Spec = spec
	}
	if c.Host == "" {
		errs = build.Append(errs, errors.New("host: it is missing: ssh://[USER@]HOST[:PORT]"))
	} else if !build.Unknown(c.Host) {
		var rest string
		b.target, rest, err = remote.ParseTarget(c.Host)
		if err == nil && rest != "" {
			err = fmt.Errorf("%q names a folder", c.Host)
		}
		if err != nil {
			errs = build.Append(errs, fmt.Errorf("host: %w", err))
		}
	}
	c.ZonesFolder = cmp.Or(c.ZonesFolder, "/zones")
	c.Milestone = cmp.Or(c.Milestone, "svc:/milestone/multi-user-server:default")
	if len(c.Zonecfg) == 0 {
		c.Zonecfg = []string{"set ip-type=shared"}
	}
	form := func(name, value string, form *regexp.Regexp) {
		if !build.Unknown(value) && !form.MatchString(value) {
			errs = build.Append(errs, fmt.Errorf("%s: %q is none", name, value))
		}
	}
	form("brand", c.Brand, brandForm)
	form("zones_folder", c.ZonesFolder, pathForm)
	form("zone_name", c.ZoneName, zoneForm)
	form("milestone", c.Milestone, fmriForm)
	if path.Clean(c.ZonesFolder) != c.ZonesFolder {
		errs = build.Append(errs, fmt.Errorf("zones_folder: %q has .. or . in it", c.ZonesFolder))
	}
	for i, line := range c.Zonecfg {
		name := fmt.Sprintf("zonecfg[%d]", i)
		form(name, line, lineForm)
		if ownForm.MatchString(line) {
			errs = build.Append(errs, fmt.Errorf("%s: %q sets what the builder sets", name, line))
		}
	}
	for i, word := range c.InstallArguments {
		form(fmt.Sprintf("install_arguments[%d]", i), word, wordForm)
	}
	for i, word := range c.As {
		form(fmt.Sprintf("as[%d]", i), word, wordForm)
	}
	if c.ZoneName == "global" {
		errs = build.Append(errs, errors.New(`zone_name: "global" is the host's own`))
	}
	if c.Archive != "" && c.Brand != "illumos" && c.Brand != "lx" && !build.Unknown(c.Brand) {
		// To others -s is to be silent, or unknown.
		errs = build.Append(errs, fmt.Errorf("archive: zones of brand %q are not installed by zoneadm install -s, as those of illumos and lx are: use install_arguments", c.Brand))
	}
	if c.Archive != "" && !build.Unknown(c.Archive) {
		if _, err := os.Stat(c.Archive); err != nil {
			errs = build.Append(errs, fmt.Errorf("archive: %w", err))
		}
	}
	if b.timeout, err = time.ParseDuration(cmp.Or(c.BootTimeout, "10m")); err != nil || b.timeout <= 0 {
		errs = build.Append(errs, fmt.Errorf("boot_timeout: %q is no time such as 10m", c.BootTimeout))
	}
	b.job.Output, err = build.Output(c.Output)
	errs = build.Append(errs, err)
	b.job.Created, err = builder.SourceDate()
	errs = build.Append(errs, err)
	return generated, warnings, build.Err(errs)
}

// withBase adds the base block to a spec.
func withBase(blocks cty.Value, name string) cty.Value {
	spec := blocks.AsValueMap()
	spec["base"] = cty.ObjectVal(map[string]cty.Value{"source": cty.StringVal("tar:" + name)})
	return cty.ObjectVal(spec)
}

// Run makes the zone, the image of it, and removes the zone.
func (b *Builder) Run(ctx context.Context, u sdk.Ui, hook sdk.Hook) (_ sdk.Artifact, err error) {
	if err := b.job.Vacant(ctx); err != nil {
		return nil, err
	}
	client, err := remote.Dial(ctx, b.target, remote.Options{})
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, client.Close()) }()
	z := &zone{
		runner: provisioner.As(client, b.config.As...), name: b.config.ZoneName,
		path: path.Join(b.config.ZonesFolder, b.config.ZoneName), token: rand.Text(),
	}
	img := b.job.Spec.Image
	data := map[string]any{
		"ID": z.name, "PackerRunUUID": os.Getenv("PACKER_RUN_UUID"), "ConnType": "isc-zone",
		"ISCName": img.Name, "ISCVersion": img.Version, "ISCOutput": b.job.Output.String(), "ISCZone": z.name,
	}
	spool, err := os.CreateTemp(b.job.Dir, "isc-zone-*.tar")
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, spool.Close(), os.Remove(spool.Name())) }()
	if err := b.fill(ctx, u, hook, z, data, spool); err != nil {
		return nil, err
	}
	spec, diags := build.Parse(withBase(b.blocks, spool.Name()))
	_, errs := build.Report(diags, nil)
	if err := build.Err(errs); err != nil {
		return nil, err
	}
	b.job.Spec, b.job.Provisioned = spec, true
	a, err := b.job.Run(ctx, u)
	if err != nil {
		return nil, err
	}
	a.Generated = data
	return a, nil
}

// fill makes the zone and writes its root to the spool. The zone is gone afterwards, also after an error
// or when the build is cancelled, unless -on-error has it kept.
func (b *Builder) fill(ctx context.Context, u sdk.Ui, hook sdk.Hook, z *zone, data map[string]any, spool *os.File) (err error) {
	if err := z.absent(ctx); err != nil {
		return err
	}
	defer func() {
		if err != nil && ctx.Err() == nil && z.made && b.keep(u, z) {
			return
		}
		u.Sayf("Removing zone %s", z.name)
		// Also if the build was cancelled.
		err = errors.Join(err, z.destroy(context.WithoutCancel(ctx)))
	}()
	u.Sayf("Configuring zone %s of brand %s", z.name, b.config.Brand)
	if err := z.configure(ctx, b.config.Brand, b.config.Zonecfg); err != nil {
		return err
	}
	u.Sayf("Installing zone %s", z.name)
	if err := z.install(ctx, b.config.Archive, b.config.InstallArguments); err != nil {
		return err
	}
	u.Sayf("Booting zone %s", z.name)
	if err := z.boot(ctx, b.config.Milestone, b.timeout); err != nil {
		return err
	}
	comm := &communicator{ctx: ctx, zone: z}
	if err := hook.Run(ctx, sdk.HookProvision, u, comm, data); err != nil {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		return errors.Join(err, hook.Run(ctx, sdk.HookCleanupProvision, u, comm, data))
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	u.Sayf("Fetching the root of zone %s", z.name)
	return z.fetch(ctx, spool)
}

// keep says whether the zone is to be left for a look at it, as -on-error has it.
func (b *Builder) keep(u sdk.Ui, z *zone) bool {
	switch b.config.PackerOnError {
	case "abort":
	case "ask":
		answer, err := u.Ask(fmt.Sprintf("Keep zone %s on %s? [y/N]", z.name, b.target.Host))
		if err != nil || !strings.EqualFold(answer, "y") {
			return false
		}
	default:
		return false
	}
	u.Sayf("Zone %s is left on %s", z.name, b.target.Host)
	return true
}
