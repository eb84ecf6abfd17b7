local "a" { # ERROR: Missing required argument
  sensitive = true
}

source "null" "a" {
  communicator = "none"
}

build {
  sources = ["source.null.a"]
}
