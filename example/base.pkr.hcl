# An image on top of one that somebody else released: the data source verifies it and pins its digest.
#
#   packer build -var reference=registry.example/isc/base:12 example/base.pkr.hcl

packer {
  required_plugins {
    isc = {
      source  = "github.com/goldenisc/isc"
      version = ">= 0.1.0"
    }
  }
}

variable "reference" {
  type = string
}

variable "key" {
  type        = string
  default     = "release.pub"
  description = "The public key of who releases the base."
}

data "isc-image" "base" {
  reference = var.reference
  keys      = [var.key]
}

source "isc-image" "next" {
  output = "oci:out:next"

  image {
    name    = "next"
    version = data.isc-image.base.version
    os      = data.isc-image.base.os
    arch    = data.isc-image.base.arch
  }

  base {
    source = data.isc-image.base.reference # with the digest that was verified
  }

  file {
    path    = "/etc/motd"
    content = "On ${data.isc-image.base.name} of epoch ${data.isc-image.base.epoch}.\n"
  }
}

build {
  sources = ["source.isc-image.next"]
}
