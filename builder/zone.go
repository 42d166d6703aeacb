package builder

import (
	"context"
	"hash"
	"io"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/gohcl"

	"github.com/goldenisc/packer-plugin-isc/image"
	"github.com/goldenisc/packer-plugin-isc/internal/hcltext"
	"github.com/goldenisc/packer-plugin-isc/profiles"
	"github.com/goldenisc/packer-plugin-isc/registry"
)

// A Zone is the archive of the root, as zoneadm install and container runtimes take it: a tar
// whose top level is the root directory.
type Zone struct {
	ID          string `hcl:"id,optional"`          // default zone
	Brand       string `hcl:"brand,optional"`       // of zonecfg(8); default illumos, for a Linux image lx, for one of Solaris solaris
	Dialect     string `hcl:"dialect,optional"`     // pax (default) or ustar-strict
	Compression string `hcl:"compression,optional"` // none, gzip or zstd (default)
}

func newZone(body hcl.Body, ctx *hcl.EvalContext) (Writer, hcl.Diagnostics) {
	z := defaultZone()
	diags := gohcl.DecodeBody(body, ctx, z)
	diags = append(diags, oneOf(body, "dialect", z.Dialect, string(image.Pax), string(image.USTARStrict))...)
	diags = append(diags, oneOf(body, "compression", z.Compression, string(image.None), string(image.Gzip), string(image.Zstd))...)
	return z, diags
}

// defaultZone is the archive of a spec that asks for no artifact.
func defaultZone() *Zone {
	return &Zone{Dialect: string(image.Pax), Compression: string(image.Zstd)}
}

// Write writes the archive and the zonecfg(8) command file that goes with it.
func (z *Zone) Write(ctx context.Context, id string, src *Source, to *registry.Stage) ([]image.Artifact, error) {
	brand := z.Brand
	if brand == "" {
		brand = profiles.DefaultBrand(src.Spec.Image.OS)
	}
	a := image.Artifact{
		Name: id, Kind: "zone", MediaType: image.TypeZone,
		Attributes: map[string]string{"brand": brand, "dialect": z.Dialect},
	}
	c := image.Compression(z.Compression)
	if c != image.None {
		a.MediaType += "+" + z.Compression
	}
	a, err := put(ctx, to, a, c, func(w io.Writer) error {
		return image.WriteTar(ctx, w, src.Tree, image.Dialect(z.Dialect), src.Progress)
	})
	if err != nil {
		return nil, err
	}
	text, err := src.Spec.Layout.Zonecfg(src.Selection, brand)
	if err != nil {
		return nil, err
	}
	name := "dock/zonecfg"
	if id != "zone" {
		name = "dock/" + id + "/zonecfg"
	}
	cfg, err := put(ctx, to, image.Artifact{
		Name: name, Kind: "zonecfg", MediaType: image.TypeZonecfg, Attributes: map[string]string{"brand": brand},
	}, image.None, bytesOf(text))
	return []image.Artifact{a, cfg}, err
}

// oneOf checks the value of an attribute of a body that has few values.
func oneOf(body hcl.Body, name, value string, values ...string) hcl.Diagnostics {
	for _, v := range values {
		if v == value {
			return nil
		}
	}
	at := body.MissingItemRange()
	content, _, _ := body.PartialContent(&hcl.BodySchema{Attributes: []hcl.AttributeSchema{{Name: name}}})
	if attr := content.Attributes[name]; attr != nil {
		at = attr.Expr.Range()
	}
	return hcl.Diagnostics{{
		Severity: hcl.DiagError,
		Summary:  "Invalid " + name,
		Detail:   quote(value) + " is none of " + list(values) + "." + hcltext.Suggest(value, values),
		Subject:  &at,
	}}
}

// A counter hashes and counts.
type counter struct {
	hash.Hash
	n int64
}

func (c *counter) Write(p []byte) (int, error) {
	c.n += int64(len(p))
	return c.Hash.Write(p)
}
