//go:generate go tool packer-sdc struct-markdown
//go:generate go tool packer-sdc mapstructure-to-hcl2 -type Config

package isczone

import "github.com/hashicorp/packer-plugin-sdk/common"

// Config is what there is besides the blocks of the spec.
type Config struct {
	common.PackerConfig `mapstructure:",squash"`

	// The build host, which runs illumos or Solaris: `ssh://[USER@]HOST[:PORT][?jump=…&key=FILE]`. Its key
	// must be in `known_hosts`; users are known by the agent and their key files.
	Host string `mapstructure:"host" required:"true"`
	// Where to write the image to: `oci:DIR[:TAG]` or `oci-archive:FILE[:TAG]`, the tag being `latest`
	// unless one is given. A tag or file that is there is an error without `-force`.
	Output string `mapstructure:"output" required:"true"`
	// The brand of the zone, such as `lipkg`, `illumos` or `solaris`.
	Brand string `mapstructure:"brand" required:"true"`
	// The folder that the zone's path is made in; it must be a ZFS file system for most brands.
	// Default: `/zones`.
	ZonesFolder string `mapstructure:"zones_folder" required:"false"`
	// The name of the zone while it is built. A zone of this name must not exist. Default: `isc-` and the
	// name of the image.
	ZoneName string `mapstructure:"zone_name" required:"false"`
	// Arguments of `zoneadm install`. Default: none.
	InstallArguments []string `mapstructure:"install_arguments" required:"false"`
	// A zone archive on this machine, such as that of one of our images, which is sent to the host and
	// installed (`zoneadm install -s`).
	Archive string `mapstructure:"archive" required:"false"`
	// Commands of zonecfg(8), one a line, besides those for brand and path: network resources and the
	// like. Default: `set ip-type=shared`, which is no network.
	Zonecfg []string `mapstructure:"zonecfg" required:"false"`
	// What goes in front of every command on the host to run it with the privileges that zones take,
	// such as `["pfexec"]`. Default: nothing.
	As []string `mapstructure:"as" required:"false"`
	// The service that says that the zone is up. Default: `svc:/milestone/multi-user-server:default`.
	Milestone string `mapstructure:"milestone" required:"false"`
	// How long that may take. Default: `10m`.
	BootTimeout string `mapstructure:"boot_timeout" required:"false"`
	// Write only the artifact blocks of these ids. Default: all.
	Artifacts []string `mapstructure:"artifacts" required:"false"`
	// A folder for temporary files on this machine. Default: that of the system.
	TemporaryFolder string `mapstructure:"temporary_folder" required:"false"`
}
