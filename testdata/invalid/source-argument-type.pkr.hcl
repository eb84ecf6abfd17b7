source "null" "a" {
  communicator = ["none"] # ERROR: Invalid value
}

build {
  sources = ["source.null.a"]
}
