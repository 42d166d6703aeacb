# For the integrations portal of Packer.
integration {
  name        = "Immutable Service Containers"
  description = "Builds, hardens, signs and publishes golden images: zone archives, ZFS send streams, OVA appliances and OCI images of one tree."
  identifier  = "packer/goldenisc/isc"
  component {
    type = "builder"
    name = "Image"
    slug = "image"
  }
  component {
    type = "builder"
    name = "Zone"
    slug = "zone"
  }
  component {
    type = "provisioner"
    name = "Harden"
    slug = "harden"
  }
  component {
    type = "post-processor"
    name = "Package"
    slug = "package"
  }
  component {
    type = "post-processor"
    name = "Sign"
    slug = "sign"
  }
  component {
    type = "post-processor"
    name = "Publish"
    slug = "publish"
  }
  component {
    type = "data-source"
    name = "Image"
    slug = "image"
  }
}
