locals {
  a = file("absent.txt") # ERROR: Invalid function argument
}

source "null" "a" {
  communicator = "none"
}

build {
  sources = ["source.null.a"]
}
