# Accounts, services and file systems that cannot be.
image {
  name    = "web"
  version = "1.0.0"
  os      = "linux"
  arch    = "amd64"
}

base {
  source = "skeleton:linux"
}

user {
  name = "webd"
  uid  = 801
}

user {
  name = "webd"
  uid  = 0
}

user {
  name = "late"
  uid  = var.nothing
}

service {
  name       = "web"
  exec       = "webd"
  listen     = ["80/tcpp"]
  privileges = ["proc_frok"]
  health     = "http://:81/"
}

limits {
  memory = "lots"
  cpus   = -1
}

scratch {
  path = "/etc"
  size = "0"
}

volume {
  path = "var/x"
}

mutable {
  paths = ["/var/log/**"]
  rule  = "append"
}

mutable {
  paths = ["relative"]
  rule  = "never"
}

group {
  name = "incomplete"
}
