source "null" "a" {
  communicator = "none"
}

build {
  sources = ["source.null.a"]

  hcp_packer_registry {
    bucket = "web" # ERROR: Unsupported argument
  }
}
