source "null" "a.b" { # ERROR: Invalid name
  communicator = "none"
}

source "null" "a" {
  communicator = "none"
}

build {
  sources = ["source.null.a"]
}
