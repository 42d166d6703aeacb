# What every Immutable Service Container should keep.
name  = "isc-baseline"
title = "Baseline of Immutable Service Containers"

controls = {
  illumos = [
    "A01", "A02", "A03", "A05", "A06",
    "B01", "B02", "B03", "B04", "B05", "B06",
    "C01", "C02", "C08", "C09",
    "D14", "D15", "D17",
    "E01", "E02", "E03", "E12", "E13", "E14", "E16", "E21", "E24", "E26",
    "P01", "P02", "P03", "P04",
    "S01", "S03", "S04", "S05", "S06", "S07", "S08", "S11", "S12",
    "W01",
    "X01", "X02", "X03",
    "Z01", "Z03", "Z05",
  ]
  linux = [
    "A02", "A03", "A05", "A06",
    "C01",
    "D05", "D07", "D08", "D09", "D10", "D11", "D12", "D13", "D15", "D17",
    "E01", "E02", "E03", "E12", "E13", "E16", "E21", "E24", "E26",
    "P01", "P02", "P03", "P04",
    "S01", "S03", "S04", "S05", "S06", "S07", "S08", "S11", "S12",
    "W01",
    "X01", "X02",
    "Z03",
  ]
}
