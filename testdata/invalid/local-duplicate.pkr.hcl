locals {
  a = 1
}

local "a" { # ERROR: Duplicate local value
  expression = 2
}

source "null" "a" {
  communicator = "none"
}

build {
  sources = ["source.null.a"]
}
