source "null" "a" {
  communicator = "none"
}

build {
  sources = ["source.null.a"]

  hcp_packer_registry { # WARNING: No HCP Packer registry
    bucket_name = "web"
  }
}
