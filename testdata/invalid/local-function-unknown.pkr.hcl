locals {
  a = uper("x") # ERROR: Call to unknown function
}

source "null" "a" {
  communicator = "none"
}

build {
  sources = ["source.null.a"]
}
