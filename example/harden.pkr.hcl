# A virtual machine of another builder, held to a profile: a Debian that VirtualBox installs from an
# ISO is hardened and audited, and its disk becomes a signed appliance.
#
#   packer init example/harden.pkr.hcl
#   iscadm keygen -o release
#   COSIGN_PASSWORD=… packer build -var iso=debian.iso -var checksum=sha256:… example/harden.pkr.hcl
#
# The preseed file answers the installer; it makes the user packer, who may run sudo.

packer {
  required_plugins {
    isc = {
      source  = "github.com/goldenisc/isc"
      version = ">= 0.1.0"
    }
    virtualbox = {
      source  = "github.com/hashicorp/virtualbox"
      version = ">= 1.1.1"
    }
  }
}

variable "iso" {
  type = string
}

variable "checksum" {
  type = string
}

variable "password" {
  type        = string
  default     = env("PACKER_PASSWORD")
  sensitive   = true
  description = "Of the user packer, as in the preseed file."
}

source "virtualbox-iso" "debian" {
  guest_os_type        = "Debian12_64"
  iso_url              = var.iso
  iso_checksum         = var.checksum
  http_directory       = "http"
  boot_command         = ["<esc><wait>auto url=http://{{ .HTTPIP }}:{{ .HTTPPort }}/preseed.cfg<enter>"]
  memory               = 2048
  ssh_username         = "packer"
  ssh_password         = var.password
  ssh_timeout          = "30m"
  guest_additions_mode = "disable"
  shutdown_command     = "sudo -n shutdown -P now"
}

build {
  sources = ["source.virtualbox-iso.debian"]

  # Findings fail the build, unless they are waived.
  provisioner "isc-harden" {
    profile = "isc-linux"
    as      = ["sudo", "-n"]
    report  = "out/report.json"

    waive {
      control = "L35"
      reason  = "The filter is that of the network it is attached to."
      until   = "2027-06-30"
    }
  }

  post-processors {
    post-processor "isc-package" {
      output = "oci:out:debian"

      image {
        name    = "debian"
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
      key = "release.key"
    }
  }
}
