packer {
  required_plugins {
    amazon = { source = "github.com/hashicorp/amazon/", version = ">= 1" } # ERROR: Invalid plugin requirement
  }
}

source "null" "a" {
  communicator = "none"
}

build {
  sources = ["source.null.a"]
}
