source "null" "a" {
  communicator = "none"
}

build {
  sources = ["source.null.a"]

  source = "null.a" # ERROR: Unsupported argument
}
