packer {
  required_plugins {
    amazon = { source = "github.com/../docker", version = ">= 1" } # ERROR: Invalid plugin requirement
  }
}

source "null" "a" {
  communicator = "none"
}

build {
  sources = ["source.null.a"]
}
