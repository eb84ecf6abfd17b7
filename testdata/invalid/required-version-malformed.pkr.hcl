packer {
  required_version = "about 1.9" # ERROR: Invalid version constraint
}

source "null" "a" {
  communicator = "none"
}

build {
  sources = ["source.null.a"]
}
