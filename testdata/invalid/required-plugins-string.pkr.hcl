packer {
  required_plugins {
    amazon = ">= 1.0.0" # ERROR: Invalid plugin requirement
  }
}

source "null" "a" {
  communicator = "none"
}

build {
  sources = ["source.null.a"]
}
