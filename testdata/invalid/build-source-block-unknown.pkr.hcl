source "null" "a" {
  communicator = "none"
}

build {
  source "null.b" { # ERROR: Unknown source
  }
}
