# A golden image. Check it with iscadm validate, build it with iscadm build SPEC -o oci:DIR:TAG.
# Names of local files are relative to the folder of this file.

image {
  name    = "app"   # of the repository and, by default, of the zone
  version = "0.1.0" # a tag; epochs and channels are given when the image is signed
  os      = "linux" # illumos, solaris or linux
  arch    = "amd64" # amd64 or arm64
}

base {
  # Debian GNU/Linux 12 (bookworm), packages by dpkg
  source  = "skeleton:linux"
  release = "12" # of the oldest host: a newer base is refused
}

profile {
  name = "isc-baseline" # iscadm profile list shows all
  # set = { banner = "Authorised use only." }
  # waive {
  #   control = "ID"
  #   reason  = "why it does not apply here"
  #   until   = "2027-12-31"
  # }
}

# The base holds servers. Those that the image does not need can go:
# remove {
#   paths = [
#     "/usr/sbin/sshd", # listens on 22/tcp
#   ]
# }

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


# The artifacts.
zone {
  brand       = "lx"
  compression = "zstd" # none, gzip or zstd
}
