package builder

import (
	"bytes"
	"fmt"
	"slices"
	"strings"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclwrite"

	"github.com/goldenisc/packer-plugin-isc/internal/hcltext"
	"github.com/goldenisc/packer-plugin-isc/profiles"
)

// Format puts HCL into the canonical layout, as packer fmt does.
func Format(filename string, src []byte) ([]byte, hcl.Diagnostics) {
	if _, diags := parseBody(filename, src); diags.HasErrors() {
		return nil, diags
	}
	return hclwrite.Format(src), nil
}

// Init returns a commented spec to start from, for the base that the facts are of. It is valid as
// it is, for a base that [ParseSpec] finds and an image of a system and architecture that the
// program knows.
func Init(f Facts) []byte {
	var b bytes.Buffer
	line := func(format string, args ...any) { fmt.Fprintf(&b, format+"\n", args...) }
	os, arch := f.OS, f.Arch
	osNote, archNote := "illumos, solaris or linux", "amd64 or arm64"
	if !slices.Contains(systems, os) {
		os, osNote = "illumos", "a guess: the base does not say"
	}
	if !slices.Contains(Architectures, arch) {
		arch, archNote = "amd64", "a guess: the base does not say"
	}
	source := f.Source
	if source == "" && slices.Contains(skeletons, os) {
		source = "skeleton:" + os
	} else if source == "" {
		source = "skeleton:" + profiles.Illumos // of no use, but a source: there is none of Solaris
	}

	line("# A golden image. Check it with iscadm validate, build it with iscadm build SPEC -o oci:DIR:TAG.")
	line("# Names of local files are relative to the folder of this file.")
	line("")
	line("image {")
	line("name = %q # of the repository and, by default, of the zone", "app")
	line("version = %q # a tag; epochs and channels are given when the image is signed", "0.1.0")
	line("os = %q # %s", os, osNote)
	line("arch = %q # %s", arch, archNote)
	line("}")
	line("")
	line("base {")
	if f.Release != "" {
		line("# %s", hcltext.Comment(f.Release+packageNote(f.Packages)))
	}
	line("source = %s", hcltext.Literal(source))
	switch scheme, _, _ := strings.Cut(source, ":"); scheme {
	case "tar", "zfs":
		line("# sha256 = \"…\" # of the file; or pin it with iscadm lock")
	case "skeleton", "dir":
	default:
		line("# Pin it: @sha256:… behind the name, or iscadm lock.")
	}
	if f.Version != "" && digits.MatchString(f.Version) {
		line("release = %s # of the oldest host: a newer base is refused", hcltext.Literal(f.Version))
	}
	line("}")
	line("")
	line("profile {")
	line("name = %q # iscadm profile list shows all", DefaultProfile)
	line("# set = { banner = \"Authorised use only.\" }")
	line("# waive {")
	line("#   control = \"ID\"")
	line("#   reason  = \"why it does not apply here\"")
	line("#   until   = \"2027-12-31\"")
	line("# }")
	line("}")
	if len(f.Daemons) > 0 {
		line("")
		line("# The base holds servers. Those that the image does not need can go:")
		line("# remove {")
		line("#   paths = [")
		for _, d := range f.Daemons {
			line("#     %s, # listens on %s", hcltext.Literal(d.Path), d.Listen)
		}
		line("#   ]")
		line("# }")
	}
	line(`
# Files of your own, and a folder or archive laid over the root.
# file {
#   path   = "/opt/app/bin/appd"
#   source = "build/appd"
#   mode   = "0555"
# }
# tree {
#   path   = "/opt/app/share"
#   source = "dir:share"
# }

# An account without password, and a service that runs under it from boot.
# user {
#   name = "app"
#   uid  = 801
# }
# service {
#   name   = "app"
#   exec   = "/opt/app/bin/appd"
#   user   = "app"
#   listen = ["8080/tcp"]
# }

network {
  outbound = [] # such as "53/udp"; inbound is what the services listen on
}

limits {
  memory    = "1GiB"
  processes = 500
}

scratch { # encrypted under a key that dies at shutdown
  path = "/scratch"
  size = "1GiB"
}

# What outlives a reset.
# volume {
#   path = "/var/lib/app"
#   size = "10GiB"
# }

# What may differ from the golden content. Without such a block it is what any running instance writes; with
# one, image.mutable_defaults = true keeps that.
# mutable {
#   paths = ["/var/cache/app/**"]
#   rule  = "any" # any, append, or reset: put back at every reset
# }
`)
	line("")
	line("# The artifacts.")
	line("zone {")
	line("brand = %q", profiles.DefaultBrand(os))
	line("compression = %q # none, gzip or zstd", "zstd")
	line("}")
	return hclwrite.Format(b.Bytes())
}

func packageNote(system string) string {
	if system == "" {
		return ""
	}
	return ", packages by " + system
}
