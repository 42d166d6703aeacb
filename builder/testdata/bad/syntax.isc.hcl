image {
  name = "web
  version = "1.0.0"
}

base {
  source = = "dir:x"
