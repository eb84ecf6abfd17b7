data "nul" "a" { # ERROR: Unknown data source: There is no data source of type "nul". Did you mean "null"?
  input = "x"
}

source "null" "a" {
  communicator = "none"
}

build {
  sources = ["source.null.a"]
}
