hcp_packer_registry {
  description = "long long long long long long long long long long long long long long long long long long long long long long long long long long long long long long long long long long long long long long long long long long long long long long long long long long long long long long long long long long long long " # ERROR: Description too long: It has 300 characters
}

source "null" "a" {
  communicator = "none"
}

build {
  sources = ["source.null.a"]
}
