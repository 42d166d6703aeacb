count = 2
sizes = 3
list = [for x in var.y : x]
