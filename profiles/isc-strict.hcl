# The baseline, and what costs something: passwords by the book, no ssh, wrappers, an audit trail
# that cannot be switched off, packages and mounts of a server nobody logs in to.
name    = "isc-strict"
title   = "Strict Immutable Service Containers"
extends = "isc-baseline"

controls = {
  illumos = ["A04", "A08", "B07", "C05", "C10", "E11", "E19", "E30", "K02", "P08", "S13", "Z06"]
  solaris = ["illumos"]
  linux = [
    "A07", "A08", "B01", "B02", "B04", "B07", "B08", "B09", "B11", "C10",
    "E06", "E07", "E08", "E09", "E10", "E11", "E15", "E18", "E19", "E29", "E30", "E31",
    "K02", "L10", "L12", "L14", "L15", "L16", "L17", "L18", "L20", "L21", "L22", "L24", "L26", "L27", "L29", "L30", "L32", "L34",
    "L35", "L36", "L37", "L38", "S13",
  ]
}
