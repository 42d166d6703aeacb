# Build, sign and publish: what a pipeline runs for a release. From the root of the repository:
#
#   iscadm keygen -o release
#   COSIGN_PASSWORD=… packer build -var destination=registry.example/isc/web example/release.pkr.hcl
#
# Signing comes before publishing, so that nobody sees an image without its release; the tag moves
# last. Both can be run again: what is there already is left as it is.

packer {
  required_plugins {
    isc = {
      source  = "github.com/goldenisc/isc"
      version = ">= 0.1.0"
    }
  }
}

variable "destination" {
  type        = string
  description = "HOST/REPO"
}

variable "version" {
  type    = string
  default = "1.0.0"
}

variable "epoch" {
  type        = number
  default     = 0
  description = "Number of the release, such as that of the pipeline's run; 0: one more than the last in the layout."
}

variable "channel" {
  type    = string
  default = "candidate"
}

variable "key" {
  type        = string
  default     = "release.key"
  description = "A file, env://VAR, or SCHEME://… of a KMS plugin."
}

source "isc-image" "web" {
  output = "oci:out:web"
  spec   = "example/web-linux.isc.hcl"
  set = {
    "image.version" = var.version
  }
}

build {
  sources = ["source.isc-image.web"]

  post-processors {
    post-processor "isc-sign" {
      key     = var.key
      channel = var.channel
      epoch   = var.epoch
      expires = "90d"
    }

    post-processor "isc-publish" {
      destination = "${var.destination}:${var.version}"
    }
  }
}
