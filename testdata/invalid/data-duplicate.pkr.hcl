data "null" "a" {
  input = "x"
}

data "null" "a" { # ERROR: Duplicate data source
  input = "y"
}

source "null" "a" {
  communicator = "none"
}

build {
  sources = ["source.null.a"]
}
