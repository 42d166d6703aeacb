package host_test

import (
	"github.com/goldenisc/packer-plugin-isc/host"
	"github.com/goldenisc/packer-plugin-isc/registry"
)

// An image of a layout or registry is what a host imports from.
var _ host.Source = (*registry.Image)(nil)
