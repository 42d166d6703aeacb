//go:generate go tool packer-sdc struct-markdown
//go:generate go tool packer-sdc mapstructure-to-hcl2 -type Config

package iscpublish

import "github.com/hashicorp/packer-plugin-sdk/common"

// Config says where to.
type Config struct {
	common.PackerConfig `mapstructure:",squash"`

	// Where to publish the image: `HOST/REPO:TAG`, or a layout or an archive as in `output` of the
	// builder. Signatures and attestations go with it; the tag moves last. Credentials are those of
	// Docker and Podman: their files and helpers.
	Destination string `mapstructure:"destination" required:"true"`
	// Speak HTTP also to registries on other machines.
	PlainHTTP bool `mapstructure:"plain_http" required:"false"`
}
