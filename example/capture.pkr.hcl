# A disk that a builder of virtual machines leaves becomes a signed appliance: an OVA that VirtualBox,
# VMware, Proxmox and virt-v2v import, without ovftool. Here the disk is a file that is there already;
# with a builder, its source takes the place of the null source, and the artifice post-processor goes.
#
#   packer build -var disk=web.qcow2 example/capture.pkr.hcl

packer {
  required_plugins {
    isc = {
      source  = "github.com/goldenisc/isc"
      version = ">= 0.1.0"
    }
  }
}

variable "disk" {
  type        = string
  description = "raw, qcow2, VMDK, VDI, OVA or OVF"
}

variable "key" {
  type    = string
  default = "release.key"
}

source "null" "vm" {
  communicator = "none"
}

build {
  sources = ["source.null.vm"]

  post-processors {
    post-processor "artifice" {
      files = [var.disk]
    }

    post-processor "isc-package" {
      output = "oci:out:appliance"

      image {
        name    = "web-appliance"
        version = "1.0.0"
        os      = "linux"
        arch    = "amd64"
      }

      ova {
        memory = "2GiB"
        cpus   = 2
      }
    }

    post-processor "isc-sign" {
      key = var.key
    }
  }
}
