locals {
  a = 1e10000
  b = "is ${-1e100000000}" # ERROR: Cannot read file
}

source "null" "a" {
  communicator = "none"
}

build {
  sources = ["source.null.a"]
}
