locals {
  a = "${local.a}!" # ERROR: Circular reference
}

source "null" "a" {
  communicator = "none"
}

build {
  sources = ["source.null.a"]
}
