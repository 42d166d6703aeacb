// Package version holds the plugin's version, which the linker sets: Packer takes a plugin only if its
// file's name says the same.
package version

import sdk "github.com/hashicorp/packer-plugin-sdk/version"

// Version, Prerelease and Metadata are the parts of a semantic version. Packer loads releases and
// "dev" only.
var (
	Version    = "0.1.0"
	Prerelease = "dev"
	Metadata   = ""
)

// Plugin is the version in the form of the SDK.
var Plugin = sdk.NewPluginVersion(Version, Prerelease, Metadata)
