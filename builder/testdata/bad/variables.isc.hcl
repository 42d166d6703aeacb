# --var portt=1
# --var count=few
# --var size=7
# --var-file testdata/files/vars.hcl
variable "port" {
  type = number
}

variable "port" {
}

variable "count" {
  type    = number
  default = 1
}

variable "size" {
  type    = number
  default = 1
  validation {
    condition     = var.size < 5
    error_message = "At most 4, not ${var.size}."
  }
}

variable "list" {
  type    = list(string)
  default = { a = 1 }
}

variable "odd" {
  type = strng
}

variable {
}

locals {
  a = local.b
  b = local.c
  c = local.a
  d = var.prot
}

locals {
  a = 1
}

image {
  name    = "web"
  version = "1.0.${var.size}"
  os      = "linux"
  arch    = "amd64"
}

base {
  source = "skeleton:${local.os}"
}

zone {
}
