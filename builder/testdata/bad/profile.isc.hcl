# A profile that does not exist.
image {
  name    = "web"
  version = "1.0.0"
  os      = "linux"
  arch    = "amd64"
}

base {
  source = "skeleton:linux"
}

profile {
  name = "isc-baselin"
}
