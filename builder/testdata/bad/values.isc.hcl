# Values of the right type that cannot be.
image {
  name    = "Web_Server"
  version = "1.0.0+build.5"
  os      = "linux"
  arch    = "amd64"
}

base {
  source   = "tar:missing.tar.zst"
  sha256   = "abc"
  max_size = "8 gigabytes"
}

profile {
  name = "isc-baseline"
  waive {
    control = "S05"
    reason  = " "
    until   = "2027-02-30"
  }
  waive {
    control = "S05"
    reason  = "twice"
    until   = "2027-01-01"
  }
}

file {
  path   = "opt/web/webd"
  source = "no/such/file"
  mode   = "0999"
  owner  = "-rf"
}

file {
  path    = "/etc/motd"
  content = "a"
  source  = "../files/plain.txt"
}

file {
  path = "/etc/motd"
}

file {
  path    = "/etc/motd/below"
  content = ""
}

file {
  path    = "/etc/../shadow"
  content = ""
}

file {
  path    = "/etc//issue/"
  content = ""
}

link {
  path   = "/"
  target = "x"
}

link {
  path   = "/etc/hard"
  target = "passwd"
  hard   = true
}

tree {
  path   = "/srv"
  source = "../files"
}

tree {
  path   = "/srv"
  source = "dir:../files/plain.txt"
}

remove {
  paths = ["/usr/share/doc/**", "/**", "usr/bin/cc", "/a/[/b"]
}

zone {
}

zone {
}

zone {
  id = "content"
}
