# --set image.verson=2
# --set imag.version=2
# --set image
# --set image=web
# --set image[0].name=web
# --set image.version.major=2
# --set file.mode=0555
# --set file[2].mode=0555
# --set file[x].mode=0555
# --set file[1].mode=0999
# --set zone[0].compression=lz4
# --set user.name=x
# --set profile.set.banner.x=1
# --set limits.processes=many
# --set service[0].listen=["80/tcp"
# --set profile.set=[1]
# --set ..=1
image {
  name    = "web"
  version = "1.0.0"
  os      = "linux"
  arch    = "amd64"
}

base {
  source = "skeleton:linux"
}

file {
  path    = "/a"
  content = "a"
}

file {
  path    = "/b"
  content = "b"
}

service {
  name = "web"
  exec = "/bin/true"
}

zone {
}
