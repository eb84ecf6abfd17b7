packer {
  required_plugins {
    amazon = { source = "github.com/hashicorp/amazon", version = ">= 1" }
  }
}

packer {
  required_plugins {
    amazon = { source = "github.com/Hashicorp/amazon", version = "< 2" }
  }
}

source "null" "a" {
  communicator = "none"
}

build {
  sources = ["source.null.a"]
}
