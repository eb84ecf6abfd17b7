packer {
  version = "1.9.0" # ERROR: Unsupported argument
}

source "null" "a" {
  communicator = "none"
}

build {
  sources = ["source.null.a"]
}
