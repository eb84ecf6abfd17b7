packer {
  required_plugins {
    amazon = { source = "github.com/hashicorp/amazon", version = ">= 1" }
  }
}

packer {
  required_plugins {
    amazon = { source = "github.com/hashicorp/amazon", version = ">= 1" } # ERROR: Duplicate plugin requirement
  }
}

source "null" "a" {
  communicator = "none"
}

build {
  sources = ["source.null.a"]
}
