packer {
  required_version = ">= 2.0.0" # ERROR: Unsupported Packer version
}

source "null" "a" {
  communicator = "none"
}

build {
  sources = ["source.null.a"]
}
