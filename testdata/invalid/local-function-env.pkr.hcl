locals {
  a = env("HOME") # ERROR: Call to unknown function: There is no function env here; env("NAME") may only be the default of a variable.
}

source "null" "a" {
  communicator = "none"
}

build {
  sources = ["source.null.a"]
}
