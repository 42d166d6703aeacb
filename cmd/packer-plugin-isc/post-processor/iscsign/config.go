//go:generate go tool packer-sdc struct-markdown
//go:generate go tool packer-sdc mapstructure-to-hcl2 -type Config

package iscsign

import "github.com/hashicorp/packer-plugin-sdk/common"

// Config says with which key, and what is released how.
type Config struct {
	common.PackerConfig `mapstructure:",squash"`

	// The key to sign with: a file as cosign makes it, `env://VAR`, or `SCHEME://…` of a KMS plugin. The
	// password of a file is that of `COSIGN_PASSWORD` in the environment; it never stands in a template.
	Key string `mapstructure:"key" required:"true"`
	// The channel to release in. Default: `stable`.
	Channel string `mapstructure:"channel" required:"false"`
	// The number of the release, higher than any before it in the channel. Default: one more than the
	// highest that is where the image is. A pipeline that builds into a new layout each time sets it,
	// or publishes first and signs there.
	Epoch int64 `mapstructure:"epoch" required:"false"`
	// Time from now after which nobody may take the release: `90d`, `12h`. Default: `90d`.
	Expires string `mapstructure:"expires" required:"false"`
	// Withdraw all releases of the channel below this epoch.
	MinimumEpoch int64 `mapstructure:"minimum_epoch" required:"false"`
	// How the signature is written: `bundle`, `classic` (the .sig tag that podman and skopeo read) or
	// `both`. Default: `both`.
	SignatureFormat string `mapstructure:"signature_format" required:"false"`
	// `HOST/REPO` that the classic signature names. Default: where the image is.
	Identity string `mapstructure:"identity" required:"false"`
	// Speak HTTP also to registries on other machines.
	PlainHTTP bool `mapstructure:"plain_http" required:"false"`
}
