# Parameters and controls that the profile does not know.
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
  name = "isc-baseline"
  set = {
    baner             = "x"
    "password_length" = "many"
  }
  waive {
    control = "S5"
    reason  = "x"
    until   = "2027-01-01"
  }
  waive {
    control = "A01"
    reason  = "not on linux"
    until   = "2027-01-01"
  }
}
