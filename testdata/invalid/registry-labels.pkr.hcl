hcp_packer_registry {
  bucket_name   = "web"
  labels        = { os = "debian" } # ERROR: Both labels and bucket_labels
  bucket_labels = { os = "debian" }
}

source "null" "a" {
  communicator = "none"
}

build {
  sources = ["source.null.a"]
}
