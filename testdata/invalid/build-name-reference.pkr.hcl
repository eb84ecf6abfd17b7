source "null" "a" {
  communicator = "none"
}

build {
  sources = ["source.null.a"]

  name = build.name # ERROR: Unknown variable
}
