packer {
  required_plugins {
    amazon = { source = "github.com/hashicorp/amazon", version = ">= 1" }
  }
}

packer {
  required_plugins {
    amazon = { source = "github.com/elsewhere/amazon", version = ">= 1" } # ERROR: Two plugins with the same name
  }
}

source "null" "a" {
  communicator = "none"
}

build {
  sources = ["source.null.a"]
}
