# A web server in an illumos zone. /usr comes from the host, as in OmniOS's sparse zones; for a
# zone with a /usr of its own, set base.source to the tar of a distribution.
#
#   iscadm validate example/web.isc.hcl
#   iscadm build example/web.isc.hcl -o oci:out:web --var port=8081 --set image.version=1.0.1

variable "port" {
  type        = number
  default     = 8080
  description = "Where the server listens."

  validation {
    condition     = var.port > 1023 && var.port < 65536
    error_message = "The server has no privilege for ports below 1024."
  }
}

locals {
  root = "/opt/web"
}

image {
  name        = "web"
  version     = "1.0.0"
  os          = "illumos"
  arch        = "amd64"
  description = "A static site."
}

base {
  source = "skeleton:illumos"
}

profile {
  name = "isc-baseline"
}

file {
  path   = "${local.root}/bin/webd"
  source = "web/webd"
  mode   = "0555"
  owner  = "root"
  group  = "bin"
}

tree {
  path   = "${local.root}/share"
  source = "dir:web/share"
}

file {
  path    = "${local.root}/share/health.txt"
  content = "ok\n"
}

user {
  name = "webd"
  uid  = 801
}

service {
  name       = "web"
  exec       = "${local.root}/bin/webd ${var.port} ${local.root}/share"
  user       = "webd"
  listen     = ["${var.port}/tcp"]
  privileges = ["basic", "!proc_info", "!file_link_any"]
  health     = "http://:${var.port}/health.txt"
}

network {
  outbound = ["53/udp"]
}

limits {
  memory    = "512MiB"
  max_swap  = "512MiB"
  processes = 100
  cpus      = 1
}

scratch {
  path = "/scratch"
  size = "1GiB"
}

volume {
  path = "/var/lib/web"
  size = "1GiB"
}

# Without a mutable block, what any running zone writes is no drift: its SMF repository, logs, host keys. What
# the service writes besides is named in such blocks, and image.mutable_defaults = true keeps the rest.

zone {
  brand       = "illumos"
  compression = "zstd"
}

zfs {} # the same as a send stream, for zoneadm install -s; from = ["REF"] adds the increment from an earlier version

zfs { # for imgadm of SmartOS
  id     = "smartos"
  layout = "root"
}

zpool {} # a whole pool image, for zpool import -d FOLDER; the increments of the zfs block go into it
