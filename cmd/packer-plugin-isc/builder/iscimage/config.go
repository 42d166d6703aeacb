//go:generate go tool packer-sdc struct-markdown
//go:generate go tool packer-sdc mapstructure-to-hcl2 -type Config

package iscimage

import (
	"github.com/hashicorp/packer-plugin-sdk/common"
)

// Config is what a source has besides the blocks of the spec.
type Config struct {
	common.PackerConfig `mapstructure:",squash"`

	// The file of a spec, instead of blocks in the template.
	Spec string `mapstructure:"spec" required:"false"`
	// Where to write the image to: `oci:DIR[:TAG]` or `oci-archive:FILE[:TAG]`, the tag being `latest`
	// unless one is given. A tag or file that is there is an error without `-force`.
	Output string `mapstructure:"output" required:"true"`
	// Attributes that replace or add to those of the file that `spec` names, as
	// `{ "image.version" = "1.4.1" }`.
	Set map[string]string `mapstructure:"set" required:"false"`
	// Values of the variables of the file that `spec` names.
	Variables map[string]string `mapstructure:"variables" required:"false"`
	// Write only the artifact blocks of these ids. Default: all.
	Artifacts []string `mapstructure:"artifacts" required:"false"`
	// Refuse bases that are not as in the lock file beside the spec (`iscadm lock`).
	Locked bool `mapstructure:"locked" required:"false"`
	// A folder for temporary files. Default: that of the system.
	TemporaryFolder string `mapstructure:"temporary_folder" required:"false"`
}
