locals {
  a = replace("x", "y") # ERROR: Not enough function arguments
}

source "null" "a" {
  communicator = "none"
}

build {
  sources = ["source.null.a"]
}
