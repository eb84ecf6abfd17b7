locals {
  a = tostring(1) # ERROR: Call to unknown function: There is no function tostring here; write convert(value, string).
}

source "null" "a" {
  communicator = "none"
}

build {
  sources = ["source.null.a"]
}
