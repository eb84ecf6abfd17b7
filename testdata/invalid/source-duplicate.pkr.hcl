source "null" "a" {
  communicator = "none"
}

source "null" "a" { # ERROR: Duplicate source
  communicator = "none"
}

build {
  sources = ["source.null.a"]
}
