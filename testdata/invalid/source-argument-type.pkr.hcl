source "null" "a" {
  communicator = ["none"] # ERROR: Unsuitable value
}

build {
  sources = ["source.null.a"]
}
