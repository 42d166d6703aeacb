# Slips of names, each with a suggestion where there is a near one.
image {
  nmae    = "web"
  version = "1.0.0"
  os      = "ilumos"
  arch    = "x86_64"
}

bse {
  source = "skeleton:illumos"
}

base {
  source = "skeleton:ilumos"
  sha265 = "00"
}

service {
  name   = "web"
  exec   = "/bin/true"
  lisen  = ["80/tcp"]
}

profile {
  wave {
  }
}

teapot {
}

zone "web" {
  dialect     = "ustar"
  compression = "gizp"
}

answer = 42
