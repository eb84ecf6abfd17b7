source "null" "a" {
  communicator = "none"
}

hcp_packer_registry { # WARNING: No HCP Packer registry
  bucket_name = "web"
}

hcp_packer_registry { # ERROR: Duplicate hcp_packer_registry
  bucket_name = "web"
}

build {
  sources = ["source.null.a"]

  # One for the template and one for a build is not too many.
  hcp_packer_registry { # WARNING: No HCP Packer registry
    bucket_name = "web"
  }

  hcp_packer_registry { # ERROR: Duplicate hcp_packer_registry
    bucket_name = "web"
  }
}
