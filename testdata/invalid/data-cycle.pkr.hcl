data "null" "a" {
  input = local.b
}

locals {
  b = data.null.a.output # ERROR: Circular reference
}

source "null" "a" {
  communicator = "none"
}

build {
  sources = ["source.null.a"]
}
