# Values of the wrong type, and what does not follow from them is not reported twice.
image {
  name    = "web"
  version = 1.10
  os      = var.system
  arch    = upper("amd64", 1)
}

base {
  source = file("no-such-file")
}

file {
  path    = "/etc/issue"
  content = timestamp()
  mode    = 0644
}

file {
  path    = "/etc/motd"
  content = env("HOME")
}

user {
  name = ["webd"]
  uid  = "many"
}

network {
}

network {
}

limits {
  cpus = local.nothing
}
