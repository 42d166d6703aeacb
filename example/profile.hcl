# A profile of one's own: name it in a spec with
#
#   profile {
#     source = "profile.hcl"
#   }
#
# "iscadm profile controls" lists the controls and their parameters; docs/controls.md explains
# them. Unknown names are errors.
name  = "web"
title = "What our web servers keep: no logins at all"

controls = {
  illumos = ["A01", "A02", "A03", "A05", "C01", "D15", "E12", "E21", "P01", "P02", "S12", "X01", "X02", "X03", "Z01", "Z03"]
  linux   = ["A02", "A03", "A05", "C01", "D15", "E12", "E21", "P01", "P02", "S12", "X01", "X02", "Z03"]
}

# What differs from the defaults of the catalogue. A spec can set these again, in
# profile { set = { … } }.
parameters = {
  services_keep = "postfix.service"
  secrets_allow = "opt/*/testdata/**"
}
