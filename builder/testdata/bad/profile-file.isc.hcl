# A profile file with mistakes.
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
  source = "../files/profile.hcl"
}
