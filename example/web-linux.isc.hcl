# The same web server on Linux: for podman, and for lx zones. The skeleton has no programs: for a
# server that runs, set base.source to the tar of a distribution.
#
#   iscadm validate example/web-linux.isc.hcl
#   iscadm build example/web-linux.isc.hcl -o oci:out:web --var port=8081 --set image.version=1.0.1

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
  os          = "linux"
  arch        = "amd64"
  description = "A static site."
}

base {
  source = "skeleton:linux"
}

profile {
  name = "isc-baseline"
}

file {
  path   = "${local.root}/bin/webd"
  source = "web/webd"
  mode   = "0555"
  owner  = "root"
  group  = "root"
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
  privileges = ["basic"]
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

# Without a mutable block, what any running instance writes is no drift: logs, its machine id, host keys.

zone {
  brand       = "lx"
  compression = "zstd"
}

zfs {} # the same for a host with OpenZFS; from = ["REF"] adds the increment from an earlier version
