packer {
  required_version = ">= 1.9.0-beta1" # ERROR: Invalid version constraint
}

source "null" "a" {
  communicator = "none"
}

build {
  sources = ["source.null.a"]
}
