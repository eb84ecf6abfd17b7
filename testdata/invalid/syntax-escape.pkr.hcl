locals {
  a = "C:\Windows" # ERROR: Invalid escape sequence
}

source "null" "a" {
  communicator = "none"
}

build {
  sources = ["source.null.a"]
}
