packer {
  required_plugins {
    amazon = { source = "github.com/hashicorp/amazon" } # ERROR: Invalid plugin requirement: The version is missing
  }
}

source "null" "a" {
  communicator = "none"
}

build {
  sources = ["source.null.a"]
}
