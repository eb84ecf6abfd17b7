source "null" { # ERROR: Missing name for source
}

source "null" "a" {
  communicator = "none"
}

build {
  sources = ["source.null.a"]
}
