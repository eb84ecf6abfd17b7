packer {
  required_plugins {
    amazon = { version = ">= 1" } # ERROR: Invalid plugin requirement: The source is missing
  }
}

source "null" "a" {
  communicator = "none"
}

build {
  sources = ["source.null.a"]
}
