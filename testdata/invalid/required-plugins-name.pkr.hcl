packer {
  required_plugins {
    Amazon_EC2 = { source = "github.com/hashicorp/amazon", version = ">= 1" } # ERROR: Invalid plugin requirement
  }
}

source "null" "a" {
  communicator = "none"
}

build {
  sources = ["source.null.a"]
}
