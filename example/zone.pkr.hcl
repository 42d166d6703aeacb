# An image made in a zone: on a host of illumos or Solaris, where packages are installed as they are
# on any zone. The zone is gone afterwards; the image is built here, hardened and reproducible from
# the zone's root on.
#
#   packer build -var host=ssh://builder@omnios.example example/zone.pkr.hcl
#
# The host must be in known_hosts, and its user may run zonecfg, zoneadm, zlogin and zfs by pfexec.

packer {
  required_plugins {
    isc = {
      source  = "github.com/goldenisc/isc"
      version = ">= 0.1.0"
    }
  }
}

variable "host" {
  type        = string
  description = "ssh://[USER@]HOST[:PORT]"
}

source "isc-zone" "nginx" {
  host   = var.host
  as     = ["pfexec"]
  brand  = "lipkg"
  output = "oci:out:nginx"

  # Its network while it is built; the VNIC exists on the host.
  zonecfg = [
    "set ip-type=exclusive",
    "add net",
    "set physical=build0",
    "set allowed-address=10.80.0.9/24",
    "set defrouter=10.80.0.1",
    "end",
  ]

  image {
    name    = "nginx"
    version = "1.0.0"
    os      = "illumos"
    arch    = "amd64"
  }

  user {
    name = "nginx"
    uid  = 822
  }

  service {
    name   = "nginx"
    exec   = "/opt/ooce/nginx/sbin/nginx -g 'daemon off;'"
    user   = "nginx"
    listen = ["8080/tcp"]
  }
}

build {
  sources = ["source.isc-zone.nginx"]

  provisioner "shell" {
    inline = [
      "pkg set-publisher -g https://pkg.omnios.org/r151054/extra extra.omnios",
      "pkg install ooce/server/nginx",
      "pkg unset-publisher extra.omnios",
    ]
  }

  provisioner "file" {
    source      = "example/web/share/index.html"
    destination = "/opt/ooce/nginx/html/index.html"
  }
}
