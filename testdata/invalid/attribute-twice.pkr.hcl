locals {
  a = 1
  a = 2 # ERROR: Attribute redefined
}

source "null" "a" {
  communicator = "none"
}

build {
  sources = ["source.null.a"]
}
