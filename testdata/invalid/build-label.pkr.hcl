source "null" "a" {
  communicator = "none"
}

build "x" { # ERROR: Extraneous label for build
  sources = ["source.null.a"]
}
