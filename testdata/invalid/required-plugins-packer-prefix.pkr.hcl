packer {
  required_plugins {
    amazon = { source = "github.com/hashicorp/packer-plugin-amazon", version = ">= 1" } # ERROR: Invalid plugin requirement: The source "github.com/hashicorp/packer-plugin-amazon" must not end in a name that starts with packer-: write amazon
  }
}

source "null" "a" {
  communicator = "none"
}

build {
  sources = ["source.null.a"]
}
