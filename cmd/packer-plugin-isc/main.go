// Packer-plugin-isc makes iscadm's builders, provisioners, post-processors and data sources available
// in Packer templates as isc-image and so on.
package main

import (
	"fmt"
	"os"

	"github.com/hashicorp/packer-plugin-sdk/plugin"

	"github.com/goldenisc/packer-plugin-isc/cmd/packer-plugin-isc/builder/iscimage"
	"github.com/goldenisc/packer-plugin-isc/cmd/packer-plugin-isc/builder/isczone"
	datasource "github.com/goldenisc/packer-plugin-isc/cmd/packer-plugin-isc/datasource/iscimage"
	"github.com/goldenisc/packer-plugin-isc/cmd/packer-plugin-isc/post-processor/iscpackage"
	"github.com/goldenisc/packer-plugin-isc/cmd/packer-plugin-isc/post-processor/iscpublish"
	"github.com/goldenisc/packer-plugin-isc/cmd/packer-plugin-isc/post-processor/iscsign"
	"github.com/goldenisc/packer-plugin-isc/cmd/packer-plugin-isc/provisioner/ischarden"
	"github.com/goldenisc/packer-plugin-isc/cmd/packer-plugin-isc/version"
	"github.com/goldenisc/packer-plugin-isc/internal/chroot"
)

const usage = `packer-plugin-isc is a plugin of Packer, which starts it: put

  packer {
    required_plugins {
      isc = {
        source  = "github.com/goldenisc/isc"
        version = ">= %s"
      }
    }
  }

into a template and run "packer init". To install this very file:

  packer plugins install --path %s github.com/goldenisc/isc
`

func main() {
	chroot.Main() // does not return in a process that works in a tree
	// Packer's own arguments are "describe" and "start …". Anything else comes from people.
	if len(os.Args) < 2 || os.Args[1] != "describe" && os.Args[1] != "start" {
		fmt.Fprintf(os.Stderr, usage, version.Version, os.Args[0])
		if len(os.Args) == 2 && (os.Args[1] == "--help" || os.Args[1] == "-h" || os.Args[1] == "help") {
			return
		}
		os.Exit(2)
	}
	set := plugin.NewSet()
	set.SetVersion(version.Plugin)
	set.RegisterBuilder("image", new(iscimage.Builder))
	set.RegisterBuilder("zone", new(isczone.Builder))
	set.RegisterProvisioner("harden", new(ischarden.Provisioner))
	set.RegisterPostProcessor("package", new(iscpackage.PostProcessor))
	set.RegisterPostProcessor("sign", new(iscsign.PostProcessor))
	set.RegisterPostProcessor("publish", new(iscpublish.PostProcessor))
	set.RegisterDatasource("image", new(datasource.Datasource))
	if err := set.Run(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}
