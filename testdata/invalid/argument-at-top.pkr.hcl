region = "eu-west-1" # ERROR: Unsupported argument

source "null" "a" {
  communicator = "none"
}

build {
  sources = ["source.null.a"]
}
