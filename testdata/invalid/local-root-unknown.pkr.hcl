locals {
  a = vars.region # ERROR: Unknown variable
}

source "null" "a" {
  communicator = "none"
}

build {
  sources = ["source.null.a"]
}
