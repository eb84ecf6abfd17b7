locals {
  a = each.value  # ERROR: Unknown variable
  b = count.index # ERROR: Unknown variable
  c = path.module # ERROR: Unknown name
  d = source.name # ERROR: Unknown variable
}

source "null" "a" {
  communicator = "none"
}

build {
  sources = ["source.null.a"]
}
