# A Linux server without logins: what level 1 of the CIS benchmark for Debian asks of one, with what
# an Immutable Service Container keeps anyway. ssh may be there; isc-strict has none.
name    = "isc-linux"
title   = "Linux servers and guests"
extends = "isc-baseline"

controls = {
  linux = [
    "A07", "A08", "B01", "B02", "B04", "B08", "B09", "B11",
    "E06", "E07", "E08", "E09", "E10", "E11", "E15", "E18", "E19", "E29", "E30", "E31",
    "K02", "L10", "L12", "L14", "L15", "L16", "L17", "L18", "L21", "L22", "L24", "L26", "L27", "L29", "L30", "L32", "L34",
    "L35", "L36", "L37", "L38",
  ]
}
only = ["linux"]
