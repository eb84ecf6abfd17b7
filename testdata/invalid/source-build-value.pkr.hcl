source "null" "a" {
  communicator = build.name # ERROR: Unknown variable
}

build {
  sources = ["source.null.a"]
}
