//go:generate go tool packer-sdc struct-markdown
//go:generate go tool packer-sdc mapstructure-to-hcl2 -type Config,Waiver

package ischarden

import "github.com/hashicorp/packer-plugin-sdk/common"

// Config says which controls, and how they are applied.
type Config struct {
	common.PackerConfig `mapstructure:",squash"`

	// The profile: one that is built in (`isc-baseline`, `isc-strict`, `isc-linux`, `stig-solaris11`), or the name of a
	// profile file that ends in `.hcl`. Default: `isc-baseline`.
	Profile string `mapstructure:"profile" required:"false"`
	// Parameters of the controls, by name.
	Set map[string]string `mapstructure:"set" required:"false"`
	// Controls that need not hold.
	Waive []Waiver `mapstructure:"waive" required:"false"`
	// A file on this machine that the report is written to, as JSON.
	Report string `mapstructure:"report" required:"false"`
	// What goes in front of every command on the machine to run it as root, such as `["sudo", "-n"]`.
	// Default: nothing, for communicators that log in as root.
	As []string `mapstructure:"as" required:"false"`
	// Check only, and change nothing.
	AuditOnly bool `mapstructure:"audit_only" required:"false"`
}

// Waiver excuses a control until the end of a day.
type Waiver struct {
	// The id of the control.
	Control string `mapstructure:"control" required:"true"`
	// Why it need not hold.
	Reason string `mapstructure:"reason" required:"true"`
	// The last day, as YYYY-MM-DD.
	Until string `mapstructure:"until" required:"true"`
}
