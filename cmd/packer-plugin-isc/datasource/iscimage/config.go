//go:generate go tool packer-sdc struct-markdown
//go:generate go tool packer-sdc mapstructure-to-hcl2 -type Config,Output

package iscimage

import "github.com/hashicorp/packer-plugin-sdk/common"

// Config says which image, and who must have released it.
type Config struct {
	common.PackerConfig `mapstructure:",squash"`

	// The image: `HOST/REPO[:TAG]`, `oci:DIR[:TAG]` or `oci-archive:FILE[:TAG]`, each also with a digest.
	Reference string `mapstructure:"reference" required:"true"`
	// Public keys, of which one must have released the image. Either these or a policy are required.
	Keys []string `mapstructure:"keys" required:"false"`
	// A policy file, as hosts have it.
	Policy string `mapstructure:"policy" required:"false"`
	// The channel that the release must be of. Default: any that the keys or the policy take.
	Channel string `mapstructure:"channel" required:"false"`
	// The lowest epoch that is taken: what was pinned before, so that nobody can offer an older image.
	MinimumEpoch int64 `mapstructure:"minimum_epoch" required:"false"`
	// Speak HTTP also to registries on other machines.
	PlainHTTP bool `mapstructure:"plain_http" required:"false"`
}

// Output is what a template learns of the image.
type Output struct {
	// The digest of its index.
	Digest string `mapstructure:"digest"`
	// The reference with that digest, as a base of other images.
	Reference string `mapstructure:"reference"`
	// Its name.
	Name string `mapstructure:"name"`
	// Its version.
	Version string `mapstructure:"version"`
	// Its operating system.
	OS string `mapstructure:"os"`
	// Its architecture.
	Arch string `mapstructure:"arch"`
	// The channel of the release.
	Channel string `mapstructure:"channel"`
	// The epoch of the release.
	Epoch int64 `mapstructure:"epoch"`
	// When nobody may take it any more, RFC 3339.
	Expires string `mapstructure:"expires"`
	// The digests of its artifacts by name.
	Artifacts map[string]string `mapstructure:"artifacts"`
}
