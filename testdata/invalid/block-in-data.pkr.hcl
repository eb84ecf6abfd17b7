data "null" "a" {
  input = "x"

  dynamic "input" { # ERROR: Unsupported block type
    for_each = []
    content {}
  }
}

source "null" "a" {
  communicator = "none"
}

build {
  sources = ["source.null.a"]
}
