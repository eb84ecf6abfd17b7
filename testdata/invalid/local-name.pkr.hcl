local "a b" { # ERROR: Invalid name
  expression = 1
}

source "null" "a" {
  communicator = "none"
}

build {
  sources = ["source.null.a"]
}
