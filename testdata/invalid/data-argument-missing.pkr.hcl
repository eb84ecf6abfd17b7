data "null" "a" { # ERROR: Missing required argument
}

source "null" "a" {
  communicator = "none"
}

build {
  sources = ["source.null.a"]
}
