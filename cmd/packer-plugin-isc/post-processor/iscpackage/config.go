//go:generate go tool packer-sdc struct-markdown
//go:generate go tool packer-sdc mapstructure-to-hcl2 -type Config

package iscpackage

import "github.com/hashicorp/packer-plugin-sdk/common"

// Config is what there is besides the blocks of the spec: image, and the artifacts that a disk can be
// written as (ova, raw_disk, qcow2, vmdk, vhd, gcp).
type Config struct {
	common.PackerConfig `mapstructure:",squash"`

	// Where to write the image to: `oci:DIR[:TAG]` or `oci-archive:FILE[:TAG]`, the tag being `latest`
	// unless one is given. A tag or file that is there is an error without `-force`.
	Output string `mapstructure:"output" required:"true"`
	// Which file of the source artifact holds the disk, as a pattern of its base name, such as
	// `*-disk001.vmdk`. Default: the appliance (.ova, .ovf) among them, or else the only disk.
	Disk string `mapstructure:"disk_file" required:"false"`
	// Write only the artifact blocks of these ids. Default: all.
	Artifacts []string `mapstructure:"artifacts" required:"false"`
	// A folder for temporary files. Default: that of the system.
	TemporaryFolder string `mapstructure:"temporary_folder" required:"false"`
}
