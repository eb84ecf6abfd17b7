data "null" "a" {
  input = "x"
}

locals {
  b = data.null.a.outptu # ERROR: Unsupported attribute
}

source "null" "a" {
  communicator = "none"
}

build {
  sources = ["source.null.a"]
}
