source "null" "a" {
  communicator = "none"
}

build {
  sources = ["source.null.a"]

  hcp_packer_registry {
    bucket_name = "my_web_server" # ERROR: Invalid bucket_name: "my_web_server" must consist of 3 to 36
  }
}
