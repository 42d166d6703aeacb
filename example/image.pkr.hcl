# A golden image of the web server in example/web, with Packer. The blocks are those of a spec
# (example/web-linux.isc.hcl), so that one can be pasted into the other. Run from the root of the
# repository:
#
#   packer init example/image.pkr.hcl
#   packer build example/image.pkr.hcl

packer {
  required_plugins {
    isc = {
      source  = "github.com/goldenisc/isc"
      version = ">= 0.1.0"
    }
  }
}

variable "version" {
  type    = string
  default = "1.0.0"
}

variable "base" {
  type        = string
  default     = "skeleton:linux"
  description = "A root file system: dir:PATH, tar:PATH, or a reference to an image. The skeleton has no programs."
}

source "isc-image" "web" {
  output = "oci:out:web"

  image {
    name    = "web"
    version = var.version
    os      = "linux"
    arch    = "amd64"
  }

  base {
    source = var.base
  }

  file {
    path   = "/opt/web/bin/webd"
    source = "example/web/webd"
    mode   = "0555"
  }

  user {
    name = "webd"
    uid  = 801
  }

  service {
    name   = "web"
    exec   = "/opt/web/bin/webd 8080 /opt/web/share"
    user   = "webd"
    listen = ["8080/tcp"]
  }
}

build {
  sources = ["source.isc-image.web"]

  # Provisioners work on the tree, before it is hardened and frozen. Files go into any tree; commands
  # (the shell provisioner) run in trees of Linux, without root too.
  provisioner "file" {
    source      = "example/web/share"
    destination = "/opt/web"
  }
}
